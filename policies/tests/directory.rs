//! Policy directories: what is read, what is refused, and that nothing blocks.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "tests"
)]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use stockade_policies::directory::file;
use stockade_policies::{PolicySet, Trust};

fn load(directory: &Path) -> Result<PolicySet, String> {
    PolicySet::load(&[(directory.to_owned(), Trust::Operator)]).map_err(|error| error.to_string())
}

#[test]
fn files_are_read_by_their_stems_and_others_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("b.toml"), "extends = \"a\"").unwrap();
    fs::write(directory.path().join("a.toml"), "level = \"moderate\"").unwrap();
    fs::write(directory.path().join("note.txt"), "not TOML").unwrap();
    fs::write(directory.path().join(".a.toml.swp"), "not TOML").unwrap();
    fs::write(directory.path().join(".hidden.toml"), "not TOML").unwrap();
    let set = load(directory.path()).unwrap();
    assert!(set.get("a").is_ok() && set.get("b").is_ok() && set.get("default").is_ok());
    assert_eq!(set.names().len(), 8);
    assert_eq!(set.get("a").unwrap().file(), directory.path().join("a.toml").display().to_string());
}

#[test]
fn missing_directory_has_no_policies() {
    let directory = tempfile::tempdir().unwrap();
    assert_eq!(load(&directory.path().join("none")).unwrap().names(), PolicySet::shipped().names());
}

#[test]
fn one_bad_file_means_no_set_and_is_named() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("good.toml"), "").unwrap();
    fs::write(directory.path().join("bad.toml"), "\nlevle = 1").unwrap();
    let error = load(directory.path()).unwrap_err();
    assert!(error.contains("/bad.toml:2:1: unknown key `levle`"), "{error}");
}

#[test]
fn links_stay_in_the_directory() {
    let directory = tempfile::tempdir().unwrap();
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("x.toml"), "").unwrap();
    fs::write(directory.path().join("real.toml"), "").unwrap();
    symlink("real.toml", directory.path().join("link.toml")).unwrap();
    assert!(load(directory.path()).unwrap().get("link").is_ok());
    symlink(outside.path().join("x.toml"), directory.path().join("out.toml")).unwrap();
    let error = load(directory.path()).unwrap_err();
    assert!(error.contains("/out.toml: a link that leads out of its directory"), "{error}");
    fs::remove_file(directory.path().join("out.toml")).unwrap();
    symlink("nowhere", directory.path().join("dangling.toml")).unwrap();
    assert!(load(directory.path()).unwrap_err().contains("dangling.toml"));
}

#[test]
fn what_is_no_small_text_file_is_refused_without_blocking() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("x.toml");
    assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
    assert!(load(directory.path()).unwrap_err().contains("not a regular file"));
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    assert!(load(directory.path()).unwrap_err().contains("not a regular file"));
    fs::remove_dir(&path).unwrap();
    fs::write(&path, vec![b'#'; 256 * 1024 + 1]).unwrap();
    assert!(load(directory.path()).unwrap_err().contains("larger than 262144 bytes"));
    fs::write(&path, b"# \xff").unwrap();
    assert!(load(directory.path()).unwrap_err().contains("not UTF-8 after byte 2"));
    fs::File::create(&path).unwrap().set_len(1 << 40).unwrap();
    assert!(load(directory.path()).unwrap_err().contains("larger than"));
}

#[test]
fn one_file_can_be_read_from_anywhere() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("mine.toml");
    fs::write(&path, "extends = \"default\"").unwrap();
    let link = directory.path().join("other.toml");
    symlink(&path, &link).unwrap();
    for (path, name) in [(&path, "mine"), (&link, "other")] {
        let source = file(path, Trust::User).unwrap();
        assert_eq!((source.name.as_str(), source.file), (name, path.display().to_string()));
        assert!(PolicySet::from_sources(vec![file(path, Trust::User).unwrap()]).unwrap().get(name).is_ok());
    }
    assert!(
        file(&directory.path().join("none.toml"), Trust::User).unwrap_err().to_string().contains("none.toml")
    );
}
