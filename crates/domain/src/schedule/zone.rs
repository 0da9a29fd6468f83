//! IANA time zones by name.

use std::fmt;
use std::str::FromStr;

use chrono::{LocalResult, NaiveDateTime, TimeZone};
use chrono_tz::{TZ_VARIANTS, Tz};
use serde::{Deserialize, Serialize};

use crate::{Time, TimeDelta};

/// How many names are suggested for one that is not known.
const SUGGESTED: usize = 3;

/// A time zone of the IANA database, such as `Europe/Berlin`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Zone(Tz);

impl Zone {
    /// Coordinated universal time.
    pub const UTC: Self = Self(Tz::UTC);

    /// The zone inside.
    pub(super) const fn tz(self) -> Tz {
        self.0
    }

    /// A moment as the clocks of the zone show it, with the difference to UTC: `2026-03-29T03:00:00+02:00`.
    pub fn local(self, time: Time) -> String {
        time.with_timezone(&self.0).to_rfc3339()
    }

    /// The moment at which the clocks of the zone show `local`: the first of the two when they show it twice, the
    /// first after it when they leave it out.
    pub fn moment(self, local: NaiveDateTime) -> Option<Time> {
        let mut local = local;
        // No zone leaves out more than a day.
        for _ in 0..=24 * 60 {
            match self.0.from_local_datetime(&local) {
                LocalResult::Single(time) | LocalResult::Ambiguous(time, _) => {
                    return Some(time.to_utc());
                }
                LocalResult::None => {
                    let minute = TimeDelta::minutes(1);
                    let seconds = TimeDelta::seconds(i64::from(chrono::Timelike::second(&local)));
                    local = local
                        .checked_add_signed(minute)?
                        .checked_sub_signed(seconds)?;
                }
            }
        }
        None
    }
}

/// Why a text is not the name of a zone.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no time zone {name:?}; {hint}")]
pub struct UnknownZone {
    name: String,
    /// Which was probably meant.
    pub hint: String,
}

impl FromStr for Zone {
    type Err = UnknownZone;

    fn from_str(name: &str) -> Result<Self, UnknownZone> {
        if let Ok(zone) = name.parse() {
            return Ok(Self(zone));
        }
        let name: String = name.chars().take(80).collect();
        let near = nearest(&name);
        let hint = if near.is_empty() {
            "write an IANA name such as Europe/Berlin, America/New_York or UTC".to_owned()
        } else {
            format!("did you mean {}?", near.join(" or "))
        };
        Err(UnknownZone { name, hint })
    }
}

/// Known names that are close, the closest first. The last part alone (`Berlin`) is close enough.
fn nearest(given: &str) -> Vec<&'static str> {
    let given = given.to_lowercase();
    let mut near: Vec<(f64, &'static str)> = TZ_VARIANTS
        .iter()
        .map(|zone| {
            let name = zone.name();
            let lower = name.to_lowercase();
            let last = lower.rsplit('/').next().unwrap_or_default();
            let likeness = strsim::normalized_damerau_levenshtein(&given, &lower)
                .max(strsim::normalized_damerau_levenshtein(&given, last) * 0.95);
            (likeness, name)
        })
        .filter(|(likeness, _)| *likeness >= 0.75)
        .collect();
    near.sort_by(|a, b| b.0.total_cmp(&a.0));
    near.into_iter()
        .take(SUGGESTED)
        .map(|(_, name)| name)
        .collect()
}

impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.name())
    }
}

impl TryFrom<String> for Zone {
    type Error = UnknownZone;
    fn try_from(name: String) -> Result<Self, UnknownZone> {
        name.parse()
    }
}

impl From<Zone> for String {
    fn from(zone: Zone) -> Self {
        zone.to_string()
    }
}
