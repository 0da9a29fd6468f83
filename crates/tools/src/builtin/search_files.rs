//! `search_files`: lines that contain a text, in the files below the root.

use std::path::PathBuf;
use std::time::Instant;

use serde::Deserialize;
use serde_json::{Value, json};

use super::files::{Jail, glob, in_jail, is_binary, next_line};
use super::{Answer, Failure, arguments};
use crate::Call;
use crate::text::short;

pub(super) const DESCRIPTION: &str = "Finds the lines that contain a text in all text files of a folder and below: \
     path:line number: line.";

/// How many lines are told at most.
const MAX_MATCHES: usize = 200;
/// How much of a line is searched, in bytes.
const MAX_LINE: usize = 64 << 10;
/// How much of a line is shown, in bytes.
const SHOWN_LINE: usize = 300;

pub(super) fn parameters() -> Value {
    json!({
        "type": "object",
        "properties": {
            "text": {
                "type": "string",
                "description": "The text to find, as it is; not a regular expression.",
                "minLength": 1,
                "maxLength": 1000,
            },
            "path": {
                "type": "string",
                "description": "The folder or file to search, relative to the root; all when absent.",
            },
            "pattern": {
                "type": "string",
                "description": "Only files that match this glob, such as *.log.",
                "maxLength": 500,
            },
            "ignore_case": {
                "type": "boolean",
                "description": "Whether upper and lower case are the same.",
                "default": false,
            },
        },
        "required": ["text"],
        "additionalProperties": false,
    })
}

#[derive(Deserialize)]
struct Arguments {
    text: String,
    #[serde(default)]
    path: String,
    #[serde(default)]
    pattern: Option<String>,
    #[serde(default)]
    ignore_case: bool,
}

pub(super) async fn call(root: PathBuf, call: &Call<'_>) -> Result<Answer, Failure> {
    let wanted: Arguments = arguments(call)?;
    if wanted.text.is_empty() {
        return Err(Failure::refused("there is no text to find"));
    }
    let max = call.entry.max_result_bytes;
    in_jail(root, call, move |jail, until| {
        let folder = jail.resolve(&wanted.path)?;
        let mut search = Search::new(&jail, &wanted, max, until)?;
        let all = if folder.is_dir() {
            jail.walk(&folder, usize::MAX, until, &mut |found| {
                !found.metadata.is_file() || search.file(&found.path)
            })
        } else {
            search.file(&jail.shown(&folder))
        };
        Ok(search.result(all))
    })
    .await
}

struct Search<'a> {
    jail: &'a Jail,
    text: String,
    pattern: Option<globset::GlobMatcher>,
    ignore_case: bool,
    until: Instant,
    room: usize,
    lines: Vec<String>,
}

impl<'a> Search<'a> {
    fn new(
        jail: &'a Jail,
        wanted: &Arguments,
        room: usize,
        until: Instant,
    ) -> Result<Self, Failure> {
        let text = if wanted.ignore_case {
            wanted.text.to_lowercase()
        } else {
            wanted.text.clone()
        };
        Ok(Self {
            jail,
            text,
            pattern: wanted.pattern.as_deref().map(glob).transpose()?,
            ignore_case: wanted.ignore_case,
            until,
            room,
            lines: Vec::new(),
        })
    }

    /// Searches one file; tells whether to go on. Files that can't be read, and files that are no text, are passed by.
    fn file(&mut self, path: &str) -> bool {
        if self
            .pattern
            .as_ref()
            .is_some_and(|pattern| !pattern.is_match(path))
        {
            return true;
        }
        let Ok(mut file) = self.jail.open(path) else {
            return true;
        };
        if is_binary(&mut file.reader).unwrap_or(true) {
            return true;
        }
        let mut number = 0_usize;
        while let Ok(Some(line)) = next_line(&mut file.reader, MAX_LINE) {
            number += 1;
            if Instant::now() >= self.until {
                return false;
            }
            let line = String::from_utf8_lossy(&line);
            if self.matches(&line) && !self.keep(path, number, &line) {
                return false;
            }
        }
        true
    }

    fn matches(&self, line: &str) -> bool {
        if self.ignore_case {
            line.to_lowercase().contains(&self.text)
        } else {
            line.contains(&self.text)
        }
    }

    fn keep(&mut self, path: &str, number: usize, line: &str) -> bool {
        let path = path.replace(char::is_control, "?");
        let line = format!("{path}:{number}: {}", short(line.trim(), SHOWN_LINE));
        if self.lines.len() == MAX_MATCHES || line.len() + 1 > self.room {
            return false;
        }
        self.room -= line.len() + 1;
        self.lines.push(line);
        true
    }

    fn result(self, all: bool) -> Answer {
        let mut lines = self.lines;
        if lines.is_empty() && all {
            return "[no line contains it]".to_owned().into();
        }
        if !all {
            lines.push(
                "[there may be more: search for a longer text, in a folder or with a pattern]"
                    .to_owned(),
            );
        }
        lines.join("\n").into()
    }
}
