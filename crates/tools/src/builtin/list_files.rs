//! `list_files`: what is in a folder below the root.

use std::path::PathBuf;
use std::time::Instant;

use serde::Deserialize;
use serde_json::{Value, json};

use super::files::{Found, Jail, glob, in_jail};
use super::{Answer, Failure, arguments};
use crate::Call;

pub(super) const DESCRIPTION: &str = "Lists a folder: one entry a line, folders with a / at the end, files with their \
     size in bytes.";

/// How many entries are listed at most.
const MAX_ENTRIES: usize = 1000;

pub(super) fn parameters() -> Value {
    json!({
        "type": "object",
        "properties": {
            "path": {
                "type": "string",
                "description": "The folder, relative to the root; the root itself when absent.",
            },
            "pattern": {
                "type": "string",
                "description": "Only files that match this glob, such as *.log or src/**/*.rs.",
                "maxLength": 500,
            },
            "recursive": {
                "type": "boolean",
                "description": "Whether to list the folders below as well.",
                "default": false,
            },
        },
        "additionalProperties": false,
    })
}

#[derive(Deserialize)]
struct Arguments {
    #[serde(default)]
    path: String,
    #[serde(default)]
    pattern: Option<String>,
    #[serde(default)]
    recursive: bool,
}

pub(super) async fn call(root: PathBuf, call: &Call<'_>) -> Result<Answer, Failure> {
    let wanted: Arguments = arguments(call)?;
    in_jail(root, call, move |jail, until| list(&jail, &wanted, until)).await
}

fn list(jail: &Jail, wanted: &Arguments, until: Instant) -> Result<Answer, Failure> {
    let folder = jail.resolve(&wanted.path)?;
    if !folder.is_dir() {
        let path = &wanted.path;
        return Err(Failure::failed(format!(
            "{path:?} is not a folder; read_file reads it"
        )));
    }
    let pattern = wanted.pattern.as_deref().map(glob).transpose()?;
    let depth = if wanted.recursive { usize::MAX } else { 1 };
    let mut lines = Vec::new();
    let all = jail.walk(&folder, depth, until, &mut |found| {
        let fits = pattern
            .as_ref()
            .is_none_or(|pattern| !found.metadata.is_dir() && pattern.is_match(&found.path));
        if fits {
            lines.push(line(&found));
        }
        lines.len() < MAX_ENTRIES
    });
    if !all {
        lines.push("[there is more: name a folder below or a pattern]".to_owned());
    }
    if lines.is_empty() {
        lines.push("[nothing]".to_owned());
    }
    Ok(lines.join("\n").into())
}

fn line(found: &Found) -> String {
    // A name with a line break in it must not look like two files.
    let path = found.path.replace(char::is_control, "?");
    if found.metadata.is_dir() {
        format!("{path}/")
    } else if found.metadata.is_symlink() {
        format!("{path} (link)")
    } else {
        format!("{path} {}", found.metadata.len())
    }
}
