//! A message that belongs to no thread: an alert.

use domain::delivery::Reply;

use super::blocks::{Shown, cut};
use super::client::{CallError, Place};
use super::{Slack, escape};
use crate::outgoing::Tried;

/// The longest text, in characters; Slack cuts off what goes over 40,000, and nobody reads that much at night.
const MOST: usize = 4000;

impl Slack {
    /// Tries to post plain text in a channel as the bot, at Slack's pace; `key` finds the message again.
    pub(crate) async fn notify(&self, channel: &str, text: &str, key: &str) -> Tried {
        let Some(client) = self.writer() else {
            return Tried::failed("SLACK_BOT_TOKEN is not set");
        };
        let shown = Shown {
            text: escape(&cut(text, MOST)),
            blocks: Vec::new(),
        };
        let place = Place {
            channel,
            thread: None,
        };
        match client.post(place, &shown, key).await {
            Ok(_) => Tried {
                reply: Reply::Taken,
                detail: String::new(),
            },
            // A channel that is missing today may be there when it is tried again: somebody reads of it meanwhile.
            Err(CallError::Refused(why)) => Tried::failed(format!("Slack refused it: {why}")),
            Err(CallError::Later(_, why)) => Tried::failed(why),
        }
    }
}
