//! Merging the sources: command line over environment over `.env` over default, every value checked, every mistake
//! kept.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use domain::nearest::nearest;
use secrecy::{ExposeSecret as _, SecretString};

use super::source::Origin;
use super::variable::{FOREIGN, Kind, PREFIXES, VARIABLES, Variable};

/// The longest file that a `_FILE` variable may name.
const MAX_SECRET_BYTES: u64 = 1 << 20;

/// A value and where it came from.
#[derive(Debug, Clone)]
pub(crate) struct Value {
    pub(crate) text: String,
    pub(crate) origin: Origin,
}

/// Something wrong with a variable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mistake {
    pub(crate) name: String,
    /// Masked when it may be a secret.
    pub(crate) value: String,
    pub(crate) message: String,
}

/// All values, by name of the variable.
#[derive(Debug, Clone, Default)]
pub(crate) struct Values {
    values: BTreeMap<&'static str, Value>,
    /// What is set besides, for `${NAME}` in agents.
    others: BTreeMap<String, String>,
    /// Files that others of these came from.
    other_files: BTreeMap<String, PathBuf>,
    /// Secrets that changed since the start.
    renewed: Renewed,
}

/// Shared by all clones.
#[derive(Clone, Default)]
struct Renewed(Arc<RwLock<BTreeMap<String, SecretString>>>);

impl std::fmt::Debug for Renewed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Renewed")
    }
}

impl Values {
    /// Merges the layers, the strongest first.
    pub(crate) fn merge(layers: Vec<(Origin, BTreeMap<String, String>)>) -> (Self, Vec<Mistake>) {
        let mut mistakes = Vec::new();
        let mut values = BTreeMap::new();
        for variable in VARIABLES {
            if let Some(value) = pick(variable, &layers, &mut mistakes) {
                values.insert(variable.name, value);
            }
        }
        for (origin, layer) in &layers {
            if *origin != Origin::Flag {
                mistakes.extend(layer.iter().filter_map(|(name, value)| slip(name, value)));
            }
        }
        let mut others = BTreeMap::new();
        for (_, layer) in layers.into_iter().rev() {
            others.extend(layer);
        }
        let other_files = read_others(&mut others, &mut mistakes);
        mistakes.dedup();
        let renewed = Renewed::default();
        (
            Self {
                values,
                others,
                other_files,
                renewed,
            },
            mistakes,
        )
    }

    /// The text of a variable; its default when it is not set; `None` when there is none.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        match self.values.get(name) {
            Some(value) => Some(&value.text),
            None => Variable::named(name)
                .map(|variable| variable.default)
                .filter(|default| !default.is_empty()),
        }
    }

    /// Where the value came from.
    pub(crate) fn origin(&self, name: &str) -> Origin {
        self.values
            .get(name)
            .map_or(Origin::Default, |value| value.origin.clone())
    }

    /// Whether it is what it would be if it were not set.
    pub(crate) fn is_default(&self, name: &str) -> bool {
        let default = Variable::named(name).map(|variable| variable.default);
        default.is_some_and(|default| self.text(name).unwrap_or_default() == default)
    }

    /// Whether it has a value; a switch: whether it is on.
    pub(crate) fn is_on(&self, name: &str) -> bool {
        match Variable::named(name).map(|variable| variable.kind) {
            Some(Kind::Switch) => self.switch(name),
            _ => self.text(name).is_some(),
        }
    }

    /// A checked number. Wrong ones were reported as mistakes, so the fallback is never used.
    pub(crate) fn number(&self, name: &str) -> u64 {
        self.text(name)
            .and_then(|text| text.parse().ok())
            .unwrap_or_default()
    }

    /// A checked switch.
    pub(crate) fn switch(&self, name: &str) -> bool {
        self.text(name).and_then(as_switch).unwrap_or_default()
    }

    /// A checked port.
    pub(crate) fn port(&self, name: &str) -> u16 {
        u16::try_from(self.number(name)).unwrap_or_default()
    }

    /// A path.
    pub(crate) fn path(&self, name: &str) -> Option<PathBuf> {
        self.text(name).map(PathBuf::from)
    }

    /// What stands between the commas.
    pub(crate) fn list(&self, name: &str) -> Vec<String> {
        let items = self
            .text(name)
            .unwrap_or_default()
            .split(',')
            .map(str::trim);
        items
            .filter(|item| !item.is_empty())
            .map(str::to_owned)
            .collect()
    }

    /// From now on, [`Values::lookup`] says this. The settings stay as they were read.
    pub(crate) fn renew(&self, name: &str, value: String) {
        let renewed = self.renewed.0.write();
        let mut renewed = renewed.unwrap_or_else(PoisonError::into_inner);
        renewed.insert(name.to_owned(), value.into());
    }

    /// The files that secrets came from.
    pub(crate) fn secret_files(&self) -> impl Iterator<Item = (String, PathBuf)> {
        let ours = VARIABLES.iter().filter(|variable| variable.is_secret());
        let ours = ours.filter_map(|variable| match self.values.get(variable.name)?.origin {
            Origin::File(ref path) => Some((variable.name.to_owned(), path.clone())),
            _ => None,
        });
        let others = self.other_files.iter();
        ours.chain(others.map(|(name, path)| (name.clone(), path.clone())))
    }

    /// The values that nobody may see, by name: of our own variables those that are secrets, of others those whose name
    /// says so.
    pub(crate) fn secrets(&self) -> impl Iterator<Item = (&str, &str)> {
        let ours = VARIABLES
            .iter()
            .filter(|variable| variable.is_secret())
            .filter_map(|variable| {
                Some((variable.name, self.values.get(variable.name)?.text.as_str()))
            });
        let others = self
            .others
            .iter()
            .filter(|(name, _)| Variable::named(name).is_none() && tells_a_secret(name))
            .map(|(name, value)| (name.as_str(), value.as_str()));
        ours.chain(others)
    }

    /// The value of any variable, ours or not, for `${NAME}` in agents.
    pub(crate) fn lookup(&self, name: &str) -> Option<String> {
        let renewed = self
            .renewed
            .0
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(value) = renewed.get(name) {
            return Some(value.expose_secret().to_owned());
        }
        drop(renewed);
        match self.values.get(name) {
            Some(value) => Some(value.text.clone()),
            None => self
                .others
                .get(name)
                .or_else(|| self.others.get(&name.to_uppercase()))
                .cloned(),
        }
    }
}

/// Whether a name says that its value is a secret.
fn tells_a_secret(name: &str) -> bool {
    const ENDINGS: [&str; 8] = [
        "KEY",
        "TOKEN",
        "SECRET",
        "PASSWORD",
        "PASSWD",
        "PASS",
        "CREDENTIAL",
        "CREDENTIALS",
    ];
    let name = name.to_ascii_uppercase();
    let last = name.rsplit('_').next().unwrap_or_default();
    ENDINGS.contains(&last)
}

/// Reads what variables that are not ours name by `file://` or `_FILE`, as far as they are secrets: agents use them.
fn read_others(
    others: &mut BTreeMap<String, String>,
    mistakes: &mut Vec<Mistake>,
) -> BTreeMap<String, PathBuf> {
    let mut files = BTreeMap::new();
    for (name, value) in others.iter() {
        let plain = name.strip_suffix("_FILE");
        let is_free = |plain: &str| Variable::named(plain).is_none() && tells_a_secret(plain);
        match (plain, value.strip_prefix("file://")) {
            (None, Some(path)) if is_free(name) => {
                files.insert(name.clone(), PathBuf::from(path));
            }
            (Some(plain), _) if is_free(plain) && !others.contains_key(plain) => {
                files.insert(plain.to_owned(), PathBuf::from(value));
            }
            _ => {}
        }
    }
    files.retain(|name, path| match from_file(path) {
        Ok(value) => {
            others.insert(name.clone(), value.text);
            true
        }
        // `_FILE` may be another program's, and mean something else.
        Err(_) if !others.contains_key(name) => false,
        Err(message) => {
            mistakes.push(Mistake {
                name: name.clone(),
                value: String::new(),
                message,
            });
            false
        }
    });
    files
}

/// The secret in a file.
///
/// # Errors
/// It can't be read; why.
pub(crate) fn read_secret(path: &Path) -> Result<String, String> {
    from_file(path).map(|value| value.text)
}

/// The strongest layer's value of a variable, read from its file when the `_FILE` form names one.
fn pick(
    variable: &'static Variable,
    layers: &[(Origin, BTreeMap<String, String>)],
    mistakes: &mut Vec<Mistake>,
) -> Option<Value> {
    let file_form = format!("{}_FILE", variable.name);
    let set = |layer: &BTreeMap<String, String>, name: &str| {
        layer.get(name).filter(|value| !value.is_empty()).cloned()
    };
    for (origin, layer) in layers {
        let mistake = |value: &str, message: String| Mistake {
            name: variable.name.to_owned(),
            value: shown(variable, value),
            message,
        };
        let value = match (set(layer, variable.name), set(layer, &file_form)) {
            (None, None) => continue,
            (Some(text), Some(_)) => {
                let message = format!("{file_form} is set too; give one of the two");
                mistakes.push(mistake(&text, message));
                return None;
            }
            (Some(text), None) => match text.strip_prefix("file://") {
                Some(path) if variable.is_secret() => from_file(Path::new(path)),
                _ => Ok(Value {
                    text,
                    origin: origin.clone(),
                }),
            },
            (None, Some(path)) => from_file(Path::new(&path)),
        };
        let checked = value
            .map_err(|message| mistake("", message))
            .and_then(|value| {
                check(variable, &value.text)
                    .map(|()| value.clone())
                    .map_err(|message| mistake(&value.text, message))
            });
        return match checked {
            Ok(value) => Some(value),
            Err(found) => {
                mistakes.push(found);
                None
            }
        };
    }
    None
}

fn from_file(path: &Path) -> Result<Value, String> {
    let fail = |why: String| format!("the file {} can't be read: {why}", path.display());
    let size = std::fs::metadata(path)
        .map_err(|error| fail(error.to_string()))?
        .len();
    if size > MAX_SECRET_BYTES {
        return Err(fail(format!(
            "it has {size} bytes, at most {MAX_SECRET_BYTES} are taken"
        )));
    }
    let text = std::fs::read_to_string(path).map_err(|error| fail(error.to_string()))?;
    Ok(Value {
        text: text.trim_end_matches(['\r', '\n']).to_owned(),
        origin: Origin::File(path.to_owned()),
    })
}

fn check(variable: &Variable, text: &str) -> Result<(), String> {
    if text.starts_with("aws-sm://") || text.starts_with("vault://") {
        return Err(
            "a reference is read where it is set in the environment or in .env, of a secret; this is none of these".to_owned(),
        );
    }
    let fits = match variable.kind {
        Kind::Text | Kind::Secret | Kind::Path | Kind::List => true,
        Kind::Url => url_fits(text),
        Kind::Address => text.parse::<std::net::IpAddr>().is_ok(),
        Kind::Port => text.parse::<u16>().is_ok(),
        Kind::Switch => as_switch(text).is_some(),
        Kind::Word(words) => words.iter().any(|word| word.eq_ignore_ascii_case(text)),
        Kind::Number(min, max, _) => text.parse().is_ok_and(|n| (min..=max).contains(&n)),
    };
    if !fits {
        let mut message = format!("allowed: {}", variable.kind.allowed());
        if let Some(near) = nearest_word(variable.kind, text) {
            message.push_str(&format!("; did you mean {near}?"));
        }
        if text.starts_with("tcp://") {
            message.push_str(
                "; Kubernetes sets this for a service of that name: set enableServiceLinks: false",
            );
        }
        return Err(message);
    }
    Ok(())
}

fn url_fits(text: &str) -> bool {
    reqwest::Url::parse(text)
        .is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
}

fn nearest_word(kind: Kind, text: &str) -> Option<&'static str> {
    match kind {
        Kind::Word(words) => nearest(text, words.iter().copied()),
        Kind::Switch => nearest(text, ["true", "false"]),
        _ => None,
    }
}

fn as_switch(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" | "on" => Some(true),
        "false" | "0" | "no" | "off" => Some(false),
        _ => None,
    }
}

/// Whether an unknown name is a known one misspelt. Names of other programs must pass, so it has to be near.
fn slip(name: &str, value: &str) -> Option<Mistake> {
    let plain = name.strip_suffix("_FILE").unwrap_or(name);
    if Variable::named(plain).is_some() || FOREIGN.contains(&plain) {
        return None;
    }
    let near = VARIABLES
        .iter()
        .map(|known| (strsim::damerau_levenshtein(plain, known.name), known))
        .min_by_key(|(distance, _)| *distance)
        .filter(|(distance, known)| is_slip(plain, *distance, known.name))
        .map(|(_, known)| known);
    let message = match near {
        Some(known) => format!("there is no such setting; did you mean {}?", known.name),
        None if plain.starts_with("AGENTRUNNER_") => {
            "there is no such setting; docs/settings.md lists all".to_owned()
        }
        None => return None,
    };
    // A slip in the name of a secret must not cost the secret.
    let may_be_secret = near.is_none_or(Variable::is_secret);
    Some(Mistake {
        name: name.to_owned(),
        value: if may_be_secret {
            mask(value)
        } else {
            cut(value)
        },
        message,
    })
}

fn is_slip(name: &str, distance: usize, known: &str) -> bool {
    let allowed = match known.len() {
        0..8 => 1,
        8..14 => 2,
        _ => 3,
    };
    let is_ours = PREFIXES.iter().any(|prefix| name.starts_with(prefix));
    distance
        <= if is_ours {
            allowed
        } else {
            allowed.min(2) - usize::from(known.len() < 12)
        }
}

/// A value as it may be shown.
pub(crate) fn shown(variable: &Variable, text: &str) -> String {
    if variable.is_secret() {
        mask(text)
    } else {
        cut(text)
    }
}

fn mask(text: &str) -> String {
    if text.is_empty() {
        String::new()
    } else {
        "****".to_owned()
    }
}

/// Bounded, and without what could play tricks on a terminal.
fn cut(text: &str) -> String {
    text.chars().take(80).flat_map(char::escape_debug).collect()
}
