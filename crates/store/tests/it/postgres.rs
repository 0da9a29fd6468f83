//! PostgreSQL: the suite, and what only a server can do.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use domain::{ExecutionId, Seq};
use store::postgres::{Postgres, Schema, Settings};
use store::{Appended, Certainty, Class, Cleanup, Page, Signal, Store, Then};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use testkit::servers::{Kind, Server};

use crate::server::{connect, database, session, settings};
use crate::suite::Fixture;
use crate::suite::cleanup::{cleanup, old_task, once, over};
use crate::suite::given;
use crate::suite::given::{
    append, at, child, claim, claim_this, commit, finish, leased, note, notes, park, submission,
    submit, task,
};
use crate::suite::packing::Rows;

/// A store in a database of its own.
pub(crate) struct Served {
    store: Postgres,
    url: String,
}

impl Served {
    /// Where its database is.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    async fn behind_its_back(&self, sql: &str, id: ExecutionId, seq: u32) {
        let client = session(&self.url).await;
        let seq = i32::try_from(seq).unwrap();
        let changed = client.execute(sql, &[&id.as_uuid(), &seq]).await.unwrap();
        assert_eq!(changed, 1);
    }

    async fn stored(&self, sql: &str, id: ExecutionId, seq: u32) -> String {
        let client = session(&self.url).await;
        let seq = i32::try_from(seq).unwrap();
        let row = client.query_one(sql, &[&id.as_uuid(), &seq]).await.unwrap();
        row.get(0)
    }
}

#[async_trait]
impl Fixture for Served {
    async fn open() -> Self {
        let url = database().await;
        Self {
            store: connect(&url).await,
            url,
        }
    }

    fn store(&self) -> Arc<dyn Store> {
        Arc::new(self.store.clone())
    }

    async fn damage_step(&self, id: ExecutionId, seq: Seq) {
        let sql = "UPDATE steps SET body = '{\"kind\":\"nonsense\"}' WHERE execution_id = $1 AND seq = $2";
        self.behind_its_back(sql, id, seq.get()).await;
    }

    async fn remove_step(&self, id: ExecutionId, seq: Seq) {
        let sql = "DELETE FROM steps WHERE execution_id = $1 AND seq = $2";
        self.behind_its_back(sql, id, seq.get()).await;
    }

    async fn damage_task(&self, id: ExecutionId) {
        let sql = "UPDATE execution_specs SET spec = substr(spec, 1, $2) WHERE execution_id = $1";
        self.behind_its_back(sql, id, 30).await;
    }
}

behaviour!(Served);
behaviour! { Served;
    packing: long_things_lie_compressed_and_are_read_as_they_were, rows_from_before_stay_readable,
        a_bomb_in_a_row_ends_its_execution_alone;
    silence: what_was_silent_for_long_goes_and_what_somebody_waits_for_stays;
}

#[async_trait]
impl Rows for Served {
    async fn compressing(&self, above: usize) -> Arc<dyn Store> {
        let settings = Settings {
            compress_above: above,
            ..settings(&self.url)
        };
        Arc::new(Postgres::connect(settings).await.unwrap())
    }

    async fn stored_step(&self, id: ExecutionId, seq: Seq) -> String {
        let sql = "SELECT body FROM steps WHERE execution_id = $1 AND seq = $2";
        self.stored(sql, id, seq.get()).await
    }

    async fn stored_task(&self, id: ExecutionId) -> String {
        let sql = "SELECT spec FROM execution_specs WHERE execution_id = $1 AND $2::int = 0";
        self.stored(sql, id, 0).await
    }

    async fn stored_result(&self, id: ExecutionId) -> String {
        let sql = "SELECT outcome FROM execution_results WHERE execution_id = $1 AND $2::int = 0";
        self.stored(sql, id, 0).await
    }

    async fn write_step(&self, id: ExecutionId, seq: Seq, body: &str) {
        let client = session(&self.url).await;
        let sql = "UPDATE steps SET body = $3 WHERE execution_id = $1 AND seq = $2";
        let seq = i32::try_from(seq.get()).unwrap();
        let changed = client.execute(sql, &[&id.as_uuid(), &seq, &body]).await;
        assert_eq!(changed.unwrap(), 1);
    }
}

/// Answers when `done` says so; a test that waits for ever has failed.
async fn until(what: &str, mut done: impl AsyncFnMut() -> bool) {
    let end = tokio::time::Instant::now() + Duration::from_secs(60);
    while !done().await {
        assert!(tokio::time::Instant::now() < end, "{what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_processes_share_the_work_without_sharing_any_of_it() {
    let url = database().await;
    let stores = [connect(&url).await, connect(&url).await];
    let mut hinted = Vec::new();
    for n in 0..60 {
        hinted.push(submit(&stores[n % 2], task(["a", "b", "c"][n % 3])).await);
    }
    let claimers = stores.clone().map(|store| {
        let hints = hinted.clone();
        tokio::spawn(async move {
            let mut ids = Vec::new();
            // Both by hints, as the bus gives them to one or to several, and by looking.
            for hint in hints.into_iter().step_by(2) {
                ids.extend(
                    claim_this(&store, hint, at(1))
                        .await
                        .map(|c| c.execution.id),
                );
            }
            loop {
                let claimed = claim(&store, 3, at(1)).await;
                if claimed.is_empty() {
                    return ids;
                }
                for owner in claimed {
                    let steps = notes(&owner, 1, 1);
                    commit(&store, append(&owner, at(1), steps, Then::Continue)).await;
                    ids.push(owner.execution.id);
                }
            }
        })
    });
    let mut all = Vec::new();
    for claimer in claimers {
        all.extend(claimer.await.unwrap());
    }
    // One that the other process had locked at the moment is found by the next look.
    all.extend(
        claim(&stores[0], 60, at(1))
            .await
            .iter()
            .map(|c| c.execution.id),
    );
    all.sort();
    let n = all.len();
    all.dedup();
    assert_eq!((all.len(), n), (60, 60));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_can_ask_what_woke_its_leases_without_renewing_them() {
    let url = database().await;
    let (orchestrator, pool) = (connect(&url).await, connect(&url).await);
    let (w1, w2) = ("w1".parse().unwrap(), "w2".parse().unwrap());
    let owner = leased(&pool, task("a")).await;
    let _other = leased(&pool, task("b")).await;
    assert_eq!(pool.woken(&w1).await.unwrap(), []);
    let id = owner.execution.id;
    orchestrator.cancel(id, "me", "", at(1)).await.unwrap();
    let told = Signal::Woken { id, wakes: 1 };
    assert_eq!(pool.woken(&w1).await.unwrap(), [told]);
    assert_eq!(pool.woken(&w2).await.unwrap(), [], "they are another's");
    let due = pool.execution(id).await.unwrap().unwrap().due_at;
    assert_eq!(due, Some(at(10)), "the lease ends as it would");
    commit(&pool, append(&owner, at(2), Vec::new(), finish())).await;
    assert_eq!(pool.woken(&w1).await.unwrap(), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_bad_append_harms_no_other_of_its_batch() {
    let url = database().await;
    let store = connect(&url).await;
    let mut owners = Vec::new();
    for _ in 0..40 {
        owners.push(leased(&store, task("a")).await);
    }
    // Steps that nobody counted: the key refuses the whole batch.
    let client = session(&url).await;
    for owner in &owners[..3] {
        let sql = "INSERT INTO steps (execution_id, seq, at, epoch, kind, body) VALUES ($1, 1, now(), 1, 'note', '')";
        client
            .execute(sql, &[&owner.execution.id.as_uuid()])
            .await
            .unwrap();
    }
    let calls: Vec<_> = owners
        .iter()
        .map(|owner| {
            let (store, append) = (
                store.clone(),
                append(owner, at(1), notes(owner, 1, 1), Then::Continue),
            );
            tokio::spawn(async move { store.append(append).await })
        })
        .collect();
    for (n, call) in calls.into_iter().enumerate() {
        let answer = call.await.unwrap();
        assert_eq!(answer.is_err(), n < 3, "{n}: {answer:?}");
    }
    // Their rows are as they were.
    let row = store
        .execution(owners[0].execution.id)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(row.steps, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn families_that_end_crosswise_in_two_processes_all_end() {
    let url = database().await;
    let stores = [connect(&url).await, connect(&url).await];
    let mut parents = Vec::new();
    for _ in 0..12 {
        let parent = leased(&stores[0], task("a")).await;
        let id = parent.execution.id;
        let mut start = append(&parent, at(1), notes(&parent, 1, 1), park(at(900), 0));
        start.children = (1..=4)
            .map(|seq| {
                let mut one = child(id, "b");
                one.id = ExecutionId::child_of(id, Seq::new(seq));
                submission(one)
            })
            .collect();
        commit(&stores[0], start).await;
        parents.push(id);
    }
    let children = claim(&stores[0], 100, at(2)).await;
    assert_eq!(children.len(), 48);
    let calls: Vec<_> = children
        .iter()
        .enumerate()
        .map(|(n, owner)| {
            let (store, end) = (
                stores[n % 2].clone(),
                append(owner, at(3), notes(owner, 1, 1), finish()),
            );
            tokio::spawn(async move { commit(&store, end).await })
        })
        .collect();
    for call in calls {
        call.await.unwrap();
    }
    for id in parents {
        let woken = claim_this(&stores[1], id, at(3)).await.unwrap();
        assert_eq!((woken.waiting.wakes, woken.waiting.children.len()), (4, 4));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_was_acknowledged_survives_the_servers_being_killed() {
    let server = Server::start(Kind::Postgres).await;
    let store = connect(&server.url()).await;
    let kept = Arc::new(Mutex::new(HashMap::<ExecutionId, u32>::new()));
    for round in 0..3 {
        let mut writers = Vec::new();
        for _ in 0..16 {
            let owner = leased(&store, task("a")).await;
            let (store, kept) = (store.clone(), kept.clone());
            writers.push(tokio::spawn(async move {
                for seq in 1.. {
                    let step = vec![note(&owner, seq)];
                    match store
                        .append(append(&owner, at(1), step, Then::Continue))
                        .await
                    {
                        Ok(answer) => assert_eq!(answer, Appended::Applied),
                        Err(error) => {
                            assert_eq!(error.class(), Class::Unavailable, "{error}");
                            return (owner.execution.id, seq, error.certainty());
                        }
                    }
                    kept.lock().unwrap().insert(owner.execution.id, seq);
                }
                unreachable!()
            }));
        }
        let appended = || kept.lock().unwrap().values().sum::<u32>();
        let so_far = appended();
        until("appends", async || appended() >= so_far + 100).await;
        server.kill();
        let mut last = Vec::new();
        for writer in writers {
            last.push(writer.await.unwrap());
        }
        // A connection of the pool that has not heard of the end yet may have sent the transaction: then nobody knows.
        until(
            "a refusal of which is known that nothing was done",
            async || {
                let refused = store.submit(submission(task("a"))).await.unwrap_err();
                assert_eq!(refused.class(), Class::Unavailable, "{refused}");
                refused.certainty() == Certainty::NotApplied
            },
        )
        .await;
        server.up().await;
        until("the store to work again", async || {
            store.check().await.is_ok()
        })
        .await;
        for (id, tried, certainty) in last {
            let told = kept.lock().unwrap().get(&id).copied().unwrap_or(0);
            let steps = store.steps(id, None, usize::MAX).await.unwrap();
            let positions: Vec<u32> = steps.iter().map(|step| step.seq.get()).collect();
            let n = u32::try_from(positions.len()).unwrap();
            assert_eq!(positions, (1..=n).collect::<Vec<_>>(), "round {round}");
            assert!(
                n >= told,
                "round {round}: {told} were acknowledged, {n} are there"
            );
            assert!(
                n < tried || certainty == Certainty::Unknown,
                "{id} has what was not applied"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_that_stops_waiting_leaves_no_transaction_behind() {
    let url = database().await;
    let store = connect(&url).await;
    let owner = leased(&store, task("a")).await;
    let id = owner.execution.id;
    for n in 0..60u64 {
        let cancel = store.cancel(id, "me", "", at(1));
        tokio::time::timeout(Duration::from_micros(n * 150), cancel)
            .await
            .ok();
    }
    let client = session(&url).await;
    until("no session in a transaction", async || {
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
                   AND state LIKE 'idle in transaction%'";
        client.query_one(sql, &[]).await.unwrap().get::<_, i64>(0) == 0
    })
    .await;
    store.cancel(id, "me", "", at(1)).await.unwrap();
    commit(&store, append(&owner, at(2), notes(&owner, 1, 1), finish())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_month_that_is_over_is_dropped_whole() {
    let url = database().await;
    let store = connect(&url).await;
    let old = leased(&store, task("a")).await;
    commit(&store, append(&old, at(1), notes(&old, 1, 3), finish())).await;
    let open = submit(&store, task("a")).await;
    let mut schema = Schema::connect(&settings(&url)).await.unwrap();
    let far = domain::Time::from_timestamp(4_000_000_000, 0).unwrap();
    let dropped = schema.drop_months(far).await.unwrap();
    let this_month = chrono::Utc::now().format("%Y-%m").to_string();
    assert!(
        !dropped.contains(&this_month),
        "something in it is not over"
    );
    store.cancel(open, "me", "", at(2)).await.unwrap();
    assert_eq!(schema.drop_months(far).await.unwrap(), [this_month]);
    assert!(store.execution(open).await.unwrap().is_none());
    assert!(store.agent_stats(None).await.unwrap().is_empty());
    // What comes without a month's table has a place all the same.
    submit(&store, task("a")).await;
    schema.prepare_months().await.unwrap();
    assert_eq!(claim(&store, 10, at(1)).await.len(), 1);
}

/// Makes the tables of a month long ago.
async fn make_month(url: &str, month: &str, from: i64, to: i64) {
    let client = session(url).await;
    let bound = |seconds: i64| {
        let millis = u128::try_from(once(seconds).timestamp_millis()).unwrap();
        uuid::Uuid::from_u128(millis << 80)
    };
    for table in [
        "executions",
        "execution_specs",
        "steps",
        "execution_results",
        "inputs",
    ] {
        let sql = format!(
            "CREATE TABLE {table}_{month} PARTITION OF {table} FOR VALUES FROM ('{}') TO ('{}')",
            bound(from),
            bound(to)
        );
        client.batch_execute(&sql).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_month_goes_whole_unless_something_in_it_goes_on() {
    let url = database().await;
    let store = connect(&url).await;
    make_month(&url, "y2020m01", -3600, 3600).await;
    let mut started = old_task("a");
    started.event_id = Some("e-1".parse().unwrap());
    let ended = over(&store, started).await;
    let open = submit(&store, old_task("a")).await;

    assert_eq!(cleanup_2020(&store, true).await, (1, Vec::new()));
    assert_eq!(cleanup_2020(&store, false).await, (1, Vec::new()));
    assert!(store.execution(ended).await.unwrap().is_none());
    assert!(store.execution(open).await.unwrap().is_some(), "it goes on");

    store.cancel(open, "me", "", once(2)).await.unwrap();
    let month = vec!["2020-01".to_owned()];
    assert_eq!(cleanup_2020(&store, true).await, (1, month.clone()));
    assert!(store.execution(open).await.unwrap().is_some());
    assert_eq!(cleanup_2020(&store, false).await, (1, month));
    assert!(store.execution(open).await.unwrap().is_none());
    assert!(store.agent_stats(None).await.unwrap().is_empty());
    let client = session(&url).await;
    let left = client
        .query_one(
            "SELECT (SELECT count(*) FROM execution_events),
                 (SELECT count(*) FROM pg_class WHERE relname LIKE '%y2020m01%')",
            &[],
        )
        .await
        .unwrap();
    assert_eq!((left.get::<_, i64>(0), left.get::<_, i64>(1)), (0, 0));
}

/// In February, when January is over.
async fn cleanup_2020(store: &Postgres, dry_run: bool) -> (u64, Vec<String>) {
    let before = "2020-02-02T00:00:00Z".parse().unwrap();
    let cleaned = store.cleanup(Cleanup { before, dry_run }).await.unwrap();
    (cleaned.executions, cleaned.months)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn copies_made_for_measuring_are_executions_like_any_other() {
    let url = database().await;
    let store = connect(&url).await;
    let mut young = task("a");
    young.created_at = chrono::Utc::now();
    let ended = over(&store, young.clone()).await;
    young.id = given::new_id();
    let waits = leased(&store, young).await;
    let until = chrono::Utc::now() + Duration::from_secs(600);
    commit(
        &store,
        append(
            &waits,
            at(1),
            vec![given::question(&waits, 1)],
            park(until, 0),
        ),
    )
    .await;
    for of in [ended, waits.execution.id] {
        store::postgres::fill(&settings(&url), of, 30)
            .await
            .unwrap();
    }
    let page = Page {
        limit: 100,
        after: None,
    };
    let all = store.executions(Default::default(), page).await.unwrap();
    assert_eq!((all.0.len(), all.1.count), (62, 62), "each can be read");
    for row in &all.0 {
        let steps = store.steps(row.execution.id, None, 10).await.unwrap();
        assert_eq!(steps.len(), row.steps as usize);
        assert_eq!(row.due_at.is_none(), row.status.is_terminal());
    }
    let stats = store.agent_stats(None).await.unwrap();
    assert_eq!((stats[0].completed, stats[0].active), (31, 31));
    assert!(claim(&store, 10, chrono::Utc::now()).await.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_guides_statements_on_results_and_states_work_as_written() {
    let url = database().await;
    let store = connect(&url).await;
    let old = over(&store, old_task("a")).await;
    let young = over(&store, old_task("a")).await;
    let remember = |key: &'static str, at| {
        let (store, value) = (store.clone(), serde_json::json!(1));
        async move {
            let agent = "a".parse().unwrap();
            store.remember(&agent, key, &value, key, at).await.unwrap();
        }
    };
    remember("old", once(0)).await;
    remember("young", chrono::Utc::now()).await;
    let client = session(&url).await;
    client
        .execute(
            "UPDATE execution_results SET created_at = now() WHERE execution_id = $1",
            &[&young.as_uuid()],
        )
        .await
        .unwrap();
    for sql in [
        "DELETE FROM execution_results WHERE created_at < NOW() - INTERVAL '30 days';",
        "DELETE FROM agent_states WHERE updated_at < NOW() - INTERVAL '30 days';",
    ] {
        assert_eq!(client.execute(sql, &[]).await.unwrap(), 1, "{sql}");
    }
    let row = store.execution(old).await.unwrap().unwrap();
    assert_eq!((row.outcome, row.status.is_terminal()), (None, true));
    let row = store.execution(young).await.unwrap().unwrap();
    assert!(row.outcome.is_some());
    let facts = store.recall(&"a".parse().unwrap(), "", 10).await.unwrap();
    assert_eq!(facts.len(), 1);
    assert_eq!(cleanup(&store, false).await.executions, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_process_is_told_of_work_at_once() {
    let url = database().await;
    let (one, other) = (connect(&url).await, connect(&url).await);
    let due = other.due_signal().unwrap();
    // It listens when it has said so to itself.
    due.notified().await;
    for told in 0..3 {
        submit(&one, task("a")).await;
        let heard = tokio::time::timeout(Duration::from_secs(30), due.notified()).await;
        assert!(heard.is_ok(), "the submission {told} was not heard of");
    }
    // Nobody hears of his own work twice: what is told by the commit is not told again by the server.
    let own = one.due_signal().unwrap();
    own.notified().await;
    let silence = tokio::time::timeout(Duration::from_millis(500), own.notified()).await;
    assert!(silence.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_refuses_writes_and_loses_nothing() {
    let url = database().await;
    let store = connect(&url).await;
    let owners = [
        leased(&store, task("a")).await,
        leased(&store, task("a")).await,
    ];
    let client = session(&url).await;
    let fill = "CREATE FUNCTION is_full() RETURNS trigger LANGUAGE plpgsql AS $$
                BEGIN RAISE EXCEPTION 'could not extend file' USING ERRCODE = 'disk_full'; END $$;
                CREATE TRIGGER is_full BEFORE INSERT ON steps FOR EACH ROW EXECUTE FUNCTION is_full()";
    client.batch_execute(fill).await.unwrap();
    let writes = owners.each_ref().map(|owner| {
        let (store, steps) = (store.clone(), notes(owner, 1, 2));
        let append = append(owner, at(1), steps, Then::Continue);
        tokio::spawn(async move { store.append(append).await })
    });
    for write in writes {
        let error = write.await.unwrap().unwrap_err();
        assert_eq!(
            (error.class(), error.certainty()),
            (Class::Unavailable, Certainty::NotApplied)
        );
        assert!(error.to_string().contains("free some space"), "{error}");
    }
    let row = store.execution(owners[0].execution.id).await.unwrap();
    assert_eq!(row.unwrap().steps, 0);
    // Space returns.
    client
        .batch_execute("DROP TRIGGER is_full ON steps")
        .await
        .unwrap();
    for owner in &owners {
        commit(
            &store,
            append(owner, at(1), notes(owner, 1, 2), Then::Continue),
        )
        .await;
    }
}

/// Forwards to the server, until its answers are to be lost.
async fn lossy(url: &str) -> (String, Arc<AtomicBool>) {
    let server = url.split(['@', '/']).nth(3).unwrap().to_owned();
    let proxy = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = proxy.local_addr().unwrap().to_string();
    let is_lost = Arc::new(AtomicBool::new(false));
    let through = (url.replacen(&server, &address, 1), is_lost.clone());
    tokio::spawn(async move {
        loop {
            let (client, _) = proxy.accept().await.unwrap();
            let (mut from_client, mut to_client) = client.into_split();
            let server = TcpStream::connect(&server).await.unwrap();
            let (mut from_server, mut to_server) = server.into_split();
            let is_lost = is_lost.clone();
            tokio::spawn(async move {
                tokio::io::copy(&mut from_client, &mut to_server).await.ok();
            });
            tokio::spawn(async move {
                let mut buffer = vec![0; 64 * 1024];
                while let Ok(n @ 1..) = from_server.read(&mut buffer).await {
                    let forwarded = is_lost.load(Ordering::Acquire)
                        || to_client.write_all(&buffer[..n]).await.is_ok();
                    if !forwarded {
                        break;
                    }
                }
            });
        }
    });
    through
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_answer_is_unknown_and_the_write_may_be_repeated() {
    let url = database().await;
    let (through, is_lost) = lossy(&url).await;
    let hasty = Settings {
        statement_timeout: Duration::from_millis(500),
        ..settings(&through)
    };
    let store = Postgres::connect(hasty).await.unwrap();
    let owner = leased(&store, task("a")).await;
    commit(
        &store,
        append(&owner, at(1), notes(&owner, 1, 1), Then::Continue),
    )
    .await;
    is_lost.store(true, Ordering::Release);
    let second = append(&owner, at(1), notes(&owner, 2, 2), Then::Continue);
    let error = store.append(second.clone()).await.unwrap_err();
    assert_eq!(
        (error.class(), error.certainty()),
        (Class::Unavailable, Certainty::Unknown),
        "{error}"
    );
    // It was applied, which only the server knows.
    let direct = connect(&url).await;
    let steps = direct.steps(owner.execution.id, None, 10).await.unwrap();
    assert_eq!(steps, notes(&owner, 1, 2));
    is_lost.store(false, Ordering::Release);
    commit(&store, second).await;
    commit(
        &store,
        append(&owner, at(1), notes(&owner, 3, 3), Then::Continue),
    )
    .await;
    let steps = direct.steps(owner.execution.id, None, 10).await.unwrap();
    assert_eq!(steps, notes(&owner, 1, 3));
}
