//! Keys of the API.

use async_trait::async_trait;
use domain::access::Grants;
use domain::{ApiKey, KeyHash, KeyId, Time};
use tokio_postgres::Row;
use uuid::Uuid;

use super::Postgres;
use super::sql::{decode, encode, get, limit, text};
use crate::error::corrupt;
use crate::{KeyFilter, Keys, Result};

#[async_trait]
impl Keys for Postgres {
    async fn add_key(&self, key: ApiKey) -> Result<bool> {
        let scopes = encode("the scopes", &key.grants.scopes)?;
        let agents = key.grants.agents.as_ref();
        let agents = agents
            .map(|agents| encode("the agents", agents))
            .transpose()?;
        let mut conn = self.pool.get().await?;
        let added = conn
            .run(
                "INSERT INTO api_keys (id, name, hash, hint, scopes, agents, created_at, created_by, expires_at,
                     last_used_at, revoked_at, revoked_by)
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12) ON CONFLICT DO NOTHING RETURNING id",
                &[
                    &key.id.as_uuid(),
                    &text(&key.name).as_ref(),
                    &key.hash.as_bytes().as_slice(),
                    &text(&key.hint).as_ref(),
                    &scopes,
                    &agents,
                    &key.created_at,
                    &text(&key.created_by).as_ref(),
                    &key.expires_at,
                    &key.last_used_at,
                    &key.revoked_at,
                    &key.revoked_by,
                ],
            )
            .await?;
        Ok(added)
    }

    async fn keys(&self, filter: KeyFilter) -> Result<Vec<ApiKey>> {
        let (at, id) = match &filter.page.after {
            Some((at, id)) => (Some(*at), id.parse::<KeyId>().ok()),
            None => (None, None),
        };
        let id = id.map_or(Uuid::nil(), KeyId::as_uuid);
        let mut conn = self.pool.get().await?;
        let rows = conn
            .all(
                "SELECT id, name, hash, hint, scopes, agents, created_at, created_by, expires_at, last_used_at,
                     revoked_at, revoked_by
                 FROM api_keys
                 WHERE ($1::timestamptz IS NULL OR (created_at, id) < ($1, $2))
                   AND ($3::timestamptz IS NULL OR revoked_at IS NULL AND (expires_at IS NULL OR expires_at > $3))
                 ORDER BY created_at DESC, id DESC LIMIT $4",
                &[&at, &id, &filter.active_at, &limit(filter.page.limit)],
            )
            .await?;
        let keys = rows.iter().filter_map(|row| {
            let read = key(row);
            read.inspect_err(|error| tracing::warn!(%error, "a key is left out"))
                .ok()
        });
        Ok(keys.collect())
    }

    async fn revoke_key(&self, id: KeyId, by: &str, now: Time) -> Result<bool> {
        let mut conn = self.pool.get().await?;
        let found = conn
            .run(
                "UPDATE api_keys SET revoked_by = CASE WHEN revoked_at IS NULL THEN $2 ELSE revoked_by END,
                     revoked_at = coalesce(revoked_at, $3)
                 WHERE id = $1 RETURNING id",
                &[&id.as_uuid(), &text(by).as_ref(), &now],
            )
            .await?;
        Ok(found)
    }

    async fn note_key_use(&self, uses: &[(KeyId, Time)]) -> Result<()> {
        // In one order, so that two processes are not in each other's way.
        let mut uses = uses.to_vec();
        uses.sort_unstable();
        let ids: Vec<Uuid> = uses.iter().map(|(id, _)| id.as_uuid()).collect();
        let times: Vec<Time> = uses.iter().map(|(_, at)| *at).collect();
        let mut conn = self.pool.get().await?;
        // Keys that another process is noting at this moment are left to it.
        conn.run(
            "WITH used AS (
                 SELECT k.id, u.at FROM api_keys AS k JOIN unnest($1::uuid[], $2::timestamptz[]) AS u (id, at) USING (id)
                 ORDER BY k.id FOR UPDATE OF k SKIP LOCKED)
             UPDATE api_keys AS k SET last_used_at = greatest(k.last_used_at, used.at) FROM used WHERE k.id = used.id",
            &[&ids, &times],
        )
        .await?;
        Ok(())
    }
}

fn key(row: &Row) -> Result<ApiKey> {
    let id = KeyId::from_uuid(get(row, 0)?);
    let hash: Vec<u8> = get(row, 2)?;
    let hash = <[u8; 32]>::try_from(hash)
        .map_err(|_| corrupt(format!("the hash of key {id}"), "it has not 32 bytes"))?;
    let (scopes, agents): (String, Option<String>) = (get(row, 4)?, get(row, 5)?);
    let agents = agents.map(|json| decode(|| format!("the agents of key {id}"), &json));
    Ok(ApiKey {
        id,
        name: get(row, 1)?,
        hash: KeyHash::from_bytes(hash),
        hint: get(row, 3)?,
        grants: Grants {
            scopes: decode(|| format!("the scopes of key {id}"), &scopes)?,
            agents: agents.transpose()?,
        },
        created_at: get(row, 6)?,
        created_by: get(row, 7)?,
        expires_at: get(row, 8)?,
        last_used_at: get(row, 9)?,
        revoked_at: get(row, 10)?,
        revoked_by: get(row, 11)?,
    })
}
