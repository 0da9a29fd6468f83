//! kill -9 at named moments of every mode, on both stores: while a team plans, between its children, while people are
//! waited for, while a conversation is summed up, and at due times with two schedulers. The agents and the audit are
//! those of the fault suite. Nothing else is under way when the process dies, so beside what leases explain, it is known
//! how often exactly the model may have been asked: once for each answer, and once for each question that died.

mod bench;
mod due;

use bench::{At, Bench};

use super::agents::Kind;
use super::load::Order;
use crate::backing::{self, Variables};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_each_moment_of_every_mode_on_the_embedded_store() {
    at_each_moment(Variables::new()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_each_moment_of_every_mode_on_postgres() {
    at_each_moment(backing::postgres().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_schedulers_one_is_killed_at_due_times_on_the_embedded_store() {
    due::kill_at_due_times(Variables::new()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_schedulers_one_is_killed_at_due_times_on_postgres() {
    due::kill_at_due_times(backing::postgres().await).await;
}

async fn at_each_moment(servers: Variables) {
    let mut bench = Bench::new(servers).await;
    planning(&mut bench).await;
    between_children(&mut bench).await;
    waiting(&mut bench).await;
    summarising(&mut bench).await;
    alone(&mut bench).await;
    bench.audit().await;
}

async fn planning(bench: &mut Bench) {
    for at in [
        At::Words("You plan the work", &[]),
        At::Commit("before-plan", &[]),
        At::Words("You look at results", &[]),
        At::Words("Your team has done", &[]),
        At::Commit("before-finish", &[]),
        At::Commit("after-finish", &[]),
    ] {
        bench.moment(Kind::Lead, at).await;
    }
    for at in [At::Commit("after-plan", &[]), At::Waiting] {
        bench.moment_of(approved, Kind::Lead, at).await;
    }
}

fn approved(name: String) -> Order {
    Order::new(name, Kind::Lead).with_plan_approval()
}

async fn between_children(bench: &mut Bench) {
    let one_is_done = At::Words("-find", &["weigh"]);
    for at in [
        At::Commit("before-child-end", &["find", "weigh"]),
        one_is_done,
        At::Words("-write", &["find", "weigh"]),
        At::Call("charge"),
    ] {
        bench.moment(Kind::Lead, at).await;
    }
    bench.cancelled(Kind::Lead, one_is_done).await;
    for at in [
        At::Words("-child", &[]),
        At::Call("set"),
        At::Call("charge"),
    ] {
        bench.moment(Kind::Delegator, at).await;
    }
}

async fn waiting(bench: &mut Bench) {
    for kind in [Kind::Asker, Kind::Approver] {
        for at in [
            At::Commit("before-question", &[]),
            At::Waiting,
            At::Answered("before-answer"),
            At::Answered("after-answer"),
        ] {
            bench.moment(kind, at).await;
        }
    }
    bench
        .moment_of(approved, Kind::Lead, At::Answered("before-answer"))
        .await;
}

async fn summarising(bench: &mut Bench) {
    for at in [
        At::Words("You keep the memory", &[]),
        At::Commit("before-summary", &[]),
        At::Commit("after-summary", &[]),
    ] {
        bench.after_much_was_said(at).await;
    }
    let said = |name: String| {
        let room = format!("room of {name}");
        Order::new(name, Kind::Talker).said_in(&room)
    };
    bench.moment_of(said, Kind::Talker, At::Call("set")).await;
}

/// What needs nobody else: a budget that a repeated call must not overrun, several calls at once, and an event that
/// comes again.
async fn alone(bench: &mut Bench) {
    bench.moment(Kind::Spender, At::Call("set")).await;
    bench.moment(Kind::Stepper, At::Call("charge")).await;
    bench.moment(Kind::Listener, At::Call("set")).await;
}
