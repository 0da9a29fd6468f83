//! The MCP servers from npm: the command lines start servers that answer.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use agentrunner_testkit::{CommandLine, npm_servers};
use serde_json::{Value, json};

/// Starts a server, says hello, and returns what it answers.
fn hello(line: CommandLine) -> Value {
    let mut command = Command::new(line.program);
    command
        .args(line.args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let mut server = command.spawn().unwrap();
    let hello = json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {
        "protocolVersion": "2025-06-18", "capabilities": {},
        "clientInfo": {"name": "testkit", "version": "1"}}});
    let mut input = server.stdin.take().unwrap();
    writeln!(input, "{hello}").unwrap();
    let mut answer = String::new();
    BufReader::new(server.stdout.take().unwrap())
        .read_line(&mut answer)
        .unwrap();
    server.kill().unwrap();
    server.wait().unwrap();
    serde_json::from_str(&answer).unwrap()
}

#[test]
fn both_servers_answer() {
    let folder = tempfile::tempdir().unwrap();
    let servers = npm_servers();
    for line in [servers.everything(), servers.filesystem(folder.path())] {
        let answer = hello(line);
        assert!(
            answer["result"]["capabilities"]["tools"].is_object(),
            "{answer}"
        );
    }
}
