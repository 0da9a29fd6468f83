//! Who this process is, and whether another one is certainly gone.
//!
//! A worker's id is `host-pid-place-start-random`. Host and pid are for people: in containers every process may be
//! number 1 of the same host name. The *place* says which processes can see each other: this boot of this kernel, this
//! namespace of process ids, this user. The *start* is when the kernel started the process, so that a number used
//! again is no longer the same process.
//!
//! Gone is only who can be proven gone: a worker of the same place whose number nobody has, or somebody who started at
//! another moment. Of all others - another machine or container, another boot - nothing can be known here, and their
//! leases run out by themselves.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use anyhow::Context as _;
use domain::WorkerId;
use uuid::Uuid;

const RANDOM_DIGITS: usize = 8;
const PLACE_DIGITS: usize = 12;
/// Stands for a place that can't be told; nobody is ever judged by it.
const NOWHERE: &str = "0";

/// A new worker's id.
///
/// # Errors
/// Never, with what a host name is reduced to.
pub(super) fn worker_id() -> anyhow::Result<WorkerId> {
    let process = std::process::id();
    let random = Uuid::new_v4().simple().to_string();
    let random = random.get(..RANDOM_DIGITS).unwrap_or(&random);
    let (place, start) = match (here(), start_of(process)) {
        (Some(place), Some(start)) => (place, start),
        _ => (NOWHERE.to_owned(), 0),
    };
    format!("{}-{process}-{place}-{start}-{random}", host_name())
        .parse()
        .context("the worker's id")
}

/// Whether a worker is certainly gone. `false` when it lives, or nobody here can know.
pub(super) fn is_gone(worker: &WorkerId) -> bool {
    here().is_some_and(|here| is_gone_from(worker, &here, start_of))
}

fn is_gone_from(worker: &WorkerId, here: &str, start_of: impl Fn(u32) -> Option<u64>) -> bool {
    let mut parts = worker.as_str().rsplitn(5, '-').skip(1);
    let (Some(start), Some(place), Some(process)) = (parts.next(), parts.next(), parts.next())
    else {
        return false;
    };
    let (Ok(start), Ok(process)) = (start.parse::<u64>(), process.parse::<u32>()) else {
        return false;
    };
    place == here && place != NOWHERE && start_of(process) != Some(start)
}

/// The place of this process; none when it can't be told, or when `/proc` shows another namespace than its own.
fn here() -> Option<String> {
    let proc = Path::new("/proc");
    let link = |name: &str| std::fs::read_link(proc.join(name)).ok();
    let seen = link("self")?;
    if seen.to_str()? != std::process::id().to_string() {
        return None;
    }
    let boot = std::fs::read_to_string(proc.join("sys/kernel/random/boot_id")).ok()?;
    // The numbers of namespaces are used again, but not while one of them lives: whoever has the same number as this
    // one either is in it or is gone with it. `time` is missing before Linux 5.6.
    let processes = link("self/ns/pid")?;
    let clock = link("self/ns/time").unwrap_or_default();
    // `hidepid` hides the processes of other users.
    let user = std::fs::metadata(proc.join("self")).ok()?.uid();
    let place = format!("{boot} {} {} {user}", processes.display(), clock.display());
    let digest = Uuid::new_v5(&Uuid::nil(), place.as_bytes())
        .simple()
        .to_string();
    digest.get(..PLACE_DIGITS).map(str::to_owned)
}

/// When the kernel started a process, in its ticks since boot; none when there is no such process to be seen.
fn start_of(process: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The name, in brackets, may hold anything.
    let (_, after_name) = stat.rsplit_once(')')?;
    // The 22nd field; what follows the name is the third.
    after_name.split_whitespace().nth(19)?.parse().ok()
}

/// The name of this machine or container, in letters that are safe everywhere.
pub(super) fn host_name() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host: String = host
        .trim()
        .chars()
        .filter(|c| c.is_ascii_alphanumeric() || ".-_".contains(*c))
        .take(100)
        .collect();
    if host.is_empty() {
        "localhost".to_owned()
    } else {
        host
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn worker(text: &str) -> WorkerId {
        text.parse().unwrap()
    }

    /// This place has process 1, started at 70, and process 42, started at 500.
    fn is_gone_here(text: &str) -> bool {
        let start_of = |process| match process {
            1 => Some(70),
            42 => Some(500),
            _ => None,
        };
        is_gone_from(&worker(text), "abc123", start_of)
    }

    #[test]
    fn who_lives_in_this_place_is_not_gone() {
        assert!(!is_gone_here("box-42-abc123-500-ffff"));
        assert!(!is_gone_here("my-box-1-abc123-70-ffff"));
    }

    #[test]
    fn who_died_in_this_place_is_gone_also_when_another_has_its_number() {
        assert!(is_gone_here("box-7-abc123-300-ffff"));
        assert!(is_gone_here("box-42-abc123-499-ffff"));
        // A container's first process is number 1 each time.
        assert!(is_gone_here("my-box-1-abc123-69-ffff"));
    }

    #[test]
    fn of_another_container_machine_or_boot_nothing_is_known() {
        for other in [
            "box-1-999999-70-ffff",
            "box-1-999999-1-ffff",
            "box-7-999999-300-ffff",
            "box-7-0-0-ffff",
            "box-7-abc123-then-ffff",
            "box-7-ffff",
            "somebody",
        ] {
            assert!(!is_gone_here(other), "{other}");
        }
        let nowhere = is_gone_from(&worker("box-7-0-0-ffff"), NOWHERE, |_| None);
        assert!(!nowhere, "those who can't tell their place are not judged");
    }

    #[test]
    fn a_worker_is_never_the_same_twice() {
        assert_ne!(worker_id().unwrap(), worker_id().unwrap());
    }

    #[test]
    fn this_process_lives_and_an_ended_one_of_this_machine_is_gone() {
        let own = worker_id().unwrap();
        assert!(!is_gone(&own), "{own}");
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .unwrap();
        let start = start_of(child.id()).unwrap();
        let place = here().unwrap();
        let id = worker(&format!("box-{}-{place}-{start}-ffff", child.id()));
        assert!(!is_gone(&id));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(is_gone(&id), "{id}");
    }
}
