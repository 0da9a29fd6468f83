//! One session on the server: opening it, statements, transactions.

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::timeout;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{
    Client, CopyInSink, CopyOutStream, NoTls, Row, SimpleQueryMessage, Statement,
};

use super::fault::{Fault, Outcome, not_connected, silent, unavailable};
use super::settings::Server;
use crate::{Certainty, Error};

/// The oldest server that is known to work, as it numbers its versions.
const OLDEST: u32 = 150_000;
/// How much longer than the server we wait for a statement: only a lost server is given up by us.
const GRACE: Duration = Duration::from_secs(3);

/// What a session is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// Any statement.
    General,
    /// Statements that are made hundreds of times a second and touch rows that they are given by key, or the first of an
    /// index. They are planned once: planning takes several times as long as the work, and the values tell a planner
    /// nothing. They must find rows by the key, in its order, even while the planner takes a table for small, as it does
    /// with a new one.
    Batches,
}

/// Values of a statement.
pub(super) type Values<'a> = &'a [&'a (dyn ToSql + Sync)];

/// A session. Statements are prepared once and kept.
pub(super) struct Conn {
    client: Client,
    prepared: HashMap<&'static str, Statement>,
    patience: Duration,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Each statement is its own transaction.
    Idle,
    /// The next statement opens a transaction.
    Beginning,
    /// A transaction is open.
    Open,
    /// Not to be used any more.
    Broken,
}

impl Conn {
    /// Connects, and makes sure that the server serves.
    pub(super) async fn open(server: &Server, role: Role) -> Outcome<Self> {
        let opening = timeout(server.connect_timeout, Self::connect(server, role)).await;
        opening.unwrap_or_else(|_| Err(unavailable(silent(server)).into()))
    }

    async fn connect(server: &Server, role: Role) -> Outcome<Self> {
        if let Some((host, port)) = &server.host {
            // The driver would only say that it could not connect.
            let addresses = tokio::net::lookup_host((host.as_str(), *port)).await;
            addresses.map(drop).map_err(|error| Error::Unavailable {
                message: format!("the host {host} is not known; check POSTGRES_HOST"),
                certainty: Certainty::NotApplied,
                source: Some(Box::new(error)),
            })?;
        }
        let (client, connection) = server
            .config
            .connect(NoTls)
            .await
            .map_err(|error| not_connected(error, server))?;
        let name = server.name.clone();
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::warn!(server = %name, %error, "a connection to PostgreSQL ended");
            }
        });
        let conn = Self {
            client,
            prepared: HashMap::new(),
            patience: server.statement_timeout + GRACE,
            state: State::Idle,
        };
        conn.set_up(server, role).await?;
        Ok(conn)
    }

    async fn set_up(&self, server: &Server, role: Role) -> Outcome<()> {
        let planning = match role {
            Role::General => "",
            Role::Batches => {
                "SET plan_cache_mode = force_generic_plan; SET enable_seqscan = off;
                 SET enable_nestloop = off; SET enable_mergejoin = off; SET enable_bitmapscan = off;"
            }
        };
        let milliseconds = server.statement_timeout.as_millis();
        let sql = format!(
            "SET statement_timeout = {milliseconds}; SET lock_timeout = {milliseconds};
             SET idle_in_transaction_session_timeout = {milliseconds}; SET jit = off;
             SET default_transaction_isolation = 'read committed'; SET client_min_messages = warning; {planning}
             SELECT current_setting('server_version_num'), current_setting('transaction_read_only'),
                 current_setting('server_version')"
        );
        let messages = self
            .client
            .simple_query(&sql)
            .await
            .map_err(|error| not_connected(error, server))?;
        let row = messages.iter().find_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some(row),
            _ => None,
        });
        let text = |column: usize| row.and_then(|row| row.get(column)).unwrap_or_default();
        if text(0).parse::<u32>().unwrap_or(0) < OLDEST {
            let message = format!(
                "the PostgreSQL server at {} is version {}; version 15 or later is needed",
                server.name,
                text(2)
            );
            return Err(unavailable(message).into());
        }
        if text(1) == "on" {
            let message = format!(
                "the PostgreSQL server at {} is read-only, perhaps a standby; connect to the primary server, or check default_transaction_read_only",
                server.name
            );
            return Err(unavailable(message).into());
        }
        Ok(())
    }

    /// Whether it can be used again.
    pub(super) fn is_clean(&self) -> bool {
        self.state == State::Idle && !self.client.is_closed()
    }

    /// Opens a transaction; the word goes out with the next statement. One that is not committed, because its future
    /// was dropped or a statement failed, ends with the session.
    pub(super) fn begin(&mut self) {
        self.state = State::Beginning;
    }

    /// Makes the open transaction durable.
    pub(super) async fn commit(&mut self) -> Outcome<()> {
        match self.state {
            State::Open => self.end("COMMIT", true).await,
            // Nothing was asked in it.
            State::Beginning => {
                self.state = State::Idle;
                Ok(())
            }
            State::Idle | State::Broken => Ok(()),
        }
    }

    /// Gives the open transaction up.
    pub(super) async fn roll_back(&mut self) -> Outcome<()> {
        match self.state {
            State::Open => self.end("ROLLBACK", false).await,
            State::Beginning => {
                self.state = State::Idle;
                Ok(())
            }
            State::Idle | State::Broken => Ok(()),
        }
    }

    async fn end(&mut self, word: &str, is_final: bool) -> Outcome<()> {
        self.state = State::Broken;
        match timeout(self.patience, self.client.batch_execute(word)).await {
            Ok(Ok(())) => {
                self.state = State::Idle;
                Ok(())
            }
            Ok(Err(error)) => Err(Fault::sql(error, is_final)),
            Err(_) => Err(self.silence(is_final)),
        }
    }

    /// Runs a statement that is always the same; answers its rows.
    pub(super) async fn all(&mut self, sql: &'static str, values: Values<'_>) -> Outcome<Vec<Row>> {
        let statement = self.prepare(sql).await?;
        let before = self.state;
        // Until the answer is here: whoever drops this future leaves a session that nobody may use.
        if before != State::Idle {
            self.state = State::Broken;
        }
        let client = &self.client;
        let work = async {
            if before == State::Beginning {
                // Both go out in one packet.
                let (begun, rows) = tokio::join!(
                    client.batch_execute("BEGIN"),
                    client.query(&statement, values)
                );
                begun?;
                rows
            } else {
                client.query(&statement, values).await
            }
        };
        let is_final = before == State::Idle;
        match timeout(self.patience, work).await {
            Ok(Ok(rows)) => {
                self.state = if is_final { State::Idle } else { State::Open };
                Ok(rows)
            }
            Ok(Err(error)) => {
                if !is_final && !self.client.is_closed() {
                    self.state = State::Open;
                }
                Err(Fault::sql(error, is_final))
            }
            Err(_) => Err(self.silence(is_final)),
        }
    }

    /// The first row, if there is one.
    pub(super) async fn first(
        &mut self,
        sql: &'static str,
        values: Values<'_>,
    ) -> Outcome<Option<Row>> {
        Ok(self.all(sql, values).await?.into_iter().next())
    }

    /// Runs a statement; answers whether it answered with a row.
    pub(super) async fn run(&mut self, sql: &'static str, values: Values<'_>) -> Outcome<bool> {
        Ok(!self.all(sql, values).await?.is_empty())
    }

    /// Runs a query that is put together for the occasion, outside of a transaction or in one that only reads.
    pub(super) async fn query(&mut self, sql: &str, values: Values<'_>) -> Outcome<Vec<Row>> {
        match timeout(self.patience, self.client.query(sql, values)).await {
            Ok(rows) => rows.map_err(|error| Fault::sql(error, false)),
            Err(_) => Err(self.silence(false)),
        }
    }

    /// Runs statements without values, as one transaction unless they say otherwise.
    pub(super) async fn script(&mut self, sql: &str) -> Outcome<()> {
        match timeout(self.patience, self.client.batch_execute(sql)).await {
            Ok(done) => done.map_err(|error| Fault::sql(error, true)),
            Err(_) => Err(self.silence(true)),
        }
    }

    /// The types of a table's columns, as the catalogue has them.
    pub(super) async fn types(&mut self, table: &str, columns: &[String]) -> Outcome<Vec<Type>> {
        let sql = format!("SELECT {} FROM {table}", columns.join(", "));
        let prepared = timeout(self.patience, self.client.prepare(&sql)).await;
        match prepared {
            Ok(statement) => {
                let statement = statement.map_err(|error| Fault::sql(error, false))?;
                let columns = statement.columns().iter();
                Ok(columns.map(|column| column.type_().clone()).collect())
            }
            Err(_) => Err(self.silence(false)),
        }
    }

    /// Begins to take rows out.
    pub(super) async fn copy_out(&mut self, sql: &str) -> Outcome<CopyOutStream> {
        match timeout(self.patience, self.client.copy_out(sql)).await {
            Ok(stream) => stream.map_err(|error| Fault::sql(error, false)),
            Err(_) => Err(self.silence(false)),
        }
    }

    /// Begins to put rows in.
    pub(super) async fn copy_in(&mut self, sql: &str) -> Outcome<CopyInSink<Bytes>> {
        match timeout(self.patience, self.client.copy_in(sql)).await {
            Ok(sink) => sink.map_err(|error| Fault::sql(error, false)),
            Err(_) => Err(self.silence(false)),
        }
    }

    async fn prepare(&mut self, sql: &'static str) -> Outcome<Statement> {
        if let Some(statement) = self.prepared.get(sql) {
            return Ok(statement.clone());
        }
        let statement = match timeout(self.patience, self.client.prepare(sql)).await {
            Ok(statement) => statement.map_err(|error| Fault::sql(error, false))?,
            Err(_) => return Err(self.silence(false)),
        };
        self.prepared.insert(sql, statement.clone());
        Ok(statement)
    }

    fn silence(&mut self, is_final: bool) -> Fault {
        self.state = State::Broken;
        let certainty = if is_final {
            Certainty::Unknown
        } else {
            Certainty::NotApplied
        };
        Fault::Told(Error::Unavailable {
            message: format!(
                "the server has not answered for {} s; the connection is given up",
                self.patience.as_secs()
            ),
            certainty,
            source: None,
        })
    }
}

impl std::fmt::Debug for Conn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Conn")
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}
