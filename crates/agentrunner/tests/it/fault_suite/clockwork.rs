//! The schedules that start tickers, by two schedulers: what they say, who makes and stops them, and when each is due by
//! a reckoning of its own.

use std::time::{Duration, Instant};

use domain::{Time, TimeDelta};
use serde_json::{Value, json};
use store::{RunState, Store};

use super::agents::Kind;
use super::load::Load;
use super::role::Door;

/// How long the schedulers may take to be where the time is, and to begin what waits, once everything is well.
const PATIENCE: Duration = Duration::from_secs(120);
const GLANCE: Duration = Duration::from_millis(200);
/// At most so many runs wait for one another.
const LATEST: usize = 1000;

/// When a schedule is due, in whole seconds.
#[derive(Debug, Clone, Copy)]
enum When {
    /// So often, from when it was made.
    Every(i64),
    /// When the second of the minute can be divided by this.
    Seconds(i64),
}

/// A schedule of the suite. Where runs overlap, none is left out: each due time is a run, or was missed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clockwork {
    pub(super) name: &'static str,
    when: When,
    pub(super) misfire: &'static str,
    pub(super) overlap: &'static str,
}

/// All of them. The first is in the ticker's file, the others are made through the API.
pub(super) static SCHEDULES: [Clockwork; 3] = [
    Clockwork {
        name: "ticker",
        when: When::Every(4),
        misfire: "skip",
        overlap: "queue",
    },
    Clockwork {
        name: "tick-all",
        when: When::Every(6),
        misfire: "all",
        overlap: "queue",
    },
    Clockwork {
        name: "tick-once",
        when: When::Seconds(5),
        misfire: "once",
        overlap: "cancel",
    },
];

/// The same for a test that has little time: only the one in the file is as slow.
pub(super) static QUICK: [Clockwork; 3] = [
    Clockwork {
        when: When::Every(4),
        ..SCHEDULES[0]
    },
    Clockwork {
        when: When::Every(2),
        ..SCHEDULES[1]
    },
    Clockwork {
        when: When::Seconds(2),
        ..SCHEDULES[2]
    },
];

impl Clockwork {
    /// The time between two of its due times.
    pub(super) fn pause(&self) -> TimeDelta {
        let (When::Every(seconds) | When::Seconds(seconds)) = self.when;
        TimeDelta::seconds(seconds)
    }

    /// How it is made through the API.
    pub(super) fn body(&self) -> Value {
        let mut body = json!({
            "name": self.name, "agent_name": Kind::Ticker.name(), "task_data": { "prompt": self.name },
            "misfire_policy": self.misfire, "overlap_policy": self.overlap,
        });
        match self.when {
            When::Every(seconds) => body["interval_seconds"] = seconds.into(),
            When::Seconds(seconds) => body["cron"] = format!("*/{seconds} * * * * *").into(),
        }
        body
    }

    /// Its due times after `made`, from which intervals are counted, up to and with `last`.
    pub(super) fn due(&self, made: Time, last: Time) -> Vec<Time> {
        let first = match self.when {
            When::Every(seconds) => made + TimeDelta::seconds(seconds),
            When::Seconds(seconds) => {
                let next = (made.timestamp().div_euclid(seconds) + 1) * seconds;
                Time::from_timestamp(next, 0).expect("a time of this century")
            }
        };
        std::iter::successors(Some(first), |due| Some(*due + self.pause()))
            .take_while(|due| *due <= last)
            .collect()
    }

    /// Whether everything that was due by then is acted on, and none of its runs waits for another.
    pub(super) async fn is_up_to(&self, now: Time, store: &dyn Store) -> bool {
        let name = self.name.parse().unwrap();
        let Some(row) = store.schedule(&name).await.unwrap() else {
            return false;
        };
        row.record.cursor + self.pause() > now && !self.waits(store).await
    }

    /// Whether a run waits for the one before it.
    pub(super) async fn waits(&self, store: &dyn Store) -> bool {
        let name = self.name.parse().unwrap();
        let (runs, _) = store.schedule_runs(&name, None, LATEST).await.unwrap();
        runs.iter().any(|run| run.state == RunState::Waiting)
    }
}

/// The one in the ticker's file.
pub(super) fn own_schedule() -> String {
    let Clockwork {
        name,
        misfire,
        overlap,
        ..
    } = SCHEDULES[0];
    let seconds = SCHEDULES[0].pause().num_seconds();
    format!(
        "schedule_config: {{ type: interval, interval_seconds: {seconds}, misfire_policy: {misfire}, \
         overlap_policy: {overlap}, task_data: {{ prompt: {name} }} }}\n"
    )
}

/// Makes those that no file has, and waits for the one that a file has.
pub(super) async fn wind_up(load: &Load, client: &reqwest::Client) {
    for (n, one) in SCHEDULES.iter().enumerate().skip(1) {
        let body = one.body();
        load.insist(Door::Schedules, n, &[201], |url| {
            let request = client.post(format!("{url}/schedules")).json(&body);
            request.header("Idempotency-Key", one.name)
        })
        .await;
    }
    let own = SCHEDULES[0].name;
    for n in 0.. {
        let (status, _) = load
            .insist(Door::Schedules, n, &[200, 404], |url| {
                client.get(format!("{url}/schedules/{own}"))
            })
            .await;
        if status == 200 {
            return;
        }
        tokio::time::sleep(GLANCE).await;
    }
}

/// Waits until everything that has come due is acted on and has begun, then stops all of them: what waits when a
/// schedule is paused begins when it is resumed.
pub(super) async fn run_down(load: &Load, client: &reqwest::Client, store: &dyn Store) {
    let now = chrono::Utc::now();
    let began = Instant::now();
    for (n, one) in SCHEDULES.iter().enumerate() {
        loop {
            while !one.is_up_to(now, store).await && began.elapsed() < PATIENCE {
                tokio::time::sleep(GLANCE).await;
            }
            set_enabled(load, client, n, false).await;
            // One more may have come due meanwhile.
            if !one.waits(store).await || began.elapsed() > PATIENCE {
                break;
            }
            set_enabled(load, client, n, true).await;
        }
    }
}

async fn set_enabled(load: &Load, client: &reqwest::Client, n: usize, is_enabled: bool) {
    let path = format!("/schedules/{}/enabled", SCHEDULES[n].name);
    load.insist(Door::Schedules, n, &[200], |url| {
        let request = client.patch(format!("{url}{path}"));
        request.json(&json!({ "enabled": is_enabled }))
    })
    .await;
}
