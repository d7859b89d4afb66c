//! What workers of one template share of their roots, as root's daemon makes them: names, and nothing that can be written.

use std::collections::BTreeSet;
use std::path::PathBuf;

use stockade_tests::setting::Started;
use stockade_tests::{Mode, not_tested, wait_until};

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

/// The filesystems in memory of a run's mount table, by device numbers.
#[derive(Debug, Default)]
struct InMemory {
    sealed: BTreeSet<String>,
    writable: BTreeSet<String>,
}

impl InMemory {
    fn of(mountinfo: &str) -> Self {
        let mut found = Self::default();
        for line in mountinfo.lines() {
            let (mount, filesystem) = line.split_once(" - ").unwrap();
            let fields: Vec<&str> = mount.split(' ').collect();
            let is_writable = fields[5].split(',').any(|option| option == "rw");
            // Of the host's, which are bound, it's something deeper than the top.
            if filesystem.starts_with("tmpfs ") && fields[3] == "/" {
                let devices = if is_writable { &mut found.writable } else { &mut found.sealed };
                devices.insert(fields[2].to_owned());
            }
        }
        found
    }

    fn all(&self) -> BTreeSet<String> {
        self.sealed.union(&self.writable).cloned().collect()
    }
}

#[test]
fn runs_share_no_filesystem_in_memory_that_can_be_written() {
    /// So many live at once, that two of them stand on one foundation though a busy machine lets it grow old.
    const MANY: usize = 8;
    for warm in each() {
        let at = |number: usize| warm.ground().work().join(format!("mounts-{number}"));
        let begin = |number: usize| {
            let line = format!(
                "cat /proc/self/mountinfo > new; mv new mounts-{number}; while [ ! -e go ]; do sleep 0.02; done"
            );
            let started = warm.start(warm.line("default", &line));
            assert!(wait_until(PATIENCE, || at(number).exists()));
            started
        };
        let started: Vec<Started> = (0..MANY).map(begin).collect();
        let found: Vec<InMemory> =
            (0..MANY).map(|number| InMemory::of(&std::fs::read_to_string(at(number)).unwrap())).collect();
        warm.ground().put("go", "");
        for run in started {
            run.finish().expect_code(0);
        }
        let mut shared = 0;
        for (number, one) in found.iter().enumerate() {
            assert!(one.writable.len() >= 3, "{one:?}");
            for other in found.iter().skip(number + 1) {
                assert!(one.writable.is_disjoint(&other.all()), "{one:?} {other:?}");
                assert!(other.writable.is_disjoint(&one.all()), "{one:?} {other:?}");
                shared += usize::from(!one.sealed.is_disjoint(&other.sealed));
            }
        }
        assert!(shared > 0, "no two were to share what can't be written: {found:?}");
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
