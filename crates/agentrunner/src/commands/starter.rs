//! The starter project: the repository's own agents and scripts, inside the binary.

/// What to type first.
pub(crate) const FIRST_TASK: &str = "helper \"what is 6 * 7?\"";

/// Names a file of the repository, and what it holds.
macro_rules! files {
    ($($path:literal),+ $(,)?) => {
        /// Path and content of each file.
        pub(crate) const FILES: &[(&str, &str)] =
            &[$(($path, include_str!(concat!("../../../../", $path)))),+];
    };
}

// `repo-guide` reads this repository's own documents and has nothing to read anywhere else.
files![
    "config/alerts.yml",
    "config/agents/helper.yml",
    "config/agents/incident-summarizer.yml",
    "config/agents/research-team.yml",
    "config/agents/team-critic.yml",
    "config/agents/team-researcher.yml",
    "config/scripts/helper.yml",
    "config/scripts/incident-summarizer.yml",
    "config/scripts/research-team.yml",
    "config/scripts/team-critic.yml",
    "config/scripts/team-researcher.yml",
    "examples/logs/checkout.log",
];
