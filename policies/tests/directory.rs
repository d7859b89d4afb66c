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

use stockade_policies::directory::{all, file};
use stockade_policies::files::Refusal;
use stockade_policies::{PolicySet, Trust};

fn load(directory: &Path) -> Result<PolicySet, String> {
    PolicySet::load(&[(directory.to_owned(), Trust::Operator)], &|_, _| Ok(()))
        .map_err(|error| error.to_string())
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

#[test]
fn everything_that_is_wrong_is_told_and_a_file_that_is_refused_gives_no_set() {
    let directory = tempfile::tempdir().unwrap();
    let put = |name: &str, text: &str| fs::write(directory.path().join(name), text).unwrap();
    put("a.toml", "levle = 1");
    put("b.toml", "[");
    put("c.toml", "extends = \"default\"");
    let directories = [(directory.path().to_owned(), Trust::User)];
    let refuse = |path: &Path, _: &fs::Metadata| match path.ends_with("c.toml") {
        true => Err(Refusal::new("not his", "chown it")),
        false => Ok(()),
    };
    let (sources, wrong) = all(&directories, &refuse);
    assert!(sources.len() == 2 && wrong.len() == 1);
    assert!(wrong[0].to_string().ends_with("/c.toml: not his; chown it") && wrong[0].remedy() == "chown it");
    let wrong: Vec<_> = PolicySet::mistakes(sources).iter().map(ToString::to_string).collect();
    assert!(
        wrong.len() == 2 && wrong[0].contains("/a.toml:1:1") && wrong[1].contains("/b.toml:1:"),
        "{wrong:?}"
    );
    put("a.toml", "");
    put("b.toml", "");
    assert!(PolicySet::load(&directories, &|_, _| Ok(())).is_ok());
    assert!(PolicySet::load(&directories, &refuse).is_err());
}
