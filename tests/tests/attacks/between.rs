//! Between runs and clients: two runs of one owner, of two owners, of two policies have no channel that no policy gives. What
//! parked workers might carry from run to run is tried in `tests/tests/warm/channels.rs`.

use std::time::Duration;

use stockade_tests::setting::{Started, marker};
use stockade_tests::{Ground, Mode, Setting, not_tested, wait_until};

/// A run that goes on until it's killed, and holds everything that another could reach it by.
struct Neighbour {
    started: Option<Started>,
}

impl Neighbour {
    /// Starts one, and waits until it holds it all. `name`: what everything is called; `up`: the file that says so.
    fn start(setting: &Setting, policy: &str, name: &str, key: u32) -> Self {
        let code = format!(
            "my $n = '{name}'; $s = shmget({key}, 4096, 0666|01000) // -1; $e = semget({key}, 1, 0666|01000) // -1; \
             $q = msgget({key}, 0666|01000) // -1; \
             use Socket; socket(A, PF_UNIX, SOCK_STREAM, 0); bind(A, pack('Sa*', 1, \"\\0$n\")); listen(A, 5); \
             open S, '>', \"/dev/shm/$n\"; print S 'x'; close S; open T, '>', \"/tmp/$n\"; close T; \
             open U, '>', \"{name}.up\"; print U \"$$\\n\"; close U; sleep 1 while 1"
        );
        let started = setting.run(policy).words(["perl", "-e", &code]).start();
        let up = setting.ground.work().join(format!("{name}.up"));
        assert!(wait_until(Duration::from_secs(20), || up.exists()), "the neighbour never came up");
        Self { started: Some(started) }
    }
}

impl Drop for Neighbour {
    fn drop(&mut self) {
        if let Some(mut started) = self.started.take() {
            let _ = started.child.kill();
            let _ = started.child.wait();
        }
    }
}

/// What a run tries on a neighbour.
fn tries(name: &str, key: u32) -> Vec<String> {
    vec![
        format!("shared-memory {key}"),
        format!("semaphores {key}"),
        format!("message-queue {key}"),
        format!("connect-abstract {name}"),
        format!("read /dev/shm/{name}"),
        format!("stat /dev/shm/{name}"),
        format!("read /tmp/{name}"),
        format!("stat /tmp/{name}"),
    ]
}

/// That nothing of the name is there: no entry, or nobody who listens.
const NOTHING: [&str; 3] = ["errno=2", "errno=111", "errno=1"];

/// The tries as a file for the probe.
fn list(tries: &[String]) -> String {
    tries.iter().enumerate().map(|(at, words)| format!("{at}\t{}\n", words.replace(' ', "\t"))).collect()
}

fn expect_apart(one: &Setting, policy: &str, other: &Setting, other_policy: &str) {
    static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(1);
    let name = marker("neighbour");
    let key = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed) << 20 | (std::process::id() & 0xf_ffff);
    let _neighbour = Neighbour::start(one, policy, &name, key);
    let tried = tries(&name, key);
    let probe = stockade_tests::setting::text_of(&other.ground.put_probe());
    let file = stockade_tests::setting::text_of(&other.ground.put("tries", list(&tried)));
    let ended = other.run(other_policy).words([probe.as_str(), "tries", &file]).finish();
    let answers = crate::tries::answers(&ended.text());
    for (at, words) in tried.iter().enumerate() {
        let answer = answers.get(&at.to_string()).map_or("none", String::as_str);
        assert!(
            NOTHING.contains(&answer),
            "{policy} and {other_policy}: {words}: {answer}: {}",
            ended.story()
        );
    }
}

#[test]
fn two_runs_of_one_owner_have_no_channel_between_them() {
    for setting in Setting::each() {
        for policy in ["default", "moderate"] {
            expect_apart(&setting, policy, &setting, policy);
        }
    }
}

#[test]
fn two_runs_under_two_policies_have_no_channel_between_them() {
    for setting in Setting::each() {
        expect_apart(&setting, "default", &setting, "strict");
        expect_apart(&setting, "default", &setting, "moderate");
    }
}

#[test]
fn two_runs_of_two_owners_have_no_channel_between_them() {
    if !Mode::here().contains(&Mode::RootDaemonForRoot) {
        not_tested("runs of two owners", "one daemon has two owners only as root's");
        return;
    }
    let one = Setting::new(Mode::RootDaemonForRoot);
    let other = Setting {
        mode: Mode::RootDaemonForUser,
        ground: Ground::new(Mode::RootDaemonForUser.client()),
        ..Setting::new(Mode::RootDaemonForUser)
    };
    for (one, other) in [(&one, &other), (&other, &one)] {
        for policy in ["default", "moderate"] {
            expect_apart(one, policy, other, policy);
        }
    }
}

/// The same on one side of the wall: the tries find what is there.
#[test]
fn what_runs_try_on_each_other_is_found_within_one_run() {
    for setting in Setting::each() {
        let name = marker("neighbour");
        let key = 0x5354_0000 | (std::process::id() & 0xffff);
        let tried = tries(&name, key);
        let probe = stockade_tests::setting::text_of(&setting.ground.put_probe());
        let file = stockade_tests::setting::text_of(&setting.ground.put("tries", list(&tried)));
        let line = format!(
            "perl -e '$s = shmget({key}, 4096, 0666|01000); $e = semget({key}, 1, 0666|01000); $q = msgget({key}, 0666|01000); \
             my $n = q({name}); use Socket; socket(A, PF_UNIX, SOCK_STREAM, 0); \
             bind(A, pack(q(Sa*), 1, \"\\0$n\")); listen(A, 5); for (qw(/dev/shm /tmp)) {{ open S, q(>), \"$_/$n\"; print S 1; close S }} \
             system(q({probe}), q(tries), q({file}))'"
        );
        let ended = setting.bash("default", &line);
        let answers = crate::tries::answers(&ended.text());
        for (at, words) in tried.iter().enumerate() {
            let answer = answers.get(&at.to_string()).map_or("none", String::as_str);
            let found = answer == "ok" || answer.starts_with("errno=") && !NOTHING.contains(&answer);
            assert!(found, "{words}: {answer}: {}", ended.story());
        }
    }
}

/// No two runs of root's daemon have a user in common, at the levels with namespaces; nor do keys pass.
#[test]
fn two_live_runs_of_roots_daemon_have_two_users() {
    if !Mode::here().contains(&Mode::RootDaemonForUser) {
        not_tested("users of runs", "only root's daemon has users to give");
        return;
    }
    use std::os::unix::fs::MetadataExt as _;
    let setting = Setting::new(Mode::RootDaemonForUser);
    let words = [marker("one"), marker("two")];
    let runs: Vec<Started> = words
        .iter()
        .map(|word| setting.run("default").words(["bash", "-c", "exec -a \"$0\" sleep 1000", word]).start())
        .collect();
    let uid_of = |word: &String| {
        let is_tool = |process: &stockade_tests::left::Process| process.command.starts_with(word.as_str());
        let found = stockade_tests::left::with_word(word).into_iter().find(is_tool)?;
        Some(std::fs::metadata(format!("/proc/{}", found.pid)).ok()?.uid())
    };
    let mut uids = [None, None];
    let up = wait_until(Duration::from_secs(20), || {
        uids = [uid_of(&words[0]), uid_of(&words[1])];
        uids.iter().all(Option::is_some)
    });
    for mut run in runs {
        let _ = run.child.kill();
        let _ = run.child.wait();
    }
    assert!(up, "the runs never came up: {uids:?}");
    assert_ne!(uids[0], uids[1]);
    assert!(uids.iter().flatten().all(|uid| *uid >= 100_000), "{uids:?}");
}
