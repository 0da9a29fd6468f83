//! An update and the way back, under load: the schema is brought to what the next program needs while the processes of
//! this one work; each process is replaced, one of each kind at a time; then all of it is undone. Nothing may be lost or
//! done again, and no request may fail but by a 503 that says when to ask again.
//!
//! In every test run there is one program, and the next one's migration is made up: it changes the tables that are used
//! most. So it is seen that a program works, and starts, on the schema of the next one. `make rolling-update` builds two
//! programs and takes their own migrations.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use testkit::servers::Kind;

use super::dice::Dice;
use super::load::{Load, Manners};
use super::role::Role;
use super::scaled::by_slack_too;
use super::schedule::Size;
use super::stage::{Run, Stage};
use super::visitors::Visitors;
use super::world::World;
use super::{SHORT, seed};
use crate::backing::{self, borrowed};

/// Each service twice, so that one of the two is always there. What pools would do waits while there is none.
const CAST: [Role; 14] = [
    Role::StateManager,
    Role::ConfigService,
    Role::Orchestrator,
    Role::Scheduler,
    Role::Gateway,
    Role::Pool,
    Role::Teams,
    Role::StateManager,
    Role::ConfigService,
    Role::Orchestrator,
    Role::Scheduler,
    Role::Gateway,
    Role::Pool,
    Role::Talkers,
];
/// How many of them are replaced at a time: one of a kind.
const WAVE: usize = 7;

const VARIABLES: [(&str, &str); 4] = [
    ("DB_POOL_SIZE", "6"),
    ("DB_MAX_OVERFLOW", "4"),
    // Nobody waits for its end: what is stopped gives it back.
    ("AGENT_LEASE_SECONDS", "120"),
    ("AGENT_DRAIN_SECONDS", "2"),
];

/// `make test`.
const BRIEF: Size = Size {
    executions: 60,
    length: Duration::from_secs(10),
    processes: CAST.len(),
    ..SHORT
};

/// `make rolling-update`.
const LONG: Size = Size {
    executions: 400,
    length: Duration::from_secs(60),
    ..BRIEF
};

/// What programs write on starting where a newer one has been.
const WORKS_WITH_IT: &str = "which a newer program made";

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_update_and_the_way_back_under_load_lose_nothing_and_fail_no_request() {
    let world = update(BRIEF, &NextProgram::MadeUp).await;
    for process in &world.processes {
        let log = process.log();
        assert!(log.contains(WORKS_WITH_IT), "{:?}: {log}", process.role);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "needs two programs: make rolling-update"]
async fn an_update_and_the_way_back_between_two_programs() {
    let program = |name: &str| -> PathBuf {
        std::env::var(name)
            .unwrap_or_else(|_| panic!("{name} names a program; make rolling-update sets it"))
            .into()
    };
    let next = NextProgram::Built {
        old: program("ROLLING_OLD"),
        new: program("ROLLING_NEW"),
    };
    update(LONG, &next).await;
}

/// What the update leads to.
enum NextProgram {
    /// The same one, as if its successor had been there.
    MadeUp,
    Built {
        old: PathBuf,
        new: PathBuf,
    },
}

async fn update(size: Size, next: &NextProgram) -> std::sync::Arc<World> {
    let seed = seed();
    let mut dice = Dice::new(seed);
    let orders = by_slack_too(Load::orders(&size, &mut dice));
    let world = World::new(&CAST, size.lease, &VARIABLES).await;
    if let NextProgram::Built { old, .. } = next {
        world.processes.iter().for_each(|one| one.use_program(old));
    }
    let stage = Stage::with(world.into(), Manners::WhenTold).await;
    let visitors = Visitors::new(stage.world.clone(), stage.load.clone());
    let work = async {
        tokio::join!(
            there_and_back(&stage.world, next),
            stage.load.hand_in(orders)
        );
        visitors.close();
    };
    tokio::join!(work, visitors.come_and_go());
    let world = stage.world.clone();
    let table = stage
        .close(Run {
            title: "update",
            seed,
            done: [("processes replaced".to_owned(), replaced(next))].into(),
            skipped: Vec::new(),
            is_orderly: true,
            figures: visitors.figures().into(),
        })
        .await;
    assert!(table.is_clean(), "{}", table.text());
    assert!(
        table.findings.executions() >= size.executions,
        "{}",
        table.text()
    );
    world
}

/// The order of `docs/install.md`: the schema, then the processes; back, the processes, then the schema.
async fn there_and_back(world: &World, next: &NextProgram) {
    match next {
        NextProgram::MadeUp => {
            successor::migrate(world, successor::UP).await;
            replace_all(world).await;
            successor::migrate(world, successor::DOWN).await;
        }
        NextProgram::Built { old, new } => {
            let pending = status(world, new).await;
            let count = pending.iter().filter(|one| one["applied"] == false).count();
            assert!(count > 0, "both programs have one schema: {pending:?}");
            run(world, new, &["migrate", "up"]).await;
            for program in [new, old] {
                world
                    .processes
                    .iter()
                    .for_each(|one| one.use_program(program));
                replace_all(world).await;
            }
            run(
                world,
                new,
                &["migrate", "down", &count.to_string(), "--force"],
            )
            .await;
            // The old program starts where it was at home before.
            replace_all(world).await;
            let left = status(world, old).await;
            assert!(left.iter().all(|one| one["applied"] == true), "{left:?}");
            // The audit reads with this program's own store, which may be the new one's.
            run(world, new, &["migrate", "up"]).await;
        }
    }
}

fn replaced(next: &NextProgram) -> usize {
    match next {
        NextProgram::MadeUp => CAST.len(),
        NextProgram::Built { .. } => 3 * CAST.len(),
    }
}

/// One of each kind, and then the others.
async fn replace_all(world: &World) {
    for wave in world.processes.chunks(WAVE) {
        let replacing = wave.iter().map(|process| process.replace(&world.client));
        for replaced in futures::future::join_all(replacing).await {
            if let Err(why) = replaced {
                world.complain(why);
            }
        }
    }
}

async fn status(world: &World, program: &Path) -> Vec<Value> {
    let said = run(world, program, &["migrate", "status", "--json"]).await;
    serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said}"))
}

/// Runs a command of a program on the servers of all, and answers what it printed.
async fn run(world: &World, program: &Path, arguments: &[&str]) -> String {
    let project = crate::product::Project::new();
    let servers = world.server(Kind::Postgres).variables();
    let mut command = project.command_of(program, &borrowed(&servers));
    let ran = command.args(arguments).output().await.unwrap();
    assert!(ran.status.success(), "{arguments:?}: {ran:?}");
    String::from_utf8(ran.stdout).unwrap()
}

/// A migration as the next program might have one.
mod successor {
    use super::{Duration, Kind, World, backing};

    /// As `agentrunner migrate` does it: in one transaction, waiting briefly for locks.
    const BEGIN: &str =
        "BEGIN; SET LOCAL lock_timeout = '500ms'; SELECT pg_advisory_xact_lock(1097290350);";

    pub(super) const UP: &str = "
        CREATE TABLE moods (agent_name text PRIMARY KEY, mood text NOT NULL);
        ALTER TABLE executions ADD COLUMN mood text;
        ALTER TABLE executions ADD COLUMN weight bigint NOT NULL DEFAULT 0;
        ALTER TABLE steps ADD COLUMN mood text;
        ALTER TABLE outbox ADD COLUMN mood text NOT NULL DEFAULT 'calm';
        ALTER TABLE workers ADD COLUMN mood text;
        ALTER TABLE schedules ADD COLUMN mood text;
        ALTER TABLE agent_states ADD COLUMN mood text;
        CREATE INDEX moods_of_schedules ON schedules (mood);
        INSERT INTO schema_migrations (version, name, suits)
            SELECT max(version) + 1, 'the_next', max(version) FROM schema_migrations";
    pub(super) const DOWN: &str = "
        DROP TABLE moods;
        ALTER TABLE executions DROP COLUMN mood, DROP COLUMN weight;
        ALTER TABLE steps DROP COLUMN mood;
        ALTER TABLE outbox DROP COLUMN mood;
        ALTER TABLE workers DROP COLUMN mood;
        ALTER TABLE schedules DROP COLUMN mood;
        ALTER TABLE agent_states DROP COLUMN mood;
        DELETE FROM schema_migrations WHERE name = 'the_next'";

    pub(super) async fn migrate(world: &World, changes: &str) {
        let session = backing::session(&world.server(Kind::Postgres).url()).await;
        for tries in 0.. {
            let Err(error) = session
                .batch_execute(&format!("{BEGIN} {changes}; COMMIT"))
                .await
            else {
                return;
            };
            assert!(tries < 200, "{error:?}");
            let code = error.code().map(|code| code.code().to_owned());
            let waits = ["55P03", "40P01"].contains(&code.as_deref().unwrap_or_default());
            assert!(waits, "{error:?}");
            session.batch_execute("ROLLBACK").await.unwrap();
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}
