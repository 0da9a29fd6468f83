//! Copies in this process, bounded in bytes and in number.
//!
//! There are two generations. What is new goes into the young one; when that is full it becomes the old one, and what
//! was old is forgotten. What is read becomes young again. So what is asked for stays, at the price of two maps.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;

use super::{Away, Cache};

/// How many bytes are kept when nothing else is said.
const MAX_BYTES: usize = 8 << 20;
/// What a copy costs besides its key and its value.
const OVERHEAD_BYTES: usize = 128;

/// Copies in this process. Cheap to clone; all clones are one.
#[derive(Debug, Clone)]
pub struct Memory {
    generations: Arc<Mutex<Generations>>,
}

#[derive(Debug)]
struct Generations {
    young: HashMap<String, Copy>,
    old: HashMap<String, Copy>,
    young_bytes: usize,
    max_bytes: usize,
}

#[derive(Debug)]
struct Copy {
    value: Vec<u8>,
    until: Instant,
}

impl Default for Memory {
    fn default() -> Self {
        Self::new(MAX_BYTES)
    }
}

impl Memory {
    /// With at most so many bytes in all.
    pub fn new(max_bytes: usize) -> Self {
        let generations = Generations {
            young: HashMap::new(),
            old: HashMap::new(),
            young_bytes: 0,
            max_bytes: max_bytes / 2,
        };
        Self {
            generations: Arc::new(Mutex::new(generations)),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Generations> {
        self.generations
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Cache for Memory {
    async fn get(&self, key: &str) -> Option<Vec<u8>> {
        self.lock().get(key)
    }

    async fn put(&self, key: &str, value: Vec<u8>, lifetime: Duration) {
        let until = Instant::now() + lifetime;
        self.lock().put(key.to_owned(), Copy { value, until });
    }

    async fn remove(&self, key: &str) {
        self.lock().remove(key);
    }

    async fn clear(&self) -> Result<u64, Away> {
        let mut generations = self.lock();
        let count = generations.young.len() + generations.old.len();
        generations.young.clear();
        generations.old.clear();
        generations.young_bytes = 0;
        Ok(count as u64)
    }

    fn health(&self) -> Result<(), Away> {
        Ok(())
    }
}

impl Generations {
    fn get(&mut self, key: &str) -> Option<Vec<u8>> {
        if let Some((key, copy)) = self.old.remove_entry(key) {
            self.put(key, copy);
        }
        let copy = self.young.get(key)?;
        if copy.until <= Instant::now() {
            self.remove(key);
            return None;
        }
        Some(copy.value.clone())
    }

    fn put(&mut self, key: String, copy: Copy) {
        let bytes = weight(&key, &copy);
        self.remove(&key);
        if bytes > self.max_bytes {
            return;
        }
        if self.young_bytes + bytes > self.max_bytes {
            self.old = std::mem::take(&mut self.young);
            self.young_bytes = 0;
        }
        self.young_bytes += bytes;
        self.young.insert(key, copy);
    }

    fn remove(&mut self, key: &str) {
        self.old.remove(key);
        if let Some((key, copy)) = self.young.remove_entry(key) {
            self.young_bytes -= weight(&key, &copy);
        }
    }
}

fn weight(key: &str, copy: &Copy) -> usize {
    key.len() + copy.value.len() + OVERHEAD_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIFETIME: Duration = Duration::from_secs(60);

    #[tokio::test(start_paused = true)]
    async fn it_holds_no_more_than_it_may_and_keeps_what_is_asked_for() {
        let memory = Memory::new(40_000);
        memory.put("asked", vec![1; 1000], LIFETIME).await;
        for n in 0..1000 {
            memory.put(&n.to_string(), vec![0; 1000], LIFETIME).await;
            assert!(memory.get("asked").await.is_some(), "after {n}");
            let generations = memory.lock();
            let all = generations.young.iter().chain(&generations.old);
            let bytes: usize = all.map(|(key, copy)| weight(key, copy)).sum();
            assert!(bytes <= 40_000, "{bytes}");
        }
        assert!(memory.get("0").await.is_none());
        memory.put("large", vec![0; 40_000], LIFETIME).await;
        assert!(memory.get("large").await.is_none());
        assert!(memory.get("asked").await.is_some());
    }
}
