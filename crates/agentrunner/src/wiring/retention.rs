//! Forgets what was over long ago, now and then. Any number of processes may do it at once: what one has forgotten the
//! others do not find.

use std::time::Duration;

use engine::Engine;
use services::audit::Audit;
use store::{Cleaned, Cleanup};
use tokio_util::sync::CancellationToken;

/// When it is first looked after a start: a start has better things to do.
const FIRST: Duration = Duration::from_secs(60);
const PERIOD: Duration = Duration::from_secs(60 * 60);
/// Between two calls that each deleted as much as a call deletes, so that others' work goes before.
const BREATH: Duration = Duration::from_secs(1);

/// Keeps what was over for `retention` and no longer, until `stop`.
pub(super) async fn keep(
    engine: Engine,
    audit: Audit,
    retention: Duration,
    stop: CancellationToken,
) {
    let mut pause = FIRST;
    loop {
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = stop.cancelled() => return,
        }
        pause = match forget(&engine, &audit, retention).await {
            Ok(cleaned) if cleaned.has_more => BREATH,
            Ok(_) => PERIOD,
            Err(error) => {
                tracing::warn!(%error, "what was over long ago can't be deleted; it is tried again");
                PERIOD
            }
        };
    }
}

async fn forget(
    engine: &Engine,
    audit: &Audit,
    retention: Duration,
) -> Result<Cleaned, store::Error> {
    let cleanup = Cleanup {
        before: engine.now() - retention,
        dry_run: false,
    };
    let before = cleanup.before;
    let cleaned = engine.store().cleanup(cleanup).await?;
    let audit_rows = audit.forget(&**engine.store(), before, false).await?;
    if cleaned.executions + cleaned.conversations + cleaned.dead_letters + audit_rows > 0 {
        tracing::info!(
            executions = cleaned.executions,
            conversations = cleaned.conversations,
            dead_letters = cleaned.dead_letters,
            audit_rows,
            months = cleaned.months.join(", "),
            "deleted what was over before STATE_RETENTION_DAYS"
        );
    }
    Ok(cleaned)
}
