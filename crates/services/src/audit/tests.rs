//! Chains that are written, rotated, damaged and checked.

use serde_json::json;

use super::*;

fn record(n: u64) -> Record {
    let details = json!({ "n": n, "text": "a\r\nb\u{1b}[31mc\u{9b}d\u{202e}e" });
    Record {
        at: Time::from_timestamp_nanos(1_700_000_000_000_000_000),
        who: Who {
            kind: "key",
            id: Some("0192".to_owned()),
            name: "ada".to_owned(),
        },
        from: Some("10.0.0.1".to_owned()),
        action: "POST /tasks".to_owned(),
        target: format!("/tasks/{n}\n{{\"seq\":1}}"),
        outcome: "done",
        status: Some(202),
        code: None,
        trace_id: "0af7651916cd43dd8448eb211c80319c".to_owned(),
        details: details.as_object().unwrap().clone(),
    }
}

struct Log {
    _folder: tempfile::TempDir,
    path: PathBuf,
    key: Option<SecretString>,
}

impl Log {
    fn of(lines: u64) -> Self {
        Self::sealed(lines, None)
    }

    fn sealed(lines: u64, key: Option<&str>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let log = Self {
            path: folder.path().join("audit.log"),
            _folder: folder,
            key: key.map(SecretString::from),
        };
        log.add(1..=lines);
        log
    }

    fn add(&self, numbers: impl IntoIterator<Item = u64>) {
        // Opened anew each time, as by several processes.
        for n in numbers {
            let chain = Chain::open(&self.path, self.key.as_ref()).unwrap();
            chain.append(&[record(n)]).unwrap();
        }
    }

    fn lines(&self) -> Vec<String> {
        let text = std::fs::read_to_string(&self.path).unwrap();
        text.lines().map(str::to_owned).collect()
    }

    fn replace(&self, lines: &[String]) {
        let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
        std::fs::write(&self.path, text).unwrap();
    }

    fn flaws(&self) -> Vec<(usize, String)> {
        let files = files_of(&self.path).unwrap();
        let verdict = verify(&files, self.key.as_ref(), Some(&self.path)).unwrap();
        let flaws = verdict.flaws.into_iter();
        flaws.map(|flaw| (flaw.line, flaw.message)).collect()
    }
}

#[test]
fn a_line_is_one_line_and_nothing_in_it_reaches_a_terminal() {
    let log = Log::of(3);
    let lines = log.lines();
    assert_eq!(lines.len(), 3);
    for line in &lines {
        assert!(
            line.chars().all(|c| !c.is_control() && c != '\u{202e}'),
            "{line}"
        );
        let value: Value = serde_json::from_str(line).unwrap();
        assert_eq!(
            value["details"],
            Value::Object(record(value["seq"].as_u64().unwrap()).details)
        );
    }
    assert_eq!(log.flaws(), []);
}

#[test]
fn every_changed_byte_of_every_line_is_named() {
    let log = Log::of(3);
    let lines = log.lines();
    for index in 0..lines.len() {
        for at in 0..lines[index].len() {
            let mut damaged = lines.clone();
            let mut bytes = damaged[index].clone().into_bytes();
            bytes[at] = if bytes[at] == b'0' { b'1' } else { b'0' };
            damaged[index] = String::from_utf8(bytes).unwrap();
            log.replace(&damaged);
            let flaws = log.flaws();
            assert_eq!(
                flaws.first().map(|(line, _)| *line),
                Some(index + 1),
                "byte {at}: {flaws:?}"
            );
        }
    }
    log.replace(&lines);
    assert_eq!(log.flaws(), []);
}

#[test]
fn missing_moved_doubled_and_forged_lines_are_named() {
    let log = Log::of(5);
    let lines = log.lines();
    let damaged = |order: &[usize]| {
        let picked: Vec<String> = order.iter().map(|n| lines[n - 1].clone()).collect();
        log.replace(&picked);
        log.flaws()
    };
    let told = |flaws: &[(usize, String)], line: usize, part: &str| {
        let found = flaws
            .iter()
            .any(|(at, message)| *at == line && message.contains(part));
        assert!(found, "{flaws:?}");
    };
    told(&damaged(&[1, 3, 4, 5]), 2, "line 2 of the log is missing");
    told(&damaged(&[1, 5]), 2, "lines 2 to 4 of the log are missing");
    told(
        &damaged(&[1, 2, 3]),
        3,
        "lines 4 to 5 of the log are missing at its end",
    );
    told(&damaged(&[1, 3, 2, 4, 5]), 3, "it was moved");
    told(&damaged(&[1, 2, 2, 3, 4, 5]), 3, "put in twice");
    // One with a right hash of its own, made by somebody who knows how.
    let mut forged = lines.clone();
    let (open, _) = chain::split(&lines[2]).unwrap();
    let open = open.replace("ada", "eve");
    forged[2] = format!("{open},\"hash\":\"{}\"}}", chain::Seal::new(None).of(&open));
    log.replace(&forged);
    told(&log.flaws(), 4, "line 4 of the log does not follow");
}

#[test]
fn with_a_key_nobody_else_can_make_a_chain() {
    let log = Log::sealed(3, Some("0123456789abcdef"));
    assert_eq!(log.flaws(), []);
    let files = [log.path.clone()];
    for key in [None, Some(SecretString::from("another key that is long"))] {
        let verdict = verify(&files, key.as_ref(), None).unwrap();
        assert_eq!(verdict.flaws.len(), 3);
    }
}

#[test]
fn rotation_leaves_the_chain_whole() {
    let log = Log::of(3);
    std::fs::rename(&log.path, log.path.with_extension("log.1")).unwrap();
    log.add(4..=5);
    // As `copytruncate` does it.
    std::fs::copy(&log.path, log.path.with_extension("log-20261124")).unwrap();
    std::fs::OpenOptions::new()
        .write(true)
        .open(&log.path)
        .unwrap()
        .set_len(0)
        .unwrap();
    log.add(6..=7);
    assert_eq!(log.lines().len(), 2);
    assert_eq!(log.flaws(), []);
    std::fs::remove_file(log.path.with_extension("log-20261124")).unwrap();
    let flaws = log.flaws();
    assert!(
        flaws[0].1.contains("lines 4 to 5 of the log are missing"),
        "{flaws:?}"
    );
}

#[test]
fn a_line_that_a_crash_cut_off_is_taken_away_and_the_chain_goes_on() {
    let log = Log::of(2);
    let mut text = std::fs::read_to_string(&log.path).unwrap();
    text.push_str("{\"seq\":3,\"prev\":\"");
    std::fs::write(&log.path, text).unwrap();
    log.add([3]);
    assert_eq!(log.lines().len(), 3);
    assert_eq!(log.flaws(), []);
    // The head is behind: the crash came before it was written.
    let head = std::fs::read_to_string(head_of(&log.path)).unwrap();
    log.add([4]);
    std::fs::write(head_of(&log.path), head).unwrap();
    log.add([5]);
    assert_eq!(log.flaws(), []);
}

#[test]
fn many_writers_make_one_chain() {
    let log = Log::of(0);
    std::thread::scope(|scope| {
        for writer in 0..4 {
            let log = &log;
            scope.spawn(move || log.add((0..10).map(|n| writer * 10 + n)));
        }
    });
    assert_eq!(log.lines().len(), 40);
    assert_eq!(log.flaws(), []);
}

#[test]
fn strangers_do_not_fill_the_disk() {
    let strangers = Strangers::default();
    let now = Time::from_timestamp_nanos(0);
    let written = (0..1000).filter(|_| strangers.admit(now).is_some()).count();
    assert_eq!(written, 20);
    let later = now + domain::TimeDelta::seconds(1);
    assert_eq!(strangers.admit(later), Some(980));
}
