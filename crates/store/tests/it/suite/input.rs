//! People's answers.

use domain::step::{Answer, InputReceived, Question};
use domain::{ExecutionId, Seq, Status};
use store::{Claimed, InboxFilter, InputAnswer, NewInput, PendingInput, Store, Then};

use super::Fixture;
use super::given::{
    append, at, claim, claim_one, claim_this, commit, finish, leased, new_id, note, park, question,
    received, task,
};

fn text(words: &str) -> Answer {
    Answer::Text {
        text: words.to_owned(),
    }
}

fn answer(id: ExecutionId, request: Option<u32>, words: &str) -> NewInput {
    NewInput {
        id,
        request: request.map(Seq::new),
        answer: text(words),
        by: "me".to_owned(),
        now: at(5),
    }
}

fn pending(request: u32, words: &str) -> PendingInput {
    PendingInput {
        request: Seq::new(request),
        answer: text(words),
        by: "me".to_owned(),
    }
}

/// An execution that has asked and waits until 600.
async fn asking(store: &dyn Store, questions: u32) -> Claimed {
    let owner = leased(store, task("a")).await;
    let steps = (1..=questions).map(|seq| question(&owner, seq)).collect();
    commit(store, append(&owner, at(1), steps, park(at(600), 0))).await;
    owner
}

pub(crate) async fn an_answer_wakes_and_is_delivered_once(f: &impl Fixture) {
    let store = f.store();
    let id = asking(&*store, 1).await.execution.id;
    let request = Seq::new(1);
    let accepted = store
        .deliver_input(answer(id, None, "that one"))
        .await
        .unwrap();
    assert_eq!(accepted, InputAnswer::Accepted { request });
    let owner = claim_one(&*store, at(5)).await;
    assert_eq!(owner.waiting.inputs, [pending(1, "that one")]);
    // Whether named or not, the second is told of the first.
    for named in [None, Some(1)] {
        let second = store
            .deliver_input(answer(id, named, "no, this"))
            .await
            .unwrap();
        let first = pending(1, "that one");
        assert_eq!(second, InputAnswer::AlreadyAnswered { first });
    }
    let input = InputReceived {
        request,
        answer: text("that one"),
        by: "me".to_owned(),
    };
    let step = received(&owner, 2, input);
    commit(&*store, append(&owner, at(6), vec![step], Then::Continue)).await;
    assert!(store.waiting(id).await.unwrap().inputs.is_empty());
    let late = store
        .deliver_input(answer(id, Some(1), "late"))
        .await
        .unwrap();
    let first = pending(1, "that one");
    assert_eq!(late, InputAnswer::AlreadyAnswered { first });
    let late = store.deliver_input(answer(id, None, "late")).await.unwrap();
    let first = pending(1, "that one");
    assert_eq!(late, InputAnswer::AlreadyAnswered { first });
}

pub(crate) async fn what_waits_for_a_person_is_listed_page_by_page(f: &impl Fixture) {
    let store = f.store();
    let of = |agent: &'static str, questions: u32| {
        let store = store.clone();
        async move {
            let owner = leased(&*store, task(agent)).await;
            let steps = (1..=questions).map(|seq| question(&owner, seq)).collect();
            let park = Then::Park {
                status: Status::WaitingForInput,
                reason: "waits".to_owned(),
                until: at(600),
                wakes_seen: 0,
            };
            commit(&*store, append(&owner, at(1), steps, park)).await;
            owner.execution.id
        }
    };
    let (one, two, three) = (of("a", 2).await, of("b", 1).await, of("a", 1).await);
    let filter = InboxFilter {
        agents: Vec::new(),
        execution: None,
        kind: None,
        now: at(5),
        after: None,
        limit: 100,
    };
    let list = |filter: InboxFilter| {
        let store = store.clone();
        async move {
            let (open, total) = store.inbox(filter).await.unwrap();
            let open = open.iter().map(|o| (o.id, o.request.get())).collect();
            (open, total)
        }
    };
    let mut all = vec![(one, 1), (one, 2), (two, 1), (three, 1)];
    all.sort();
    assert_eq!(list(filter.clone()).await, (all.clone(), 4));
    // Pages join without gap or repeat.
    let first = InboxFilter {
        limit: 3,
        ..filter.clone()
    };
    assert_eq!(list(first.clone()).await, (all[..3].to_vec(), 4));
    let rest = InboxFilter {
        after: Some((all[2].0, Seq::new(all[2].1))),
        ..first
    };
    assert_eq!(list(rest).await, (all[3..].to_vec(), 4));
    let of_a = InboxFilter {
        agents: vec!["a".parse().unwrap()],
        ..filter.clone()
    };
    assert_eq!(list(of_a).await.1, 3);
    let of_two = InboxFilter {
        execution: Some(two),
        kind: Some("clarification".to_owned()),
        ..filter.clone()
    };
    assert_eq!(list(of_two).await, (vec![(two, 1)], 1));
    let approvals = InboxFilter {
        kind: Some("approval".to_owned()),
        ..filter.clone()
    };
    assert_eq!(list(approvals).await, (vec![], 0));
    // What is answered, too late or of one that is over waits for nobody.
    store.deliver_input(answer(two, None, "x")).await.unwrap();
    store.cancel(three, "me", "", at(5)).await.unwrap();
    let owner = claim_this(&*store, three, at(5)).await.unwrap();
    commit(&*store, append(&owner, at(5), Vec::new(), finish())).await;
    assert_eq!(list(filter.clone()).await.0, [(one, 1), (one, 2)]);
    let late = InboxFilter {
        now: at(600),
        ..filter
    };
    assert_eq!(list(late).await, (vec![], 0));
}

pub(crate) async fn one_of_many_concurrent_answers_is_taken(f: &impl Fixture) {
    let store = f.store();
    let id = asking(&*store, 1).await.execution.id;
    let calls: Vec<_> = (0..20)
        .map(|n| {
            let store = store.clone();
            let input = answer(id, Some(1), &format!("answer {n}"));
            tokio::spawn(async move { (n, store.deliver_input(input).await.unwrap()) })
        })
        .collect();
    let (mut winners, mut firsts) = (Vec::new(), Vec::new());
    for call in calls {
        match call.await.unwrap() {
            (n, InputAnswer::Accepted { .. }) => winners.push(pending(1, &format!("answer {n}"))),
            (_, InputAnswer::AlreadyAnswered { first }) => firsts.push(first),
            (_, other) => panic!("{other:?}"),
        }
    }
    assert_eq!((winners.len(), firsts.len()), (1, 19));
    assert!(firsts.iter().all(|first| *first == winners[0]));
    assert_eq!(store.waiting(id).await.unwrap().inputs, winners);
    assert_eq!(store.waiting(id).await.unwrap().wakes, 1);
}

pub(crate) async fn an_answer_must_fit(f: &impl Fixture) {
    let store = f.store();
    let id = asking(&*store, 1).await.execution.id;
    for wrong in [Answer::Approve, Answer::Repeat, Answer::Expired] {
        let mut input = answer(id, None, "");
        input.answer = wrong;
        let refused = store.deliver_input(input).await.unwrap();
        let question = Question::Clarification {
            text: "which one?".to_owned(),
        };
        assert_eq!(refused, InputAnswer::DoesNotFit(question));
    }
    assert!(
        claim(&*store, 10, at(5)).await.is_empty(),
        "nobody was woken"
    );
    assert_eq!(store.waiting(id).await.unwrap().wakes, 0);
}

pub(crate) async fn several_open_requests_are_ambiguous(f: &impl Fixture) {
    let store = f.store();
    let id = asking(&*store, 3).await.execution.id;
    let which = store.deliver_input(answer(id, None, "x")).await.unwrap();
    assert_eq!(
        which,
        InputAnswer::Ambiguous([1, 2, 3].map(Seq::new).to_vec())
    );
    for request in [2, 1] {
        let taken = store
            .deliver_input(answer(id, Some(request), "x"))
            .await
            .unwrap();
        let request = Seq::new(request);
        assert_eq!(taken, InputAnswer::Accepted { request });
    }
    // Now one is left.
    let taken = store.deliver_input(answer(id, None, "y")).await.unwrap();
    let request = Seq::new(3);
    assert_eq!(taken, InputAnswer::Accepted { request });
    let inputs = store.waiting(id).await.unwrap().inputs;
    assert_eq!(inputs, [pending(1, "x"), pending(2, "x"), pending(3, "y")]);
}

pub(crate) async fn nothing_asked_is_told(f: &impl Fixture) {
    let store = f.store();
    let unknown = store
        .deliver_input(answer(new_id(), None, "x"))
        .await
        .unwrap();
    assert_eq!(unknown, InputAnswer::NotFound);
    let owner = leased(&*store, task("a")).await;
    let id = owner.execution.id;
    let steps = vec![note(&owner, 1), question(&owner, 2)];
    commit(&*store, append(&owner, at(1), steps, Then::Continue)).await;
    let nothing = store.deliver_input(answer(id, Some(1), "x")).await.unwrap();
    assert_eq!(nothing, InputAnswer::NothingAsked(Status::Running));
    commit(&*store, append(&owner, at(2), Vec::new(), finish())).await;
    for request in [None, Some(2)] {
        let over = store.deliver_input(answer(id, request, "x")).await.unwrap();
        assert_eq!(over, InputAnswer::NothingAsked(Status::Completed));
    }
}

pub(crate) async fn too_late_is_too_late(f: &impl Fixture) {
    let store = f.store();
    let id = asking(&*store, 1).await.execution.id;
    let mut late = answer(id, Some(1), "x");
    late.now = at(600);
    let told = store.deliver_input(late.clone()).await.unwrap();
    assert_eq!(told, InputAnswer::NothingAsked(Status::Running));
    // So that nobody's answer is taken and then overruled by its owner's word that nobody answered.
    let owner = claim_one(&*store, at(600)).await;
    let input = InputReceived {
        request: Seq::new(1),
        answer: Answer::Expired,
        by: "the clock".to_owned(),
    };
    let step = received(&owner, 2, input);
    commit(&*store, append(&owner, at(600), vec![step], Then::Continue)).await;
    late.now = at(5);
    let told = store.deliver_input(late).await.unwrap();
    assert_eq!(told, InputAnswer::NothingAsked(Status::Running));
}
