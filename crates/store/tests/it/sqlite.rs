//! SQLite: the suite, and what only a file can do.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use domain::{ExecutionId, Seq};
use rusqlite::{Connection, params};
use store::sqlite::{Options, Sqlite};
use store::{Appended, Certainty, Class, Error, Store, Then};
use tempfile::TempDir;

use crate::suite::Fixture;
use crate::suite::given::{append, at, claim, commit, leased, notes, outgoing, submit, task};
use crate::suite::packing::Rows;

/// A store in a folder of its own.
pub(crate) struct Embedded {
    store: Sqlite,
    path: PathBuf,
    _dir: TempDir,
}

/// Quick: what a lost power supply would do is not tested here.
pub(crate) fn quick() -> Options {
    Options {
        is_durable: false,
        ..Options::default()
    }
}

impl Embedded {
    /// Where its file is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    fn behind_its_back(&self, sql: &str, id: ExecutionId, seq: u32) {
        let conn = Connection::open(&self.path).unwrap();
        let changed = conn
            .execute(sql, params![id.as_uuid().into_bytes(), seq])
            .unwrap();
        assert_eq!(changed, 1);
    }

    fn stored(&self, sql: &str, id: ExecutionId, seq: u32) -> String {
        let conn = Connection::open(&self.path).unwrap();
        let key = id.as_uuid().into_bytes();
        conn.query_row(sql, params![key, seq], |row| row.get(0))
            .unwrap()
    }
}

#[async_trait]
impl Fixture for Embedded {
    async fn open() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("store.db");
        Self {
            store: Sqlite::open(&path, quick()).unwrap(),
            path,
            _dir: dir,
        }
    }

    fn store(&self) -> Arc<dyn Store> {
        Arc::new(self.store.clone())
    }

    async fn damage_step(&self, id: ExecutionId, seq: Seq) {
        let sql = "UPDATE steps SET body = '{\"kind\":\"nonsense\"}' WHERE execution_id = ?1 AND seq = ?2";
        self.behind_its_back(sql, id, seq.get());
    }

    async fn remove_step(&self, id: ExecutionId, seq: Seq) {
        let sql = "DELETE FROM steps WHERE execution_id = ?1 AND seq = ?2";
        self.behind_its_back(sql, id, seq.get());
    }

    async fn damage_task(&self, id: ExecutionId) {
        // Not even valid text.
        let sql = "UPDATE execution_specs SET spec = x'fffe00' || ?2 WHERE execution_id = ?1";
        self.behind_its_back(sql, id, 0);
    }
}

behaviour!(Embedded);
behaviour! { Embedded;
    packing: long_things_lie_compressed_and_are_read_as_they_were, rows_from_before_stay_readable,
        a_bomb_in_a_row_ends_its_execution_alone;
    silence: what_was_silent_for_long_goes_and_what_somebody_waits_for_stays;
}

#[async_trait]
impl Rows for Embedded {
    async fn compressing(&self, above: usize) -> Arc<dyn Store> {
        let options = Options {
            compress_above: above,
            ..quick()
        };
        Arc::new(Sqlite::open(&self.path, options).unwrap())
    }

    async fn stored_step(&self, id: ExecutionId, seq: Seq) -> String {
        let sql = "SELECT body FROM steps WHERE execution_id = ?1 AND seq = ?2";
        self.stored(sql, id, seq.get())
    }

    async fn stored_task(&self, id: ExecutionId) -> String {
        let sql = "SELECT spec FROM execution_specs WHERE execution_id = ?1 AND ?2 = 0";
        self.stored(sql, id, 0)
    }

    async fn stored_result(&self, id: ExecutionId) -> String {
        let sql = "SELECT outcome FROM execution_results WHERE execution_id = ?1 AND ?2 = 0";
        self.stored(sql, id, 0)
    }

    async fn write_step(&self, id: ExecutionId, seq: Seq, body: &str) {
        let conn = Connection::open(&self.path).unwrap();
        let sql = "UPDATE steps SET body = ?3 WHERE execution_id = ?1 AND seq = ?2";
        let key = id.as_uuid().into_bytes();
        let changed = conn.execute(sql, params![key, seq.get(), body]).unwrap();
        assert_eq!(changed, 1);
    }
}

/// Whether SQLite finds the file whole.
pub(crate) fn is_whole(path: &Path) -> bool {
    let conn = Connection::open(path).unwrap();
    let verdict: String = conn
        .query_row("PRAGMA integrity_check", [], |row| row.get(0))
        .unwrap();
    let orphans = conn
        .prepare("PRAGMA foreign_key_check")
        .unwrap()
        .exists([])
        .unwrap();
    verdict == "ok" && !orphans
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[tokio::test]
async fn folder_and_files_are_for_this_user_alone() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("deep/data");
    let path = folder.join("store.db");
    let store = Sqlite::open(&path, quick()).unwrap();
    submit(&store, task("a")).await;
    assert_eq!(mode(&folder), 0o700);
    for file in ["store.db", "store.db-wal", "store.db-shm"] {
        assert_eq!(mode(&folder.join(file)), 0o600, "{file}");
    }
    store.close().await.unwrap();
    assert!(
        !folder.join("store.db-wal").exists(),
        "closing leaves one file"
    );
}

#[tokio::test]
async fn what_was_committed_is_there_after_opening_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.db");
    let store = Sqlite::open(&path, Options::default()).unwrap();
    let owner = leased(&store, task("a")).await;
    commit(
        &store,
        append(&owner, at(1), notes(&owner, 1, 3), Then::Continue),
    )
    .await;
    store.close().await.unwrap();
    let store = Sqlite::open(&path, Options::default()).unwrap();
    let again = claim(&store, 1, at(10)).await.remove(0);
    assert_eq!(again.execution, owner.execution);
    assert_eq!(again.steps, notes(&owner, 1, 3));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_processes_on_one_file_keep_apart() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.db");
    let stores = [(); 2].map(|()| Sqlite::open(&path, quick()).unwrap());
    for n in 0..40 {
        submit(&stores[n % 2], task("a")).await;
    }
    let claimers = stores.clone().map(|store| {
        tokio::spawn(async move {
            let mut ids = Vec::new();
            loop {
                let claimed = claim(&store, 3, at(1)).await;
                if claimed.is_empty() {
                    return ids;
                }
                for owner in claimed {
                    commit(
                        &store,
                        append(&owner, at(1), notes(&owner, 1, 1), Then::Continue),
                    )
                    .await;
                    ids.push(owner.execution.id);
                }
            }
        })
    });
    let mut all = Vec::new();
    for claimer in claimers {
        all.extend(claimer.await.unwrap());
    }
    all.sort();
    all.dedup();
    assert_eq!(all.len(), 40);
    let seen = stores[0].steps(all[0], None, 10).await.unwrap();
    assert_eq!(seen, stores[1].steps(all[0], None, 10).await.unwrap());
}

#[tokio::test]
async fn a_full_disk_refuses_writes_and_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.db");
    let small = Options {
        max_pages: Some(120),
        ..quick()
    };
    let store = Sqlite::open(&path, small).unwrap();
    let owner = leased(&store, task("a")).await;
    let mut kept = 0;
    let error = loop {
        match store
            .append(append(
                &owner,
                at(1),
                notes(&owner, kept + 1, kept + 20),
                Then::Continue,
            ))
            .await
        {
            Ok(answer) => assert_eq!(answer, Appended::Applied),
            Err(error) => break error,
        }
        kept += 20;
        assert!(kept < 100_000, "it never fills up");
    };
    assert_eq!(
        (error.class(), error.certainty()),
        (Class::Unavailable, Certainty::NotApplied)
    );
    assert!(error.to_string().contains("free some space"), "{error}");
    let steps = store
        .steps(owner.execution.id, None, usize::MAX)
        .await
        .unwrap();
    assert_eq!(steps, notes(&owner, 1, kept));
    store.close().await.unwrap();
    assert!(is_whole(&path));
    // Space returns.
    let store = Sqlite::open(&path, quick()).unwrap();
    commit(
        &store,
        append(
            &owner,
            at(1),
            notes(&owner, kept + 1, kept + 20),
            Then::Continue,
        ),
    )
    .await;
}

#[tokio::test]
async fn another_processs_long_write_is_told_and_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.db");
    let hasty = Options {
        busy_timeout: std::time::Duration::from_millis(50),
        ..quick()
    };
    let store = Sqlite::open(&path, hasty).unwrap();
    let other = Connection::open(&path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let error = store
        .publish(&[crate::suite::given::event("e")])
        .await
        .unwrap_err();
    assert_eq!(
        (error.class(), error.certainty()),
        (Class::Unavailable, Certainty::NotApplied)
    );
    assert!(error.to_string().contains("another process"), "{error}");
    other.execute_batch("ROLLBACK").unwrap();
    assert!(outgoing(&store).await.is_empty());
    store.check().await.unwrap();
}

#[test]
fn what_can_not_be_opened_is_told_plainly() {
    let dir = tempfile::tempdir().unwrap();
    let told = |path: &Path| Sqlite::open(path, quick()).unwrap_err().to_string();
    let file = dir.path().join("file");
    std::fs::write(&file, "text ".repeat(1000)).unwrap();
    assert!(told(&file).contains("not a SQLite database"));
    assert!(told(&file.join("below.db")).contains("a part of the path is a file"));
    assert!(told(dir.path()).contains("it is a folder"));
    let newer = dir.path().join("newer.db");
    drop(Sqlite::open(&newer, quick()).unwrap());
    let conn = Connection::open(&newer).unwrap();
    conn.execute_batch("PRAGMA user_version = 77").unwrap();
    let error = Sqlite::open(&newer, quick()).unwrap_err();
    assert!(matches!(error, Error::TooNew { found: 77, .. }), "{error}");
}
