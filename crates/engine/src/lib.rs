//! Claims, leases, performs one action, commits its step; outbox relay, recovery.
