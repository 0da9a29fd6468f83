//! Copies: all that a store holds, taken out and put into another one, of the same kind or the other.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use chrono::{TimeDelta, Utc};
use domain::{Epoch, Execution, Restored, Time};
use rusqlite::Connection;
use store::copying::{self, LEFT_OUT, Layout, Piece, Target, Wish, newest_schema, tables};
use store::postgres::{self, Settings};
use store::sqlite::{self, Sqlite};
use store::{DeadLetter, Error, Store};
use tempfile::TempDir;

use crate::postgres::Served;
use crate::server::{connect, empty_database, session, settings};
use crate::sqlite::{Embedded, quick};
use crate::suite::given::{
    append, at, claim_this, commit, event, leased, notes, park, submit, task,
};
use crate::suite::{
    Fixture, audits, cleanup, errands, input, keys, memory, outgoing, pins, schedules, shared,
    submit as submits, switches, workers,
};

/// A database of either kind.
#[derive(Debug)]
enum Place {
    File(
        PathBuf,
        #[expect(dead_code, reason = "it is there as long as the file")] Option<TempDir>,
    ),
    Server(Settings, String),
}

impl Place {
    /// One that is not there yet.
    fn new_file() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self::File(dir.path().join("new.db"), Some(dir))
    }

    /// An empty one.
    async fn new_server() -> Self {
        Self::at(empty_database().await)
    }

    fn at(url: String) -> Self {
        Self::Server(settings(&url), url)
    }

    async fn dump(&self) -> Dump {
        let (pieces, mut coming) = copying::channel();
        let gather = async {
            let mut dump = Dump::default();
            while let Some(piece) = coming.recv().await {
                match piece {
                    Piece::Begin(layout) => dump.layout = Some(layout),
                    Piece::Rows { table, lines, .. } => {
                        let name = dump.layout().tables[table].name.clone();
                        let text = String::from_utf8(lines).unwrap();
                        dump.tables.entry(name).or_default().push_str(&text);
                    }
                    Piece::End => dump.is_whole = true,
                }
            }
            dump
        };
        let (dumped, dump) = match self {
            Self::File(path, _) => {
                tokio::join!(sqlite::dump(path.clone(), Utc::now(), pieces), gather)
            }
            Self::Server(settings, _) => tokio::join!(postgres::dump(settings, pieces), gather),
        };
        dumped.unwrap();
        assert!(dump.is_whole);
        dump
    }

    /// Puts a copy in; without its end, when it is not whole.
    async fn load(&self, dump: &Dump, wish: Wish) -> store::Result<()> {
        let (pieces, coming) = copying::channel();
        let send = async move {
            let rows = dump
                .layout()
                .tables
                .iter()
                .enumerate()
                .filter_map(|(table, place)| {
                    let lines = dump.tables.get(&place.name)?.as_bytes().to_vec();
                    Some(Piece::Rows {
                        table,
                        count: 0,
                        lines,
                    })
                });
            let end = dump.is_whole.then_some(Piece::End);
            let begin = Piece::Begin(dump.layout().clone());
            for piece in std::iter::once(begin).chain(rows).chain(end) {
                if pieces.send(piece).await.is_err() {
                    break;
                }
            }
        };
        match self {
            Self::File(path, _) => tokio::join!(sqlite::load(path.clone(), coming, wish), send).0,
            Self::Server(settings, _) => {
                tokio::join!(postgres::load(settings, coming, wish), send).0
            }
        }
    }

    async fn target(&self) -> Target {
        match self {
            Self::File(path, _) => sqlite::target(path.clone(), Utc::now()).await.unwrap(),
            Self::Server(settings, _) => postgres::target(settings).await.unwrap(),
        }
    }

    async fn open(&self) -> Box<dyn Store> {
        match self {
            Self::File(path, _) => Box::new(Sqlite::open(path, quick()).unwrap()),
            Self::Server(_, url) => Box::new(connect(url).await),
        }
    }

    /// The tables that there are, as the database's own catalogue has them, months aside.
    async fn catalogue(&self) -> Vec<String> {
        match self {
            Self::File(path, _) => {
                let conn = Connection::open(path).unwrap();
                let sql = "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'";
                let mut statement = conn.prepare(sql).unwrap();
                let rows = statement.query_map([], |row| row.get(0)).unwrap();
                rows.map(Result::unwrap).collect()
            }
            Self::Server(_, url) => {
                let sql = "SELECT c.relname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                           WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND n.nspname = 'public'";
                let rows = session(url).await.query(sql, &[]).await.unwrap();
                rows.iter().map(|row| row.get(0)).collect()
            }
        }
    }
}

#[derive(Debug, Default)]
struct Dump {
    layout: Option<Layout>,
    tables: BTreeMap<String, String>,
    is_whole: bool,
}

impl Dump {
    fn layout(&self) -> &Layout {
        self.layout.as_ref().expect("the layout comes first")
    }
}

fn moving() -> Wish {
    Wish {
        restored: None,
        source: "test".to_owned(),
        over: None,
        now: Utc::now(),
    }
}

fn restoring(backup: Time) -> Wish {
    Wish {
        restored: Some(Restored {
            at: Utc::now(),
            backup,
        }),
        ..moving()
    }
}

fn over(name: &str) -> Wish {
    Wish {
        over: Some(name.to_owned()),
        ..moving()
    }
}

/// Has a store do all kinds of work, by the tests that do it.
async fn fill(f: &impl Fixture) {
    let store = f.store();
    submits::another_body_under_the_same_key_is_refused(f).await;
    submits::one_agent_and_event_start_one_execution(f).await;
    keys::a_key_is_kept_once_and_listed_newest_first(f).await;
    audits::acts_are_kept_once_and_listed_newest_first(f).await;
    errands::an_errand_is_taken_in_once_and_is_one_owners(f).await;
    switches::an_agent_that_was_disabled_stays_so_under_the_first_name(f).await;
    memory::facts_are_kept_once_per_write(f).await;
    memory::versions_of_definitions_are_kept(f).await;
    memory::states_are_written_and_read(f).await;
    memory::a_conversation_is_kept_in_order(f).await;
    shared::values_have_versions_and_a_repeated_write_is_one(f).await;
    schedules::a_skipped_run_keeps_its_reason(f).await;
    input::several_open_requests_are_ambiguous(f).await;
    pins::a_tool_that_changes_is_withheld_until_it_is_approved(f).await;
    outgoing::one_of_many_evaluators_keeps_what_it_found(f).await;
    for seconds in 0..3 {
        cleanup::over(&*store, task("a")).await;
        cleanup::over(&*store, cleanup::old_task("old")).await;
        let letter = DeadLetter {
            id: format!("letter {seconds}"),
            queue: "q".to_owned(),
            event: event("e"),
            reason: "no reason ✓".to_owned(),
            attempts: 5,
            at: at(seconds),
        };
        store.add_dead_letter(letter).await.unwrap();
        store
            .publish(&[event(&format!("z-{}", 9 - seconds))])
            .await
            .unwrap();
    }
}

/// A copy of a file that has seen all kinds of work.
async fn full_file() -> (Embedded, Place, Dump) {
    let fixture = Embedded::open().await;
    fill(&fixture).await;
    let place = Place::File(fixture.path().to_owned(), None);
    let dump = place.dump().await;
    (fixture, place, dump)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_are_the_same_bytes_in_whichever_store_they_are() {
    let (_fixture, _, first) = full_file().await;
    let empty: Vec<&str> = tables()
        .filter(|table| !first.tables.contains_key(*table))
        .collect();
    assert_eq!(empty, ["restores"], "work fills all tables but this");
    let mut last = first;
    for place in [
        Place::new_server().await,
        Place::new_server().await,
        Place::new_file(),
        Place::new_file(),
    ] {
        place.load(&last, moving()).await.unwrap();
        let dump = place.dump().await;
        assert_eq!(dump.tables, last.tables, "{place:?}");
        last = dump;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_server_has_gathered_goes_into_a_file_and_back() {
    let fixture = Served::open().await;
    fill(&fixture).await;
    let first = Place::at(fixture.url().to_owned()).dump().await;
    let file = Place::new_file();
    file.load(&first, moving()).await.unwrap();
    let server = Place::new_server().await;
    server.load(&file.dump().await, moving()).await.unwrap();
    assert_eq!(server.dump().await.tables, first.tables);
    // What is not copied but made: the counts, and which event started what.
    let (before, after) = (fixture.store(), server.open().await);
    assert_eq!(
        after.agent_stats(None).await.unwrap(),
        before.agent_stats(None).await.unwrap()
    );
    let session = session(match &server {
        Place::Server(_, url) => url,
        Place::File(..) => unreachable!(),
    })
    .await;
    let sql = "SELECT (SELECT count(*) FROM execution_events), (SELECT count(*) FROM executions WHERE event_id IS NOT NULL),
                   (SELECT count(*) FROM executions_other), (SELECT count(*) FROM executions)";
    let row = session.query_one(sql, &[]).await.unwrap();
    let count = |column: usize| row.get::<_, i64>(column);
    assert!(count(0) > 0 && count(0) == count(1));
    assert_eq!(count(2), 0, "each month has its table, old ones too");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_table_is_forgotten() {
    let file = Embedded::open().await;
    let server = Served::open().await;
    for place in [
        Place::File(file.path().to_owned(), None),
        Place::at(server.url().to_owned()),
    ] {
        let known: Vec<&str> = tables().chain(LEFT_OUT.map(|(name, _)| name)).collect();
        for table in place.catalogue().await {
            assert!(
                known.contains(&table.as_str()),
                "{table} is neither copied nor left out for a reason: see copying.rs"
            );
        }
        let catalogue = place.catalogue().await;
        for table in tables() {
            assert!(catalogue.iter().any(|name| name == table), "{table}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_under_way_goes_on_above_all_epochs_and_is_in_doubt() {
    let fixture = Embedded::open().await;
    let store = fixture.store();
    let leased_one = leased(&*store, task("a")).await;
    let id = leased_one.execution.id;
    commit(
        &*store,
        append(
            &leased_one,
            at(1),
            notes(&leased_one, 1, 2),
            store::Then::Continue,
        ),
    )
    .await;
    let parked = leased(&*store, task("a")).await;
    commit(
        &*store,
        append(&parked, at(1), Vec::new(), park(at(500), 0)),
    )
    .await;
    let ended = cleanup::over(&*store, cleanup::old_task("a")).await;
    assert_eq!(store.restored().await.unwrap(), None);
    let dump = Place::File(fixture.path().to_owned(), None).dump().await;

    for place in [Place::new_file(), Place::new_server().await] {
        let backup = at(3);
        place.load(&dump, restoring(backup)).await.unwrap();
        let store = place.open().await;
        let restored = store.restored().await.unwrap().unwrap();
        assert_eq!(restored.backup, backup);
        // The lease's owner is gone: at once, and not as one that crashed.
        let now = restored.at + TimeDelta::milliseconds(1);
        let claimed = claim_this(&*store, id, now).await.unwrap();
        assert!(claimed.epoch > Epoch::new(100_000), "{}", claimed.epoch);
        assert_eq!((claimed.crashes, claimed.steps.len()), (0, 2));
        assert_eq!(claimed.execution.restored, Some(backup));
        // One that was lost in the past can't write, whatever its epoch had become.
        let late = store::Claimed {
            epoch: Epoch::new(leased_one.epoch.get() + 5),
            ..leased_one.clone()
        };
        let late = append(&late, now, notes(&late, 3, 3), store::Then::Continue);
        assert_eq!(
            store.append(late).await.unwrap(),
            store::Appended::LostLease
        );
        let row = store.execution(parked.execution.id).await.unwrap().unwrap();
        assert_eq!(row.execution.restored, Some(backup));
        let row = store.execution(ended).await.unwrap().unwrap();
        assert_eq!(row.execution.restored, None);
        // What is asked for from now on is not in doubt, and the next one's claim begins as ever.
        let young = Execution {
            created_at: now,
            ..task("b")
        };
        let young = submit(&*store, young).await;
        let young = claim_this(&*store, young, now).await.unwrap();
        assert_eq!(young.execution.restored, None);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_that_is_not_whole_or_does_not_fit_changes_nothing() {
    let (_fixture, _, whole) = full_file().await;
    let mut flaws = Vec::new();
    for change in [
        |dump: &mut Dump| dump.is_whole = false,
        |dump: &mut Dump| dump.tables.get_mut("steps").unwrap().push_str("[1]\n"),
        |dump: &mut Dump| {
            let steps = dump.tables.get_mut("steps").unwrap();
            let twice = steps.lines().next().unwrap().to_owned();
            steps.push_str(&twice);
            steps.push('\n');
        },
        |dump: &mut Dump| {
            let layout = dump.layout.as_mut().unwrap();
            layout.schema = newest_schema() + 1;
        },
    ] {
        let mut dump = Dump {
            layout: whole.layout.clone(),
            tables: whole.tables.clone(),
            is_whole: true,
        };
        change(&mut dump);
        flaws.push(dump);
    }
    let (file, server) = (Place::new_file(), Place::new_server().await);
    for dump in &flaws {
        for place in [&file, &server] {
            place.load(dump, moving()).await.unwrap_err();
            assert_eq!(place.target().await.filled, [""; 0]);
        }
    }
    let Place::File(path, _) = &file else {
        unreachable!()
    };
    let left = std::fs::read_dir(path.parent().unwrap()).unwrap().count();
    assert_eq!(left, 0, "no file is left");
    assert_eq!(server.catalogue().await, [""; 0], "no table is left");
    // And then it goes well.
    for place in [&file, &server] {
        place.load(&whole, moving()).await.unwrap();
        assert_eq!(place.dump().await.tables, whole.tables);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_what_is_named_is_replaced() {
    let (_fixture, _, dump) = full_file().await;
    for place in [Place::new_file(), Place::new_server().await] {
        let store = place.open().await;
        let old = submit(&*store, task("old")).await;
        let mut worker = workers::worker("w-9", 0);
        worker.last_heartbeat = Utc::now();
        let silent = Utc::now() - TimeDelta::hours(1);
        store.heartbeat(worker, silent).await.unwrap();
        store.close().await.unwrap();
        drop(store);
        let target = place.target().await;
        assert_eq!(target.alive, ["w-9"]);
        assert!(target.filled.contains(&"executions".to_owned()));
        for wish in [moving(), over("other")] {
            let error = place.load(&dump, wish).await.unwrap_err();
            assert!(matches!(error, Error::Refused { .. }), "{error}");
        }
        let store = place.open().await;
        assert!(store.execution(old).await.unwrap().is_some());
        store.close().await.unwrap();
        drop(store);
        place.load(&dump, over(&target.name)).await.unwrap();
        assert_eq!(place.dump().await.tables, dump.tables);
        assert!(place.open().await.execution(old).await.unwrap().is_none());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_is_open_elsewhere_is_not_replaced() {
    let (_fixture, _, dump) = full_file().await;
    let place = Place::new_file();
    let store = place.open().await;
    let error = place.load(&dump, over("new.db")).await.unwrap_err();
    assert!(error.to_string().contains("stop it first"), "{error}");
    let id = submit(&*store, task("a")).await;
    assert!(store.execution(id).await.unwrap().is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_of_an_older_schema_is_brought_up_to_date() {
    let (fixture, old, _) = full_file().await;
    fixture.store().close().await.unwrap();
    let mut schema = sqlite::Schema::open(fixture.path()).unwrap();
    let back = usize::try_from(newest_schema()).unwrap() - 9;
    assert_eq!(schema.down(back).unwrap(), back);
    drop(schema);
    let dump = old.dump().await;
    assert_eq!(dump.layout().schema, 9);
    for place in [Place::new_file(), Place::new_server().await] {
        place.load(&dump, moving()).await.unwrap();
        let new = place.dump().await;
        assert_eq!(new.layout().schema, newest_schema());
        let (mut before, mut after) = (dump.tables.clone(), new.tables);
        // It has a column more.
        before.remove("executions");
        after.remove("executions");
        assert_eq!(after, before);
        place.open().await.check().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_is_of_one_moment_while_others_write() {
    let fixture = Served::open().await;
    let store = fixture.store();
    let stop = Arc::new(AtomicBool::new(false));
    let (writer, stopped) = (store.clone(), stop.clone());
    let writing = tokio::spawn(async move {
        let mut count = 0u32;
        while !stopped.load(Ordering::Relaxed) {
            cleanup::over(&*writer, task("a")).await;
            count += 1;
        }
        count
    });
    let place = Place::at(fixture.url().to_owned());
    for _ in 0..4 {
        let dump = place.dump().await;
        let ids = |table: &str, column: &str| {
            let mut layouts = dump.layout().tables.iter();
            let layout = layouts.find(|one| one.name == table).unwrap();
            let place = layout.columns.iter().position(|one| one == column);
            let lines = dump
                .tables
                .get(table)
                .map(String::as_str)
                .unwrap_or_default();
            let ids = lines.lines().map(|line| {
                let row: Vec<serde_json::Value> = serde_json::from_str(line).unwrap();
                row[place.unwrap()]["b64"].as_str().unwrap().to_owned()
            });
            ids.collect::<std::collections::BTreeSet<_>>()
        };
        // Each execution is there with its task; each that is over with its journal and its result.
        assert_eq!(
            ids("executions", "id"),
            ids("execution_specs", "execution_id")
        );
        assert_eq!(
            ids("steps", "execution_id"),
            ids("execution_results", "execution_id")
        );
    }
    stop.store(true, Ordering::Relaxed);
    assert!(writing.await.unwrap() > 0);
}
