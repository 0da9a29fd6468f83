//! The rule by which something that changes is kept: under its version, and only when the version stood still.

use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::cached::Copies;
use crate::Result;

/// Something that changes and has a version.
pub(super) trait Versioned {
    /// What is read.
    type Content: Serialize + DeserializeOwned;

    /// The version now: another one after each change, and never one that there was before. `None` when there is
    /// nothing, or no version.
    async fn version(&self) -> Result<Option<String>>;

    /// The content now.
    async fn content(&self) -> Result<Self::Content>;

    /// The key of the content at a version.
    fn key(&self, version: &str) -> String;

    /// Whether a copy can be what was asked for.
    fn fits(&self, copy: &Self::Content) -> bool;
}

/// Reads something that changes: from a copy of its version, else from the source. The answer was true at some moment
/// between the call and its end.
pub(super) async fn read<S: Versioned>(
    source: &S,
    copies: &Copies,
    lifetime: Duration,
) -> Result<S::Content> {
    let Some(version) = source.version().await? else {
        return source.content().await;
    };
    let key = source.key(&version);
    if let Some(copy) = copies.find(&key, |copy| source.fits(copy)).await {
        return Ok(copy);
    }
    let content = source.content().await?;
    // Only if nothing came in between is this the content of that version. A failure is not the reader's business.
    if source
        .version()
        .await
        .is_ok_and(|now| now.as_ref() == Some(&version))
    {
        copies.keep(&key, &content, lifetime).await;
    }
    Ok(content)
}

#[cfg(test)]
mod tests;
