//! How a team changes by what the journal says.

use super::{
    About, Asked, Contribution, CurrentPlan, Judgement, Part, Planning, Standing, Team, Terms,
    Unread, Verdict, VerdictKind,
};
use crate::budget::BudgetLimits;
use crate::definition::PlanningStrategy;
use crate::execution::{Outcome, Totals};
use crate::id::{AgentName, ExecutionId, PlanStepId, Seq};
use crate::message::{Message, Reply, StopReason};
use crate::plan::Plan;
use crate::prompt::Purpose;
use crate::step::{Answer, CallRef, InputReceived, InputRequest, Question};

impl Team {
    /// At the beginning.
    pub(crate) fn new(members: Vec<super::Member>, terms: Terms) -> Self {
        Self {
            terms,
            members,
            plan: None,
            parts: Vec::new(),
            contributions: Vec::new(),
            replans: 0,
            judgement: None,
            exchange: Vec::new(),
            occasion: None,
            unread: None,
            refusals: 0,
            questions: 0,
            asked: None,
            wants_replan: None,
            denied: None,
        }
    }

    /// The coordinator's model has answered.
    pub(crate) fn heard(&mut self, purpose: Purpose, reply: &Reply) -> Result<(), String> {
        let about = match purpose {
            Purpose::Plan => About::Plan,
            Purpose::Review => About::Review,
            Purpose::Judge => About::Judgement,
            Purpose::Turn | Purpose::Summary { .. } | Purpose::Conclude => {
                return Err("a team's coordinator is not asked for that".to_owned());
            }
        };
        if self.unread.is_some() {
            return Err("the answer before was not looked at".to_owned());
        }
        // Its wishes to call something are not granted, so nothing may answer them.
        self.exchange.push(Message::Assistant(Reply {
            tool_calls: Vec::new(),
            ..reply.clone()
        }));
        self.unread = Some(Unread {
            about,
            text: reply.text.clone(),
            stop: reply.stop,
            by: None,
        });
        Ok(())
    }

    /// Takes one step about the plan.
    pub(crate) fn apply(&mut self, seq: Seq, planning: &Planning) -> Result<(), String> {
        match planning {
            Planning::Team { .. } => Err("the team is known".to_owned()),
            Planning::Refused { problems } => self.refused(problems),
            Planning::Made { plan, by } => self.made(seq, plan, by.as_ref()),
            Planning::Reviewed { verdicts } => self.reviewed(verdicts),
            Planning::NotStarted { call, why } => {
                let part = self.part_mut(*call)?;
                part.attempts += 1;
                part.standing = Standing::Failed { why: why.clone() };
                Ok(())
            }
            Planning::Retried { step, why } => self.settle_failure(step, |part| {
                part.feedback = Some(why.clone());
                Standing::Waiting
            }),
            Planning::Dropped { step, why } => {
                self.settle_failure(step, |_| Standing::Dropped { why: why.clone() })
            }
            Planning::Replanned { why } => {
                self.replans += 1;
                self.begin_anew();
                self.exchange.clear();
                self.occasion = Some(why.clone());
                Ok(())
            }
            Planning::Judged { chosen, reason } => {
                self.look_at(About::Judgement)?;
                self.judgement = Some(Judgement {
                    chosen: chosen.clone(),
                    reason: reason.clone(),
                });
                self.exchange.clear();
                Ok(())
            }
        }
    }

    fn look_at(&mut self, about: About) -> Result<Unread, String> {
        match self.unread.take() {
            Some(unread) if unread.about == about => {
                self.refusals = 0;
                Ok(unread)
            }
            other => {
                self.unread = other;
                Err("there is no such answer to look at".to_owned())
            }
        }
    }

    fn refused(&mut self, problems: &[String]) -> Result<(), String> {
        let Some(unread) = self.unread.take() else {
            return Err("there is no answer to refuse".to_owned());
        };
        // A person is asked once more; the plan that they were asked about is still there.
        if unread.by.is_some() {
            return Ok(());
        }
        self.refusals += 1;
        self.exchange.push(Message::User {
            text: format!(
                "Your answer can't be used:\n- {}\nAnswer again with JSON that can, and nothing else.",
                problems.join("\n- ")
            ),
        });
        Ok(())
    }

    fn made(&mut self, seq: Seq, plan: &Plan, by: Option<&String>) -> Result<(), String> {
        if self.plan.as_ref().is_some_and(|plan| plan.is_approved) {
            return Err("there is a plan at work".to_owned());
        }
        // Where all answer the same, nobody is asked for a plan.
        if self.terms.strategy != PlanningStrategy::Consensus || self.unread.is_some() {
            self.look_at(About::Plan)?;
        }
        self.keep_accepted();
        let parts = plan.steps.iter().zip(0u16..).map(|(step, index)| Part {
            step: step.clone(),
            call: CallRef { turn: seq, index },
            attempts: 0,
            feedback: None,
            standing: Standing::Waiting,
        });
        self.parts.extend(parts);
        self.plan = Some(CurrentPlan {
            seq,
            plan: plan.clone(),
            is_approved: by.is_some() || !self.terms.needs_approval,
            by: by.cloned(),
        });
        Ok(())
    }

    fn reviewed(&mut self, verdicts: &[Verdict]) -> Result<(), String> {
        let is_new = |verdict: &Verdict| self.delivered().any(|part| part.step.id == verdict.step);
        if let Some(odd) = verdicts.iter().find(|verdict| !is_new(verdict)) {
            return Err(format!("step {} has no new result", odd.step));
        }
        self.look_at(About::Review)?;
        self.exchange.clear();
        for verdict in verdicts {
            let mut parts = self.parts.iter_mut();
            let Some(part) = parts.find(|part| part.step.id == verdict.step) else {
                continue;
            };
            let Standing::Delivered { child, output } = &mut part.standing else {
                continue;
            };
            part.standing = match verdict.verdict {
                VerdictKind::Accept => Standing::Accepted {
                    child: *child,
                    output: std::mem::take(output),
                },
                VerdictKind::Retry => {
                    part.feedback = Some(verdict.feedback.clone());
                    Standing::Waiting
                }
                VerdictKind::Replan => {
                    let why = format!("step {}: {}", verdict.step, verdict.feedback);
                    self.wants_replan.get_or_insert(why);
                    Standing::Dropped {
                        why: verdict.feedback.clone(),
                    }
                }
            };
        }
        Ok(())
    }

    /// Ends the plan at work; what stands is kept.
    fn begin_anew(&mut self) {
        self.keep_accepted();
        self.plan = None;
        self.wants_replan = None;
    }

    fn keep_accepted(&mut self) {
        self.parts.retain(Part::is_accepted);
    }

    fn settle_failure(
        &mut self,
        step: &PlanStepId,
        settle: impl FnOnce(&mut Part) -> Standing,
    ) -> Result<(), String> {
        let failed = self
            .parts
            .iter_mut()
            .find(|part| part.step.id == *step && matches!(part.standing, Standing::Failed { .. }));
        let part = failed.ok_or_else(|| format!("step {step} has not failed"))?;
        part.standing = settle(part);
        Ok(())
    }

    pub(crate) fn child_started(
        &mut self,
        call: CallRef,
        child: ExecutionId,
        agent: &AgentName,
        budget: BudgetLimits,
    ) -> Result<(), String> {
        let part = self.part_mut(call)?;
        if part.step.agent != *agent || part.standing != Standing::Waiting {
            return Err(format!("step {} starts no {agent} now", part.step.id));
        }
        part.attempts += 1;
        part.standing = Standing::Running { child, budget };
        // What was said about the plan is over.
        self.exchange.clear();
        Ok(())
    }

    pub(crate) fn child_finished(
        &mut self,
        call: CallRef,
        child: ExecutionId,
        outcome: &Outcome,
        totals: Totals,
    ) -> Result<(), String> {
        let is_reviewed = self.terms.strategy == PlanningStrategy::Hierarchical;
        let part = self.part_mut(call)?;
        match part.standing {
            Standing::Running { child: running, .. } if running == child => {}
            _ => return Err(format!("step {} does not wait for {child}", part.step.id)),
        }
        part.standing = match outcome {
            Outcome::Completed { output, .. } if is_reviewed => Standing::Delivered {
                child,
                output: output.clone(),
            },
            Outcome::Completed { output, .. } => Standing::Accepted {
                child,
                output: output.clone(),
            },
            Outcome::Failed(_) | Outcome::Timeout { .. } | Outcome::Cancelled { .. } => {
                Standing::Failed {
                    why: outcome.reason(),
                }
            }
        };
        let contribution = Contribution {
            step: part.step.id.clone(),
            agent: part.step.agent.clone(),
            execution_id: child,
            status: outcome.status(),
            totals,
        };
        self.contributions.push(contribution);
        Ok(())
    }

    pub(crate) fn asked(&mut self, seq: Seq, request: &InputRequest) -> Result<(), String> {
        let none = || "there is no such question to ask".to_owned();
        if self.asked.is_some() {
            return Err(none());
        }
        match &request.question {
            Question::Plan { .. } if self.plan.as_ref().is_some_and(|p| !p.is_approved) => {}
            Question::Clarification { .. } => {
                self.look_at(About::Plan)?;
                self.questions += 1;
            }
            Question::Plan { .. } | Question::Approval { .. } | Question::UnknownOutcome { .. } => {
                return Err(none());
            }
        }
        self.asked = Some(Asked {
            request: seq,
            question: request.question.clone(),
            until: request.until,
        });
        Ok(())
    }

    pub(crate) fn answered(&mut self, input: &InputReceived) -> Result<(), String> {
        let asked = self.asked.take_if(|asked| asked.request == input.request);
        let Some(asked) = asked else {
            return Err(format!("step {} asks nothing", input.request));
        };
        match (asked.question, &input.answer) {
            (Question::Plan { .. }, Answer::Approve) => {
                if let Some(plan) = &mut self.plan {
                    plan.is_approved = true;
                }
            }
            (Question::Plan { .. }, Answer::EditPlan { plan }) => {
                self.unread = Some(Unread {
                    about: About::Plan,
                    text: plan.to_string(),
                    stop: StopReason::EndTurn,
                    by: Some(input.by.clone()),
                });
            }
            (Question::Plan { .. }, Answer::Reject { reason }) => {
                let may_plan = self.replans < self.terms.max_replans
                    && self.terms.strategy != PlanningStrategy::Consensus;
                if !may_plan {
                    self.denied = Some(format!("{} rejected the plan: {reason}", input.by));
                    return Ok(());
                }
                self.replans += 1;
                self.begin_anew();
                self.say(format!(
                    "A person rejected this plan: {reason}\nMake another one."
                ));
            }
            (Question::Plan { .. }, _) => {
                self.denied = Some("nobody approved the plan in time".to_owned());
            }
            (_, Answer::Text { text }) => {
                self.say(format!("A person answers your question: {text}\nPlan now."))
            }
            (_, Answer::Reject { reason }) => self.say(format!(
                "The person does not answer your question: {reason}\nPlan with what you know."
            )),
            (_, _) => self
                .say("Nobody answered your question in time. Plan with what you know.".to_owned()),
        }
        Ok(())
    }

    fn say(&mut self, text: String) {
        self.exchange.push(Message::User { text });
    }

    fn part_mut(&mut self, call: CallRef) -> Result<&mut Part, String> {
        let part = self.parts.iter_mut().find(|part| part.call == call);
        part.ok_or_else(|| format!("there is no step {call} in the plan"))
    }
}
