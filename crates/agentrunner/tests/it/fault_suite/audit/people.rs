//! What people were asked in the suite: nothing was charged before they said yes, and nothing at all where they said no.
//! The order of the journals is `ledger`'s to look at.

use std::collections::HashMap;

use super::super::agents::{self, Kind};
use super::book::Book;
use super::{Case, Check, Findings};

/// Approvals against the book of the tool.
pub(super) fn check(
    cases: &[Case],
    answered: &HashMap<String, usize>,
    book: &Book,
    findings: &mut Findings,
) {
    for case in cases.iter().filter(|case| case.kind == Kind::Approver) {
        let id = case.row.execution.id.to_string();
        let Some(first) = book.first_call(&case.name) else {
            continue;
        };
        let said = answered.get(&id).copied();
        if agents::is_refused(&case.name) {
            findings.wrong(
                Check::Unasked,
                format!("{} charged, and the person said no", case.name),
            );
        } else if said.is_none_or(|before| first <= before) {
            findings.wrong(
                Check::Unasked,
                format!(
                    "{} charged (call {first}) before the person answered ({said:?})",
                    case.name
                ),
            );
        }
    }
}
