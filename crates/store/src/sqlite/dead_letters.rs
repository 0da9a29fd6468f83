//! Events that could not be delivered or processed.

use rusqlite::{Connection, params};

use super::Sqlite;
use super::fault::Outcome;
use super::sql::{Sql, decode, encode, limit, micros, time};
use super::writer::Tx;
use crate::{DeadLetter, Page, Result};

impl Sqlite {
    pub(super) async fn bury(&self, letter: DeadLetter) -> Result<()> {
        let event = encode("the event", &letter.event)?;
        let bury = move |tx: &mut Tx<'_>| {
            tx.conn.run(
                "INSERT OR REPLACE INTO dead_letters (id, queue, event, reason, attempts, at)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                params![
                    letter.id,
                    letter.queue,
                    event,
                    letter.reason,
                    letter.attempts,
                    micros(letter.at)
                ],
            )?;
            Ok(())
        };
        self.writer.write(bury).await
    }

    pub(super) async fn list_dead_letters(&self, page: Page) -> Result<Vec<DeadLetter>> {
        let rows = self.readers.read(move |conn| select(conn, &page)).await?;
        // One that can't be read must not hide the others.
        let letters = rows.into_iter().filter_map(|row| {
            let read = row.read();
            read.inspect_err(|error| tracing::warn!(%error, "a dead letter is left out"))
                .ok()
        });
        Ok(letters.collect())
    }

    pub(super) async fn forget_dead_letter(&self, id: &str) -> Result<bool> {
        let id = id.to_owned();
        let forget = move |tx: &mut Tx<'_>| {
            let gone = tx
                .conn
                .run("DELETE FROM dead_letters WHERE id = ?1", [&id])?;
            Ok(gone == 1)
        };
        self.writer.write(forget).await
    }
}

struct Raw {
    id: String,
    queue: String,
    event: String,
    reason: String,
    attempts: u32,
    at: i64,
}

impl Raw {
    fn read(self) -> Result<DeadLetter> {
        Ok(DeadLetter {
            event: decode(|| format!("dead letter {}", self.id), &self.event)?,
            at: time(self.at)?,
            id: self.id,
            queue: self.queue,
            reason: self.reason,
            attempts: self.attempts,
        })
    }
}

fn select(conn: &Connection, page: &Page) -> Outcome<Vec<Raw>> {
    let (at, id) = match &page.after {
        Some((at, id)) => (micros(*at), id.as_str()),
        None => (i64::MAX, ""),
    };
    conn.all(
        "SELECT id, queue, event, reason, attempts, at FROM dead_letters
         WHERE (at, id) < (?1, ?2) ORDER BY at DESC, id DESC LIMIT ?3",
        params![at, id, limit(page.limit)],
        |row| {
            Ok(Raw {
                id: row.get(0)?,
                queue: row.get(1)?,
                event: row.get(2)?,
                reason: row.get(3)?,
                attempts: row.get(4)?,
                at: row.get(5)?,
            })
        },
    )
}
