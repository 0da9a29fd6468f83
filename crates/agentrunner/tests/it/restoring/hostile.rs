//! A23: what is no backup, no longer one, or made to do harm, is refused before anything is written. More of what a file with a
//! right seal may try is in the unit tests of `backup`.

use std::fs;
use std::io::Read;
use std::path::Path;

use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::project::Project;

/// What the file of a backup is made of.
struct Entry {
    name: String,
    kind: tar::EntryType,
    content: Vec<u8>,
}

impl Entry {
    fn file(name: &str, content: impl Into<Vec<u8>>) -> Self {
        Self {
            name: name.to_owned(),
            kind: tar::EntryType::Regular,
            content: content.into(),
        }
    }
}

/// The entries of a backup.
fn opened(file: &[u8]) -> Vec<Entry> {
    // Up to the seal, which is a frame that readers skip.
    let mut archive = tar::Archive::new(zstd::Decoder::new(file).unwrap().single_frame());
    let mut entries = Vec::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let name = entry.path().unwrap().to_str().unwrap().to_owned();
        let mut content = Vec::new();
        entry.read_to_end(&mut content).unwrap();
        entries.push(Entry::file(&name, content));
    }
    entries
}

/// A file of these entries with a right seal, as somebody makes it who has read how.
fn sealed(entries: &[Entry]) -> Vec<u8> {
    let mut archive = tar::Builder::new(zstd::Encoder::new(Vec::new(), 1).unwrap());
    for entry in entries {
        let mut header = tar::Header::new_ustar();
        // As bytes: the library would refuse the worst names.
        header.as_old_mut().name[..entry.name.len()].copy_from_slice(entry.name.as_bytes());
        header.set_entry_type(entry.kind);
        header.set_size(entry.content.len() as u64);
        header.set_cksum();
        archive.append(&header, entry.content.as_slice()).unwrap();
    }
    let mut file = archive.into_inner().unwrap().finish().unwrap();
    let sum = Sha256::digest(&file);
    file.extend([0x5a, 0x2a, 0x4d, 0x18, 32, 0, 0, 0]);
    file.extend(sum);
    file
}

/// The file with one more entry, before its last one.
fn with(whole: &[u8], entry: Entry) -> Vec<u8> {
    let mut entries = opened(whole);
    entries.insert(entries.len() - 1, entry);
    sealed(&entries)
}

/// The file with another head.
fn head(whole: &[u8], change: impl FnOnce(&mut Value)) -> Vec<u8> {
    let mut entries = opened(whole);
    let mut head: Value = serde_json::from_slice(&entries[0].content).unwrap();
    change(&mut head);
    entries[0].content = head.to_string().into_bytes();
    sealed(&entries)
}

fn damaged(whole: &[u8]) -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let mut changed = whole.to_vec();
    changed[whole.len() / 2] ^= 1;
    let foreign = zstd::encode_all(&b"an archive of somebody else"[..], 1).unwrap();
    vec![
        ("changed", changed, "damaged"),
        ("cut", whole[..whole.len() - 1].to_vec(), "damaged"),
        ("half", whole[..whole.len() / 2].to_vec(), "damaged"),
        ("foreign", foreign, "damaged"),
        ("text", b"not at all".to_vec(), "not a backup"),
        ("empty", Vec::new(), "not a backup"),
    ]
}

fn hostile(whole: &[u8]) -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let up = Entry::file("config/../../evil.yml", "name: evil\n");
    let absolute = Entry::file("/tmp/evil-of-a-backup.yml", "name: evil\n");
    let link = Entry {
        kind: tar::EntryType::Symlink,
        ..Entry::file("config/agents/evil.yml", "")
    };
    // It unpacks to 108 MB, out of some 20 kB.
    let bomb = Entry::file(
        "tables/restores/00000001.jsonl",
        b"[1,1,1,1]\n".repeat(12_000_000),
    );
    let newer = |head: &mut Value| head["format"] = 2.into();
    let schema = |head: &mut Value| head["layout"]["schema"] = 1000.into();
    vec![
        ("up", with(whole, up), "could lead out of the folder"),
        ("absolute", with(whole, absolute), "does not belong here"),
        ("link", with(whole, link), "is not a file"),
        ("bomb", with(whole, bomb), "1000 times its length"),
        ("newer", head(whole, newer), "format 2"),
        ("schema", head(whole, schema), "schema version 1000"),
    ]
}

/// All that lies in a folder and below.
fn listed(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(listed(&path));
        }
        found.push(path.display().to_string());
    }
    found.sort();
    found
}

#[tokio::test]
async fn a23_damaged_foreign_newer_and_hostile_files_are_refused_before_any_change() {
    let project = Project::new();
    let ran = project.run(&["run", "greeter", "hello"]).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    let made = project.run(&["backup"]).await.json();
    let file = project.path().join(made["file"].as_str().unwrap());
    let whole = fs::read(&file).unwrap();
    fs::remove_dir_all(project.path().join("data")).unwrap();
    fs::remove_dir_all(project.path().join("config")).unwrap();

    let path = project.path().join("offered");
    // The forger's way is right: what is sealed anew without a change is taken.
    fs::write(&path, sealed(&opened(&whole))).unwrap();
    let good = project.run(&["backup", "verify", "offered"]).await;
    assert_eq!(good.code, 0, "{good:?}");
    let before = listed(project.path());
    for (name, bytes, wanted) in damaged(&whole).into_iter().chain(hostile(&whole)) {
        fs::write(&path, bytes).unwrap();
        let refused = project.run(&["restore", "offered"]).await;
        assert_eq!(refused.code, 1, "{name}: {refused:?}");
        assert!(refused.stderr.contains(wanted), "{name}: {refused:?}");
        assert_eq!(listed(project.path()), before, "{name}");
    }
    let refused = project.run(&["backup", "verify", "offered"]).await;
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(!Path::new("/tmp/evil-of-a-backup.yml").exists());
    let evil = project.path().parent().unwrap().join("evil.yml");
    assert!(!evil.exists());
}
