//! The journal and what follows from its steps.

use domain::execution::Totals;
use domain::{Money, Outcome, Seq, Status, Tokens, Usage};
use store::{Appended, Then, Total};

use super::Fixture;
use super::given::{
    append, at, child, claim, claim_one, claim_this, commit, done, ended, event, everything,
    finish, intent, leased, model_call, note, notes, outgoing, park, said, submission, submit,
    task,
};

pub(crate) async fn steps_are_durable_and_in_order(f: &impl Fixture) {
    let store = f.store();
    let owner = leased(&*store, task("a")).await;
    let steps = vec![
        model_call(&owner, 1, "m"),
        intent(&owner, 2),
        note(&owner, 3),
    ];
    let mut first = append(&owner, at(1), steps.clone(), Then::Continue);
    first.totals = Totals {
        cost_usd: Money::from_usd(0.5),
        model_calls: 1,
        tool_calls: 1,
        ..Totals::default()
    };
    first.totals.usage.input_tokens = Tokens(100);
    let totals = first.totals;
    commit(&*store, first).await;
    let id = owner.execution.id;
    assert_eq!(store.steps(id, None, 100).await.unwrap(), steps);
    assert_eq!(
        store.steps(id, Some(Seq::new(1)), 1).await.unwrap(),
        steps[1..2]
    );
    let row = store.execution(id).await.unwrap().unwrap();
    assert_eq!(
        (row.steps, row.totals, row.heartbeat_at),
        (3, totals, Some(at(1)))
    );
    assert_eq!(row.due_at, Some(at(10)), "the lease is kept, not extended");
}

pub(crate) async fn a_late_append_changes_nothing(f: &impl Fixture) {
    let store = f.store();
    let paused = leased(&*store, task("a")).await;
    let id = paused.execution.id;
    let current = claim_one(&*store, at(10)).await;
    commit(
        &*store,
        append(&current, at(11), notes(&current, 1, 1), Then::Continue),
    )
    .await;
    let before = everything(&*store, id).await;
    for then in [Then::Continue, Then::HandBack, park(at(99), 0), finish()] {
        let mut late = append(&paused, at(12), notes(&paused, 2, 3), then);
        late.events = vec![event("late")];
        late.children = vec![submission(child(id, "b"))];
        assert_eq!(store.append(late).await.unwrap(), Appended::LostLease);
    }
    assert_eq!(everything(&*store, id).await, before);
    assert_eq!(
        store
            .executions(Default::default(), page())
            .await
            .unwrap()
            .1,
        Total::exactly(1)
    );
    commit(
        &*store,
        append(&current, at(13), notes(&current, 2, 2), Then::Continue),
    )
    .await;
}

fn page() -> store::Page {
    store::Page {
        limit: 10,
        after: None,
    }
}

pub(crate) async fn a_gap_is_refused(f: &impl Fixture) {
    let store = f.store();
    let owner = leased(&*store, task("a")).await;
    commit(
        &*store,
        append(&owner, at(1), notes(&owner, 1, 2), Then::Continue),
    )
    .await;
    let before = everything(&*store, owner.execution.id).await;
    let gaps = [
        notes(&owner, 4, 4),
        vec![note(&owner, 3), note(&owner, 5)],
        vec![note(&owner, 4), note(&owner, 3)],
        vec![model_call(&owner, 2, "another second step")],
        vec![note(&owner, 0)],
    ];
    for steps in gaps {
        let refused = store.append(append(&owner, at(2), steps, finish())).await;
        assert!(refused.is_err(), "{refused:?}");
    }
    assert_eq!(everything(&*store, owner.execution.id).await, before);
}

pub(crate) async fn repeating_a_lost_answer_is_harmless(f: &impl Fixture) {
    let store = f.store();
    let owner = leased(&*store, task("a")).await;
    commit(
        &*store,
        append(
            &owner,
            at(1),
            vec![model_call(&owner, 1, "m")],
            Then::Continue,
        ),
    )
    .await;
    let before = everything(&*store, owner.execution.id).await;
    commit(
        &*store,
        append(
            &owner,
            at(1),
            vec![model_call(&owner, 1, "m")],
            Then::Continue,
        ),
    )
    .await;
    assert_eq!(everything(&*store, owner.execution.id).await, before);
    let usage = store.usage(Default::default()).await.unwrap();
    assert_eq!(usage.iter().map(|row| row.model_calls).sum::<u64>(), 1);
}

pub(crate) async fn giving_up_the_lease_shuts_the_fence(f: &impl Fixture) {
    let store = f.store();
    for then in [Then::HandBack, park(at(500), 0), finish()] {
        let owner = leased(&*store, task("a")).await;
        commit(&*store, append(&owner, at(1), notes(&owner, 1, 1), then)).await;
        let late = append(&owner, at(2), notes(&owner, 2, 2), Then::Continue);
        assert_eq!(store.append(late).await.unwrap(), Appended::LostLease);
    }
}

pub(crate) async fn parking_waits_for_its_time(f: &impl Fixture) {
    let store = f.store();
    let owner = leased(&*store, task("a")).await;
    let then = Then::Park {
        status: Status::WaitingForInput,
        reason: "which one?".to_owned(),
        until: at(300) + chrono::TimeDelta::nanoseconds(1),
        wakes_seen: 0,
    };
    commit(&*store, append(&owner, at(1), notes(&owner, 1, 1), then)).await;
    let row = store.execution(owner.execution.id).await.unwrap().unwrap();
    assert_eq!((row.status, row.worker), (Status::WaitingForInput, None));
    assert_eq!(row.status_reason.as_deref(), Some("which one?"));
    assert!(
        claim(&*store, 10, at(300)).await.is_empty(),
        "never too early"
    );
    let again = claim_one(&*store, at(301)).await;
    assert_eq!((again.crashes, again.steps.len()), (0, 1));
    let row = store.execution(owner.execution.id).await.unwrap().unwrap();
    assert_eq!((row.status, row.status_reason), (Status::Running, None));
}

pub(crate) async fn a_wake_up_before_parking_is_not_slept_over(f: &impl Fixture) {
    let store = f.store();
    let owner = leased(&*store, task("a")).await;
    let id = owner.execution.id;
    // It comes after the owner has looked and before it parks.
    store.cancel(id, "me", "enough", at(2)).await.unwrap();
    commit(&*store, append(&owner, at(3), Vec::new(), park(at(300), 0))).await;
    let again = claim_one(&*store, at(3)).await;
    assert_eq!(again.waiting.wakes, 1);
    assert_eq!(again.waiting.cancel.clone().unwrap().reason, "enough");
    // Now it has been seen, and parking lasts.
    commit(&*store, append(&again, at(4), Vec::new(), park(at(300), 1))).await;
    assert!(claim(&*store, 10, at(299)).await.is_empty());
}

pub(crate) async fn children_start_once_with_their_step(f: &impl Fixture) {
    let store = f.store();
    let owner = leased(&*store, task("a")).await;
    let id = owner.execution.id;
    let child = child(id, "b");
    let mut start = append(&owner, at(1), notes(&owner, 1, 1), Then::Continue);
    start.children = vec![submission(child.clone())];
    start.children[0].events = vec![event("child")];
    commit(&*store, start).await;
    // A repeated step computes the same id: no second child, no error.
    let mut again = append(&owner, at(2), notes(&owner, 2, 2), Then::Continue);
    again.children = vec![submission(child.clone())];
    commit(&*store, again).await;
    assert_eq!(outgoing(&*store).await, ["child"]);
    let claimed = claim_one(&*store, at(2)).await;
    assert_eq!(claimed.execution, child);
}

pub(crate) async fn finishing_is_one_transaction(f: &impl Fixture) {
    let store = f.store();
    let mut talk = task("a");
    talk.conversation = Some("c".parse().unwrap());
    let owner = leased(&*store, talk).await;
    let id = owner.execution.id;
    let mut end = append(
        &owner,
        at(5),
        notes(&owner, 1, 2),
        Then::Finish {
            outcome: done(),
            messages: vec![said("question"), said("answer")],
            digest: None,
        },
    );
    end.events = vec![event("done")];
    commit(&*store, end).await;
    let row = store.execution(id).await.unwrap().unwrap();
    assert_eq!((row.status, row.outcome), (Status::Completed, Some(done())));
    assert_eq!(
        (row.due_at, row.worker, row.finished_at),
        (None, None, Some(at(5)))
    );
    assert_eq!(row.steps, 2);
    assert_eq!(outgoing(&*store).await, ["done"]);
    let (agent, conversation) = ("a".parse().unwrap(), "c".parse().unwrap());
    let messages = store.conversation(&agent, &conversation, 10).await.unwrap();
    assert_eq!(messages, [said("question"), said("answer")]);
    assert!(claim(&*store, 10, at(9999)).await.is_empty());
}

pub(crate) async fn what_has_ended_stays_as_it_ended(f: &impl Fixture) {
    let store = f.store();
    let owner = leased(&*store, task("a")).await;
    let id = owner.execution.id;
    commit(
        &*store,
        append(&owner, at(1), notes(&owner, 1, 1), finish()),
    )
    .await;
    let before = everything(&*store, id).await;
    let failed = Then::Finish {
        outcome: Outcome::Timeout {
            message: "late".to_owned(),
        },
        messages: Vec::new(),
        digest: None,
    };
    for then in [Then::Continue, Then::HandBack, park(at(9), 0), failed] {
        let late = append(&owner, at(2), Vec::new(), then);
        assert_eq!(store.append(late).await.unwrap(), Appended::LostLease);
    }
    assert!(claim_this(&*store, id, at(9999)).await.is_none());
    store.cancel(id, "me", "", at(2)).await.unwrap();
    assert_eq!(everything(&*store, id).await, before);
}

pub(crate) async fn the_end_of_a_child_wakes_its_parent(f: &impl Fixture) {
    let store = f.store();
    let parent = leased(&*store, task("a")).await;
    let id = parent.execution.id;
    let mut start = append(&parent, at(1), notes(&parent, 1, 1), park(at(900), 0));
    start.children = vec![submission(child(id, "b"))];
    commit(&*store, start).await;
    let running = claim_one(&*store, at(2)).await;
    commit(&*store, append(&running, at(3), Vec::new(), finish())).await;
    let woken = claim_one(&*store, at(3)).await;
    assert_eq!(woken.execution.id, id);
    assert_eq!(woken.waiting.wakes, 1);
    assert_eq!(
        woken.waiting.children,
        [ended(running.execution.id, done(), Totals::default())]
    );
    // A parent at work is told without losing its lease.
    let mut second = child(id, "b");
    second.id = super::given::new_id();
    submit(&*store, second).await;
    let second = claim_one(&*store, at(4)).await;
    commit(&*store, append(&second, at(5), Vec::new(), finish())).await;
    let waiting = store.waiting(id).await.unwrap();
    assert_eq!((waiting.wakes, waiting.children.len()), (2, 2));
    assert!(claim_this(&*store, id, at(5)).await.is_none());
}

pub(crate) async fn a_child_is_told_with_what_its_family_consumed(f: &impl Fixture) {
    let store = f.store();
    let parent = leased(&*store, task("a")).await;
    let mut start = append(&parent, at(1), notes(&parent, 1, 1), park(at(900), 0));
    start.children = vec![submission(child(parent.execution.id, "b"))];
    commit(&*store, start).await;
    let owner = claim_one(&*store, at(2)).await;
    let consumed = |model_calls| Totals {
        usage: Usage {
            input_tokens: Tokens(10),
            output_tokens: Tokens(5),
            cached_tokens: Tokens(1),
        },
        cost_usd: Money::from_nanos(7),
        model_calls,
        tool_calls: 1,
    };
    let mut below = append(&owner, at(2), notes(&owner, 1, 1), Then::Continue);
    below.children = vec![submission(child(owner.execution.id, "c"))];
    commit(&*store, below).await;
    let grandchild = claim_one(&*store, at(3)).await;
    let mut end = append(&grandchild, at(3), notes(&grandchild, 1, 1), finish());
    end.totals = consumed(2);
    commit(&*store, end).await;
    let mut end = append(&owner, at(4), notes(&owner, 2, 2), finish());
    end.totals = consumed(1);
    commit(&*store, end).await;
    let mut family = consumed(2);
    family += consumed(1);
    let waiting = store.waiting(parent.execution.id).await.unwrap();
    assert_eq!(
        waiting.children,
        [ended(owner.execution.id, done(), family)],
        "the child's own, and its child's"
    );
}

pub(crate) async fn an_execution_can_not_be_parked_as_over(f: &impl Fixture) {
    let store = f.store();
    let owner = leased(&*store, task("a")).await;
    for status in Status::ALL {
        if matches!(status, Status::Running | Status::WaitingForInput) {
            continue;
        }
        let then = Then::Park {
            status,
            reason: String::new(),
            until: at(9),
            wakes_seen: 0,
        };
        assert!(
            store
                .append(append(&owner, at(1), Vec::new(), then))
                .await
                .is_err()
        );
    }
    let row = store.execution(owner.execution.id).await.unwrap().unwrap();
    assert_eq!((row.status, row.due_at), (Status::Running, Some(at(10))));
}
