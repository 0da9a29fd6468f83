//! Who may ask, how often, where it is written down, and which key the command line shows.

use std::num::NonZeroU32;
use std::path::PathBuf;

use domain::KeyHash;
use secrecy::SecretString;
use services::http::peer::Proxies;

use super::values::{Mistake, Values};

/// The shortest bootstrap key that is taken, in characters.
const SHORTEST: usize = 16;
const HOW: &str = "make one by `openssl rand -hex 32`";

/// Who may ask, and with what this process asks.
#[derive(Debug, Clone)]
pub(crate) struct Access {
    /// The key of the first administrator; `None` when nobody has to show one.
    pub(crate) bootstrap: Option<KeyHash>,
    /// What the command line shows a server.
    pub(crate) own_key: Option<SecretString>,
    /// How often a caller may ask in a minute, and at once.
    pub(crate) limit: Option<(NonZeroU32, NonZeroU32)>,
    /// How often an address may show a key that is not valid in a minute, where nothing else is limited.
    pub(crate) failures: NonZeroU32,
    pub(crate) proxies: Proxies,
    /// Where the audit log is.
    pub(crate) audit_log: PathBuf,
    /// Whether it is written.
    pub(crate) is_audited: bool,
    pub(crate) audit_key: Option<SecretString>,
}

impl Access {
    pub(super) fn read(values: &Values, mistakes: &mut Vec<Mistake>) -> Self {
        let is_required = switch(values, "ENABLE_API_AUTH", "API_AUTH_ENABLED", mistakes);
        let (name, first) = either(values, "API_SECRET_KEY", "API_KEY", mistakes);
        // A tool that wraps its lines must not make a key that no header can carry.
        let first = first.map(|text| text.split_whitespace().collect::<String>());
        let mut mistake = |name: &str, message: String| {
            mistakes.push(Mistake {
                name: name.to_owned(),
                value: String::new(),
                message,
            });
        };
        let bootstrap = match &first {
            _ if !is_required => None,
            None => {
                let message = format!(
                    "with it every request needs a key, and there is none to begin with: set API_SECRET_KEY ({HOW})"
                );
                mistake("ENABLE_API_AUTH", message);
                None
            }
            Some(key) if key.starts_with("$(") => {
                let message = format!(
                    "a file runs no commands, this is the text of one; {HOW} and write what it prints"
                );
                mistake(name, message);
                None
            }
            Some(key) if key.len() < SHORTEST || !key.bytes().all(|b| b.is_ascii_graphic()) => {
                mistake(
                    name,
                    format!("it is {SHORTEST} or more visible ASCII characters; {HOW}"),
                );
                None
            }
            Some(key) => Some(KeyHash::of(key)),
        };
        let audit_key = values.text("AUDIT_LOG_KEY");
        if audit_key.is_some_and(|key| key.len() < SHORTEST) {
            mistake(
                "AUDIT_LOG_KEY",
                format!("it is {SHORTEST} or more characters; {HOW}"),
            );
        }
        let proxies = Proxies::parse(&values.list("TRUSTED_PROXIES")).unwrap_or_else(|message| {
            mistake("TRUSTED_PROXIES", message);
            Proxies::default()
        });
        let own = values.text("AGENTRUNNER_API_KEY").map(str::to_owned);
        // The administrator's key goes to no server that was named: it is for the one of the same settings.
        let first = first.filter(|_| values.text("AGENTRUNNER_SERVER").is_none());
        Self {
            bootstrap,
            own_key: own.or(first).map(SecretString::from),
            limit: limit(values),
            failures: count(values, "FAILED_KEYS_PER_MINUTE").unwrap_or(NonZeroU32::MIN),
            proxies,
            audit_log: values.path("AUDIT_LOG_PATH").unwrap_or_else(|| {
                let folder = values.path("DATA_DIR").unwrap_or_default();
                folder.join("audit.log")
            }),
            is_audited: values.switch("ENABLE_AUDIT_LOG"),
            audit_key: audit_key.map(SecretString::from),
        }
    }
}

/// How often a caller may ask.
fn limit(values: &Values) -> Option<(NonZeroU32, NonZeroU32)> {
    let both = count(values, "RATE_LIMIT_PER_MINUTE").zip(count(values, "RATE_LIMIT_BURST"));
    both.filter(|_| values.switch("RATE_LIMIT_ENABLED"))
}

fn count(values: &Values, name: &'static str) -> Option<NonZeroU32> {
    u32::try_from(values.number(name))
        .ok()
        .and_then(NonZeroU32::new)
}

/// A value that has two names.
fn either<'a>(
    values: &'a Values,
    name: &'static str,
    alias: &'static str,
    mistakes: &mut Vec<Mistake>,
) -> (&'static str, Option<&'a str>) {
    match (values.text(name), values.text(alias)) {
        (Some(one), Some(other)) if one != other => {
            mistakes.push(Mistake {
                name: alias.to_owned(),
                value: String::new(),
                message: format!(
                    "{name} says something else, and they are the same setting; give one of the two"
                ),
            });
            (name, Some(one))
        }
        (None, Some(other)) => (alias, Some(other)),
        (one, _) => (name, one),
    }
}

pub(super) fn switch(
    values: &Values,
    name: &'static str,
    alias: &'static str,
    mistakes: &mut Vec<Mistake>,
) -> bool {
    match (values.text(name), values.text(alias)) {
        (Some(_), Some(_)) if values.switch(name) != values.switch(alias) => {
            either(values, name, alias, mistakes);
            true
        }
        _ => values.switch(name) || values.switch(alias),
    }
}
