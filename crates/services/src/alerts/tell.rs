//! Tells one receiver.

use domain::alert::{Notice, ReceiverConfig, ReceiverKind};
use domain::definition::expand::expand_text;
use domain::{DeliveryId, Time};
use serde::Serialize;
use tools::Egress;
use tools::egress::Origin;
use url::Url;

use super::{Alerts, email, incoming_webhook, message};
use crate::outgoing::{SigningKeys, Tried, post};
use crate::slack::escape;

/// A message of a webhook.
#[derive(Serialize)]
struct Message<'a> {
    #[serde(rename = "type")]
    event: &'a str,
    timestamp: Time,
    data: &'a Notice,
}

impl Alerts {
    /// Tries to tell `receiver` a notice.
    pub(crate) async fn tell(
        &self,
        egress: &Egress,
        keys: Option<&SigningKeys>,
        receiver: &str,
        notice: &str,
        (id, now): (DeliveryId, Time),
    ) -> Tried {
        let config = match self.config() {
            Some(config) => Some(config),
            None => self.reload().await,
        };
        let Some(config) = config else {
            return Tried::failed("alerts.yml can't be read");
        };
        let Some(written) = config.receivers.get(receiver) else {
            return Tried::refused(format!("alerts.yml has no receiver {receiver:?} any more"));
        };
        let notice: Notice = match serde_json::from_str(notice) {
            Ok(notice) => notice,
            Err(error) => return Tried::refused(format!("it can't be read: {error}")),
        };
        let receiver = match self.expanded(receiver, written) {
            Ok(receiver) => receiver,
            Err(message) => return Tried::failed(message),
        };
        match receiver.kind {
            ReceiverKind::Slack => {
                let text = message::text(&notice);
                match (&receiver.url, &receiver.channel) {
                    (Some(url), _) => {
                        incoming_webhook::tell(egress, url, &escape(&text), now).await
                    }
                    (None, channel) => {
                        let channel = channel.as_deref().unwrap_or_default();
                        let slack = &self.settings.slack;
                        slack.notify(channel, &text, &format!("alert:{id}")).await
                    }
                }
            }
            ReceiverKind::Webhook => webhook(egress, keys, &receiver, &notice, (id, now)).await,
            ReceiverKind::Email => email::tell(&receiver, &notice, id).await,
        }
    }

    /// A receiver with the values of its variables.
    fn expanded(&self, name: &str, written: &ReceiverConfig) -> Result<ReceiverConfig, String> {
        let mut receiver = written.clone();
        let fields = [
            &mut receiver.channel,
            &mut receiver.url,
            &mut receiver.secret,
            &mut receiver.from,
            &mut receiver.smtp,
            &mut receiver.username,
            &mut receiver.password,
        ];
        let lookup = |name: &str| (self.settings.lookup)(name);
        for text in fields.into_iter().flatten() {
            let path = format!("receivers.{name}");
            *text = expand_text(text, &path, &lookup).map_err(|error| error.to_string())?;
        }
        Ok(receiver)
    }
}

/// An address that an operator wrote, which may be private.
pub(super) fn address(text: &str) -> Result<(Url, Option<Origin>), Tried> {
    let url: Url = text
        .parse()
        .map_err(|error| Tried::failed(format!("its url is no address: {error}")))?;
    let origin = Origin::of(&url);
    Ok((url, origin))
}

async fn webhook(
    egress: &Egress,
    keys: Option<&SigningKeys>,
    receiver: &ReceiverConfig,
    notice: &Notice,
    told: (DeliveryId, Time),
) -> Tried {
    let own = match receiver.secret.as_deref().map(SigningKeys::parse) {
        Some(Ok(own)) => Some(own),
        Some(Err(message)) => return Tried::failed(format!("its secret can't be used: {message}")),
        None => None,
    };
    let Some(keys) = own.as_ref().or(keys) else {
        return Tried::failed(
            "it can't be signed: give it a secret, or set CALLBACK_SIGNING_SECRET",
        );
    };
    let (url, origin) = match address(receiver.url.as_deref().unwrap_or_default()) {
        Ok(address) => address,
        Err(tried) => return tried,
    };
    let message = Message {
        event: notice.kind.event(),
        timestamp: notice.at,
        data: notice,
    };
    match serde_json::to_vec(&message) {
        Ok(body) => post(egress, keys, url, origin, told, body).await,
        Err(error) => Tried::refused(format!("it can't be written: {error}")),
    }
}
