//! The tools as a worker sees them, and what calling them does to the world.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use domain::definition::{Effect, Tool};
use domain::{AgentName, ConfigVersion, ToolOutcome};
use serde_json::json;
use tokio::time::{sleep, timeout};
use tools::{Call, Checked, Offer, Toolbox};

use super::wire::Gate;
use super::world::World;

/// What the tools' servers have done, by key.
pub(crate) type Done = Arc<Mutex<BTreeMap<String, u32>>>;

pub(crate) struct Toolset {
    pub(crate) world: Arc<World>,
    pub(crate) gate: Arc<Gate>,
    pub(crate) done: Done,
}

fn unknown(effect: Effect, message: &str) -> ToolOutcome {
    let message = message.to_owned();
    match effect {
        Effect::ReadOnly => ToolOutcome::Failed { message },
        Effect::Idempotent | Effect::Checkable | Effect::Unsafe => ToolOutcome::Unknown { message },
    }
}

impl Toolset {
    /// The call arrives: from here on the world is another.
    async fn arrive(&self, call: &Call<'_>, effect: Effect, is_owner: bool) -> ToolOutcome {
        let key = call.idempotency_key;
        if self.world.goes_wrong(30) {
            return unknown(effect, "the request was lost on its way");
        }
        if self.world.goes_wrong(40) {
            let message = "the tool says that it can't".to_owned();
            return ToolOutcome::Failed { message };
        }
        let is_new = {
            let mut done = self.done.lock().unwrap();
            let count = done.entry(key.to_owned()).or_default();
            *count += 1;
            *count == 1
        };
        if is_new || effect != Effect::Idempotent {
            self.world
                .has_effect(&self.gate.worker, key, effect, is_owner);
        }
        let is_slow = self.world.goes_wrong(60);
        let wait = if is_slow {
            self.world.lots().millis(5000, 60_000)
        } else {
            self.world.lots().millis(5, 1500)
        };
        sleep(wait).await;
        if self.world.goes_wrong(30) {
            return unknown(effect, "the answer was lost on its way");
        }
        ToolOutcome::Succeeded {
            content: format!("{} done", call.tool),
            truncated: false,
        }
    }
}

#[async_trait]
impl Toolbox for Toolset {
    async fn offers(
        &self,
        _: &AgentName,
        _: &ConfigVersion,
        entries: &[Tool],
    ) -> Result<Arc<Vec<Offer>>, tools::Error> {
        self.gate.pass().await;
        if self.world.goes_wrong(10) {
            return Err(tools::Error::Unavailable {
                entry: "look".to_owned(),
                message: "no answer".to_owned(),
            });
        }
        let offer = |entry: &Tool| Offer {
            name: entry.name.clone(),
            description: String::new(),
            parameters: json!({ "type": "object" }),
            entry: entry.name.clone(),
            effect: entry.effect_of(&entry.name),
            approval: entry
                .requires_approval
                .as_ref()
                .is_some_and(|approval| approval.covers(&entry.name)),
            pin: None,
        };
        Ok(Arc::new(entries.iter().map(offer).collect()))
    }

    async fn call(&self, call: Call<'_>) -> ToolOutcome {
        let effect = call.entry.effect_of(call.tool);
        self.gate.pass().await;
        let (worker, key) = (&self.gate.worker, call.idempotency_key);
        let is_owner = self.world.begins(worker, call.execution, key);
        if is_owner && self.world.is_settled(call.execution, key) {
            let text = format!(
                "{worker} calls {} with {key}, which is settled or not written down",
                call.tool
            );
            self.world.violated("I1", text);
        }
        let work = self.arrive(&call, effect, is_owner);
        let outcome = timeout(call.timeout, work).await;
        self.gate.pass().await;
        outcome.unwrap_or_else(|_| unknown(effect, "no answer in time"))
    }

    async fn check(&self, call: Call<'_>, _: &Tool) -> Checked {
        self.gate.pass().await;
        let wait = self.world.lots().millis(1, 500);
        sleep(wait).await;
        let count = self.done.lock().unwrap().get(call.idempotency_key).copied();
        sleep(Duration::from_millis(5)).await;
        self.gate.pass().await;
        if self.world.goes_wrong(50) {
            return Checked::Unknown("the check tool does not answer".to_owned());
        }
        match count {
            Some(_) => Checked::Happened(format!("{} done", call.tool)),
            None => Checked::DidNotHappen,
        }
    }
}
