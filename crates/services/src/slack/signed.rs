//! A request that Slack has signed. Without a valid signature nothing of it is read as anything but bytes.

use axum::extract::{FromRequest, Request};
use bytes::Bytes;
use http::HeaderMap;

use super::signature::Stamp;
use crate::http::body::read_bounded;
use crate::http::{Answer, ApiError, App, Code};

/// The largest body that Slack may send, in bytes.
const MAX_BODY: usize = 1 << 20;

/// The body of a request that Slack has signed.
pub(super) struct Signed(pub(super) Bytes);

impl FromRequest<App> for Signed {
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &App) -> Answer<Self> {
        let origin = app
            .settings
            .proxies
            .origin(request.extensions(), request.headers());
        match check(request, app).await {
            Err(refusal) if refusal.code == Code::SignatureInvalid => {
                metrics::counter!("agentrunner_slack_refused_total").increment(1);
                // Whoever tries too often waits; as with keys.
                app.limits.failed(origin).await?;
                Err(refusal)
            }
            other => other,
        }
    }
}

async fn check(request: Request, app: &App) -> Answer<Signed> {
    let secrets = match &app.slack {
        Some(slack) if !slack.0.signing_secrets.is_empty() => &slack.0.signing_secrets,
        _ => {
            return Err(refused(
                "SLACK_SIGNING_SECRET is not set, so no request can be known to come from Slack; set it to the Signing Secret of the app's page",
            ));
        }
    };
    let headers = request.headers();
    let stamp = header(headers, "x-slack-request-timestamp")?;
    let stamp = Stamp::read(stamp, app.engine.now()).map_err(refused)?;
    let signature = header(headers, "x-slack-signature")?.to_owned();
    let limit = MAX_BODY.min(app.settings.max_body_bytes);
    let body = read_bounded(request, limit).await?;
    if !stamp.signed(secrets, &signature, &body) {
        return Err(refused(
            "X-Slack-Signature is not one of this body made with SLACK_SIGNING_SECRET; compare the secret with the app's page, and let no proxy change the body",
        ));
    }
    Ok(Signed(body))
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> Answer<&'a str> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (Some(one), None) => one
            .to_str()
            .map_err(|_| refused("a header is not readable")),
        _ => Err(refused(
            "X-Slack-Request-Timestamp and X-Slack-Signature are needed, once each: only Slack may ask here",
        )),
    }
}

fn refused(why: &str) -> ApiError {
    ApiError::new(Code::SignatureInvalid, why)
}
