//! What a coordinator does next.

use super::{
    About, Asked, Member, Part, Planning, Standing, Team, Terms, Verdict, VerdictKind, read,
};
use crate::Time;
use crate::decide::people::{Silence, TIME_OUT, silence, until};
use crate::decide::{Facts, expiry, limits};
use crate::definition::{
    Definition, OnApprovalTimeout, OnClarificationTimeout, OnStepFailure, PlanningStrategy,
};
use crate::execution::{Execution, FailureCode};
use crate::id::{AgentName, ExecutionId, PlanStepId};
use crate::message::StopReason;
use crate::nearest::nearest;
use crate::plan::{self, Draft, DraftStep, Drafted};
use crate::prompt::Purpose;
use crate::state::State;
use crate::step::{Answer, CallRef, InputReceived, InputRequest, Question, StepBody};

/// How many agents a planner is told of.
const MOST_MEMBERS: usize = 100;
/// How much of a member's description it is told, in characters.
const MOST_WORDS: usize = 400;
/// The longest question that a person is asked, in characters.
const MOST_ASKED: usize = 4000;

/// The next thing.
pub(crate) enum Next {
    /// Journal these.
    Record(Vec<StepBody>),
    /// Ask the coordinator's model.
    Ask(Purpose),
    /// Nothing before something comes, or this time.
    Wait(Option<Time>),
    /// It can't come to a good end.
    Fail(FailureCode, String),
    /// The same, because nobody answered: with that to journal first.
    Unanswered(InputReceived, String),
}

fn record(planning: Planning) -> Next {
    Next::Record(vec![StepBody::Plan(Box::new(planning))])
}

/// Names the next thing for a coordinator whose answer is not there yet.
pub(crate) fn next(
    definition: &Definition,
    execution: &Execution,
    state: &State,
    facts: &Facts,
) -> Next {
    let Some(team) = &state.team else {
        return form(definition, execution, facts);
    };
    let look = Look {
        team,
        definition,
        execution,
        state,
        facts,
    };
    if let Some(asked) = &team.asked {
        return look.wait_for_answer(asked);
    }
    if let Some(why) = &team.denied {
        return Next::Fail(FailureCode::PlanRejected, why.clone());
    }
    match team.unread.as_ref().map(|unread| unread.about) {
        Some(About::Plan) => return look.read_plan(),
        Some(About::Review) => return look.read_review(),
        Some(About::Judgement) => return look.read_judgement(),
        None => {}
    }
    let Some(current) = &team.plan else {
        return match team.terms.strategy {
            PlanningStrategy::Consensus => look.ask_everybody(),
            PlanningStrategy::Hierarchical | PlanningStrategy::Sequential => {
                Next::Ask(Purpose::Plan)
            }
        };
    };
    if !current.is_approved {
        return look.ask_for_approval(current);
    }
    look.work()
}

/// Finds out who may take part.
fn form(definition: &Definition, execution: &Execution, facts: &Facts) -> Next {
    let terms = Terms::new(definition, execution);
    let deepest = execution.deepest(definition.max_delegation_depth);
    if execution.depth() >= deepest {
        let message =
            format!("agents delegate at most {deepest} deep here, so it can't have a team");
        return Next::Fail(FailureCode::PlanInvalid, message);
    }
    let preferred = definition
        .collaborative_config
        .as_ref()
        .map_or(&[] as &[AgentName], |config| {
            &config.preferred_collaborators
        });
    let others = |member: &&Member| member.agent != execution.agent;
    let known: Vec<&Member> = facts.agents.iter().filter(others).collect();
    let members: Vec<Member> = if preferred.is_empty() {
        known.into_iter().take(MOST_MEMBERS).map(told).collect()
    } else {
        let find = |name: &AgentName| known.iter().find(|member| member.agent == *name);
        preferred.iter().filter_map(find).map(|m| told(m)).collect()
    };
    let least = terms.min_agents.max(1);
    if members.len() < least as usize {
        let message = nobody(preferred, &members, &facts.agents, least);
        return Next::Fail(FailureCode::PlanInvalid, message);
    }
    record(Planning::Team { members, terms })
}

fn told(member: &Member) -> Member {
    Member {
        agent: member.agent.clone(),
        description: member.description.chars().take(MOST_WORDS).collect(),
    }
}

/// Why there is no team, and what to do.
fn nobody(preferred: &[AgentName], found: &[Member], known: &[Member], least: u32) -> String {
    let is_found = |name: &&AgentName| !found.iter().any(|member| member.agent == **name);
    let missing = preferred.iter().filter(is_found).map(|name| {
        let all = known.iter().map(|member| member.agent.as_str());
        nearest(name.as_str(), all).map_or_else(
            || name.to_string(),
            |meant| format!("{name} (did you mean {meant}?)"),
        )
    });
    let missing: Vec<String> = missing.collect();
    let missing = if missing.is_empty() {
        String::new()
    } else {
        format!(
            "; these of preferred_collaborators take no work: {}",
            missing.join(", ")
        )
    };
    format!(
        "a team needs {least} agents beside the coordinator, and there are {}{missing}",
        found.len()
    )
}

/// Everything that the decision depends on.
struct Look<'a> {
    team: &'a Team,
    definition: &'a Definition,
    execution: &'a Execution,
    state: &'a State,
    facts: &'a Facts,
}

impl Look<'_> {
    fn wait_for_answer(&self, asked: &Asked) -> Next {
        let expiry = expiry(asked.until);
        if expiry > self.facts.now {
            return Next::Wait(Some(expiry));
        }
        let received = |answer| InputReceived {
            request: asked.request,
            answer,
            by: TIME_OUT.to_owned(),
        };
        let answer = match silence(self.definition, &asked.question) {
            Silence::Expired => Answer::Expired,
            Silence::Consent => Answer::Approve,
            Silence::Failure => {
                let message = format!(
                    "nobody answered the {} of the coordinator by {}, and the agent says to fail then",
                    asked.question.kind(),
                    asked.until.to_rfc3339()
                );
                return Next::Unanswered(received(Answer::Expired), message);
            }
        };
        Next::Record(vec![StepBody::InputReceived(received(answer))])
    }

    /// Looks at what the planner, or a person, wrote.
    fn read_plan(&self) -> Next {
        let Some(unread) = &self.team.unread else {
            return Next::Wait(None);
        };
        if unread.stop == StopReason::Refusal {
            let message = format!("the model declined to plan: {}", unread.text);
            return Next::Fail(FailureCode::ModelRefused, message);
        }
        let problems = match plan::read(&unread.text) {
            Ok(Drafted::Question(question)) if unread.by.is_none() => {
                if self.team.terms.may_ask && self.team.questions < super::MAX_QUESTIONS {
                    return self.ask_person(&question);
                }
                vec!["nobody can be asked: plan with what you know".to_owned()]
            }
            Ok(Drafted::Question(_)) => vec!["it is no plan".to_owned()],
            Ok(Drafted::Plan(draft)) => {
                match self.team.rules(&self.execution.agent).check(&draft) {
                    Ok(plan) => {
                        let by = unread.by.clone();
                        return record(Planning::Made { plan, by });
                    }
                    Err(problems) => problems,
                }
            }
            Err(why) if unread.stop == StopReason::MaxTokens => vec![format!(
                "{why}; the answer was cut off at max_tokens, so make a shorter plan"
            )],
            Err(why) => vec![why],
        };
        if unread.by.is_none() && self.team.refusals >= super::MAX_REPAIRS {
            let message = format!(
                "the planner made no plan that can be carried out, also after {} requests: {}",
                super::MAX_REPAIRS,
                problems.join("; ")
            );
            return Next::Fail(FailureCode::PlanInvalid, message);
        }
        record(Planning::Refused { problems })
    }

    fn read_review(&self) -> Next {
        let text = self.team.unread.as_ref().map_or("", |unread| &unread.text);
        let problems = match read::verdicts(self.team, text) {
            Ok(verdicts) => return record(Planning::Reviewed { verdicts }),
            Err(problems) => problems,
        };
        if self.team.refusals < super::MAX_REPAIRS {
            return record(Planning::Refused { problems });
        }
        // The review is a help, not a need: what agents did must not be lost by a reviewer who can't say what it thinks.
        let verdicts = self.team.delivered().map(|part| Verdict {
            step: part.step.id.clone(),
            verdict: VerdictKind::Accept,
            feedback: format!("not reviewed: {}", problems.join("; ")),
        });
        let verdicts = verdicts.collect();
        record(Planning::Reviewed { verdicts })
    }

    fn read_judgement(&self) -> Next {
        let text = self.team.unread.as_ref().map_or("", |unread| &unread.text);
        let problems = match read::judgement(self.team, text) {
            Ok((chosen, reason)) => return record(Planning::Judged { chosen, reason }),
            Err(problems) => problems,
        };
        if self.team.refusals < super::MAX_REPAIRS {
            return record(Planning::Refused { problems });
        }
        let all = self.team.parts.iter().filter(|part| part.is_accepted());
        record(Planning::Judged {
            chosen: all.map(|part| part.step.id.clone()).collect(),
            reason: format!("nobody has judged them: {}", problems.join("; ")),
        })
    }

    fn ask_person(&self, question: &str) -> Next {
        let otherwise = match self.definition.on_clarification_timeout {
            OnClarificationTimeout::Continue => "the planner plans with what it knows",
            OnClarificationTimeout::Fail => "the execution fails",
        };
        let question = Question::Clarification {
            text: question.chars().take(MOST_ASKED).collect(),
        };
        self.ask(
            question,
            Some(self.team.terms.answer_within_seconds),
            otherwise,
        )
    }

    fn ask_for_approval(&self, current: &super::CurrentPlan) -> Next {
        let otherwise = match self.definition.on_approval_timeout {
            OnApprovalTimeout::Deny => "the plan is not carried out, and the task fails",
            OnApprovalTimeout::Approve => "the plan is carried out",
            OnApprovalTimeout::Fail => "the execution fails",
        };
        let question = Question::Plan {
            plan: current.plan.clone(),
            rules: self.team.rules(&self.execution.agent),
        };
        self.ask(
            question,
            self.definition.approval_timeout_seconds,
            otherwise,
        )
    }

    fn ask(&self, question: Question, seconds: Option<u64>, otherwise: &str) -> Next {
        Next::Record(vec![StepBody::InputRequested(InputRequest {
            call: self.own_call(),
            question,
            until: until(self.execution, seconds, self.facts.now),
            why: None,
            answered_by: self.definition.answered_by.clone(),
            otherwise: Some(otherwise.to_owned()),
        })])
    }

    /// A question of the coordinator itself belongs to no call; it is named after the step that asks.
    const fn own_call(&self) -> CallRef {
        CallRef {
            turn: self.state.next_seq,
            index: 0,
        }
    }

    /// The plan where all answer the same: nobody needs to think of it.
    fn ask_everybody(&self) -> Next {
        let task = self.execution.prompt();
        let most = self.team.terms.max_agents.min(self.team.terms.max_steps);
        let members = self.team.members.iter().take(most as usize);
        let draft = Draft {
            steps: members
                .map(|member| DraftStep {
                    id: member.agent.to_string(),
                    agent: member.agent.to_string(),
                    instruction: shortened(&task, 16 << 10),
                    ..DraftStep::default()
                })
                .collect(),
        };
        match self.team.rules(&self.execution.agent).check(&draft) {
            Ok(plan) => record(Planning::Made { plan, by: None }),
            Err(problems) => Next::Fail(FailureCode::PlanInvalid, problems.join("; ")),
        }
    }

    /// Carries the plan out.
    fn work(&self) -> Next {
        let replan = match self.after_failures() {
            Ok(replan) => replan.or_else(|| self.team.wants_replan.clone()),
            Err(next) => return *next,
        };
        if replan.is_none() {
            let bodies = self.start_ready();
            if !bodies.is_empty() {
                return Next::Record(bodies);
            }
        }
        let is_running = self.team.running().next().is_some();
        let holds_up = replan.is_none() && self.team.review_frees_a_step();
        if self.team.delivered().next().is_some() && (holds_up || !is_running) {
            return Next::Ask(Purpose::Review);
        }
        if is_running {
            return Next::Wait(None);
        }
        match replan {
            Some(why) => record(Planning::Replanned { why }),
            None if self.team.terms.strategy == PlanningStrategy::Consensus
                && self.team.judgement.is_none() =>
            {
                Next::Ask(Purpose::Judge)
            }
            None => Next::Ask(Purpose::Conclude),
        }
    }

    /// What failures lead to: a decision to journal, or the reason for another plan.
    fn after_failures(&self) -> Result<Option<String>, Box<Next>> {
        let terms = &self.team.terms;
        let mut replan = None;
        for part in &self.team.parts {
            let Standing::Failed { why } = &part.standing else {
                continue;
            };
            let why = shortened(why, 4000);
            match terms.on_failure {
                OnStepFailure::Retry if self.team.attempts_left(part) > 0 => {
                    let step = part.step.id.clone();
                    return Err(Box::new(record(Planning::Retried { step, why })));
                }
                OnStepFailure::Replan
                    if self.team.replans < terms.max_replans
                        && terms.strategy != PlanningStrategy::Consensus =>
                {
                    replan.get_or_insert(format!(
                        "step {} ({}) failed: {why}",
                        part.step.id, part.step.agent
                    ));
                }
                OnStepFailure::Retry | OnStepFailure::Replan | OnStepFailure::Fail => {
                    return Err(Box::new(self.give_up(part, why)));
                }
            }
        }
        Ok(replan)
    }

    /// Where several answer the same, the others may be enough.
    fn give_up(&self, part: &Part, why: String) -> Next {
        let terms = &self.team.terms;
        let hopeful = self.team.parts.iter().filter(|part| {
            !matches!(
                part.standing,
                Standing::Failed { .. } | Standing::Dropped { .. }
            )
        });
        if terms.strategy == PlanningStrategy::Consensus
            && terms.on_failure != OnStepFailure::Fail
            && hopeful.count() >= terms.min_agents as usize
        {
            let step = part.step.id.clone();
            return record(Planning::Dropped { step, why });
        }
        let again = match part.attempts {
            0 | 1 => String::new(),
            n => format!(" after {n} attempts"),
        };
        let message = format!(
            "step {} of the plan ({}) failed{again}: {why}; collaborative_config.on_step_failure says what is done then",
            part.step.id, part.step.agent
        );
        Next::Fail(FailureCode::StepFailed, message)
    }

    /// Begins the steps whose dependencies are done, as many as may run side by side.
    fn start_ready(&self) -> Vec<StepBody> {
        let team = self.team;
        let running = team.running().count();
        let most = (team.terms.max_parallel as usize).saturating_sub(running);
        let ready: Vec<&Part> = team.ready().take(most).collect();
        if ready.is_empty() {
            return Vec::new();
        }
        let waiting = team
            .parts
            .iter()
            .filter(|part| part.standing == Standing::Waiting);
        // An equal part for each step that is still to be done, and one for the coordinator's own words.
        let among = u32::try_from(waiting.count() + 1).unwrap_or(u32::MAX);
        let left = limits(self.definition, self.execution).remaining(&self.state.spent());
        let budget = left.without(team.granted()).part_of(among);
        let start = |(part, seq): (&Part, u32)| StepBody::ChildStarted {
            call: part.call,
            child: ExecutionId::child_of(self.execution.id, self.state.next_seq.plus(seq)),
            agent: part.step.agent.clone(),
            budget: Some(budget),
        };
        ready.into_iter().zip(0..).map(start).collect()
    }
}

impl Team {
    /// The parts whose results nobody has looked at.
    pub(super) fn delivered(&self) -> impl Iterator<Item = &Part> {
        let is_new = |part: &&Part| matches!(part.standing, Standing::Delivered { .. });
        self.parts.iter().filter(is_new)
    }

    /// Whether a step could begin if what was delivered were accepted. As long as none could, results are reviewed
    /// together when all are there: one call for many, and nobody waits for it.
    fn review_frees_a_step(&self) -> bool {
        let find = |id: &PlanStepId| self.parts.iter().find(|part| part.step.id == *id);
        let is_there =
            |part: &Part| part.is_accepted() || matches!(part.standing, Standing::Delivered { .. });
        self.parts.iter().any(|part| {
            let waits = || part.step.depends_on.iter().filter_map(find);
            part.standing == Standing::Waiting
                && waits().all(is_there)
                && waits().any(|before| !before.is_accepted())
        })
    }

    /// How often a part may be begun still.
    pub(super) const fn attempts_left(&self, part: &Part) -> u32 {
        (self.terms.max_retries + 1).saturating_sub(part.attempts)
    }

    /// The parts that may begin: nothing that they wait for is missing.
    fn ready(&self) -> impl Iterator<Item = &Part> {
        let is_done = |id: &PlanStepId| {
            let mut parts = self.parts.iter();
            parts.any(|part| part.step.id == *id && part.is_accepted())
        };
        self.parts.iter().filter(move |part| {
            part.standing == Standing::Waiting && part.step.depends_on.iter().all(is_done)
        })
    }
}

/// The beginning of a text, in bytes, and a word that it is not all.
pub(super) fn shortened(text: &str, most: usize) -> String {
    if text.len() <= most {
        return text.to_owned();
    }
    let end = text.floor_char_boundary(most);
    let kept = text.get(..end).unwrap_or_default();
    format!("{kept}\n[the rest was cut off: {} bytes]", text.len() - end)
}
