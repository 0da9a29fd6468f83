//! Lines that are chained: each holds the hash of the one before, and its own over all of that.
//!
//! `{"seq":7,"prev":"…",…,"hash":"…"}`: `hash` is the SHA-256 of the bytes before `,"hash"`, or their HMAC when there is a
//! key. Without a key, whoever may write the file can make a chain of his own; with one, only its holder.
//!
//! Several processes of one machine may write one file. Beside it lies `….head` with number and hash of the last line: it
//! is the lock, held for one batch of lines, and it outlives the file, so that a new one after a rotation goes on where
//! the old one ended. The file is opened anew for each batch: it may be renamed or emptied at any time. A line is on disk
//! before the head is written; after a crash between the two, the file's last line is further than the head, and counts.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use hmac::{Hmac, KeyInit as _, Mac as _};
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::{Record, head_of};

/// The hash before the first line.
pub(super) const NOTHING: &str = "0000000000000000000000000000000000000000000000000000000000000000";
/// What stands between a line and its hash.
const SEAM: &str = ",\"hash\":\"";
/// The longest text of a line, in characters.
const LONGEST_TEXT: usize = 1000;
/// No line is longer, in bytes: every text of it is cut, and there are few.
const LONGEST_LINE: u64 = 256 << 10;

/// The end of a chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct End {
    pub(super) seq: u64,
    pub(super) hash: String,
}

/// How hashes are made.
#[derive(Clone)]
pub(super) struct Seal(Option<SecretString>);

impl Seal {
    pub(super) fn new(key: Option<&SecretString>) -> Self {
        Self(key.cloned())
    }

    /// The hash of a line without its own.
    pub(super) fn of(&self, text: &str) -> String {
        let hash: [u8; 32] = match &self.0 {
            None => Sha256::digest(text.as_bytes()).into(),
            Some(key) => match Hmac::<Sha256>::new_from_slice(key.expose_secret().as_bytes()) {
                Ok(mut mac) => {
                    mac.update(text.as_bytes());
                    mac.finalize().into_bytes().into()
                }
                // It takes keys of any length.
                Err(_) => [0; 32],
            },
        };
        hash.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// A log that is written.
pub(super) struct Chain {
    path: PathBuf,
    seal: Seal,
}

#[derive(Serialize)]
struct Line<'a> {
    seq: u64,
    prev: &'a str,
    #[serde(flatten)]
    record: &'a Record,
}

impl Chain {
    pub(super) fn open(path: &Path, key: Option<&SecretString>) -> io::Result<Self> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        let chain = Self {
            path: path.to_owned(),
            seal: Seal::new(key),
        };
        // Whether it can be written is found out now.
        chain.append(&[])?;
        Ok(chain)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Writes lines for these; they are on disk when this answers `Ok`. After an error, none or all may be there; the
    /// same records may then be written twice, never lost.
    pub(super) fn append(&self, records: &[Record]) -> io::Result<()> {
        let mut head = own(&head_of(&self.path), OpenOptions::new().write(true))?;
        // Given back when the file is closed, however this ends.
        head.lock()?;
        let mut log = own(&self.path, OpenOptions::new().append(true))?;
        let last = read_head(&mut head)?;
        let (tail, torn) = read_tail(&mut log)?;
        if torn > 0 {
            // A crash cut it off before it was acknowledged.
            let length = log.metadata()?.len();
            log.set_len(length.saturating_sub(torn))?;
            tracing::warn!(bytes = torn, "an unfinished line was cut off the audit log");
        }
        let further = |tail: &End| last.as_ref().is_none_or(|last| tail.seq >= last.seq);
        let mut end = match tail.filter(further).or(last) {
            Some(end) => end,
            None => End {
                seq: 0,
                hash: NOTHING.to_owned(),
            },
        };
        let mut text = String::new();
        for record in records {
            end = link(&self.seal, &mut text, &end, record)?;
            text.push('\n');
        }
        if records.is_empty() {
            return Ok(());
        }
        log.write_all(text.as_bytes())?;
        log.sync_data()?;
        write_head(&mut head, &end)
    }
}

/// Adds a line, without the end of the line, to a text; answers the new end.
pub(super) fn link(seal: &Seal, text: &mut String, end: &End, record: &Record) -> io::Result<End> {
    let line = Line {
        seq: end.seq + 1,
        prev: &end.hash,
        record: &bounded(record),
    };
    let json = serde_json::to_string(&line).map_err(io::Error::other)?;
    let open = harmless(json.strip_suffix('}').unwrap_or(&json));
    let hash = seal.of(&open);
    text.push_str(&open);
    text.push_str(SEAM);
    text.push_str(&hash);
    text.push_str("\"}");
    Ok(End {
        seq: line.seq,
        hash,
    })
}

/// A file that is ours alone to read.
fn own(path: &Path, options: &mut OpenOptions) -> io::Result<File> {
    options.read(true).create(true).mode(0o600).open(path)
}

fn read_head(head: &mut File) -> io::Result<Option<End>> {
    let mut text = String::new();
    head.seek(SeekFrom::Start(0))?;
    (&*head).take(1024).read_to_string(&mut text)?;
    Ok(serde_json::from_str(&text).ok())
}

fn write_head(head: &mut File, end: &End) -> io::Result<()> {
    let mut text = serde_json::to_string(end).map_err(io::Error::other)?;
    text.push('\n');
    head.seek(SeekFrom::Start(0))?;
    head.write_all(text.as_bytes())?;
    head.set_len(text.len() as u64)?;
    head.sync_data()
}

/// The last whole line, if it can be read, and how many bytes of an unfinished one follow it.
fn read_tail(log: &mut File) -> io::Result<(Option<End>, u64)> {
    let length = log.metadata()?.len();
    let from = length.saturating_sub(2 * LONGEST_LINE);
    log.seek(SeekFrom::Start(from))?;
    let mut bytes = Vec::new();
    (&*log).take(2 * LONGEST_LINE).read_to_end(&mut bytes)?;
    let whole = bytes
        .iter()
        .rposition(|byte| *byte == b'\n')
        .map_or(0, |at| at + 1);
    let torn = (bytes.len() - whole) as u64;
    bytes.truncate(whole);
    let text = String::from_utf8_lossy(&bytes);
    let last = text.lines().next_back().unwrap_or_default();
    Ok((serde_json::from_str(last).ok(), torn))
}

/// The end of a written head, for whoever checks.
pub(super) fn head(path: &Path) -> Option<End> {
    let mut file = File::open(head_of(path)).ok()?;
    read_head(&mut file).ok()?
}

/// A line as text and hash.
pub(super) fn split(line: &str) -> Option<(&str, &str)> {
    let (open, rest) = line.rsplit_once(SEAM)?;
    Some((open, rest.strip_suffix("\"}")?))
}

/// A record whose texts are not too long.
fn bounded(record: &Record) -> Record {
    let cut = |text: &mut String| {
        if let Some((end, _)) = text.char_indices().nth(LONGEST_TEXT) {
            text.truncate(end);
            text.push('…');
        }
    };
    let mut record = record.clone();
    cut(&mut record.who.name);
    cut(&mut record.target);
    cut(&mut record.action);
    for value in record.details.values_mut() {
        if let serde_json::Value::String(text) = value {
            cut(text);
        }
    }
    record
}

/// JSON with everything escaped that a terminal or a reader of lines would obey. JSON escapes what is below the space by
/// itself; these are above it.
pub(super) fn harmless(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    for c in json.chars() {
        match c {
            '\u{7f}'..='\u{9f}'
            | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2066}'..='\u{2069}'
            | '\u{feff}' => text.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => text.push(c),
        }
    }
    text
}
