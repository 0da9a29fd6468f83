//! What goes wrong inside the adapter, and how it is told to the outside.

use std::io;

use tokio_postgres::error::{DbError, Severity, SqlState};

use super::settings::Server;
pub(super) use crate::error::{closed, corrupt, internal, unavailable};
use crate::{Certainty, Error};

/// A failure while it is still inside the adapter: who gathers requests looks at its kind before it is put into words.
#[derive(Debug)]
pub(super) enum Fault {
    /// The server's or the driver's, and whether the write may have happened all the same.
    Sql {
        error: tokio_postgres::Error,
        certainty: Certainty,
    },
    /// Ours, already in words.
    Told(Error),
}

/// What work inside the adapter answers.
pub(super) type Outcome<T> = Result<T, Fault>;

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self::Told(error)
    }
}

impl From<Fault> for Error {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Sql { error, certainty } => told(error, certainty),
            Fault::Told(error) => error,
        }
    }
}

impl Fault {
    /// A failure of a statement. `is_final` tells that its success would have made something durable.
    pub(super) fn sql(error: tokio_postgres::Error, is_final: bool) -> Self {
        // A refused statement changed nothing. A session that ended, by a broken connection or by a fatal error, may
        // have committed just before.
        let is_refused = error
            .as_db_error()
            .is_some_and(|error| error.parsed_severity() == Some(Severity::Error));
        let certainty = if is_final && !is_refused {
            Certainty::Unknown
        } else {
            Certainty::NotApplied
        };
        Self::Sql { error, certainty }
    }

    /// The same failure, of something of which this is known.
    pub(super) fn with(self, certainty: Certainty) -> Self {
        match self {
            Self::Sql { error, .. } => Self::Sql { error, certainty },
            Self::Told(Error::Unavailable {
                message, source, ..
            }) => Self::Told(Error::Unavailable {
                message,
                certainty,
                source,
            }),
            Self::Told(error) => Self::Told(error),
        }
    }

    fn code(&self) -> Option<&SqlState> {
        match self {
            Self::Sql { error, .. } => error.code(),
            Self::Told(_) => None,
        }
    }

    /// Whether it is one request's fault, so that the others of a batch may go on without it.
    pub(super) fn is_one_requests(&self) -> bool {
        match self {
            Self::Told(error) => !matches!(error, Error::Unavailable { .. }),
            Self::Sql { .. } => self.code().is_some_and(|code| {
                let class = code.code().get(..2).unwrap_or_default();
                matches!(class, "21" | "22" | "23" | "54" | "P0")
            }),
        }
    }

    /// Whether a lock was not given in time, or not at all because two waited for each other.
    pub(super) fn is_wait_for_lock(&self) -> bool {
        self.code().is_some_and(|code| {
            *code == SqlState::LOCK_NOT_AVAILABLE || *code == SqlState::T_R_DEADLOCK_DETECTED
        })
    }

    /// Whether the same again may go well at once: two transactions were in each other's way, or the tables changed
    /// under a prepared statement.
    pub(super) fn is_passing(&self) -> bool {
        self.code().is_some_and(|code| {
            *code == SqlState::T_R_DEADLOCK_DETECTED
                || *code == SqlState::T_R_SERIALIZATION_FAILURE
                || *code == SqlState::FEATURE_NOT_SUPPORTED
        })
    }
}

/// What a state of the surroundings is called, and what to do about it; nothing for errors of another kind.
fn words(code: &SqlState) -> Option<&'static str> {
    Some(match code.code() {
        "53100" => {
            "the server's disk is full; free some space and try again, what was committed is safe"
        }
        "53200" => "the server has not enough memory",
        "53300" => {
            "the server is out of connections; raise its max_connections, or lower the pool sizes of the processes that use it"
        }
        "25006" | "25P04" => {
            "the server is read-only, perhaps a standby; connect to the primary server"
        }
        "57014" => "a statement took too long and was cancelled",
        "55P03" => "a lock was not given in time; another session holds it",
        "57P01" | "57P02" | "57P03" | "57P05" => {
            "the server is starting, stopping or has just crashed; it is tried again"
        }
        "58030" | "58000" => {
            "the server's disk reports an error; look at the server's log, and keep a backup before going on"
        }
        "42501" => "the user may not do this; grant it the rights on the schema and its tables",
        "28P01" | "28000" => "the server refuses the user or the password",
        _ => return None,
    })
}

/// Puts an error of a statement into words that say what to do.
fn told(error: tokio_postgres::Error, certainty: Certainty) -> Error {
    let Some(code) = error.code() else {
        if error.is_closed()
            || std::error::Error::source(&error).is_some_and(|s| s.is::<io::Error>())
        {
            return Error::Unavailable {
                message: "the connection to the server was lost; it is made anew".to_owned(),
                certainty,
                source: Some(Box::new(error)),
            };
        }
        // A value of another type than its column has.
        return corrupt("a row", error);
    };
    if let Some(words) = words(code) {
        return Error::Unavailable {
            message: words.to_owned(),
            certainty,
            source: Some(Box::new(error)),
        };
    }
    if *code == SqlState::DATA_CORRUPTED || *code == SqlState::INDEX_CORRUPTED {
        return corrupt("the database", "it is damaged; restore a backup");
    }
    if certainty == Certainty::Unknown || *code == SqlState::T_R_DEADLOCK_DETECTED {
        return Error::Unavailable {
            message: "the server gave the transaction up; try again".to_owned(),
            certainty,
            source: Some(Box::new(error)),
        };
    }
    Error::Internal {
        message: format!("PostgreSQL refused a statement: {}", brief(&error)),
        source: Some(Box::new(error)),
    }
}

fn brief(error: &tokio_postgres::Error) -> String {
    error
        .as_db_error()
        .map_or_else(|| error.to_string(), |error| error.message().to_owned())
}

/// Puts a failure to connect into words.
pub(super) fn not_connected(error: tokio_postgres::Error, server: &Server) -> Error {
    let Server {
        name,
        user,
        database,
        ..
    } = server;
    let message = match error.as_db_error().map(DbError::code) {
        Some(code) if *code == SqlState::INVALID_PASSWORD => format!(
            "the PostgreSQL server at {name} refuses the password of user {user}; check POSTGRES_PASSWORD"
        ),
        Some(code) if *code == SqlState::INVALID_AUTHORIZATION_SPECIFICATION => format!(
            "the PostgreSQL server at {name} does not let user {user} in; check POSTGRES_USER and the server's pg_hba.conf"
        ),
        Some(code) if *code == SqlState::INVALID_CATALOG_NAME => format!(
            "the PostgreSQL server at {name} has no database {database}; type `createdb {database}`, or check POSTGRES_DB"
        ),
        Some(code) => match words(code) {
            Some(words) => format!("PostgreSQL at {name}: {words}"),
            None => format!("the PostgreSQL server at {name} refuses: {}", brief(&error)),
        },
        None => unanswered(&error, server),
    };
    Error::Unavailable {
        message,
        certainty: Certainty::NotApplied,
        source: Some(Box::new(error)),
    }
}

fn unanswered(error: &tokio_postgres::Error, server: &Server) -> String {
    let Server { name, user, .. } = server;
    let source = std::error::Error::source(error);
    let io = source.and_then(|source| source.downcast_ref::<io::Error>());
    match io.map(io::Error::kind) {
        Some(io::ErrorKind::ConnectionRefused) => format!(
            "nothing listens at {name}; start PostgreSQL, or check POSTGRES_HOST and POSTGRES_PORT"
        ),
        Some(io::ErrorKind::TimedOut) => silent(server),
        Some(
            io::ErrorKind::ConnectionReset
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::UnexpectedEof,
        ) => {
            format!("{name} takes connections and closes them at once; is it a PostgreSQL server?")
        }
        Some(_) => format!("{name} can't be reached: {}", describe(error)),
        None if error.is_closed() => {
            format!("{name} takes connections and closes them at once; is it a PostgreSQL server?")
        }
        None if describe(error).contains("password missing") => format!(
            "the PostgreSQL server at {name} wants a password for user {user}; set POSTGRES_PASSWORD"
        ),
        None => format!(
            "{name} does not talk as a PostgreSQL server does: {}",
            describe(error)
        ),
    }
}

/// The message for a server that takes connections and says nothing.
pub(super) fn silent(server: &Server) -> String {
    format!(
        "{} does not answer within {} s; is it a PostgreSQL server, and does a firewall let it through?",
        server.name,
        server.connect_timeout.as_secs_f32()
    )
}

fn describe(error: &tokio_postgres::Error) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}
