//! What counters do, in one process and shared by several.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use store::counters::{Counters, LONGEST_PAUSE, Limit, LocalCounters, Taken};
use store::redis::{Redis, Settings};
use tokio::time::Instant;

use crate::redis_server;

/// Runs each behaviour against counters of each kind.
macro_rules! each_kind {
    ($($test:ident),+ $(,)?) => {
        mod local {
            $(#[tokio::test]
            async fn $test() {
                super::$test(std::sync::Arc::new(store::counters::LocalCounters::default())).await;
            })+
        }
        mod redis {
            $(#[tokio::test]
            async fn $test() {
                let url = crate::redis_server::shared().await;
                super::$test(std::sync::Arc::new(crate::redis_server::connect(url).await)).await;
            })+
        }
        mod without_a_server {
            $(#[tokio::test]
            async fn $test() {
                super::$test(std::sync::Arc::new(super::away().await)).await;
            })+
        }
    };
}

each_kind!(
    a_burst_is_allowed_and_no_more,
    the_long_run_is_kept,
    callers_are_counted_apart,
    many_at_once_get_what_one_would,
    a_pause_holds_and_ends,
);

/// Where nobody listens.
async fn away() -> Redis {
    let settings = Settings {
        patience: Duration::from_millis(100),
        ..redis_server::settings("redis://127.0.0.1:1")
    };
    Redis::connect(settings).await.unwrap()
}

fn limit(count: u32, per: Duration, burst: u32) -> Limit {
    Limit {
        count: NonZeroU32::new(count).unwrap(),
        per,
        burst: NonZeroU32::new(burst).unwrap(),
    }
}

const HOUR: Duration = Duration::from_secs(3600);

async fn a_burst_is_allowed_and_no_more(counters: Arc<dyn Counters>) {
    let limit = limit(60, HOUR, 10);
    for left in (0..10).rev() {
        assert_eq!(counters.take("k", limit).await, Taken::Allowed { left });
    }
    for _ in 0..3 {
        let Taken::Refused { retry_after } = counters.take("k", limit).await else {
            panic!("the eleventh");
        };
        let minute = Duration::from_secs(60);
        assert!(
            retry_after <= minute && retry_after > minute / 2,
            "{retry_after:?}"
        );
    }
}

async fn the_long_run_is_kept(counters: Arc<dyn Counters>) {
    let limit = limit(50, Duration::from_secs(1), 1);
    let began = Instant::now();
    let mut allowed = 0u32;
    while allowed < 20 {
        match counters.take("k", limit).await {
            Taken::Allowed { left } => {
                assert_eq!(left, 0);
                allowed += 1;
            }
            // What it says is neither too little nor for nothing.
            Taken::Refused { retry_after } => {
                assert!(retry_after <= Duration::from_millis(20), "{retry_after:?}");
                tokio::time::sleep(retry_after).await;
            }
        }
    }
    let least = Duration::from_millis(19 * 20);
    assert!(began.elapsed() >= least, "{:?}", began.elapsed());
}

async fn callers_are_counted_apart(counters: Arc<dyn Counters>) {
    let limit = limit(1, HOUR, 1);
    let (long, longer) = ("x".repeat(300), "x".repeat(301));
    for key in ["a", "b", "a b", "ü\n\0", &long, &longer] {
        assert!(
            matches!(counters.take(key, limit).await, Taken::Allowed { .. }),
            "{key:.9}"
        );
        assert!(
            matches!(counters.take(key, limit).await, Taken::Refused { .. }),
            "{key:.9}"
        );
    }
}

async fn many_at_once_get_what_one_would(counters: Arc<dyn Counters>) {
    let limit = limit(10, HOUR, 10);
    let takes = (0..50).map(|_| {
        let counters = counters.clone();
        tokio::spawn(async move { counters.take("k", limit).await })
    });
    let mut allowed = 0;
    for take in takes.collect::<Vec<_>>() {
        allowed += usize::from(matches!(take.await.unwrap(), Taken::Allowed { .. }));
    }
    assert_eq!(allowed, 10);
}

async fn a_pause_holds_and_ends(counters: Arc<dyn Counters>) {
    assert_eq!(counters.paused("m"), None);
    counters.pause("m", Duration::from_millis(300)).await;
    counters.pause("m", Duration::from_millis(1)).await;
    let left = counters.paused("m").unwrap();
    assert!(
        left <= Duration::from_millis(300) && left > Duration::from_millis(50),
        "{left:?}"
    );
    assert_eq!(counters.paused("other"), None);
    tokio::time::sleep(left).await;
    assert_eq!(counters.paused("m"), None);
    counters.pause("m", 10 * LONGEST_PAUSE).await;
    assert!(counters.paused("m").unwrap() <= LONGEST_PAUSE);
}

#[tokio::test]
async fn processes_share_what_they_count_and_pause() {
    let url = redis_server::shared().await;
    let settings = redis_server::settings(url);
    let one = Redis::connect(settings.clone()).await.unwrap();
    let other = Redis::connect(settings).await.unwrap();
    let limit = limit(2, HOUR, 2);
    assert_eq!(one.take("k", limit).await, Taken::Allowed { left: 1 });
    assert_eq!(other.take("k", limit).await, Taken::Allowed { left: 0 });
    assert!(matches!(one.take("k", limit).await, Taken::Refused { .. }));

    let lasting = Duration::from_secs(30);
    let began = Instant::now();
    one.pause("m", lasting).await;
    let left = loop {
        if let Some(left) = other.paused("m") {
            break left;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    // Not a moment longer than it was asked for, whenever the other learnt of it.
    assert!(
        left <= lasting.saturating_sub(began.elapsed()) + Duration::from_millis(50),
        "{left:?}"
    );
    let late = LocalCounters::default();
    assert_eq!(late.paused("m"), None);
}

#[tokio::test]
async fn what_somebody_else_put_there_stops_nobody_for_ever() {
    let url = redis_server::shared().await;
    let settings = redis_server::settings(url);
    let (prefix, redis) = (
        format!("agentrunner:1:{}", settings.store),
        Redis::connect(settings).await.unwrap(),
    );
    let mut session = redis_server::session(url).await;
    let limit = limit(60, HOUR, 2);
    for damage in ["nan", "inf", "1e300", "-5", "words", ""] {
        let set = ::redis::cmd("SET")
            .arg(format!("{prefix}:count:k"))
            .arg(damage)
            .to_owned();
        set.exec_async(&mut session).await.unwrap();
        match redis.take("k", limit).await {
            Taken::Allowed { .. } => {}
            Taken::Refused { retry_after } => {
                assert!(
                    retry_after <= Duration::from_secs(60),
                    "{damage}: {retry_after:?}"
                );
            }
        }
    }
    let pauses = format!("{prefix}:pauses:all");
    let list = |key: &str| ::redis::cmd("RPUSH").arg(key).arg("x").to_owned();
    for key in [format!("{prefix}:count:l"), pauses.clone()] {
        list(&key).exec_async(&mut session).await.unwrap();
    }
    for _ in 0..3 {
        redis.take("l", limit).await;
    }
    let ours = format!("{prefix}:count:l");
    let kind: String = ::redis::cmd("TYPE")
        .arg(&ours)
        .query_async(&mut session)
        .await
        .unwrap();
    assert_eq!(kind, "string", "it was removed and made anew");
    // The pauses too.
    loop {
        let gone: i64 = ::redis::cmd("EXISTS")
            .arg(&pauses)
            .query_async(&mut session)
            .await
            .unwrap();
        if gone == 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let mut add = ::redis::cmd("ZADD");
    add.arg(&pauses)
        .arg("inf")
        .arg("m")
        .arg("1e300")
        .arg(b"\xff\xfe")
        .arg("1e300")
        .arg("x".repeat(9999));
    add.exec_async(&mut session).await.unwrap();
    while redis.paused("m").is_none() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(redis.paused("m").unwrap() <= LONGEST_PAUSE);
    assert_eq!(store::cache::Cache::health(&redis), Ok(()));
}
