//! Whether this machine's clock goes as others' do.

use chrono::{DateTime, Datelike, TimeDelta, Utc};

use super::Finding;

/// No release is older: an earlier date is a wrong clock.
const EARLIEST_YEAR: i32 = 2026;
/// From where on it is worth a word, and from where on something goes wrong.
const NOTABLE: TimeDelta = TimeDelta::seconds(2);
const WRONG: TimeDelta = TimeDelta::seconds(60);
const ADVICE: &str =
    "sudo timedatectl set-ntp true; `timedatectl` shows whether it is synchronised";

/// How far another clock is ahead of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Told {
    whose: String,
    ahead: TimeDelta,
}

impl Told {
    /// By a clock that tells the moment.
    pub(super) fn exactly(whose: &str, theirs: DateTime<Utc>, ours: DateTime<Utc>) -> Self {
        Self {
            whose: whose.to_owned(),
            ahead: theirs - ours,
        }
    }

    /// By one that tells whole seconds, at some moment between the question and its answer: by as much as it is certainly
    /// apart.
    pub(super) fn roughly(
        whose: &str,
        date: DateTime<Utc>,
        (asked, heard): (DateTime<Utc>, DateTime<Utc>),
    ) -> Self {
        let (least, most) = (date - heard, date + TimeDelta::seconds(1) - asked);
        let ahead = TimeDelta::zero().clamp(least.min(most), most.max(least));
        Self {
            whose: whose.to_owned(),
            ahead,
        }
    }
}

/// A finding about our clock, by what others told.
pub(super) fn judge(ours: DateTime<Utc>, told: &[Told]) -> Finding {
    let shown = ours.format("%Y-%m-%d %H:%M:%S UTC");
    if ours.year() < EARLIEST_YEAR || ours.year() > EARLIEST_YEAR + 30 {
        return Finding::failed("clock", format!("it says {shown}"), ADVICE);
    }
    let apart: Vec<String> = told
        .iter()
        .filter(|told| told.ahead.abs() > NOTABLE)
        .map(|Told { whose, ahead }| {
            let way = if *ahead > TimeDelta::zero() {
                "behind"
            } else {
                "ahead of"
            };
            format!("{} s {way} {whose}'s", ahead.num_seconds().abs())
        })
        .collect();
    if !apart.is_empty() {
        let found = format!(
            "{shown} is {}: schedules fire and logs tell by it",
            apart.join(" and ")
        );
        return match told.iter().any(|told| told.ahead.abs() > WRONG) {
            true => Finding::failed("clock", found, ADVICE),
            false => Finding::warning("clock", found, ADVICE),
        };
    }
    let whose: Vec<_> = told.iter().map(|told| told.whose.as_str()).collect();
    Finding::good(
        "clock",
        match whose.as_slice() {
            [] => shown.to_string(),
            whose => format!("{shown}, as {} says too", whose.join(" and ")),
        },
    )
}

#[cfg(test)]
mod tests {
    use super::super::State;
    use super::*;

    fn at(millis: i64) -> DateTime<Utc> {
        let noon = DateTime::parse_from_rfc3339("2026-11-30T12:00:00Z").unwrap();
        noon.to_utc() + TimeDelta::milliseconds(millis)
    }

    #[test]
    fn a_rough_clock_proves_only_what_it_proves() {
        let ahead = |date, asked, heard| {
            Told::roughly("x", at(date), (at(asked), at(heard)))
                .ahead
                .num_milliseconds()
        };
        assert_eq!(ahead(0, 100, 900), 0);
        // The answer took long.
        assert_eq!(ahead(0, 500, 5500), 0);
        assert_eq!(ahead(60_000, 0, 100), 59_900);
        assert_eq!(ahead(-60_000, 0, 100), -59_000);
    }

    #[test]
    fn two_seconds_are_borne_and_more_are_told() {
        let of = |ahead| judge(at(0), &[Told::exactly("PostgreSQL", at(ahead), at(0))]);
        for ahead in [-2000, 0, 2000] {
            assert_eq!(of(ahead).state, State::Good);
        }
        let ahead = of(-3000);
        assert_eq!(ahead.state, State::Warning);
        assert_eq!(of(90_000).state, State::Failed);
        assert!(
            ahead.found.contains("3 s ahead of PostgreSQL's"),
            "{ahead:?}"
        );
        assert!(of(3000).found.contains("3 s behind PostgreSQL's"));
        assert!(ahead.advice.contains("timedatectl set-ntp true"));
    }
}
