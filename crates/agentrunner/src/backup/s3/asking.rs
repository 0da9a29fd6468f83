//! One question to the store, and the same again when that may help.

use std::time::Duration;

use bytes::Bytes;
use reqwest::header::HeaderMap;
use reqwest::{Method, Response, Url};
use rusty_s3::Credentials;

use super::Bucket;
use super::refused::{Doing, Kind, No, Trouble};
use crate::backup::Address;

/// How often something is tried.
pub(super) const TRIES: u32 = 6;
/// The longest answer that is no object: a thousand long names.
const LONGEST: usize = 8 << 20;

/// A question.
pub(super) struct Call<'c> {
    pub(super) doing: Doing,
    pub(super) address: &'c Address,
    pub(super) method: Method,
    /// Makes its address, which is good for a while. It can do what it says, so it is never shown.
    pub(super) sign: &'c dyn Fn(&rusty_s3::Bucket, &Credentials) -> Url,
    pub(super) headers: HeaderMap,
    pub(super) body: Option<Bytes>,
    /// How long one try may take.
    pub(super) patience: Duration,
}

/// A yes.
pub(super) struct Answer {
    pub(super) headers: HeaderMap,
    pub(super) body: String,
}

impl Bucket {
    /// Asks until there is an answer.
    pub(super) async fn ask(&self, call: &Call<'_>) -> Result<Answer, Trouble> {
        let mut tried = 0;
        loop {
            let trouble = match self.once(call).await {
                Ok(answer) => return Ok(answer),
                Err(trouble) => trouble,
            };
            tried += 1;
            if trouble.kind != Kind::Passing || tried == TRIES {
                return Err(trouble);
            }
            self.wait(tried, &trouble).await;
        }
    }

    /// Waits before the next try.
    pub(super) async fn wait(&self, tried: u32, trouble: &Trouble) {
        tracing::warn!("{trouble}; tried {tried} of {TRIES} times");
        tokio::time::sleep((self.pause)(tried - 1)).await;
    }

    async fn once(&self, call: &Call<'_>) -> Result<Answer, Trouble> {
        let asked = async {
            let response = self.send(call).await?;
            let (status, headers) = (response.status(), response.headers().clone());
            let body = self.whole(response).await?;
            // A store may begin with a yes before it knows.
            match body.contains("<Error>") {
                true => Err(self.no(call, status, None, &body)),
                false => Ok(Answer { headers, body }),
            }
        };
        let answer = tokio::time::timeout(call.patience, asked).await;
        answer.unwrap_or_else(|_| Err(self.silent()))
    }

    /// Sends it once; answers what is a yes by its status.
    pub(super) async fn send(&self, call: &Call<'_>) -> Result<Response, Trouble> {
        let keys = self.identity.keys().await;
        let keys = keys.map_err(|message| Trouble::new(Kind::Final, message))?;
        let url = (call.sign)(&self.bucket, &keys);
        let mut request = self.http.request(call.method.clone(), url);
        request = request.headers(call.headers.clone());
        if let Some(body) = &call.body {
            request = request.body(body.clone());
        }
        let response = request.send().await.map_err(|error| self.broken(error))?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let region = response.headers().get("x-amz-bucket-region");
        let region = region.and_then(|region| region.to_str().ok().map(str::to_owned));
        // Its reasons, if it comes to giving them.
        let body = self.whole(response).await.unwrap_or_default();
        Err(self.no(call, status, region.as_deref(), &body))
    }

    /// What a no means.
    fn no(
        &self,
        call: &Call<'_>,
        status: reqwest::StatusCode,
        region: Option<&str>,
        body: &str,
    ) -> Trouble {
        let no = No {
            doing: call.doing,
            address: call.address,
            place: &self.place,
            status,
            region,
            body,
        };
        no.trouble()
    }

    async fn whole(&self, mut response: Response) -> Result<String, Trouble> {
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| self.broken(error))? {
            if bytes.len() + chunk.len() > LONGEST {
                return Err(self.is_no_store());
            }
            bytes.extend_from_slice(&chunk);
        }
        String::from_utf8(bytes).map_err(|_| self.is_no_store())
    }

    /// The trouble of a connection: without its address, which is as good as a key for a while.
    pub(super) fn broken(&self, error: reqwest::Error) -> Trouble {
        let error = error.without_url();
        let mut reason = error.to_string();
        let mut cause = std::error::Error::source(&error);
        while let Some(deeper) = cause {
            reason = deeper.to_string();
            cause = deeper.source();
        }
        let place = &self.place;
        let hint = match error.is_connect() {
            true => ": check AWS_ENDPOINT_URL_S3, AWS_REGION and the network",
            false => "",
        };
        Trouble::new(
            Kind::Passing,
            format!("{place} can't be reached ({reason}){hint}"),
        )
    }

    /// The trouble of one that says nothing.
    pub(super) fn silent(&self) -> Trouble {
        let place = &self.place;
        Trouble::new(
            Kind::Passing,
            format!("{place} did not answer in time: try again later"),
        )
    }
}
