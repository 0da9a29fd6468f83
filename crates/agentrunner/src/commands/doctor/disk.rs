//! Whether what has to be written can be written, and for how long.

use std::path::{Path, PathBuf};

use tokio::process::Command;

use super::Finding;
use crate::settings::Settings;

/// Below this the database may soon be full.
const TOO_LITTLE_MIB: u64 = 500;
/// Below one of these somebody should see to it in time.
const LITTLE_MIB: u64 = 1024;
const LITTLE_PERCENT: u64 = 5;

pub(super) async fn check(settings: &Settings) -> Vec<Finding> {
    let mut findings = vec![can_be_written(
        "data folder",
        "DATA_DIR",
        &settings.data_dir,
    )];
    let mut folders = vec![settings.data_dir.clone()];
    if let Some(logs) = &settings.log.dir {
        findings.push(can_be_written("log folder", "LOG_DIR", logs));
        folders.push(logs.clone());
    }
    if settings.access.is_audited {
        let folder = settings.access.audit_log.parent().map(Path::to_owned);
        let folder = folder.filter(|folder| !folder.as_os_str().is_empty());
        let folder = folder.unwrap_or_else(|| PathBuf::from("."));
        if folder != settings.data_dir {
            findings.push(can_be_written(
                "audit log's folder",
                "AUDIT_LOG_PATH",
                &folder,
            ));
            folders.push(folder);
        }
    }
    let mut disks: Vec<(Space, PathBuf)> = Vec::new();
    for folder in folders {
        if let Some(space) = space(&folder).await
            && !disks.iter().any(|(known, _)| known.disk == space.disk)
        {
            disks.push((space, folder));
        }
    }
    findings.extend(disks.iter().map(|(space, folder)| space.judge(folder)));
    findings
}

fn can_be_written(what: &str, variable: &str, dir: &Path) -> Finding {
    let write = || -> std::io::Result<()> {
        std::fs::create_dir_all(dir)?;
        let probe = dir.join(format!(".doctor-{}", uuid::Uuid::now_v7().simple()));
        std::fs::write(&probe, b"doctor")?;
        std::fs::remove_file(&probe)
    };
    let dir = dir.display();
    match write() {
        Ok(()) => Finding::good(what, format!("{dir} can be written")),
        Err(error) => Finding::failed(
            what,
            format!("{dir} can't be written: {error}"),
            format!("sudo chown \"$USER\" {dir}; or set {variable} to another folder"),
        ),
    }
}

/// What a disk has.
#[derive(Debug, PartialEq, Eq)]
struct Space {
    disk: String,
    free_mib: u64,
    size_mib: u64,
}

/// As `df` tells; `None` where there is no `df`.
async fn space(dir: &Path) -> Option<Space> {
    let output = Command::new("df").arg("-Pk").arg(dir).output().await.ok()?;
    read(&String::from_utf8(output.stdout).ok()?)
}

fn read(table: &str) -> Option<Space> {
    let mut fields = table.lines().nth(1)?.split_whitespace();
    let disk = fields.next()?.to_owned();
    let size: u64 = fields.next()?.parse().ok()?;
    let free: u64 = fields.nth(1)?.parse().ok()?;
    Some(Space {
        disk,
        free_mib: free / 1024,
        size_mib: size / 1024,
    })
}

impl Space {
    fn judge(&self, folder: &Path) -> Finding {
        let Self {
            disk,
            free_mib,
            size_mib,
        } = self;
        let folder = folder.display();
        let percent = free_mib * 100 / size_mib.max(&1);
        let found = format!("{free_mib} MiB ({percent} %) are free for {folder} on {disk}");
        let advice = format!(
            "`agentrunner cleanup --dry-run` says what could go; `du -sh {folder}/*` says what is large; or move it to another disk"
        );
        if *free_mib < TOO_LITTLE_MIB {
            Finding::failed("disk", found, advice)
        } else if *free_mib < LITTLE_MIB || percent < LITTLE_PERCENT {
            Finding::warning("disk", found, advice)
        } else {
            Finding::good("disk", found)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::State;
    use super::*;

    #[test]
    fn what_df_prints_is_judged() {
        let of = |size: u64, free: u64| {
            let table = format!(
                "Filesystem     1024-blocks      Used Available Capacity Mounted on\n/dev/sda1 {size} 1 {free} 9% /\n"
            );
            read(&table).unwrap().judge(Path::new("data")).state
        };
        let gib = 1 << 20;
        assert_eq!(of(100 * gib, 50 * gib), State::Good);
        assert_eq!(of(100 * gib, 4 * gib), State::Warning);
        assert_eq!(of(10 * gib, gib - 1024), State::Warning);
        assert_eq!(of(100 * gib, gib / 4), State::Failed);
        assert_eq!(read("df: no such file\n"), None);
    }
}
