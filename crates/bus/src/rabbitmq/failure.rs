//! What went wrong with the broker, in a form that can be kept and told more than once.

use std::fmt::Display;

use lapin::ErrorKind;
use lapin::protocol::{AMQPErrorKind, AMQPHardError, AMQPSoftError};

use crate::Error;

/// An [`Error`] to be.
#[derive(Debug, Clone)]
pub(super) struct Failure {
    kind: Kind,
    message: String,
    source: Option<lapin::Error>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Unavailable,
    Refused,
    Closed,
}

impl Failure {
    pub(super) fn unavailable(message: impl Into<String>) -> Self {
        Self {
            kind: Kind::Unavailable,
            message: message.into(),
            source: None,
        }
    }

    pub(super) fn refused(message: impl Into<String>) -> Self {
        Self {
            kind: Kind::Refused,
            message: message.into(),
            source: None,
        }
    }

    pub(super) fn closed() -> Self {
        Self {
            kind: Kind::Closed,
            message: "the bus is closed".to_owned(),
            source: None,
        }
    }

    /// Judges an error of the client. `what` says what could not be done.
    pub(super) fn of(what: impl Display, error: lapin::Error) -> Self {
        let kind = match said(&error) {
            Some(
                AMQPErrorKind::Soft(
                    AMQPSoftError::ACCESSREFUSED
                    | AMQPSoftError::PRECONDITIONFAILED
                    | AMQPSoftError::RESOURCELOCKED,
                )
                | AMQPErrorKind::Hard(AMQPHardError::NOTALLOWED | AMQPHardError::NOTIMPLEMENTED),
            ) => Kind::Refused,
            _ => Kind::Unavailable,
        };
        Self {
            kind,
            message: format!("{what}: {error}"),
            source: Some(error),
        }
    }

    /// The same with other words.
    pub(super) fn told(self, message: String) -> Self {
        Self { message, ..self }
    }

    /// Whether it is of no use to try again.
    pub(super) fn is_final(&self) -> bool {
        self.kind != Kind::Unavailable
    }

    pub(super) fn message(&self) -> &str {
        &self.message
    }

    /// Whether something exists already and is not as it was declared.
    pub(super) fn is_mismatch(&self) -> bool {
        let error = self.source.as_ref().and_then(said);
        matches!(
            error,
            Some(AMQPErrorKind::Soft(AMQPSoftError::PRECONDITIONFAILED))
        )
    }

    /// Whether what was asked for is not there.
    pub(super) fn is_missing(&self) -> bool {
        let error = self.source.as_ref().and_then(said);
        matches!(error, Some(AMQPErrorKind::Soft(AMQPSoftError::NOTFOUND)))
    }

    /// Whether the broker does not let us in.
    pub(super) fn is_locked_out(&self) -> bool {
        let error = self.source.as_ref().and_then(said);
        matches!(
            error,
            Some(AMQPErrorKind::Soft(AMQPSoftError::ACCESSREFUSED))
        )
    }
}

/// What the broker said, when it is its error.
fn said(error: &lapin::Error) -> Option<&AMQPErrorKind> {
    match error.kind() {
        ErrorKind::ProtocolError(error) => Some(error.kind()),
        _ => None,
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        let Failure {
            kind,
            message,
            source,
        } = failure;
        let source =
            source.map(|error| -> Box<dyn std::error::Error + Send + Sync> { error.into() });
        match kind {
            Kind::Unavailable => Self::Unavailable { message, source },
            Kind::Refused => Self::Refused { message, source },
            Kind::Closed => Self::Closed,
        }
    }
}
