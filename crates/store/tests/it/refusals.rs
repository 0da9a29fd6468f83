//! Servers that can't serve, and databases that can't be used: each is named, and what to do about it is said.

use std::time::{Duration, Instant};

use store::postgres::{Postgres, Schema, Settings};
use store::{Certainty, Class, Error, Store};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use testkit::servers::{Kind, Server};

use crate::server::{connect, database, empty_database, session, settings};
use crate::suite::given::{submission, task};

/// What the store says on connecting, which it must within a few seconds and without naming a secret.
async fn told(settings: Settings) -> String {
    let start = Instant::now();
    let error = Postgres::connect(settings).await.unwrap_err();
    assert!(start.elapsed() < Duration::from_secs(10), "{error}");
    assert_eq!(error.class(), Class::Unavailable, "{error}");
    assert_eq!(error.certainty(), Certainty::NotApplied);
    let all = format!("{error} {error:?}");
    assert!(!all.contains("s3cret"), "{all}");
    error.to_string()
}

fn at_port(port: u16) -> Settings {
    Settings {
        host: "127.0.0.1".to_owned(),
        port,
        password: "s3cret".to_owned().into(),
        connect_timeout: Duration::from_secs(1),
        ..Settings::default()
    }
}

#[tokio::test]
async fn what_is_wrong_with_the_server_is_told_plainly() {
    let url = database().await;
    let wrong = |from: &str, to: &str| {
        assert!(url.contains(from));
        settings(&url.replacen(from, to, 1))
    };
    let password = url.split(['/', ':', '@']).nth(4).unwrap();
    let message = told(wrong(password, "s3cret")).await;
    assert!(message.contains("refuses the password"), "{message}");
    let database = url.rsplit('/').next().unwrap();
    let message = told(wrong(database, "nowhere")).await;
    assert!(message.contains("createdb nowhere"), "{message}");
    let message = told(wrong("127.0.0.1", "no-such-host.invalid")).await;
    assert!(
        message.contains("host no-such-host.invalid is not known"),
        "{message}"
    );
    let message = told(settings("mysql://me:s3cret@localhost/x")).await;
    assert!(message.contains("can't be read"), "{message}");
    let message = told(settings(&format!("{url}?sslmode=require"))).await;
    assert!(message.contains("encrypt"), "{message}");
}

#[tokio::test]
async fn what_does_not_answer_as_a_server_is_told_plainly() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = silent.local_addr().unwrap().port();
    let message = told(at_port(port)).await;
    assert!(message.contains("does not answer within 1 s"), "{message}");
    drop(silent);
    let message = told(at_port(port)).await;
    assert!(message.contains("nothing listens"), "{message}");
    let other = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = other.local_addr().unwrap().port();
    tokio::spawn(async move {
        for n in 0.. {
            let (mut stream, _) = other.accept().await.unwrap();
            if n == 0 {
                stream
                    .write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                    .await
                    .unwrap();
            }
        }
    });
    for _ in 0..2 {
        let message = told(at_port(port)).await;
        assert!(message.contains("PostgreSQL server"), "{message}");
    }
}

#[tokio::test]
async fn a_read_only_database_is_told_plainly() {
    let url = database().await;
    let store = connect(&url).await;
    let client = session(&url).await;
    let name = url.rsplit('/').next().unwrap();
    let sql = format!("ALTER DATABASE {name} SET default_transaction_read_only = on");
    client.batch_execute(&sql).await.unwrap();
    let message = told(settings(&url)).await;
    assert!(message.contains("read-only"), "{message}");
    // A store that is open learns of it with its next session.
    let sql = format!(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}' AND pid <> pg_backend_pid()"
    );
    client.batch_execute(&sql).await.unwrap();
    let end = Instant::now() + Duration::from_secs(30);
    let error = loop {
        let error = store.submit(submission(task("a"))).await.unwrap_err();
        // The one that found the old session gone may say so.
        if error.to_string().contains("read-only") {
            break error;
        }
        assert!(Instant::now() < end, "{error}");
    };
    assert_eq!(error.certainty(), Certainty::NotApplied);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_out_of_connections_is_told_and_what_has_a_session_goes_on() {
    let server = Server::start(Kind::Postgres).await;
    let admin = session(&server.url()).await;
    let alter = "ALTER SYSTEM SET max_connections = 12";
    admin.batch_execute(alter).await.unwrap();
    server.stop().await;
    server.up().await;
    let store = connect(&server.url()).await;
    let before = submission(task("a"));
    let id = before.execution.id;
    store.submit(before).await.unwrap();
    let mut others = Vec::new();
    while let Ok((client, connection)) =
        tokio_postgres::connect(&server.url(), tokio_postgres::NoTls).await
    {
        tokio::spawn(async move { connection.await.ok() });
        others.push(client);
    }
    let message = told(settings(&server.url())).await;
    assert!(message.contains("out of connections"), "{message}");
    store.submit(submission(task("a"))).await.unwrap();
    // One read has a session, as many at once as the server had connections have not.
    let refusal = async |reads: usize| {
        let mut at_once = JoinSet::new();
        for _ in 0..reads {
            let store = store.clone();
            at_once.spawn(async move { store.execution(id).await });
        }
        let answers = at_once.join_all().await;
        answers.into_iter().find_map(Result::err)
    };
    let error = refusal(12)
        .await
        .expect("there are not so many connections");
    assert!(error.to_string().contains("out of connections"), "{error}");
    assert_eq!(
        (error.class(), error.certainty()),
        (Class::Unavailable, Certainty::NotApplied)
    );
    others.clear();
    let end = Instant::now() + Duration::from_secs(30);
    while let Some(error) = refusal(2).await {
        assert!(Instant::now() < end, "{error}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn migrations_go_up_and_down_and_say_what_is_missing() {
    let url = empty_database().await;
    let mut manual = settings(&url);
    manual.auto_migrate = false;
    let error = Postgres::connect(manual.clone()).await.unwrap_err();
    assert!(matches!(error, Error::Pending { found: 0, .. }), "{error}");
    assert!(
        error.to_string().contains("agentrunner migrate up"),
        "{error}"
    );
    let mut schema = Schema::connect(&manual).await.unwrap();
    let all = schema.status().await.unwrap();
    assert!(all.iter().all(|m| !m.is_applied));
    assert_eq!(schema.up().await.unwrap(), all.len());
    let objects = objects(&url).await;
    for n in 1..=all.len() {
        assert_eq!(schema.down(n).await.unwrap(), n);
        assert_eq!(schema.up().await.unwrap(), n);
        assert_eq!(self::objects(&url).await, objects);
    }
    assert_eq!(schema.up().await.unwrap(), 0);
    drop(Postgres::connect(manual.clone()).await.unwrap());
    assert_eq!(schema.down(99).await.unwrap(), all.len());
    assert_eq!(self::objects(&url).await, ["r schema_migrations"]);
}

async fn objects(url: &str) -> Vec<String> {
    let sql = "SELECT relkind::text || ' ' || relname FROM pg_class
               WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p') ORDER BY 1";
    let rows = session(url).await.query(sql, &[]).await.unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_that_migrate_at_once_migrate_once() {
    let url = empty_database().await;
    let calls: Vec<_> = (0..4)
        .map(|_| tokio::spawn(Postgres::connect(settings(&url))))
        .collect();
    for call in calls {
        call.await.unwrap().unwrap().check().await.unwrap();
    }
    let client = session(&url).await;
    let made = client
        .query("SELECT version FROM schema_migrations", &[])
        .await
        .unwrap();
    let mut schema = Schema::connect(&settings(&url)).await.unwrap();
    assert_eq!(made.len(), schema.status().await.unwrap().len());
}

/// Pretends that a newer program made one more migration.
async fn made_by_a_newer_program(url: &str, version: usize, suits: usize) {
    let sql =
        format!("INSERT INTO schema_migrations VALUES ({version}, 'of {version}', now(), {suits})");
    session(url).await.batch_execute(&sql).await.unwrap();
}

#[tokio::test]
async fn what_a_newer_program_made_is_worked_with_while_it_suits() {
    let url = database().await;
    let mut schema = Schema::connect(&settings(&url)).await.unwrap();
    let known = schema.status().await.unwrap().len();
    made_by_a_newer_program(&url, known + 1, known).await;
    for auto_migrate in [true, false] {
        let store = Postgres::connect(Settings {
            auto_migrate,
            ..settings(&url)
        });
        store.await.unwrap().check().await.unwrap();
    }
    let all = schema.status().await.unwrap();
    assert_eq!(all.len(), known + 1);
    assert_eq!(all[known].name, format!("of {}", known + 1));
    assert!(all[known].is_applied);
    assert_eq!(schema.up().await.unwrap(), 0);
    // It does not know how.
    let error = schema.down(1).await.unwrap_err();
    assert!(
        error.to_string().contains("agentrunner migrate down 1"),
        "{error}"
    );

    // One that suits this program does not make up for one that does not.
    made_by_a_newer_program(&url, known + 2, known + 1).await;
    made_by_a_newer_program(&url, known + 3, known).await;
    let error = Postgres::connect(settings(&url)).await.unwrap_err();
    let found_now = known as u32 + 3;
    assert!(
        matches!(error, Error::TooNew { found, .. } if found == found_now),
        "{error}"
    );
    assert!(
        error.to_string().contains("agentrunner migrate down 3"),
        "{error}"
    );
}

#[tokio::test]
async fn a_database_of_before_programs_said_what_they_suit_is_brought_up_to_date() {
    let url = database().await;
    let client = session(&url).await;
    let sql = "ALTER TABLE schema_migrations DROP COLUMN suits";
    client.batch_execute(sql).await.unwrap();
    let mut schema = Schema::connect(&settings(&url)).await.unwrap();
    drop(connect(&url).await);
    assert_eq!(schema.down(1).await.unwrap(), 1);
    drop(connect(&url).await);
    let sql = "SELECT count(*) = 1 FROM schema_migrations WHERE suits = version - 1";
    let row = client.query_one(sql, &[]).await.unwrap();
    assert!(row.get::<_, bool>(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waits_behind_a_migration_is_let_pass() {
    let url = database().await;
    let mut schema = Schema::connect(&settings(&url)).await.unwrap();
    let all = schema.status().await.unwrap();
    // The next one changes the outbox.
    let before = all
        .iter()
        .position(|one| one.name.contains("outbox"))
        .unwrap();
    schema.down(all.len() - before).await.unwrap();
    let (holder, worker) = tokio::join!(session(&url), session(&url));
    let hold = "BEGIN; LOCK TABLE outbox IN ACCESS SHARE MODE";
    holder.batch_execute(hold).await.unwrap();
    let migrating = tokio::spawn(async move { schema.up().await });
    let waits =
        "SELECT count(*) > 0 FROM pg_locks WHERE relation = 'outbox'::regclass AND NOT granted";
    while !worker
        .query_one(waits, &[])
        .await
        .unwrap()
        .get::<_, bool>(0)
    {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let work = worker.query_one("SELECT count(*) FROM outbox", &[]);
    let done = tokio::time::timeout(Duration::from_secs(30), work).await;
    done.expect("work goes on while the migration waits")
        .unwrap();
    assert!(!migrating.is_finished());
    holder.batch_execute("COMMIT").await.unwrap();
    assert_eq!(migrating.await.unwrap().unwrap(), all.len() - before);
}

#[tokio::test]
async fn what_is_newer_or_not_ours_is_refused_untouched() {
    let url = database().await;
    let client = session(&url).await;
    let sql = "INSERT INTO schema_migrations (version, name) VALUES (99, 'from the future')";
    client.batch_execute(sql).await.unwrap();
    let error = Postgres::connect(settings(&url)).await.unwrap_err();
    assert!(
        matches!(error, Error::TooNew { found: 99, known } if known < 99),
        "{error}"
    );
    let url = empty_database().await;
    let client = session(&url).await;
    client
        .batch_execute("CREATE TABLE executions (mine int)")
        .await
        .unwrap();
    let error = Postgres::connect(settings(&url)).await.unwrap_err();
    assert!(
        error.to_string().contains("a database of its own"),
        "{error}"
    );
    assert_eq!(objects(&url).await, ["r executions"]);
}
