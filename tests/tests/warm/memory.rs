//! What an owner's commands say is in no memory of another owner's processes.

use std::fs::File;
use std::os::unix::fs::FileExt as _;

use stockade_tests::left::Process;
use stockade_tests::setting::marker;
use stockade_tests::{Mode, Person, not_tested, wait_until};

use crate::stage::{PATIENCE, Warm};

/// Read at once.
const PIECE: usize = 1 << 20;

/// Whether a process's memory holds some bytes anywhere.
fn holds(process: &Process, wanted: &[u8]) -> bool {
    let maps = std::fs::read_to_string(format!("/proc/{}/maps", process.pid)).unwrap();
    let memory = File::open(format!("/proc/{}/mem", process.pid)).unwrap();
    let mut read = 0;
    let mut found = false;
    for line in maps.lines() {
        let mut fields = line.split_whitespace();
        let (Some(range), Some(access)) = (fields.next(), fields.next()) else { continue };
        // What the kernel lends to everybody can't be read this way.
        if !access.starts_with('r') || line.contains("[v") {
            continue;
        }
        let bound = |text: &str| u64::from_str_radix(text, 16).unwrap();
        let (from, to) = range.split_once('-').map(|(from, to)| (bound(from), bound(to))).unwrap();
        let bytes = region(&memory, from, to);
        read += bytes.len();
        found |= bytes.windows(wanted.len()).any(|window| window == wanted);
    }
    assert!(read > PIECE, "only {read} bytes of {process:?} could be read");
    found
}

fn region(memory: &File, from: u64, to: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut piece = vec![0; PIECE];
    let mut at = from;
    while at < to {
        let room = usize::try_from(to - at).unwrap().min(PIECE);
        let length =
            memory.read_at(&mut piece[..room], at).unwrap_or_else(|error| panic!("at {at:x}: {error}"));
        assert_ne!(length, 0, "at {at:x}");
        bytes.extend_from_slice(&piece[..length]);
        at += length as u64;
    }
    bytes
}

/// The template of a client among those of its daemon: it holds the workspace's path.
fn template_of(warm: &Warm) -> Process {
    let work = warm.ground().work();
    let mut all = warm.templates();
    all.retain(|template| holds(template, work.as_os_str().as_encoded_bytes()));
    assert_eq!(all.len(), 1, "{all:?}");
    all.remove(0)
}

/// A run that has a word in its environment, its arguments and its input, and lives until it's told to end.
fn start_with(warm: &Warm, word: &str) -> stockade_tests::setting::Started {
    let line = format!(
        "read -r said; : {word}; echo \"$said $LC_WORD\"; : > left; \
                        while [ ! -e go ]; do sleep 0.02; done"
    );
    let run = warm.line("default", &line).variable("LC_WORD", word).input(format!("{word}\n"));
    let started = warm.start_hit(run);
    assert!(wait_until(PATIENCE, || warm.ground().work().join("left").exists()));
    started
}

#[test]
fn word_of_one_owner_is_in_no_memory_of_anothers_template_or_spare() {
    if !Person::me().is_root() {
        return not_tested("memory of two owners", "only root's daemon serves two users");
    }
    for mode in [Mode::RootDaemonForUser, Mode::RootDaemonForRoot] {
        let first = Warm::new(mode);
        let other = first.other_owner().unwrap();
        // The other's template is there before the word is, and once more a fresh one after it.
        first.heat("default");
        other.heat("default");
        let word = marker("word");
        let started = start_with(&first, &word);
        other.hit(other.line("default", "true")).expect_code(0);
        other.heat("loopback");
        assert!(wait_until(PATIENCE, || other.spares().len() >= 2), "{:?}", other.spares());
        let launcher = stockade_tests::left::process(first.launcher()).unwrap();
        assert!(holds(&launcher, word.as_bytes()), "the word would be found nowhere");
        let (mine, theirs) = (first.ground().work(), other.ground().work());
        let (mine, theirs) = (mine.as_os_str().as_encoded_bytes(), theirs.as_os_str().as_encoded_bytes());
        let own = template_of(&first);
        let of_other: Vec<_> = other
            .templates()
            .into_iter()
            .filter(|template| template.pid != own.pid)
            .chain(other.spares())
            .collect();
        assert!(of_other.len() >= 4, "{of_other:?}");
        for process in &of_other {
            assert!(holds(process, theirs), "its own path isn't found in {process:?}");
            assert!(!holds(process, word.as_bytes()), "the word is in {process:?}");
            assert!(!holds(process, mine), "the path is in {process:?}");
        }
        first.ground().put("go", "");
        started.finish().expect_code(0).expect_text(&format!("{word} {word}"));
    }
}

#[test]
fn word_of_one_run_is_in_no_memory_of_its_own_template_or_of_the_next_spare() {
    if !Person::me().is_root() {
        return not_tested("memory of parked workers", "it takes root to read it");
    }
    for warm in Warm::each() {
        warm.heat("default");
        let word = marker("word");
        let started = start_with(&warm, &word);
        let worker = warm.named("stockade-init").into_iter().find(|worker| holds(worker, word.as_bytes()));
        assert!(worker.is_some(), "the word would be found nowhere");
        assert!(wait_until(PATIENCE, || !warm.spares().is_empty()));
        warm.ground().put("go", "");
        started.finish().expect_code(0).expect_text(&format!("{word} {word}"));
        warm.heat("default");
        for process in warm.templates().iter().chain(&warm.spares()) {
            assert!(!holds(process, word.as_bytes()), "the word is in {process:?}");
        }
    }
}
