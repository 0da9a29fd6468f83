//! Slack's Web API, as slowly as Slack wants it.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use http::StatusCode;
use http::header::RETRY_AFTER;
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::blocks::Shown;
use super::pace::{Method, Pace};

/// How many pages of a thread are looked through for a message of ours.
const MOST_PAGES: usize = 50;
/// How long a call may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// The largest answer that is read.
const MAX_ANSWER: usize = 8 << 20;
/// The longest that Slack is believed to mean by `Retry-After`.
const LONGEST_WAIT: Duration = Duration::from_secs(600);
/// How long to wait when Slack can't be reached, or did not manage.
const AGAIN: Duration = Duration::from_secs(1);
/// And when it does not take our token: somebody has to do something about it.
const LATER: Duration = Duration::from_secs(30);
/// How messages of ours are found again.
const EVENT_TYPE: &str = "agentrunner_message";

/// Why a call has no result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum CallError {
    /// It may be done or not; it is worth trying again after that long.
    Later(Duration, String),
    /// Slack does not do it, in a word.
    Refused(String),
}

/// The Web API.
pub(super) struct Client {
    http: reqwest::Client,
    base: String,
    bot: Option<SecretString>,
    app: Option<SecretString>,
    pace: Mutex<Pace>,
    trouble: Mutex<Option<String>>,
}

/// Where a message goes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) channel: &'a str,
    pub(super) thread: Option<&'a str>,
}

impl Client {
    pub(super) fn new(
        base: &str,
        bot: Option<SecretString>,
        app: Option<SecretString>,
    ) -> Result<Self, String> {
        let http = reqwest::Client::builder()
            .user_agent(concat!("agentrunner/", env!("CARGO_PKG_VERSION")))
            // The token is for this host.
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(Duration::from_secs(10))
            .tcp_nodelay(true)
            .http1_only()
            .build()
            .map_err(|error| format!("there can be no HTTP client: {error}"))?;
        Ok(Self {
            http,
            base: base.trim_end_matches('/').to_owned(),
            bot,
            app,
            pace: Mutex::default(),
            trouble: Mutex::default(),
        })
    }

    pub(super) const fn http(&self) -> &reqwest::Client {
        &self.http
    }

    pub(super) const fn can_write(&self) -> bool {
        self.bot.is_some()
    }

    pub(super) const fn can_listen(&self) -> bool {
        self.app.is_some()
    }

    /// What Slack complained about last, if it has done nothing for us since.
    pub(super) fn trouble(&self) -> Option<String> {
        self.trouble
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Calls a method when its turn comes, and again for as long as Slack says that it is too early.
    pub(super) async fn call(
        &self,
        method: Method,
        channel: Option<&str>,
        body: &Value,
    ) -> Result<Value, CallError> {
        loop {
            let at = self.lock().take(method, channel, Instant::now());
            tokio::time::sleep_until(at).await;
            match self.once(method, body).await {
                Ok(Once::Done(answer)) => {
                    self.note(None);
                    return Ok(answer);
                }
                Ok(Once::TooEarly(delay)) => {
                    metrics::counter!("agentrunner_slack_rate_limited_total", "method" => method.name())
                        .increment(1);
                    tracing::warn!(
                        method = method.name(),
                        seconds = delay.as_secs(),
                        "Slack says to wait"
                    );
                    self.lock().told(method, delay, Instant::now());
                }
                Err(error) => {
                    if let CallError::Later(_, why) = &error {
                        self.note(Some(why.clone()));
                    }
                    return Err(error);
                }
            }
        }
    }

    /// Posts a message; `key` finds it again.
    pub(super) async fn post(
        &self,
        place: Place<'_>,
        shown: &Shown,
        key: &str,
    ) -> Result<String, CallError> {
        let mut body = json!({
            "channel": place.channel,
            "text": shown.text,
            "unfurl_links": false,
            "unfurl_media": false,
            "metadata": metadata(key),
        });
        set(&mut body, "thread_ts", place.thread);
        if !shown.blocks.is_empty() {
            set(&mut body, "blocks", Some(shown.blocks.clone()));
        }
        let answer = self.call(Method::Post, Some(place.channel), &body).await?;
        ts_of(&answer)
    }

    /// As [`Client::post`], when it may have been posted already.
    pub(super) async fn post_once(
        &self,
        place: Place<'_>,
        shown: &Shown,
        key: &str,
        may_be_there: bool,
    ) -> Result<String, CallError> {
        if may_be_there && let Some(ts) = self.find(place, key).await? {
            return Ok(ts);
        }
        self.post(place, shown, key).await
    }

    /// A message of ours, by its key.
    pub(super) async fn find(
        &self,
        place: Place<'_>,
        key: &str,
    ) -> Result<Option<String>, CallError> {
        let mut body = json!({
            "channel": place.channel, "include_all_metadata": true, "limit": 200,
        });
        set(&mut body, "ts", place.thread);
        let method = match place.thread {
            Some(_) => Method::Replies,
            None => Method::History,
        };
        let is_it = |message: &&Value| {
            let found = message.pointer("/metadata/event_payload/key");
            found.and_then(Value::as_str) == Some(key)
        };
        for _ in 0..MOST_PAGES {
            let answer = match self.call(method, Some(place.channel), &body).await {
                Ok(answer) => answer,
                // To say it twice is better than not at all.
                Err(CallError::Refused(error)) => {
                    tracing::warn!(
                        method = method.name(),
                        error,
                        "whether a message is in Slack can't be found out; it may be there twice"
                    );
                    return Ok(None);
                }
                Err(later) => return Err(later),
            };
            let messages = answer.get("messages").and_then(Value::as_array);
            if let Some(found) = messages.into_iter().flatten().find(is_it) {
                return ts_of(found).map(Some);
            }
            // A thread is told from its beginning, and what is looked for is new.
            let next = answer.pointer("/response_metadata/next_cursor");
            match next.and_then(Value::as_str).filter(|next| !next.is_empty()) {
                Some(next) => set(&mut body, "cursor", Some(next)),
                None => break,
            }
        }
        Ok(None)
    }

    /// Puts another text in the place of a message's.
    pub(super) async fn update(
        &self,
        channel: &str,
        ts: &str,
        shown: &Shown,
    ) -> Result<(), CallError> {
        let body = json!({
            "channel": channel, "ts": ts, "text": shown.text, "blocks": shown.blocks,
        });
        let updated = self.call(Method::Update, Some(channel), &body).await;
        gone_is_fine(updated)
    }

    /// Takes a message away.
    pub(super) async fn delete(&self, channel: &str, ts: &str) -> Result<(), CallError> {
        let body = json!({ "channel": channel, "ts": ts });
        gone_is_fine(self.call(Method::Delete, Some(channel), &body).await)
    }

    async fn once(&self, method: Method, body: &Value) -> Result<Once, CallError> {
        let token = match method {
            Method::OpenConnection => &self.app,
            _ => &self.bot,
        };
        let Some(token) = token else {
            return Err(CallError::Later(LATER, "a token is missing".to_owned()));
        };
        let later = |error: reqwest::Error| {
            let why = format!("Slack can't be reached: {}", error.without_url());
            CallError::Later(AGAIN, why)
        };
        let request = self
            .http
            .post(format!("{}/{}", self.base, method.name()))
            .bearer_auth(token.expose_secret())
            .timeout(PATIENCE);
        // Methods that read take no JSON.
        let request = match method {
            Method::Replies | Method::History => request.form(&plain_fields(body)),
            _ => request.json(body),
        };
        let mut response = request.send().await.map_err(later)?;
        let status = response.status();
        let delay = response.headers().get(RETRY_AFTER);
        let delay = delay.and_then(|value| value.to_str().ok()?.parse().ok());
        let delay = Duration::from_secs(delay.unwrap_or(1)).min(LONGEST_WAIT);
        if status == StatusCode::TOO_MANY_REQUESTS {
            return Ok(Once::TooEarly(delay));
        }
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(later)? {
            if bytes.len() + chunk.len() > MAX_ANSWER {
                return Err(CallError::Later(
                    LATER,
                    "Slack's answer is too large".to_owned(),
                ));
            }
            bytes.extend_from_slice(&chunk);
        }
        let answer: Value = match serde_json::from_slice(&bytes) {
            Ok(answer) if status.is_success() => answer,
            _ => {
                let why = format!("Slack answered {status}");
                return Err(CallError::Later(AGAIN, why));
            }
        };
        if answer.get("ok") == Some(&Value::Bool(true)) {
            return Ok(Once::Done(answer));
        }
        let error = answer.get("error").and_then(Value::as_str);
        let error: String = error.unwrap_or("unknown").chars().take(100).collect();
        match error.as_str() {
            "ratelimited" | "rate_limited" => Ok(Once::TooEarly(delay)),
            "internal_error"
            | "fatal_error"
            | "service_unavailable"
            | "request_timeout"
            | "team_added_to_org" => Err(CallError::Later(AGAIN, format!("Slack says {error}"))),
            "invalid_auth"
            | "not_authed"
            | "account_inactive"
            | "token_revoked"
            | "token_expired"
            | "org_login_required"
            | "ekm_access_denied"
            | "not_allowed_token_type"
            | "missing_scope"
            | "no_permission"
                if !matches!(method, Method::Replies | Method::History) =>
            {
                let why = format!("Slack says {error} to {}", method.name());
                tracing::error!("{why}: check the app's tokens and scopes");
                Err(CallError::Later(LATER, why))
            }
            _ => Err(CallError::Refused(error)),
        }
    }

    fn note(&self, trouble: Option<String>) {
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = trouble;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Pace> {
        self.pace.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

enum Once {
    Done(Value),
    TooEarly(Duration),
}

/// By what a message is known.
pub(super) fn metadata(key: &str) -> Value {
    json!({ "event_type": EVENT_TYPE, "event_payload": { "key": key } })
}

/// Adds a field, if there is a value for it.
pub(super) fn set<T: Into<Value>>(body: &mut Value, name: &str, value: Option<T>) {
    if let (Some(value), Some(fields)) = (value, body.as_object_mut()) {
        fields.insert(name.to_owned(), value.into());
    }
}

/// The fields of an object as those of a form.
fn plain_fields(body: &Value) -> Vec<(&str, String)> {
    let fields = body.as_object().into_iter().flatten();
    let plain = |value: &Value| match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    fields
        .map(|(name, value)| (name.as_str(), plain(value)))
        .collect()
}

pub(super) fn ts_of(answer: &Value) -> Result<String, CallError> {
    let ts = answer.get("ts").and_then(Value::as_str);
    let why = || CallError::Later(LATER, "Slack's answer has no ts".to_owned());
    ts.map(str::to_owned).ok_or_else(why)
}

/// What somebody has deleted needs no change.
fn gone_is_fine(done: Result<Value, CallError>) -> Result<(), CallError> {
    match done {
        Err(CallError::Refused(error))
            if matches!(
                error.as_str(),
                "message_not_found"
                    | "cant_update_message"
                    | "cant_delete_message"
                    | "edit_window_closed"
            ) =>
        {
            tracing::debug!(error, "a message can't be changed any more");
            Ok(())
        }
        other => other.map(drop),
    }
}
