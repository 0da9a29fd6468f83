//! A process that is killed at any moment: whatever it was told is durable is there afterwards.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use domain::{ExecutionId, Seq, Status};
use store::sqlite::{Options, Sqlite};
use store::{Store, Then};

use crate::sqlite::is_whole;
use crate::suite::given::{append, at, claim_this, commit, event, finish, note, submit, task};

const DATABASE: &str = "STORE_CRASH_TEST_DATABASE";
const ROUNDS: usize = 24;
const WRITERS: usize = 8;
const STEPS: u32 = 12;

/// Not a test: what the killed process does. It says each thing when it has been told that it is durable.
#[test]
#[ignore = "run by the test below"]
#[allow(
    clippy::disallowed_methods,
    reason = "the parent's way to hand the path over"
)]
fn victim() {
    let Some(path) = std::env::var_os(DATABASE) else {
        return;
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let store = Sqlite::open(Path::new(&path), Options::default()).unwrap();
        for _ in 1..WRITERS {
            tokio::spawn(write_for_ever(store.clone()));
        }
        write_for_ever(store).await;
    });
}

/// On a line of its own: the test harness begins one that it does not end.
fn say(words: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "\n{words}").unwrap();
    out.flush().unwrap();
}

async fn write_for_ever(store: Sqlite) {
    loop {
        write_one(&store).await;
    }
}

async fn write_one(store: &Sqlite) {
    let id = submit(store, task("a")).await;
    say(&format!("submitted {id} 0"));
    let owner = claim_this(store, id, at(0)).await.unwrap();
    for seq in 1..=STEPS {
        commit(
            store,
            append(&owner, at(1), vec![note(&owner, seq)], Then::Continue),
        )
        .await;
        say(&format!("appended {id} {seq}"));
    }
    let mut end = append(&owner, at(2), Vec::new(), finish());
    end.events = vec![event(&format!("end-{id}"))];
    commit(store, end).await;
    say(&format!("finished {id} {STEPS}"));
}

/// What the process was told, in order.
#[derive(Debug)]
struct Told {
    what: String,
    id: ExecutionId,
    seq: u32,
}

impl Told {
    fn read(line: &str) -> Option<Self> {
        let mut words = line.split(' ');
        let (what, id, seq) = (words.next()?, words.next()?, words.next()?);
        Some(Self {
            what: what.to_owned(),
            id: id.parse().ok()?,
            seq: seq.parse().ok()?,
        })
    }
}

fn start(path: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "crash::victim", "--ignored", "--nocapture"])
        .env(DATABASE, path)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Lets it work until it has said something, then a random moment longer, and kills it.
fn kill_at_random(path: &Path) -> Vec<Told> {
    let mut victim = start(path);
    let lines = BufReader::new(victim.stdout.take().unwrap()).lines();
    let (sender, words) = mpsc::channel();
    let listener = std::thread::spawn(move || {
        for told in lines
            .map_while(Result::ok)
            .filter_map(|line| Told::read(&line))
        {
            sender.send(told).unwrap();
        }
    });
    let first = words.recv_timeout(Duration::from_secs(60));
    let moment = uuid::Uuid::new_v4().as_u128() % 60_000;
    // The moment is what is tested: there is nothing to wait for.
    std::thread::sleep(Duration::from_micros(u64::try_from(moment).unwrap()));
    victim.kill().unwrap();
    victim.wait().unwrap();
    listener.join().unwrap();
    first.into_iter().chain(words.try_iter()).collect()
}

#[test]
fn whatever_was_acknowledged_survives_being_killed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.db");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut acknowledged = 0;
    for round in 0..ROUNDS {
        let told = kill_at_random(&path);
        assert!(!told.is_empty(), "it did nothing in round {round}");
        acknowledged += told.len();
        runtime.block_on(async {
            let store = Sqlite::open(&path, Options::default()).unwrap();
            check(&store, &told).await;
            store.close().await.unwrap();
        });
        assert!(is_whole(&path), "round {round}");
    }
    assert!(
        acknowledged > ROUNDS * 5,
        "only {acknowledged} writes were tested"
    );
}

async fn check(store: &Sqlite, told: &[Told]) {
    let events = outgoing_all(store).await;
    for Told { what, id, seq } in told {
        let row = store.execution(*id).await.unwrap();
        let row = row.unwrap_or_else(|| panic!("{id} was {what} and is gone"));
        assert!(
            row.steps >= *seq,
            "{what} {id} {seq}, and it has {}",
            row.steps
        );
        let steps = store.steps(*id, None, 100).await.unwrap();
        let positions: Vec<_> = steps.iter().map(|step| step.seq).collect();
        assert_eq!(positions, (1..=row.steps).map(Seq::new).collect::<Vec<_>>());
        // The end and its event are one transaction, acknowledged or not.
        let is_over = row.status == Status::Completed;
        assert_eq!(is_over, events.contains(&format!("end-{id}")));
        assert!(is_over || what != "finished", "{id} had finished");
    }
}

async fn outgoing_all(store: &Sqlite) -> Vec<String> {
    let entries = store.outbox(usize::MAX).await.unwrap();
    entries
        .into_iter()
        .map(|entry| entry.event.id.into())
        .collect()
}
