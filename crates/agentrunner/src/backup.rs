//! The file of a backup: what is in it, how it is written and how it is read.
//!
//! `agentrunner-<time>.tar.zst` is what it says, so `tar --zstd -tf` lists it anywhere:
//!
//! | entry | holds |
//! |---|---|
//! | `agentrunner-backup.json` | first: the format, the program, and how the rows lie ([`Head`]) |
//! | `config/…` | the files of agents, scripts and alerts |
//! | `tables/<table>/<number>.jsonl` | the rows, in pieces of about a mebibyte: a line of JSON each |
//! | `manifest.json` | last: rows, bytes and SHA-256 of everything before ([`Manifest`]) |
//!
//! After the compressed archive comes its seal ([`seal`]): the SHA-256 of every byte before. So a file that is cut short or
//! has one other byte is known before anything of it is looked at.

mod checked;
mod files;
mod keep;
mod location;
mod place;
mod read;
mod s3;
mod seal;
mod write;

use serde::{Deserialize, Serialize};
use store::copying::Layout;

pub(crate) use checked::Checked;
pub(crate) use files::{Files, below};
pub(crate) use keep::{Keep, forget_old};
pub(crate) use location::{Address, Location};
pub(crate) use place::Place;
pub(crate) use read::{Item, Opened};
pub(crate) use s3::{Bucket, is_stopped};
pub(crate) use write::{Source, Written, aside, write, write_aside};

/// How files of this version are made. A reader refuses those of later ones.
const FORMAT: u32 = 1;
/// The first entry.
const HEAD: &str = "agentrunner-backup.json";
/// The last one.
const MANIFEST: &str = "manifest.json";
/// Where the rows are.
const TABLES: &str = "tables/";
/// Where the files of the folder of agents are.
const CONFIG: &str = "config/";

/// What somebody must know before he reads the rest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Head {
    /// How the file is made.
    pub(crate) format: u32,
    /// Which program made it.
    pub(crate) product: String,
    /// From what: `postgres` or `sqlite`. Either goes back into both.
    pub(crate) store: String,
    /// How the rows lie, and of which moment they are.
    pub(crate) layout: Layout,
}

/// What must have been in the file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Manifest {
    /// The SHA-256 of the head.
    pub(crate) head: String,
    /// The tables, in the order of the layout.
    pub(crate) tables: Vec<TableSum>,
    /// The files of the folder of agents.
    pub(crate) files: Vec<FileSum>,
}

/// The rows of a table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TableSum {
    pub(crate) table: String,
    pub(crate) rows: u64,
    pub(crate) bytes: u64,
    pub(crate) sha256: String,
}

/// A file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FileSum {
    pub(crate) path: String,
    pub(crate) bytes: u64,
    pub(crate) sha256: String,
}

impl Manifest {
    /// All rows.
    pub(crate) fn rows(&self) -> u64 {
        self.tables.iter().map(|table| table.rows).sum()
    }
}

/// The rows of tables as they pass by: how many, how long, and their SHA-256.
pub(crate) struct Sums {
    tables: Vec<(String, u64, u64, sha2::Sha256)>,
}

impl Sums {
    /// Of the tables of a layout.
    pub(crate) fn new(layout: &Layout) -> Self {
        use sha2::Digest as _;
        let tables = layout.tables.iter();
        Self {
            tables: tables
                .map(|table| (table.name.clone(), 0, 0, sha2::Sha256::new()))
                .collect(),
        }
    }

    /// Takes some rows.
    pub(crate) fn add(&mut self, table: usize, rows: u64, lines: &[u8]) {
        use sha2::Digest as _;
        if let Some((_, count, bytes, sum)) = self.tables.get_mut(table) {
            *count += rows;
            *bytes += lines.len() as u64;
            sum.update(lines);
        }
    }

    /// What they come to.
    pub(crate) fn finish(self) -> Vec<TableSum> {
        use sha2::Digest as _;
        let tables = self.tables.into_iter();
        tables
            .map(|(table, rows, bytes, sum)| TableSum {
                table,
                rows,
                bytes,
                sha256: hex(&sum.finalize()),
            })
            .collect()
    }
}

/// The answer of whoever sends rows when the one who takes them has gone: that one has the reason.
#[derive(Debug, thiserror::Error)]
#[error("whoever took the rows has gone")]
struct Unheard;

/// The answer of a sender of rows that nobody takes any more.
pub(crate) fn unheard() -> anyhow::Error {
    Unheard.into()
}

/// Whether it is only the answer of a sender of rows that nobody takes any more.
pub(crate) fn is_unheard(error: &anyhow::Error) -> bool {
    let of_store = |error: &store::Error| error.is_unheard();
    error.chain().any(|cause| {
        cause.is::<Unheard>() || cause.downcast_ref::<store::Error>().is_some_and(of_store)
    })
}

/// Bytes as hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The SHA-256 of bytes, as hexadecimal digits.
fn sha256(bytes: &[u8]) -> String {
    use sha2::Digest as _;
    hex(&sha2::Sha256::digest(bytes))
}

#[cfg(test)]
mod tests;
