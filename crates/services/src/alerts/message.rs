//! An alert in words.

use std::fmt::Write as _;

use domain::alert::{Notice, NoticeKind};

/// How many subjects are named; the others are counted.
const NAMED: usize = 20;

/// What it is about, in a line.
pub(super) fn title(notice: &Notice) -> String {
    let what = match notice.kind {
        NoticeKind::Firing => "firing",
        NoticeKind::Reminder => "still firing",
        NoticeKind::Resolved => "resolved",
    };
    let severity = notice.severity.as_str();
    let about = match notice.subjects.as_slice() {
        [one] if one.name.is_empty() => String::new(),
        [one] => format!(": {}", one.name),
        many => format!(": {} at once", many.len()),
    };
    format!("AgentRunner {what} ({severity}) {}{about}", notice.rule)
}

/// The whole of it.
pub(super) fn text(notice: &Notice) -> String {
    let mut text = title(notice);
    for subject in notice.subjects.iter().take(NAMED) {
        let since = subject.since.format("%Y-%m-%d %H:%M:%S UTC");
        let name = if subject.name.is_empty() {
            String::new()
        } else {
            format!("{}: ", subject.name)
        };
        // Writing to a string does not fail.
        write!(text, "\n- {name}{} (since {since})", subject.summary).ok();
    }
    if let Some(more) = notice
        .subjects
        .len()
        .checked_sub(NAMED)
        .filter(|more| *more > 0)
    {
        write!(text, "\n- and {more} more").ok();
    }
    text
}

#[cfg(test)]
mod tests {
    use domain::Time;
    use domain::alert::{Severity, Subject};

    use super::*;

    fn notice(names: &[&str]) -> Notice {
        let at = Time::from_timestamp(1_800_000_000, 0).unwrap();
        let subject = |name: &&str| Subject {
            name: (*name).to_owned(),
            summary: "3 executions failed".to_owned(),
            since: at,
        };
        Notice {
            rule: "failing".to_owned(),
            kind: NoticeKind::Firing,
            severity: Severity::Critical,
            at,
            subjects: names.iter().map(subject).collect(),
            receivers: Vec::new(),
        }
    }

    #[test]
    fn it_says_what_where_and_since_when() {
        assert_eq!(
            text(&notice(&["helper"])),
            "AgentRunner firing (critical) failing: helper\n- helper: 3 executions failed (since 2027-01-15 08:00:00 UTC)"
        );
        assert_eq!(
            title(&notice(&[""])),
            "AgentRunner firing (critical) failing"
        );
        let many = vec!["a"; 25];
        let text = text(&notice(&many));
        assert!(
            text.contains("failing: 25 at once") && text.ends_with("- and 5 more"),
            "{text}"
        );
        assert_eq!(text.lines().count(), 22);
    }
}
