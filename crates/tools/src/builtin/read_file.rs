//! `read_file`: lines of a text file below the root.

use std::io;
use std::path::PathBuf;
use std::time::Instant;

use serde::Deserialize;
use serde_json::{Value, json};

use super::files::{Jail, in_jail, is_binary, next_line};
use super::{Answer, Failure, arguments};
use crate::Call;

pub(super) const DESCRIPTION: &str = "Reads a text file, or some of its lines. When the file goes on, the last line of \
     the result says from where to read on.";

/// How many lines are read when nothing is said.
const USUAL_LINES: usize = 2000;
/// What is kept free for the last line of the result, in bytes.
const NOTE: usize = 120;

pub(super) fn parameters() -> Value {
    json!({
        "type": "object",
        "properties": {
            "path": {
                "type": "string",
                "description": "The file, relative to the root, as list_files shows it.",
                "minLength": 1,
            },
            "start_line": {
                "type": "integer",
                "description": "The first line to read; 1 is the first of the file.",
                "minimum": 1,
                "default": 1,
            },
            "max_lines": {
                "type": "integer",
                "description": "How many lines to read at most.",
                "minimum": 1,
                "default": USUAL_LINES,
            },
        },
        "required": ["path"],
        "additionalProperties": false,
    })
}

#[derive(Deserialize)]
struct Arguments {
    path: String,
    #[serde(default = "first")]
    start_line: usize,
    #[serde(default = "usual")]
    max_lines: usize,
}

const fn first() -> usize {
    1
}

const fn usual() -> usize {
    USUAL_LINES
}

pub(super) async fn call(root: PathBuf, call: &Call<'_>) -> Result<Answer, Failure> {
    let wanted: Arguments = arguments(call)?;
    let max = call.entry.max_result_bytes;
    in_jail(root, call, move |jail, until| {
        read(&jail, &wanted, max, until)
    })
    .await
}

fn read(jail: &Jail, wanted: &Arguments, max: usize, until: Instant) -> Result<Answer, Failure> {
    let path = &wanted.path;
    let failed = |error: io::Error| Failure::failed(format!("{path:?}: {}", error.kind()));
    let mut file = jail.open(path)?;
    if is_binary(&mut file.reader).map_err(failed)? {
        let size = file.size;
        return Err(Failure::failed(format!(
            "{path:?} is not a text file ({size} bytes)"
        )));
    }
    let room = max.saturating_sub(NOTE).max(1);
    let first = wanted.start_line.max(1);
    let after = first.saturating_add(wanted.max_lines.max(1));
    let mut text = String::new();
    let mut number = 0;
    while let Some(line) = next_line(&mut file.reader, room).map_err(failed)? {
        number += 1;
        if Instant::now() >= until {
            return Err(Failure::failed(format!("{path:?}: reading took too long")));
        }
        if number < first {
            continue;
        }
        let line = String::from_utf8_lossy(&line);
        let full = number > first && text.len() + line.len() + 1 > room;
        if number >= after || full {
            let last = number - 1;
            text.push_str(&format!(
                "[lines {first} to {last}; the file goes on: read on with start_line {number}]"
            ));
            return Ok(text.into());
        }
        text.push_str(&line);
        text.push('\n');
    }
    if number < first && first > 1 {
        return Err(Failure::failed(format!("{path:?} has only {number} lines")));
    }
    Ok(text.into())
}
