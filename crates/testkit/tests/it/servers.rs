//! Private servers: killed, frozen, up again, and gone with their value.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use agentrunner_testkit::Weather;
use agentrunner_testkit::servers::{Kind, Server, by_way_of};

/// What each of them is asked, and how its answer begins.
fn greeting(kind: Kind) -> (&'static [u8], &'static [u8]) {
    match kind {
        // It is asked for TLS, and has none.
        Kind::Postgres => (&[0, 0, 0, 8, 4, 210, 22, 47], b"N"),
        Kind::RabbitMq => (b"AMQP\0\0\x09\x01", b"\x01"),
        Kind::Redis => (b"PING\r\n", b"+"),
    }
}

fn answers(kind: Kind, address: std::net::SocketAddr, patience: Duration) -> bool {
    let (question, answer) = greeting(kind);
    let Ok(mut stream) = TcpStream::connect(address) else {
        return false;
    };
    stream.set_read_timeout(Some(patience)).unwrap();
    let mut byte = [0];
    stream.write_all(question).is_ok() && stream.read_exact(&mut byte).is_ok() && byte == *answer
}

/// Whether a process is there and no zombie.
fn runs(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat
        .rsplit(") ")
        .next()
        .and_then(|rest| rest.chars().next());
    state.is_some_and(|state| state != 'Z')
}

const LONG: Duration = Duration::from_secs(30);
const SHORT: Duration = Duration::from_millis(300);

async fn lives_dies_and_lives(kind: Kind) {
    let server = Server::start(kind).await;
    let address = server.address();
    assert!(answers(kind, address, LONG), "{}", server.url());
    server.kill();
    server.up().await;
    assert!(answers(kind, address, LONG), "it is back at the same port");
    server.pause();
    assert!(!answers(kind, address, SHORT), "it is frozen");
    server.resume();
    assert!(answers(kind, address, LONG), "it goes on");
    server.stop().await;
    assert!(!answers(kind, address, SHORT), "it is stopped");
    server.up().await;
    let (proxy, url) = server.proxied();
    assert_eq!(url, by_way_of(&server.url(), proxy.address()));
    assert!(answers(kind, proxy.address(), LONG));
    proxy.set(Weather::BlackHole);
    assert!(!answers(kind, proxy.address(), SHORT));
    // A frozen one must be stoppable too.
    server.pause();
    let pid = server.pid();
    drop(server);
    assert!(!runs(pid), "it is gone");
    assert!(!answers(kind, address, SHORT));
}

#[tokio::test]
async fn postgres_lives_dies_and_lives() {
    lives_dies_and_lives(Kind::Postgres).await;
}

#[tokio::test]
async fn rabbitmq_lives_dies_and_lives() {
    lives_dies_and_lives(Kind::RabbitMq).await;
}

#[tokio::test]
async fn redis_lives_dies_and_lives() {
    lives_dies_and_lives(Kind::Redis).await;
}

#[tokio::test]
async fn rabbitmqctl_reaches_the_private_broker() {
    let broker = Server::start(Kind::RabbitMq).await;
    broker.rabbitmqctl(&["add_vhost", "second"]).await;
    let said = broker.rabbitmqctl(&["list_vhosts", "--quiet"]).await;
    assert!(said.contains("second"), "{said}");
}
