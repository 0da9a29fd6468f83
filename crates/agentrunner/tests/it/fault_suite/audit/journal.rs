//! What a journal must be by itself.

use domain::State;
use domain::StepBody;
use domain::state::Turn;

use super::{Case, Check, Findings};

/// Positions without gap, owners one after the other, one end, and a replay that leads to what the row says.
pub(super) fn check(case: &Case, findings: &mut Findings) {
    let Case {
        name, row, steps, ..
    } = case;
    let positions = steps.iter().map(|step| step.seq.get());
    if !positions.eq(1..=u32::try_from(steps.len()).expect("few")) {
        findings.wrong(Check::Replay, format!("{name}: positions with a gap"));
    }
    let follows = |pair: &[domain::Step]| pair[0].epoch <= pair[1].epoch;
    if !steps.windows(2).all(follows) || steps.last().is_some_and(|step| step.epoch > row.epoch) {
        let epochs: Vec<u32> = steps.iter().map(|step| step.epoch.get()).collect();
        findings.wrong(
            Check::TwoWriters,
            format!("{name}: epochs {epochs:?}, the row's {:?}", row.epoch),
        );
    }
    let ends = steps
        .iter()
        .filter(|step| matches!(step.body, StepBody::Finished { .. }));
    // One that nobody had begun may end without a journal.
    let ends = ends.count();
    let is_untouched = steps.is_empty() && row.status.is_terminal();
    if row.status.is_terminal() && ends != 1 && !is_untouched {
        findings.wrong(Check::Lost, format!("{name}: {ends} ends"));
    }
    if steps.len() != row.steps as usize {
        findings.wrong(
            Check::Replay,
            format!("{name}: {} steps, the row says {}", steps.len(), row.steps),
        );
    }
    match State::replay(&row.execution, steps) {
        Err(illegal) => findings.wrong(Check::Replay, format!("{name}: {illegal}")),
        Ok(_) if is_untouched => {}
        Ok(state) => {
            let outcome = match &state.turn {
                Turn::Done(outcome) => Some(outcome),
                _ => None,
            };
            if outcome != row.outcome.as_ref() || state.totals != row.totals {
                findings.wrong(
                    Check::Replay,
                    format!(
                        "{name}: replayed to {outcome:?} and {:?}, the row says {:?} and {:?}",
                        state.totals, row.outcome, row.totals
                    ),
                );
            }
        }
    }
}
