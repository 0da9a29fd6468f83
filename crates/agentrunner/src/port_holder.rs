//! Who has a port of this machine: told by the kernel's tables, for a message that names the culprit.

use std::collections::BTreeSet;
use std::path::Path;

use crate::client::Client;
use crate::settings::Settings;

/// Listening, in those tables.
const LISTENS: &str = "0A";

/// A process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Holder {
    pub(crate) name: String,
    pub(crate) pid: u32,
}

/// Who listens on a port; `None` when it can't be told: it is another user's, in another container, or this is no Linux.
pub(crate) fn holder(port: u16) -> Option<Holder> {
    let proc = Path::new("/proc");
    let tables = ["net/tcp", "net/tcp6"].map(|table| std::fs::read_to_string(proc.join(table)));
    let sockets: BTreeSet<String> = tables
        .iter()
        .flatten()
        .flat_map(|table| listening(table, port))
        .map(|inode| format!("socket:[{inode}]"))
        .collect();
    if sockets.is_empty() {
        return None;
    }
    let processes = std::fs::read_dir(proc).ok()?.flatten();
    let mut pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let pid = pids.find(|pid| has_one_of(&proc.join(pid.to_string()).join("fd"), &sockets))?;
    let name = std::fs::read_to_string(proc.join(pid.to_string()).join("comm")).ok()?;
    Some(Holder {
        name: name.trim().to_owned(),
        pid,
    })
}

fn has_one_of(files: &Path, sockets: &BTreeSet<String>) -> bool {
    let open = std::fs::read_dir(files).into_iter().flatten().flatten();
    let mut targets = open.filter_map(|file| std::fs::read_link(file.path()).ok());
    targets.any(|target| {
        target
            .to_str()
            .is_some_and(|target| sockets.contains(target))
    })
}

/// The inodes of the sockets of a table that listen on a port.
fn listening(table: &str, port: u16) -> impl Iterator<Item = &str> {
    let end = format!(":{port:04X}");
    table.lines().skip(1).filter_map(move |line| {
        let mut fields = line.split_whitespace().skip(1);
        let (local, _, state) = (fields.next()?, fields.next()?, fields.next()?);
        let inode = fields.nth(5)?;
        (local.ends_with(&end) && state == LISTENS).then_some(inode)
    })
}

/// Whether an AgentRunner answers on a port of this machine.
pub(crate) async fn is_agentrunner(settings: &Settings, port: u16) -> bool {
    let address = std::net::SocketAddr::new(settings.listen.own_address(), port);
    let schemes = match settings.listen.tls {
        Some(_) => ["https", "http"],
        // One that was started with other settings.
        None => ["http", "https"],
    };
    for scheme in schemes {
        if let Ok(client) = Client::new(&format!("{scheme}://{address}"), &settings.trust)
            && client.answers().await
        {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F43 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 4711 1 0000000000000000 100 0 0 10 0
   1: 0100007F:1F43 0100007F:D2A4 01 00000000:00000000 00:00000000 00000000  1000        0 4712 1 0000000000000000 20 4 30 10 -1
   2: 00000000:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4713 1 0000000000000000 100 0 0 10 0
   3: half a line
";

    #[test]
    fn only_who_listens_has_the_port() {
        let found = |port| listening(TABLE, port).collect::<Vec<_>>();
        assert_eq!(found(8003), ["4711"]);
        assert_eq!(found(8080), ["4713"]);
        assert!(found(80).is_empty());
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn this_process_is_found_by_its_port() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let found = holder(listener.local_addr().unwrap().port()).unwrap();
        assert_eq!(found.pid, std::process::id());
        assert!(!found.name.is_empty());
    }
}
