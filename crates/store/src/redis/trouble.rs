//! Why the server can't be used, in words that say what to do. They hold no password: the crate's errors do not, and
//! the address is never shown.

use ::redis::{ErrorKind, RedisError};

/// What went wrong with a call.
#[derive(Debug)]
pub(super) enum Fault {
    /// There is no connection; this is known and was said.
    Away,
    /// Something else than we put lies under the key.
    Foreign,
}

/// What an error means.
pub(super) fn why(error: &RedisError) -> String {
    let refuses = matches!(error.kind(), ErrorKind::AuthenticationFailed);
    let of_code = match error.code().unwrap_or_default() {
        _ if refuses => Some(REFUSED),
        "NOAUTH" | "WRONGPASS" => Some(REFUSED),
        "NOPERM" => Some(
            "its user may not do what is needed; give it the rights ~agentrunner:* +@read +@write +@scripting +@connection +time",
        ),
        "READONLY" => Some("it is a replica that can't be written; name the primary server"),
        "OOM" => Some("its memory is full; set its maxmemory-policy to allkeys-lru"),
        "MISCONF" => Some("it can't save to its disk and takes no writes; look at its log"),
        "LOADING" => Some("it is loading its data; wait"),
        _ => None,
    };
    if let Some(words) = of_code {
        return words.to_owned();
    }
    let text = error.to_string();
    if error.is_timeout() {
        "it does not answer in time".to_owned()
    } else if error.is_connection_refusal() {
        "nothing listens there; start it, or correct REDIS_HOST and REDIS_PORT".to_owned()
    } else if text.contains("lookup") || text.contains("resolve") {
        "the host is not known; correct REDIS_HOST".to_owned()
    } else if error.is_connection_dropped() || error.is_io_error() {
        "the connection was lost".to_owned()
    } else {
        text.chars().take(200).collect()
    }
}

const REFUSED: &str =
    // The crate does not pass on which of the two the server complained of.
    "it refuses the name or the password, or asks for none; correct REDIS_PASSWORD, or the password in REDIS_URL";

/// Whether an error says that something of another type lies under a key.
pub(super) fn is_foreign(error: &RedisError) -> bool {
    error.code() == Some("WRONGTYPE") || error.to_string().contains("WRONGTYPE")
}
