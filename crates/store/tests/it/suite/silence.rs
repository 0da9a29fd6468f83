//! Conversations and dead letters of which nothing was heard for long go, too.

use domain::{Execution, Time};
use store::{DeadLetter, Page, Then};

use super::Fixture;
use super::cleanup::{cleanup, old_task, once};
use super::given::{append, at, commit, done, event, leased, said, submit, task};

pub(crate) async fn what_was_silent_for_long_goes_and_what_somebody_waits_for_stays(
    f: &impl Fixture,
) {
    let store = f.store();
    let talk = |execution: Execution, name: &str| Execution {
        conversation: Some(name.parse().unwrap()),
        ..execution
    };
    let speak = async |execution: Execution, now: Time| {
        let owner = leased(&*store, execution).await;
        let then = Then::Finish {
            outcome: done(),
            messages: vec![said("hello")],
            digest: None,
        };
        commit(&*store, append(&owner, now, Vec::new(), then)).await;
    };
    speak(talk(old_task("a"), "silent"), once(1)).await;
    speak(talk(old_task("a"), "waits"), once(1)).await;
    submit(&*store, talk(old_task("a"), "waits")).await;
    speak(talk(task("a"), "young"), at(1)).await;
    for (id, at) in [("old", once(1)), ("young", at(1))] {
        let letter = DeadLetter {
            id: id.to_owned(),
            queue: "q".to_owned(),
            event: event("e"),
            reason: String::new(),
            attempts: 5,
            at,
        };
        store.add_dead_letter(letter).await.unwrap();
    }
    for dry_run in [true, false] {
        let cleaned = cleanup(&*store, dry_run).await;
        assert_eq!((cleaned.conversations, cleaned.dead_letters), (1, 1));
    }
    let again = cleanup(&*store, false).await;
    assert_eq!((again.conversations, again.dead_letters), (0, 0));
    for (name, messages) in [("silent", 0), ("waits", 1), ("young", 1)] {
        let (agent, name) = ("a".parse().unwrap(), name.parse().unwrap());
        let said = store.conversation(&agent, &name, 10).await.unwrap();
        assert_eq!(said.len(), messages, "{name}");
    }
    let page = Page {
        limit: 10,
        after: None,
    };
    assert_eq!(store.dead_letters(page).await.unwrap().len(), 1);
    // It can be spoken in again, from its beginning.
    speak(talk(task("a"), "silent"), at(2)).await;
}
