//! PostgreSQL that can't serve, at a start and during work: each is named, nothing crashes, and what was accepted is
//! not lost. And rows that somebody edited by hand.
//!
//! Covered elsewhere: wrong password, host and port, and a server that says nothing, in
//! `servers::a_server_that_cannot_be_used_is_named_at_start`; one that dies in `servers::a_database_that_dies_…`; a
//! missing database, a newer schema and a database of another program in the store's `refusals`.

use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

use serde_json::{Value, json};
use testkit::Filter;
use testkit::servers::{Kind, Server};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::backing::{self, Variables, borrowed, session};
use crate::bad_input::disk::SmallDisk;
use crate::product::Product;
use crate::project::{self, Ran};
use crate::servers::{PATIENCE, Stage, all_completed, submit, submit_many, until};

async fn own_server() -> Server {
    Server::start(Kind::Postgres).await
}

/// What a start says, which must fail.
async fn refusal(variables: &Variables) -> String {
    let project = project::Project::new();
    let mut command = project.command(&["up"]);
    command.envs(borrowed(variables));
    let ran = Ran::of(command).await;
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(!ran.stderr.contains("panicked"), "{ran:?}");
    ran.stderr
}

/// Submits until it is refused; answers the refusal's message.
async fn refused(product: &Product, accepted: &mut Vec<String>) -> String {
    let began = Instant::now();
    loop {
        // Not to be compressed: it is to fill the disk.
        let padding: String = (0..80).map(|_| uuid::Uuid::new_v4().to_string()).collect();
        let task = json!({ "agent_name": "worker", "task_data": { "prompt": "more", "padding": padding } });
        let (status, body) = product.try_post("/tasks", &task).await;
        match status {
            202 => accepted.push(body["execution_id"].as_str().unwrap().to_owned()),
            503 => return body["error"]["message"].as_str().unwrap().to_owned(),
            other => panic!("{other}: {body}"),
        }
        assert!(began.elapsed() < PATIENCE, "it is never refused");
    }
}

/// A server as old as it says: it lets everyone in and answers the first question with what a server of that version
/// answers.
async fn old_server(version: &'static str, number: &'static str) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            // Whoever has heard enough closes.
            tokio::spawn(async move { speak(stream, version, number).await.ok() });
        }
    });
    port
}

async fn speak(mut stream: TcpStream, version: &str, number: &str) -> std::io::Result<()> {
    let length = stream.read_u32().await?;
    let mut startup = vec![0; length as usize - 4];
    stream.read_exact(&mut startup).await?;
    let mut hello = message(b'R', &0u32.to_be_bytes());
    hello.extend(message(b'K', &[0; 8]));
    hello.extend(message(b'Z', b"I"));
    stream.write_all(&hello).await?;
    loop {
        let _kind = stream.read_u8().await?;
        let length = stream.read_u32().await?;
        let mut sql = vec![0; length as usize - 4];
        stream.read_exact(&mut sql).await?;
        let columns = [
            "server_version_num",
            "transaction_read_only",
            "server_version",
        ];
        let mut description = (columns.len() as u16).to_be_bytes().to_vec();
        let mut row = description.clone();
        for (column, value) in columns.into_iter().zip([number, "off", version]) {
            description.extend(column.as_bytes());
            // Its end; of no table; text (25) of any length, written as text.
            description.extend([0; 7]);
            description.extend(25u32.to_be_bytes());
            description.extend([255; 6]);
            description.extend([0; 2]);
            row.extend((value.len() as u32).to_be_bytes());
            row.extend(value.as_bytes());
        }
        let mut answer = message(b'T', &description);
        answer.extend(message(b'D', &row));
        answer.extend(message(b'C', b"SELECT 1\0"));
        answer.extend(message(b'Z', b"I"));
        stream.write_all(&answer).await?;
    }
}

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut message = vec![kind];
    message.extend((body.len() as u32 + 4).to_be_bytes());
    message.extend(body);
    message
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_too_old_is_named() {
    let port = old_server("14.10", "140010").await.to_string();
    let said = refusal(&vec![
        ("POSTGRES_HOST", "127.0.0.1".to_owned()),
        ("POSTGRES_PORT", port),
    ])
    .await;
    let wanted = "is version 14.10; version 15 or later is needed";
    assert!(said.contains(wanted), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standby_is_named_and_used_once_it_is_promoted() {
    let database = own_server().await;
    let stage = Stage::new();
    let project = stage.project();
    let product = stage.up(&project, &database.variables()).await;
    let last_answers = stage.provider.hold(
        Filter::any().with("point", "mid_stream").with("turn", 1),
        None,
    );
    let ids = submit_many(&product, 0..3).await;
    last_answers.wait(3).await;

    let client = session(&database.url()).await;
    let row = client.query_one("SHOW data_directory", &[]).await.unwrap();
    let data = PathBuf::from(row.get::<_, String>(0));
    database.stop().await;
    std::fs::write(data.join("standby.signal"), "").unwrap();
    database.up().await;
    let said = refusal(&database.variables()).await;
    assert!(said.contains("is read-only, perhaps a standby"), "{said}");
    until(&product, "/health/ready", |status, body| {
        status == 503
            && body["dependencies"]["database"] == "unavailable"
            && product.log().contains("is read-only, perhaps a standby")
    })
    .await;
    let message = refused(&product, &mut Vec::new()).await;
    assert!(message.contains("read-only"), "{message}");
    assert_eq!(product.ask("/health/live").await.0, 200);

    let client = session(&database.url()).await;
    client.execute("SELECT pg_promote()", &[]).await.unwrap();
    until(&product, "/health/ready", |status, _| status == 200).await;
    last_answers.release();
    all_completed(&product, &ids).await;
    assert_eq!((stage.asked(0), stage.charges()), (3, 3));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_out_of_space_refuses_new_work_and_loses_none() {
    let folder = tempfile::tempdir().unwrap();
    let disk = SmallDisk::mount(&folder.path().join("small"), "size=48m,mode=777");
    let database = own_server().await;
    let url = database.url();
    let client = session(&url).await;
    // The server's user must get there, and own what it uses.
    let space = disk.path().join("space");
    std::fs::create_dir(&space).unwrap();
    let data = client.query_one("SHOW data_directory", &[]).await.unwrap();
    for (program, arguments) in [
        ("chmod", vec!["755".to_owned(), shown(folder.path())]),
        (
            "chown",
            vec![
                format!("--reference={}", data.get::<_, String>(0)),
                shown(&space),
            ],
        ),
    ] {
        assert!(
            Command::new(program)
                .args(arguments)
                .status()
                .unwrap()
                .success()
        );
    }
    let sql = format!("CREATE TABLESPACE small LOCATION '{}'", shown(&space));
    client.batch_execute(&sql).await.unwrap();
    let sql = "CREATE DATABASE small TEMPLATE template0 TABLESPACE small";
    client.batch_execute(sql).await.unwrap();
    let url = format!("{}/small", url.rsplit_once('/').unwrap().0);
    let stage = Stage::new();
    let project = stage.project();
    let product = stage.up(&project, &vec![("DATABASE_URL", url)]).await;
    let last_answers = stage.provider.hold(
        Filter::any().with("point", "mid_stream").with("turn", 1),
        Some(3),
    );
    let mut ids = submit_many(&product, 0..3).await;
    last_answers.wait(3).await;
    disk.fill();
    let message = refused(&product, &mut ids).await;
    for part in ["disk is full", "free some space"] {
        assert!(message.contains(part), "{message}");
    }
    let (status, _) = product.ask("/tasks").await;
    assert_eq!(status, 200, "what is there can still be read");
    last_answers.release();
    disk.free();
    until(&product, "/health/ready", |status, _| status == 200).await;
    all_completed(&product, &ids).await;
    assert_eq!((stage.asked(0), stage.charges()), (ids.len(), ids.len()));
    product.kill().await;
    drop((database, disk));
}

fn shown(path: &std::path::Path) -> String {
    path.display().to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_out_of_connections_is_named_and_work_goes_on_with_those_there_are() {
    let database = own_server().await;
    let stage = Stage::new();
    let project = stage.project();
    let product = stage.up(&project, &database.variables()).await;
    let first = submit_many(&product, 0..3).await;
    all_completed(&product, &first).await;
    let mut others = Vec::new();
    while let Ok((client, connection)) =
        tokio_postgres::connect(&database.url(), tokio_postgres::NoTls).await
    {
        tokio::spawn(async move { connection.await.ok() });
        others.push(client);
    }
    let said = refusal(&database.variables()).await;
    assert!(said.contains("out of connections"), "{said}");
    assert!(said.contains("max_connections"), "{said}");
    let more = submit_many(&product, 3..6).await;
    all_completed(&product, &more).await;
    drop(others);
    assert!(!product.log().contains("panicked"), "{}", product.log());
}

/// What was done by hand to one execution.
const NONSENSE: [&str; 4] = [
    "UPDATE steps SET body = '{\"kind\":\"nonsense\"}' WHERE execution_id = $1 AND seq = 2",
    "UPDATE steps SET body = '~deflate:9:AAAA' WHERE execution_id = $1 AND seq = 1",
    "UPDATE execution_specs SET spec = 'nonsense' WHERE execution_id = $1",
    // A definition that is none, for an execution that began with it.
    r#"WITH odd AS (
           INSERT INTO agent_configs (agent_name, version, definition, source, path, loaded_at, is_current)
           VALUES ('worker', 'ffffffffffffffff', 'nonsense', '', '', now(), false)
       )
       UPDATE execution_specs
       SET spec = regexp_replace(spec, '"version":"[0-9a-f]+"', '"version":"ffffffffffffffff"')
       WHERE execution_id = $1"#,
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_of_nonsense_end_their_executions_alone() {
    let servers = backing::postgres().await;
    let stage = Stage::new();
    let project = stage.project();
    let product = stage.up(&project, &servers).await;
    let last_answers = stage.provider.hold(
        Filter::any().with("point", "mid_stream").with("turn", 1),
        None,
    );
    let ids = submit_many(&product, 0..NONSENSE.len() + 2).await;
    last_answers.wait(ids.len()).await;
    product.kill().await;
    let client = session(&servers[0].1).await;
    let key = |id: &String| id.parse::<uuid::Uuid>().unwrap();
    for (sql, id) in NONSENSE.iter().zip(&ids) {
        assert_eq!(client.execute(*sql, &[&key(id)]).await.unwrap(), 1, "{sql}");
    }
    // A state that there is not is put right by whoever goes on.
    let (odd, well) = (&ids[NONSENSE.len()], &ids[NONSENSE.len() + 1]);
    let sql = "UPDATE executions SET status = 'nonsense' WHERE id = $1";
    client.execute(sql, &[&key(odd)]).await.unwrap();
    last_answers.release();

    let product = stage.up(&project, &servers).await;
    let sql = "SELECT 1 FROM executions WHERE id = $1 AND status <> 'nonsense'";
    until_there(&client, sql, key(odd)).await;
    all_completed(&product, &[odd.clone(), well.clone()]).await;
    for (sql, id) in NONSENSE.iter().zip(&ids) {
        ends_as_corrupt(&client, key(id), sql).await;
    }
    // Lists and counts show the others.
    let tasks = product.get("/tasks").await;
    let listed = |id: &String| {
        let tasks = tasks.as_array().unwrap();
        tasks.iter().any(|task| task["execution_id"] == id.as_str())
    };
    assert!(listed(odd) && listed(well), "{tasks}");
    product.get("/agents").await;
    let another = submit(&product, 99).await;
    all_completed(&product, &[another]).await;
    assert!(!product.log().contains("panicked"), "{}", product.log());
}

/// The row says how it ended; whether a face can show the rest of it depends on what was damaged.
async fn ends_as_corrupt(client: &tokio_postgres::Client, id: uuid::Uuid, what: &str) {
    let sql = "SELECT outcome FROM execution_results WHERE execution_id = $1";
    let row = until_there(client, sql, id).await;
    let outcome: Value = serde_json::from_str(row.get(0)).unwrap();
    let shown = outcome.to_string();
    assert!(shown.to_lowercase().contains("corrupt"), "{what}: {shown}");
}

/// The row that this finds, as soon as there is one.
async fn until_there(
    client: &tokio_postgres::Client,
    sql: &str,
    id: uuid::Uuid,
) -> tokio_postgres::Row {
    let began = Instant::now();
    loop {
        if let Some(row) = client.query_opt(sql, &[&id]).await.unwrap() {
            return row;
        }
        assert!(began.elapsed() < PATIENCE, "nothing yet: {sql}");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}
