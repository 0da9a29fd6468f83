//! The fault suite: the real processes on real servers, under load, while anything may die, freeze, be cut off or lie
//! about the time; and an audit of what is left. `docs/fault-suite.md` says how to run it and how to read its table.

mod agents;
mod audit;
mod chaos;
mod clockwork;
mod dice;
mod disk;
mod hints;
mod load;
mod model;
mod moments;
mod process;
mod role;
mod scaled;
mod schedule;
mod slack;
mod stage;
mod table;
mod update;
mod visitors;
mod world;

use std::time::{Duration, UNIX_EPOCH};

use chaos::Chaos;
use dice::Dice;
use load::{Load, Manners};
use role::Role;
use schedule::{Fault, Size};
use stage::{Run, Stage};
use table::Table;
use world::World;

/// The key that the processes have for the model; no log may show it.
const SECRET: &str = "sk-canary-of-the-fault-suite";
/// What a process logs when the store refused to take a write because its epoch is over.
const REFUSED: &str = "a late write was refused";

/// Who runs: parts in processes of their own, and one process with all of them. Two of them act on schedules.
const ROLES: [Role; 5] = [
    Role::Everything,
    Role::Orchestrator,
    Role::Pool,
    Role::Pool,
    Role::Scheduler,
];

/// Part of every test run.
const SHORT: Size = Size {
    executions: 80,
    length: Duration::from_secs(20),
    // Shorter than in production, so that a minute is long.
    lease: Duration::from_secs(5),
    processes: ROLES.len(),
    process_kills: 8,
    postgres_kills: 1,
    rabbitmq_kills: 1,
    redis_kills: 1,
    freezes: 1,
    storms: 5,
    hints: 4,
    full_disks: 1,
    clocks: 1,
    skew: 30,
};

/// `make fault-suite`.
const LONG: Size = Size {
    executions: 1050,
    length: Duration::from_secs(300),
    lease: Duration::from_secs(10),
    processes: ROLES.len(),
    process_kills: 95,
    postgres_kills: 8,
    rabbitmq_kills: 5,
    redis_kills: 12,
    freezes: 8,
    storms: 30,
    hints: 24,
    full_disks: 2,
    clocks: 8,
    skew: 60,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn servers_and_processes_die_and_nothing_is_lost_or_doubled() {
    let table = run(SHORT).await;
    assert!(table.is_clean(), "{}", table.text());
    assert!(table.kills() >= 8, "{}", table.text());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "takes minutes: make fault-suite"]
async fn servers_and_processes_die_a_hundred_times() {
    let table = run(LONG).await;
    assert!(table.is_clean(), "{}", table.text());
    assert!(table.findings.executions() >= 1000, "{}", table.text());
    assert!(table.kills() >= 100, "{}", table.text());
}

/// Runs a schedule of this size, lets everything settle, and audits.
async fn run(size: Size) -> Table {
    let seed = seed();
    println!("fault suite: FAULT_SEED={seed} repeats this schedule");
    let mut dice = Dice::new(seed);
    let plan = schedule::plan(&size, &mut dice);
    let orders = Load::orders(&size, &mut dice);
    let stage = Stage::open(&ROLES, size.lease, Manners::WhenInDoubt, &[]).await;
    let chaos = Chaos::new(stage.world.clone());
    tokio::join!(chaos.run(&plan), stage.load.hand_in(orders));
    let skipped = skipped(&plan, &stage.world);
    stage
        .close(Run {
            title: "fault suite",
            seed,
            done: chaos.done(),
            skipped,
            is_orderly: false,
            figures: Vec::new(),
        })
        .await
}

/// From `FAULT_SEED`, else from the time.
fn seed() -> u64 {
    match std::env::var("FAULT_SEED") {
        Ok(seed) => seed.parse().expect("FAULT_SEED is a number"),
        Err(_) => UNIX_EPOCH.elapsed().unwrap().subsec_nanos().into(),
    }
}

fn skipped(plan: &[schedule::Planned], world: &World) -> Vec<String> {
    let wants_disk = plan
        .iter()
        .any(|planned| matches!(planned.fault, Fault::FullDisk { .. }));
    match &world.disk {
        Err(why) if wants_disk => vec![format!("full disk, {why}")],
        _ => Vec::new(),
    }
}
