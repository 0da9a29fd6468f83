//! The blocks of the modes other than autonomous.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::definition::LlmConfig;
use crate::id::{AgentName, ConversationId};

/// How a long conversation is kept within bounds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Pruning {
    /// The oldest messages are dropped.
    #[default]
    SlidingWindow,
    /// The oldest messages are replaced by a summary.
    Summarize,
}

/// What becomes of a message to a conversation that is at an earlier one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnConcurrent {
    /// It waits for its turn.
    #[default]
    Queue,
    /// The earlier ones are cancelled: the one under way, and those that wait.
    Interrupt,
    /// It is refused.
    Reject,
}

/// The `continuous_config` of an agent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ContinuousConfig {
    /// After how many seconds of silence a conversation is called idle; `CONTINUOUS_AGENT_IDLE_TIMEOUT` when absent. A
    /// silent one takes no memory from the beginning.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle_timeout_seconds: Option<u64>,
    /// Kept for compatibility: every step is saved at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub save_interval_seconds: Option<u64>,
    /// How many messages the model is shown, the new one included; what it does about that comes on top.
    pub max_conversation_history: u32,
    /// How older ones make room.
    pub conversation_pruning_strategy: Pruning,
    /// Which field of an event's data, or of `task_data`, names the conversation when the request does not: names joined by
    /// dots.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub conversation_key: Option<String>,
    /// What becomes of a message that comes while an earlier one is not done.
    pub on_concurrent_message: OnConcurrent,
    /// Kept for compatibility: state is always saved.
    pub auto_save_on_shutdown: bool,
    /// Kept for compatibility: state is always restored.
    pub restore_on_startup: bool,
}

impl Default for ContinuousConfig {
    fn default() -> Self {
        Self {
            idle_timeout_seconds: None,
            save_interval_seconds: None,
            max_conversation_history: 100,
            conversation_pruning_strategy: Pruning::default(),
            conversation_key: None,
            on_concurrent_message: OnConcurrent::default(),
            auto_save_on_shutdown: true,
            restore_on_startup: true,
        }
    }
}

impl ContinuousConfig {
    /// The conversation that an input belongs to: what its `conversation_key` finds there. An event is looked through from
    /// its data outwards.
    ///
    /// # Errors
    /// What is there can't name a conversation; the sentence says why.
    pub fn conversation_of(&self, input: &Value) -> Result<Option<ConversationId>, String> {
        let Some(key) = &self.conversation_key else {
            return Ok(None);
        };
        let event = input.get("event");
        let places = [
            event.and_then(|event| event.get("data")),
            event,
            Some(input),
        ];
        let found = places.into_iter().flatten().find_map(|place| {
            let found = key.split('.').try_fold(place, |at, name| at.get(name));
            found.filter(|found| !found.is_null())
        });
        let text = match found {
            None => return Ok(None),
            Some(Value::String(text)) => text.clone(),
            Some(Value::Number(number)) => number.to_string(),
            Some(_) => {
                return Err(format!(
                    "{key:?} (continuous_config.conversation_key) is not a text or a number there, so it names no conversation"
                ));
            }
        };
        let named = text.parse::<ConversationId>();
        named
            .map(Some)
            .map_err(|why| format!("{key:?} (continuous_config.conversation_key): {why}"))
    }
}

/// How a coordinator works.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PlanningStrategy {
    /// It reviews each result and may plan again.
    #[default]
    Hierarchical,
    /// One step after the other.
    Sequential,
    /// Several answer, and a judge decides.
    Consensus,
}

/// What becomes of a plan when one of its steps fails.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnStepFailure {
    /// The step is done again, `max_step_retries` times; then the task fails.
    #[default]
    Retry,
    /// What is left to do is planned anew, `max_replans` times; then the task fails.
    Replan,
    /// The task fails.
    Fail,
}

/// The `collaborative_config` of an agent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CollaborativeConfig {
    /// Who may take part, the first ones first; every other agent when empty.
    pub preferred_collaborators: Vec<AgentName>,
    /// How.
    pub planning_strategy: PlanningStrategy,
    /// The model that plans, when it is another.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub planning_agent: Option<LlmConfig>,
    /// The longest plan.
    pub max_plan_steps: u32,
    /// The fewest agents.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_collaborators: Option<u32>,
    /// The most agents.
    pub max_collaborators: u32,
    /// How many steps run side by side; as many as can when absent. One in the sequential strategy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_parallel_steps: Option<u32>,
    /// What becomes of the plan when a step fails.
    pub on_step_failure: OnStepFailure,
    /// How often a step may be done again, after a failure or because the coordinator wants more.
    pub max_step_retries: u32,
    /// How often the rest may be planned anew.
    pub max_replans: u32,
    /// Whether a person must approve the plan.
    pub require_plan_approval: bool,
    /// Whether people may be asked.
    pub allow_human_clarification: bool,
    /// How long an answer is waited for, in seconds.
    pub clarification_timeout_seconds: u64,
    /// How long it may all take, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_seconds: Option<u64>,
}

impl Default for CollaborativeConfig {
    fn default() -> Self {
        Self {
            preferred_collaborators: Vec::new(),
            planning_strategy: PlanningStrategy::default(),
            planning_agent: None,
            max_plan_steps: 10,
            min_collaborators: None,
            max_collaborators: 5,
            max_parallel_steps: None,
            on_step_failure: OnStepFailure::default(),
            max_step_retries: 2,
            max_replans: 2,
            require_plan_approval: false,
            allow_human_clarification: true,
            clarification_timeout_seconds: 300,
            timeout_seconds: None,
        }
    }
}

/// By the calendar, by the clock, or once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ScheduleType {
    /// By a cron expression.
    Cron,
    /// Every so many seconds.
    Interval,
    /// At one moment.
    Once,
}

impl ScheduleType {
    /// The word in YAML and API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Cron => "cron",
            Self::Interval => "interval",
            Self::Once => "once",
        }
    }
}

/// What is done about due times that passed while nothing ran.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum MisfirePolicy {
    /// Nothing.
    #[default]
    Skip,
    /// One run for all of them.
    Once,
    /// A run for each.
    All,
}

impl MisfirePolicy {
    /// The word in YAML and API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Skip => "skip",
            Self::Once => "once",
            Self::All => "all",
        }
    }
}

/// What is done when the run before has not ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OverlapPolicy {
    /// The new one is skipped.
    #[default]
    Skip,
    /// The new one waits.
    Queue,
    /// The old one is cancelled.
    Cancel,
}

impl OverlapPolicy {
    /// The word in YAML and API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Skip => "skip",
            Self::Queue => "queue",
            Self::Cancel => "cancel",
        }
    }
}

/// The `schedule_config` of an agent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ScheduleConfig {
    /// By what.
    #[serde(rename = "type")]
    pub kind: ScheduleType,
    /// The cron expression: 5 or 6 fields, or `@daily` and kin.
    #[serde(
        default,
        alias = "cron_expression",
        skip_serializing_if = "Option::is_none"
    )]
    pub cron: Option<String>,
    /// The IANA time zone; UTC when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timezone: Option<String>,
    /// The pause between starts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval_seconds: Option<u64>,
    /// The moment of `once`: a time in the time zone, or one with a difference to UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<String>,
    /// What the agent is given.
    #[serde(default)]
    pub task_data: Value,
    /// How long a run may take, in seconds.
    #[serde(default = "default_timeout")]
    pub timeout_seconds: u64,
    /// Whether it runs.
    #[serde(default = "yes")]
    pub enabled: bool,
    /// About missed runs.
    #[serde(default)]
    pub misfire_policy: MisfirePolicy,
    /// About overlapping runs.
    #[serde(default)]
    pub overlap_policy: OverlapPolicy,
    /// Runs are spread by up to this many seconds.
    #[serde(default)]
    pub jitter_seconds: u64,
}

const fn default_timeout() -> u64 {
    300
}

const fn yes() -> bool {
    true
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(key: &str, input: &Value) -> Result<Option<String>, String> {
        let config = ContinuousConfig {
            conversation_key: Some(key.to_owned()),
            ..ContinuousConfig::default()
        };
        let found = config.conversation_of(input)?;
        Ok(found.map(String::from))
    }

    #[test]
    fn a_key_finds_the_conversation_in_events_and_tasks() {
        let event = json!({ "event": { "id": "e1", "topic": "t", "data": { "id": 7, "thread": { "ts": "1.2" } } } });
        assert_eq!(of("thread.ts", &event), Ok(Some("1.2".to_owned())));
        assert_eq!(
            of("id", &event),
            Ok(Some("7".to_owned())),
            "data comes first"
        );
        assert_eq!(of("topic", &event), Ok(Some("t".to_owned())));
        assert_eq!(
            of("event.data.thread.ts", &event),
            Ok(Some("1.2".to_owned()))
        );
        assert_eq!(
            of("user", &json!({ "user": "ann" })),
            Ok(Some("ann".to_owned()))
        );
        for none in [
            json!({}),
            json!("text"),
            json!({ "user": null }),
            json!([1]),
        ] {
            assert_eq!(of("user", &none), Ok(None), "{none}");
        }
        assert_eq!(
            ContinuousConfig::default().conversation_of(&event),
            Ok(None)
        );
    }

    #[test]
    fn what_can_name_no_conversation_is_refused_in_few_words() {
        for bad in [
            json!({}),
            json!([]),
            json!(true),
            json!(""),
            json!("a\nb"),
            json!("x".repeat(1 << 20)),
        ] {
            let why = of("user", &json!({ "user": bad })).unwrap_err();
            assert!(why.len() < 400 && why.contains("\"user\""), "{why}");
        }
    }
}
