//! Rows that are written, damaged in the database, forgotten and checked.

use std::sync::Mutex;

use async_trait::async_trait;
use store::{AuditChain, AuditFilter, AuditRow, Audits, Result};
use uuid::Uuid;

use super::chain::{Seal, link};
use super::table::{Columns, Mark, Place, beginning};
use super::*;

/// Tables in which anything can be changed.
#[derive(Default)]
struct Tables {
    rows: Mutex<Vec<AuditRow>>,
    chains: Mutex<Vec<AuditChain>>,
}

#[async_trait]
impl Audits for Tables {
    async fn append_audit(&self, _: AuditChain, _: Vec<AuditRow>) -> Result<()> {
        unreachable!("rows are put in by the test")
    }
    async fn audit_rows(&self, _: AuditFilter) -> Result<Vec<AuditRow>> {
        unreachable!("nobody lists them")
    }
    async fn audit_chains(&self) -> Result<Vec<AuditChain>> {
        Ok(self.chains.lock().unwrap().clone())
    }
    async fn audit_chain(&self, chain: Uuid, after: u64, limit: usize) -> Result<Vec<AuditRow>> {
        let mut rows = self.rows.lock().unwrap().clone();
        rows.retain(|row| row.chain == chain && row.seq > after);
        rows.sort_by_key(|row| row.seq);
        rows.truncate(limit);
        Ok(rows)
    }
    async fn audit_before(&self, chain: Uuid, time: Time) -> Result<Option<AuditRow>> {
        let rows = self.audit_chain(chain, 0, usize::MAX).await?;
        Ok(rows.into_iter().take_while(|row| row.at < time).last())
    }
    async fn forget_audit(&self, chain: Uuid, through: u64, anchor: &str) -> Result<()> {
        let is_old = |row: &AuditRow| row.chain == chain && row.seq <= through;
        self.rows.lock().unwrap().retain(|row| !is_old(row));
        for known in self.chains.lock().unwrap().iter_mut() {
            if known.chain == chain {
                anchor.clone_into(&mut known.anchor);
            }
        }
        Ok(())
    }
}

const CHAINS: [Uuid; 2] = [Uuid::from_u128(1), Uuid::from_u128(2)];
const KEY: &str = "a key of the audit log";

fn record(n: i64) -> Record {
    Record {
        at: Time::from_timestamp_nanos(n * 1_000_000_123),
        who: Who {
            kind: "key",
            id: None,
            name: "a\0da\u{202e}".to_owned(),
        },
        from: None,
        action: "POST /tasks".to_owned(),
        target: format!("/tasks/{n}\n\"x\""),
        outcome: "denied",
        status: Some(403),
        code: None,
        trace_id: "0af7651916cd43dd8448eb211c80319c".to_owned(),
        details: Map::new(),
    }
}

/// Two chains of four rows each.
fn tables(seal: &Seal) -> Tables {
    let tables = Tables::default();
    for chain in CHAINS {
        let start = beginning(seal, chain);
        let mut end = start.clone();
        for n in 1..=4 {
            let mut line = String::new();
            end = link(seal, &mut line, &end, &record(n)).unwrap();
            let row = Columns::of(&line).unwrap().row(chain, line);
            tables.rows.lock().unwrap().push(row);
        }
        tables.chains.lock().unwrap().push(AuditChain {
            chain,
            anchor: Mark::new(seal, Place::Anchor, chain, &start).text(),
            head: Mark::new(seal, Place::Head, chain, &end).text(),
        });
    }
    tables
}

async fn flaws(tables: &Tables) -> Vec<(String, usize, String)> {
    let key = SecretString::from(KEY);
    let (_, verdict) = verify_table(tables, Some(&key)).await.unwrap();
    let flaws = verdict.flaws.into_iter();
    flaws
        .map(|flaw| (flaw.file.display().to_string(), flaw.line, flaw.message))
        .collect()
}

/// What is told after a change of the row `seq` of the second chain.
async fn told(change: impl FnOnce(&mut AuditRow)) -> Vec<(String, usize, String)> {
    let tables = tables(&Seal::new(Some(&KEY.into())));
    {
        let mut rows = tables.rows.lock().unwrap();
        change(
            rows.iter_mut()
                .find(|row| row.chain == CHAINS[1] && row.seq == 3)
                .unwrap(),
        );
    }
    flaws(&tables).await
}

#[tokio::test]
async fn rows_are_whole_and_nothing_in_their_columns_reaches_a_terminal() {
    let tables = tables(&Seal::new(Some(&KEY.into())));
    assert_eq!(flaws(&tables).await, []);
    let rows = tables.rows.lock().unwrap();
    assert_eq!(rows[0].target, r#"/tasks/1\n\"x\""#);
    assert_eq!(rows[0].who, r"a\u0000da\u202e");
}

#[tokio::test]
async fn a_changed_row_is_named_whatever_was_changed() {
    let place = format!("audit_log/{}", CHAINS[1]);
    let changes: [fn(&mut AuditRow); 5] = [
        |row| row.outcome = "done".to_owned(),
        |row| row.who = "eve".to_owned(),
        |row| row.at += domain::TimeDelta::microseconds(1),
        |row| row.line = row.line.replace("denied", "done"),
        |row| row.line = "gone".to_owned(),
    ];
    for change in changes {
        let told = told(change).await;
        assert_eq!(
            (told[0].0.as_str(), told[0].1),
            (place.as_str(), 3),
            "{told:?}"
        );
        assert!(told[0].2.contains("changed"), "{told:?}");
    }
}

#[tokio::test]
async fn missing_and_moved_rows_are_named() {
    let whole = || tables(&Seal::new(Some(&KEY.into())));
    let told = async |tables: &Tables, part: &str| {
        let flaws = flaws(tables).await;
        assert!(
            flaws.iter().any(|flaw| flaw.2.contains(part)),
            "{part}: {flaws:?}"
        );
    };
    let remove = |tables: &Tables, seqs: &[u64]| {
        let is_gone = |row: &AuditRow| row.chain == CHAINS[0] && seqs.contains(&row.seq);
        tables.rows.lock().unwrap().retain(|row| !is_gone(row));
    };
    for (seqs, part) in [
        (&[2][..], "line 2 of the log is missing"),
        (&[1], "line 1 of the log is missing"),
        (&[3, 4], "lines 3 to 4 of the log are missing at its end"),
        (
            &[1, 2, 3, 4],
            "lines 1 to 4 of the log are missing at its end",
        ),
    ] {
        let tables = whole();
        remove(&tables, seqs);
        told(&tables, part).await;
    }
    let tables = whole();
    {
        let mut rows = tables.rows.lock().unwrap();
        rows[1].seq = 3;
        rows[2].seq = 2;
    }
    told(&tables, "its columns are not its line's").await;
    // Whoever has no key can't say that a chain ends earlier, or that its beginning was forgotten.
    let tables = whole();
    remove(&tables, &[4]);
    {
        let mut chains = tables.chains.lock().unwrap();
        chains[0].head = chains[0].head.replace("\"seq\":4", "\"seq\":3");
    }
    told(
        &tables,
        "its row in audit_chains is missing, or was changed",
    )
    .await;
}

#[tokio::test]
async fn one_end_of_a_chain_can_not_stand_for_the_other() {
    let tables = tables(&Seal::new(Some(&KEY.into())));
    tables
        .rows
        .lock()
        .unwrap()
        .retain(|row| row.chain != CHAINS[0]);
    {
        let mut chains = tables.chains.lock().unwrap();
        chains[0].anchor = chains[0].head.clone();
    }
    let flaws = flaws(&tables).await;
    assert!(flaws[0].2.contains("was changed"), "{flaws:?}");
}

#[tokio::test]
async fn nothing_is_signed_for_a_row_that_was_made_older() {
    let seal = Seal::new(Some(&KEY.into()));
    let tables = tables(&seal);
    let long_ago = Time::from_timestamp_nanos(1);
    tables
        .rows
        .lock()
        .unwrap()
        .iter_mut()
        .for_each(|row| row.at = long_ago);
    let gone = table_verify::forget(&tables, &seal, Time::from_timestamp_nanos(2), false).await;
    assert_eq!(gone.unwrap(), 0);
    assert_eq!(tables.rows.lock().unwrap().len(), 8);
    assert_eq!(flaws(&tables).await.len(), 8);
}

#[tokio::test]
async fn what_is_forgotten_leaves_a_chain_that_can_be_checked() {
    let seal = Seal::new(Some(&KEY.into()));
    let tables = tables(&seal);
    let before = Time::from_timestamp_nanos(3_000_000_000);
    for (dry_run, gone, left) in [(true, 4, 8), (false, 4, 4), (false, 0, 4)] {
        let told = table_verify::forget(&tables, &seal, before, dry_run).await;
        assert_eq!(told.unwrap(), gone);
        assert_eq!(tables.rows.lock().unwrap().len(), left);
    }
    assert_eq!(flaws(&tables).await, []);
    tables.rows.lock().unwrap().retain(|row| row.seq != 3);
    assert_eq!(flaws(&tables).await.len(), 2);
}
