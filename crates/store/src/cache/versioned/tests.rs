//! Readers, writers and a cache that misbehaves, one step of one of them at a time in any order.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use async_trait::async_trait;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::*;
use crate::cache::{Away, Cache};

const LIFETIME: Duration = Duration::from_secs(3600);

/// Lets somebody else go on.
async fn step() {
    let mut has_waited = false;
    std::future::poll_fn(|_| {
        if std::mem::replace(&mut has_waited, true) {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    })
    .await;
}

/// What a cache does with the next request.
#[derive(Debug, Clone, Copy)]
enum Mood {
    /// As it should.
    Works,
    /// It does not answer, and nothing comes of it.
    Drops,
    /// It does not answer in time, and what was asked happens later.
    Dawdles,
}

/// A cache with moods.
#[derive(Default)]
struct Moody {
    kept: Mutex<HashMap<String, Vec<u8>>>,
    late: Mutex<Vec<(String, Option<Vec<u8>>)>>,
    moods: Mutex<Vec<Mood>>,
}

impl Moody {
    async fn mood(&self) -> Mood {
        step().await;
        self.moods.lock().unwrap().pop().unwrap_or(Mood::Works)
    }

    /// Keeps a value, or forgets it when there is none.
    fn set(&self, key: String, value: Option<Vec<u8>>) {
        let mut kept = self.kept.lock().unwrap();
        match value {
            Some(value) => drop(kept.insert(key, value)),
            None => drop(kept.remove(&key)),
        }
    }

    async fn change(&self, key: &str, value: Option<Vec<u8>>) {
        match self.mood().await {
            Mood::Works => self.set(key.to_owned(), value),
            Mood::Drops => {}
            Mood::Dawdles => self.late.lock().unwrap().push((key.to_owned(), value)),
        }
        step().await;
    }

    /// What was asked long ago happens now.
    fn deliver(&self, which: usize) {
        let mut late = self.late.lock().unwrap();
        if !late.is_empty() {
            let which = which % late.len();
            let (key, value) = late.remove(which);
            self.set(key, value);
        }
    }
}

#[async_trait]
impl Cache for Moody {
    async fn get(&self, key: &str) -> Option<Vec<u8>> {
        let answer = match self.mood().await {
            Mood::Works => self.kept.lock().unwrap().get(key).cloned(),
            Mood::Drops | Mood::Dawdles => None,
        };
        step().await;
        answer
    }
    async fn put(&self, key: &str, value: Vec<u8>, _lifetime: Duration) {
        self.change(key, Some(value)).await;
    }
    async fn remove(&self, key: &str) {
        self.change(key, None).await;
    }
    async fn clear(&self) -> Result<u64, Away> {
        self.kept.lock().unwrap().clear();
        Ok(0)
    }
    fn health(&self) -> Result<(), Away> {
        Ok(())
    }
}

/// What was said so far: the numbers from 0 on.
#[derive(Default)]
struct Talk {
    said: Mutex<Vec<u32>>,
    /// Whether the version is used. Without it this is what is done elsewhere: one key, deleted after each write.
    has_versions: bool,
}

impl Talk {
    fn count(&self) -> usize {
        self.said.lock().unwrap().len()
    }

    async fn say(&self, cache: &dyn Cache) {
        step().await;
        {
            let mut said = self.said.lock().unwrap();
            let next = said.len() as u32;
            said.push(next);
        }
        step().await;
        if !self.has_versions {
            cache.remove(&self.key("only")).await;
        }
    }
}

impl Versioned for Talk {
    type Content = Vec<u32>;

    async fn version(&self) -> Result<Option<String>, crate::Error> {
        step().await;
        let version = match (self.has_versions, self.count()) {
            (true, 0) => None,
            (true, count) => Some(count.to_string()),
            (false, _) => Some("only".to_owned()),
        };
        step().await;
        Ok(version)
    }

    async fn content(&self) -> Result<Vec<u32>, crate::Error> {
        step().await;
        let said = self.said.lock().unwrap().clone();
        step().await;
        Ok(said)
    }

    fn key(&self, version: &str) -> String {
        format!("talk:{version}")
    }

    fn fits(&self, _copy: &Vec<u32>) -> bool {
        true
    }
}

/// What happens next.
#[derive(Debug, Clone, Copy)]
enum Event {
    Read,
    Write,
    /// One of those who read or write goes on by a step.
    Go(usize),
    /// One of those who read or write dies where it is.
    Kill(usize),
    Flush,
    Deliver(usize),
}

/// Somebody who reads or writes, and what was wrong with what they read.
type Task<'a> = Pin<Box<dyn Future<Output = Result<(), String>> + 'a>>;

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        3 => Just(Event::Read),
        2 => Just(Event::Write),
        24 => any::<usize>().prop_map(Event::Go),
        1 => any::<usize>().prop_map(Event::Kill),
        1 => Just(Event::Flush),
        2 => any::<usize>().prop_map(Event::Deliver),
    ];
    prop::collection::vec(event, 0..250)
}

fn moods() -> impl Strategy<Value = Vec<Mood>> {
    let mood =
        prop_oneof![4 => Just(Mood::Works), 1 => Just(Mood::Drops), 1 => Just(Mood::Dawdles)];
    prop::collection::vec(mood, 0..60)
}

/// Plays the events; then everybody comes to an end. Tells of the first who read what was not true at any moment of the
/// reading.
fn play(has_versions: bool, events: &[Event], moods: &[Mood]) -> Result<(), String> {
    let talk = Talk {
        has_versions,
        ..Talk::default()
    };
    let cache = Arc::new(Moody {
        moods: Mutex::new(moods.to_vec()),
        ..Moody::default()
    });
    let copies = Copies::new(cache.clone());
    let read = async || {
        let before = talk.count();
        let seen = read(&talk, &copies, LIFETIME).await.unwrap().len();
        let after = talk.count();
        if (before..=after).contains(&seen) {
            Ok(())
        } else {
            Err(format!("saw {seen} of {before} to {after}"))
        }
    };
    let write = async || {
        talk.say(&*cache).await;
        Ok(())
    };
    let mut context = Context::from_waker(Waker::noop());
    let mut tasks: Vec<Task<'_>> = Vec::new();
    for event in events {
        match *event {
            Event::Read => tasks.push(Box::pin(read())),
            Event::Write => tasks.push(Box::pin(write())),
            Event::Flush => cache.kept.lock().unwrap().clear(),
            Event::Deliver(which) => cache.deliver(which),
            Event::Go(_) | Event::Kill(_) if tasks.is_empty() => {}
            Event::Kill(which) => drop(tasks.swap_remove(which % tasks.len())),
            Event::Go(which) => {
                let which = which % tasks.len();
                if let Poll::Ready(result) = tasks[which].as_mut().poll(&mut context) {
                    drop(tasks.swap_remove(which));
                    result?;
                }
            }
        }
    }
    tasks.push(Box::pin(read()));
    for mut task in tasks {
        loop {
            if let Poll::Ready(result) = task.as_mut().poll(&mut context) {
                result?;
                break;
            }
        }
    }
    Ok(())
}

fn run(cases: u32, has_versions: bool) -> Result<(), String> {
    let config = Config {
        cases,
        failure_persistence: None,
        ..Config::default()
    };
    let mut runner = TestRunner::new_with_rng(
        config,
        proptest::test_runner::TestRng::deterministic_rng(
            proptest::test_runner::RngAlgorithm::ChaCha,
        ),
    );
    runner
        .run(&(events(), moods()), |(events, moods)| {
            play(has_versions, &events, &moods).map_err(TestCaseError::fail)
        })
        .map_err(|error| error.to_string())
}

#[test]
fn nobody_reads_what_is_no_longer_true() {
    run(400, true).unwrap();
}

#[test]
fn deleting_after_each_write_would_not_do_and_this_test_would_notice() {
    let error = run(2000, false).unwrap_err();
    assert!(error.contains("saw"), "{error}");
}

#[test]
fn a_copy_is_used() {
    let talk = Talk {
        has_versions: true,
        said: Mutex::new(vec![0, 1, 2]),
    };
    let cache = Arc::new(Moody::default());
    let copies = Copies::new(cache.clone());
    let mut context = Context::from_waker(Waker::noop());
    let mut finish = || {
        let mut reading = Box::pin(read(&talk, &copies, LIFETIME));
        loop {
            if let Poll::Ready(seen) = reading.as_mut().poll(&mut context) {
                return seen.unwrap();
            }
        }
    };
    assert_eq!(finish(), [0, 1, 2]);
    let copy = copies_of(&cache, "talk:3");
    assert_eq!(copy, "talk:3\n[0,1,2]");
    cache.set("talk:3".to_owned(), Some(b"talk:3\n[7]".to_vec()));
    assert_eq!(finish(), [7]);
}

fn copies_of(cache: &Moody, key: &str) -> String {
    String::from_utf8(cache.kept.lock().unwrap()[key].clone()).unwrap()
}
