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

/// Reads a `.env` file. A file that is not there holds nothing.
///
/// # Errors
/// The file can't be read, or a line of it is not `NAME=value`.
pub(crate) fn read_env_file(path: &Path) -> Result<BTreeMap<String, String>, String> {
    match dotenvy::from_path_iter(path) {
        Ok(lines) => lines
            .map(|line| line.map_err(|error| broken_line(path, &error)))
            .collect(),
        Err(error) if error.not_found() => Ok(BTreeMap::new()),
        Err(error) => Err(format!("{} can't be read: {error}", path.display())),
    }
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
}
