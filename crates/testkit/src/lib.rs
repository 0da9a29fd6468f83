//! Stand-ins on the true wire, builders and fault tools for tests.
