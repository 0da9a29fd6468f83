//! Takes over at once what a process of this host left behind, instead of waiting for its leases to run out.

use std::collections::BTreeSet;
use std::sync::Arc;

use domain::WorkerId;

use crate::shared::Shared;

/// Tells whether a worker is certainly gone. `false` when it lives, or nobody here can know.
pub type IsGone = Arc<dyn Fn(&WorkerId) -> bool + Send + Sync>;

/// Ends the leases of workers that are gone, and forgets them. Being wrong is harmless: an owner that lives after all
/// finds that it lost its lease, and can write nothing.
pub(crate) async fn recover(core: &Shared) {
    let Some(is_gone) = &core.settings.is_gone else {
        return;
    };
    let known = match known(core).await {
        Ok(known) => known,
        Err(error) => return tracing::warn!("what earlier processes left can't be read: {error}"),
    };
    let store = &core.ports.store;
    for worker in known
        .iter()
        .filter(|worker| **worker != core.settings.worker && is_gone(worker))
    {
        match store.end_leases(worker, core.now()).await {
            Ok(count) => tracing::info!(%worker, count, "goes on with what a lost process left"),
            Err(error) => tracing::warn!(%worker, "its leases will run out by themselves: {error}"),
        }
        if let Err(error) = store.leave(worker).await {
            tracing::warn!(%worker, "it will be missed by its silence: {error}");
        }
    }
}

/// Those that hold leases, and those that said that they live.
async fn known(core: &Shared) -> store::Result<BTreeSet<WorkerId>> {
    let mut known: BTreeSet<_> = core
        .ports
        .store
        .lease_holders()
        .await?
        .into_iter()
        .collect();
    let workers = core.ports.store.workers().await?.into_iter();
    known.extend(workers.map(|worker| worker.id));
    Ok(known)
}
