//! Everything at work: processes that are started again when they are gone, a person who answers, and what is left when
//! all has come to its end.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use store::Store;
use testkit::servers::Kind;
use tokio::task::JoinSet;

use super::audit;
use super::chaos::Done;
use super::load::{Load, Manners};
use super::process::Process;
use super::role::Role;
use super::table::Table;
use super::world::World;
use super::{agents, clockwork};
use crate::ledger;

/// How long what is under way may take to come to its end after the last fault.
const SETTLE: Duration = Duration::from_secs(150);
/// Between two looks at what is still open.
const GLANCE: Duration = Duration::from_millis(500);

/// Everything at work.
pub(super) struct Stage {
    pub(super) world: Arc<World>,
    pub(super) load: Arc<Load>,
    background: JoinSet<()>,
    began: Instant,
}

/// How a run went, beside what is in the store.
pub(super) struct Run {
    /// Its name, for the table and the folder of its logs.
    pub(super) title: &'static str,
    pub(super) seed: u64,
    pub(super) done: Done,
    pub(super) skipped: Vec<String>,
    /// Whether nobody was killed, so that nobody had to do anything again.
    pub(super) is_orderly: bool,
    /// What else is worth a row.
    pub(super) figures: Vec<(String, String)>,
}

impl Stage {
    /// Starts a process for each role, and the schedules.
    pub(super) async fn open(
        roles: &[Role],
        lease: Duration,
        manners: Manners,
        more: &[(&'static str, &str)],
    ) -> Self {
        let world = World::new(roles, lease, more).await;
        Self::with(Arc::new(world), manners).await
    }

    /// The same for a world that is there.
    pub(super) async fn with(world: Arc<World>, manners: Manners) -> Self {
        let load = Load::new(world.clone(), manners);
        let mut background = JoinSet::new();
        for process in 0..world.processes.len() {
            let world = world.clone();
            background
                .spawn(async move { world.processes[process].supervise(&world.client).await });
        }
        assert!(world.all_serve().await, "the processes do not start");
        background.spawn({
            let load = load.clone();
            async move { load.answer_questions().await }
        });
        clockwork::wind_up(&load, &world.client).await;
        Self {
            world,
            load,
            background,
            began: Instant::now(),
        }
    }

    /// When everything is mended: waits for the end of what is under way, and audits.
    pub(super) async fn close(mut self, run: Run) -> Table {
        let took = self.began.elapsed();
        let (world, load) = (&self.world, &self.load);
        if !world.all_ready().await {
            world.complain("not every process is ready after everything is mended");
        }
        let mended = chrono::Utc::now();
        settle(world, load).await;
        let took_to_settle = self.began.elapsed() - took;
        self.background.shutdown().await;

        let table = Table {
            title: run.title,
            seed: run.seed,
            took,
            took_to_settle,
            accepted: load.accepted().len(),
            asked_again: load.refused.load(Ordering::Relaxed),
            unknown_outcomes: load.unknown_outcomes.load(Ordering::Relaxed),
            answers: load.answers.load(Ordering::Relaxed),
            starts: sum(world, |process| process.starts.load(Ordering::Relaxed)),
            vain_starts: sum(world, |process| process.vain_starts.load(Ordering::Relaxed)),
            skipped: run.skipped,
            done: run.done,
            figures: run.figures,
            findings: judge(world, load, mended, run.is_orderly).await,
        };
        for (number, process) in world.processes.iter().enumerate() {
            process.keep_log(&table.folder(), number);
        }
        println!("{}", table.text());
        println!("as JSON: {}", table.save().display());
        table
    }
}

/// The audit, of what is in the store and of the processes.
async fn judge(
    world: &World,
    load: &Load,
    mended: domain::Time,
    is_orderly: bool,
) -> audit::Findings {
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
        is_orderly,
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

fn sum(world: &World, of: impl Fn(&Process) -> usize) -> usize {
    world.processes.iter().map(of).sum()
}
