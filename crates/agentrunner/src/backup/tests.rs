//! What is written is read, and nothing else is.

use std::fs;
use std::path::{Path, PathBuf};

use domain::Time;
use serde_json::json;
use store::copying::{self, Layout, Piece, TableLayout, newest_schema};

use super::seal::Sealing;
use super::*;

fn layout() -> Layout {
    let table = |name: &str, columns: &[&str]| TableLayout {
        name: name.to_owned(),
        columns: columns.iter().map(|name| (*name).to_owned()).collect(),
    };
    Layout {
        schema: newest_schema(),
        taken_at: "2026-11-30T02:00:00Z".parse::<Time>().unwrap(),
        months: vec!["2026-11".to_owned()],
        tables: vec![
            table("executions", &["id", "finished_at"]),
            table("steps", &["seq", "body"]),
        ],
    }
}

fn pieces(lines: &[(usize, &str)]) -> Vec<Piece> {
    let rows = lines.iter().map(|(table, lines)| Piece::Rows {
        table: *table,
        count: lines.lines().count() as u64,
        lines: lines.as_bytes().to_vec(),
    });
    let all = std::iter::once(Piece::Begin(layout())).chain(rows);
    all.chain([Piece::End]).collect()
}

fn written(folder: &Path, pieces: Vec<Piece>) -> anyhow::Result<Written> {
    let (sender, coming) = copying::channel();
    let sending = std::thread::spawn(move || {
        for piece in pieces {
            if sender.blocking_send(piece).is_err() {
                break;
            }
        }
    });
    let source = Source {
        store: "sqlite",
        files: vec![("agents/a.yml".to_owned(), b"name: a\n".to_vec())],
    };
    let written = write(folder, &source, coming, |_, _| {});
    sending.join().unwrap();
    written
}

fn read(path: &Path) -> anyhow::Result<Vec<String>> {
    let mut seen = Vec::new();
    let mut opened = Opened::open(path)?;
    opened.read(|_| {}, &mut |item| {
        seen.push(match item {
            Item::Head(head) => format!("head {}", head.store),
            Item::File(path, content) => format!("{path} {}", content.len()),
            Item::Rows(table, lines) => format!("{table} {}", String::from_utf8_lossy(&lines)),
        });
        Ok(())
    })?;
    Ok(seen)
}

fn good(folder: &Path) -> PathBuf {
    let pieces = pieces(&[(0, "[1,2]\n[3,4]\n"), (0, "[5,6]\n"), (1, "[1,\"x\"]\n")]);
    folder.join(written(folder, pieces).unwrap().name)
}

/// Its name, kind and content.
type Entry<'a> = (&'a str, tar::EntryType, &'a [u8]);

/// A file with these entries and a right seal.
fn forged(path: &Path, entries: &[Entry<'_>]) {
    let file = fs::File::create(path).unwrap();
    let encoder = zstd::Encoder::new(Sealing::new(file), 1).unwrap();
    let mut archive = tar::Builder::new(encoder);
    for (name, kind, content) in entries {
        let mut header = tar::Header::new_ustar();
        // As bytes: the library would refuse the worst names.
        let field = &mut header.as_old_mut().name;
        field[..name.len()].copy_from_slice(name.as_bytes());
        header.set_entry_type(*kind);
        header.set_size(content.len() as u64);
        header.set_cksum();
        archive.append(&header, *content).unwrap();
    }
    let sealing = archive.into_inner().unwrap().finish().unwrap();
    sealing.finish().unwrap();
}

fn head(change: impl FnOnce(&mut serde_json::Value)) -> Vec<u8> {
    let mut head = json!({
        "format": 1, "product": "9.9.9", "store": "sqlite", "layout": layout(),
    });
    change(&mut head);
    head.to_string().into_bytes()
}

#[test]
fn what_is_written_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = good(dir.path());
    assert_eq!(
        path.file_name().unwrap(),
        "agentrunner-20261130T020000Z.tar.zst"
    );
    assert_eq!(
        read(&path).unwrap(),
        [
            "head sqlite",
            "agents/a.yml 8",
            "0 [1,2]\n[3,4]\n",
            "0 [5,6]\n",
            "1 [1,\"x\"]\n"
        ]
    );
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn every_changed_byte_and_every_cut_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let whole = fs::read(good(dir.path())).unwrap();
    let path = dir.path().join("changed");
    for place in 0..whole.len() {
        let mut changed = whole.clone();
        changed[place] ^= 0x10;
        fs::write(&path, &changed).unwrap();
        assert!(read(&path).is_err(), "byte {place}");
    }
    for length in 0..whole.len() {
        fs::write(&path, &whole[..length]).unwrap();
        assert!(read(&path).is_err(), "cut at {length}");
    }
    fs::write(&path, [whole.as_slice(), b"x"].concat()).unwrap();
    assert!(read(&path).is_err(), "something follows");
}

#[test]
fn rows_that_do_not_come_to_their_end_leave_no_file() {
    let dir = tempfile::tempdir().unwrap();
    let mut cut = pieces(&[(0, "[1,2]\n")]);
    cut.pop();
    let error = written(dir.path(), cut).unwrap_err();
    assert!(
        format!("{error:#}").contains("did not come to their end"),
        "{error:#}"
    );
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn what_a_killed_backup_left_goes_and_what_another_writes_stays() {
    let dir = tempfile::tempdir().unwrap();
    let place = |name: &str| dir.path().join(name);
    let left = place(".agentrunner-20200101T000000Z.tar.zst.part");
    let held = place(".agentrunner-20210101T000000Z.tar.zst.part");
    let foreign = place(".agentrunner-notes.tar.zst.part");
    for path in [&left, &held, &foreign] {
        fs::write(path, "x").unwrap();
    }
    let other = fs::File::open(&held).unwrap();
    other.lock().unwrap();
    good(dir.path());
    assert_eq!(
        [&left, &held, &foreign].map(|path| path.exists()),
        [false, true, true]
    );
}

/// Each of these files is refused with these words.
fn refused(cases: Vec<(Vec<Entry<'_>>, &str)>) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("forged");
    for (entries, wanted) in cases {
        forged(&path, &entries);
        let error = read(&path).unwrap_err();
        assert!(format!("{error:#}").contains(wanted), "{wanted}: {error:#}");
    }
}

#[test]
fn foreign_newer_and_hostile_heads_are_refused() {
    use tar::EntryType::Regular;
    let newer = head(|head| head["format"] = 2.into());
    let schema = head(|head| head["layout"]["schema"] = (newest_schema() + 1).into());
    let table = head(|head| head["layout"]["tables"][1]["name"] = "pg_authid".into());
    let column =
        head(|head| head["layout"]["tables"][1]["columns"][0] = "seq) FROM PROGRAM 'x'".into());
    refused(vec![
        (vec![("notes.txt", Regular, b"x")], "not a backup"),
        (vec![(HEAD, Regular, &newer)], "format 2"),
        (vec![(HEAD, Regular, &schema)], "schema version"),
        (vec![(HEAD, Regular, &table)], "no table that is copied"),
        (vec![(HEAD, Regular, &column)], "are not names"),
    ]);
}

#[test]
fn hostile_entries_with_a_right_seal_are_refused() {
    use tar::EntryType::{Directory, GNULongName, Link, Regular, Symlink, XHeader};
    let plain = head(|_| {});
    let zeros = vec![0; 3 << 20];
    let cases: [(&str, tar::EntryType, &[u8], &str); 11] = [
        ("config/../../a.yml", Regular, b"x", "lead out"),
        ("config//etc/a.yml", Regular, b"x", "not relative"),
        ("/etc/passwd", Regular, b"x", "does not belong here"),
        ("config/agents/a.yml", Symlink, b"", "not a file"),
        ("config/agents/a.yml", Link, b"", "not a file"),
        ("config/agents", Directory, b"", "not a file"),
        ("long", GNULongName, b"x", "not a file"),
        ("pax", XHeader, b"x", "not a file"),
        ("config/big.yml", Regular, &zeros, "is the most"),
        (
            "tables/steps/00000002.jsonl",
            Regular,
            b"[1,2]\n",
            "does not belong here",
        ),
        ("tables/steps/00000001.jsonl", Regular, b"[1,2]", "cut off"),
    ];
    let first = (HEAD, Regular, plain.as_slice());
    let cases =
        cases.map(|(name, kind, content, wanted)| (vec![first, (name, kind, content)], wanted));
    refused(cases.into());
    let rows: &[u8] = b"[1,2]\n";
    let empty: &[u8] = b"{\"head\":\"\",\"tables\":[],\"files\":[]}";
    refused(vec![
        (
            vec![
                first,
                ("tables/steps/00000001.jsonl", Regular, rows),
                ("tables/executions/00000001.jsonl", Regular, rows),
            ],
            "does not belong here",
        ),
        (vec![first], "it has no end"),
        (vec![first, (MANIFEST, Regular, empty)], "its manifest says"),
    ]);
}

#[test]
fn a_bomb_is_told_before_it_goes_off() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("bomb");
    let row = b"[1,1]\n".repeat(22 << 20);
    let plain = head(|_| {});
    forged(
        &path,
        &[
            (HEAD, tar::EntryType::Regular, &plain),
            ("tables/steps/00000001.jsonl", tar::EntryType::Regular, &row),
        ],
    );
    let error = read(&path).unwrap_err();
    assert!(
        format!("{error:#}").contains("1000 times its length"),
        "{error:#}"
    );
}
