//! The versions of the schema, and how a database gets from one to another.
//!
//! Each migration is one transaction together with the row that says that it was made, so a program that is killed
//! half-way has made it or has not. An advisory lock lets one process migrate at a time; the others wait and find that
//! it was made.
//!
//! Processes work meanwhile, and go on to: those of the program before as well. So a migration says which programs it
//! suits, and that is kept in its row, where a program finds it that does not know the migration (decision 0025). And a
//! migration waits only briefly for the lock of a table: whoever asks for the table after it waits behind it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Settings;
use super::connection::{Conn, Role};
use super::fault::{Outcome, corrupt};
use super::partitions;
use super::settings::Server;
use super::sql::{counted, get};
use crate::copying::{ALIVE, KEPT};
use crate::preflight::{self, Preflight, TOLD, TableSize};
use crate::{Error, Result};

/// Names our advisory lock: "AgRn".
const LOCK: i64 = 0x4167_526e;

/// How long a migration waits for the lock of a table before it lets those pass who stand behind it.
const LOCK_PATIENCE: Duration = Duration::from_millis(500);
/// How long these may pass before it asks again.
const LOCK_PAUSE: Duration = Duration::from_millis(250);
/// How long it goes on asking.
const PATIENCE: Duration = Duration::from_secs(60);
/// Where the migrations that were made are kept.
const TABLE: &str = "CREATE TABLE IF NOT EXISTS schema_migrations (
    version integer PRIMARY KEY, name text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now());
    ALTER TABLE schema_migrations ADD COLUMN IF NOT EXISTS suits integer";

struct Migration {
    name: &'static str,
    /// The oldest program that may work when this is made, by the number of migrations that it knows. Where it is not
    /// at least the one before, no update is possible without a stop: see decision 0025 before writing such a one.
    suits: u32,
    up: &'static str,
    down: &'static str,
}

const MIGRATIONS: [Migration; 15] = [
    Migration {
        name: "0001_journal",
        suits: 0,
        up: include_str!("../../migrations/postgres/0001_journal.up.sql"),
        down: include_str!("../../migrations/postgres/0001_journal.down.sql"),
    },
    Migration {
        name: "0002_agents",
        suits: 1,
        up: include_str!("../../migrations/postgres/0002_agents.up.sql"),
        down: include_str!("../../migrations/postgres/0002_agents.down.sql"),
    },
    Migration {
        name: "0003_workers",
        suits: 2,
        up: include_str!("../../migrations/postgres/0003_workers.up.sql"),
        down: include_str!("../../migrations/postgres/0003_workers.down.sql"),
    },
    Migration {
        name: "0004_outbox_claims",
        suits: 3,
        up: include_str!("../../migrations/postgres/0004_outbox_claims.up.sql"),
        down: include_str!("../../migrations/postgres/0004_outbox_claims.down.sql"),
    },
    Migration {
        name: "0005_conversations",
        suits: 4,
        up: include_str!("../../migrations/postgres/0005_conversations.up.sql"),
        down: include_str!("../../migrations/postgres/0005_conversations.down.sql"),
    },
    Migration {
        name: "0006_schedules",
        suits: 5,
        up: include_str!("../../migrations/postgres/0006_schedules.up.sql"),
        down: include_str!("../../migrations/postgres/0006_schedules.down.sql"),
    },
    Migration {
        name: "0007_inbox",
        suits: 6,
        up: include_str!("../../migrations/postgres/0007_inbox.up.sql"),
        down: include_str!("../../migrations/postgres/0007_inbox.down.sql"),
    },
    Migration {
        name: "0008_shared_state",
        suits: 7,
        up: include_str!("../../migrations/postgres/0008_shared_state.up.sql"),
        down: include_str!("../../migrations/postgres/0008_shared_state.down.sql"),
    },
    Migration {
        name: "0009_api_keys",
        suits: 8,
        up: include_str!("../../migrations/postgres/0009_api_keys.up.sql"),
        down: include_str!("../../migrations/postgres/0009_api_keys.down.sql"),
    },
    Migration {
        name: "0010_audit_log",
        suits: 9,
        up: include_str!("../../migrations/postgres/0010_audit_log.up.sql"),
        down: include_str!("../../migrations/postgres/0010_audit_log.down.sql"),
    },
    Migration {
        name: "0011_outgoing",
        suits: 10,
        up: include_str!("../../migrations/postgres/0011_outgoing.up.sql"),
        down: include_str!("../../migrations/postgres/0011_outgoing.down.sql"),
    },
    Migration {
        name: "0012_errands",
        suits: 11,
        up: include_str!("../../migrations/postgres/0012_errands.up.sql"),
        down: include_str!("../../migrations/postgres/0012_errands.down.sql"),
    },
    Migration {
        name: "0013_agent_switches",
        suits: 12,
        up: include_str!("../../migrations/postgres/0013_agent_switches.up.sql"),
        down: include_str!("../../migrations/postgres/0013_agent_switches.down.sql"),
    },
    Migration {
        name: "0014_tool_pins",
        suits: 13,
        up: include_str!("../../migrations/postgres/0014_tool_pins.up.sql"),
        down: include_str!("../../migrations/postgres/0014_tool_pins.down.sql"),
    },
    Migration {
        name: "0015_restores",
        suits: 14,
        up: include_str!("../../migrations/postgres/0015_restores.up.sql"),
        down: include_str!("../../migrations/postgres/0015_restores.down.sql"),
    },
];

/// A migration, and whether a database has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MigrationStatus {
    /// Its number and name.
    pub name: String,
    /// Whether it was made.
    pub is_applied: bool,
    /// What is lost when it is undone, in words.
    pub loses: Vec<String>,
    /// The tables that making it goes through.
    pub touches: Vec<String>,
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
    /// It can't be reached, or is newer than this program and does not suit it.
    pub async fn connect(settings: &Settings) -> Result<Self> {
        let server = Arc::new(Server::new(settings)?);
        let mut conn = Conn::open(&server, Role::General).await?;
        version(&mut conn).await?;
        Ok(Self { conn })
    }

    /// All migrations that this program knows, in order, and those of a newer program that the database has.
    ///
    /// # Errors
    /// The database can't be read.
    pub async fn status(&mut self) -> Result<Vec<MigrationStatus>> {
        let version = version(&mut self.conn).await? as usize;
        let known = MIGRATIONS.iter().enumerate();
        let mut statuses: Vec<_> = known
            .map(|(index, migration)| MigrationStatus {
                name: migration.name.to_owned(),
                is_applied: index < version,
                loses: preflight::losses(migration.down),
                touches: preflight::touched(migration.up),
            })
            .collect();
        if version > MIGRATIONS.len() {
            let sql = "SELECT name FROM schema_migrations WHERE version > $1 ORDER BY version";
            for row in self.conn.all(sql, &[&(MIGRATIONS.len() as i32)]).await? {
                statuses.push(MigrationStatus {
                    name: get(&row, 0)?,
                    is_applied: true,
                    // Only the newer program knows.
                    loses: Vec::new(),
                    touches: Vec::new(),
                });
            }
        }
        Ok(statuses)
    }

    /// Who works with it, and how large it is.
    ///
    /// # Errors
    /// The database can't be read.
    pub async fn preflight(&mut self) -> Result<Preflight> {
        Ok(look(&mut self.conn).await?)
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
    /// The database can't be written, or the last one is a newer program's; those undone before stay undone.
    pub async fn down(&mut self, n: usize) -> Result<usize> {
        let mut undone = 0;
        while undone < n && patiently(&mut self.conn, Way::Down).await? {
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

/// Sessions of others, with how long a transaction has been open.
const SESSIONS: &str = "SELECT pid, coalesce(nullif(application_name, ''), 'unnamed'), coalesce(client_addr::text, 'local'),
        coalesce(state, 'unknown'), coalesce(extract(epoch FROM now() - xact_start)::bigint, 0)
    FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'
    ORDER BY xact_start NULLS LAST, pid LIMIT 50";
/// After how many seconds an open transaction is told of.
const LONG: i64 = 5;

async fn look(conn: &mut Conn) -> Outcome<Preflight> {
    let mut found = Preflight::default();
    for row in conn.query(SESSIONS, &[]).await? {
        let (pid, seconds): (i32, i64) = (get(&row, 0)?, get(&row, 4)?);
        let name: String = get(&row, 1)?;
        let (from, state): (String, String) = (get(&row, 2)?, get(&row, 3)?);
        if seconds >= LONG {
            found.blockers.push(format!(
                "{name} from {from} (pid {pid}) has had a transaction open for {seconds} s; it is {state}"
            ));
        }
        found
            .sessions
            .push(format!("{name} from {from} (pid {pid})"));
    }
    if version(conn).await? == 0 {
        return Ok(found);
    }
    found.alive = alive(conn).await?;
    for kept in &KEPT {
        // Of the months' tables, where it has such; what was never counted counts as nothing.
        let sql = format!(
            "SELECT coalesce(sum(greatest(c.reltuples, 0)), 0)::bigint, coalesce(sum(pg_total_relation_size(c.oid)), 0)::bigint
             FROM pg_class c WHERE c.relkind = 'r' AND (c.oid = to_regclass('{0}')
                 OR c.oid IN (SELECT inhrelid FROM pg_inherits WHERE inhparent = to_regclass('{0}')))",
            kept.name
        );
        for row in conn.query(&sql, &[]).await? {
            let (rows, bytes): (i64, i64) = (get(&row, 0)?, get(&row, 1)?);
            found.tables.push(TableSize {
                name: kept.name.to_owned(),
                rows: counted(rows),
                bytes: Some(counted(bytes)),
            });
        }
    }
    found
        .tables
        .sort_by_key(|table| std::cmp::Reverse(table.bytes));
    found.tables.truncate(TOLD);
    Ok(found)
}

/// The workers that were heard of just now.
pub(super) async fn alive(conn: &mut Conn) -> Outcome<Vec<String>> {
    let there = "SELECT 1 FROM pg_class WHERE relname = 'workers' AND pg_table_is_visible(oid)";
    if conn.query(there, &[]).await?.is_empty() {
        return Ok(Vec::new());
    }
    let sql = format!(
        "SELECT id FROM workers WHERE last_heartbeat > now() - interval '{} seconds' ORDER BY id",
        ALIVE.num_seconds()
    );
    let rows = conn.query(&sql, &[]).await?;
    rows.iter().map(|row| get(row, 0)).collect()
}

/// How many migrations this program knows.
pub(super) const NEWEST: u32 = MIGRATIONS.len() as u32;

/// Keeps other processes' migrations out until the open transaction ends.
pub(super) async fn take_lock(conn: &mut Conn) -> Outcome<()> {
    conn.script(&format!("SELECT pg_advisory_xact_lock({LOCK})"))
        .await
}

/// Makes the missing ones of the first `wanted` migrations, within the open transaction.
pub(super) async fn make(conn: &mut Conn, wanted: u32) -> Outcome<()> {
    if wanted > NEWEST {
        let (found, known) = (wanted, NEWEST);
        return Err(Error::TooNew { found, known }.into());
    }
    let made = version(conn).await?;
    if made < wanted {
        conn.script(TABLE).await?;
    }
    for (number, migration) in (1..=wanted).zip(&MIGRATIONS).skip(made as usize) {
        conn.script(migration.up).await?;
        let Migration { name, suits, .. } = migration;
        conn.script(&format!(
            "INSERT INTO schema_migrations (version, name, suits) VALUES ({number}, '{name}', {suits})"
        ))
        .await?;
    }
    Ok(())
}

/// Undoes all migrations, within the open transaction.
pub(super) async fn unmake(conn: &mut Conn) -> Outcome<()> {
    let made = version(conn).await? as usize;
    let undone = MIGRATIONS.iter().take(made).rev();
    for migration in undone {
        conn.script(migration.down).await?;
    }
    if made > 0 {
        conn.script("DELETE FROM schema_migrations").await?;
    }
    Ok(())
}

/// Brings the schema up to date, or says that it is not.
pub(super) async fn settle(conn: &mut Conn, auto_migrate: bool) -> Outcome<()> {
    let found = version(conn).await?;
    let needed = MIGRATIONS.len() as u32;
    if found < needed && !auto_migrate {
        return Err(Error::Pending { found, needed }.into());
    }
    if found > needed {
        tracing::warn!(
            "the database has schema version {found}, which a newer program made; this one knows up to {needed}, and works with it"
        );
    }
    up(conn).await?;
    Ok(())
}

async fn up(conn: &mut Conn) -> Outcome<usize> {
    let mut made = 0;
    while patiently(conn, Way::Up).await? {
        made += 1;
    }
    if made > 0 {
        partitions::prepare(conn).await?;
    }
    Ok(made)
}

/// The number of migrations that were made. More than there are, when a newer program made some that suit this one.
pub(super) async fn version(conn: &mut Conn) -> Outcome<u32> {
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
    // By way of JSON, for the table of a program that did not write down what its migrations suit.
    let row = conn
        .first(
            "SELECT coalesce(max(version), 0),
                 coalesce(max(coalesce((to_jsonb(m) ->> 'suits')::integer, version)) FILTER (WHERE version > $1), 0)
             FROM schema_migrations m",
            &[&(MIGRATIONS.len() as i32)],
        )
        .await?;
    let (found, needed): (i32, i32) = match &row {
        Some(row) => (get(row, 0)?, get(row, 1)?),
        None => (0, 0),
    };
    let known = MIGRATIONS.len() as u32;
    let found = u32::try_from(found).unwrap_or(0);
    if u32::try_from(needed).unwrap_or(0) > known {
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

/// Which way the schema goes.
#[derive(Debug, Clone, Copy)]
enum Way {
    Up,
    Down,
}

/// Goes one migration that way, if there is one. When the lock of a table is not given soon it steps back and asks again.
async fn patiently(conn: &mut Conn, way: Way) -> Outcome<bool> {
    let began = Instant::now();
    loop {
        let gone = match way {
            Way::Up => make_one(conn).await,
            Way::Down => undo_one(conn).await,
        };
        match gone {
            Err(fault) if fault.is_wait_for_lock() && began.elapsed() < PATIENCE => {
                conn.roll_back().await?;
                tracing::info!("a migration waits for a table that somebody works with");
                tokio::time::sleep(LOCK_PAUSE).await;
            }
            other => return other,
        }
    }
}

/// From now on, for this transaction: no statement of work stands long behind ours.
async fn be_brief(conn: &mut Conn) -> Outcome<()> {
    let milliseconds = LOCK_PATIENCE.as_millis();
    conn.script(&format!("SET LOCAL lock_timeout = {milliseconds}"))
        .await
}

async fn make_one(conn: &mut Conn) -> Outcome<bool> {
    // Looked at first without a lock, so that connecting to a current database waits for nobody.
    if version(conn).await? as usize >= MIGRATIONS.len() {
        return Ok(false);
    }
    lock(conn).await?;
    let version = version(conn).await?;
    let Some(migration) = MIGRATIONS.get(version as usize) else {
        conn.roll_back().await?;
        return Ok(false);
    };
    be_brief(conn).await?;
    conn.script(TABLE).await?;
    conn.script(migration.up).await?;
    conn.run(
        "INSERT INTO schema_migrations (version, name, suits) VALUES ($1, $2, $3)",
        &[
            &(version as i32 + 1),
            &migration.name,
            &(migration.suits as i32),
        ],
    )
    .await?;
    conn.commit().await?;
    tracing::info!(migration = migration.name, "the database was migrated");
    Ok(true)
}

async fn undo_one(conn: &mut Conn) -> Outcome<bool> {
    lock(conn).await?;
    let found = version(conn).await?;
    let Some(below) = found.checked_sub(1) else {
        conn.roll_back().await?;
        return Ok(false);
    };
    let Some(migration) = MIGRATIONS.get(below as usize) else {
        conn.roll_back().await?;
        let known = MIGRATIONS.len() as u32;
        return Err(Error::TooNew { found, known }.into());
    };
    be_brief(conn).await?;
    conn.script(migration.down).await?;
    conn.run(
        "DELETE FROM schema_migrations WHERE version = $1",
        &[&(found as i32)],
    )
    .await?;
    conn.commit().await?;
    tracing::info!(migration = migration.name, "a migration was undone");
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_migration_suits_the_program_before_it() {
        for (before, migration) in (0..).zip(&MIGRATIONS) {
            assert!(
                migration.suits <= before,
                "{}: no update without a stop",
                migration.name
            );
        }
    }
}
