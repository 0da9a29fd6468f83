//! What conversations cost that wait for their next message, and how long one takes to be awake: from its message's
//! acceptance until the model is asked, with all that was said before.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use domain::message::{Message, Reply, StopReason};
use domain::{AgentName, ExecutionId, Outcome, TraceId};
use engine::{Engine, NewTask};
use serde_json::json;
use store::postgres::{Asleep, fill_asleep};
use uuid::Uuid;

use super::memory;
use super::provider::nanoseconds;
use super::report::Report;
use super::rig::{Rig, SLEEPER};
use super::statistics::percentile;
use crate::cli::Context;
use crate::commands::bench::Sleeping;

const CAPACITY: usize = 64;
/// How many turns go before those that count, of conversations of their own.
const WARMUP: u32 = 100;
/// How long the process is left alone before its memory is read.
const REST: Duration = Duration::from_secs(3);
/// How often it is looked whether the answer is there, which is not what is measured.
const LOOK: Duration = Duration::from_millis(2);
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// What somebody says, and is answered: a sentence or two.
const WORDS: &str = "The room on the third floor has no towels, and somebody who stays there until Thursday would like \
    two of them, and a later breakfast on the last day, if that can be done at all.";

/// Measures, and prints.
///
/// # Errors
/// The store is the embedded one, a message is not answered, or the rig can't be built.
pub(crate) async fn measure(context: &Context, args: &Sleeping) -> anyhow::Result<()> {
    let server = context.settings.servers.postgres.as_ref();
    let server = server.context("this needs PostgreSQL: set POSTGRES_HOST")?;
    let rig = Rig::start(context, Duration::ZERO, CAPACITY, None).await?;
    let engine = rig.system.engine();
    let spinner = context.screen.spinner("warming up");
    let run = Uuid::now_v7().simple();
    for n in 0..WARMUP {
        wake(engine, &format!("{run}-warm-{n}")).await?;
    }
    tokio::time::sleep(REST).await;
    let before = memory::own_mib();
    spinner.set_message("filling the database");
    let stride = (args.count / args.wake).max(1);
    let agent: AgentName = SLEEPER.parse()?;
    let prefix = format!("{run}-");
    let asleep = Asleep {
        agent: &agent,
        prefix: &prefix,
        conversations: args.count.into(),
        long_one_in: stride.into(),
        messages: (args.messages, args.others),
        said: &said(),
    };
    let began = Instant::now();
    fill_asleep(server, asleep).await?;
    let filling = began.elapsed();
    tokio::time::sleep(REST).await;
    let meanwhile = memory::own_mib();
    spinner.set_message("waking one after the other");
    let mut woken = Woken::default();
    for n in (0..args.count)
        .step_by(stride as usize)
        .take(args.wake as usize)
    {
        woken.add(&wake(engine, &format!("{run}-{n}")).await?);
    }
    tokio::time::sleep(REST).await;
    spinner.finish_and_clear();
    let mut report = Report::default();
    report.add("asleep", "conversations asleep", f64::from(args.count), "");
    report.add("filling_s", "making them took", filling.as_secs_f64(), "s");
    report.add("rss_before_mib", "memory before", before, "MiB");
    report.add(
        "rss_asleep_mib",
        "memory while they sleep",
        meanwhile,
        "MiB",
    );
    let after = memory::own_mib();
    report.add("rss_after_mib", "memory when all sleep again", after, "MiB");
    woken.tell(&mut report, args);
    rig.report_disk(&mut report).await?;
    report.print(&context.screen);
    rig.close().await;
    Ok(())
}

/// One message and one answer.
fn said() -> [Message; 2] {
    let text = WORDS.to_owned();
    let reply = Reply {
        text: text.clone(),
        tool_calls: Vec::new(),
        stop: StopReason::EndTurn,
        provider_data: None,
    };
    [Message::User { text }, Message::Assistant(reply)]
}

/// When something happened to one message, in nanoseconds since 1970.
struct Moments {
    sent: u64,
    accepted: u64,
    asked: u64,
}

/// What was measured, in milliseconds.
#[derive(Default)]
struct Woken {
    acceptance: Vec<f64>,
    waking: Vec<f64>,
    both: Vec<f64>,
}

impl Woken {
    fn add(&mut self, moments: &Moments) {
        let Moments {
            sent,
            accepted,
            asked,
        } = *moments;
        let ms = |from: u64, to: u64| to.saturating_sub(from) as f64 / 1e6;
        self.acceptance.push(ms(sent, accepted));
        self.waking.push(ms(accepted, asked));
        self.both.push(ms(sent, asked));
    }

    fn tell(&mut self, report: &mut Report, args: &Sleeping) {
        report.add("woken", "woken", self.waking.len() as f64, "");
        report.add(
            "messages",
            "messages behind each",
            f64::from(args.messages),
            "",
        );
        let Self {
            acceptance,
            waking,
            both,
        } = self;
        let accept = percentile(acceptance, 50.0);
        report.add(
            "accept_ms_p50",
            "accepting its message, median",
            accept,
            "ms",
        );
        for (key, label, percent) in [
            (
                "wake_ms_p50",
                "from there until the model is asked, median",
                50.0,
            ),
            ("wake_ms_p99", "99 of 100", 99.0),
            ("wake_ms_max", "the slowest", 100.0),
        ] {
            report.add(key, label, percentile(waking, percent), "ms");
        }
        let both = percentile(both, 50.0);
        report.add("sent_to_model_ms_p50", "both together, median", both, "ms");
    }
}
/// Says something in a conversation, and waits for the answer: the stand-in's clock when it was asked.
async fn wake(engine: &Engine, conversation: &str) -> anyhow::Result<Moments> {
    let task = NewTask {
        conversation: Some(conversation.parse().map_err(anyhow::Error::msg)?),
        ..NewTask::new(
            SLEEPER,
            json!({ "prompt": WORDS }),
            TraceId::from_uuid(Uuid::now_v7()),
        )
    };
    let sent = nanoseconds();
    let id = engine.submit(task).await?.id;
    let accepted = nanoseconds();
    let answer = tokio::time::timeout(PATIENCE, answer(engine, id)).await;
    let answer = answer.with_context(|| format!("{id} was not answered for {PATIENCE:?}"))??;
    let asked = answer
        .parse()
        .with_context(|| format!("{answer:?} is no time"))?;
    Ok(Moments {
        sent,
        accepted,
        asked,
    })
}

async fn answer(engine: &Engine, id: ExecutionId) -> anyhow::Result<String> {
    loop {
        tokio::time::sleep(LOOK).await;
        let row = engine.store().execution(id).await?;
        match row.context("an execution is gone")?.outcome {
            None => {}
            Some(Outcome::Completed { output, .. }) => return Ok(output),
            Some(other) => anyhow::bail!("{id} has failed: {}", other.reason()),
        }
    }
}
