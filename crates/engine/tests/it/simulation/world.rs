//! The simulated world: one clock, one source of chance, one database, one broker, and a book of what happened.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::hash::{DefaultHasher, Hasher};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bus::InProcess;
use domain::{EventId, Time};
use tokio::time::Instant;
use uuid::Uuid;

use super::lots::Lots;
use super::plant::Plant;
use super::tables::Tables;
use super::watchman::Watchman;

/// What everything in one simulation shares. One thread only: the locks are never waited for.
pub(crate) struct World {
    began: Instant,
    lots: Mutex<Lots>,
    tables: Mutex<Tables>,
    watchman: Mutex<Watchman>,
    book: Mutex<Book>,
    weather: Mutex<Weather>,
    pub(crate) broker: InProcess,
    /// Completion events that came to whoever subscribes.
    heard: Mutex<BTreeSet<EventId>>,
}

/// How bad things are now.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Weather {
    /// Whether anything goes wrong by chance.
    pub(crate) is_rough: bool,
    /// Since when all is well.
    pub(crate) calm_since: Option<Instant>,
    /// Until when the database is away for all.
    pub(crate) database_away_until: Option<Instant>,
}

/// A rule of the guarantees that was broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Violation {
    /// As docs/architecture.md numbers them.
    pub(crate) rule: &'static str,
    pub(crate) text: String,
}

/// What happened, line by line: as a hash to compare runs by, and as text when somebody wants to read it.
struct Book {
    hash: DefaultHasher,
    lines: Option<Vec<String>>,
    violations: Vec<Violation>,
    counts: Counts,
}

/// How often what happened.
pub(crate) type Counts = BTreeMap<&'static str, u64>;

/// What came of a simulation.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) seed: u64,
    /// Of everything that happened, in order.
    pub(crate) hash: u64,
    pub(crate) violations: Vec<Violation>,
    pub(crate) counts: Counts,
    pub(crate) lines: Vec<String>,
}

impl World {
    pub(crate) fn new(seed: u64, plant: Plant, is_told: bool) -> Arc<Self> {
        let mut tables = Tables::default();
        tables.plant = plant;
        Arc::new(Self {
            began: Instant::now(),
            lots: Mutex::new(Lots::new(seed)),
            tables: Mutex::new(tables),
            watchman: Mutex::default(),
            book: Mutex::new(Book {
                // Without keys: the same in every process.
                hash: DefaultHasher::new(),
                lines: is_told.then(Vec::new),
                violations: Vec::new(),
                counts: Counts::new(),
            }),
            weather: Mutex::new(Weather {
                is_rough: true,
                calm_since: None,
                database_away_until: None,
            }),
            broker: InProcess::default(),
            heard: Mutex::default(),
        })
    }

    /// The time by the best clock there is.
    pub(crate) fn now(&self) -> Time {
        Time::from_timestamp(1_800_000_000, 0).unwrap() + self.began.elapsed()
    }

    /// A UUID of version 7, as the engine would make one.
    pub(crate) fn new_id(&self) -> Uuid {
        let millis = u64::try_from(self.now().timestamp_millis()).unwrap();
        let mut random = [0; 10];
        let bytes = {
            let mut lots = self.lots();
            [lots.draw(), lots.draw()].map(u64::to_be_bytes)
        };
        random.copy_from_slice(&bytes.concat()[..10]);
        uuid::Builder::from_unix_timestamp_millis(millis, &random).into_uuid()
    }

    pub(crate) fn lots(&self) -> MutexGuard<'_, Lots> {
        self.lots.lock().unwrap()
    }

    pub(crate) fn tables(&self) -> MutexGuard<'_, Tables> {
        self.tables.lock().unwrap()
    }

    pub(crate) fn watchman(&self) -> MutexGuard<'_, Watchman> {
        self.watchman.lock().unwrap()
    }

    pub(crate) fn weather(&self) -> MutexGuard<'_, Weather> {
        self.weather.lock().unwrap()
    }

    pub(crate) fn heard(&self) -> MutexGuard<'_, BTreeSet<EventId>> {
        self.heard.lock().unwrap()
    }

    /// Whether all has been well for so long that what went wrong before is over.
    pub(crate) fn is_calm(&self) -> bool {
        let since = self.weather().calm_since;
        since.is_some_and(|since| since.elapsed() > Duration::from_secs(30))
    }

    /// From here on nothing goes wrong.
    pub(crate) fn calm_down(&self) {
        self.note(format_args!("all is well from here on"));
        let mut weather = self.weather();
        weather.is_rough = false;
        weather.calm_since = Some(Instant::now());
    }

    /// Whether something goes wrong now that goes wrong in so many of a thousand cases in rough weather.
    pub(crate) fn goes_wrong(&self, permille: u64) -> bool {
        // Drawn in any weather, so that a calm end changes no lot.
        let drawn = self.lots().permille(permille);
        drawn && self.weather().is_rough
    }

    /// How long a message takes: mostly little, in rough weather sometimes seconds.
    pub(crate) fn latency(&self) -> Duration {
        if self.goes_wrong(15) {
            self.lots().millis(500, 6000)
        } else {
            self.lots().millis(1, 8)
        }
    }

    /// Writes down what happened.
    pub(crate) fn note(&self, what: fmt::Arguments<'_>) {
        let line = format!("{:9.3} {what}", self.began.elapsed().as_secs_f64());
        let mut book = self.book.lock().unwrap();
        book.hash.write(line.as_bytes());
        if let Some(lines) = &mut book.lines {
            lines.push(line);
        }
    }

    /// Writes down that a rule was broken.
    pub(crate) fn violated(&self, rule: &'static str, text: String) {
        self.note(format_args!("VIOLATED {rule}: {text}"));
        self.book
            .lock()
            .unwrap()
            .violations
            .push(Violation { rule, text });
    }

    /// Counts something, for the summary.
    pub(crate) fn count(&self, what: &'static str) {
        *self.book.lock().unwrap().counts.entry(what).or_default() += 1;
    }

    pub(crate) fn has_violations(&self) -> bool {
        !self.book.lock().unwrap().violations.is_empty()
    }

    pub(crate) fn report(&self, seed: u64) -> Report {
        let mut book = self.book.lock().unwrap();
        Report {
            seed,
            hash: book.hash.finish(),
            violations: std::mem::take(&mut book.violations),
            counts: std::mem::take(&mut book.counts),
            lines: book.lines.take().unwrap_or_default(),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Violation { rule, text } in &self.violations {
            writeln!(f, "seed {} violated {rule}: {text}", self.seed)?;
        }
        write!(
            f,
            "replay: SEED={} cargo test -p agentrunner-engine --test it simulation_replay -- --nocapture",
            self.seed
        )
    }
}
