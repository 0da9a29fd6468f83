//! The two kinds of database that rows are taken out of and put into.

use std::path::PathBuf;

use anyhow::Context as _;
use chrono::Utc;
use store::copying::{Coming, Pieces, Target, Wish};
use store::{postgres, sqlite};

use crate::settings::Settings;
use crate::wiring;

/// A database.
#[derive(Debug, Clone)]
pub(crate) enum Place {
    /// A server's; with how it is called.
    Postgres(postgres::Settings, String),
    /// A file.
    Sqlite(PathBuf),
}

impl Place {
    /// The one that the settings name.
    pub(crate) fn of(settings: &Settings) -> Self {
        Self::server(settings).unwrap_or_else(|| Self::file(settings))
    }

    /// The server's, when one is named.
    pub(crate) fn server(settings: &Settings) -> Option<Self> {
        let servers = &settings.servers;
        let server = servers.postgres.clone()?;
        Some(Self::Postgres(server, servers.postgres_place.clone()))
    }

    /// The file in the data folder.
    pub(crate) fn file(settings: &Settings) -> Self {
        Self::Sqlite(wiring::database(settings))
    }

    /// The word for its kind.
    pub(crate) const fn kind(&self) -> &'static str {
        match self {
            Self::Postgres(..) => "postgres",
            Self::Sqlite(_) => "sqlite",
        }
    }

    fn name(&self) -> String {
        match self {
            Self::Postgres(_, place) => format!("PostgreSQL at {place}"),
            Self::Sqlite(path) => format!("the database {}", path.display()),
        }
    }

    /// Takes all out.
    ///
    /// # Errors
    /// It can't be read.
    pub(crate) async fn dump(&self, pieces: Pieces) -> anyhow::Result<()> {
        let dumped = match self {
            Self::Postgres(settings, _) => postgres::dump(settings, pieces).await,
            Self::Sqlite(path) => sqlite::dump(path.clone(), Utc::now(), pieces).await,
        };
        dumped.with_context(|| format!("{} can't be read", self.name()))
    }

    /// What is there, for whoever means to put something in.
    ///
    /// # Errors
    /// It can't be reached or read.
    pub(crate) async fn target(&self) -> anyhow::Result<Target> {
        let found = match self {
            Self::Postgres(settings, _) => postgres::target(settings).await,
            Self::Sqlite(path) => sqlite::target(path.clone(), Utc::now()).await,
        };
        found.with_context(|| format!("{} can't be read", self.name()))
    }

    /// Puts all in.
    ///
    /// # Errors
    /// It can't be written, or what comes is not whole; it is as it was.
    pub(crate) async fn load(&self, coming: Coming, wish: Wish) -> anyhow::Result<()> {
        let loaded = match self {
            Self::Postgres(settings, _) => postgres::load(settings, coming, wish).await,
            Self::Sqlite(path) => sqlite::load(path.clone(), coming, wish).await,
        };
        loaded.with_context(|| format!("{} was not written", self.name()))
    }
}
