//! Shows an execution while it happens: words as the model says them, tools as they are called, and one line at the
//! end. On a terminal the words go to standard output as they come; otherwise standard output gets the answer alone.

use std::collections::BTreeMap;
use std::time::Instant;

use domain::definition::Provider;
use domain::execution::Totals;
use domain::step::{ModelCall, Question, Remedy, ToolResult};
use domain::{
    CallRef, ExecutionId, Money, Outcome, Planning, Seq, Status, Step, StepBody, ToolOutcome,
};
use engine::LiveEvent;
use indicatif::ProgressBar;

use crate::screen::{Screen, Style, one_line};

const TOOL_LINE: usize = 100;
const THINKING: &str = "waiting for the model";

/// What is said whenever answers come from a script: they must never be taken for a model's.
pub(crate) const SCRIPTED: &str = "scripted: the answers come from a script, not from a model; set OPENAI_API_KEY or ANTHROPIC_API_KEY, or run Ollama, for real ones (docs/cli.md, \"Choosing a provider\")";

/// The view of one execution.
pub(crate) struct Transcript<'a> {
    screen: &'a Screen,
    spinner: ProgressBar,
    /// What was printed of the answer under way.
    said: String,
    /// What was printed of the last whole answer.
    last_said: String,
    tools: BTreeMap<CallRef, String>,
    totals: Totals,
    steps: u32,
    began: Instant,
    /// A script answered, not a model.
    is_scripted: bool,
    is_quiet: bool,
}

impl<'a> Transcript<'a> {
    /// Begins with a spinner.
    pub(crate) fn new(screen: &'a Screen) -> Self {
        let mut transcript = Self {
            screen,
            spinner: ProgressBar::hidden(),
            said: String::new(),
            last_said: String::new(),
            tools: BTreeMap::new(),
            totals: Totals::default(),
            steps: 0,
            began: Instant::now(),
            is_scripted: false,
            is_quiet: screen.json,
        };
        transcript.wait(THINKING);
        transcript
    }

    /// Shows an event. Answers the question, when it asks one.
    pub(crate) fn show(&mut self, event: LiveEvent) -> Option<(Seq, Question)> {
        match event {
            LiveEvent::Delta { text, .. } => self.say(&text),
            LiveEvent::ToolCallBegins { tool, .. } => {
                self.end_line();
                self.wait(&format!("the model calls {}", one_line(&tool, 40)));
            }
            LiveEvent::Supersede { .. } => {
                if !self.said.is_empty() {
                    self.note(Style::Warn, "the answer was cut off and is asked for again");
                    self.said.clear();
                }
            }
            LiveEvent::Step(step) => {
                self.steps += 1;
                return self.step(&step);
            }
        }
        None
    }

    /// Prints the answer, where it was not printed as it came, and the line about the whole.
    pub(crate) fn finish(mut self, id: ExecutionId, outcome: &Outcome) {
        self.end_line();
        self.spinner.finish_and_clear();
        if self.is_quiet {
            return;
        }
        if let Outcome::Completed { output, .. } = outcome
            && *output != self.last_said
        {
            self.screen.line(output.trim_end_matches('\n'));
        }
        let status = outcome.status();
        let (mark, style) = match status {
            Status::Completed => ("✓", Style::Good),
            _ => ("✗", Style::Bad),
        };
        let words = match outcome {
            Outcome::Completed { .. } => status.to_string(),
            other => format!("{status}: {}", one_line(&other.reason(), 500)),
        };
        self.screen.note(format_args!(
            "{} {} {}",
            self.screen.paint(style, mark),
            self.screen.paint(Style::Strong, &words),
            self.screen
                .paint(Style::Faint, &format!("· {} · {id}", self.facts())),
        ));
        if self.is_scripted {
            self.screen.note(self.screen.paint(Style::Warn, SCRIPTED));
        }
    }

    /// Lets something else be printed.
    pub(crate) fn pause(&mut self) {
        self.end_line();
        self.spinner.finish_and_clear();
    }

    /// Goes on after a pause.
    pub(crate) fn resume(&mut self) {
        self.wait(THINKING);
    }

    fn say(&mut self, text: &str) {
        if self.is_quiet || !self.screen.is_terminal || text.is_empty() {
            return;
        }
        self.spinner.finish_and_clear();
        self.said.push_str(text);
        self.screen.piece(text);
    }

    fn wait(&mut self, for_what: &str) {
        self.spinner.finish_and_clear();
        self.spinner = self.screen.spinner(for_what);
    }

    fn step(&mut self, step: &Step) -> Option<(Seq, Question)> {
        match &step.body {
            StepBody::ModelCall(call) => self.model_call(step, call),
            StepBody::ToolResult(result) => self.tool_result(result),
            StepBody::Plan(planning) => self.planning(step.seq, planning),
            StepBody::ChildStarted { call, agent, .. } => {
                self.tools.entry(*call).or_insert_with(|| agent.to_string());
                let text = format!("→ {}", self.name(*call));
                self.note(Style::Faint, &text);
                self.wait("waiting for agents");
            }
            StepBody::ChildFinished { call, outcome, .. } => {
                let text = format!(
                    "← {} {}",
                    self.name(*call),
                    one_line(&outcome.reason(), TOOL_LINE)
                );
                self.note(Style::Faint, &text);
            }
            StepBody::InputRequested(request) => {
                self.question(&request.question);
                return Some((step.seq, request.question.clone()));
            }
            StepBody::Timer { reason, .. } if reason.remedy == Remedy::NoSummary => {}
            StepBody::Timer { reason, .. } => {
                self.note(
                    Style::Warn,
                    &format!(
                        "the model call failed and is tried again: {}",
                        one_line(&reason.message, 300)
                    ),
                );
            }
            StepBody::Note { text } => self.note(Style::Faint, &one_line(text, 300)),
            StepBody::ToolIntent(_) | StepBody::InputReceived(_) | StepBody::Finished { .. } => {}
        }
        None
    }

    fn model_call(&mut self, step: &Step, call: &ModelCall) {
        self.is_scripted |= call.provider == Provider::Scripted;
        self.totals.usage += call.usage;
        self.totals.cost_usd += call.cost_usd.unwrap_or_default();
        if !call.purpose.is_said() {
            // Not the agent's words to whoever asked.
            return;
        }
        if self.said.is_empty() {
            self.say(&call.reply.text);
        }
        self.last_said.clone_from(&self.said);
        self.end_line();
        self.said.clear();
        for (index, wish) in call.reply.tool_calls.iter().enumerate() {
            let index = u16::try_from(index).unwrap_or(u16::MAX);
            self.tools.insert(
                CallRef {
                    turn: step.seq,
                    index,
                },
                wish.name.clone(),
            );
            let text = format!(
                "→ {} {}",
                one_line(&wish.name, 60),
                one_line(&wish.arguments, TOOL_LINE)
            );
            self.note(Style::Faint, &text);
        }
        match call.reply.tool_calls.len() {
            0 => {}
            1 => self.wait("waiting for a tool"),
            n => self.wait(&format!("waiting for {n} tools")),
        }
    }

    /// What a coordinator does with its plan.
    fn planning(&mut self, seq: Seq, planning: &Planning) {
        match planning {
            Planning::Made { plan, .. } => {
                for (step, index) in plan.steps.iter().zip(0..) {
                    let name = format!("{} ({})", step.id, step.agent);
                    let waits: Vec<&str> = step.depends_on.iter().map(|id| id.as_str()).collect();
                    let after = match waits.as_slice() {
                        [] => String::new(),
                        waits => format!(" after {}", waits.join(", ")),
                    };
                    let what = one_line(&step.instruction, TOOL_LINE);
                    self.note(Style::Faint, &format!("· {name}{after}: {what}"));
                    self.tools.insert(CallRef { turn: seq, index }, name);
                }
            }
            Planning::Refused { problems } => {
                let why = one_line(&problems.join("; "), 300);
                self.note(Style::Warn, &format!("asked for again: {why}"));
            }
            Planning::Reviewed { verdicts } => {
                for verdict in verdicts {
                    let text = format!(
                        "✓ {}: {:?} {}",
                        verdict.step,
                        verdict.verdict,
                        one_line(&verdict.feedback, TOOL_LINE)
                    );
                    self.note(Style::Faint, text.to_lowercase().trim_end());
                }
            }
            Planning::Retried { step, why } => {
                let text = format!("{step} is done again: {}", one_line(why, 300));
                self.note(Style::Warn, &text);
            }
            Planning::Dropped { step, why } => {
                let text = format!("{step} is left out: {}", one_line(why, 300));
                self.note(Style::Warn, &text);
            }
            Planning::Replanned { why } => {
                let text = format!("planned anew: {}", one_line(why, 300));
                self.note(Style::Warn, &text);
            }
            Planning::NotStarted { why, .. } => {
                self.note(Style::Warn, &format!("not begun: {}", one_line(why, 300)));
            }
            Planning::Team { .. } | Planning::Judged { .. } => {}
        }
        self.wait(THINKING);
    }

    fn tool_result(&mut self, result: &ToolResult) {
        let name = self.name(result.call);
        let (style, text) = match &result.outcome {
            ToolOutcome::Succeeded { content, .. } => (Style::Faint, one_line(content, TOOL_LINE)),
            ToolOutcome::Failed { message } => {
                (Style::Warn, format!("failed: {}", one_line(message, 300)))
            }
            ToolOutcome::Refused { message } => {
                (Style::Warn, format!("refused: {}", one_line(message, 300)))
            }
            ToolOutcome::Unknown { message } => (
                Style::Bad,
                format!("outcome unknown: {}", one_line(message, 300)),
            ),
        };
        self.note(style, &format!("← {name} {} ms · {text}", result.took_ms));
        self.wait(THINKING);
    }

    fn question(&mut self, question: &Question) {
        let text = match question {
            Question::Clarification { text } => text.clone(),
            Question::Approval { tool, arguments } => {
                format!("May {tool} be called with {arguments}?")
            }
            Question::Plan { .. } => "May this plan be carried out?".to_owned(),
            Question::UnknownOutcome {
                tool,
                arguments,
                known,
                ..
            } => {
                format!("Did the call of {tool} with {arguments} happen? {known}")
            }
        };
        // Whole, not shortened: who allows a call must see exactly what is allowed.
        let text = crate::screen::printable(&text).into_owned();
        self.note(Style::Strong, &format!("? {text}"));
    }

    fn name(&self, call: CallRef) -> String {
        self.tools
            .get(&call)
            .map_or_else(|| call.to_string(), |name| one_line(name, 60))
    }

    /// Progress: on standard error, on a line of its own.
    fn note(&mut self, style: Style, text: &str) {
        self.end_line();
        self.spinner.finish_and_clear();
        if !self.is_quiet {
            self.screen.note(self.screen.paint(style, text));
        }
    }

    fn end_line(&mut self) {
        if !self.said.is_empty() && !self.said.ends_with('\n') {
            self.screen.piece("\n");
            self.said.push('\n');
        }
    }

    /// What it took, in a few words.
    fn facts(&self) -> String {
        let Totals {
            usage, cost_usd, ..
        } = &self.totals;
        let mut facts = format!(
            "{} step{} · {} tokens ({} in, {} out)",
            self.steps,
            if self.steps == 1 { "" } else { "s" },
            usage.total(),
            usage.input_tokens,
            usage.output_tokens
        );
        if *cost_usd > Money::ZERO {
            facts.push_str(&format!(" · {cost_usd}"));
        }
        facts.push_str(&format!(" · {:.2} s", self.began.elapsed().as_secs_f64()));
        facts
    }
}
