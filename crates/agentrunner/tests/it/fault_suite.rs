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
mod schedule;
mod table;
mod world;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, UNIX_EPOCH};

use chaos::Chaos;
use dice::Dice;
use load::Load;
use process::Role;
use schedule::{Fault, Size};
use store::Store;
use table::Table;
use testkit::servers::Kind;
use world::World;

use crate::ledger;

/// The key that the processes have for the model; no log may show it.
const SECRET: &str = "sk-canary-of-the-fault-suite";
/// What a process logs when the store refused to take a write because its epoch is over.
const REFUSED: &str = "a late write was refused";
/// How long what is under way may take to come to its end after the last fault.
const SETTLE: Duration = Duration::from_secs(150);
/// Between two looks at what is still open.
const GLANCE: Duration = Duration::from_millis(500);

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
    let world = Arc::new(World::new(&ROLES, size.lease).await);
    let (load, chaos) = (Load::new(world.clone()), Chaos::new(world.clone()));
    let mut background = tokio::task::JoinSet::new();
    for process in 0..world.processes.len() {
        let world = world.clone();
        background.spawn(async move { world.processes[process].supervise(&world.client).await });
    }
    assert!(world.all_serve().await, "the processes do not start");
    background.spawn({
        let load = load.clone();
        async move { load.answer_questions().await }
    });

    clockwork::wind_up(&load, &world.client).await;
    let began = Instant::now();
    tokio::join!(chaos.run(&plan), load.hand_in(orders));
    let took = began.elapsed();
    if !world.all_ready().await {
        world.complain("not every process is ready after everything is mended");
    }
    let mended = chrono::Utc::now();
    settle(&world, &load).await;
    let took_to_settle = began.elapsed() - took;
    background.shutdown().await;

    let table = Table {
        seed,
        took,
        took_to_settle,
        accepted: load.accepted().len(),
        asked_again: load.refused.load(Ordering::Relaxed),
        unknown_outcomes: load.unknown_outcomes.load(Ordering::Relaxed),
        answers: load.answers.load(Ordering::Relaxed),
        starts: sum(&world, |process| process.starts.load(Ordering::Relaxed)),
        vain_starts: sum(&world, |process| {
            process.vain_starts.load(Ordering::Relaxed)
        }),
        skipped: skipped(&plan, &world),
        done: chaos.done(),
        findings: judge(&world, &load, mended).await,
    };
    for (number, process) in world.processes.iter().enumerate() {
        process.keep_log(&table.folder(), number);
    }
    println!("{}", table.text());
    println!("as JSON: {}", table.save().display());
    table
}

/// The audit, of what is in the store and of the processes.
async fn judge(world: &World, load: &Load, mended: domain::Time) -> audit::Findings {
    let store = audit::open(&world.server(Kind::Postgres).url()).await;
    let mut findings = audit::audit(&audit::Evidence {
        store: &store,
        provider: &world.provider,
        effects: &world.effects,
        arrivals: &world.arrivals,
        accepted: load.accepted(),
        answered: load.answered(),
        schedules: &clockwork::SCHEDULES,
        mended,
    })
    .await;
    audit::processes(world, &mut findings);
    store.close().await.unwrap();
    findings
}

/// Waits until everything is over and every event went out, or no more patience is left: the audit says what is missing.
async fn settle(world: &World, load: &Load) {
    let store = audit::open(&world.server(Kind::Postgres).url()).await;
    clockwork::run_down(load, &world.client, &store).await;
    let began = Instant::now();
    while began.elapsed() < SETTLE {
        let rows = ledger::rows(&store).await;
        let names: std::collections::HashSet<String> = rows
            .iter()
            .filter_map(|row| agents::name_in(&row.execution.input))
            .collect();
        let all_there = load
            .accepted()
            .iter()
            .all(|promise| names.contains(&promise.order.name));
        let all_over = rows.iter().all(|row| row.status.is_terminal());
        if all_there && all_over && store.outbox(1).await.unwrap().is_empty() {
            break;
        }
        tokio::time::sleep(GLANCE).await;
    }
    store.close().await.unwrap();
}

/// From `FAULT_SEED`, else from the time.
fn seed() -> u64 {
    match std::env::var("FAULT_SEED") {
        Ok(seed) => seed.parse().expect("FAULT_SEED is a number"),
        Err(_) => UNIX_EPOCH.elapsed().unwrap().subsec_nanos().into(),
    }
}

fn sum(world: &World, of: impl Fn(&process::Process) -> usize) -> usize {
    world.processes.iter().map(of).sum()
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
