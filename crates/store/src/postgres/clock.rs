//! The time that all processes on one server share: the server's, kept going here between two looks at it.
//!
//! A lease ends at a moment that its owner writes and others compare. Were each to look at its own host's clock, one
//! that is a minute ahead would take every live lease away. So whoever hands times to this store takes them from here.
//! The host's wall clock is not looked at at all: set it forth or back, and nothing happens.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use chrono::TimeDelta;
use domain::Time;

use super::connection::Conn;
use super::fault::{Outcome, internal};
use super::pool::Pool;
use super::sql::get;

/// How often the server is asked. What may part the two in the meantime is a host that slept, or another server in the
/// place of the first.
const PERIOD: Duration = Duration::from_secs(1);
/// From how much on a correction is worth a line in the log.
const NOTABLE: TimeDelta = TimeDelta::seconds(1);

/// A clock that goes as the server's does. Cheap to clone; all clones are one.
#[derive(Debug, Clone)]
pub struct ServerClock {
    hands: Arc<Mutex<Hands>>,
}

/// What the time was at one instant of the counter that nobody can set.
#[derive(Debug, Clone, Copy)]
struct Hands {
    time: Time,
    at: Instant,
}

/// What the server said, and between which instants it said it.
#[derive(Debug, Clone, Copy)]
struct Look {
    asked: Instant,
    said: Time,
    heard: Instant,
}

impl ServerClock {
    /// Sets it by the server's.
    pub(super) async fn by(conn: &mut Conn) -> Outcome<Self> {
        let look = Look::at(conn).await?;
        // In the middle of what it can be.
        let time = look.said + half(look.heard - look.asked);
        Ok(Self {
            hands: Arc::new(Mutex::new(Hands {
                time,
                at: look.heard,
            })),
        })
    }

    /// The time.
    pub fn now(&self) -> Time {
        self.hands().at(Instant::now())
    }

    /// Looks at the server's again and again, for as long as it is polled.
    pub(super) async fn follow(self, pool: Pool) {
        loop {
            tokio::time::sleep(PERIOD).await;
            let look = async { Look::at(&mut *pool.get().await?).await };
            // Without a server nothing can be claimed either.
            if let Ok(look) = look.await {
                self.correct(look);
            }
        }
    }

    /// Sets it when it is certainly wrong, by as little as makes it possibly right: an answer that took long proves
    /// little.
    fn correct(&self, look: Look) {
        let mut hands = self.hands.lock().unwrap_or_else(PoisonError::into_inner);
        let now = hands.at(look.heard);
        let (earliest, latest) = (look.said, look.said + (look.heard - look.asked));
        let time = now.clamp(earliest, latest);
        let off = time - now;
        if off.abs() >= NOTABLE {
            tracing::warn!(
                seconds = off.num_seconds(),
                "the database server's clock went another way than this process's; it is followed"
            );
        }
        *hands = Hands {
            time,
            at: look.heard,
        };
    }

    fn hands(&self) -> Hands {
        *self.hands.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Hands {
    fn at(&self, instant: Instant) -> Time {
        // A look that was begun before another one ended is a little older than it.
        self.time + instant.saturating_duration_since(self.at)
    }
}

impl Look {
    async fn at(conn: &mut Conn) -> Outcome<Self> {
        let asked = Instant::now();
        let row = conn.first("SELECT clock_timestamp()", &[]).await?;
        let heard = Instant::now();
        let row = row.ok_or_else(|| internal("the server does not tell the time"))?;
        Ok(Self {
            asked,
            said: get(&row, 0)?,
            heard,
        })
    }
}

fn half(duration: Duration) -> Duration {
    duration / 2
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRIP: Duration = Duration::from_millis(40);

    fn clock(time: Time, at: Instant) -> ServerClock {
        let hands = Arc::new(Mutex::new(Hands { time, at }));
        ServerClock { hands }
    }

    /// What the server said an hour after `start`, when its clock was `ahead`.
    fn look(start: (Time, Instant), ahead: TimeDelta) -> Look {
        let asked = start.1 + Duration::from_secs(3600);
        Look {
            asked,
            said: start.0 + TimeDelta::hours(1) + ahead,
            heard: asked + TRIP,
        }
    }

    #[test]
    fn it_follows_the_server_and_only_as_far_as_an_answer_proves() {
        let start = ("2026-11-24T09:30:00Z".parse().unwrap(), Instant::now());
        let trip = TimeDelta::from_std(TRIP).unwrap();
        // How far the server's clock was ahead when it was asked, and by how much this one is set, in milliseconds.
        for (ahead, set) in [
            // It may have said so just before the answer came.
            (0, 0),
            (40, 0),
            // It can't.
            (-30, -30),
            (60_000, 60_000 - 40),
            (-60_000, -60_000),
        ] {
            let clock = clock(start.0, start.1);
            let look = look(start, TimeDelta::milliseconds(ahead));
            clock.correct(look);
            let shown = clock.hands().at(look.heard);
            let expected = start.0 + TimeDelta::hours(1) + trip + TimeDelta::milliseconds(set);
            assert_eq!(shown, expected, "{ahead}");
        }
    }
}
