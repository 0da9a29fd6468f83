//! What is told, and when.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::super::rule::Wrong;
use super::*;
use crate::Money;

fn at(seconds: i64) -> Time {
    Time::from_timestamp(1_800_000_000 + seconds, 0).unwrap()
}

/// A rule that finds what the signs call unavailable.
fn rule(hold: u64, every: Option<u64>) -> Rule {
    Rule {
        name: "down".to_owned(),
        wrong: Wrong::AgentUnavailable,
        agent: Some(None),
        hold: Duration::from_secs(hold),
        every: every.map(Duration::from_secs),
        severity: Severity::Critical,
        receivers: vec!["ops".to_owned()],
    }
}

fn signs(names: &[&str]) -> Signs {
    let unavailable = names
        .iter()
        .map(|name| (name.parse().unwrap(), "gone".to_owned()));
    Signs {
        unavailable: unavailable.collect(),
        ..Signs::default()
    }
}

/// What is told of looks, each at its time.
fn told(rule: &Rule, looks: &[(i64, &[&str])]) -> Vec<(i64, NoticeKind, Vec<String>)> {
    let mut known = Known::default();
    let mut told = Vec::new();
    for (seconds, names) in looks {
        let now = at(*seconds);
        let (next, notices) = step(&known, std::slice::from_ref(rule), &signs(names), now);
        // Whoever looks next has it from the store.
        known = serde_json::from_str(&serde_json::to_string(&next).unwrap()).unwrap();
        for notice in notices {
            assert_eq!(notice.receivers, rule.receivers);
            let names = notice.subjects.into_iter().map(|subject| subject.name);
            told.push((*seconds, notice.kind, names.collect()));
        }
    }
    told
}

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[test]
fn it_is_told_once_for_all_and_that_it_is_over() {
    use NoticeKind::{Firing, Resolved};
    let looks: [(i64, &[&str]); 5] = [
        (0, &["a", "b"]),
        (15, &["a", "b"]),
        (30, &["a", "b", "c"]),
        (45, &["c"]),
        (60, &["a", "c"]),
    ];
    assert_eq!(
        told(&rule(0, None), &looks),
        [
            (0, Firing, names(&["a", "b"])),
            (30, Firing, names(&["c"])),
            (45, Resolved, names(&["a", "b"])),
            (60, Firing, names(&["a"])),
        ]
    );
}

#[test]
fn what_is_soon_over_is_not_told() {
    use NoticeKind::{Firing, Resolved};
    let looks: [(i64, &[&str]); 7] = [
        (0, &["a"]),
        (30, &["a"]),
        (45, &[]),
        (60, &["a"]),
        (119, &["a"]),
        (120, &["a"]),
        (135, &[]),
    ];
    assert_eq!(
        told(&rule(60, None), &looks),
        [(120, Firing, names(&["a"])), (135, Resolved, names(&["a"]))]
    );
}

#[test]
fn it_is_told_again_while_it_stays() {
    use NoticeKind::{Firing, Reminder};
    let looks: [(i64, &[&str]); 5] = [
        (0, &["a"]),
        (90, &["a"]),
        (100, &["a", "b"]),
        (150, &["a", "b"]),
        (200, &["a", "b"]),
    ];
    assert_eq!(
        told(&rule(0, Some(100)), &looks),
        [
            (0, Firing, names(&["a"])),
            (100, Firing, names(&["b"])),
            (100, Reminder, names(&["a"])),
            (200, Reminder, names(&["a", "b"])),
        ]
    );
}

#[test]
fn what_is_known_of_a_rule_goes_with_it_and_what_is_over_is_remembered_for_a_day() {
    let rules = [rule(0, None)];
    let (known, _) = step(&Known::default(), &rules, &signs(&["a"]), at(0));
    let (gone, notices) = step(&known, &[], &signs(&["a"]), at(1));
    assert!(gone.rules.is_empty() && notices.is_empty());
    let (over, _) = step(&known, &rules, &signs(&[]), at(10));
    assert_eq!(over.rules["down"]["a"].state(), "resolved");
    let (still, _) = step(&over, &rules, &signs(&[]), at(86_409));
    assert_eq!(still.rules["down"].len(), 1);
    let (forgotten, _) = step(&still, &rules, &signs(&[]), at(86_410));
    assert!(forgotten.rules.is_empty());
}

#[test]
fn looking_twice_at_one_moment_tells_nothing_new() {
    let rules = [rule(0, Some(60))];
    let (known, first) = step(&Known::default(), &rules, &signs(&["a"]), at(0));
    let (again, second) = step(&known, &rules, &signs(&["a"]), at(0));
    assert_eq!((first.len(), second.len()), (1, 0));
    assert_eq!(known, again);
}

#[test]
fn a_number_that_changes_is_no_news() {
    let rule = Rule {
        wrong: Wrong::Cost {
            above: Money::from_usd(1.0),
        },
        agent: None,
        ..rule(0, None)
    };
    let spent = |usd| Signs {
        cost: vec![("a".parse().unwrap(), Money::from_usd(usd))],
        ..Signs::default()
    };
    let rules = [rule];
    let (known, first) = step(&Known::default(), &rules, &spent(2.0), at(0));
    let (known, second) = step(&known, &rules, &spent(3.0), at(15));
    assert_eq!((first.len(), second.len()), (1, 0));
    assert!(known.rules["down"][""].summary.starts_with("3.00"));
}

proptest! {
    /// Whatever is found when: each subject is told to fire and to be over in turn, never before it has been wrong for
    /// long enough, never of what was not found; and what fires at the end is what was told.
    #[test]
    fn firing_and_resolved_alternate(
        looks in prop::collection::vec((1i64..40, prop::collection::btree_set(0usize..4, 0..4)), 1..40),
        hold in 0u64..60, every in prop::option::of(60u64..120),
    ) {
        let rule = rule(hold, every);
        let all = ["a", "b", "c", "d"];
        let (mut known, mut now) = (Known::default(), 0);
        let mut firing: BTreeSet<String> = BTreeSet::new();
        let mut since: BTreeMap<String, i64> = BTreeMap::new();
        for (pause, found) in looks {
            now += pause;
            let found: Vec<&str> = found.into_iter().map(|index| all[index]).collect();
            since.retain(|name, _| found.contains(&name.as_str()));
            for name in &found {
                since.entry((*name).to_owned()).or_insert(now);
            }
            let (next, notices) = step(&known, std::slice::from_ref(&rule), &signs(&found), at(now));
            for notice in notices {
                for Subject { name, .. } in notice.subjects {
                    match notice.kind {
                        NoticeKind::Firing => {
                            prop_assert!(now - since[&name] >= hold as i64);
                            prop_assert!(firing.insert(name));
                        }
                        NoticeKind::Reminder => {
                            prop_assert!(every.is_some() && firing.contains(&name));
                        }
                        NoticeKind::Resolved => {
                            prop_assert!(!found.contains(&name.as_str()));
                            prop_assert!(firing.remove(&name));
                        }
                    }
                }
            }
            for (name, began) in &since {
                prop_assert_eq!(firing.contains(name), now - began >= hold as i64);
            }
            let standing = next.rules.get("down").into_iter().flatten();
            let fires: BTreeSet<String> =
                standing.filter(|(_, one)| one.is_firing()).map(|(name, _)| name.clone()).collect();
            prop_assert_eq!(&fires, &firing);
            known = next;
        }
    }
}
