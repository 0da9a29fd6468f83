//! `cleanup`: forgets executions that were over long ago, now instead of within the hour.

use clap::Args;
use serde_json::{Value, json};

use super::backend::Backend;
use crate::cli::{Context, Exit};
use crate::wiring::Purpose;

/// What the answer counts.
const COUNTED: [&str; 4] = ["executions", "conversations", "dead_letters", "audit_rows"];

/// Deletes executions that were over long ago, with all that belongs to them, conversations and dead letters of which nothing
/// was heard since, and old rows of the audit log.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  agentrunner cleanup --dry-run            how many are older than STATE_RETENTION_DAYS
  agentrunner cleanup --older-than 7       delete what was over a week ago")]
pub(crate) struct Cleanup {
    /// What was over so many days ago [default: STATE_RETENTION_DAYS]
    #[arg(long, value_name = "DAYS", value_parser = clap::value_parser!(u32).range(1..=36_500))]
    older_than: Option<u32>,
    /// Only count it
    #[arg(long)]
    dry_run: bool,
}

impl Cleanup {
    pub(crate) fn run(&self, context: &Context) -> anyhow::Result<Exit> {
        Backend::with(context, Purpose::Read, async |backend| {
            self.perform(context, backend).await
        })
    }

    /// A request deletes so much only: it is asked again until nothing is left.
    async fn perform(&self, context: &Context, backend: &Backend) -> anyhow::Result<Exit> {
        let body = json!({ "older_than_days": self.older_than, "dry_run": self.dry_run });
        let mut gone = [0; COUNTED.len()];
        loop {
            let mut answer = backend.state.post("/maintenance/cleanup", &body).await?;
            for (gone, name) in gone.iter_mut().zip(COUNTED) {
                *gone += answer.get(name).and_then(Value::as_u64).unwrap_or_default();
            }
            let has_more = answer.get("has_more").and_then(Value::as_bool);
            if has_more == Some(true) && !self.dry_run {
                continue;
            }
            if let Some(fields) = answer.as_object_mut() {
                for (gone, name) in gone.into_iter().zip(COUNTED) {
                    fields.insert(name.to_owned(), gone.into());
                }
            }
            context.screen.value(&answer);
            return Ok(Exit::Done);
        }
    }
}
