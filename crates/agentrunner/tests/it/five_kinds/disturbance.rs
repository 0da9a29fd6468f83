//! What an operator and the world do to the processes: each is stopped once, and killed once.

use std::time::{Duration, Instant};

use super::company::Company;
use super::part::End;

/// Ends and starts every part, spread over the time: while one is stopped in order, the next one to be hit is another.
pub(super) async fn disturb(company: &Company, length: Duration) {
    let count = company.count();
    let blows = (0..count).flat_map(|n| [(n, End::Stop), ((n + 3) % count, End::Kill)]);
    let pause = length / u32::try_from(2 * count + 1).expect("few");
    let began = Instant::now();
    for (n, (part, how)) in (1..).zip(blows) {
        tokio::time::sleep_until((began + pause * n).into()).await;
        company.restart(part, how).await;
    }
}
