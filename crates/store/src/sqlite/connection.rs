//! Opening the database: its folder and file, who may read them, and how SQLite is set.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use super::Options;
use super::fault::{Fault, corrupt, unavailable};
use crate::{Error, Result};

/// How many prepared statements a connection keeps.
const STATEMENTS: usize = 96;
/// How much of the database a connection keeps in memory, in KiB: the pages that every commit goes through. More would
/// only be a second copy of what the system keeps anyway, and would count as this process's memory.
const WRITER_CACHE_KIB: u32 = 2 * 1024;
const READER_CACHE_KIB: u32 = 512;
/// After how many pages the log is moved into the database file. Pages that many commits change, as the journal's
/// last ones are, are moved once.
const CHECKPOINT_PAGES: u32 = 4000;
/// To what size the log is cut when it has been moved.
const LOG_LIMIT_BYTES: u32 = 64 * 1024 * 1024;

/// Makes folder and file if they are missing, for this user alone, and answers the file's full path.
pub(super) fn prepare(path: &Path) -> Result<PathBuf> {
    let path = std::path::absolute(path).map_err(|error| refused(path, error))?;
    if let Some(folder) = path.parent() {
        private_folder(folder).map_err(|error| refused(folder, error))?;
    }
    private_file(&path).map_err(|error| refused(&path, error))?;
    Ok(path)
}

/// A connection to an existing database that may write.
pub(super) fn open(path: &Path, options: &Options) -> Result<Connection> {
    // Without CREATE: the file was made with the right permissions. Without URI: a path is a path.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(path, flags).map_err(Fault::from)?;
    conn.busy_timeout(options.busy_timeout)
        .map_err(Fault::from)?;
    conn.set_prepared_statement_cache_capacity(STATEMENTS);
    // A plan does not depend on what is bound. Otherwise SQLite asks for each value whether a partial index may serve,
    // and so compiles nearly every statement anew each time that it is run.
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)
        .map_err(Fault::from)?;
    Ok(conn)
}

/// Sets a connection up to write.
pub(super) fn set_writer(conn: &Connection, options: &Options) -> Result<()> {
    let synchronous = if options.is_durable { "FULL" } else { "OFF" };
    conn.execute_batch(&format!(
        "PRAGMA synchronous = {synchronous};
         PRAGMA foreign_keys = ON;
         PRAGMA temp_store = MEMORY;
         PRAGMA cache_size = -{WRITER_CACHE_KIB};
         PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES};
         PRAGMA journal_size_limit = {LOG_LIMIT_BYTES};"
    ))
    .map_err(Fault::from)?;
    if let Some(pages) = options.max_pages {
        conn.query_row(&format!("PRAGMA max_page_count = {pages}"), [], |_| Ok(()))
            .map_err(Fault::from)?;
    }
    Ok(())
}

/// A connection that can only read. It is opened for writing because a reader of a write-ahead log keeps its place
/// in shared memory, and then forbidden to write. No memory map: an I/O error would be a signal that ends the
/// process, not an error that ends a request.
pub(super) fn open_reader(path: &Path, options: &Options) -> Result<Connection> {
    let conn = open(path, options)?;
    conn.execute_batch(&format!(
        "PRAGMA query_only = ON;
         PRAGMA temp_store = MEMORY;
         PRAGMA cache_size = -{READER_CACHE_KIB};"
    ))
    .map_err(Fault::from)?;
    Ok(conn)
}

/// Switches the write-ahead log on; this is kept in the file.
pub(super) fn set_log(conn: &Connection, path: &Path) -> Result<()> {
    let mode: String = conn
        .query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))
        .map_err(Fault::from)?;
    if mode == "wal" {
        return Ok(());
    }
    Err(unavailable(format!(
        "{} can't have a write-ahead log (its mode is {mode}); put the data folder on a local disk",
        path.display()
    )))
}

/// Refuses a file that can be read only.
pub(super) fn check_writable(conn: &Connection, path: &Path) -> Result<()> {
    if conn.is_readonly("main").map_err(Fault::from)? {
        return Err(unavailable(format!(
            "{} is read-only; check its owner and permissions, and whether the disk is mounted read-only",
            path.display()
        )));
    }
    Ok(())
}

fn refused(path: &Path, error: io::Error) -> Error {
    let path = path.display();
    let message = match error.kind() {
        io::ErrorKind::PermissionDenied => {
            format!("{path} can't be written: permission denied; check its owner and permissions")
        }
        io::ErrorKind::StorageFull => format!("{path} can't be made: the disk is full"),
        io::ErrorKind::ReadOnlyFilesystem => {
            format!("{path} can't be made: the disk is mounted read-only")
        }
        io::ErrorKind::NotADirectory | io::ErrorKind::AlreadyExists => {
            format!("{path} can't be made: a part of the path is a file, not a folder")
        }
        io::ErrorKind::IsADirectory => {
            return corrupt(path.to_string(), "it is a folder, not a database file");
        }
        _ => format!("{path} can't be opened: {error}"),
    };
    Error::Unavailable {
        message,
        certainty: crate::Certainty::NotApplied,
        source: Some(Box::new(error)),
    }
}

#[cfg(unix)]
fn private_folder(folder: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
}

#[cfg(not(unix))]
fn private_folder(folder: &Path) -> io::Result<()> {
    fs::create_dir_all(folder)
}

fn private_file(path: &Path) -> io::Result<()> {
    let mut options = fs::OpenOptions::new();
    options.create(true).append(true);
    // SQLite gives the log and its shared memory the permissions of the database.
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    match options.open(path) {
        Ok(_) => Ok(()),
        // Whether an existing file serves is found out, and told, by opening it as a database.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied && path.is_file() => Ok(()),
        Err(error) => Err(error),
    }
}
