//! Known secrets taken out of texts, by their values: in log lines, request bodies, what tools answer, and answers.
//!
//! A secret has no business in any of these, so wherever it came from (a tool that repeats its headers, a server that
//! quotes the address it was asked at, somebody who pastes a key into a task), it ends here.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::ops::Bound;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use aho_corasick::{AhoCorasick, MatchKind};
use serde_json::Value;

/// What stands in the place of a secret.
pub const MASK: &str = "[redacted]";
/// Shorter ones would be found everywhere.
const SHORTEST: usize = 8;
/// From this length on, even digits alone or a word alone are no accident.
const LONG: usize = 20;
/// How many are known at most; those that came first are never forgotten.
const MOST: usize = 10_000;

/// The secrets that are known. Cheap to clone; all clones are one. What was learned stays known, also when it was
/// replaced: others may still repeat it.
#[derive(Clone, Default)]
pub struct Redactor(Arc<Inner>);

#[derive(Default)]
struct Inner {
    known: Mutex<BTreeSet<String>>,
    /// The length of the longest, in bytes.
    longest: AtomicUsize,
    finder: RwLock<Option<Arc<AhoCorasick>>>,
}

impl std::fmt::Debug for Redactor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Redactor")
    }
}

/// Whether a text can be told from others: a secret that is a plain word or a number would be found where it is none.
pub fn can_be_found(secret: &str) -> bool {
    let kinds: [fn(&char) -> bool; 4] = [
        char::is_ascii_lowercase,
        char::is_ascii_uppercase,
        char::is_ascii_digit,
        |c| !c.is_ascii_alphanumeric(),
    ];
    let has = |kind: &&fn(&char) -> bool| secret.chars().any(|c| kind(&c));
    secret.len() >= LONG || secret.len() >= SHORTEST && kinds.iter().filter(has).count() > 1
}

impl Redactor {
    /// Adds secrets, in each form in which they are written. Those that can't be told from other text are left out.
    pub fn learn<'a>(&self, secrets: impl IntoIterator<Item = &'a str>) {
        let mut known = self.0.known.lock().unwrap_or_else(PoisonError::into_inner);
        let before = known.len();
        for secret in secrets {
            for form in forms(secret.trim()) {
                if known.len() < MOST && can_be_found(&form) {
                    self.0.longest.fetch_max(form.len(), Ordering::Relaxed);
                    known.insert(form);
                }
            }
        }
        if known.len() == before {
            return;
        }
        // The longest wins, so that nothing is left of a secret that begins like another.
        let built = AhoCorasick::builder()
            .match_kind(MatchKind::LeftmostLongest)
            .build(known.iter());
        match built {
            Ok(finder) => {
                let mut place = self
                    .0
                    .finder
                    .write()
                    .unwrap_or_else(PoisonError::into_inner);
                *place = Some(Arc::new(finder));
            }
            Err(error) => tracing::error!(%error, "new secrets can't be masked"),
        }
    }

    fn finder(&self) -> Option<Arc<AhoCorasick>> {
        let place = self.0.finder.read().unwrap_or_else(PoisonError::into_inner);
        place.clone()
    }

    /// A text without secrets.
    pub fn mask<'a>(&self, text: &'a str) -> Cow<'a, str> {
        match self.finder() {
            Some(finder) if finder.is_match(text) => {
                let mut masked = String::with_capacity(text.len());
                finder.replace_all_with(text, &mut masked, |_, _, masked| {
                    masked.push_str(MASK);
                    true
                });
                Cow::Owned(masked)
            }
            _ => Cow::Borrowed(text),
        }
    }

    /// For a text that comes in pieces.
    pub fn flow(&self) -> Flow {
        Flow {
            redactor: self.clone(),
            held: String::new(),
        }
    }

    /// Where a text may be cut: what stands behind may yet become a secret.
    fn cut(&self, text: &str) -> usize {
        let Some(finder) = self.finder() else {
            return text.len();
        };
        let longest = self.0.longest.load(Ordering::Relaxed);
        let from = text.len().saturating_sub(longest);
        let whole: Vec<_> = finder.find_iter(text).map(|found| found.range()).collect();
        // What begins within a secret that is complete is a part of that one.
        let is_within = |at: usize| whole.iter().any(|one| one.start < at && at < one.end);
        let known = self.0.known.lock().unwrap_or_else(PoisonError::into_inner);
        let begins_one = |at: usize| {
            let end = text.get(at..).unwrap_or_default();
            let next = known
                .range::<str, _>((Bound::Excluded(end), Bound::Unbounded))
                .next();
            next.is_some_and(|secret| secret.starts_with(end))
        };
        let starts = text.char_indices().map(|(at, _)| at);
        starts
            .skip_while(|at| *at < from)
            .find(|at| !is_within(*at) && begins_one(*at))
            .unwrap_or(text.len())
    }

    /// Bytes without secrets.
    pub fn mask_bytes<'a>(&self, bytes: &'a [u8]) -> Cow<'a, [u8]> {
        match self.finder() {
            Some(finder) if finder.is_match(bytes) => {
                let mut masked = Vec::with_capacity(bytes.len());
                finder.replace_all_with_bytes(bytes, &mut masked, |_, _, masked| {
                    masked.extend_from_slice(MASK.as_bytes());
                    true
                });
                Cow::Owned(masked)
            }
            _ => Cow::Borrowed(bytes),
        }
    }

    /// Takes secrets out of every text of a value; names of fields stay.
    pub fn mask_json(&self, value: &mut Value) {
        match value {
            Value::String(text) => {
                if let Cow::Owned(masked) = self.mask(text) {
                    *text = masked;
                }
            }
            Value::Array(items) => items.iter_mut().for_each(|item| self.mask_json(item)),
            Value::Object(fields) => fields.values_mut().for_each(|field| self.mask_json(field)),
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }
}

/// A text that comes in pieces, without secrets that are spread over several: what may be the beginning of one is held back
/// until that is decided.
pub struct Flow {
    redactor: Redactor,
    held: String,
}

impl Flow {
    /// Takes a piece; answers what can go on. Together the answers are what [`Redactor::mask`] makes of the whole.
    pub fn push(&mut self, piece: &str) -> String {
        self.held.push_str(piece);
        let rest = self.held.split_off(self.redactor.cut(&self.held));
        let passed = std::mem::replace(&mut self.held, rest);
        self.redactor.mask(&passed).into_owned()
    }

    /// What was held back, when nothing more comes.
    pub fn end(&mut self) -> String {
        let rest = std::mem::take(&mut self.held);
        self.redactor.mask(&rest).into_owned()
    }
}

/// The forms in which a secret is written: as it is, in JSON, in a URL; and the password of a URL.
fn forms(secret: &str) -> BTreeSet<String> {
    let json = serde_json::to_string(secret).unwrap_or_default();
    let bare = json
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'));
    let mut forms = BTreeSet::from([
        secret.to_owned(),
        bare.unwrap_or_default().to_owned(),
        encoded(secret),
    ]);
    if let Some(password) = password(secret) {
        forms.insert(password.to_owned());
        forms.extend(decoded(password));
    }
    forms
}

/// What stands before the host of an address and after the user's name.
fn password(url: &str) -> Option<&str> {
    let (_, rest) = url.split_once("://")?;
    let authority = rest.split(['/', '?', '#']).next()?;
    // A password may hold an @ that was not encoded.
    let (user, _) = authority.rsplit_once('@')?;
    user.split_once(':').map(|(_, password)| password)
}

fn encoded(text: &str) -> String {
    text.bytes().fold(String::new(), |mut url, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            url.push(char::from(byte));
        } else {
            // Writing to a string does not fail.
            write!(url, "%{byte:02X}").ok();
        }
        url
    })
}

fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let hex = [rest.next()?, rest.next()?];
            bytes.push(u8::from_str_radix(std::str::from_utf8(&hex).ok()?, 16).ok()?);
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn knowing(secrets: &[&str]) -> Redactor {
        let redactor = Redactor::default();
        redactor.learn(secrets.iter().copied());
        redactor
    }

    #[test]
    fn a_secret_is_masked_in_every_form_and_its_neighbours_stay() {
        let redactor = knowing(&["p@ss\"w/rd 1"]);
        for form in ["p@ss\"w/rd 1", r#"p@ss\"w/rd 1"#, "p%40ss%22w%2Frd%201"] {
            let text = format!("<{form}>");
            assert_eq!(redactor.mask(&text), "<[redacted]>", "{form}");
            assert_eq!(*redactor.mask_bytes(text.as_bytes()), *b"<[redacted]>");
        }
        assert!(matches!(redactor.mask("nothing here"), Cow::Borrowed(_)));
    }

    #[test]
    fn the_password_of_an_address_is_a_secret_too() {
        let redactor = knowing(&["postgres://ada:h%40nter22@db:5432/x?y=z"]);
        assert_eq!(
            redactor.mask("h@nter22 and h%40nter22 of ada at db:5432"),
            "[redacted] and [redacted] of ada at db:5432"
        );
    }

    #[test]
    fn of_two_secrets_that_begin_alike_nothing_is_left() {
        let redactor = knowing(&["sk-abcdefgh1", "sk-abcdefgh12345"]);
        assert_eq!(redactor.mask("sk-abcdefgh12345"), MASK);
        // What was replaced stays known.
        redactor.learn(["sk-other-9999"]);
        assert_eq!(
            redactor.mask("sk-abcdefgh1 sk-other-9999"),
            "[redacted] [redacted]"
        );
    }

    #[test]
    fn words_and_numbers_are_not_taken_for_secrets() {
        let plain = ["agentrunner", "postgres", "12345678", "a1b2", ""];
        let redactor = knowing(&plain);
        for text in plain {
            assert!(!can_be_found(text), "{text}");
            assert_eq!(redactor.mask(text), text);
        }
        assert!(can_be_found("hunter2222") && can_be_found("a-long-password-of-words"));
    }

    #[test]
    fn names_of_fields_stay() {
        let mut value =
            serde_json::json!({ "sk-canary-1": ["x sk-canary-1", { "y": "sk-canary-1" }], "n": 1 });
        knowing(&["sk-canary-1"]).mask_json(&mut value);
        let wanted =
            serde_json::json!({ "sk-canary-1": ["x [redacted]", { "y": "[redacted]" }], "n": 1 });
        assert_eq!(value, wanted);
    }

    #[test]
    fn what_may_become_a_secret_is_held_back_until_it_is_decided() {
        let mut flow = knowing(&["sk-abcdefgh1"]).flow();
        assert_eq!(flow.push("the key sk-ab"), "the key ");
        assert_eq!(flow.push("cdefgh"), "");
        assert_eq!(flow.push("1 and sk"), "[redacted] and ");
        assert_eq!(flow.push("y"), "sky");
        assert_eq!(flow.push(" sk-abc"), " ");
        assert_eq!(flow.end(), "sk-abc");
    }

    proptest! {
        #[test]
        fn pieces_say_what_the_whole_says(
            text in "[ab1-]{0,60}", cuts in prop::collection::vec(0usize..60, 0..8),
            secrets in prop::collection::vec("[ab1-]{8,12}", 1..4),
        ) {
            let secrets: Vec<_> = secrets.iter().map(String::as_str).collect();
            let redactor = knowing(&secrets);
            let mut cuts: Vec<_> = cuts.into_iter().map(|at| at.min(text.len())).collect();
            cuts.extend([0, text.len()]);
            cuts.sort_unstable();
            let mut flow = redactor.flow();
            let mut said: String = cuts.windows(2).map(|pair| flow.push(&text[pair[0]..pair[1]])).collect();
            said.push_str(&flow.end());
            prop_assert_eq!(said, redactor.mask(&text));
        }

        #[test]
        fn what_is_known_never_gets_through(
            secret in "[ -~]{8,40}", before in "[ -~]{0,30}", after in "[ -~]{0,30}"
        ) {
            let secret = secret.trim();
            prop_assume!(can_be_found(secret) && !MASK.contains(secret));
            let redactor = knowing(&[secret]);
            let text = format!("{before}{secret}{after}");
            let masked = redactor.mask(&text);
            prop_assert!(masked.contains(MASK));
            let json = serde_json::to_string(&text).unwrap();
            prop_assert!(redactor.mask(&json).contains(MASK));
            prop_assert!(serde_json::from_str::<String>(&redactor.mask(&json)).is_ok());
        }
    }
}
