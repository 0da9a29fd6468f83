//! What can go wrong with a store, and what that leaves behind.

/// An error of a store.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The database can't be reached, is busy, full or read-only. The message says what to do.
    #[error("the database is unavailable: {message}")]
    Unavailable {
        /// What happened and what to do.
        message: String,
        /// Whether the write may have happened.
        certainty: Certainty,
        /// The driver's error.
        #[source]
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },
    /// The database was made by a newer version of the program, and does not suit this one.
    #[error(
        "the database has schema version {found}, this program knows up to {known}; use the newer program, or undo its migrations with it (`agentrunner migrate down {}`), or restore a backup made before the update", .found.saturating_sub(*.known)
    )]
    TooNew {
        /// Its version.
        found: u32,
        /// The newest that this program knows.
        known: u32,
    },
    /// The database was made by an older version of the program, and this one was told not to change it.
    #[error(
        "the database has schema version {found}, this program needs {needed}; type `agentrunner migrate up`, or set AUTO_MIGRATE=true"
    )]
    Pending {
        /// Its version.
        found: u32,
        /// The one that this program needs.
        needed: u32,
    },
    /// A row can't be read: it was edited by hand, or damaged.
    #[error("{what} can't be read: {message}")]
    Corrupt {
        /// Which.
        what: String,
        /// Why not.
        message: String,
    },
    /// It is not done, and nothing was changed.
    #[error("{message}")]
    Refused {
        /// Why not, and what to do.
        message: String,
    },
    /// Whoever took the pieces of a copy has gone: that one knows why.
    #[error("whoever took the copy has gone")]
    Unheard,
    /// Something in this crate is wrong.
    #[error("the store failed: {message}")]
    Internal {
        /// What.
        message: String,
        /// The driver's error.
        #[source]
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },
}

/// What kind of error, for a caller that has to choose what to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Try later.
    Unavailable,
    /// It concerns one row.
    Corrupt,
    /// A person must act.
    Fatal,
}

/// Whether a failed write happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Certainty {
    /// It did not.
    NotApplied,
    /// Nobody knows.
    Unknown,
}

impl Error {
    /// What kind.
    pub const fn class(&self) -> Class {
        match self {
            Self::Unavailable { .. } => Class::Unavailable,
            Self::Corrupt { .. } => Class::Corrupt,
            Self::TooNew { .. }
            | Self::Pending { .. }
            | Self::Refused { .. }
            | Self::Unheard
            | Self::Internal { .. } => Class::Fatal,
        }
    }

    /// Whether it only says that nobody takes the pieces of a copy any more.
    pub const fn is_unheard(&self) -> bool {
        matches!(self, Self::Unheard)
    }

    /// Whether the write happened.
    pub const fn certainty(&self) -> Certainty {
        match self {
            Self::Unavailable { certainty, .. } => *certainty,
            Self::TooNew { .. }
            | Self::Pending { .. }
            | Self::Corrupt { .. }
            | Self::Refused { .. }
            | Self::Unheard => Certainty::NotApplied,
            Self::Internal { .. } => Certainty::Unknown,
        }
    }
}

/// A row that can't be read.
pub(crate) fn corrupt(what: impl Into<String>, message: impl ToString) -> Error {
    Error::Corrupt {
        what: what.into(),
        message: message.to_string(),
    }
}

/// Something that is not done; nothing was changed.
pub(crate) fn refused(message: impl Into<String>) -> Error {
    Error::Refused {
        message: message.into(),
    }
}

/// Something that should be impossible.
pub(crate) fn internal(message: impl Into<String>) -> Error {
    Error::Internal {
        message: message.into(),
        source: None,
    }
}

/// A state of the surroundings that somebody can change; nothing was written.
pub(crate) fn unavailable(message: impl Into<String>) -> Error {
    Error::Unavailable {
        message: message.into(),
        certainty: Certainty::NotApplied,
        source: None,
    }
}

/// The answer to every call after [`crate::Store::close`].
pub(crate) fn closed() -> Error {
    unavailable("the store is closed")
}
