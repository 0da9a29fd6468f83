//! What breaks when: a list that follows from the seed alone.

use std::time::Duration;

use testkit::Weather;
use testkit::servers::Kind;

use super::dice::Dice;

/// How much of everything.
#[derive(Debug, Clone, Copy)]
pub(super) struct Size {
    /// How many executions are asked for; children and what events start are counted.
    pub(super) executions: usize,
    /// How long things break.
    pub(super) length: Duration,
    /// How long a lease lasts.
    pub(super) lease: Duration,
    /// How many processes of the product there are.
    pub(super) processes: usize,
    pub(super) process_kills: usize,
    pub(super) postgres_kills: usize,
    pub(super) rabbitmq_kills: usize,
    pub(super) redis_kills: usize,
    pub(super) freezes: usize,
    pub(super) storms: usize,
    pub(super) hints: usize,
    pub(super) full_disks: usize,
    pub(super) clocks: usize,
    /// How far a clock jumps, in seconds.
    pub(super) skew: i64,
}

impl Size {
    /// Longer than a lease: what a process does that saw no time pass is late then.
    fn past_the_lease(&self, dice: &mut Dice) -> Duration {
        let lease = u64::try_from(self.lease.as_millis()).expect("seconds");
        dice.millis(lease * 11 / 10, lease * 16 / 10)
    }
}

/// One thing that breaks, and how it is mended again.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Fault {
    /// SIGKILL to a process of the product; it is started again after a while.
    Kill { process: usize, down: Duration },
    /// SIGSTOP, and SIGCONT after the lease.
    Freeze { process: usize, length: Duration },
    /// SIGKILL to a server; it is started again after a while.
    KillServer { server: Kind, down: Duration },
    /// Bad weather between one process and one server.
    Storm {
        process: usize,
        server: Kind,
        weather: Weather,
        length: Duration,
    },
    /// Hints go astray.
    Hints(Astray),
    /// PostgreSQL's disk has no byte left.
    FullDisk { length: Duration },
    /// The clock of one process jumps, and back after a while.
    Clock {
        process: usize,
        seconds: i64,
        length: Duration,
    },
}

/// What happens to hints on their way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Astray {
    /// Some come twice.
    Doubled,
    /// Some come in the reverse order.
    Reordered,
    /// Some are taken by a stranger who does nothing with them.
    Stolen,
    /// Everything that waits in a queue is thrown away.
    Purged,
}

/// A fault and its moment.
#[derive(Debug, Clone, Copy)]
pub(super) struct Planned {
    pub(super) at: Duration,
    pub(super) fault: Fault,
}

/// Who may suffer only one fault at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Lane {
    Process(usize),
    Postgres,
    RabbitMq,
    Redis,
    Network(usize),
    Hints,
}

impl Fault {
    pub(super) const fn lane(&self) -> Lane {
        match self {
            Self::Kill { process, .. }
            | Self::Freeze { process, .. }
            | Self::Clock { process, .. } => Lane::Process(*process),
            Self::KillServer { server, .. } => match server {
                Kind::Postgres => Lane::Postgres,
                Kind::RabbitMq => Lane::RabbitMq,
                Kind::Redis => Lane::Redis,
            },
            Self::FullDisk { .. } => Lane::Postgres,
            Self::Storm { process, .. } => Lane::Network(*process),
            Self::Hints(_) => Lane::Hints,
        }
    }
}

/// Throws the moments, by the order of time.
pub(super) fn plan(size: &Size, dice: &mut Dice) -> Vec<Planned> {
    let mut planned = Vec::new();
    let mut throw = |count: usize, make: &dyn Fn(&mut Dice) -> Fault| {
        let mut dice = dice.fork();
        for n in 0..count {
            // One in each of `count` equal parts, at a random moment of it: so that none is all done at the start.
            let part = size.length / u32::try_from(count).expect("few");
            let begins = part * u32::try_from(n).expect("few");
            let within = u64::try_from(part.as_millis()).expect("minutes");
            planned.push(Planned {
                at: begins + dice.millis(0, within),
                fault: make(&mut dice),
            });
        }
    };
    let process = |dice: &mut Dice| dice.below(size.processes);
    throw(size.process_kills, &|dice| Fault::Kill {
        process: process(dice),
        down: dice.millis(0, 1500),
    });
    for (count, server, most) in [
        (size.postgres_kills, Kind::Postgres, 3000),
        (size.rabbitmq_kills, Kind::RabbitMq, 3000),
        (size.redis_kills, Kind::Redis, 3000),
    ] {
        throw(count, &|dice| Fault::KillServer {
            server,
            down: dice.millis(0, most),
        });
    }
    throw(size.freezes, &|dice| Fault::Freeze {
        process: process(dice),
        length: size.past_the_lease(dice),
    });
    throw(size.storms, &|dice| storm(size, process(dice), dice));
    throw(size.hints, &|dice| {
        Fault::Hints(dice.pick(&[
            Astray::Doubled,
            Astray::Reordered,
            Astray::Stolen,
            Astray::Purged,
        ]))
    });
    throw(size.full_disks, &|dice| Fault::FullDisk {
        length: dice.millis(1000, 5000),
    });
    throw(size.clocks, &|dice| Fault::Clock {
        process: process(dice),
        seconds: dice.pick(&[size.skew, -size.skew]),
        length: dice.millis(5000, 15_000),
    });
    planned.sort_by_key(|planned| planned.at);
    planned
}

fn storm(size: &Size, process: usize, dice: &mut Dice) -> Fault {
    let server = dice.pick(&[Kind::Postgres, Kind::Postgres, Kind::RabbitMq, Kind::Redis]);
    let (weather, length) = match dice.below(5) {
        0 => (
            Weather::Slow(dice.millis(20, 300)),
            dice.millis(2000, 10_000),
        ),
        1 => (Weather::Reset, dice.millis(100, 4000)),
        2 => (
            Weather::CutAfter(200 + dice.next() % 20_000),
            dice.millis(1000, 5000),
        ),
        3 => (Weather::BlackHole, dice.millis(500, 6000)),
        _ => (Weather::BlackHole, size.past_the_lease(dice)),
    };
    Fault::Storm {
        process,
        server,
        weather,
        length,
    }
}
