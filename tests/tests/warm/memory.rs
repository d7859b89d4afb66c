//! What an owner's commands say is in no memory of another owner's processes.

use std::fs::File;
use std::os::unix::fs::FileExt as _;

use stockade_tests::left::Process;
use stockade_tests::setting::marker;
use stockade_tests::{Mode, Person, not_tested, wait_until};

use crate::stage::{PATIENCE, Warm};

/// Read at once.
const PIECE: usize = 1 << 20;

/// A process's memory as it was when it was read. Searching takes long, and a spare doesn't wait for ever.
struct Memory {
    of: Process,
    bytes: Vec<u8>,
}

impl Memory {
    /// All that a process could have written to.
    fn of(of: Process) -> Self {
        let maps = std::fs::read_to_string(format!("/proc/{}/maps", of.pid)).unwrap();
        let memory = File::open(format!("/proc/{}/mem", of.pid)).unwrap();
        let mut bytes = Vec::new();
        for line in maps.lines() {
            let mut fields = line.split_whitespace();
            let (Some(range), Some(access)) = (fields.next(), fields.next()) else { continue };
            if !access.starts_with("rw") {
                continue;
            }
            let bound = |text: &str| u64::from_str_radix(text, 16).unwrap();
            let (from, to) = range.split_once('-').map(|(from, to)| (bound(from), bound(to))).unwrap();
            bytes.extend(region(&memory, from, to));
        }
        Self { of, bytes }
    }

    fn holds(&self, wanted: &[u8]) -> bool {
        let mut rest = &self.bytes[..];
        while let Some(at) = rest.iter().position(|byte| *byte == wanted[0]) {
            rest = &rest[at..];
            if rest.starts_with(wanted) {
                return true;
            }
            rest = &rest[1..];
        }
        false
    }
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

fn memories(of: Vec<Process>) -> Vec<Memory> {
    of.into_iter().map(Memory::of).collect()
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
        let launcher = Memory::of(stockade_tests::left::process(first.launcher()).unwrap());
        let (templates, spares) = (memories(other.templates()), memories(other.spares()));
        let (mine, theirs) = (first.ground().work(), other.ground().work());
        let (mine, theirs) = (mine.as_os_str().as_encoded_bytes(), theirs.as_os_str().as_encoded_bytes());
        assert!(launcher.holds(word.as_bytes()), "the word would be found nowhere");
        // A template holds its workspace's path. Two are the other's, one a policy, and one is the first's.
        let (of_first, of_other): (Vec<_>, Vec<_>) =
            templates.into_iter().partition(|template| template.holds(mine));
        assert_eq!((of_first.len(), of_other.len()), (1, 2));
        for memory in of_other.iter().chain(&spares) {
            assert!(memory.holds(theirs), "its own path isn't found in {:?}", memory.of);
            assert!(!memory.holds(word.as_bytes()), "the word is in {:?}", memory.of);
            assert!(!memory.holds(mine), "the path is in {:?}", memory.of);
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
        let workers = memories(warm.named("stockade-init"));
        assert!(wait_until(PATIENCE, || !warm.spares().is_empty()));
        warm.ground().put("go", "");
        started.finish().expect_code(0).expect_text(&format!("{word} {word}"));
        warm.heat("default");
        let waiting = memories([warm.templates(), warm.spares()].concat());
        assert!(
            workers.iter().any(|worker| worker.holds(word.as_bytes())),
            "the word would be found nowhere"
        );
        assert!(waiting.len() >= 2);
        for memory in &waiting {
            let work = warm.ground().work();
            assert!(
                memory.holds(work.as_os_str().as_encoded_bytes()),
                "its own path isn't found in {:?}",
                memory.of
            );
            assert!(!memory.holds(word.as_bytes()), "the word is in {:?}", memory.of);
        }
    }
}
