//! Checking the chains of the table, and forgetting their beginnings without breaking them.

use std::path::PathBuf;

use domain::Time;
use secrecy::SecretString;
use store::{AuditChain, AuditRow, Audits};

use super::chain::{End, Seal, split};
use super::table::{Columns, Mark, Place, beginning};
use super::verify::{Check, Verdict};

/// How many rows are read at once.
const PAGE: usize = 1000;

/// Checks all chains of the table: which rows were changed, are missing, or stand in another place.
///
/// # Errors
/// The store can't be read.
pub async fn verify_table(
    store: &dyn Audits,
    key: Option<&SecretString>,
) -> store::Result<(usize, Verdict)> {
    let seal = Seal::new(key);
    let mut verdict = Verdict::default();
    let chains = store.audit_chains().await?;
    for chain in &chains {
        let mut check = Check::new(seal.clone(), verdict);
        one(store, &seal, chain, &mut check).await?;
        verdict = check.verdict;
    }
    // Numbers of several chains together tell nothing.
    verdict.span = None;
    Ok((chains.len(), verdict))
}

async fn one(
    store: &dyn Audits,
    seal: &Seal,
    chain: &AuditChain,
    check: &mut Check,
) -> store::Result<()> {
    let place = PathBuf::from(format!("audit_log/{}", chain.chain));
    let mark = |of, text: &str| Mark::read(seal, of, chain.chain, text);
    let anchor = mark(Place::Anchor, &chain.anchor);
    let head = mark(Place::Head, &chain.head);
    if anchor.is_none() || head.is_none() {
        let message = "its row in audit_chains is missing, or was changed";
        check.flaw(&place, 0, message.to_owned());
    }
    check.expect(anchor.unwrap_or_else(|| beginning(seal, chain.chain)));
    let mut after = 0;
    loop {
        let rows = store.audit_chain(chain.chain, after, PAGE).await?;
        for row in &rows {
            let number = usize::try_from(row.seq).unwrap_or(usize::MAX);
            check.verdict.lines += 1;
            check.line(&place, number, &row.line);
            if !is_itself(row) {
                let message = format!(
                    "row {} was changed: its columns are not its line's",
                    row.seq
                );
                check.flaw(&place, number, message);
            }
            after = row.seq;
        }
        if rows.len() < PAGE {
            break;
        }
    }
    if let Some(head) = head {
        check.end(&place, &head);
    }
    Ok(())
}

/// Whether the columns say what the line says. A line that can't be read was told of before.
fn is_itself(row: &AuditRow) -> bool {
    match Columns::of(&row.line) {
        Ok(columns) => columns.row(row.chain, row.line.clone()) == *row,
        Err(_) => true,
    }
}

/// Forgets rows that are older than `before`, or only counts them; answers how many. What is kept can still be checked.
pub(super) async fn forget(
    store: &dyn Audits,
    seal: &Seal,
    before: Time,
    dry_run: bool,
) -> store::Result<u64> {
    let mut gone = 0;
    for chain in store.audit_chains().await? {
        let Some(row) = store.audit_before(chain.chain, before).await? else {
            continue;
        };
        let Some((open, hash)) = split(&row.line) else {
            // It was changed; whoever verifies shall see it.
            continue;
        };
        // So was one whose columns are not its line's, or whose line is not what was hashed: nothing is signed for it.
        if !is_itself(&row) || seal.of(open) != hash {
            continue;
        }
        let first = store.audit_chain(chain.chain, 0, 1).await?;
        // The numbers of a chain have no gaps.
        gone += first
            .first()
            .map_or(0, |first| (row.seq + 1).saturating_sub(first.seq));
        if dry_run {
            continue;
        }
        let end = End {
            seq: row.seq,
            hash: hash.to_owned(),
        };
        let anchor = Mark::new(seal, Place::Anchor, chain.chain, &end).text();
        store.forget_audit(chain.chain, row.seq, &anchor).await?;
    }
    Ok(gone)
}
