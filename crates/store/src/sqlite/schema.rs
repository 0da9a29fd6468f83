//! The versions of the schema, and how a database gets from one to another.
//!
//! Each migration is one transaction together with the number that says that it was made, so a program that is
//! killed half-way has made it or has not.

use std::path::Path;

use domain::Time;
use rusqlite::Connection;

use super::fault::{Fault, Outcome, corrupt};
use super::sql::{Sql, counted, micros};
use super::{Options, connection};
use crate::copying::{ALIVE, KEPT};
use crate::preflight::{self, Preflight, TOLD, TableSize};
use crate::{Error, Result};

/// Marks a database file as ours: "AgRn".
const APPLICATION_ID: i32 = 0x4167_526e;

/// How many migrations this program knows.
pub(crate) const NEWEST: u32 = MIGRATIONS.len() as u32;

struct Migration {
    name: &'static str,
    up: &'static str,
    down: &'static str,
}

const MIGRATIONS: [Migration; 15] = [
    Migration {
        name: "0001_journal",
        up: include_str!("../../migrations/sqlite/0001_journal.up.sql"),
        down: include_str!("../../migrations/sqlite/0001_journal.down.sql"),
    },
    Migration {
        name: "0002_agents",
        up: include_str!("../../migrations/sqlite/0002_agents.up.sql"),
        down: include_str!("../../migrations/sqlite/0002_agents.down.sql"),
    },
    Migration {
        name: "0003_workers",
        up: include_str!("../../migrations/sqlite/0003_workers.up.sql"),
        down: include_str!("../../migrations/sqlite/0003_workers.down.sql"),
    },
    Migration {
        name: "0004_outbox_claims",
        up: include_str!("../../migrations/sqlite/0004_outbox_claims.up.sql"),
        down: include_str!("../../migrations/sqlite/0004_outbox_claims.down.sql"),
    },
    Migration {
        name: "0005_conversations",
        up: include_str!("../../migrations/sqlite/0005_conversations.up.sql"),
        down: include_str!("../../migrations/sqlite/0005_conversations.down.sql"),
    },
    Migration {
        name: "0006_schedules",
        up: include_str!("../../migrations/sqlite/0006_schedules.up.sql"),
        down: include_str!("../../migrations/sqlite/0006_schedules.down.sql"),
    },
    Migration {
        name: "0007_inbox",
        up: include_str!("../../migrations/sqlite/0007_inbox.up.sql"),
        down: include_str!("../../migrations/sqlite/0007_inbox.down.sql"),
    },
    Migration {
        name: "0008_shared_state",
        up: include_str!("../../migrations/sqlite/0008_shared_state.up.sql"),
        down: include_str!("../../migrations/sqlite/0008_shared_state.down.sql"),
    },
    Migration {
        name: "0009_api_keys",
        up: include_str!("../../migrations/sqlite/0009_api_keys.up.sql"),
        down: include_str!("../../migrations/sqlite/0009_api_keys.down.sql"),
    },
    Migration {
        name: "0010_audit_log",
        up: include_str!("../../migrations/sqlite/0010_audit_log.up.sql"),
        down: include_str!("../../migrations/sqlite/0010_audit_log.down.sql"),
    },
    Migration {
        name: "0011_outgoing",
        up: include_str!("../../migrations/sqlite/0011_outgoing.up.sql"),
        down: include_str!("../../migrations/sqlite/0011_outgoing.down.sql"),
    },
    Migration {
        name: "0012_errands",
        up: include_str!("../../migrations/sqlite/0012_errands.up.sql"),
        down: include_str!("../../migrations/sqlite/0012_errands.down.sql"),
    },
    Migration {
        name: "0013_agent_switches",
        up: include_str!("../../migrations/sqlite/0013_agent_switches.up.sql"),
        down: include_str!("../../migrations/sqlite/0013_agent_switches.down.sql"),
    },
    Migration {
        name: "0014_tool_pins",
        up: include_str!("../../migrations/sqlite/0014_tool_pins.up.sql"),
        down: include_str!("../../migrations/sqlite/0014_tool_pins.down.sql"),
    },
    Migration {
        name: "0015_restores",
        up: include_str!("../../migrations/sqlite/0015_restores.up.sql"),
        down: include_str!("../../migrations/sqlite/0015_restores.down.sql"),
    },
];

/// A migration, and whether a database has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MigrationStatus {
    /// Its number and name.
    pub name: &'static str,
    /// Whether it was made.
    pub is_applied: bool,
    /// What is lost when it is undone, in words.
    pub loses: Vec<String>,
    /// The tables that making it goes through.
    pub touches: Vec<String>,
}

/// A database's schema, for `migrate up`, `down` and `status`. [`super::Sqlite::open`] goes up by itself.
#[derive(Debug)]
pub struct Schema {
    conn: Connection,
}

impl Schema {
    /// Opens a database without migrating it; makes an empty one if there is none.
    ///
    /// # Errors
    /// It can't be opened, is another program's, or newer than this program.
    pub fn open(path: &Path) -> Result<Self> {
        let options = Options::default();
        let path = connection::prepare(path)?;
        let conn = connection::open(&path, &options)?;
        check(&conn, &path)?;
        connection::check_writable(&conn, &path)?;
        connection::set_log(&conn, &path)?;
        connection::set_writer(&conn, &options)?;
        Ok(Self { conn })
    }

    /// All migrations that this program knows, in order.
    ///
    /// # Errors
    /// The database can't be read.
    pub fn status(&self) -> Result<Vec<MigrationStatus>> {
        let version = version(&self.conn)? as usize;
        let statuses = MIGRATIONS.iter().enumerate();
        Ok(statuses
            .map(|(index, migration)| MigrationStatus {
                name: migration.name,
                is_applied: index < version,
                loses: preflight::losses(migration.down),
                touches: preflight::touched(migration.up),
            })
            .collect())
    }

    /// Who works with it at this time, and how large it is.
    ///
    /// # Errors
    /// The database can't be read.
    pub fn preflight(&self, now: Time) -> Result<Preflight> {
        let mut found = Preflight {
            alive: alive(&self.conn, now)?,
            ..Preflight::default()
        };
        for kept in &KEPT {
            if !has_table(&self.conn, kept.name)? {
                continue;
            }
            let count = format!("SELECT count(*) FROM {}", kept.name);
            let rows = self.conn.first(&count, [], |row| row.get::<_, i64>(0))?;
            found.tables.push(TableSize {
                name: kept.name.to_owned(),
                rows: counted(rows.unwrap_or_default()),
                bytes: None,
            });
        }
        found
            .tables
            .sort_by_key(|table| std::cmp::Reverse(table.rows));
        found.tables.truncate(TOLD);
        Ok(found)
    }

    /// Makes all migrations that are missing; answers how many.
    ///
    /// # Errors
    /// The database can't be written; those made before stay.
    pub fn up(&mut self) -> Result<usize> {
        up(&mut self.conn)
    }

    /// Undoes the last `n` migrations, with all data in what they had made; answers how many.
    ///
    /// # Errors
    /// The database can't be written; those undone before stay undone.
    pub fn down(&mut self, n: usize) -> Result<usize> {
        let mut undone = 0;
        while undone < n && undo_one(&mut self.conn)? {
            undone += 1;
        }
        Ok(undone)
    }
}

/// The workers that were heard of just before this time.
pub(super) fn alive(conn: &Connection, now: Time) -> Result<Vec<String>> {
    if !has_table(conn, "workers")? {
        return Ok(Vec::new());
    }
    Ok(conn.all(
        "SELECT id FROM workers WHERE last_heartbeat > ?1 ORDER BY id",
        [micros(now - ALIVE)],
        |row| row.get(0),
    )?)
}

fn has_table(conn: &Connection, name: &str) -> Result<bool> {
    let found = conn.first(
        "SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = ?1",
        [name],
        |_| Ok(()),
    )?;
    Ok(found.is_some())
}

/// Refuses files that are not ours or newer than we are, before anything is written to them.
pub(super) fn check(conn: &Connection, path: &Path) -> Result<()> {
    let what = || path.display().to_string();
    let readable = || -> Outcome<(i32, i64)> {
        let application = conn.pragma_query_value(None, "application_id", |row| row.get(0))?;
        let objects = conn.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
        Ok((application, objects))
    };
    let (application, objects) = readable().map_err(|fault| match Error::from(fault) {
        Error::Corrupt { message, .. } => corrupt(
            what(),
            format!("{message}; move it away, or point the data folder elsewhere"),
        ),
        other => other,
    })?;
    let is_ours = application == APPLICATION_ID || (application == 0 && objects == 0);
    if !is_ours {
        return Err(corrupt(
            what(),
            "it is a database of another program; point the data folder elsewhere",
        ));
    }
    version(conn).map(drop)
}

/// Makes all migrations that are missing; answers how many.
pub(super) fn up(conn: &mut Connection) -> Result<usize> {
    up_to(conn, NEWEST)
}

/// Makes the missing ones of the first `wanted` migrations; answers how many.
pub(super) fn up_to(conn: &mut Connection, wanted: u32) -> Result<usize> {
    if wanted > NEWEST {
        let (found, known) = (wanted, NEWEST);
        return Err(Error::TooNew { found, known });
    }
    let mut made = 0;
    while make_one(conn, wanted)? {
        made += 1;
    }
    Ok(made)
}

/// The number of migrations that were made.
pub(super) fn version(conn: &Connection) -> Result<u32> {
    let known = MIGRATIONS.len() as u32;
    let found: u32 = conn
        .pragma_query_value(None, "user_version", |row| row.get(0))
        .map_err(Fault::from)?;
    if found > known {
        return Err(Error::TooNew { found, known });
    }
    Ok(found)
}

fn make_one(conn: &mut Connection, wanted: u32) -> Result<bool> {
    // Looked at first without a lock, so that opening a current database writes nothing.
    if version(conn)? >= wanted {
        return Ok(false);
    }
    change(conn, |conn| {
        let version = version(conn)?;
        let migration = MIGRATIONS.get(version as usize);
        let Some(migration) = migration.filter(|_| version < wanted) else {
            return Ok(false);
        };
        conn.execute_batch(migration.up)?;
        conn.pragma_update(None, "application_id", APPLICATION_ID)?;
        conn.pragma_update(None, "user_version", version + 1)?;
        Ok(true)
    })
}

fn undo_one(conn: &mut Connection) -> Result<bool> {
    change(conn, |conn| {
        let Some(below) = version(conn)?.checked_sub(1) else {
            return Ok(false);
        };
        let Some(migration) = MIGRATIONS.get(below as usize) else {
            return Ok(false);
        };
        conn.execute_batch(migration.down)?;
        conn.pragma_update(None, "user_version", below)?;
        Ok(true)
    })
}

/// Runs `work` in a transaction that no other process can come between.
fn change(conn: &mut Connection, work: impl FnOnce(&Connection) -> Outcome<bool>) -> Result<bool> {
    let tx = conn
        .transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)
        .map_err(Fault::from)?;
    let result = work(&tx)?;
    tx.commit().map_err(Fault::from)?;
    Ok(result)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn objects(path: &Path) -> Vec<String> {
        let conn = Connection::open(path).unwrap();
        let mut statement = conn
            .prepare(
                "SELECT type || ' ' || name FROM sqlite_schema WHERE name NOT LIKE 'sqlite_%' ORDER BY 1",
            )
            .unwrap();
        let rows = statement.query_map([], |row| row.get(0)).unwrap();
        rows.map(Result::unwrap).collect()
    }

    #[test]
    fn down_undoes_what_up_has_made() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.db");
        let mut schema = Schema::open(&path).unwrap();
        assert!(schema.status().unwrap().iter().all(|m| !m.is_applied));
        assert_eq!(schema.up().unwrap(), MIGRATIONS.len());
        let full = objects(&path);
        for n in 1..=MIGRATIONS.len() {
            assert_eq!(schema.down(n).unwrap(), n);
            assert_eq!(schema.up().unwrap(), n);
            assert_eq!(objects(&path), full);
        }
        assert_eq!(schema.up().unwrap(), 0);
        assert_eq!(schema.down(99).unwrap(), MIGRATIONS.len());
        assert_eq!(objects(&path), Vec::<String>::new());
    }

    #[test]
    fn a_migration_that_fails_half_way_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.db");
        drop(Schema::open(&path).unwrap());
        // The last object of the first migration is there already, so that it fails at its end.
        let conn = Connection::open(&path).unwrap();
        conn.execute_batch("CREATE TABLE checks (x); PRAGMA application_id = 1097290350")
            .unwrap();
        let mut schema = Schema::open(&path).unwrap();
        assert!(schema.up().is_err());
        assert_eq!(objects(&path), ["table checks"]);
        conn.execute_batch("DROP TABLE checks").unwrap();
        assert_eq!(schema.up().unwrap(), MIGRATIONS.len());
    }

    #[test]
    fn what_is_not_ours_is_refused_untouched() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.db");
        std::fs::write(
            &path,
            "just a text file that somebody keeps here".repeat(100),
        )
        .unwrap();
        let error = Schema::open(&path).unwrap_err();
        assert!(
            error.to_string().contains("not a SQLite database"),
            "{error}"
        );

        let path = dir.path().join("b.db");
        let other = Connection::open(&path).unwrap();
        other.execute_batch("CREATE TABLE mine (x)").unwrap();
        let error = Schema::open(&path).unwrap_err();
        assert!(error.to_string().contains("another program"), "{error}");

        let path = dir.path().join("c.db");
        Schema::open(&path).unwrap().up().unwrap();
        let newer = Connection::open(&path).unwrap();
        newer.execute_batch("PRAGMA user_version = 99").unwrap();
        let error = Schema::open(&path).unwrap_err();
        assert!(
            matches!(
                error,
                Error::TooNew { found: 99, known } if known as usize == MIGRATIONS.len()
            ),
            "{error}"
        );

        let error = Schema::open(dir.path()).unwrap_err();
        assert!(error.to_string().contains("folder"), "{error}");
    }
}
