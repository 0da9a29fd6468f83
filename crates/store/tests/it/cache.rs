//! What every cache does, and what a store does behind one.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use domain::{Definition, ExecutionId, Message, Seq};
use serde_json::json;
use store::cache::{Cache, Cached, Lifetimes, Memory};
use store::sqlite::Sqlite;
use store::{ConfigRecord, Store, Then};
use tempfile::TempDir;

use crate::redis_server;
use crate::sqlite::{Embedded, quick};
use crate::suite::Fixture;
use crate::suite::given::{append, at, commit, done, finish, leased, said, submit, task};

const LIFETIME: Duration = Duration::from_secs(60);

/// Runs each behaviour against each kind of cache.
macro_rules! each_cache {
    ($($test:ident),+ $(,)?) => {
        mod memory {
            $(#[tokio::test]
            async fn $test() {
                super::$test(std::sync::Arc::new(store::cache::Memory::default())).await;
            })+
        }
        mod redis {
            $(#[tokio::test]
            async fn $test() {
                let url = crate::redis_server::shared().await;
                super::$test(std::sync::Arc::new(crate::redis_server::connect(url).await)).await;
            })+
        }
    };
}

each_cache!(
    values_are_kept_until_they_are_forgotten,
    a_lifetime_ends,
    clearing_tells_how_many,
    what_is_over_is_not_read_twice,
    a_version_is_not_read_twice,
    a_conversation_is_read_once_a_version,
    damaged_copies_are_removed_and_read_anew,
);

async fn values_are_kept_until_they_are_forgotten(cache: Arc<dyn Cache>) {
    assert_eq!(cache.get("k").await, None);
    cache.put("k", b"\0\xff\n".to_vec(), LIFETIME).await;
    cache.put("k*[a]:✓ {x}", b"other".to_vec(), LIFETIME).await;
    assert_eq!(cache.get("k").await.as_deref(), Some(&b"\0\xff\n"[..]));
    cache.put("k", b"2".to_vec(), LIFETIME).await;
    assert_eq!(cache.get("k").await.as_deref(), Some(&b"2"[..]));
    cache.remove("k").await;
    cache.remove("never there").await;
    assert_eq!(cache.get("k").await, None);
    assert_eq!(
        cache.get("k*[a]:✓ {x}").await.as_deref(),
        Some(&b"other"[..])
    );
    assert_eq!(cache.health(), Ok(()));
}

async fn a_lifetime_ends(cache: Arc<dyn Cache>) {
    cache
        .put("k", b"1".to_vec(), Duration::from_millis(1))
        .await;
    while cache.get("k").await.is_some() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

async fn clearing_tells_how_many(cache: Arc<dyn Cache>) {
    assert_eq!(cache.clear().await, Ok(0));
    for n in 0..1200 {
        cache.put(&format!("k{n}"), b"1".to_vec(), LIFETIME).await;
    }
    assert_eq!(cache.clear().await, Ok(1200));
    assert_eq!(cache.get("k7").await, None);
    assert_eq!(cache.clear().await, Ok(0));
}

/// A store behind a cache, and the same without it.
struct Behind {
    cached: Cached,
    plain: Embedded,
}

async fn behind(cache: &Arc<dyn Cache>) -> Behind {
    let plain = Embedded::open().await;
    Behind {
        cached: Cached::new(plain.store(), cache.clone(), Lifetimes::default()),
        plain,
    }
}

/// That a read of what is gone from the store is answered shows that it came from the cache.
async fn what_is_over_is_not_read_twice(cache: Arc<dyn Cache>) {
    let Behind { cached, plain } = behind(&cache).await;
    let store = plain.store();
    let id = submit(&*store, task("a")).await;
    let queued = cached.execution(id).await.unwrap().unwrap();
    assert!(!queued.status.is_terminal());
    let owner = crate::suite::given::claim_this(&*store, id, at(0))
        .await
        .unwrap();
    commit(&*store, append(&owner, at(1), Vec::new(), finish())).await;
    let first = cached.execution(id).await.unwrap().unwrap();
    assert!(first.status.is_terminal(), "what is not over is not kept");
    plain.damage_task(id).await;
    let second = cached.execution(id).await.unwrap().unwrap();
    assert_eq!(format!("{first:?}"), format!("{second:?}"));
    cache.clear().await.unwrap();
    assert!(cached.execution(id).await.is_err());
    let nobody = ExecutionId::from_uuid(uuid::Uuid::now_v7());
    assert!(cached.execution(nobody).await.unwrap().is_none());
}

fn config() -> ConfigRecord {
    let definition: Definition = serde_json::from_value(json!({
        "name": "a", "execution_mode": "autonomous", "system_prompt": "x",
        "llm_config": { "provider": "scripted", "model": "s", "temperature": 0.7 },
    }))
    .unwrap();
    ConfigRecord {
        version: definition.content_hash(),
        definition,
        source: "# x".to_owned(),
        path: "agents/a.yml".to_owned(),
        loaded_at: at(1),
    }
}

async fn a_version_is_not_read_twice(cache: Arc<dyn Cache>) {
    let Behind { cached, plain } = behind(&cache).await;
    let record = config();
    let (agent, version) = (record.definition.name.clone(), record.version.clone());
    assert_eq!(cached.config(&agent, &version).await.unwrap(), None);
    plain.store().put_config(record.clone()).await.unwrap();
    let read = async || cached.config(&agent, &version).await.unwrap();
    assert_eq!(
        read().await.as_ref(),
        Some(&record),
        "that it was not there is not kept"
    );
    plain.store().close().await.unwrap();
    assert_eq!(read().await.as_ref(), Some(&record));
}

async fn a_conversation_is_read_once_a_version(cache: Arc<dyn Cache>) {
    let Behind { cached, plain } = behind(&cache).await;
    let store = plain.store();
    let (agent, talk) = ("a".parse().unwrap(), "c: *?".parse().unwrap());
    let say = async |texts: &[&str]| {
        let mut execution = task("a");
        execution.conversation = Some("c: *?".parse().unwrap());
        // By whatever process: the cache is told nothing.
        let owner = leased(&*store, execution).await;
        let then = Then::Finish {
            outcome: done(),
            messages: texts.iter().copied().map(said).collect(),
            digest: None,
        };
        commit(&*store, append(&owner, at(1), Vec::new(), then)).await;
    };
    let read = async |limit| cached.conversation(&agent, &talk, limit).await.unwrap();
    assert!(read(10).await.is_empty());
    say(&["1", "2"]).await;
    assert_eq!(read(10).await, ["1", "2"].map(said));
    let version = store
        .conversation_version(&agent, &talk)
        .await
        .unwrap()
        .unwrap();
    say(&["3"]).await;
    assert_eq!(read(10).await, ["1", "2", "3"].map(said));
    assert_eq!(read(2).await, ["2", "3"].map(said));
    let newer = store
        .conversation_version(&agent, &talk)
        .await
        .unwrap()
        .unwrap();
    assert_ne!(version, newer);
    let key = format!("conversation:a:{newer}:10:c: *?");
    let copy = format!(
        "{key}\n{}",
        serde_json::to_string(&[said("from the cache")]).unwrap()
    );
    cache.put(&key, copy.into_bytes(), LIFETIME).await;
    assert_eq!(read(10).await, ["from the cache"].map(said));
    assert_eq!(
        cached
            .conversation(&agent, &"other".parse().unwrap(), 9)
            .await
            .unwrap(),
        Vec::<Message>::new()
    );
}

async fn damaged_copies_are_removed_and_read_anew(cache: Arc<dyn Cache>) {
    let Behind { cached, plain } = behind(&cache).await;
    let record = config();
    let (agent, version) = (record.definition.name.clone(), record.version.clone());
    plain.store().put_config(record.clone()).await.unwrap();
    let key = format!("config:{agent}:{version}");
    let mut other = record.clone();
    other.definition.system_prompt = "do evil".to_owned();
    let evil = serde_json::to_string(&other).unwrap();
    let whole = serde_json::to_string(&record).unwrap();
    for damaged in [
        "x".to_owned(),
        format!("{key}\n"),
        format!("{key}\n{}", &whole[..whole.len() - 1]),
        format!("config:b:{version}\n{whole}"),
        // It says that it is this version, and is not.
        format!("{key}\n{evil}"),
        format!("{key}\n{}", "[".repeat(100_000)),
        "x".repeat(3 << 20),
    ] {
        cache
            .put(&key, damaged.clone().into_bytes(), LIFETIME)
            .await;
        let read = cached.config(&agent, &version).await.unwrap();
        assert_eq!(read.as_ref(), Some(&record), "{damaged:.80}");
        let now = cache.get(&key).await.unwrap();
        assert_eq!(now, format!("{key}\n{whole}").into_bytes(), "{damaged:.80}");
    }
}

/// The whole suite of stores, read through a cache.
struct ReadThrough {
    plain: Embedded,
    cached: Arc<Cached>,
}

#[async_trait]
impl Fixture for ReadThrough {
    async fn open() -> Self {
        let plain = Embedded::open().await;
        let cached = Cached::new(
            plain.store(),
            Arc::new(Memory::default()),
            Lifetimes::default(),
        );
        Self {
            plain,
            cached: Arc::new(cached),
        }
    }

    fn store(&self) -> Arc<dyn Store> {
        self.cached.clone()
    }

    async fn damage_step(&self, id: ExecutionId, seq: Seq) {
        self.plain.damage_step(id, seq).await;
    }

    async fn remove_step(&self, id: ExecutionId, seq: Seq) {
        self.plain.remove_step(id, seq).await;
    }

    async fn damage_task(&self, id: ExecutionId) {
        self.plain.damage_task(id).await;
    }
}

mod read_through {
    use super::ReadThrough;
    behaviour!(ReadThrough);
}

#[tokio::test]
async fn two_stores_on_one_server_do_not_read_each_others_copies() {
    let url = redis_server::shared().await;
    let (one, other) = (
        redis_server::connect(url).await,
        redis_server::connect(url).await,
    );
    one.put("k", b"mine".to_vec(), LIFETIME).await;
    assert_eq!(other.get("k").await, None);
    assert_eq!(other.clear().await, Ok(0));
    assert!(one.get("k").await.is_some());
}

#[tokio::test]
async fn the_versions_of_a_conversation_never_come_back() {
    // Another database that was made anew at the same place, or one from a backup, says the same numbers again.
    let mut versions = std::collections::BTreeSet::new();
    for _ in 0..2 {
        let dir = TempDir::new().unwrap();
        let store = Sqlite::open(&dir.path().join("store.db"), quick()).unwrap();
        for _ in 0..2 {
            let mut execution = task("a");
            execution.conversation = Some("c".parse().unwrap());
            let owner = leased(&store, execution).await;
            let then = Then::Finish {
                outcome: done(),
                messages: vec![said("x")],
                digest: None,
            };
            commit(&store, append(&owner, at(1), Vec::new(), then)).await;
            let (agent, talk) = ("a".parse().unwrap(), "c".parse().unwrap());
            let version = store.conversation_version(&agent, &talk).await.unwrap();
            assert!(versions.insert(version.unwrap()));
        }
    }
}
