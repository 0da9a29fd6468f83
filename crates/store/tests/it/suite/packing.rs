//! Long things lie compressed and are read as they were written.

use std::sync::Arc;

use async_trait::async_trait;
use domain::{ExecutionId, FailureCode, Outcome, Seq, StepBody, StopReason};
use serde_json::json;
use store::{Class, Store, Then};

use super::Fixture;
use super::given::{append, at, claim, claim_one, commit, leased, note, said, step, submit, task};

/// A store whose rows can be looked at and written behind its back.
#[async_trait]
pub(crate) trait Rows: Fixture {
    /// Another handle on the same store that compresses what is longer.
    async fn compressing(&self, above: usize) -> Arc<dyn Store>;
    /// A step's row.
    async fn stored_step(&self, id: ExecutionId, seq: Seq) -> String;
    /// The row of what was asked.
    async fn stored_task(&self, id: ExecutionId) -> String;
    /// The row of a result.
    async fn stored_result(&self, id: ExecutionId) -> String;
    /// Writes a step's row by hand.
    async fn write_step(&self, id: ExecutionId, seq: Seq, body: &str);
}

const MARK: &str = "~deflate:";

fn long() -> String {
    "many words, \"quoted\" \u{0} and ✓ ".repeat(2000)
}

pub(crate) async fn long_things_lie_compressed_and_are_read_as_they_were(f: &impl Rows) {
    let store = f.compressing(1000).await;
    let mut asked = task("a");
    asked.input = json!({ "text": long() });
    asked.conversation = Some("c".parse().unwrap());
    let owner = leased(&*store, asked.clone()).await;
    let id = owner.execution.id;
    assert_eq!(owner.execution.input, asked.input);
    let steps = vec![
        note(&owner, 1),
        step(&owner, 2, StepBody::Note { text: long() }),
    ];
    let outcome = Outcome::Completed {
        output: long(),
        structured: None,
        stop: StopReason::EndTurn,
    };
    let then = Then::Finish {
        outcome: outcome.clone(),
        messages: vec![said(&long())],
        digest: None,
    };
    let written = append(&owner, at(1), steps.clone(), then);
    commit(&*store, written.clone()).await;
    commit_again(&*store, written).await;
    store
        .remember(&"a".parse().unwrap(), "k", &json!(long()), "w", at(1))
        .await
        .unwrap();

    // Another handle, with another threshold, reads the same.
    for reader in [store, f.store()] {
        let row = reader.execution(id).await.unwrap().unwrap();
        assert_eq!(row.execution.input, asked.input);
        assert_eq!(row.outcome.as_ref(), Some(&outcome));
        assert_eq!(reader.steps(id, None, 10).await.unwrap(), steps);
        let (agent, conversation) = ("a".parse().unwrap(), "c".parse().unwrap());
        let talk = reader.conversation(&agent, &conversation, 10).await;
        assert_eq!(talk.unwrap(), [said(&long())]);
        let facts = reader.recall(&agent, "k", 10).await.unwrap();
        assert_eq!(facts, [("k".to_owned(), json!(long()))]);
    }
    for (stored, is_long) in [
        (f.stored_task(id).await, true),
        (f.stored_step(id, Seq::new(1)).await, false),
        (f.stored_step(id, Seq::new(2)).await, true),
        (f.stored_result(id).await, true),
    ] {
        assert_eq!(stored.starts_with(MARK), is_long, "{stored:.80}");
        assert!(stored.len() < long().len() / 10);
    }
}

/// The answer to a commit was lost and it is made again: it compares equal, packed or not. (It has given up its lease,
/// so it may also find that lost.)
async fn commit_again(store: &dyn Store, append: store::Append) {
    store.append(append).await.unwrap();
}

pub(crate) async fn rows_from_before_stay_readable(f: &impl Rows) {
    let plain = f.store();
    let owner = leased(&*plain, task("a")).await;
    let id = owner.execution.id;
    let long = step(&owner, 1, StepBody::Note { text: long() });
    commit(
        &*plain,
        append(&owner, at(1), vec![long.clone()], Then::HandBack),
    )
    .await;
    assert!(f.stored_step(id, Seq::new(1)).await.starts_with('{'));
    let packing = f.compressing(100).await;
    assert_eq!(claim_one(&*packing, at(2)).await.steps, [long]);
}

pub(crate) async fn a_bomb_in_a_row_ends_its_execution_alone(f: &impl Rows) {
    let store = f.store();
    // Some bytes that say that they are a kilobyte, and are megabytes.
    let bomb = bomb(8 << 20, 1000);
    let owner = leased(&*store, task("a")).await;
    let id = owner.execution.id;
    commit(
        &*store,
        append(&owner, at(1), vec![note(&owner, 1)], Then::HandBack),
    )
    .await;
    f.write_step(id, Seq::new(1), &bomb).await;
    let healthy = submit(&*store, task("a")).await;
    let error = store.steps(id, None, 10).await.unwrap_err();
    assert_eq!(error.class(), Class::Corrupt);
    assert!(error.to_string().contains("it claims"), "{error}");
    let claimed = claim(&*store, 10, at(2)).await;
    let ids: Vec<_> = claimed.iter().map(|c| c.execution.id).collect();
    assert_eq!(ids, [healthy]);
    let ended = store.execution(id).await.unwrap().unwrap().outcome;
    assert!(
        matches!(&ended, Some(Outcome::Failed(failure)) if failure.code == FailureCode::Corrupt),
        "{ended:?}"
    );
}

fn bomb(length: usize, claims: usize) -> String {
    use std::io::Write;

    use base64::Engine as _;
    let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::fast());
    let piece = vec![b'x'; 1 << 20];
    for _ in 0..length >> 20 {
        encoder.write_all(&piece).unwrap();
    }
    let bytes = encoder.finish().unwrap();
    let text = base64::engine::general_purpose::STANDARD_NO_PAD.encode(bytes);
    format!("{MARK}{claims}:{text}")
}
