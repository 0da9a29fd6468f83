//! With which certificates the listeners and the command line speak TLS.

use std::path::{Path, PathBuf};

use services::tls::{Callers, Files};

use super::access::switch;
use super::values::{Mistake, Values};

/// What the listeners speak TLS with; `None` when they don't.
pub(super) fn listeners(values: &Values, mistakes: &mut Vec<Mistake>) -> Option<Files> {
    let mut missing = |name: &str, message: &str| {
        mistakes.push(Mistake {
            name: name.to_owned(),
            value: String::new(),
            message: message.to_owned(),
        });
    };
    let (certificate, key) = (values.path("TLS_CERT_PATH"), values.path("TLS_KEY_PATH"));
    let authorities = values.path("TLS_CLIENT_CA_PATH");
    let asks = values.text("TLS_CLIENT_AUTH").is_some();
    if asks && authorities.is_none() {
        let message = "callers show certificates of somebody: set TLS_CLIENT_CA_PATH to the authority's certificate";
        missing("TLS_CLIENT_AUTH", message);
    }
    if !switch(values, "ENABLE_TLS", "TLS_ENABLED", mistakes) {
        return None;
    }
    let mut missing = |name: &str, what: &str| {
        mistakes.push(Mistake {
            name: name.to_owned(),
            value: String::new(),
            message: format!("ENABLE_TLS needs it: the PEM file of {what}"),
        });
    };
    if certificate.is_none() {
        missing(
            "TLS_CERT_PATH",
            "the certificate and those that lead to its authority",
        );
    }
    if key.is_none() {
        missing("TLS_KEY_PATH", "the certificate's key");
    }
    let are_required = !values
        .text("TLS_CLIENT_AUTH")
        .is_some_and(|word| word.eq_ignore_ascii_case("optional"));
    Some(Files {
        certificate: certificate?,
        key: key?,
        callers: authorities.map(|authorities| Callers {
            authorities,
            are_required,
        }),
    })
}

/// Whom the command line trusts, and what it shows.
#[derive(Debug, Clone, Default)]
pub(crate) struct Trust {
    /// Authorities besides those of this machine.
    pub(crate) authorities: Option<PathBuf>,
    /// Certificate and key to show.
    pub(crate) shown: Option<(PathBuf, PathBuf)>,
    /// The certificate of the server of the same settings: known by itself, under whatever name it is asked.
    pub(crate) own: Option<PathBuf>,
}

impl Trust {
    pub(super) fn read(values: &Values, own: Option<&Path>, mistakes: &mut Vec<Mistake>) -> Self {
        let shown = (
            values.path("AGENTRUNNER_CERT_PATH"),
            values.path("AGENTRUNNER_KEY_PATH"),
        );
        if shown.0.is_some() != shown.1.is_some() {
            mistakes.push(Mistake {
                name: "AGENTRUNNER_CERT_PATH".to_owned(),
                value: String::new(),
                message: "it goes with AGENTRUNNER_KEY_PATH; give both, or neither".to_owned(),
            });
        }
        Self {
            authorities: values.path("AGENTRUNNER_CA_PATH"),
            shown: shown.0.zip(shown.1),
            own: own.map(Path::to_owned),
        }
    }
}
