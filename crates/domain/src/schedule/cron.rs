//! Cron expressions, right across changes of the clock.
//!
//! The expression is read and searched by `croner`. Its rule for the two changes of the clock is extended here: a time
//! of day that is written out happens once on every day. When the clock skips it, it happens at the first moment after;
//! when the clock repeats it, at the first of the two. What is written with `*`, a step or a long list runs by the
//! clock as it is: what is skipped is skipped, what is repeated happens twice.

use std::fmt;
use std::str::FromStr;

use chrono_tz::Tz;
use croner::parser::{CronParser, Year};
use serde::{Deserialize, Serialize};

use crate::nearest::nearest;
use crate::{Time, TimeDelta};

/// The longest expression, in bytes.
const MAX_BYTES: usize = 200;
/// How many times of day may be written out, each to happen every day.
const MAX_WRITTEN_OUT: usize = 24;
/// For how many years an expression must fire at least once: 29 February on a given weekday takes 40.
const MAX_YEARS: i32 = 60;

const NICKNAMES: [(&str, &str); 7] = [
    ("@yearly", "0 0 1 1 *"),
    ("@annually", "0 0 1 1 *"),
    ("@monthly", "0 0 1 * *"),
    ("@weekly", "0 0 * * 0"),
    ("@daily", "0 0 * * *"),
    ("@midnight", "0 0 * * *"),
    ("@hourly", "0 * * * *"),
];

/// A cron expression that fires.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Cron {
    text: String,
    /// One for each time of day that is written out; else one.
    parts: Vec<croner::Cron>,
}

/// Why a text is no cron expression that can be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}; {hint}")]
pub struct InvalidCron {
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub hint: String,
}

impl InvalidCron {
    fn new(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            hint: hint.into(),
        }
    }
}

impl Cron {
    /// The expression as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The first fire time after a moment, in a zone.
    pub(super) fn next_after(&self, after: Time, zone: Tz) -> Option<Time> {
        self.parts
            .iter()
            .filter_map(|part| next_of(part, after, zone))
            .min()
    }
}

fn next_of(part: &croner::Cron, after: Time, zone: Tz) -> Option<Time> {
    let mut from = after;
    // An odd day of a zone, such as one that it left out, is stepped over.
    for _ in 0..3 {
        let local = from.with_timezone(&zone);
        if let Ok(found) = part.find_next_occurrence(&local, false) {
            let found = found.to_utc();
            return (found > after).then_some(found);
        }
        from = from.checked_add_signed(TimeDelta::days(1))?;
    }
    None
}

impl FromStr for Cron {
    type Err = InvalidCron;

    fn from_str(text: &str) -> Result<Self, InvalidCron> {
        let cron = Self::read(text)?;
        check_that_it_fires(&cron.text)?;
        Ok(cron)
    }
}

impl Cron {
    /// Reads an expression that may never fire.
    fn read(text: &str) -> Result<Self, InvalidCron> {
        let text = text.trim();
        if text.len() > MAX_BYTES {
            let message = format!("the expression has {} bytes", text.len());
            return Err(InvalidCron::new(
                message,
                format!("at most {MAX_BYTES} are taken"),
            ));
        }
        let [second, minute, hour, day, month, weekday] = fields(text)?;
        let whole = parse(
            text,
            &format!("{second} {minute} {hour} {day} {month} {weekday}"),
        )?;
        let times = written_out([second, minute, hour], &whole);
        let parts = times
            .into_iter()
            .map(|[s, m, h]| parse(text, &format!("{s} {m} {h} {day} {month} {weekday}")))
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Self {
            text: text.to_owned(),
            parts: if parts.is_empty() { vec![whole] } else { parts },
        })
    }
}

/// The six fields, seconds first.
fn fields(text: &str) -> Result<[&str; 6], InvalidCron> {
    let plain = without_nickname(text)?;
    let fields: Vec<&str> = plain.split_whitespace().collect();
    match *fields.as_slice() {
        [minute, hour, day, month, weekday] => Ok(["0", minute, hour, day, month, weekday]),
        [second, minute, hour, day, month, weekday] => {
            Ok([second, minute, hour, day, month, weekday])
        }
        _ => {
            let message = format!("the expression {text:?} has {} fields", fields.len());
            let hint =
                "write 5 (minute hour day month weekday), 6 with seconds first, or @daily and kin";
            Err(InvalidCron::new(message, hint))
        }
    }
}

fn without_nickname(text: &str) -> Result<&str, InvalidCron> {
    if !text.starts_with('@') {
        return Ok(text);
    }
    let lower = text.to_lowercase();
    if let Some((_, plain)) = NICKNAMES.iter().find(|(name, _)| *name == lower) {
        return Ok(plain);
    }
    let names = NICKNAMES.map(|(name, _)| name);
    let hint = nearest(text, names).map_or_else(
        || format!("there are {}", names.join(", ")),
        |name| format!("did you mean {name}?"),
    );
    Err(InvalidCron::new(
        format!("there is no nickname {text:?}"),
        hint,
    ))
}

fn parse(text: &str, fields: &str) -> Result<croner::Cron, InvalidCron> {
    CronParser::new().parse(fields).map_err(|error| {
        InvalidCron::new(
            format!("the expression {text:?} can't be understood: {}", words(&error)),
            "each field is *, a number, a list 1,2, a range 1-5 or a step */5; months and weekdays may be named (JAN, MON)",
        )
    })
}

/// What the library says, without its names for things.
fn words(error: &croner::errors::CronError) -> String {
    let text = error.to_string();
    let text = text
        .rsplit_once(": ")
        .map_or(text.as_str(), |(_, rest)| rest);
    text.trim_start_matches("CronPattern ")
        .trim_end_matches('.')
        .to_owned()
}

/// Refuses what never happens, such as 30 February.
fn check_that_it_fires(text: &str) -> Result<(), InvalidCron> {
    // The years are bounded, so that the search ends soon. Any year to begin with serves: the calendar repeats.
    let (first, last) = (2000, 2000 + MAX_YEARS);
    let fields = format!("{} {first}-{last}", fields(text)?.join(" "));
    let bounded = CronParser::builder()
        .year(Year::Required)
        .build()
        .parse(&fields);
    let start = Time::from_timestamp(946_684_799, 0).unwrap_or_default();
    let fires = bounded.is_ok_and(|cron| cron.find_next_occurrence(&start, false).is_ok());
    if fires {
        return Ok(());
    }
    Err(InvalidCron::new(
        format!("the expression {text:?} never fires: there is no such day"),
        "check day of month and month; 30 February does not come",
    ))
}

/// The times of day, when they are written out and few.
fn written_out(fields: [&str; 3], whole: &croner::Cron) -> Vec<[u16; 3]> {
    if fields.iter().any(|field| field.contains(['*', '/', '?'])) {
        return Vec::new();
    }
    let pattern = &whole.pattern;
    let (seconds, minutes, hours) = (
        pattern.seconds.values(),
        pattern.minutes.values(),
        pattern.hours.values(),
    );
    if seconds.len() * minutes.len() * hours.len() > MAX_WRITTEN_OUT {
        return Vec::new();
    }
    let mut times = Vec::new();
    for hour in &hours {
        for minute in &minutes {
            times.extend(seconds.iter().map(|second| [*second, *minute, *hour]));
        }
    }
    times
}

impl fmt::Display for Cron {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// As it was kept: that it fires was found out when it came, and would be searched for again at each look.
impl TryFrom<String> for Cron {
    type Error = InvalidCron;
    fn try_from(text: String) -> Result<Self, InvalidCron> {
        Self::read(&text)
    }
}

impl From<Cron> for String {
    fn from(cron: Cron) -> Self {
        cron.text
    }
}
