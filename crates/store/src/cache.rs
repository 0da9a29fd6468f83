//! Copies of what a store was asked for, so that it need not be asked again.
//!
//! # Why no copy is ever stale
//! A cache that is told of changes ("delete the copy when the row is written") is wrong for as long as the message is
//! under way, and for as long as a copy lives when the message is lost: the writer dies between commit and deletion,
//! only its way to Redis is cut, a slow reader puts back what it read before the write, a request that timed out
//! arrives after all. An agent would then have forgotten what was said to it, and losing Redis must cost time and
//! nothing else. So nothing is ever deleted because something changed. **What is kept never changes**; there are three
//! kinds of it:
//!
//! - A version of a definition: its name is the hash of its content.
//! - An execution that is over. One that is not over is not kept.
//! - A conversation *as of a version*. The version is a part of the key, is another one after each commit that adds to
//!   the conversation, and is never used again ([`crate::Store::conversation_version`]). It is asked of the store at
//!   each read, which is one look at an index; what is saved is reading, carrying and decoding the messages.
//!
//! A copy is put only under a version that was the current one before *and* after its content was read. Then whatever
//! a cache does - forget, fail, hang, answer late, keep for ever - it can hide nothing that was committed before the
//! read began. `cache/versioned.rs` has the rule and a test that tries interleavings of readers, writers and faults.
//!
//! What comes to have state that can be overwritten gives each write a fresh random version and follows the same rule.
//!
//! # What a cache may do to its callers
//! Take a moment. [`Cache::get`] and [`Cache::put`] do not fail; a cache that can't be used knows nothing and keeps
//! nothing. What it answers is not trusted either: it is bounded in size, says itself which key it belongs to, is
//! decoded strictly and must be what was asked for; else it is removed and counts as not found.

mod cached;
mod entry;
mod memory;
mod versioned;

use std::time::Duration;

use async_trait::async_trait;

pub use cached::{Cached, Lifetimes};
pub use memory::Memory;

/// A part of every key that is shared with other processes: raise it when the form of a value changes, so that two
/// releases side by side do not read each other's. `cache/entry.rs` has a test that notices.
pub(crate) const FORMAT: u32 = 1;

/// The largest value that is kept, in bytes.
pub(crate) const MAX_VALUE_BYTES: usize = 512 << 10;

/// That a server can't be used now, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Away(pub String);

/// A place for copies, by key. Keys have no control characters and at most 512 bytes.
#[async_trait]
pub trait Cache: Send + Sync + 'static {
    /// What is kept under a key; `None` also when that can't be told now.
    async fn get(&self, key: &str) -> Option<Vec<u8>>;

    /// Keeps a value for a time, or does not.
    async fn put(&self, key: &str, value: Vec<u8>, lifetime: Duration);

    /// Forgets a value, or does not.
    async fn remove(&self, key: &str);

    /// Forgets all values; answers how many there were.
    ///
    /// # Errors
    /// They can't be reached now, and may still be there.
    async fn clear(&self) -> Result<u64, Away>;

    /// Whether it can be used, as far as is known. Asks nobody.
    ///
    /// # Errors
    /// It can't, and why.
    fn health(&self) -> Result<(), Away>;
}
