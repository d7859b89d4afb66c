//! Every target with every file of its corpus, and with everything that has broken it once. No engine, any toolchain.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::collections::BTreeSet;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};

use stockade_fuzz::TARGETS;

/// Bytes of all corpora together: they are cloned by everybody.
const MOST: u64 = 1024 * 1024;

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

/// One test, since what is held in memory is counted for the whole process.
#[test]
fn no_input_of_the_corpora_and_no_past_crash_breaks_a_promise() {
    let mut broken = Vec::new();
    let mut tried = 0;
    for target in TARGETS {
        for kept in ["corpus", "crashes"] {
            for file in files(&folder(kept).join(target.name)) {
                let data = std::fs::read(&file).unwrap();
                // The next ones are tried, too: what broke says so on standard error.
                if catch_unwind(|| (target.run)(&data)).is_err() {
                    broken.push(file);
                }
                tried += 1;
            }
        }
    }
    assert!(broken.is_empty(), "of {tried} inputs these break {broken:#?}");
    // Nor does any of them without a single byte.
    TARGETS.iter().for_each(|target| (target.run)(&[]));
    corpora_are_those_of_the_targets_and_small();
}

fn corpora_are_those_of_the_targets_and_small() {
    let targets: BTreeSet<&str> = TARGETS.iter().map(|target| target.name).collect();
    let mut bytes = 0;
    for kept in ["corpus", "crashes"] {
        let folders = files(&folder(kept));
        let names: BTreeSet<&str> =
            folders.iter().map(|folder| folder.file_name().unwrap().to_str().unwrap()).collect();
        let strangers: Vec<_> = names.difference(&targets).collect();
        assert!(strangers.is_empty(), "{kept}: {strangers:?} are no targets");
        assert!(kept == "crashes" || names == targets, "not every target has a corpus");
        for folder in &folders {
            let files = files(folder);
            assert!(files.len() > 9 || kept == "crashes", "{} has hardly anything in it", folder.display());
            bytes += files.iter().map(|file| std::fs::metadata(file).unwrap().len()).sum::<u64>();
        }
    }
    assert!(bytes <= MOST, "the corpora have {bytes} bytes; minimise them (docs/testing.md)");
}
