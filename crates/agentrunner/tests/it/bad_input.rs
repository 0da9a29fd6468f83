//! Bad input, thrown at the built binary: each item gets one clear message that says what to do, the execution or the
//! start fails cleanly, the server goes on to do the next one, and nothing that was committed is lost.
//!
//! Covered elsewhere, and not repeated here:
//!
//! | what | where |
//! |---|---|
//! | a port in use | `serve::a_port_in_use_is_named_with_its_variable` |
//! | a broken file while the server runs, or at its start | `serve::a_change_of_a_file_is_live_…`, `serve::a_broken_file_keeps_no_server_from_starting` |
//! | a wrong setting, a missing folder | `wrong_use`, `serve::a_missing_folder_of_agents_…` |
//! | a provider that refuses the key, or has enough | `real_parts::what_providers_do_wrong_is_retried_or_said` |
//! | a server that refuses, is not there, or never answers, at the start | `servers::a_server_that_cannot_be_used_is_named_at_start` |
//! | a process that is killed at any moment | `crash`, `survive` |

mod bodies;
pub(crate) mod disk;
mod files;
mod mcp;
mod models;
mod rabbitmq;
mod rig;
mod secrets;
mod tools;
