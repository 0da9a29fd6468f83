//! The services over real HTTP, with the real store, bus, engine and tools; only the model is a script.

mod config;
mod configs_api;
mod documents;
mod edge;
mod harness;
mod openapi;
mod people;
mod state;
mod stream;
mod tasks;
