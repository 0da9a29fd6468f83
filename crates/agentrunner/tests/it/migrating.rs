//! Changing the schema, as an operator does it: what is told before, what is refused, and what is left when it is killed.

use std::process::Stdio;
use std::time::Instant;

use serde_json::Value;
use testkit::servers::Kind as ServerKind;

use crate::backing::{self, Variables};
use crate::project::{Project, Ran};

/// At how many points of its time a migration is killed, up and down by turns; `MIGRATION_KILLS` says another number.
const KILLS: u32 = 20;

fn applied(ran: &Ran) -> usize {
    assert_eq!(ran.code, 0, "{ran:?}");
    let rows = ran.json();
    let rows = rows.as_array().unwrap().iter();
    rows.filter(|row| row["applied"] == true).count()
}

#[tokio::test]
async fn going_back_is_refused_while_workers_live_and_says_what_it_loses() {
    let project = Project::new();
    let server = project.up().await;
    let looked = project.run(&["migrate", "status"]).await;
    let all = applied(&looked);
    let errands = looked.json();
    let errands: Vec<&Value> = errands
        .as_array()
        .unwrap()
        .iter()
        .filter(|row| row["migration"] == "0012_errands")
        .collect();
    assert_eq!(errands[0]["loses"], serde_json::json!(["table errands"]));

    let refused = project.run(&["migrate", "down", "1"]).await;
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(refused.stderr.contains("workers are alive"), "{refused:?}");
    // Killed, it is alive for a while as far as anybody can know.
    server.kill().await;
    assert_eq!(project.run(&["migrate", "down", "1"]).await.code, 1);
    let told = project.run(&["migrate", "down", "1", "--dry-run"]).await;
    assert_eq!(applied(&told), all);
    assert!(told.stderr.contains("with all that is in it"), "{told:?}");
    let forced = project.run(&["migrate", "down", "1", "--force"]).await;
    assert_eq!(applied(&forced), all - 1);
    let told = project.run(&["migrate", "up", "--dry-run"]).await;
    assert_eq!(applied(&told), all - 1);
    assert!(told.stderr.contains("to be made: "), "{told:?}");
    assert_eq!(applied(&project.run(&["migrate", "up"]).await), all);
}

/// Kills `migrate up` and `migrate down` at ever later points, and lets each go to its end the next time.
async fn kill(variables: &Variables, kills: u32) {
    let said = std::env::var("MIGRATION_KILLS").ok();
    let kills = said.map_or(kills, |n| n.parse().expect("MIGRATION_KILLS is a number"));
    let project = Project::new();
    let command = |args: &[&str]| {
        let mut command = project.command(args);
        command.envs(
            variables
                .iter()
                .map(|(name, value)| (*name, value.as_str())),
        );
        command
    };
    let began = Instant::now();
    let all = Ran::of(command(&["migrate", "up"])).await;
    // The points are spread over what it takes here, so that it is killed in its midst on a slow machine, too.
    let pause = began.elapsed() / kills;
    let all = applied(&all);
    for n in 0..kills {
        let (args, wanted) = match n % 2 {
            0 => (&["migrate", "down", "99"][..], 0),
            _ => (&["migrate", "up"][..], all),
        };
        let mut killed = command(args).stderr(Stdio::null()).spawn().unwrap();
        tokio::time::sleep(pause * n).await;
        killed.kill().await.unwrap();
        let again = Ran::of(command(args)).await;
        assert_eq!(applied(&again), wanted, "killed at point {n}: {again:?}");
    }
}

#[tokio::test]
async fn a_migration_that_is_killed_is_done_when_it_is_run_again() {
    kill(&Variables::new(), KILLS).await;
}

#[tokio::test]
async fn servers_a_migration_that_is_killed_is_done_when_it_is_run_again() {
    // A server takes longer for all of it, again and again.
    kill(&backing::postgres().await, KILLS / 4).await;
}

#[tokio::test]
async fn servers_an_open_transaction_is_told_before_a_change() {
    let variables = backing::postgres().await;
    let url = &variables
        .iter()
        .find(|(name, _)| *name == ServerKind::Postgres.variable())
        .unwrap()
        .1;
    let session = backing::session(url).await;
    session.batch_execute("BEGIN; SELECT 1").await.unwrap();
    let project = Project::new();
    let mut command = project.command(&["migrate", "up"]);
    command.env("DATABASE_URL", url);
    let ran = Ran::of(command).await;
    assert!(applied(&ran) > 0);
    assert!(ran.stderr.contains("connected: "), "{ran:?}");
}
