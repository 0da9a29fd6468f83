//! What people were asked and said: each question has one answer at most, and what needs a yes is done after it.

use std::collections::HashMap;

use domain::step::{Answer, Question};
use domain::{CallRef, Seq, StepBody};

use super::{Entry, Flaw, Rule, flaw};

/// Questions, answers and intents by the order of the journal.
pub(super) fn check(entry: &Entry, flaws: &mut Vec<Flaw>) {
    let name = entry.name();
    let mut wrong = |what: String| flaws.push(flaw(Rule::Unasked, format!("{name}: {what}")));
    let mut open: HashMap<Seq, (CallRef, bool)> = HashMap::new();
    // What may be called: nothing is known of a call that nobody was asked about.
    let mut allowed: HashMap<CallRef, bool> = HashMap::new();
    for step in &entry.steps {
        match &step.body {
            StepBody::InputRequested(request) => {
                let needs_yes = matches!(request.question, Question::Approval { .. });
                open.insert(step.seq, (request.call, needs_yes));
                if needs_yes {
                    allowed.insert(request.call, false);
                }
            }
            StepBody::InputReceived(received) => {
                let Some((call, needs_yes)) = open.remove(&received.request) else {
                    wrong(format!("a second answer to {}", received.request));
                    continue;
                };
                let is_yes = matches!(received.answer, Answer::Approve | Answer::Edit { .. });
                if needs_yes {
                    allowed.insert(call, is_yes);
                }
            }
            StepBody::ToolIntent(intent) if allowed.get(&intent.call) == Some(&false) => {
                wrong(format!("{} was called without a yes", intent.call));
            }
            _ => {}
        }
    }
    if entry.is_completed() && !open.is_empty() {
        wrong(format!("completed with open questions: {open:?}"));
    }
}
