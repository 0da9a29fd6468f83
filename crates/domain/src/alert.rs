//! When somebody is to be told that something is wrong, and that it is over.
//!
//! [`AlertConfig`] is `alerts.yml` as it is written, [`AlertConfig::rules`] what it means. A rule finds what is wrong in the
//! [`Signs`] of a moment; [`step()`] turns that into what is known from then on ([`Known`]) and into notices. It is a pure
//! function: whoever keeps its result tells nothing twice and forgets nothing, whichever process looks next.

mod config;
mod rule;
mod step;

pub use config::{AlertConfig, ReceiverConfig, ReceiverKind, RuleConfig, Tls, Watch};
pub use rule::{Ended, Finding, Rule, Severity, Signs, Wrong};
pub use step::{Known, Notice, NoticeKind, Standing, Subject, step};
