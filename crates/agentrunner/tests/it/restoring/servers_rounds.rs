//! The same on PostgreSQL; its name puts it among the tests that run one at a time.

use super::{Kind, rounds};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn everything_is_lost_and_goes_on_from_a_backup() {
    rounds(Kind::Server).await;
}
