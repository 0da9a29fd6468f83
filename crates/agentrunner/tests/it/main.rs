//! The binary, end to end: as a person at a shell and as a program around it would use it.

mod init;
mod project;
mod run;
mod serve;
mod survive;
mod wrong_use;
