//! A small disk for PostgreSQL, so that it can be full.

use std::path::PathBuf;
use std::process::Command;

use testkit::servers::Server;

use crate::backing;

/// More than what PostgreSQL writes in a run with [`LEAST_WAL`].
const SIZE: &str = "1024m";
/// PostgreSQL keeps no more of its log than it must.
const LEAST_WAL: &str = "ALTER SYSTEM SET max_wal_size = '128MB'";

/// A file system in memory with PostgreSQL's data on it, gone with the value.
pub(super) struct SmallDisk {
    data: PathBuf,
}

impl SmallDisk {
    /// Moves a server's data to a small disk of its own. `Err` says why that can't be done here.
    pub(super) async fn under(server: &Server) -> Result<Self, String> {
        if run("id", &["-u"]).as_deref() != Ok("0") {
            return Err("only root can mount a small disk".to_owned());
        }
        let session = backing::session(&server.url()).await;
        session.batch_execute(LEAST_WAL).await.unwrap();
        let row = session.query_one("SHOW data_directory", &[]).await.unwrap();
        let data = PathBuf::from(row.get::<_, String>(0));
        drop(session);
        server.stop().await;
        let moved = move_to_memory(&data);
        server.up().await;
        moved.map(|()| Self { data })
    }

    fn filler(&self) -> PathBuf {
        self.data.join("filler")
    }

    /// Leaves no byte free.
    pub(super) fn fill(&self) {
        let file = format!("of={}", self.filler().display());
        // It ends when nothing is left: that is its purpose.
        run("dd", &["if=/dev/zero", &file, "bs=1M"]).ok();
    }

    /// Makes room again.
    pub(super) fn free(&self) {
        std::fs::remove_file(self.filler()).ok();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // PostgreSQL still runs on it: it goes when that is gone.
        let path = self.data.to_str().unwrap_or_default();
        run("umount", &["--lazy", path]).ok();
    }
}

fn move_to_memory(data: &std::path::Path) -> Result<(), String> {
    let aside = data.with_extension("aside");
    let (data, aside) = (data.to_str().unwrap(), aside.to_str().unwrap());
    run("cp", &["--archive", data, aside])?;
    let size = format!("size={SIZE},mode=700");
    run("mount", &["-t", "tmpfs", "-o", &size, "tmpfs", data])?;
    run("chown", &["--reference", aside, data])?;
    run("cp", &["--archive", &format!("{aside}/."), data])?;
    run("rm", &["-r", aside]).map(drop)
}

fn run(program: &str, arguments: &[&str]) -> Result<String, String> {
    let output = Command::new(program).args(arguments).output();
    let output = output.map_err(|error| format!("{program}: {error}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(format!("{program} {}: {said}", arguments.join(" ")))
}
