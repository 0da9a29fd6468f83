//! Takes over at once what a process of this host left behind, instead of waiting for its leases to run out.

use std::sync::Arc;

use domain::WorkerId;

use crate::shared::Shared;

/// Tells whether a worker is certainly gone. `false` when it lives, or nobody here can know.
pub type IsGone = Arc<dyn Fn(&WorkerId) -> bool + Send + Sync>;

/// Ends the leases of workers that are gone. Being wrong is harmless: an owner that lives after all finds that it lost
/// its lease, and can write nothing.
pub(crate) async fn recover(core: &Shared) {
    let Some(is_gone) = &core.settings.is_gone else {
        return;
    };
    let holders = match core.ports.store.lease_holders().await {
        Ok(holders) => holders,
        Err(error) => return tracing::warn!("what earlier processes left can't be read: {error}"),
    };
    for worker in holders
        .iter()
        .filter(|worker| **worker != core.settings.worker && is_gone(worker))
    {
        match core.ports.store.end_leases(worker, core.now()).await {
            Ok(count) => tracing::info!(%worker, count, "goes on with what a lost process left"),
            Err(error) => tracing::warn!(%worker, "its leases will run out by themselves: {error}"),
        }
    }
}
