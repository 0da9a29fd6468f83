//! The HTTP services, their faces, and the agent configuration with hot reload.
