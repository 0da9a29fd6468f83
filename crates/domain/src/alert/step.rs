//! What is known of alerts, and what follows from a look: what is known then, and who is to be told what.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::rule::{Finding, Rule, Severity, Signs};
use crate::Time;

/// For how long it is known that something was wrong and is over.
const REMEMBERED: Duration = Duration::from_secs(24 * 3600);
/// How many subjects of one rule are looked after: a rule that finds more is about something larger.
const MAX_SUBJECTS: usize = 200;

/// What is known of alerts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Known {
    /// When it was last looked.
    #[serde(default)]
    pub looked_at: Option<Time>,
    /// By rule and subject.
    #[serde(default)]
    pub rules: BTreeMap<String, BTreeMap<String, Standing>>,
}

/// How one thing stands that was found wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// Since when it is wrong.
    pub since: Time,
    /// Since when it fires; not yet when it has not been wrong for long enough.
    #[serde(default)]
    pub fired_at: Option<Time>,
    /// When it was last told.
    #[serde(default)]
    pub told_at: Option<Time>,
    /// When it was over.
    #[serde(default)]
    pub resolved_at: Option<Time>,
    /// How bad it is.
    pub severity: Severity,
    /// What is wrong, in words.
    pub summary: String,
}

impl Standing {
    /// pending, firing or resolved.
    pub const fn state(&self) -> &'static str {
        match (self.fired_at, self.resolved_at) {
            (_, Some(_)) => "resolved",
            (Some(_), None) => "firing",
            (None, None) => "pending",
        }
    }

    const fn is_firing(&self) -> bool {
        self.fired_at.is_some() && self.resolved_at.is_none()
    }
}

/// Something that receivers are to be told: one message for all subjects of a rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    /// The rule.
    pub rule: String,
    /// What has happened.
    pub kind: NoticeKind,
    /// How bad it is.
    pub severity: Severity,
    /// When.
    pub at: Time,
    /// What it is about.
    pub subjects: Vec<Subject>,
    /// Who is told.
    #[serde(skip)]
    pub receivers: Vec<String>,
}

/// What has happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NoticeKind {
    /// Something is wrong.
    Firing,
    /// It is wrong still.
    Reminder,
    /// It is over.
    Resolved,
}

impl NoticeKind {
    /// The type of the message.
    pub const fn event(self) -> &'static str {
        match self {
            Self::Firing => "alert.firing",
            Self::Reminder => "alert.reminder",
            Self::Resolved => "alert.resolved",
        }
    }
}

/// One thing that a notice is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subject {
    /// The name of an agent or schedule; empty when it is about all.
    pub name: String,
    /// What is or was wrong.
    pub summary: String,
    /// Since when.
    pub since: Time,
}

/// What follows from a look.
pub fn step(known: &Known, rules: &[Rule], signs: &Signs, now: Time) -> (Known, Vec<Notice>) {
    let mut next = Known {
        looked_at: Some(now),
        rules: BTreeMap::new(),
    };
    let mut notices = Vec::new();
    // What is known of a rule that is no more goes with it.
    for rule in rules {
        let before = known.rules.get(&rule.name).cloned().unwrap_or_default();
        let after = advance(rule, before, rule.find(signs, now), now, &mut notices);
        if !after.is_empty() {
            next.rules.insert(rule.name.clone(), after);
        }
    }
    (next, notices)
}

fn advance(
    rule: &Rule,
    mut known: BTreeMap<String, Standing>,
    mut found: Vec<Finding>,
    now: Time,
    notices: &mut Vec<Notice>,
) -> BTreeMap<String, Standing> {
    found.truncate(MAX_SUBJECTS);
    let (mut fired, mut resolved) = (Vec::new(), Vec::new());
    for (subject, standing) in &mut known {
        let is_found = found.iter().any(|finding| finding.subject == *subject);
        if standing.is_firing() && !is_found {
            standing.resolved_at = Some(now);
            resolved.push(subject_of(subject, standing));
        }
    }
    known.retain(|subject, standing| match standing.resolved_at {
        Some(at) => (now - at).to_std().is_ok_and(|ago| ago < REMEMBERED),
        None => standing.is_firing() || found.iter().any(|finding| finding.subject == *subject),
    });
    for Finding { subject, summary } in found {
        let fresh = Standing {
            since: now,
            fired_at: None,
            told_at: None,
            resolved_at: None,
            severity: rule.severity,
            summary: String::new(),
        };
        let standing = known
            .entry(subject.clone())
            .or_insert_with(|| fresh.clone());
        if standing.resolved_at.is_some() {
            *standing = fresh;
        }
        (standing.summary, standing.severity) = (summary, rule.severity);
        let wrong_for = (now - standing.since).to_std().unwrap_or_default();
        if standing.fired_at.is_none() && wrong_for >= rule.hold {
            (standing.fired_at, standing.told_at) = (Some(now), Some(now));
            fired.push(subject_of(&subject, standing));
        }
    }
    notice(rule, NoticeKind::Firing, fired, now, notices);
    remind(rule, &mut known, now, notices);
    notice(rule, NoticeKind::Resolved, resolved, now, notices);
    known
}

/// Tells again of all that fire, once one of them was last told long enough ago.
fn remind(
    rule: &Rule,
    known: &mut BTreeMap<String, Standing>,
    now: Time,
    notices: &mut Vec<Notice>,
) {
    let Some(every) = rule.every else { return };
    let is_due = |standing: &Standing| {
        let ago = standing.told_at.and_then(|at| (now - at).to_std().ok());
        standing.is_firing() && ago.is_some_and(|ago| ago >= every)
    };
    if !known.values().any(is_due) {
        return;
    }
    let mut subjects = Vec::new();
    for (subject, standing) in known.iter_mut().filter(|(_, one)| one.is_firing()) {
        // Those that were told in this very look are not told twice.
        if standing.told_at != Some(now) {
            standing.told_at = Some(now);
            subjects.push(subject_of(subject, standing));
        }
    }
    notice(rule, NoticeKind::Reminder, subjects, now, notices);
}

fn notice(
    rule: &Rule,
    kind: NoticeKind,
    subjects: Vec<Subject>,
    at: Time,
    notices: &mut Vec<Notice>,
) {
    if !subjects.is_empty() {
        notices.push(Notice {
            rule: rule.name.clone(),
            kind,
            severity: rule.severity,
            at,
            subjects,
            receivers: rule.receivers.clone(),
        });
    }
}

fn subject_of(name: &str, standing: &Standing) -> Subject {
    Subject {
        name: name.to_owned(),
        summary: standing.summary.clone(),
        since: standing.since,
    }
}

#[cfg(test)]
mod tests;
