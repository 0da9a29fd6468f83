//! Backups, as an operator makes and uses them: under load, at any moment, and with everything gone afterwards.

mod bucket;
mod commands;
mod hostile;
mod model;
mod person;
mod servers_rounds;
mod world;

use std::time::Duration;

use world::World;

use crate::backing::Variables;

/// How many times everything is lost: part of every test run.
const ROUNDS: usize = 1;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn everything_is_lost_and_goes_on_from_a_backup() {
    rounds(Kind::File).await;
}

/// What the product keeps its rows in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    File,
    Server,
}

impl Kind {
    async fn variables(self) -> Variables {
        match self {
            Self::File => Variables::new(),
            Self::Server => crate::backing::postgres().await,
        }
    }
}

/// So many rounds as `BACKUP_ROUNDS` says, each with a world of its own.
async fn rounds(kind: Kind) {
    let rounds = std::env::var("BACKUP_ROUNDS").ok();
    let rounds = rounds.map_or(ROUNDS, |n| n.parse().expect("BACKUP_ROUNDS is a number"));
    for round in 0..rounds {
        let figures = one(kind, round).await;
        println!("{kind:?}, round {} of {rounds}: {figures}", round + 1);
    }
}

/// Work, a backup in its midst, more work; everything is lost and restored, and the work comes to its end. Then the books.
async fn one(kind: Kind, round: usize) -> String {
    let mut world = World::new(kind, seed(round)).await;
    world.start().await;
    // What is asked for before the backup began must survive; what is asked for later may be forgotten.
    let kept = world.hand_in(24).await;
    world
        .let_work(Duration::from_millis(0), Duration::from_millis(900))
        .await;
    let (file, late) = world.back_up_under_load(8).await;
    world
        .let_work(Duration::from_millis(0), Duration::from_millis(1200))
        .await;
    let before = world.charges();
    world.lose_everything().await;
    let told = world.restore(&file).await;
    world.start().await;
    world.bring_to_the_end(&kept, &late).await;
    world.see_schedule_go_on().await;
    world.stop().await;
    world.audit(&kept, &late).await;
    format!(
        "seed {}, {} charges before the loss and {} after it, {} answers about unknown outcomes, of {told}",
        world.seed,
        before,
        world.charges() - before,
        world.unknown(),
    )
}

/// From `BACKUP_SEED`, else from the time.
fn seed(round: usize) -> u64 {
    match std::env::var("BACKUP_SEED") {
        Ok(seed) => seed.parse().expect("BACKUP_SEED is a number"),
        Err(_) => {
            let now = std::time::UNIX_EPOCH.elapsed().unwrap().subsec_nanos();
            u64::from(now) + round as u64
        }
    }
}
