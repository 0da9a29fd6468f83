//! What `scripts/test-deps` installed: MCP servers from npm and the official client libraries.

use std::env;
use std::path::{Path, PathBuf};

/// A program and its arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandLine {
    /// The program.
    pub program: String,
    /// Its arguments.
    pub args: Vec<String>,
}

/// The reference MCP servers from npm; both speak over stdio.
#[derive(Clone, Debug)]
pub struct NpmServers {
    modules: PathBuf,
}

/// Finds the reference MCP servers from npm.
///
/// # Panics
/// When they are not installed; the message says what to run.
#[must_use]
pub fn npm_servers() -> NpmServers {
    NpmServers {
        modules: installed("node/node_modules/@modelcontextprotocol"),
    }
}

impl NpmServers {
    /// Returns how to start `@modelcontextprotocol/server-filesystem`, which may use `root` only.
    #[must_use]
    pub fn filesystem(&self, root: &Path) -> CommandLine {
        self.command("server-filesystem", root.display().to_string())
    }

    /// Returns how to start `@modelcontextprotocol/server-everything`.
    #[must_use]
    pub fn everything(&self) -> CommandLine {
        self.command("server-everything", "stdio".to_owned())
    }

    fn command(&self, server: &str, argument: String) -> CommandLine {
        let script = self.modules.join(server).join("dist/index.js");
        CommandLine {
            program: "node".to_owned(),
            args: vec![script.display().to_string(), argument],
        }
    }
}

/// Returns the Python that has the official client libraries.
///
/// # Panics
/// When it is not installed; the message says what to run.
#[must_use]
pub fn python() -> PathBuf {
    installed("python/bin/python")
}

/// Returns the folder whose `node_modules` has the official client libraries.
///
/// # Panics
/// When it is not installed; the message says what to run.
#[must_use]
pub fn node_folder() -> PathBuf {
    installed("node/node_modules/openai").join("../..")
}

/// Finds a part of the folder of dependencies: `target/test-deps`, or `AGENTRUNNER_TEST_DEPS`.
fn installed(part: &str) -> PathBuf {
    let usual = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/test-deps");
    let folder = env::var_os("AGENTRUNNER_TEST_DEPS").map_or_else(usual, PathBuf::from);
    let path = folder.join(part);
    assert!(
        path.exists(),
        "{} is missing: run scripts/test-deps",
        path.display()
    );
    path
}
