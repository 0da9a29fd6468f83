//! The starter project: the repository's own agents and scripts, inside the binary.

/// What to type first.
pub(crate) const FIRST_TASK: &str = "helper \"what is 6 * 7?\"";

/// Path and content of each file.
pub(crate) const FILES: &[(&str, &str)] = &[];
