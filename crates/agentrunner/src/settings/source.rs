//! Where values come from. The one place of the program that reads the environment.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

/// Something that knows the values of variables.
pub(crate) trait Source {
    /// What is set, by name. Values that are empty count as not set.
    fn all(&self) -> BTreeMap<String, String>;
}

impl Source for BTreeMap<String, String> {
    fn all(&self) -> BTreeMap<String, String> {
        self.clone()
    }
}

/// The environment of the process.
pub(crate) struct ProcessEnvironment;

impl Source for ProcessEnvironment {
    fn all(&self) -> BTreeMap<String, String> {
        std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect()
    }
}

/// What a `.env` file says.
#[derive(Debug, Default)]
pub(crate) struct EnvFile {
    pub(crate) values: BTreeMap<String, String>,
    /// What it says more than once.
    pub(crate) doubled: Vec<Doubled>,
    /// On which line each name stands, for the last time.
    pub(crate) lines: BTreeMap<String, usize>,
}

/// A name that stands in the file more than once. As everywhere, the last one counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Doubled {
    pub(crate) name: String,
    /// From 1.
    lines: Vec<usize>,
}

impl Doubled {
    /// The commands of `sed` that take away what does not count.
    pub(crate) fn weaker(&self) -> String {
        let lines = self
            .lines
            .split_last()
            .map_or(&[][..], |(_, weaker)| weaker);
        let commands: Vec<_> = lines.iter().map(|line| format!("{line}d")).collect();
        commands.join(";")
    }
}

impl fmt::Display for Doubled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<_> = self.lines.iter().map(ToString::to_string).collect();
        write!(
            f,
            "it stands on the lines {} of .env; the last one counts",
            lines.join(" and ")
        )
    }
}

/// Reads a `.env` file. A file that is not there holds nothing.
///
/// # Errors
/// The file can't be read, or a line of it is not `NAME=value`.
pub(crate) fn read_env_file(path: &Path) -> Result<EnvFile, String> {
    let pairs = match dotenvy::from_path_iter(path) {
        Ok(lines) => lines
            .map(|line| line.map_err(|error| broken_line(path, &error)))
            .collect::<Result<Vec<_>, _>>()?,
        Err(error) if error.not_found() => return Ok(EnvFile::default()),
        Err(error) => return Err(format!("{} can't be read: {error}", path.display())),
    };
    let mut lines: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    let text = std::fs::read_to_string(path).unwrap_or_default();
    for (line, name) in names(&text) {
        lines.entry(name.to_owned()).or_default().push(line);
    }
    // A line within a value of several lines may look like another.
    let times = |name: &str| pairs.iter().filter(|(set, _)| set == name).count();
    lines.retain(|name, lines| lines.len() == times(name));
    Ok(EnvFile {
        doubled: lines
            .iter()
            .filter(|(_, lines)| lines.len() > 1)
            .map(|(name, lines)| Doubled {
                name: name.clone(),
                lines: lines.clone(),
            })
            .collect(),
        lines: lines
            .into_iter()
            .filter_map(|(name, lines)| Some((name, *lines.last()?)))
            .collect(),
        values: pairs.into_iter().collect(),
    })
}

/// What the lines of a file set, with their numbers.
fn names(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines().enumerate().filter_map(|(index, line)| {
        let (name, _) = line.split_once('=')?;
        let name = name.trim();
        let name = name.strip_prefix("export ").unwrap_or(name).trim();
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '.';
        (!name.is_empty() && name.chars().all(is_name)).then_some((index + 1, name))
    })
}

/// The parser's own message repeats the value, which may be a secret: only the place is passed on.
fn broken_line(path: &Path, error: &dotenvy::Error) -> String {
    let shown = path.display();
    match error {
        dotenvy::Error::LineParse(broken, _) => {
            let text = std::fs::read_to_string(path).unwrap_or_default();
            let number = text
                .lines()
                .position(|line| line.contains(broken.trim_end()));
            let place = number.map_or_else(String::new, |index| format!(" {}", index + 1));
            format!(
                "{shown}: line{place} is not NAME=value; quote a value that holds spaces, # or quotes"
            )
        }
        other => format!("{shown} can't be read: {other}"),
    }
}

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Origin {
    Flag,
    Environment,
    EnvFile,
    /// The file that the `_FILE` form names.
    File(PathBuf),
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag => f.write_str("command line"),
            Self::Environment => f.write_str("environment"),
            Self::EnvFile => f.write_str(".env"),
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Default => f.write_str("default"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_absent_env_file_holds_nothing() {
        let folder = tempfile::tempdir().unwrap();
        assert!(
            read_env_file(&folder.path().join(".env"))
                .unwrap()
                .values
                .is_empty()
        );
    }

    #[test]
    fn a_broken_line_is_named_without_its_value() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(".env");
        std::fs::write(&path, "A=1\nOPENAI_API_KEY=sk two words\n").unwrap();
        let message = read_env_file(&path).unwrap_err();
        assert!(message.contains("line 2 is not NAME=value"), "{message}");
        assert!(!message.contains("two"), "{message}");
    }

    #[test]
    fn what_stands_there_twice_is_named_with_its_lines() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(".env");
        let text = "A=1\n# A=2\nexport B=1\n\nA=3\nC='x\nB=2\ny'\n A = 4\n";
        std::fs::write(&path, text).unwrap();
        let file = read_env_file(&path).unwrap();
        assert_eq!(file.values["A"], "4");
        let [doubled] = &file.doubled[..] else {
            panic!("{:?}", file.doubled);
        };
        assert_eq!(doubled.name, "A");
        assert!(
            doubled.to_string().contains("lines 1 and 5 and 9 of"),
            "{doubled}"
        );
        assert_eq!(doubled.weaker(), "1d;5d");
        assert_eq!(file.lines["A"], 9);
    }
}
