//! Slack, against a stand-in that the official `slack_sdk` proves right.

mod approvals;
mod rig;
mod sending;
mod signed;
mod sockets;
mod talking;
