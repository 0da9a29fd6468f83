//! What goes wrong inside the adapter, and how it is told to the outside.

use rusqlite::ffi;

pub(super) use crate::error::{closed, corrupt, internal, unavailable};
use crate::{Certainty, Error};

/// A failure while it is still inside the adapter: the writer looks at SQLite's code before it is put into words.
#[derive(Debug)]
pub(super) enum Fault {
    /// SQLite's.
    Sql(rusqlite::Error),
    /// Ours, already in words.
    Told(Error),
}

/// What work inside the adapter answers.
pub(super) type Outcome<T> = Result<T, Fault>;

impl Fault {
    /// Whether a row was found and is not what it should be: it concerns that row alone.
    pub(super) fn is_misread(&self) -> bool {
        match self {
            Self::Sql(error) => error.sqlite_error_code().is_none(),
            Self::Told(error) => matches!(error, Error::Corrupt { .. }),
        }
    }
}

impl From<rusqlite::Error> for Fault {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sql(error)
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self::Told(error)
    }
}

impl From<Fault> for Error {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Sql(error) => told(error),
            Fault::Told(error) => error,
        }
    }
}

/// What a state of the surroundings is called, and what to do about it; nothing for errors of another kind.
pub(super) fn words(error: &rusqlite::Error) -> Option<&'static str> {
    use ffi::ErrorCode as Code;
    Some(match error.sqlite_error_code()? {
        Code::DiskFull => {
            "the disk is full; free some space and try again, what was committed is safe"
        }
        Code::DatabaseBusy | Code::DatabaseLocked => {
            "another process has been writing to it for too long; stop that process or try again"
        }
        Code::ReadOnly => {
            "the file or its folder is read-only; check owner and permissions, and whether the disk is mounted read-only"
        }
        Code::CannotOpen | Code::PermissionDenied => {
            "the file can't be opened; check that the folder exists and that this user may read and write it"
        }
        Code::SystemIoFailure => {
            "the disk reports an error; look at the system's log, and keep a backup before going on"
        }
        Code::FileLockingProtocolFailed => {
            "the file can't be locked; put the data folder on a local disk, network drives do not work"
        }
        Code::OutOfMemory => "there is not enough memory",
        _ => return None,
    })
}

/// Puts SQLite's error into words that say what to do. A statement that failed changed nothing.
fn told(error: rusqlite::Error) -> Error {
    use ffi::ErrorCode as Code;
    if let Some(words) = words(&error) {
        return Error::Unavailable {
            message: words.to_owned(),
            certainty: Certainty::NotApplied,
            source: Some(Box::new(error)),
        };
    }
    match error.sqlite_error_code() {
        Some(Code::NotADatabase) => corrupt("the database file", "it is not a SQLite database"),
        Some(Code::DatabaseCorrupt) => {
            corrupt("the database file", "it is damaged; restore a backup")
        }
        Some(_) => broken(error),
        None => misread(error),
    }
}

fn broken(error: rusqlite::Error) -> Error {
    Error::Internal {
        message: "SQLite refused a statement".to_owned(),
        source: Some(Box::new(error)),
    }
}

/// A value of another type than its column has: the row was edited by hand, or damaged.
fn misread(error: rusqlite::Error) -> Error {
    use rusqlite::Error as E;
    match error {
        E::FromSqlConversionFailure(..)
        | E::IntegralValueOutOfRange(..)
        | E::InvalidColumnType(..)
        | E::Utf8Error(..) => corrupt("a row", error),
        other => broken(other),
    }
}
