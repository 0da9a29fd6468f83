//! The versions of the schema, and how a database gets from one to another.
//!
//! Each migration is one transaction together with the row that says that it was made, so a program that is killed
//! half-way has made it or has not. An advisory lock lets one process migrate at a time; the others wait and find that
//! it was made.

use std::sync::Arc;

use super::Settings;
use super::connection::{Conn, Role};
use super::fault::{Outcome, corrupt};
use super::partitions;
use super::settings::Server;
use super::sql::get;
use crate::{Error, Result};

/// Names our advisory lock: "AgRn".
const LOCK: i64 = 0x4167_526e;

struct Migration {
    name: &'static str,
    up: &'static str,
    down: &'static str,
}

const MIGRATIONS: [Migration; 14] = [
    Migration {
        name: "0001_journal",
        up: include_str!("../../migrations/postgres/0001_journal.up.sql"),
        down: include_str!("../../migrations/postgres/0001_journal.down.sql"),
    },
    Migration {
        name: "0002_agents",
        up: include_str!("../../migrations/postgres/0002_agents.up.sql"),
        down: include_str!("../../migrations/postgres/0002_agents.down.sql"),
    },
    Migration {
        name: "0003_workers",
        up: include_str!("../../migrations/postgres/0003_workers.up.sql"),
        down: include_str!("../../migrations/postgres/0003_workers.down.sql"),
    },
    Migration {
        name: "0004_outbox_claims",
        up: include_str!("../../migrations/postgres/0004_outbox_claims.up.sql"),
        down: include_str!("../../migrations/postgres/0004_outbox_claims.down.sql"),
    },
    Migration {
        name: "0005_conversations",
        up: include_str!("../../migrations/postgres/0005_conversations.up.sql"),
        down: include_str!("../../migrations/postgres/0005_conversations.down.sql"),
    },
    Migration {
        name: "0006_schedules",
        up: include_str!("../../migrations/postgres/0006_schedules.up.sql"),
        down: include_str!("../../migrations/postgres/0006_schedules.down.sql"),
    },
    Migration {
        name: "0007_inbox",
        up: include_str!("../../migrations/postgres/0007_inbox.up.sql"),
        down: include_str!("../../migrations/postgres/0007_inbox.down.sql"),
    },
    Migration {
        name: "0008_shared_state",
        up: include_str!("../../migrations/postgres/0008_shared_state.up.sql"),
        down: include_str!("../../migrations/postgres/0008_shared_state.down.sql"),
    },
    Migration {
        name: "0009_api_keys",
        up: include_str!("../../migrations/postgres/0009_api_keys.up.sql"),
        down: include_str!("../../migrations/postgres/0009_api_keys.down.sql"),
    },
    Migration {
        name: "0010_audit_log",
        up: include_str!("../../migrations/postgres/0010_audit_log.up.sql"),
        down: include_str!("../../migrations/postgres/0010_audit_log.down.sql"),
    },
    Migration {
        name: "0011_outgoing",
        up: include_str!("../../migrations/postgres/0011_outgoing.up.sql"),
        down: include_str!("../../migrations/postgres/0011_outgoing.down.sql"),
    },
    Migration {
        name: "0012_errands",
        up: include_str!("../../migrations/postgres/0012_errands.up.sql"),
        down: include_str!("../../migrations/postgres/0012_errands.down.sql"),
    },
    Migration {
        name: "0013_agent_switches",
        up: include_str!("../../migrations/postgres/0013_agent_switches.up.sql"),
        down: include_str!("../../migrations/postgres/0013_agent_switches.down.sql"),
    },
    Migration {
        name: "0014_tool_pins",
        up: include_str!("../../migrations/postgres/0014_tool_pins.up.sql"),
        down: include_str!("../../migrations/postgres/0014_tool_pins.down.sql"),
    },
];

/// A migration, and whether a database has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MigrationStatus {
    /// Its number and name.
    pub name: &'static str,
    /// Whether it was made.
    pub is_applied: bool,
}

/// A database's schema, for `migrate up`, `down` and `status`. [`super::Postgres::connect`] goes up by itself unless
/// it is told not to.
#[derive(Debug)]
pub struct Schema {
    conn: Conn,
}

impl Schema {
    /// Connects to a database without migrating it.
    ///
    /// # Errors
    /// It can't be reached, or is newer than this program.
    pub async fn connect(settings: &Settings) -> Result<Self> {
        let server = Arc::new(Server::new(settings)?);
        let mut conn = Conn::open(&server, Role::General).await?;
        version(&mut conn).await?;
        Ok(Self { conn })
    }

    /// All migrations that this program knows, in order.
    ///
    /// # Errors
    /// The database can't be read.
    pub async fn status(&mut self) -> Result<Vec<MigrationStatus>> {
        let version = version(&mut self.conn).await? as usize;
        let statuses = MIGRATIONS.iter().enumerate();
        Ok(statuses
            .map(|(index, migration)| MigrationStatus {
                name: migration.name,
                is_applied: index < version,
            })
            .collect())
    }

    /// Makes all migrations that are missing; answers how many.
    ///
    /// # Errors
    /// The database can't be written; those made before stay.
    pub async fn up(&mut self) -> Result<usize> {
        Ok(up(&mut self.conn).await?)
    }

    /// Undoes the last `n` migrations, with all data in what they had made; answers how many.
    ///
    /// # Errors
    /// The database can't be written; those undone before stay undone.
    pub async fn down(&mut self, n: usize) -> Result<usize> {
        let mut undone = 0;
        while undone < n && undo_one(&mut self.conn).await? {
            undone += 1;
        }
        Ok(undone)
    }

    /// Makes the months' tables that are missing for now and the time to come; [`super::Postgres`] does it by itself.
    ///
    /// # Errors
    /// The database can't be written.
    pub async fn prepare_months(&mut self) -> Result<()> {
        Ok(partitions::prepare(&mut self.conn).await?)
    }

    /// Drops whole months that ended before `before` and in which everything is over; answers their names. Nothing is
    /// deleted row by row.
    ///
    /// # Errors
    /// The database can't be written; months dropped before stay dropped.
    pub async fn drop_months(&mut self, before: domain::Time) -> Result<Vec<String>> {
        Ok(partitions::drop_before(&mut self.conn, before).await?)
    }
}

/// Brings the schema up to date, or says that it is not.
pub(super) async fn settle(conn: &mut Conn, auto_migrate: bool) -> Outcome<()> {
    let found = version(conn).await?;
    let needed = MIGRATIONS.len() as u32;
    if found < needed && !auto_migrate {
        return Err(Error::Pending { found, needed }.into());
    }
    up(conn).await?;
    Ok(())
}

async fn up(conn: &mut Conn) -> Outcome<usize> {
    let mut made = 0;
    while make_one(conn).await? {
        made += 1;
    }
    if made > 0 {
        partitions::prepare(conn).await?;
    }
    Ok(made)
}

/// The number of migrations that were made.
async fn version(conn: &mut Conn) -> Outcome<u32> {
    // From the catalogue itself: `to_regclass` would remember that there was no such table before the lock was given.
    let row = conn
        .first(
            "SELECT count(*) FILTER (WHERE relname = 'schema_migrations') > 0,
                 count(*) FILTER (WHERE relname = 'executions') > 0
             FROM pg_class
             WHERE relname IN ('schema_migrations', 'executions') AND pg_table_is_visible(oid)",
            &[],
        )
        .await?;
    let (is_ours, has_executions) = match &row {
        Some(row) => (get(row, 0)?, get(row, 1)?),
        None => (false, false),
    };
    if !is_ours {
        if has_executions {
            let message = "it has a table `executions` that AgentRunner has not made; use a database of its own";
            return Err(corrupt("the database", message).into());
        }
        return Ok(0);
    }
    let row = conn
        .first(
            "SELECT coalesce(max(version), 0) FROM schema_migrations",
            &[],
        )
        .await?;
    let found: i32 = row.map_or(Ok(0), |row| get(&row, 0))?;
    let (found, known) = (u32::try_from(found).unwrap_or(0), MIGRATIONS.len() as u32);
    if found > known {
        return Err(Error::TooNew { found, known }.into());
    }
    Ok(found)
}

/// Opens a transaction that no other process's migration can come between.
pub(super) async fn lock(conn: &mut Conn) -> Outcome<()> {
    conn.begin();
    conn.run("SELECT pg_advisory_xact_lock($1)", &[&LOCK])
        .await?;
    Ok(())
}

async fn make_one(conn: &mut Conn) -> Outcome<bool> {
    // Looked at first without a lock, so that connecting to a current database waits for nobody.
    if version(conn).await? as usize == MIGRATIONS.len() {
        return Ok(false);
    }
    lock(conn).await?;
    let version = version(conn).await?;
    let Some(migration) = MIGRATIONS.get(version as usize) else {
        conn.roll_back().await?;
        return Ok(false);
    };
    conn.script(
        "CREATE TABLE IF NOT EXISTS schema_migrations (
             version integer PRIMARY KEY, name text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now())",
    )
    .await?;
    conn.script(migration.up).await?;
    conn.run(
        "INSERT INTO schema_migrations (version, name) VALUES ($1, $2)",
        &[&(version as i32 + 1), &migration.name],
    )
    .await?;
    conn.commit().await?;
    tracing::info!(migration = migration.name, "the database was migrated");
    Ok(true)
}

async fn undo_one(conn: &mut Conn) -> Outcome<bool> {
    lock(conn).await?;
    let version = version(conn).await?;
    let below = version.checked_sub(1);
    let migration = below.and_then(|below| MIGRATIONS.get(below as usize));
    let Some(migration) = migration else {
        conn.roll_back().await?;
        return Ok(false);
    };
    conn.script(migration.down).await?;
    conn.run(
        "DELETE FROM schema_migrations WHERE version = $1",
        &[&(version as i32)],
    )
    .await?;
    conn.commit().await?;
    Ok(true)
}
