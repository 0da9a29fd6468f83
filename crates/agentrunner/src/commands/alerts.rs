//! `alerts`: what is wrong, and who was told.

use clap::{Args, Subcommand};

use super::backend::Backend;
use super::tasks::time;
use crate::cli::{Context, Exit};
use crate::screen::Column;
use crate::wiring::Purpose;

/// Lists what the rules of alerts.yml found wrong, and the messages about it.
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "\
Examples:
  agentrunner alerts                       what is wrong, and what was within a day
  agentrunner alerts list --state firing
  agentrunner alerts deliveries            who was told, and who was not

The rules are in CONFIG_DIR/alerts.yml; see docs/alerts.md."
)]
pub(crate) struct Alerts {
    #[command(subcommand)]
    verb: Option<Verb>,
    #[command(flatten)]
    list: List,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// List them, by rule (the default)
    List(List),
    /// List the messages to receivers, newest first
    Deliveries(Deliveries),
}

#[derive(Debug, Args)]
struct List {
    /// Only those that stand so: pending, firing or resolved
    #[arg(long)]
    state: Option<String>,
}

#[derive(Debug, Args)]
struct Deliveries {
    /// Only those that stand so: pending, delivered or failed
    #[arg(long)]
    state: Option<String>,
    /// How many
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=1000))]
    limit: u16,
}

impl Alerts {
    pub(crate) fn run(&self, context: &Context) -> anyhow::Result<Exit> {
        Backend::with(context, Purpose::Read, async |backend| match &self.verb {
            None => self.list.show(context, backend).await,
            Some(Verb::List(list)) => list.show(context, backend).await,
            Some(Verb::Deliveries(deliveries)) => deliveries.show(context, backend).await,
        })
    }
}

impl List {
    async fn show(&self, context: &Context, backend: &Backend) -> anyhow::Result<Exit> {
        let mut query = vec![("limit", "1000".to_owned())];
        query.extend(self.state.clone().map(|state| ("state", state)));
        let alerts = backend.client.get_with("/alerts", &query).await?;
        let columns = [
            Column::field("rule", "rule"),
            Column::field("about", "subject"),
            Column::field("state", "state"),
            Column::field("severity", "severity"),
            Column::of("since", |alert| time(alert.get("since"))),
            Column::of("told", |alert| time(alert.get("told_at"))),
            Column::of("over", |alert| time(alert.get("resolved_at"))),
            Column::field("what", "summary"),
        ];
        let rows = alerts.as_array().map_or(&[][..], Vec::as_slice);
        context.screen.table(rows, &columns);
        Ok(Exit::Done)
    }
}

impl Deliveries {
    async fn show(&self, context: &Context, backend: &Backend) -> anyhow::Result<Exit> {
        let mut query = vec![("limit", self.limit.to_string())];
        query.extend(self.state.clone().map(|state| ("state", state)));
        let sent = backend
            .client
            .get_with("/alerts/deliveries", &query)
            .await?;
        let columns = [
            Column::field("receiver", "receiver"),
            Column::field("event", "event"),
            Column::field("state", "state"),
            Column::field("attempts", "attempts"),
            Column::of("made", |one| time(one.get("created_at"))),
            Column::of("next", |one| time(one.get("next_attempt_at"))),
            Column::field("error", "last_error"),
        ];
        let rows = sent.as_array().map_or(&[][..], Vec::as_slice);
        context.screen.table(rows, &columns);
        Ok(Exit::Done)
    }
}
