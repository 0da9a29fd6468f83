//! Every service and every pool as three processes, as `docker compose up --scale` runs them, under load; one process of
//! each kind is killed. Nothing may be lost or done twice, and the pools' figures must show that all had work.
//! `docs/fault-suite.md` says how to run it for longer.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::chaos::Chaos;
use super::dice::Dice;
use super::load::{Load, Manners, Order};
use super::role::{Door, Role};
use super::schedule::{Fault, Planned, Size};
use super::stage::{Run, Stage};
use super::table::Table;
use super::visitors::Visitors;
use super::world::World;
use super::{SHORT, agents::Kind, seed};

/// How many processes each part has.
const EACH: usize = 3;
/// How many there are.
const ALL: usize = EACH * Role::PARTS.len();
/// How long the registry may take to forget who was killed, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(90);
/// Between two looks at the pools.
const GLANCE: Duration = Duration::from_millis(200);

/// What fits 24 processes on one PostgreSQL, and shows within seconds who is gone.
const VARIABLES: [(&str, &str); 4] = [
    ("DB_POOL_SIZE", "4"),
    ("DB_MAX_OVERFLOW", "2"),
    // So few that one process can't have all of the work.
    ("AGENT_CAPACITY", "4"),
    ("AGENT_HEALTH_CHECK_INTERVAL", "6"),
];

/// `make test`.
const BRIEF: Size = Size {
    executions: 60,
    length: Duration::from_secs(8),
    processes: ALL,
    process_kills: Role::PARTS.len(),
    ..SHORT
};

/// `make scaled`.
const LONG: Size = Size {
    executions: 700,
    length: Duration::from_secs(120),
    process_kills: 6 * Role::PARTS.len(),
    ..BRIEF
};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn each_part_is_three_processes_and_one_of_each_kind_is_killed() {
    run(BRIEF).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "takes minutes: make scaled"]
async fn each_part_is_three_processes_and_all_kinds_are_killed_again_and_again() {
    run(LONG).await;
}

async fn run(size: Size) {
    let seed = seed();
    println!("scaled: FAULT_SEED={seed} repeats this schedule");
    let mut dice = Dice::new(seed);
    let plan = kills(&size, &mut dice);
    let orders = Load::orders(&size, &mut dice);
    let roles: Vec<Role> = Role::PARTS
        .into_iter()
        .flat_map(|role| [role; EACH])
        .collect();
    let stage = Stage::open(&roles, size.lease, Manners::WhenInDoubt, &VARIABLES).await;
    let spread = Spread::new(stage.world.clone());
    let chaos = Chaos::new(stage.world.clone());
    let visitors = Visitors::new(stage.world.clone(), stage.load.clone());
    let looking = tokio::spawn(spread.clone().look());
    let work = async {
        tokio::join!(chaos.run(&plan), stage.load.hand_in(by_slack_too(orders)));
        visitors.close();
    };
    tokio::join!(work, visitors.come_and_go());
    spread.until_shown(&stage.load).await;
    looking.abort();

    let mut figures = spread.figures();
    figures.extend(visitors.figures());
    let table = stage
        .close(Run {
            title: "scaled",
            seed,
            done: chaos.done(),
            skipped: Vec::new(),
            is_orderly: false,
            figures,
        })
        .await;
    verdict(&table, &size);
}

fn verdict(table: &Table, size: &Size) {
    assert!(table.is_clean(), "{}", table.text());
    assert_eq!(table.kills(), size.process_kills, "{}", table.text());
    for role in Role::PARTS {
        let name = format!("kill -9: {}", role.name());
        assert!(table.done.contains_key(&name), "{}", table.text());
    }
    let least = size.executions;
    assert!(table.findings.executions() >= least, "{}", table.text());
}

/// One process of each kind after the other, evenly over the time, and each time another.
fn kills(size: &Size, dice: &mut Dice) -> Vec<Planned> {
    let mut dice = dice.fork();
    let count = u32::try_from(size.process_kills).expect("few");
    (0..count)
        .map(|n| {
            let kind = n as usize % Role::PARTS.len();
            Planned {
                at: size.length * (n + 1) / (count + 1),
                fault: Fault::Kill {
                    process: kind * EACH + dice.below(EACH),
                    down: dice.millis(0, 1500),
                },
            }
        })
        .collect()
}

/// Half of what events start happens in Slack.
pub(super) fn by_slack_too(orders: Vec<Order>) -> Vec<Order> {
    let (mut events, mut all) = (0, Vec::new());
    for order in orders {
        let is_event = order.kind == Kind::Listener;
        events += usize::from(is_event);
        all.push(match is_event && events % 2 == 0 {
            true => order.by_slack(),
            false => order,
        });
    }
    all
}

/// What `/metrics/pool-stats` shows of each pool.
#[derive(Debug, Clone, Default)]
struct Shown {
    /// Workers that had something to do, or had done something.
    at_work: HashSet<String>,
    /// How many lived, as it was last shown, and how many there were room for.
    alive: usize,
    capacity: u64,
    /// The most that they performed at once.
    most: u64,
}

/// Looks at the pools as an operator does.
struct Spread {
    world: Arc<World>,
    pools: Mutex<BTreeMap<&'static str, Shown>>,
}

impl Spread {
    fn new(world: Arc<World>) -> Arc<Self> {
        let pools = Role::PARTS.into_iter().filter_map(Role::pool);
        let pools = pools.map(|pool| (pool, Shown::default())).collect();
        Arc::new(Self {
            world,
            pools: Mutex::new(pools),
        })
    }

    /// Looks again and again.
    async fn look(self: Arc<Self>) {
        for n in 0.. {
            if let Some(url) = self.world.any_url(Door::Tasks, n)
                && let Ok(answer) = self
                    .world
                    .client
                    .get(format!("{url}/metrics/pool-stats"))
                    .send()
                    .await
                && let Ok(Value::Array(shown)) = answer.json().await
            {
                shown.iter().for_each(|pool| self.note(pool));
            }
            tokio::time::sleep(GLANCE).await;
        }
    }

    fn note(&self, shown: &Value) {
        let mut pools = self.pools.lock().unwrap();
        let name = shown["pool"].as_str().unwrap_or_default();
        let Some(pool) = pools.get_mut(name) else {
            self.world
                .complain(format!("nobody started this pool: {shown}"));
            return;
        };
        let workers = shown["workers"].as_array().into_iter().flatten();
        let alive: Vec<&Value> = workers.filter(|w| w["status"] == "alive").collect();
        let active = |worker: &Value| worker["active"].as_u64().unwrap_or_default();
        let shares: f64 = alive.iter().filter_map(|w| w["load_share"].as_f64()).sum();
        let all: u64 = alive.iter().map(|worker| active(worker)).sum();
        if (shares - f64::from(u8::from(all > 0))).abs() > 1e-6 || shown["active"] != all {
            self.world
                .complain(format!("the shares of a pool do not add up: {shown}"));
        }
        for worker in &alive {
            if active(worker) > 0 || worker["finished"].as_u64() > Some(0) {
                let id = worker["id"].as_str().unwrap_or_default();
                pool.at_work.insert(id.to_owned());
            }
        }
        pool.alive = alive.len();
        pool.capacity = shown["capacity"].as_u64().unwrap_or_default();
        pool.most = pool.most.max(all);
    }

    /// Waits until each pool is shown with as many workers as it has processes, and as many were seen at work. While it
    /// is not, there is more to do.
    async fn until_shown(&self, load: &Arc<Load>) {
        let began = Instant::now();
        let is_shown = |pool: &Shown| pool.alive == EACH && pool.at_work.len() >= EACH;
        for n in 0.. {
            if self.pools.lock().unwrap().values().all(is_shown) {
                return;
            }
            if began.elapsed() > PATIENCE {
                let pools = self.pools.lock().unwrap().clone();
                self.world
                    .complain(format!("not what the pools are: {pools:?}"));
                return;
            }
            let more = |kind: Kind| {
                let name = format!("late-{n}-{}", kind.name());
                let order = Order::new(&name, kind);
                match kind.talks() {
                    true => order.said_in(&format!("room-of-{name}")),
                    false => order,
                }
            };
            let more = [Kind::Lead, Kind::Talker, Kind::Chronicler, Kind::Setter].map(more);
            load.hand_in(more.into()).await;
            tokio::time::sleep(GLANCE).await;
        }
    }

    fn figures(&self) -> Vec<(String, String)> {
        let pools = self.pools.lock().unwrap();
        let rows = pools.iter().flat_map(|(name, pool)| {
            [
                (format!("{name}: workers"), pool.alive.to_string()),
                ("  room for".to_owned(), pool.capacity.to_string()),
                (
                    "  at work at once, at most".to_owned(),
                    pool.most.to_string(),
                ),
                (
                    "  workers seen at work".to_owned(),
                    pool.at_work.len().to_string(),
                ),
            ]
        });
        rows.collect()
    }
}
