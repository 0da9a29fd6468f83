//! The way of one request through the edge: who it is, from where, how it is counted, and what is written down of it.

use std::net::IpAddr;

use axum::extract::MatchedPath;
use axum::response::Response;
use domain::access::Scope;
use http::Method;
use http::request::Parts;
use serde_json::{Map, Value};

use super::access::Identity;
use super::caller::Caller;
use super::door::{self, Door, Rule};
use super::limits::Quota;
use super::trace::Trace;
use super::{Answer, ApiError, App, Code};
use crate::audit::{Record, Who};
use crate::tls::CallerCertificate;

/// What the edge learns of a request on its way in.
#[derive(Default)]
pub(crate) struct Passage {
    method: Method,
    route: String,
    path: String,
    rule: Option<Rule>,
    from: Option<IpAddr>,
    certificate: Option<CallerCertificate>,
    pub(crate) caller: Option<Caller>,
    pub(crate) quota: Option<Quota>,
    is_denied: bool,
}

impl Passage {
    /// Finds out who it is and lets the caller in; nobody has to be anybody where all may come.
    ///
    /// # Errors
    /// AUTH_FAILED, FORBIDDEN, RATE_LIMIT_EXCEEDED, or the NOT_FOUND of what is another's.
    pub(crate) async fn enter(&mut self, app: &App, door: &Door, head: &Parts) -> Answer<()> {
        let matched = head.extensions.get::<MatchedPath>();
        let matched = matched.map(MatchedPath::as_str);
        let rule = door.rule(matched, &head.method);
        self.method = head.method.clone();
        self.route = matched.unwrap_or("-").to_owned();
        self.path = head.uri.path().to_owned();
        self.rule = Some(rule);
        self.from = app.settings.proxies.origin(&head.extensions, &head.headers);
        self.certificate = head.extensions.get().cloned();
        if Door::is_open(rule) {
            return Ok(());
        }
        let principal = match app.access.identify(&head.headers).await {
            Ok(principal) => principal,
            Err(refusal) if refusal.code == Code::AuthFailed => {
                app.limits.failed(self.from).await?;
                self.is_denied = true;
                return Err(refusal);
            }
            Err(other) => return Err(other),
        };
        self.quota = app.limits.take(&principal, self.from).await;
        self.caller = Some(Caller::new(principal.clone(), app.access.clone()));
        if let Some(quota) = &self.quota {
            quota.check()?;
        }
        let admitted = door::admit(app, &principal, rule, matched, &head.uri).await;
        self.is_denied = admitted.is_err();
        admitted?;
        if self.is_change() && app.audit.is_failing() {
            return Err(unwritten());
        }
        Ok(())
    }

    /// Whether the route changes something.
    fn is_change(&self) -> bool {
        let scope = self.rule.and_then(|rule| rule.scope);
        !self.method.is_safe() && scope.is_some_and(|scope| scope != Scope::Read)
    }

    /// What is to be written down of it: every change that was tried, and every refusal of rights.
    pub(crate) fn record(
        &self,
        app: &App,
        trace: &Trace,
        response: &Response,
        code: Option<Code>,
    ) -> Option<Record> {
        let is_refused = matches!(
            code,
            Some(Code::AuthFailed | Code::Forbidden | Code::SignatureInvalid)
        );
        let is_denied = self.is_denied || is_refused;
        // One too many is no refusal of rights, and there may be very many.
        let is_wanted = is_denied || self.is_change() && code != Some(Code::RateLimitExceeded);
        if !is_wanted || !app.audit.is_on() {
            return None;
        }
        let status = response.status();
        let outcome = match status {
            _ if is_denied => "denied",
            status if status.is_success() => "done",
            status if status.is_server_error() => "failed",
            _ => "refused",
        };
        let mut details = Map::new();
        let notes = self.caller.as_ref().map(Caller::notes);
        for (name, value) in notes.into_iter().flatten() {
            details.insert(name.to_owned(), Value::String(value));
        }
        if let Some(CallerCertificate(shown)) = &self.certificate {
            details.insert(
                "certificate".to_owned(),
                Value::String((**shown).to_owned()),
            );
        }
        // Where what was made is.
        let location = response.headers().get(http::header::LOCATION);
        let location = location.and_then(|location| location.to_str().ok());
        let target = location.unwrap_or(&self.path).to_owned();
        Some(Record {
            at: app.engine.now(),
            who: self.who(),
            from: self.from.map(|from| from.to_string()),
            action: format!("{} {}", self.method, self.route),
            target,
            outcome,
            status: Some(status.as_u16()),
            code: code.map(Code::as_str),
            trace_id: trace.id.to_string(),
            details,
        })
    }

    fn who(&self) -> Who {
        let Some(caller) = &self.caller else {
            return Who::unknown();
        };
        let principal = caller.principal();
        let (kind, id) = match principal.identity {
            Identity::Anybody => ("anybody", None),
            Identity::Bootstrap => ("bootstrap", None),
            Identity::Key(id) => ("key", Some(id.to_string())),
        };
        Who {
            kind,
            id,
            name: principal.name.clone(),
        }
    }
}

/// What can't be written down is not done.
fn unwritten() -> ApiError {
    let message = "the audit log can't be written, and nothing is changed meanwhile; the log of this process says why";
    ApiError::new(Code::DependencyUnavailable, message)
        .with("dependency", "audit_log")
        .retry_after(std::time::Duration::from_secs(5))
}
