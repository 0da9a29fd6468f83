//! The stand-ins, seen from outside.

mod clients;
mod effects;
mod process;
mod provider;
mod proxy;
mod rules;
