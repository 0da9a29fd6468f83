//! `bench`: what this machine can do, by figures that can be repeated.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};

use crate::bench::{
    events, latency, lists, provider, schedules, sleeping, startup, submit, waiting, workload,
};
use crate::cli::{Context, Exit, block_on};
use crate::telemetry;

/// Measures the durable engine on this machine and its disk.
///
/// Executions of five model turns, the first four with one tool call each, against a stand-in for a provider that
/// runs as a process of its own. The database is a new one in a folder of its own and is deleted afterwards; with
/// POSTGRES_* or RABBITMQ_* set, those servers are measured, and what the bench made stays there.
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "\
Examples:
  agentrunner bench                                             as many steps as possible
  agentrunner bench --concurrency 200 --latency-ms 200          200 at once against a slow model
  agentrunner bench --store-dir /mnt/nvme --json                on another disk, for a script
  agentrunner bench waiting --count 10000                       memory of those that wait
  agentrunner bench startup                                     time to ready, idle memory
  agentrunner bench latency                                     what durability adds to a model turn
  agentrunner bench submit --rate 500                           how long POST /tasks takes
  agentrunner bench submit --clients 64 --accept-only           how many are accepted in a second
  agentrunner bench lists --executions 1000000                  GET /agents and GET /tasks in a full database (PostgreSQL)
  agentrunner bench events --agents 1000                        from an event to the step it causes
  agentrunner bench schedules --count 10000                     all due at the same moment
  agentrunner bench sleeping --count 100000                     conversations asleep, and waking some (PostgreSQL)
  agentrunner bench --finished 1000000 --waiting 100000         in a full database (PostgreSQL)"
)]
pub(crate) struct Bench {
    #[command(subcommand)]
    what: Option<What>,
    #[command(flatten)]
    steps: Steps,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Executions and durable steps a second (the default)
    Steps(Steps),
    /// Memory of executions that wait for a person
    Waiting(Waiting),
    /// Time from start to ready, and idle memory
    Startup(Startup),
    /// What durability adds to one model turn
    Latency(Latency),
    /// How long POST /tasks takes, at a fixed rate of requests or by clients that ask one after the other
    Submit(Submit),
    /// How long GET /agents and GET /tasks take in a full database (PostgreSQL only)
    Lists(Lists),
    /// From an event to the first step of the agent that it starts
    Events(Events),
    /// How late schedules start that are due at once, and what they cost when nothing is due
    Schedules(Schedules),
    /// What sleeping conversations cost, and how soon one is awake (PostgreSQL only)
    Sleeping(Sleeping),
}

#[derive(Debug, Args)]
pub(crate) struct Steps {
    /// How many executions are measured [default: 2000, and at least five times as many as run at once]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    executions: Option<u32>,
    /// How many run at once
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) concurrency: u32,
    /// How long the stand-in takes for an answer
    #[arg(long, default_value_t = 0)]
    pub(crate) latency_ms: u64,
    /// How many executions run before, unmeasured [default: 200, and at least as many as run at once]
    #[arg(long)]
    warmup: Option<u32>,
    /// How many executions are over before, their rows in the database (PostgreSQL only)
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u64).range(..=100_000_000))]
    pub(crate) finished: u64,
    /// How many wait for a person all the time (PostgreSQL only)
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u64).range(..=100_000_000))]
    pub(crate) waiting: u64,
    /// Where the database is made [default: the system's folder for temporary files]
    #[arg(long, value_name = "DIR")]
    pub(crate) store_dir: Option<PathBuf>,
}

impl Steps {
    /// How many executions are measured.
    pub(crate) fn executions(&self) -> u32 {
        self.executions
            .unwrap_or(self.concurrency.saturating_mul(5).max(2000))
    }

    /// How many run before.
    pub(crate) fn warmup(&self) -> u32 {
        self.warmup.unwrap_or(self.concurrency.max(200))
    }
}

#[derive(Debug, Args)]
pub(crate) struct Waiting {
    /// How many wait
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) count: u32,
    /// Where the database is made
    #[arg(long, value_name = "DIR")]
    pub(crate) store_dir: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Startup {
    /// How many starts
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) starts: u32,
    /// Where the database is made
    #[arg(long, value_name = "DIR")]
    pub(crate) store_dir: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Latency {
    /// How many turns
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) turns: u32,
    /// Where the database is made
    #[arg(long, value_name = "DIR")]
    pub(crate) store_dir: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Submit {
    /// How many requests a second, whether earlier ones were answered or not
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) rate: u32,
    /// Instead: so many clients, each asking again as soon as it is answered
    #[arg(long, conflicts_with = "rate", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) clients: Option<u32>,
    /// Perform nothing: what one process accepts for others
    #[arg(long)]
    pub(crate) accept_only: bool,
    /// For how long
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=3600))]
    pub(crate) seconds: u32,
    /// How long the stand-in takes for an answer
    #[arg(long, default_value_t = 200)]
    pub(crate) latency_ms: u64,
    /// Where the database is made
    #[arg(long, value_name = "DIR")]
    pub(crate) store_dir: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Lists {
    /// How many agents
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(20..=10_000))]
    pub(crate) agents: u32,
    /// How many executions are in the database
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1000..=100_000_000))]
    pub(crate) executions: u64,
    /// How many requests a second, whether earlier ones were answered or not
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) rate: u32,
    /// For how long each shape of request is asked
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=3600))]
    pub(crate) seconds: u32,
    /// Where the agents' files are made
    #[arg(long, value_name = "DIR")]
    pub(crate) store_dir: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Events {
    /// How many agents subscribe, each to a topic of its own
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) agents: u32,
    /// How many events are published, one after the other
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) events: u32,
    /// Where the database is made
    #[arg(long, value_name = "DIR")]
    pub(crate) store_dir: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Schedules {
    /// How many schedules
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) count: u32,
    /// For how long nothing is due
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(5..=3600))]
    pub(crate) idle_seconds: u64,
    /// Also perform what they start, in the same process
    #[arg(long)]
    pub(crate) perform: bool,
    /// Where the database is made
    #[arg(long, value_name = "DIR")]
    pub(crate) store_dir: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Sleeping {
    /// How many conversations sleep
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub(crate) count: u32,
    /// How many of them are woken, one after the other
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) wake: u32,
    /// How many messages those have behind them that are woken
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(..=999))]
    pub(crate) messages: u32,
    /// How many messages the others have
    #[arg(long, default_value_t = 2)]
    pub(crate) others: u32,
}

/// The stand-in model, in a process of its own so that the engine's memory is measured alone.
#[derive(Debug, Args)]
pub(crate) struct Provider {
    #[arg(long, default_value_t = 0)]
    latency_ms: u64,
}

impl Bench {
    pub(crate) fn run(&self, context: &Context) -> anyhow::Result<Exit> {
        telemetry::start_quiet(context)?;
        block_on(async {
            match &self.what {
                None => workload::measure(context, &self.steps).await,
                Some(What::Steps(args)) => workload::measure(context, args).await,
                Some(What::Waiting(args)) => waiting::measure(context, args).await,
                Some(What::Startup(args)) => startup::measure(context, args).await,
                Some(What::Latency(args)) => latency::measure(context, args).await,
                Some(What::Submit(args)) => submit::measure(context, args).await,
                Some(What::Lists(args)) => lists::measure(context, args).await,
                Some(What::Events(args)) => events::measure(context, args).await,
                Some(What::Schedules(args)) => schedules::measure(context, args).await,
                Some(What::Sleeping(args)) => sleeping::measure(context, args).await,
            }
        })?;
        Ok(Exit::Done)
    }
}

impl Provider {
    pub(crate) fn run(&self) -> anyhow::Result<Exit> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(provider::serve(Duration::from_millis(self.latency_ms)))?;
        Ok(Exit::Done)
    }
}
