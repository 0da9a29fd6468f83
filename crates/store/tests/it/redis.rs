//! A Redis that dies, hangs, forgets and shuts its door: time is lost and nothing else.

use std::time::Duration;

use store::cache::{Away, Cache};
use store::redis::{Redis, Settings};
use tokio::time::Instant;

use testkit::servers::{Kind, Server};

use crate::redis_server::{connect, session, settings};

const LIFETIME: Duration = Duration::from_secs(60);
/// How long a call may take here.
const PATIENCE: Duration = Duration::from_millis(300);

/// Settings that notice soon.
fn quick(url: &str) -> Settings {
    Settings {
        patience: PATIENCE,
        look_period: Duration::from_millis(50),
        connect_timeout: Duration::from_secs(5),
        ..settings(url)
    }
}

/// Waits until it is known to be as wanted; answers why it is away, if it is.
async fn known(redis: &Redis, is_up: bool) -> String {
    for _ in 0..1000 {
        match redis.health() {
            Ok(()) if is_up => return String::new(),
            Err(Away(why)) if !is_up => return why,
            _ => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
    panic!("it stays {:?}", redis.health());
}

/// Waits until this is why it is away.
async fn away_because(redis: &Redis, part: &str) {
    let mut why = String::new();
    for _ in 0..1000 {
        why = known(redis, false).await;
        if why.contains(part) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{why}");
}

#[tokio::test]
async fn one_that_is_killed_is_gone_past_and_found_again() {
    let server = Server::start(Kind::Redis).await;
    let redis = Redis::connect(quick(&server.url())).await.unwrap();
    redis.put("k", b"1".to_vec(), LIFETIME).await;
    assert!(redis.get("k").await.is_some());
    server.kill();
    // Nobody asks: it is noticed all the same.
    away_because(&redis, "nothing listens there").await;
    let began = Instant::now();
    for _ in 0..1000 {
        assert_eq!(redis.get("k").await, None);
        redis.put("k", b"1".to_vec(), LIFETIME).await;
    }
    assert!(began.elapsed() < PATIENCE, "{:?}", began.elapsed());
    assert!(redis.clear().await.is_err());
    server.up().await;
    known(&redis, true).await;
    assert_eq!(redis.get("k").await, None, "it kept nothing");
    redis.put("k", b"2".to_vec(), LIFETIME).await;
    assert!(redis.get("k").await.is_some());
    let mut session = session(&server.url()).await;
    ::redis::cmd("FLUSHALL")
        .exec_async(&mut session)
        .await
        .unwrap();
    assert_eq!(redis.get("k").await, None);
    assert_eq!(redis.health(), Ok(()));
}

#[tokio::test]
async fn one_that_hangs_costs_one_patience() {
    let server = Server::start(Kind::Redis).await;
    let settings = Settings {
        // So that nobody but the callers notices.
        look_period: Duration::from_secs(2),
        ..quick(&server.url())
    };
    let redis = Redis::connect(settings).await.unwrap();
    redis.put("k", b"1".to_vec(), LIFETIME).await;
    server.pause();
    let began = Instant::now();
    // Many at once wait side by side, and whoever comes later does not wait at all.
    let calls = (0..50).map(|_| {
        let redis = redis.clone();
        tokio::spawn(async move { redis.get("k").await })
    });
    for call in calls.collect::<Vec<_>>() {
        assert_eq!(call.await.unwrap(), None);
    }
    for _ in 0..1000 {
        assert_eq!(redis.get("k").await, None);
    }
    assert!(began.elapsed() < 3 * PATIENCE, "{:?}", began.elapsed());
    assert!(
        known(&redis, false)
            .await
            .contains("does not answer in time")
    );
    server.resume();
    known(&redis, true).await;
    assert!(redis.get("k").await.is_some());
}

#[tokio::test]
async fn what_is_wrong_with_a_server_is_named() {
    let server = Server::start(Kind::Redis).await;
    let (url, port) = (
        server.url(),
        server.url().rsplit(':').next().unwrap().to_owned(),
    );
    let mut session = session(&url).await;
    let mut tell = async |words: &[&str]| {
        let mut command = ::redis::cmd(words[0]);
        for word in &words[1..] {
            command.arg(*word);
        }
        command.exec_async(&mut session).await.unwrap();
    };
    let redis = Redis::connect(quick(&url)).await.unwrap();
    known(&redis, true).await;

    // Full, then with room again.
    tell(&["CONFIG", "SET", "maxmemory", "1"]).await;
    away_because(&redis, "maxmemory-policy").await;
    tell(&["CONFIG", "SET", "maxmemory", "0"]).await;
    known(&redis, true).await;

    // A replica of nobody.
    tell(&["REPLICAOF", "127.0.0.1", "1"]).await;
    away_because(&redis, "replica").await;
    tell(&["REPLICAOF", "NO", "ONE"]).await;
    known(&redis, true).await;

    // A password that was not needed, and one that is.
    let needless = connect(&format!("redis://:canary@127.0.0.1:{port}")).await;
    away_because(&needless, "or asks for none").await;
    tell(&["CONFIG", "SET", "requirepass", "secret"]).await;
    tell(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]).await;
    away_because(&redis, "correct REDIS_PASSWORD").await;
    let wrong = connect(&format!("redis://:canary@127.0.0.1:{port}")).await;
    let why = known(&wrong, false).await;
    assert!(
        why.contains("correct REDIS_PASSWORD") && !why.contains("canary"),
        "{why}"
    );
    let right = connect(&format!("redis://:secret@127.0.0.1:{port}")).await;
    known(&right, true).await;

    // It may read and nothing else.
    tell(&["ACL", "SETUSER", "reader", "on", ">pw", "~*", "+@read"]).await;
    let reader = connect(&format!("redis://reader:pw@127.0.0.1:{port}")).await;
    away_because(&reader, "rights").await;
    tell(&["CONFIG", "SET", "requirepass", ""]).await;
    known(&redis, true).await;
}

#[tokio::test]
async fn what_can_not_be_reached_is_named_and_nobody_waits_for_it() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = format!("redis://{}", silent.local_addr().unwrap());
    for (url, part) in [
        ("redis://127.0.0.1:1", "nothing listens there"),
        ("redis://nowhere.invalid:6379", "host is not known"),
        (silent.as_str(), "does not answer in time"),
    ] {
        let settings = Settings {
            connect_timeout: Duration::from_millis(300),
            ..quick(url)
        };
        let began = Instant::now();
        let redis = Redis::connect(settings).await.unwrap();
        let took = began.elapsed();
        let why = known(&redis, false).await;
        assert!(why.contains(part), "{url}: {why}");
        if !url.contains("nowhere") {
            assert!(took < Duration::from_secs(2), "{url}: {took:?}");
        }
        assert_eq!(redis.get("k").await, None);
    }
    let odd = quick("redis://:canary@::not an address::/x");
    let Err(Away(why)) = Redis::connect(odd).await else {
        panic!("it is no address");
    };
    assert!(!why.contains("canary"), "{why}");
}
