//! The audit log.

use store::{AuditChain, AuditFilter, AuditRow, Page, Store};
use uuid::Uuid;

use super::Fixture;
use super::given::at;

fn chain(n: u8, head: &str) -> AuditChain {
    AuditChain {
        chain: Uuid::from_bytes([n; 16]),
        anchor: format!("anchor {n}"),
        head: head.to_owned(),
    }
}

/// The row `seq` of chain `n`, that many seconds after the others of this chain.
fn row(n: u8, seq: u64) -> AuditRow {
    AuditRow {
        chain: Uuid::from_bytes([n; 16]),
        seq,
        at: at(i64::from(n) * 100 + i64::try_from(seq).unwrap()),
        who: if seq.is_multiple_of(2) { "ada" } else { "ops" }.to_owned(),
        action: "DELETE /tasks/{id}".to_owned(),
        target: format!("/tasks/{seq} \u{2713}"),
        outcome: if n == 1 { "done" } else { "denied" }.to_owned(),
        trace_id: format!("trace-{n}"),
        line: format!("{{\"seq\":{seq}}}"),
    }
}

fn page(limit: usize, after: Option<&AuditRow>) -> AuditFilter {
    AuditFilter {
        page: Page {
            limit,
            after: after.map(AuditRow::place),
        },
        ..AuditFilter::default()
    }
}

async fn fill(store: &dyn Store) {
    for (n, count) in [(1, 3), (2, 2)] {
        let rows = (1..=count).map(|seq| row(n, seq)).collect();
        store.append_audit(chain(n, "first"), rows).await.unwrap();
    }
}

pub(crate) async fn acts_are_kept_once_and_listed_newest_first(f: &impl Fixture) {
    let store = f.store();
    fill(&*store).await;
    let again = chain(1, "second");
    let rows = vec![row(1, 3), row(1, 4)];
    store.append_audit(again, rows).await.unwrap();
    let first = store.audit_rows(page(3, None)).await.unwrap();
    assert_eq!(first, [row(2, 2), row(2, 1), row(1, 4)]);
    let rest = store.audit_rows(page(9, first.last())).await.unwrap();
    assert_eq!(rest, [row(1, 3), row(1, 2), row(1, 1)]);
    let chains = store.audit_chains().await.unwrap();
    let wanted = [
        AuditChain {
            anchor: "anchor 1".to_owned(),
            ..chain(1, "second")
        },
        chain(2, "first"),
    ];
    assert_eq!(chains, wanted);
    let of = |after| store.audit_chain(Uuid::from_bytes([1; 16]), after, 2);
    assert_eq!(of(0).await.unwrap(), [row(1, 1), row(1, 2)]);
    assert_eq!(of(3).await.unwrap(), [row(1, 4)]);
}

pub(crate) async fn acts_are_found_by_who_what_and_when(f: &impl Fixture) {
    let store = f.store();
    fill(&*store).await;
    let found = async |filter: AuditFilter| {
        let rows = store.audit_rows(filter).await.unwrap();
        let places: Vec<_> = rows
            .iter()
            .map(|row| (row.chain.as_bytes()[0], row.seq))
            .collect();
        places
    };
    let text = |text: &str| Some(text.to_owned());
    let all = || page(100, None);
    let who = AuditFilter {
        who: text("ada"),
        ..all()
    };
    assert_eq!(found(who).await, [(2, 2), (1, 2)]);
    let action = AuditFilter {
        action: text("delete /t"),
        ..all()
    };
    assert_eq!(found(action).await.len(), 5);
    let action = AuditFilter {
        action: text("_"),
        ..all()
    };
    assert_eq!(found(action).await, []);
    let outcome = AuditFilter {
        outcome: text("denied"),
        ..all()
    };
    assert_eq!(found(outcome).await, [(2, 2), (2, 1)]);
    let trace = AuditFilter {
        trace_id: text("trace-1"),
        ..all()
    };
    assert_eq!(found(trace).await.len(), 3);
    let between = AuditFilter {
        since: Some(row(1, 2).at),
        until: Some(row(2, 1).at),
        ..all()
    };
    assert_eq!(found(between).await, [(1, 3), (1, 2)]);
}

pub(crate) async fn a_forgotten_beginning_leaves_its_mark(f: &impl Fixture) {
    let store = f.store();
    fill(&*store).await;
    let (one, two) = (Uuid::from_bytes([1; 16]), Uuid::from_bytes([2; 16]));
    let before = async |chain, time| store.audit_before(chain, time).await.unwrap();
    assert_eq!(before(one, row(1, 1).at).await, None);
    assert_eq!(before(one, row(1, 3).at).await, Some(row(1, 2)));
    assert_eq!(before(two, row(9, 1).at).await, Some(row(2, 2)));
    for _ in 0..2 {
        store.forget_audit(one, 2, "cut").await.unwrap();
        store.forget_audit(two, 2, "cut").await.unwrap();
    }
    assert_eq!(store.audit_rows(page(9, None)).await.unwrap(), [row(1, 3)]);
    let left = AuditChain {
        anchor: "cut".to_owned(),
        ..chain(1, "first")
    };
    assert_eq!(store.audit_chains().await.unwrap(), [left]);
}
