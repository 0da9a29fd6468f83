//! Takes the secrets that an entry was given out of what came back: some servers show the headers or the environment
//! that they got, and what a tool returns is journaled, shown, and sent to a model.

use domain::ToolOutcome;
use domain::definition::{McpAuth, Tool, ToolKind};

/// Shorter ones are left alone: they would be found everywhere.
const SHORTEST: usize = 6;

/// What the name of a header or variable contains whose value is a secret.
const TELLING: [&str; 6] = ["auth", "cookie", "key", "password", "secret", "token"];

/// What stands before a secret in a header.
const SCHEMES: [&str; 2] = ["Bearer", "Digest"];

/// The outcome without the entry's secrets.
pub(crate) fn without_secrets(entry: &Tool, mut outcome: ToolOutcome) -> ToolOutcome {
    let text = match &mut outcome {
        ToolOutcome::Succeeded { content, .. } => content,
        ToolOutcome::Failed { message }
        | ToolOutcome::Refused { message }
        | ToolOutcome::Unknown { message } => message,
    };
    for secret in secrets(entry) {
        if text.contains(secret) {
            *text = text.replace(secret, "[redacted]");
        }
    }
    outcome
}

/// The words of all secrets that an entry was given: a server may show `Bearer abc` or `abc` alone.
pub fn secrets(entry: &Tool) -> impl Iterator<Item = &str> {
    let mut secrets: Vec<&str> = Vec::new();
    match &entry.kind {
        ToolKind::Api(api) => secrets.extend(telling(&api.headers)),
        ToolKind::Mcp(mcp) => {
            secrets.extend(telling(&mcp.env));
            secrets.extend(mcp.auth.as_ref().map(|auth| match auth {
                McpAuth::BearerToken { token } => token.as_str(),
                McpAuth::ApiKey { key, .. } => key,
                McpAuth::Oauth2 { client_secret, .. } => client_secret,
            }));
        }
        ToolKind::Function(_) | ToolKind::Agent(_) => {}
    }
    let words = secrets.into_iter().flat_map(str::split_whitespace);
    words.filter(|word| word.len() >= SHORTEST && !SCHEMES.contains(word))
}

fn telling<'a>(
    named: impl IntoIterator<Item = (&'a String, &'a String)>,
) -> impl Iterator<Item = &'a str> {
    let is_telling = |name: &str| {
        let name = name.to_ascii_lowercase();
        TELLING.iter().any(|part| name.contains(part))
    };
    named
        .into_iter()
        .filter(move |(name, _)| is_telling(name))
        .map(|(_, value)| value.as_str())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn seen(entry: Value, text: &str) -> String {
        let entry: Tool = serde_json::from_value(entry).expect("a tool");
        let outcome = ToolOutcome::Failed {
            message: text.to_owned(),
        };
        without_secrets(&entry, outcome).for_model().0
    }

    #[test]
    fn a_secret_that_is_shown_is_taken_out_and_nothing_else() {
        let api = json!({
            "name": "a", "type": "api", "url": "http://x",
            "headers": {"Authorization": "Bearer hunter22", "X-Api-Key": "opensesame", "X-Colour": "vermilion"},
        });
        assert_eq!(
            seen(api, "Bearer hunter22, opensesame, vermilion"),
            "Bearer [redacted], [redacted], vermilion"
        );
        let mcp = json!({
            "name": "m", "type": "mcp", "command": "x",
            "env": {"DB_PASSWORD": "hunter22", "LOG_LEVEL": "warning", "SHORT_KEY": "a"},
        });
        assert_eq!(seen(mcp, "a warning: hunter22"), "a warning: [redacted]");
        let remote = json!({
            "name": "m", "type": "mcp", "url": "http://x", "auth": {"type": "bearer_token", "token": "hunter22"},
        });
        assert_eq!(seen(remote, "hunter22"), "[redacted]");
    }
}
