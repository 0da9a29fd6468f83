//! A23: what is no backup, or no longer one, is refused before anything is written. What a file with a right seal may try is
//! in the unit tests of `backup`.

use std::fs;

use crate::project::Project;

#[tokio::test]
async fn a23_damaged_foreign_and_hostile_files_are_refused_before_any_change() {
    let project = Project::new();
    let ran = project.run(&["run", "greeter", "hello"]).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    let made = project.run(&["backup"]).await.json();
    let file = project.path().join(made["file"].as_str().unwrap());
    let whole = fs::read(&file).unwrap();
    fs::remove_dir_all(project.path().join("data")).unwrap();
    fs::remove_dir_all(project.path().join("config")).unwrap();

    let mut changed = whole.clone();
    changed[whole.len() / 2] ^= 1;
    let cut = whole[..whole.len() - 1].to_vec();
    let half = whole[..whole.len() / 2].to_vec();
    let foreign = zstd::encode_all(&b"an archive of somebody else"[..], 1).unwrap();
    for (name, bytes, wanted) in [
        ("changed", changed, "damaged"),
        ("cut", cut, "damaged"),
        ("half", half, "damaged"),
        ("foreign", foreign, "damaged"),
        ("text", b"not at all".to_vec(), "not a backup"),
        ("empty", Vec::new(), "not a backup"),
    ] {
        let path = project.path().join(name);
        fs::write(&path, bytes).unwrap();
        for verb in [vec!["backup", "verify"], vec!["restore"]] {
            let args = [verb, vec![name]].concat();
            let refused = project.run(&args).await;
            assert_eq!(refused.code, 1, "{refused:?}");
            assert!(refused.stderr.contains(wanted), "{refused:?}");
        }
    }
    assert!(!project.path().join("data").exists());
    assert!(!project.path().join("config").exists());
}
