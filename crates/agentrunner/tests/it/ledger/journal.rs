//! What a journal must be by itself.

use domain::state::Turn;
use domain::{Execution, Message, Purpose, State, StepBody};

use super::{Entry, Flaw, Rule, flaw};

/// Positions without gap, owners one after the other, one end, and a replay that leads to what the row says.
pub(super) fn check(entry: &Entry, flaws: &mut Vec<Flaw>) {
    let Entry { row, steps } = entry;
    let name = entry.name();
    let positions = steps.iter().map(|step| step.seq.get());
    if !positions.eq(1..=u32::try_from(steps.len()).expect("few")) {
        flaws.push(flaw(Rule::I8, format!("{name}: positions with a gap")));
    }
    let follows = |pair: &[domain::Step]| pair[0].epoch <= pair[1].epoch;
    if !steps.windows(2).all(follows) || steps.last().is_some_and(|step| step.epoch > row.epoch) {
        let epochs: Vec<u32> = steps.iter().map(|step| step.epoch.get()).collect();
        let what = format!("{name}: epochs {epochs:?}, the row's {:?}", row.epoch);
        flaws.push(flaw(Rule::I2, what));
    }
    let ends = steps
        .iter()
        .filter(|step| matches!(step.body, StepBody::Finished { .. }));
    // One that nobody had begun may end without a journal.
    let ends = ends.count();
    let is_untouched = steps.is_empty() && row.status.is_terminal();
    if row.status.is_terminal() && ends != 1 && !is_untouched {
        flaws.push(flaw(Rule::I3, format!("{name}: {ends} ends")));
    }
    if !row.status.is_terminal() {
        let what = format!(
            "{name} is {} after {} steps: {:?}, due {:?}, epoch {:?}, worker {:?}",
            row.status,
            steps.len(),
            row.status_reason,
            row.due_at,
            row.epoch,
            row.worker
        );
        flaws.push(flaw(Rule::I3, what));
    }
    if steps.len() != row.steps as usize {
        let what = format!("{name}: {} steps, the row says {}", steps.len(), row.steps);
        flaws.push(flaw(Rule::I8, what));
    }
    replay(entry, is_untouched, flaws);
}

fn replay(entry: &Entry, is_untouched: bool, flaws: &mut Vec<Flaw>) {
    let Entry { row, steps } = entry;
    let name = entry.name();
    match State::replay(&with_history(entry), steps) {
        Err(illegal) => flaws.push(flaw(Rule::I8, format!("{name}: {illegal}"))),
        Ok(_) if is_untouched => {}
        Ok(state) => {
            let outcome = match &state.turn {
                Turn::Done(outcome) => Some(outcome),
                _ => None,
            };
            if outcome != row.outcome.as_ref() || state.totals != row.totals {
                let what = format!(
                    "{name}: replayed to {outcome:?} and {:?}, the row says {:?} and {:?}",
                    state.totals, row.outcome, row.totals
                );
                flaws.push(flaw(Rule::I8, what));
            }
        }
    }
}

/// The execution as it was performed. What its conversation held when its turn came is not kept with it, and its outcome
/// and totals don't depend on the words; but a summary needs the messages that it covers.
fn with_history(entry: &Entry) -> Execution {
    let mut execution = entry.row.execution.clone();
    let covers = entry.steps.iter().filter_map(|step| match &step.body {
        StepBody::ModelCall(call) => match call.purpose {
            Purpose::Summary { covers } => Some(covers as usize),
            _ => None,
        },
        _ => None,
    });
    if execution.conversation.is_some() && execution.history.is_empty() {
        let text = String::new();
        execution.history = vec![Message::User { text }; covers.max().unwrap_or_default()];
    }
    execution
}
