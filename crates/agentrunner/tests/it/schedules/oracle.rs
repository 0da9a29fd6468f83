//! When schedules are to fire, calculated another way: by jiff, which has its own calendar and its own table of zones,
//! going through every day and looking what the rule of `docs/schedules.md` says about it. Nothing here reads a cron
//! expression: the expression is made from the same parts.

use chrono::{DateTime, Utc};
use jiff::civil::{Date, DateTime as Local};
use jiff::tz::{AmbiguousOffset, TimeZone};
use jiff::{Timestamp, ToSpan};

/// When a schedule is to fire.
#[derive(Debug, Clone)]
pub(super) enum When {
    /// On days that fit, at times of day that are written out.
    WrittenOut {
        hours: Vec<i8>,
        minutes: Vec<i8>,
        days: Days,
        zone: &'static str,
    },
    /// On days that fit, every so many minutes of some hours.
    EverySoMany {
        step: i8,
        hours: Vec<i8>,
        days: Days,
        zone: &'static str,
    },
    /// Every so many seconds.
    Interval(i64),
}

/// Which days.
#[derive(Debug, Clone, Copy)]
pub(super) enum Days {
    All,
    /// Of the week; 0 is Sunday.
    Week(i8),
    /// Monday to Friday.
    Work,
    /// Of the month.
    Month(i8),
}

impl Days {
    fn fit(self, date: Date) -> bool {
        let weekday = date.weekday().to_sunday_zero_offset();
        match self {
            Self::All => true,
            Self::Week(day) => weekday == day,
            Self::Work => (1..=5).contains(&weekday),
            Self::Month(day) => date.day() == day,
        }
    }

    fn expression(self) -> String {
        match self {
            Self::All => "* * *".to_owned(),
            Self::Week(day) => format!("* * {day}"),
            Self::Work => "* * MON-FRI".to_owned(),
            Self::Month(day) => format!("{day} * *"),
        }
    }
}

fn list(numbers: &[i8]) -> String {
    numbers
        .iter()
        .map(i8::to_string)
        .collect::<Vec<_>>()
        .join(",")
}

impl When {
    /// The fields that say so.
    pub(super) fn fields(&self) -> serde_json::Value {
        match self {
            Self::WrittenOut {
                hours,
                minutes,
                days,
                zone,
            } => {
                let cron = format!("{} {} {}", list(minutes), list(hours), days.expression());
                serde_json::json!({ "type": "cron", "cron": cron, "timezone": zone })
            }
            Self::EverySoMany {
                step,
                hours,
                days,
                zone,
            } => {
                let cron = format!("*/{step} {} {}", list(hours), days.expression());
                serde_json::json!({ "type": "cron", "cron": cron, "timezone": zone })
            }
            Self::Interval(seconds) => {
                serde_json::json!({ "type": "interval", "interval_seconds": seconds })
            }
        }
    }

    /// All fire times after `from` up to `to`.
    pub(super) fn fire_times(&self, from: DateTime<Utc>, to: DateTime<Utc>) -> Vec<DateTime<Utc>> {
        let mut times = match self {
            Self::Interval(seconds) => {
                let mut times = Vec::new();
                let mut next = from + chrono::TimeDelta::seconds(*seconds);
                while next <= to {
                    times.push(next);
                    next += chrono::TimeDelta::seconds(*seconds);
                }
                times
            }
            Self::WrittenOut {
                hours,
                minutes,
                days,
                zone,
            } => by_day(
                from,
                to,
                zone,
                *days,
                |date| of_day(date, hours, minutes),
                Rule::OnceADay,
            ),
            Self::EverySoMany {
                step,
                hours,
                days,
                zone,
            } => {
                let minutes: Vec<i8> = (0..60).step_by(*step as usize).collect();
                by_day(
                    from,
                    to,
                    zone,
                    *days,
                    |date| of_day(date, hours, &minutes),
                    Rule::ByTheClock,
                )
            }
        };
        times.sort();
        times.dedup();
        times
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Rule {
    OnceADay,
    ByTheClock,
}

fn of_day(date: Date, hours: &[i8], minutes: &[i8]) -> Vec<Local> {
    let each = hours
        .iter()
        .flat_map(|hour| minutes.iter().map(move |minute| (*hour, *minute)));
    each.map(|(hour, minute)| date.at(hour, minute, 0, 0))
        .collect()
}

fn by_day(
    from: DateTime<Utc>,
    to: DateTime<Utc>,
    zone: &str,
    days: Days,
    times: impl Fn(Date) -> Vec<Local>,
    rule: Rule,
) -> Vec<DateTime<Utc>> {
    let zone = TimeZone::get(zone).unwrap();
    let mut date = zone
        .to_datetime(Timestamp::from_second(from.timestamp()).unwrap())
        .date();
    date = date.checked_sub(1.day()).unwrap();
    let last = zone
        .to_datetime(Timestamp::from_second(to.timestamp()).unwrap())
        .date();
    let mut found = Vec::new();
    while date <= last {
        if days.fit(date) {
            for local in times(date) {
                found.extend(moments(&zone, local, rule));
            }
        }
        date = date.tomorrow().unwrap();
    }
    let found = found
        .into_iter()
        .map(|time| DateTime::from_timestamp(time.as_second(), 0).unwrap());
    found.filter(|time| *time > from && *time <= to).collect()
}

fn moments(zone: &TimeZone, local: Local, rule: Rule) -> Vec<Timestamp> {
    match zone.to_ambiguous_timestamp(local).offset() {
        AmbiguousOffset::Unambiguous { offset } => vec![offset.to_timestamp(local).unwrap()],
        AmbiguousOffset::Fold { before, after } => match rule {
            Rule::OnceADay => vec![before.to_timestamp(local).unwrap()],
            Rule::ByTheClock => vec![
                before.to_timestamp(local).unwrap(),
                after.to_timestamp(local).unwrap(),
            ],
        },
        AmbiguousOffset::Gap { .. } if rule == Rule::ByTheClock => Vec::new(),
        // The first moment after the gap: minute by minute, until there is one.
        AmbiguousOffset::Gap { .. } => {
            let mut local = local;
            loop {
                local = local.checked_add(1.minute()).unwrap();
                if let AmbiguousOffset::Unambiguous { offset } =
                    zone.to_ambiguous_timestamp(local).offset()
                {
                    return vec![offset.to_timestamp(local).unwrap()];
                }
            }
        }
    }
}

#[test]
fn the_calculation_knows_both_changes_of_the_clock() {
    let at = |text: &str| text.parse::<DateTime<Utc>>().unwrap();
    let daily = When::WrittenOut {
        hours: vec![2],
        minutes: vec![30],
        days: Days::All,
        zone: "Europe/Berlin",
    };
    assert_eq!(
        daily.fire_times(at("2026-03-28T12:00:00Z"), at("2026-03-30T12:00:00Z")),
        [at("2026-03-29T01:00:00Z"), at("2026-03-30T00:30:00Z")]
    );
    let clock = When::EverySoMany {
        step: 30,
        hours: vec![2],
        days: Days::All,
        zone: "Europe/Berlin",
    };
    assert_eq!(
        clock
            .fire_times(at("2026-10-24T12:00:00Z"), at("2026-10-25T12:00:00Z"))
            .len(),
        4
    );
}
