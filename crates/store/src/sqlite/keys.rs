//! Keys of the API.

use async_trait::async_trait;
use domain::access::Grants;
use domain::{ApiKey, KeyHash, KeyId, Time};
use rusqlite::{Connection, params};

use super::Sqlite;
use super::fault::Outcome;
use super::sql::{Sql, decode, encode, limit, micros, time};
use super::writer::Tx;
use crate::{KeyFilter, Keys, Result};

#[async_trait]
impl Keys for Sqlite {
    async fn add_key(&self, key: ApiKey) -> Result<bool> {
        let scopes = encode("the scopes", &key.grants.scopes)?;
        let agents = key.grants.agents.as_ref();
        let agents = agents
            .map(|agents| encode("the agents", agents))
            .transpose()?;
        let add = move |tx: &mut Tx<'_>| {
            let added = tx.conn.run(
                "INSERT INTO api_keys (id, name, hash, hint, scopes, agents, created_at, created_by, expires_at,
                     last_used_at, revoked_at, revoked_by)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12) ON CONFLICT DO NOTHING",
                params![
                    key.id.as_uuid().into_bytes(),
                    key.name,
                    key.hash.as_bytes(),
                    key.hint,
                    scopes,
                    agents,
                    micros(key.created_at),
                    key.created_by,
                    key.expires_at.map(micros),
                    key.last_used_at.map(micros),
                    key.revoked_at.map(micros),
                    key.revoked_by
                ],
            )?;
            Ok(added == 1)
        };
        self.writer.write(add).await
    }

    async fn keys(&self, filter: KeyFilter) -> Result<Vec<ApiKey>> {
        let rows = self.readers.read(move |conn| select(conn, &filter)).await?;
        let keys = rows.into_iter().filter_map(|row| {
            let read = row.read();
            read.inspect_err(|error| tracing::warn!(%error, "a key is left out"))
                .ok()
        });
        Ok(keys.collect())
    }

    async fn revoke_key(&self, id: KeyId, by: &str, now: Time) -> Result<bool> {
        let by = by.to_owned();
        let revoke = move |tx: &mut Tx<'_>| {
            let changed = tx.conn.run(
                "UPDATE api_keys SET revoked_by = CASE WHEN revoked_at IS NULL THEN ?2 ELSE revoked_by END,
                     revoked_at = coalesce(revoked_at, ?3)
                 WHERE id = ?1",
                params![id.as_uuid().into_bytes(), by, micros(now)],
            )?;
            Ok(changed == 1)
        };
        self.writer.write(revoke).await
    }

    async fn note_key_use(&self, uses: &[(KeyId, Time)]) -> Result<()> {
        let uses = uses.to_vec();
        let note = move |tx: &mut Tx<'_>| {
            for (id, at) in &uses {
                tx.conn.run(
                    "UPDATE api_keys SET last_used_at = max(coalesce(last_used_at, ?2), ?2) WHERE id = ?1",
                    params![id.as_uuid().into_bytes(), micros(*at)],
                )?;
            }
            Ok(())
        };
        self.writer.write(note).await
    }
}

struct Raw {
    id: [u8; 16],
    name: String,
    hash: [u8; 32],
    hint: String,
    scopes: String,
    agents: Option<String>,
    created_at: i64,
    created_by: String,
    expires_at: Option<i64>,
    last_used_at: Option<i64>,
    revoked_at: Option<i64>,
    revoked_by: Option<String>,
}

impl Raw {
    fn read(self) -> Result<ApiKey> {
        let id = KeyId::from_uuid(uuid::Uuid::from_bytes(self.id));
        let agents = self.agents.as_ref();
        let agents = agents.map(|json| decode(|| format!("the agents of key {id}"), json));
        Ok(ApiKey {
            id,
            name: self.name,
            hash: KeyHash::from_bytes(self.hash),
            hint: self.hint,
            grants: Grants {
                scopes: decode(|| format!("the scopes of key {id}"), &self.scopes)?,
                agents: agents.transpose()?,
            },
            created_at: time(self.created_at)?,
            created_by: self.created_by,
            expires_at: self.expires_at.map(time).transpose()?,
            last_used_at: self.last_used_at.map(time).transpose()?,
            revoked_at: self.revoked_at.map(time).transpose()?,
            revoked_by: self.revoked_by,
        })
    }
}

fn select(conn: &Connection, filter: &KeyFilter) -> Outcome<Vec<Raw>> {
    // Before the first page lies nothing.
    let (at, id) = match &filter.page.after {
        Some((at, id)) => (
            micros(*at),
            id.parse::<KeyId>()
                .map_or([0; 16], |id| id.as_uuid().into_bytes()),
        ),
        None => (i64::MAX, [0; 16]),
    };
    conn.all(
        "SELECT id, name, hash, hint, scopes, agents, created_at, created_by, expires_at, last_used_at, revoked_at,
             revoked_by
         FROM api_keys
         WHERE (created_at, id) < (?1, ?2)
           AND (?3 IS NULL OR revoked_at IS NULL AND (expires_at IS NULL OR expires_at > ?3))
         ORDER BY created_at DESC, id DESC LIMIT ?4",
        params![at, id, filter.active_at.map(micros), limit(filter.page.limit)],
        |row| {
            Ok(Raw {
                id: row.get(0)?,
                name: row.get(1)?,
                hash: row.get(2)?,
                hint: row.get(3)?,
                scopes: row.get(4)?,
                agents: row.get(5)?,
                created_at: row.get(6)?,
                created_by: row.get(7)?,
                expires_at: row.get(8)?,
                last_used_at: row.get(9)?,
                revoked_at: row.get(10)?,
                revoked_by: row.get(11)?,
            })
        },
    )
}
