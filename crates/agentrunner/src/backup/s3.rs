//! A bucket of an S3-compatible store, as far as backups need one. What is signed and how answers read is `rusty-s3`'s; the
//! requests are made here: bounded, tried again when that may help, and with words for what went wrong.

mod asking;
mod download;
mod identity;
mod refused;
#[cfg(test)]
mod tests;
mod upload;

use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use domain::Time;
use reqwest::{Client, Method, Url};
use rusty_s3::actions::ListObjectsV2;
use rusty_s3::{S3Action as _, UrlStyle};

use super::Address;
use super::keep::{Keep, newest, old};
use crate::settings::Settings;
use crate::wiring;
use asking::Call;
use identity::Identity;
use refused::{Doing, Kind, Trouble};

/// How long a signed address is good.
const VALID: Duration = Duration::from_secs(15 * 60);
/// How long a short question waits.
const PATIENCE: Duration = Duration::from_secs(60);
/// How many pages of a list are read, of a thousand names each.
const PAGES: usize = 100;
/// The size of a part, in bytes: what is held in memory, and sent again when it was lost.
const PART: u64 = 16 << 20;

/// Whether it is an upload that somebody has ended.
pub(crate) fn is_stopped(error: &anyhow::Error) -> bool {
    let trouble = error.downcast_ref::<Trouble>();
    trouble.is_some_and(|trouble| trouble.kind == Kind::Stopped)
}

/// Where backups are kept, or one of them is.
pub(crate) struct Bucket {
    http: Client,
    identity: Identity,
    bucket: rusty_s3::Bucket,
    address: Address,
    /// The host that is asked.
    place: String,
    part: u64,
    /// How long the try after so many waits.
    pause: fn(u32) -> Duration,
}

impl Bucket {
    /// The one that an address names, at AWS or where the settings say. Asks nobody but for the region.
    ///
    /// # Errors
    /// There is no region, or the store's address can't be used.
    pub(crate) async fn open(settings: &Settings, address: &Address) -> anyhow::Result<Self> {
        let endpoint = ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"];
        let endpoint = endpoint
            .into_iter()
            .find_map(|name| Some((name, settings.values.text(name)?)));
        let identity = Identity::new(wiring::aws_settings(settings), endpoint.is_none()).await?;
        let (url, style) = home(endpoint, identity.region(), address.bucket())?;
        let (name, region) = (address.bucket().to_owned(), identity.region().to_owned());
        let bucket = rusty_s3::Bucket::new(url, style, name, region)
            .map_err(|error| anyhow::anyhow!("{address} has no URL: {error}"))?;
        let base = bucket.base_url();
        let host = base.host_str().unwrap_or_default();
        let place = base
            .port()
            .map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
        let http = Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(Duration::from_secs(10))
            // A body is the object, byte for byte.
            .no_gzip()
            .build()?;
        Ok(Self {
            http,
            identity,
            bucket,
            address: address.clone(),
            place,
            part: PART,
            pause: |tried| Duration::from_millis(250 << tried.min(5)),
        })
    }

    /// Finds out before anything is read from the database whether a backup could be put here.
    ///
    /// # Errors
    /// The bucket is not there, not ours or can't be asked.
    pub(crate) async fn check(&self, keep: Keep) -> anyhow::Result<()> {
        match self.page(&self.address, None, 1).await {
            // A key that may only write is a good one, as long as nothing has to be deleted.
            Err(trouble) if trouble.kind == Kind::Forbidden && keep == Keep::All => Ok(()),
            Err(trouble) => Err(trouble.into()),
            Ok(_) => Ok(()),
        }
    }

    /// Deletes the backups that are not kept; answers their addresses.
    ///
    /// # Errors
    /// They can't be listed, or one can't be deleted.
    pub(crate) async fn forget_old(&self, keep: Keep, now: Time) -> anyhow::Result<Vec<Address>> {
        if keep == Keep::All {
            return Ok(Vec::new());
        }
        let mut gone = Vec::new();
        for name in old(self.names(&self.address).await?, keep, now) {
            let address = self.address.join(&name);
            let key = address.key();
            let call = Call {
                doing: Doing::Delete,
                address: &address,
                method: Method::DELETE,
                sign: &|bucket, keys| bucket.delete_object(Some(keys), key).sign(VALID),
                headers: reqwest::header::HeaderMap::new(),
                body: None,
                patience: PATIENCE,
            };
            self.ask(&call).await?;
            gone.push(address);
        }
        Ok(gone)
    }

    /// The newest backup that lies directly below a prefix.
    async fn newest(&self, folder: &Address) -> Option<Address> {
        let names = self.names(folder).await.ok()?;
        newest(names).map(|name| folder.join(&name))
    }

    /// The names of the backups directly below a prefix, and others that begin like them.
    async fn names(&self, folder: &Address) -> anyhow::Result<Vec<String>> {
        let before = folder.folder();
        let (mut names, mut token) = (Vec::new(), None);
        for _ in 0..PAGES {
            let page = self.page(folder, token.as_deref(), 1000).await?;
            let found = page.contents.into_iter();
            names.extend(
                found.filter_map(|object| object.key.strip_prefix(&before).map(str::to_owned)),
            );
            token = page.next_continuation_token;
            if token.is_none() {
                return Ok(names);
            }
        }
        bail!(
            "there are more than {PAGES},000 backups below {folder}: delete some, or use another prefix"
        );
    }

    async fn page(
        &self,
        folder: &Address,
        token: Option<&str>,
        most: usize,
    ) -> Result<rusty_s3::actions::ListObjectsV2Response, Trouble> {
        let prefix = format!("{}{}", folder.folder(), super::keep::BEFORE);
        let sign = |bucket: &rusty_s3::Bucket, keys: &rusty_s3::Credentials| {
            let mut list = bucket.list_objects_v2(Some(keys));
            list.with_prefix(prefix.as_str());
            list.with_delimiter("/");
            list.with_max_keys(most);
            if let Some(token) = token {
                list.with_continuation_token(token);
            }
            list.sign(VALID)
        };
        let call = Call {
            doing: Doing::List,
            address: folder,
            method: Method::GET,
            sign: &sign,
            headers: reqwest::header::HeaderMap::new(),
            body: None,
            patience: PATIENCE,
        };
        let answer = self.ask(&call).await?;
        ListObjectsV2::parse_response(&answer.body).map_err(|_| self.is_no_store())
    }

    /// The trouble with an answer that no store gives.
    fn is_no_store(&self) -> Trouble {
        let place = &self.place;
        Trouble::new(
            Kind::Final,
            format!("{place} does not answer as S3 does: check AWS_ENDPOINT_URL_S3"),
        )
    }
}

/// The address of the store, and whether the bucket is part of its host's name or of the path.
fn home(
    endpoint: Option<(&str, &str)>,
    region: &str,
    bucket: &str,
) -> anyhow::Result<(Url, UrlStyle)> {
    if let Some((name, text)) = endpoint {
        let url: Url = text
            .parse()
            .with_context(|| format!("{name} is not an address"))?;
        ensure!(
            url.username().is_empty() && url.password().is_none(),
            "{name} must not hold a user or password: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        );
        return Ok((url, UrlStyle::Path));
    }
    let domain = match region.starts_with("cn-") {
        true => "amazonaws.com.cn",
        false => "amazonaws.com",
    };
    let url = format!("https://s3.{region}.{domain}/").parse()?;
    // AWS's certificates are good for one label before that.
    let style = match bucket.contains('.') {
        true => UrlStyle::Path,
        false => UrlStyle::VirtualHost,
    };
    Ok((url, style))
}
