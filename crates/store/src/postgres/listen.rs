//! Telling other processes that something became due, with `LISTEN` and `NOTIFY`.
//!
//! A notification is a hint: one that is lost costs a poll's delay. So it is sent after the commit that it tells of, by
//! a session of its own: in the transaction itself it would let one commit at a time through, since the server keeps
//! notifications in the order of commits. And it says only that there is something: however much becomes due, one in
//! [`PAUSE`] is sent, the first at once.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

use tokio::time::{sleep, timeout};
use tokio_postgres::tls::NoTlsStream;
use tokio_postgres::{AsyncMessage, Client, Connection, NoTls, Socket};

use super::Signals;
use super::fault::{Fault, Outcome, closed, not_connected, unavailable};
use super::settings::Server;
use super::sql::get;

/// The least time between two notifications.
const PAUSE: Duration = Duration::from_millis(10);
/// How long to rest before the session is opened again.
const REST: Duration = Duration::from_secs(1);

/// Tells, and is told, for ever. A process hears of its own work by [`Signals::due`] and passes over its own
/// notifications.
pub(super) async fn listen(server: Arc<Server>, signals: Signals) {
    let mut is_told = false;
    loop {
        let own = AtomicI32::new(0);
        let ended = serve(&server, &own, &signals).await;
        is_told &= own.into_inner() == 0;
        // Once for each time that it is lost: what else fails meanwhile says more about why.
        if let Err(fault) = ended
            && !is_told
        {
            let error = crate::Error::from(fault);
            tracing::warn!(%error, "other processes are not told of work until this is made anew; they find it by polling");
            is_told = true;
        }
        sleep(REST).await;
    }
}

async fn serve(server: &Server, own: &AtomicI32, signals: &Signals) -> Outcome<()> {
    let connecting = timeout(server.connect_timeout, server.config.connect(NoTls)).await;
    let (client, connection) = connecting
        .map_err(|_| unavailable(super::fault::silent(server)))?
        .map_err(|error| not_connected(error, server))?;
    tokio::select! {
        ended = hear(connection, own, signals) => ended,
        ended = tell(&client, own, signals) => ended,
    }
}

/// Drives the session; each notification of another process is passed on.
async fn hear(
    mut connection: Connection<Socket, NoTlsStream>,
    own: &AtomicI32,
    signals: &Signals,
) -> Outcome<()> {
    loop {
        match poll_fn(|cx| connection.poll_message(cx)).await {
            Some(Ok(AsyncMessage::Notification(told))) => {
                if told.process_id() != own.load(Ordering::Relaxed) {
                    signals.due.notify_one();
                }
            }
            Some(Ok(_)) => {}
            Some(Err(error)) => return Err(Fault::sql(error, false)),
            None => return Err(closed().into()),
        }
    }
}

/// Begins to listen, and tells the others whenever something became due here.
async fn tell(client: &Client, own: &AtomicI32, signals: &Signals) -> Outcome<()> {
    let failed = |error| Fault::sql(error, false);
    let row = client.query_one("SELECT pg_backend_pid()", &[]).await;
    own.store(get(&row.map_err(failed)?, 0)?, Ordering::Relaxed);
    // Nothing that is written here is worth waiting for a disk.
    let begin = "SET synchronous_commit = off; LISTEN agentrunner_due";
    client.batch_execute(begin).await.map_err(failed)?;
    // What others told while nobody listened is found now.
    signals.due.notify_one();
    loop {
        signals.elsewhere.notified().await;
        client
            .batch_execute("NOTIFY agentrunner_due")
            .await
            .map_err(failed)?;
        sleep(PAUSE).await;
    }
}
