//! How an execution ends, as text.

use domain::{Message, Outcome, Status};

use super::{Packing, text};
use crate::{Digest, Result};

/// An end as it will be written.
#[derive(Debug)]
pub(crate) struct Ending {
    pub(crate) status: Status,
    pub(crate) reason: String,
    pub(crate) outcome: String,
    /// What its conversation gains.
    pub(crate) messages: Vec<String>,
    /// What takes the place of older messages there, and how many of the latest stay.
    pub(crate) digest: Option<(String, u32)>,
}

impl Ending {
    /// Turns it into JSON.
    pub(crate) fn new(
        outcome: &Outcome,
        messages: &[Message],
        digest: Option<&Digest>,
        packing: Packing,
    ) -> Result<Self> {
        let messages = messages
            .iter()
            .map(|message| packing.encode("the message", message));
        let digest = digest.map(|digest| -> Result<(String, u32)> {
            let message = packing.encode("the digest", &digest.message)?;
            Ok((message, digest.keep))
        });
        Ok(Self {
            status: outcome.status(),
            reason: text(&outcome.reason()).into_owned(),
            outcome: packing.encode("the outcome", outcome)?,
            messages: messages.collect::<Result<_>>()?,
            digest: digest.transpose()?,
        })
    }

    /// Whether it adds to a conversation.
    pub(crate) const fn changes_conversation(&self) -> bool {
        !self.messages.is_empty() || self.digest.is_some()
    }
}
