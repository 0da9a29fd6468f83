//! `configs`: the configurations of agents and their versions; and changing them.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::backend::Backend;
use super::schedules::encoded;
use super::tasks::time;
use crate::cli::{Context, Exit};
use crate::client::Client;
use crate::screen::{Column, Screen};
use crate::wiring::Purpose;

/// Lists configurations and their versions, uploads and rolls back.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  agentrunner configs                           what is in use
  agentrunner configs versions helper
  agentrunner configs upload helper.yml         put a new agent into the server's folder
  agentrunner configs upload helper.yml --replace
  agentrunner configs rollback helper           back to the version before
  agentrunner configs rollback helper --to 1f2e3d4c5b6a7988")]
pub(crate) struct Configs {
    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// List them by name (the default)
    List,
    /// Show one with its definition
    Show { name: String },
    /// List the versions of one, newest first
    Versions { name: String },
    /// Put a file into the server's folder of agents, and into use
    Upload {
        /// YAML or JSON
        file: PathBuf,
        /// Replace the agent of that name, if there is one
        #[arg(long)]
        replace: bool,
    },
    /// Make an earlier version the present one again
    Rollback {
        name: String,
        /// Which [default: the one before]
        #[arg(long, value_name = "VERSION")]
        to: Option<String>,
    },
}

impl Configs {
    pub(crate) fn run(&self, context: &Context) -> anyhow::Result<Exit> {
        Backend::with(context, Purpose::Read, async |backend| {
            self.perform(&context.screen, &backend.configs).await
        })
    }

    async fn perform(&self, screen: &Screen, client: &Client) -> anyhow::Result<Exit> {
        let path = |name: &str, rest: &str| format!("/configs/{}{rest}", encoded(name));
        match &self.verb {
            None | Some(Verb::List) => {
                let columns = [
                    Column::field("name", "name"),
                    Column::field("version", "version"),
                    Column::field("file", "path"),
                    Column::of("loaded", |config| time(config.get("loaded_at"))),
                ];
                screen.table(rows(&client.get("/configs").await?), &columns);
            }
            Some(Verb::Show { name }) => screen.value(&client.get(&path(name, "")).await?),
            Some(Verb::Versions { name }) => {
                let columns = [
                    Column::field("version", "version"),
                    Column::of("loaded", |version| time(version.get("loaded_at"))),
                    Column::field("current", "is_current"),
                ];
                let versions = client.get(&path(name, "/versions")).await?;
                screen.table(rows(&versions), &columns);
            }
            Some(Verb::Upload { file, replace }) => {
                let text = std::fs::read_to_string(file)
                    .with_context(|| format!("{} can't be read", file.display()))?;
                let to = format!("/configs/upload?replace={replace}");
                let put = client.post_text(&to, "application/yaml", text).await?;
                screen.value(&put);
            }
            Some(Verb::Rollback { name, to }) => {
                let body = json!({ "version": to });
                screen.value(&client.post(&path(name, "/rollback"), &body).await?);
            }
        }
        Ok(Exit::Done)
    }
}

fn rows(list: &Value) -> &[Value] {
    list.as_array().map_or(&[], Vec::as_slice)
}
