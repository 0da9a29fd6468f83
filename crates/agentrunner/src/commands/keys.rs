//! `keys`: who may use the API, and for what.

use chrono::{TimeDelta, Utc};
use clap::{Args, Subcommand};
use domain::Scope;
use serde_json::{Value, json};

use super::backend::Backend;
use super::tasks::time;
use crate::cli::{Context, Exit};
use crate::screen::Column;
use crate::wiring::Purpose;

/// Makes, lists and revokes keys of the API.
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "\
Examples:
  agentrunner keys                                   which there are, and when they were used
  agentrunner keys create ci --scope submit --scope read
  agentrunner keys create shop --scope submit,read --agent order-helper --expires 90d
  agentrunner keys revoke ID                         worth nothing within 5 seconds, everywhere

Scopes: read (see), submit (give work), operate (cancel, answer for people, schedules, dead letters, reload),
admin (everything, and keys). A key is printed once; only its hash is kept."
)]
pub(crate) struct Keys {
    #[command(subcommand)]
    verb: Option<Verb>,
    #[command(flatten)]
    list: List,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// List them, newest first (the default)
    List(List),
    /// Make one, and print it this once
    Create(Create),
    /// Make one worth nothing
    Revoke {
        /// Its id, as the list shows it
        id: uuid::Uuid,
    },
}

#[derive(Debug, Args)]
struct Create {
    /// What it is for
    name: String,
    /// What it allows: read, submit, operate, admin; repeat it or join them by commas
    #[arg(long = "scope", required = true, value_delimiter = ',', value_parser = scope)]
    scopes: Vec<Scope>,
    /// An agent that it is limited to; repeat it or join them by commas [default: all agents]
    #[arg(long = "agent", value_delimiter = ',')]
    agents: Vec<String>,
    /// How long it lasts, such as 12h or 90d [default: until it is revoked]
    #[arg(long, value_parser = lifetime)]
    expires: Option<TimeDelta>,
}

#[derive(Debug, Args)]
struct List {
    /// Only those that may be used now
    #[arg(long)]
    active: bool,
    /// How many
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..=1000))]
    limit: u16,
}

impl Keys {
    pub(crate) fn run(&self, context: &Context) -> anyhow::Result<Exit> {
        Backend::with(context, Purpose::Read, async |backend| {
            self.perform(context, backend).await
        })
    }

    async fn perform(&self, context: &Context, backend: &Backend) -> anyhow::Result<Exit> {
        let (client, screen) = (&backend.client, &context.screen);
        match &self.verb {
            None => self.list.show(context, backend).await?,
            Some(Verb::List(list)) => list.show(context, backend).await?,
            Some(Verb::Create(create)) => {
                let made = client.post("/keys", &create.body()).await?;
                screen.note("this is the only time that the key is shown");
                screen.value(&made);
            }
            Some(Verb::Revoke { id }) => {
                client.delete(&format!("/keys/{id}")).await?;
                screen.value(&json!({ "id": id, "status": "revoked" }));
            }
        }
        Ok(Exit::Done)
    }
}

impl Create {
    fn body(&self) -> Value {
        let mut body = json!({ "name": self.name, "scopes": self.scopes });
        if let Value::Object(fields) = &mut body {
            if !self.agents.is_empty() {
                fields.insert("agents".to_owned(), json!(self.agents));
            }
            let end = self.expires.map(|lasting| Utc::now() + lasting);
            fields.extend(end.map(|end| ("expires_at".to_owned(), json!(end))));
        }
        body
    }
}

impl List {
    async fn show(&self, context: &Context, backend: &Backend) -> anyhow::Result<()> {
        let mut query = vec![("limit", self.limit.to_string())];
        if self.active {
            query.push(("active", "true".to_owned()));
        }
        let keys = backend.client.get_with("/keys", &query).await?;
        let columns = [
            Column::field("id", "id"),
            Column::field("name", "name"),
            Column::field("key", "hint"),
            Column::field("status", "status"),
            Column::of("scopes", |key| joined(key.get("scopes"))),
            Column::of("agents", |key| match key.get("agents") {
                Some(Value::Array(_)) => joined(key.get("agents")),
                _ => "all".to_owned(),
            }),
            Column::of("expires", |key| time(key.get("expires_at"))),
            Column::of("last used", |key| time(key.get("last_used_at"))),
        ];
        let rows = keys.as_array().map_or(&[][..], Vec::as_slice);
        context.screen.table(rows, &columns);
        Ok(())
    }
}

fn joined(words: Option<&Value>) -> String {
    let words = words.and_then(Value::as_array).into_iter().flatten();
    let words: Vec<&str> = words.filter_map(Value::as_str).collect();
    words.join(", ")
}

fn scope(text: &str) -> Result<Scope, String> {
    text.trim().parse()
}

/// A time such as `30m`, `12h` or `90d`.
fn lifetime(text: &str) -> Result<TimeDelta, String> {
    let bad = || "write it as 30m, 12h or 90d".to_owned();
    let number = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let count: i64 = number.parse().map_err(|_| bad())?;
    let lasting = match text.get(number.len()..) {
        Some("m") => TimeDelta::try_minutes(count),
        Some("h") => TimeDelta::try_hours(count),
        Some("d") => TimeDelta::try_days(count),
        _ => None,
    };
    let longest = TimeDelta::days(36_500);
    lasting
        .filter(|lasting| *lasting > TimeDelta::zero() && *lasting <= longest)
        .ok_or_else(bad)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lifetimes_are_read() {
        assert_eq!(lifetime("90d"), Ok(TimeDelta::days(90)));
        assert_eq!(lifetime("12h"), Ok(TimeDelta::hours(12)));
        for bad in ["", "d", "0d", "-1d", "9", "1y", "99999999999d"] {
            assert!(lifetime(bad).is_err(), "{bad}");
        }
    }
}
