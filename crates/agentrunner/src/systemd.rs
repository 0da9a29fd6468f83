//! What systemd is told where it asked for it (`Type=notify`, `WatchdogSec=`): a datagram each, to the socket that
//! `NOTIFY_SOCKET` names.

use std::convert::Infallible;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use crate::settings::Source;

/// Whoever started this process and wants to know how it is.
#[derive(Debug, Default)]
pub(crate) struct Supervisor {
    socket: Option<UnixDatagram>,
    /// Within which time it wants to hear something.
    patience: Option<Duration>,
}

impl Supervisor {
    /// As the environment says; nobody, when it says nothing that can be used.
    pub(crate) fn find(environment: &dyn Source) -> Self {
        let environment = environment.all();
        let value = |name: &str| environment.get(name).map(String::as_str);
        let Some(socket) = value("NOTIFY_SOCKET").and_then(connect) else {
            return Self::default();
        };
        Self {
            socket: Some(socket),
            patience: patience(
                value("WATCHDOG_USEC"),
                value("WATCHDOG_PID"),
                std::process::id(),
            ),
        }
    }

    /// It can work.
    pub(crate) fn ready(&self) {
        self.tell("READY=1\nSTATUS=serving");
    }

    /// It comes to its end, as it was told to.
    pub(crate) fn stopping(&self) {
        self.tell("STOPPING=1\nSTATUS=handing back what is under way");
    }

    /// Tells again and again that the process moves, for as long as it does.
    pub(crate) async fn keep_telling(&self) -> Infallible {
        let Some(patience) = self.patience else {
            return std::future::pending().await;
        };
        // Twice in the time, as systemd's manual has it: one may come late.
        let mut beats = tokio::time::interval(patience / 2);
        loop {
            beats.tick().await;
            self.tell("WATCHDOG=1");
        }
    }

    fn tell(&self, words: &str) {
        if let Some(socket) = &self.socket {
            // Whoever does not listen any more misses nothing that the work depends on.
            drop(socket.send(words.as_bytes()));
        }
    }
}

fn connect(name: &str) -> Option<UnixDatagram> {
    let address = address(name)?;
    let socket = UnixDatagram::unbound().ok()?;
    socket.connect_addr(&address).ok()?;
    // A full socket must not stop the process that says it is well.
    socket.set_nonblocking(true).ok()?;
    Some(socket)
}

/// A path, or a name without one after an `@`.
fn address(name: &str) -> Option<SocketAddr> {
    match name.strip_prefix('@') {
        Some(name) => nameless(name),
        None if name.starts_with('/') => SocketAddr::from_pathname(name).ok(),
        None => None,
    }
}

#[cfg(target_os = "linux")]
fn nameless(name: &str) -> Option<SocketAddr> {
    <SocketAddr as std::os::linux::net::SocketAddrExt>::from_abstract_name(name).ok()
}

#[cfg(not(target_os = "linux"))]
fn nameless(_name: &str) -> Option<SocketAddr> {
    None
}

/// The time of the watchdog, if it is this process that is watched.
fn patience(micros: Option<&str>, watched: Option<&str>, own: u32) -> Option<Duration> {
    let is_meant = watched.is_none_or(|pid| pid.parse() == Ok(own));
    let micros = micros?.parse().ok().filter(|micros| *micros > 1)?;
    is_meant.then(|| Duration::from_micros(micros))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn heard(socket: &UnixDatagram) -> Option<String> {
        let mut words = [0; 64];
        let length = socket.recv(&mut words).ok()?;
        Some(String::from_utf8_lossy(&words[..length]).into_owned())
    }

    #[tokio::test(start_paused = true)]
    async fn systemd_hears_of_the_beginning_of_the_end_and_of_each_half_of_its_patience() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let systemd = UnixDatagram::bind(&path).unwrap();
        systemd.set_nonblocking(true).unwrap();
        let environment = BTreeMap::from([
            ("NOTIFY_SOCKET".to_owned(), path.display().to_string()),
            ("WATCHDOG_USEC".to_owned(), "10000000".to_owned()),
        ]);
        let supervisor = Supervisor::find(&environment);
        supervisor.ready();
        assert!(heard(&systemd).unwrap().starts_with("READY=1\n"));
        let told = tokio::time::timeout(Duration::from_secs(16), supervisor.keep_telling());
        assert!(told.await.is_err(), "it does not end");
        let beats = std::iter::from_fn(|| heard(&systemd)).collect::<Vec<_>>();
        assert_eq!(beats, ["WATCHDOG=1"; 4], "at 0, 5, 10 and 15 s");
        supervisor.stopping();
        assert!(heard(&systemd).unwrap().starts_with("STOPPING=1\n"));
    }

    #[test]
    fn without_a_socket_nothing_is_told() {
        for name in ["", "relative", "/nowhere/notify", "@"] {
            let environment = BTreeMap::from([("NOTIFY_SOCKET".to_owned(), name.to_owned())]);
            let supervisor = Supervisor::find(&environment);
            assert!(supervisor.socket.is_none(), "{name}");
            supervisor.ready();
        }
    }

    #[test]
    fn the_watchdog_of_another_process_is_not_ours() {
        let second = Some(Duration::from_secs(1));
        assert_eq!(patience(Some("1000000"), None, 7), second);
        assert_eq!(patience(Some("1000000"), Some("7"), 7), second);
        assert_eq!(patience(Some("1000000"), Some("8"), 7), None);
        assert_eq!(patience(Some("soon"), None, 7), None);
        assert_eq!(patience(Some("0"), None, 7), None);
        assert_eq!(patience(None, Some("7"), 7), None);
    }
}
