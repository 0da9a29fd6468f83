//! AgentRunner's own functions, one file each: what the model is told, and what is done.

mod ask_human;
mod calculate;
mod current_time;
mod files;
mod html;
mod http_fetch;
mod list_files;
mod publish_event;
mod read_file;
mod recall;
mod remember;
mod search_files;
mod shared_state;

use std::path::PathBuf;
use std::sync::Arc;

use domain::ToolOutcome;
use domain::definition::{Builtin, FunctionTool};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::egress::{Egress, HostRule};
use crate::text::{failed, refused, succeeded};
use crate::{Call, Clock, Host};

/// What the functions work with.
pub(crate) struct Builtins {
    pub(crate) egress: Arc<Egress>,
    pub(crate) host: Arc<dyn Host>,
    pub(crate) clock: Clock,
    /// What a relative `root` is relative to.
    pub(crate) working_dir: PathBuf,
}

/// A result as text, and whether something of it is missing.
struct Answer {
    text: String,
    truncated: bool,
}

/// Why a function has no result.
enum Failure {
    /// It may not, or cannot, be done with these arguments.
    Refused(String),
    /// It was tried.
    Failed(String),
}

impl Failure {
    fn failed(reason: impl Into<String>) -> Self {
        Self::Failed(reason.into())
    }

    fn refused(reason: impl Into<String>) -> Self {
        Self::Refused(reason.into())
    }
}

impl From<String> for Answer {
    fn from(text: String) -> Self {
        Self {
            text,
            truncated: false,
        }
    }
}

/// What the model is told about a function: description and parameters.
pub(crate) fn description(builtin: Builtin) -> &'static str {
    match builtin {
        Builtin::HttpFetch => http_fetch::DESCRIPTION,
        Builtin::ReadFile => read_file::DESCRIPTION,
        Builtin::ListFiles => list_files::DESCRIPTION,
        Builtin::SearchFiles => search_files::DESCRIPTION,
        Builtin::CurrentTime => current_time::DESCRIPTION,
        Builtin::Calculate => calculate::DESCRIPTION,
        Builtin::PublishEvent => publish_event::DESCRIPTION,
        Builtin::Remember => remember::DESCRIPTION,
        Builtin::Recall => recall::DESCRIPTION,
        Builtin::AskHuman => ask_human::DESCRIPTION,
        Builtin::SharedStateGet => shared_state::GET,
        Builtin::SharedStateSet => shared_state::SET,
    }
}

/// The JSON Schema of a function's arguments.
pub(crate) fn parameters(builtin: Builtin) -> Value {
    match builtin {
        Builtin::HttpFetch => http_fetch::parameters(),
        Builtin::ReadFile => read_file::parameters(),
        Builtin::ListFiles => list_files::parameters(),
        Builtin::SearchFiles => search_files::parameters(),
        Builtin::CurrentTime => current_time::parameters(),
        Builtin::Calculate => calculate::parameters(),
        Builtin::PublishEvent => publish_event::parameters(),
        Builtin::Remember => remember::parameters(),
        Builtin::Recall => recall::parameters(),
        Builtin::AskHuman => ask_human::parameters(),
        Builtin::SharedStateGet => shared_state::get_parameters(),
        Builtin::SharedStateSet => shared_state::set_parameters(),
    }
}

/// Checks what the definition says of a function.
pub(crate) fn check(function: &FunctionTool) -> Result<(), String> {
    for host in &function.hosts {
        host.parse::<HostRule>()
            .map_err(|error| format!("hosts: {error}"))?;
    }
    Ok(())
}

impl Builtins {
    /// Performs a function.
    pub(crate) async fn call(
        &self,
        builtin: Builtin,
        function: &FunctionTool,
        call: &Call<'_>,
    ) -> ToolOutcome {
        match self.perform(builtin, function, call).await {
            Ok(answer) => succeeded(answer.text, answer.truncated, call.entry.max_result_bytes),
            Err(Failure::Refused(reason)) => refused(reason),
            Err(Failure::Failed(reason)) => failed(reason),
        }
    }

    async fn perform(
        &self,
        builtin: Builtin,
        function: &FunctionTool,
        call: &Call<'_>,
    ) -> Result<Answer, Failure> {
        match builtin {
            Builtin::HttpFetch => http_fetch::call(&self.egress, function, call).await,
            Builtin::ReadFile => read_file::call(self.root(function)?, call).await,
            Builtin::ListFiles => list_files::call(self.root(function)?, call).await,
            Builtin::SearchFiles => search_files::call(self.root(function)?, call).await,
            Builtin::CurrentTime => current_time::call(&self.clock, call),
            Builtin::Calculate => calculate::call(call).await,
            Builtin::PublishEvent => {
                publish_event::call(self.host.as_ref(), &self.clock, function, call).await
            }
            Builtin::Remember => remember::call(self.host.as_ref(), call).await,
            Builtin::Recall => recall::call(self.host.as_ref(), call).await,
            Builtin::AskHuman => ask_human::call(),
            Builtin::SharedStateGet => shared_state::get(self.host.as_ref(), call).await,
            Builtin::SharedStateSet => shared_state::set(self.host.as_ref(), call).await,
        }
    }

    fn root(&self, function: &FunctionTool) -> Result<PathBuf, Failure> {
        let root = function.root.as_ref();
        root.map(|root| self.working_dir.join(root))
            .ok_or_else(|| Failure::refused("the tool has no root in the agent's definition"))
    }
}

/// Reads the arguments of a function.
fn arguments<T: DeserializeOwned>(call: &Call<'_>) -> Result<T, Failure> {
    T::deserialize(call.arguments)
        .map_err(|error| Failure::refused(format!("the arguments don't fit: {error}")))
}
