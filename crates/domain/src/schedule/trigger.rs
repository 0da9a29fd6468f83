//! What makes a schedule fire.

use chrono::{DateTime, NaiveDateTime, SubsecRound};
use serde::{Deserialize, Serialize};

use super::{Cron, Zone};
use crate::definition::{ScheduleConfig, ScheduleType};
use crate::{Time, TimeDelta};

/// The longest interval, jitter and time-out, in seconds: a leap year.
const LONGEST: u64 = 366 * 86_400;
/// How a local time may be written.
const LOCAL: [&str; 4] = [
    "%Y-%m-%dT%H:%M:%S",
    "%Y-%m-%d %H:%M:%S",
    "%Y-%m-%dT%H:%M",
    "%Y-%m-%d %H:%M",
];

/// What makes a schedule fire.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Trigger {
    /// By the calendar of a zone.
    Cron {
        /// When.
        cron: Cron,
        /// Where.
        timezone: Zone,
    },
    /// Every so many seconds, counted from a moment.
    Interval {
        /// How many.
        seconds: u64,
        /// From when; itself no fire time.
        anchor: Time,
    },
    /// Once.
    Once {
        /// When.
        at: Time,
        /// The zone in which it is shown.
        timezone: Zone,
    },
}

/// Something wrong with a schedule's configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flaw {
    /// Which field.
    pub field: &'static str,
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub hint: String,
}

impl Flaw {
    /// Something wrong with a field.
    pub fn new(field: &'static str, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self {
            field,
            message: message.into(),
            hint: hint.into(),
        }
    }
}

impl Trigger {
    /// What a configuration says; `anchor` is where intervals are counted from.
    ///
    /// # Errors
    /// Everything that is wrong with the configuration, the fields that are not about time included.
    pub fn from_config(config: &ScheduleConfig, anchor: Time) -> Result<Self, Vec<Flaw>> {
        let mut flaws = Vec::new();
        check_numbers(config, &mut flaws);
        check_strangers(config, &mut flaws);
        let zone = match &config.timezone {
            None => Zone::UTC,
            Some(name) => name
                .parse()
                .unwrap_or_else(|error: super::zone::UnknownZone| {
                    let name: String = name.chars().take(80).collect();
                    flaws.push(Flaw::new(
                        "timezone",
                        format!("there is no time zone {name:?}"),
                        error.hint,
                    ));
                    Zone::UTC
                }),
        };
        let trigger = match config.kind {
            ScheduleType::Cron => cron(config, zone),
            ScheduleType::Interval => interval(config, anchor),
            ScheduleType::Once => once(config, zone),
        };
        match trigger {
            Ok(trigger) if flaws.is_empty() => Ok(trigger),
            Ok(_) => Err(flaws),
            Err(flaw) => {
                flaws.insert(0, flaw);
                Err(flaws)
            }
        }
    }

    /// The first fire time after a moment.
    pub fn next_after(&self, after: Time) -> Option<Time> {
        match self {
            Self::Cron { cron, timezone } => cron.next_after(after, timezone.tz()),
            Self::Interval { seconds, anchor } => next_of_interval(*seconds, *anchor, after),
            Self::Once { at, .. } => (*at > after).then_some(*at),
        }
    }

    /// The same, counted from where `before` counts when both are the same interval: a change of anything else does not
    /// shift it.
    #[must_use]
    pub fn counted_as(self, before: &Self) -> Self {
        match (&self, before) {
            (Self::Interval { seconds, .. }, Self::Interval { seconds: same, .. })
                if seconds == same =>
            {
                before.clone()
            }
            _ => self,
        }
    }

    /// The zone of its calendar.
    pub const fn zone(&self) -> Zone {
        match self {
            Self::Cron { timezone, .. } | Self::Once { timezone, .. } => *timezone,
            Self::Interval { .. } => Zone::UTC,
        }
    }
}

fn next_of_interval(seconds: u64, anchor: Time, after: Time) -> Option<Time> {
    let step = i64::try_from(seconds).ok()?.checked_mul(1_000_000)?;
    let passed = after
        .timestamp_micros()
        .checked_sub(anchor.timestamp_micros())?;
    let count = passed.checked_div_euclid(step)?.max(0).checked_add(1)?;
    anchor.checked_add_signed(TimeDelta::microseconds(count.checked_mul(step)?))
}

fn cron(config: &ScheduleConfig, timezone: Zone) -> Result<Trigger, Flaw> {
    let Some(text) = &config.cron else {
        return Err(Flaw::new(
            "cron",
            "it is missing",
            "write cron: \"0 6 * * *\" for every day at six",
        ));
    };
    match text.parse::<Cron>() {
        Ok(cron) => Ok(Trigger::Cron { cron, timezone }),
        Err(error) => Err(Flaw::new("cron", error.message, error.hint)),
    }
}

fn interval(config: &ScheduleConfig, anchor: Time) -> Result<Trigger, Flaw> {
    match config.interval_seconds {
        None => Err(Flaw::new(
            "interval_seconds",
            "it is missing",
            "write interval_seconds: 300 for every five minutes",
        )),
        Some(seconds @ 1..=LONGEST) => Ok(Trigger::Interval {
            seconds,
            anchor: whole(anchor),
        }),
        Some(other) => Err(Flaw::new(
            "interval_seconds",
            format!("{other} is out of range"),
            format!("it is 1 to {LONGEST} (a year)"),
        )),
    }
}

fn once(config: &ScheduleConfig, timezone: Zone) -> Result<Trigger, Flaw> {
    let hint = "write at: 2026-12-24T18:00:00 in the schedule's time zone, or with a difference to UTC, such as 2026-12-24T18:00:00+01:00";
    let Some(text) = &config.at else {
        return Err(Flaw::new("at", "it is missing", hint));
    };
    let text = text.trim();
    let at = DateTime::parse_from_rfc3339(text)
        .map(|time| time.to_utc())
        .ok()
        .or_else(|| {
            let local = LOCAL
                .iter()
                .find_map(|format| NaiveDateTime::parse_from_str(text, format).ok())?;
            timezone.moment(local)
        });
    match at {
        Some(at) => Ok(Trigger::Once {
            at: whole(at),
            timezone,
        }),
        None => {
            let shown: String = text.chars().take(80).collect();
            Err(Flaw::new("at", format!("{shown:?} is not a time"), hint))
        }
    }
}

/// In whole microseconds, as stores keep times: a fire time that reads back as another would come twice.
fn whole(time: Time) -> Time {
    time.trunc_subsecs(6)
}

fn check_numbers(config: &ScheduleConfig, flaws: &mut Vec<Flaw>) {
    if config.timeout_seconds == 0 || config.timeout_seconds > LONGEST {
        flaws.push(Flaw::new(
            "timeout_seconds",
            format!("{} is out of range", config.timeout_seconds),
            format!("it is 1 to {LONGEST} (a year)"),
        ));
    }
    if config.jitter_seconds > 86_400 {
        flaws.push(Flaw::new(
            "jitter_seconds",
            format!("{} is out of range", config.jitter_seconds),
            "it is 0 to 86400 (a day), and never reaches into the next fire time",
        ));
    }
}

/// Fields that belong to another type of schedule were meant for something.
fn check_strangers(config: &ScheduleConfig, flaws: &mut Vec<Flaw>) {
    let given = [
        ("cron", config.cron.is_some(), ScheduleType::Cron),
        (
            "interval_seconds",
            config.interval_seconds.is_some(),
            ScheduleType::Interval,
        ),
        ("at", config.at.is_some(), ScheduleType::Once),
    ];
    for (field, is_given, kind) in given {
        if is_given && kind != config.kind {
            flaws.push(Flaw::new(
                field,
                format!("it has no meaning with type: {}", config.kind.as_str()),
                format!("remove it, or write type: {}", kind.as_str()),
            ));
        }
    }
}
