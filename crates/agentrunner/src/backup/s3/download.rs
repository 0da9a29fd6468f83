//! Fetching a backup: into a file that has no name, so nothing of it is left whatever happens.

use std::fs::File;
use std::io::SeekFrom;

use anyhow::{Context as _, bail};
use reqwest::header::{CONTENT_LENGTH, ETAG, HeaderMap, HeaderValue, IF_MATCH, RANGE};
use reqwest::{Method, StatusCode};
use rusty_s3::S3Action as _;
use tokio::io::{AsyncSeekExt as _, AsyncWriteExt as _};
use tokio::time::timeout;

use super::asking::{Call, TRIES};
use super::refused::{Doing, Kind, Trouble};
use super::{Bucket, PATIENCE, VALID};
use crate::backup::read::MAGIC;

/// After so much that came, an earlier loss of the connection is forgotten, in bytes.
const GOOD: u64 = 16 << 20;

/// How far it is.
#[derive(Default)]
struct Fetched {
    /// Which one it is, so that the rest is of the same.
    etag: Option<HeaderValue>,
    length: u64,
    at: u64,
    /// Its first bytes.
    magic: Vec<u8>,
}

impl Bucket {
    /// Fetches the object of this address into a file. `told` hears how long it is and how much is here.
    ///
    /// # Errors
    /// It is not there, can't be read or is no backup; or the file can't be written.
    pub(crate) async fn fetch(&self, file: File, told: &dyn Fn(u64, u64)) -> anyhow::Result<File> {
        let address = &self.address;
        if address.key().is_empty() {
            bail!("{address} names no backup: write s3://BUCKET/PREFIX/agentrunner-….tar.zst");
        }
        let mut file = tokio::fs::File::from_std(file);
        let mut fetched = Fetched::default();
        let mut tried = 0;
        loop {
            let before = fetched.at;
            let trouble = match self.pull(&mut file, &mut fetched, told).await {
                Ok(()) => break,
                Err(trouble) => trouble,
            };
            if trouble.kind == Kind::Gone {
                return Err(self.with_newest(trouble).await);
            }
            if fetched.at.saturating_sub(before) >= GOOD {
                tried = 0;
            }
            tried += 1;
            if trouble.kind != Kind::Passing || tried == TRIES {
                return Err(anyhow::Error::from(trouble))
                    .with_context(|| format!("{address} can't be fetched"));
            }
            self.wait(tried, &trouble).await;
        }
        Ok(file.into_std().await)
    }

    /// What is there instead of one that is not.
    async fn with_newest(&self, trouble: Trouble) -> anyhow::Error {
        let (folder, _) = self.address.parts();
        for folder in [&self.address, &folder] {
            if let Some(newest) = self.newest(folder).await {
                return anyhow::anyhow!("{trouble}; the newest below {folder} is {newest}");
            }
        }
        trouble.into()
    }

    /// Takes what is still missing.
    async fn pull(
        &self,
        file: &mut tokio::fs::File,
        fetched: &mut Fetched,
        told: &dyn Fn(u64, u64),
    ) -> Result<(), Trouble> {
        let key = self.address.key();
        let mut headers = HeaderMap::new();
        if let Some(etag) = fetched.etag.clone().filter(|_| fetched.at > 0) {
            headers.insert(IF_MATCH, etag);
            let rest = HeaderValue::from_str(&format!("bytes={}-", fetched.at));
            headers.insert(RANGE, rest.map_err(|_| self.is_no_store())?);
        }
        let call = Call {
            doing: Doing::Read,
            address: &self.address,
            method: Method::GET,
            sign: &|bucket, keys| bucket.get_object(Some(keys), key).sign(VALID),
            headers,
            body: None,
            patience: PATIENCE,
        };
        let sent = timeout(call.patience, self.send(&call)).await;
        let mut response = sent.unwrap_or_else(|_| Err(self.silent()))?;
        if response.status() != StatusCode::PARTIAL_CONTENT {
            // All of it comes, be it for the first time or from one that knows no ranges.
            let header = |name| response.headers().get(name);
            let length =
                header(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
            *fetched = Fetched {
                length: length.ok_or_else(|| self.is_no_store())?,
                etag: header(ETAG).cloned(),
                ..Fetched::default()
            };
        }
        let unwritable = |error: std::io::Error| {
            Trouble::new(
                Kind::Final,
                format!(
                    "{} bytes don't fit into the data folder ({error}): make room, or name another one with --data-dir",
                    fetched.length
                ),
            )
        };
        file.seek(SeekFrom::Start(fetched.at))
            .await
            .map_err(unwritable)?;
        loop {
            let chunk = timeout(PATIENCE, response.chunk()).await;
            let chunk = chunk.map_err(|_| self.silent())?;
            let Some(chunk) = chunk.map_err(|error| self.broken(error))? else {
                break;
            };
            let missing = MAGIC.len() - fetched.magic.len();
            fetched.magic.extend(chunk.iter().take(missing));
            if !MAGIC.starts_with(&fetched.magic) {
                let address = &self.address;
                return Err(Trouble::new(
                    Kind::Final,
                    format!("{address} is not a backup of AgentRunner"),
                ));
            }
            if fetched.at + chunk.len() as u64 > fetched.length {
                return Err(self.is_no_store());
            }
            let written = file.write_all(&chunk).await;
            written.map_err(unwritable)?;
            fetched.at += chunk.len() as u64;
            told(fetched.at, fetched.length);
        }
        file.flush().await.map_err(unwritable)?;
        match fetched.at == fetched.length {
            true => Ok(()),
            false => Err(self.silent()),
        }
    }
}
