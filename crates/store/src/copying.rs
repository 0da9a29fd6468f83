//! All that a store holds, taken out as rows that no database owns, and put into another: for backups, and for moving
//! from one kind of store to the other.
//!
//! A copy is a stream of [`Piece`]s: the [`Layout`] first, then the rows of one table after the other, then
//! [`Piece::End`]. Rows are lines of JSON ([`line`]), times microseconds since 1970 in UTC, UUIDs their 16 bytes, whatever
//! each database calls them; so the rows of two stores that hold the same are the same bytes. What is taken out is of one
//! moment, while others go on writing. What is put in becomes visible as a whole or not at all.

mod line;
mod rows;
mod survey;

use domain::{Restored, Time};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

pub use line::{Cell, read_line};
pub(crate) use line::{Lines, each_line};
pub(crate) use rows::Revival;
pub use survey::{Kind, Survey};

use crate::Result;
use crate::error::{corrupt, refused};

/// A table that is copied.
#[derive(Debug)]
pub(crate) struct Kept {
    pub(crate) name: &'static str,
    /// By what its rows are ordered, so that the same rows make the same bytes; empty where only the order in which they
    /// came counts.
    pub(crate) order: &'static [&'static str],
    /// Columns that a store makes by itself.
    pub(crate) without: &'static [&'static str],
}

const fn kept(name: &'static str, order: &'static [&'static str]) -> Kept {
    Kept {
        name,
        order,
        without: &[],
    }
}

/// All that is state; a database of an older schema lacks the last ones. Executions come first: what is known of them
/// decides about the rows of other tables.
pub(crate) const KEPT: [Kept; 26] = [
    kept("executions", &["id"]),
    kept("execution_specs", &["execution_id"]),
    kept("steps", &["execution_id", "seq"]),
    kept("execution_results", &["execution_id"]),
    kept("inputs", &["execution_id", "request"]),
    kept("idempotency_keys", &["key"]),
    Kept {
        name: "outbox",
        order: &[],
        without: &["id"],
    },
    kept("dead_letters", &["id"]),
    Kept {
        name: "usage_daily",
        order: &["agent_name", "day", "provider", "model"],
        without: &["slot"],
    },
    Kept {
        name: "agent_configs",
        order: &[],
        without: &["loaded"],
    },
    kept("conversations", &["agent_name", "conversation_id"]),
    kept("messages", &["agent_name", "conversation_id", "seq"]),
    kept("agent_states", &["agent_name", "key"]),
    kept("agent_state_writes", &["agent_name", "idempotency_key"]),
    kept("schedules", &["name"]),
    kept("schedule_runs", &["schedule_name", "fire_time"]),
    kept("shared_state", &["team", "key", "version"]),
    kept("api_keys", &["id"]),
    kept("audit_log", &["chain", "seq"]),
    kept("audit_chains", &["chain"]),
    kept("deliveries", &["id"]),
    kept("alert_state", &["id"]),
    kept("errands", &["id"]),
    kept("agent_switches", &["agent_name"]),
    kept("tool_pins", &["agent_name", "server", "tool"]),
    kept("restores", &["id"]),
];

/// What is not copied, and why not. A test compares both lists with the tables that there are.
pub const LEFT_OUT: [(&str, &str); 5] = [
    (
        "execution_events",
        "made from the executions that were started by events",
    ),
    ("execution_counts", "counted anew"),
    ("workers", "who is alive says so again within seconds"),
    ("checks", "written by the health check"),
    (
        "schema_migrations",
        "the layout says which version of the schema the rows are of",
    ),
];

/// The names of the tables that are copied.
pub fn tables() -> impl Iterator<Item = &'static str> {
    KEPT.iter().map(|table| table.name)
}

/// The newest version of the schema that this program knows; both stores have the same.
pub const fn newest_schema() -> u32 {
    crate::sqlite::NEWEST
}

/// How the rows of a copy lie.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Layout {
    /// How many migrations the database had.
    pub schema: u32,
    /// The moment of which the rows are.
    pub taken_at: Time,
    /// The months in which executions began, as `YYYY-MM`: a database may keep a table for each.
    pub months: Vec<String>,
    /// The tables, in the order in which they come.
    pub tables: Vec<TableLayout>,
}

/// How the rows of a table lie.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TableLayout {
    /// Its name.
    pub name: String,
    /// The columns, in the order in which a line has their values.
    pub columns: Vec<String>,
}

impl TableLayout {
    /// Where a column is.
    pub(crate) fn position(&self, column: &str) -> Option<usize> {
        self.columns.iter().position(|name| name == column)
    }

    /// Where a column is that there has to be.
    pub(crate) fn required(&self, column: &str) -> Result<usize> {
        let missing = || {
            corrupt(
                "the layout of the copy",
                format!("{} has no column {column}", self.name),
            )
        };
        self.position(column).ok_or_else(missing)
    }
}

/// How many months a layout may name: more than there will be.
const MOST_MONTHS: usize = 1200;

impl Layout {
    /// Refuses a layout that no version of this program has written: names go into statements.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check(&self) -> Result<()> {
        let wrong = |message: String| Err(corrupt("the layout of the copy", message));
        let mut known = KEPT.iter();
        for table in &self.tables {
            // In our order, each once.
            if !known.any(|one| one.name == table.name) {
                return wrong(format!("{:?} is no table that is copied", table.name));
            }
            let mut columns: Vec<&str> = table.columns.iter().map(String::as_str).collect();
            columns.sort_unstable();
            columns.dedup();
            let is_name = |name: &&str| {
                (1..=63).contains(&name.len())
                    && name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')
            };
            let is_good = !columns.is_empty() && columns.iter().all(is_name);
            if !is_good || columns.len() != table.columns.len() {
                return wrong(format!("the columns of {:?} are not names", table.name));
            }
        }
        let first = self.tables.first().map(|table| table.name.as_str());
        if first != Some("executions") {
            return wrong("it does not begin with the executions".to_owned());
        }
        let is_month = |month: &String| {
            chrono::NaiveDate::parse_from_str(&format!("{month}-01"), "%Y-%m-%d").is_ok()
        };
        if self.months.len() > MOST_MONTHS || !self.months.iter().all(is_month) {
            return wrong("its months are not months".to_owned());
        }
        Ok(())
    }
}

/// A piece of a copy.
#[derive(Debug)]
pub enum Piece {
    /// How the rows lie. The first piece.
    Begin(Layout),
    /// Some rows.
    Rows {
        /// Of which table of the layout; never of one before that of the piece before.
        table: usize,
        /// How many.
        count: u64,
        /// A line for each.
        lines: Vec<u8>,
    },
    /// All is there, and whoever sent it stands for it. Without it nothing is put in.
    End,
}

/// How long the lines of a piece are together before it is sent, in bytes: a piece is longer by a line at most.
pub(crate) const PIECE: usize = 1 << 20;

/// Takes pieces out of a store.
pub type Pieces = mpsc::Sender<Piece>;
/// Puts pieces into a store.
pub type Coming = mpsc::Receiver<Piece>;

/// A channel for pieces: what waits in it is bounded.
pub fn channel() -> (Pieces, Coming) {
    mpsc::channel(4)
}

/// The answer when pieces end without [`Piece::End`].
pub(crate) fn cut_off() -> crate::Error {
    refused("the copy was cut off; nothing was changed")
}

/// The answer of a database in which nothing was made yet.
pub(crate) fn nothing() -> crate::Error {
    refused("it holds nothing of AgentRunner; nothing was copied")
}

/// The answer to a sender whose receiver is gone: that one knows why.
pub(crate) fn unheard() -> crate::Error {
    crate::Error::Unheard
}

/// What is to become of rows that are put in.
#[derive(Debug, Clone)]
pub struct Wish {
    /// What the rows come from: for work, they are a past from which it goes on. None when they only move house.
    pub restored: Option<Restored>,
    /// The name of the file, for the record.
    pub source: String,
    /// The name of the database, when what it holds may be replaced.
    pub over: Option<String>,
    /// The time.
    pub now: Time,
}

/// What a store is that something may be put into.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Target {
    /// Its name, as [`Wish::over`] says it.
    pub name: String,
    /// The tables that hold rows.
    pub filled: Vec<String>,
    /// The workers that were heard of within the last minute.
    pub alive: Vec<String>,
}

impl Target {
    /// Whether something may be put in.
    ///
    /// # Errors
    /// Why not, and what to say if it is meant.
    pub fn check(&self, over: Option<&str>) -> Result<()> {
        let name = &self.name;
        if let Some(over) = over {
            if over == name {
                return Ok(());
            }
            let message =
                format!("--over names {over:?}, and the database is {name:?}; nothing was changed");
            return Err(refused(message));
        }
        let (what, is_free) = match (self.alive.as_slice(), self.filled.as_slice()) {
            ([], []) => (String::new(), true),
            ([], filled) => (format!("it holds rows already ({})", some(filled)), false),
            (alive, _) => (format!("processes work with it ({})", some(alive)), false),
        };
        if is_free {
            return Ok(());
        }
        let message = format!(
            "the database {name} is not written over: {what}; nothing was changed. Stop what works with it and name an empty database, or say --over {name} to replace all that it holds"
        );
        Err(refused(message))
    }
}

fn some(names: &[String]) -> String {
    let shown: Vec<&str> = names.iter().take(3).map(String::as_str).collect();
    let more = names.len().saturating_sub(shown.len());
    let more = if more > 0 {
        format!(" and {more} more")
    } else {
        String::new()
    };
    format!("{}{more}", shown.join(", "))
}

/// Who was heard of so recently is taken to be alive.
pub(crate) const ALIVE: chrono::TimeDelta = chrono::TimeDelta::seconds(60);

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(tables: &[(&str, &[&str])]) -> Layout {
        let tables = tables.iter().map(|(name, columns)| TableLayout {
            name: (*name).to_owned(),
            columns: columns.iter().map(|name| (*name).to_owned()).collect(),
        });
        Layout {
            schema: 1,
            taken_at: Time::default(),
            months: Vec::new(),
            tables: tables.collect(),
        }
    }

    #[test]
    fn a_layout_holds_names_that_we_gave() {
        let good = layout(&[("executions", &["id"]), ("steps", &["execution_id", "seq"])]);
        good.check().unwrap();
        for bad in [
            layout(&[("executions", &["id"]), ("pg_authid", &["rolname"])]),
            layout(&[("steps", &["seq"]), ("executions", &["id"])]),
            layout(&[("executions", &["id"]), ("executions", &["id"])]),
            layout(&[("executions", &["id) FROM STDIN; --"])]),
            layout(&[("executions", &["id", "id"])]),
            layout(&[("executions", &[])]),
            layout(&[("steps", &["seq"])]),
            Layout {
                months: vec!["2026-13".to_owned()],
                ..good
            },
        ] {
            assert!(bad.check().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn only_an_empty_store_or_one_that_is_named_is_written_over() {
        let target = |filled: &[&str], alive: &[&str]| Target {
            name: "agentrunner".to_owned(),
            filled: filled.iter().map(|name| (*name).to_owned()).collect(),
            alive: alive.iter().map(|name| (*name).to_owned()).collect(),
        };
        target(&[], &[]).check(None).unwrap();
        for full in [target(&["steps"], &[]), target(&[], &["w-1"])] {
            let error = full.check(None).unwrap_err().to_string();
            assert!(error.contains("--over agentrunner"), "{error}");
            full.check(Some("agentrunner")).unwrap();
            assert!(full.check(Some("other")).is_err());
        }
        assert!(target(&[], &[]).check(Some("other")).is_err());
    }
}
