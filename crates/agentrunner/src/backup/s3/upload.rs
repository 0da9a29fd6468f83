//! Putting a backup into a bucket: in parts, so that it has its name when all of it is there and not before.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{bail, ensure};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use md5::{Digest as _, Md5};
use reqwest::Method;
use reqwest::header::{CONTENT_LENGTH, ETAG, HeaderMap, HeaderValue};
use rusty_s3::S3Action as _;
use rusty_s3::actions::{CompleteMultipartUploadResponse, CreateMultipartUpload};
use tokio::signal::unix::{SignalKind, signal};

use super::asking::Call;
use super::refused::{Doing, Kind, Trouble};
use super::{Bucket, PATIENCE, VALID};
use crate::backup::Address;

/// How many parts an object may have.
const PARTS: u64 = 10_000;
/// How much is on its way at once, in bytes, unless a single part is more.
const ON_ITS_WAY: u64 = 64 << 20;
/// The slowest line that is waited for, in bytes a second.
const SLOWEST: u64 = 32 << 10;
/// How long the store may take to make one of the parts.
const JOINING: Duration = Duration::from_secs(600);

impl Bucket {
    /// Puts a file here, under this name. `told` hears how many more bytes are there.
    ///
    /// # Errors
    /// It can't be put, or there is one of that name; then nothing is left of it.
    pub(crate) async fn put(
        &self,
        name: &str,
        file: File,
        length: u64,
        told: &dyn Fn(u64),
    ) -> anyhow::Result<Address> {
        let address = self.address.join(name);
        ensure!(
            self.length_of(&address).await.is_none(),
            "{address} is there already"
        );
        // From here on, so that the store is told of an end by Ctrl-C, too.
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let id = self.begin(&address).await?;
        let stopped = || Trouble::new(Kind::Stopped, "stopped");
        let sent = tokio::select! {
            sent = self.send_all(&address, &id, Arc::new(file), length, told) => sent,
            _ = interrupt.recv() => Err(stopped()),
            _ = terminate.recv() => Err(stopped()),
        };
        let Err(trouble) = sent else {
            return Ok(address);
        };
        match self.abort(&address, &id).await {
            Ok(()) => {}
            // There is nothing to end: perhaps an answer was lost that said that all is well.
            Err(error) if error.kind == Kind::Gone => {
                if self.length_of(&address).await == Some(length) {
                    return Ok(address);
                }
            }
            Err(error) => {
                let (bucket, key) = (address.bucket(), address.key());
                bail!(
                    "{address} was not made: {trouble}; and its parts are left ({error}): aws s3api abort-multipart-upload --bucket {bucket} --key '{key}' --upload-id '{id}'"
                );
            }
        }
        Err(anyhow::Error::from(trouble).context(format!("{address} was not made")))
    }

    /// How long an object is, when it is there and we may know.
    async fn length_of(&self, address: &Address) -> Option<u64> {
        let key = address.key();
        let call = Call {
            doing: Doing::Read,
            address,
            method: Method::HEAD,
            sign: &|bucket, keys| bucket.head_object(Some(keys), key).sign(VALID),
            headers: HeaderMap::new(),
            body: None,
            patience: PATIENCE,
        };
        let answer = self.ask(&call).await.ok()?;
        answer
            .headers
            .get(CONTENT_LENGTH)?
            .to_str()
            .ok()?
            .parse()
            .ok()
    }

    async fn begin(&self, address: &Address) -> Result<String, Trouble> {
        let key = address.key();
        let call = Call {
            doing: Doing::Write,
            address,
            method: Method::POST,
            sign: &|bucket, keys| bucket.create_multipart_upload(Some(keys), key).sign(VALID),
            headers: HeaderMap::new(),
            body: None,
            patience: PATIENCE,
        };
        let answer = self.ask(&call).await?;
        let begun = CreateMultipartUpload::parse_response(&answer.body);
        let begun = begun.map_err(|_| self.is_no_store())?;
        let id = begun.upload_id();
        // It goes into addresses, and into what somebody is told to type.
        let is_plain = |c: char| c.is_ascii_graphic() && c != '\'';
        if id.is_empty() || id.len() > 1024 || !id.chars().all(is_plain) {
            return Err(self.is_no_store());
        }
        Ok(id.to_owned())
    }

    async fn send_all(
        &self,
        address: &Address,
        id: &str,
        file: Arc<File>,
        length: u64,
        told: &dyn Fn(u64),
    ) -> Result<(), Trouble> {
        let size = size_of_parts(length, self.part);
        let lanes = usize::try_from(ON_ITS_WAY / size).unwrap_or(1).max(1);
        let parts = (0..length.div_ceil(size).max(1)).map(|place| {
            let (file, from) = (file.clone(), place * size);
            let bytes = length.saturating_sub(from).min(size);
            async move {
                let body = read(file, from, bytes).await?;
                let etag = self.part(address, id, place + 1, body).await?;
                told(bytes);
                Ok(etag)
            }
        });
        let etags: Vec<String> = stream::iter(parts).buffered(lanes).try_collect().await?;
        self.complete(address, id, &etags).await
    }

    async fn part(
        &self,
        address: &Address,
        id: &str,
        number: u64,
        body: Bytes,
    ) -> Result<String, Trouble> {
        let number = u16::try_from(number).map_err(|_| too_large())?;
        let key = address.key();
        let mut headers = HeaderMap::new();
        // The store compares it, so what a line has changed is not kept.
        let sum = BASE64_STANDARD.encode(Md5::digest(&body));
        if let Ok(sum) = HeaderValue::from_str(&sum) {
            headers.insert("content-md5", sum);
        }
        let patience = PATIENCE + Duration::from_secs(body.len() as u64 / SLOWEST);
        let call = Call {
            doing: Doing::Write,
            address,
            method: Method::PUT,
            sign: &|bucket, keys| bucket.upload_part(Some(keys), key, number, id).sign(VALID),
            headers,
            body: Some(body),
            patience,
        };
        let answer = self.ask(&call).await?;
        let etag = answer.headers.get(ETAG).and_then(|etag| etag.to_str().ok());
        etag.map(str::to_owned).ok_or_else(|| self.is_no_store())
    }

    /// Makes one object of the parts.
    async fn complete(&self, address: &Address, id: &str, etags: &[String]) -> Result<(), Trouble> {
        let key = address.key();
        let joined = etags.iter().map(String::as_str);
        let joined = self.bucket.complete_multipart_upload(None, key, id, joined);
        let body = joined.body();
        let call = Call {
            doing: Doing::Write,
            address,
            method: Method::POST,
            sign: &|bucket, keys| {
                let etags = etags.iter().map(String::as_str);
                let joined = bucket.complete_multipart_upload(Some(keys), key, id, etags);
                joined.sign(VALID)
            },
            headers: HeaderMap::new(),
            body: Some(body.into()),
            patience: JOINING,
        };
        let answer = self.ask(&call).await?;
        let made = CompleteMultipartUploadResponse::parse(&answer.body);
        made.map(drop).map_err(|_| self.is_no_store())
    }

    async fn abort(&self, address: &Address, id: &str) -> Result<(), Trouble> {
        let key = address.key();
        let call = Call {
            doing: Doing::Abort,
            address,
            method: Method::DELETE,
            sign: &|bucket, keys| {
                bucket
                    .abort_multipart_upload(Some(keys), key, id)
                    .sign(VALID)
            },
            headers: HeaderMap::new(),
            body: None,
            patience: PATIENCE,
        };
        self.ask(&call).await.map(drop)
    }
}

/// So large that there are not too many.
fn size_of_parts(length: u64, usual: u64) -> u64 {
    usual.max(length.div_ceil(PARTS))
}

fn too_large() -> Trouble {
    Trouble::new(Kind::Final, "it is larger than a store takes")
}

async fn read(file: Arc<File>, from: u64, bytes: u64) -> Result<Bytes, Trouble> {
    let size = usize::try_from(bytes).map_err(|_| too_large())?;
    let reading = tokio::task::spawn_blocking(move || {
        let mut part = vec![0; size];
        file.read_exact_at(&mut part, from)?;
        Ok::<_, std::io::Error>(part)
    });
    let unreadable = |error: &dyn std::fmt::Display| {
        Trouble::new(
            Kind::Final,
            format!("the backup can't be read again: {error}"),
        )
    };
    let part = reading.await.map_err(|error| unreadable(&error))?;
    Ok(part.map_err(|error| unreadable(&error))?.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_object_has_more_parts_than_a_store_takes() {
        const MIB: u64 = 1 << 20;
        assert_eq!(size_of_parts(0, 16 * MIB), 16 * MIB);
        assert_eq!(size_of_parts(160_000 * MIB, 16 * MIB), 16 * MIB);
        for length in [160_000 * MIB + 1, 5 << 40] {
            let size = size_of_parts(length, 16 * MIB);
            assert!(size > 16 * MIB && length.div_ceil(size) <= PARTS);
        }
    }
}
