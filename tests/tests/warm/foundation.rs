//! What workers of one template share of their roots, as root's daemon makes them: names, and nothing that can be written.

use std::collections::BTreeSet;
use std::path::PathBuf;

use stockade_tests::{Ended, Mode, not_tested, wait_until};

use crate::stage::{PATIENCE, Warm};

/// The daemons of root's: others' workers build their own roots.
fn each() -> impl Iterator<Item = Warm> {
    let (shared, others): (Vec<_>, Vec<_>) =
        Mode::daemons_here().into_iter().partition(|mode| mode.is_system());
    if shared.is_empty() {
        not_tested("shared foundations", &format!("no daemon of root's among {others:?}"));
    }
    shared.into_iter().map(Warm::new)
}

/// The filesystems in memory of a run's mount table (device numbers), by whether they can be written.
fn in_memory(ended: &Ended) -> [BTreeSet<String>; 2] {
    let mut devices = [BTreeSet::new(), BTreeSet::new()];
    for line in ended.expect_code(0).text().lines() {
        let (mount, filesystem) = line.split_once(" - ").unwrap();
        let fields: Vec<&str> = mount.split(' ').collect();
        let is_writable = fields[5].split(',').any(|option| option == "rw");
        // The host's are bound: of theirs something deeper than the top is mounted, or a node.
        if filesystem.starts_with("tmpfs ") && fields[3] == "/" {
            devices[usize::from(is_writable)].insert(fields[2].to_owned());
        }
    }
    devices
}

#[test]
fn runs_share_no_filesystem_in_memory_that_can_be_written() {
    for warm in each() {
        warm.heat("default");
        let begin = |number: usize| {
            let line =
                format!("cat /proc/self/mountinfo; : > at-{number}; while [ ! -e go ]; do sleep 0.02; done");
            let started = warm.start_hit(warm.line("default", &line));
            assert!(wait_until(PATIENCE, || warm.ground().work().join(format!("at-{number}")).exists()));
            started
        };
        let both = [0, 1].map(begin);
        warm.ground().put("go", "");
        let [one, other] = both.map(|started| in_memory(&started.finish()));
        assert!(one[1].len() >= 3 && other[1].len() == one[1].len(), "{one:?} {other:?}");
        let all = |of: &[BTreeSet<String>; 2]| of[0].union(&of[1]).cloned().collect::<BTreeSet<_>>();
        assert!(one[1].is_disjoint(&all(&other)) && other[1].is_disjoint(&all(&one)), "{one:?} {other:?}");
        assert!(
            !one[0].is_disjoint(&other[0]),
            "they were to share what can't be written: {one:?} {other:?}"
        );
    }
}

/// A folder of the host's outside of everything that a run has of its own, removed at the end.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}

#[test]
fn folder_that_comes_and_goes_is_there_or_not_and_spoils_no_run() {
    for warm in each() {
        let daemon = warm.daemon();
        let folder = Folder(PathBuf::from(format!("/run/stockade-test-{}", std::process::id())));
        let path = folder.0.display();
        let text = format!(
            "name = \"test-folder\"\ndescription = \"a folder\"\nextends = \"default\"\n[filesystem]\nread = [\"{path}\"]\n"
        );
        std::fs::write(daemon.ground.policies().join("test-folder.toml"), text).unwrap();
        daemon.ground.person.own_all(&daemon.ground.policies());
        daemon.signal(rustix::process::Signal::HUP);
        assert!(wait_until(PATIENCE, || daemon.log().contains("policies reloaded")), "{}", daemon.log());
        let line =
            format!("cat {path}/file 2>/dev/null || echo none; ls -d {path} 2>/dev/null || echo nothing");
        // No run fails, whatever its worker was made on.
        let look = || warm.finish(warm.line("test-folder", &line)).expect_code(0).text();
        let gone = "none\nnothing".to_owned();
        for _ in 0..4 {
            assert_eq!(look(), gone);
        }
        std::fs::create_dir(&folder.0).unwrap();
        std::fs::write(folder.0.join("file"), "there\n").unwrap();
        let there = format!("there\n{path}");
        assert!(wait_until(PATIENCE, || look() == there), "it isn't seen");
        for _ in 0..4 {
            look();
        }
        std::fs::remove_dir_all(&folder.0).unwrap();
        assert!(wait_until(PATIENCE, || look() == gone), "it's still seen");
    }
}
