//! Why a request has no answer, and whether it can have had an effect.

use std::error::Error;

use super::resolve::RefusedName;

/// How an outcome begins that says of a request that it may not go there.
pub const REFUSED: &str = "the request was refused: ";

/// Why a request has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EgressError {
    /// It may not go there; nothing was sent.
    #[error("the request was refused: {0}")]
    Refused(String),
    /// The other side can't be reached; nothing was sent.
    #[error("can't connect: {0}")]
    Unreachable(String),
    /// It was sent, and no whole answer came back.
    #[error("the connection broke before the answer was complete: {0}")]
    Broken(String),
    /// It took too long; it may have been sent.
    #[error("there was no answer in time; if it needs longer, raise timeout_seconds of the tool")]
    TimedOut,
}

impl EgressError {
    /// Whether the request may have reached the other side.
    pub const fn was_sent(&self) -> bool {
        match self {
            Self::Refused(_) | Self::Unreachable(_) => false,
            Self::Broken(_) | Self::TimedOut => true,
        }
    }

    /// The same failure when it came after so many redirects.
    pub(super) fn after(self, redirects: usize) -> Self {
        match self {
            Self::Refused(reason) if redirects > 0 => {
                Self::Broken(format!("it redirects to where no request may go: {reason}"))
            }
            Self::Unreachable(reason) if redirects > 0 => {
                Self::Broken(format!("it redirects to where nobody answers: {reason}"))
            }
            other => other,
        }
    }

    /// Sorts what the HTTP client reports. The address is left out: it may hold a secret.
    pub(super) fn from_client(error: reqwest::Error) -> Self {
        let error = error.without_url();
        let causes = causes(&error);
        let refused = causes
            .iter()
            .find_map(|cause| cause.downcast_ref::<RefusedName>());
        if let Some(RefusedName(reason)) = refused {
            return Self::Refused(reason.clone());
        }
        // The deepest cause is what a person wants to know: "connection refused", "invalid certificate".
        let reason = causes
            .last()
            .map_or_else(|| error.to_string(), ToString::to_string);
        if error.is_connect() {
            Self::Unreachable(reason)
        } else if error.is_builder() {
            Self::Refused(reason)
        } else if error.is_timeout() {
            Self::TimedOut
        } else {
            Self::Broken(reason)
        }
    }
}

fn causes<'a>(error: &'a reqwest::Error) -> Vec<&'a (dyn Error + 'static)> {
    let mut next = error.source();
    let mut causes = Vec::new();
    while let Some(cause) = next {
        causes.push(cause);
        next = cause.source();
    }
    causes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_known_by_its_beginning() {
        let text = EgressError::Refused("x".to_owned()).to_string();
        assert_eq!(text.strip_prefix(REFUSED), Some("x"));
    }
}
