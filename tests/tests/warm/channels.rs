//! What a run could leave for the next: each channel works within one run, and the next finds it empty, beside the
//! first and after it, its own owner's and another's.

use std::collections::BTreeSet;

use stockade_tests::setting::{Started, marker};
use stockade_tests::{Person, Run, left, not_tested, wait_until};

use crate::stage::{PATIENCE, Warm, expect_gone};

/// One way to leave something.
struct Channel {
    policy: &'static str,
    /// What the first run's bash is started by.
    before: &'static [&'static str],
    /// How it's left, in bash.
    leave: &'static str,
    /// How it's looked for.
    look: &'static str,
    /// What is seen in the run that left it.
    found: &'static str,
    /// What every other run has to see.
    fresh: &'static str,
}

const PLAIN: Channel =
    Channel { policy: "default", before: &[], leave: "", look: "", found: "there", fresh: "none" };

impl Channel {
    fn lookup<'a>(&self, warm: &'a Warm) -> Run<'a> {
        warm.line(self.policy, self.look)
    }

    /// The run that leaves it, looks itself, and lives until it's told to end.
    fn leaver(&self, warm: &Warm) -> Started {
        let body = format!(
            "{}\n{}\n: > \"$OLDPWD/left\"; while [ ! -e \"$OLDPWD/go\" ]; do sleep 0.02; done",
            self.leave, self.look
        );
        // Wherever the line goes, the workspace is where it came from.
        let line = format!("OLDPWD=$PWD\n{body}");
        let words = self.before.iter().copied().chain(["bash", "-c", line.as_str()]);
        warm.start_hit(warm.setting.run(self.policy).words(words))
    }
}

/// Tries a channel in every mode: both owners of a daemon look, while the first run lives, with a spare that was made
/// meanwhile, and with one that was made after its end.
fn expect_private(channel: &Channel) {
    for warm in Warm::each() {
        let other = warm.other_owner();
        let lookers: Vec<&Warm> = std::iter::once(&warm).chain(&other).collect();
        for looker in &lookers {
            looker.heat(channel.policy);
        }
        let look = |when: &str| {
            for looker in &lookers {
                // Each of the two is made when the one before it is taken.
                for _ in 0..2 {
                    let ended = looker.hit(channel.lookup(looker));
                    assert_eq!(ended.text(), channel.fresh, "{when}: {}", ended.story());
                }
            }
        };
        let mut leaver = channel.leaver(&warm);
        let left = warm.ground().work().join("left");
        let is_left = || left.exists() || leaver.child.try_wait().unwrap().is_some();
        assert!(wait_until(PATIENCE, is_left), "nothing was left");
        look("beside it");
        warm.ground().put("go", "");
        leaver.finish().expect_code(0).expect_text(channel.found);
        look("after it");
    }
}

fn expect_private_file(directory: &str) {
    let leave = format!("echo there > {directory}/mark");
    let look = format!("cat {directory}/mark 2>/dev/null || echo none");
    expect_private(&Channel { leave: leave.leak(), look: look.leak(), ..PLAIN });
}

#[test]
fn files_in_tmp_are_not_there_in_the_next_run() {
    expect_private_file("/tmp");
}

#[test]
fn files_in_var_tmp_are_not_there_in_the_next_run() {
    expect_private_file("/var/tmp");
}

#[test]
fn files_in_dev_shm_are_not_there_in_the_next_run() {
    expect_private_file("/dev/shm");
}

#[test]
fn files_in_the_hidden_home_are_not_there_in_the_next_run() {
    expect_private_file("$HOME");
}

/// Whether system calls can be tried by number.
fn knows_numbers() -> bool {
    let known = cfg!(target_arch = "x86_64");
    if !known {
        not_tested("channels by system call number", "the tests have the numbers of x86-64");
    }
    known
}

#[test]
fn posix_message_queue_can_neither_be_made_nor_found_in_the_next_run() {
    if knows_numbers() {
        expect_private(&Channel {
            // Landlock lets nobody open one, but it was made before that is asked; now the filter asks first. That they can be
            // made without it is tried among the attacks.
            leave: "perl -e 'for (1..3) { my $n = \"mark$_\"; syscall(240, $n, 66, 0600, 0) }'",
            look: "perl -e 'for (1..3) { my $n = \"mark$_\"; syscall(241, $n) < 0 or exit print \"there\" } print \"none\"'",
            found: "none",
            ..PLAIN
        });
    }
}

#[test]
fn system_v_shared_memory_is_not_there_in_the_next_run() {
    expect_private(&Channel {
        leave: "perl -e 'defined shmget(4711, 4096, 01600) or print \"refused\"'",
        look: "perl -e 'print defined shmget(4711, 4096, 0) ? \"there\" : \"none\"'",
        ..PLAIN
    });
}

#[test]
fn system_v_semaphores_are_not_there_in_the_next_run() {
    expect_private(&Channel {
        leave: "perl -e 'defined semget(4711, 1, 01600) or print \"refused\"'",
        look: "perl -e 'print defined semget(4711, 1, 0) ? \"there\" : \"none\"'",
        ..PLAIN
    });
}

#[test]
fn system_v_message_queue_is_not_there_in_the_next_run() {
    expect_private(&Channel {
        leave: "perl -e 'defined msgget(4711, 01600) or print \"refused\"'",
        look: "perl -e 'print defined msgget(4711, 0) ? \"there\" : \"none\"'",
        ..PLAIN
    });
}

/// No filter lets a run use a keyring, so there is nothing to leave: its twin outside is among the attacks.
#[test]
fn keyrings_are_refused_to_warm_runs_and_their_lists_are_empty() {
    if !knows_numbers() {
        return;
    }
    let line = "perl -e 'my ($t, $n, $v) = (\"user\", \"mark\", \"there\"); \
                print syscall(248, $t, $n, $v, 5, -3) < 0 ? \"refused\" : \"made\"; \
                print syscall(250, 0, -3, 0) < 0 ? \" refused\" : \" found\"'; cat /proc/keys /proc/key-users 2>/dev/null; true";
    for warm in Warm::each() {
        warm.heat("default");
        warm.hit(warm.line("default", line)).expect_code(0).expect_text("refused refused");
    }
}

#[test]
fn abstract_socket_is_not_there_in_the_next_run() {
    expect_private(&Channel {
        leave: "perl -MSocket -e 'socket(S, AF_UNIX, SOCK_STREAM, 0) && bind(S, pack_sockaddr_un(\"\\0mark\")) \
                && listen(S, 9) or exit 1; open F, \">\", \"bound\"; close F; sleep 1000' >/dev/null 2>&1 & \
                while [ ! -e bound ]; do sleep 0.02; done",
        look: "perl -MSocket -e 'socket(S, AF_UNIX, SOCK_STREAM, 0); \
               print connect(S, pack_sockaddr_un(\"\\0mark\")) ? \"there\" : \"none\"'",
        ..PLAIN
    });
}

#[test]
fn loopback_port_is_not_there_in_the_next_run() {
    expect_private(&Channel {
        policy: "loopback",
        leave: "perl -MSocket -e 'socket(S, AF_INET, SOCK_STREAM, 0) \
                && bind(S, pack_sockaddr_in(47999, INADDR_LOOPBACK)) && listen(S, 9) or exit 1; \
                open F, \">\", \"bound\"; close F; sleep 1000' >/dev/null 2>&1 & \
                while [ ! -e bound ]; do sleep 0.02; done",
        look: "(exec 3<>/dev/tcp/127.0.0.1/47999) 2>/dev/null && echo there || echo none",
        ..PLAIN
    });
}

#[test]
fn traffic_of_loopback_is_not_counted_in_the_next_run() {
    expect_private(&Channel {
        policy: "loopback",
        leave: "(exec 3<>/dev/tcp/127.0.0.1/9) 2>/dev/null",
        look: "awk '/lo:/ { print ($3 == 0 ? \"none\" : \"there\") }' /proc/net/dev",
        ..PLAIN
    });
}

#[test]
fn processes_are_not_seen_by_the_next_run() {
    // Neither line's own text is what is looked for.
    expect_private(&Channel {
        leave: "(exec -a mark-${nothing}sleeper sleep 1000) >/dev/null 2>&1 & sleep 0.1",
        look: "cat /proc/[0-9]*/cmdline | tr '\\0' ' ' | grep -q 'mark-[s]leeper' && echo there || echo none",
        ..PLAIN
    });
}

#[test]
fn number_of_processes_is_the_same_in_every_run() {
    expect_private(&Channel {
        leave: "for i in 1 2 3 4 5; do sleep 1000 >/dev/null 2>&1 & done",
        look: "set -- /proc/[0-9]*; echo $#",
        found: "7",
        fresh: "2",
        ..PLAIN
    });
}

#[test]
fn open_descriptors_are_not_those_of_the_run_before() {
    expect_private(&Channel {
        leave: "exec 7</etc/passwd 9</dev/null",
        look: "set -- $(ls /proc/self/fd); echo $*",
        found: "0 1 2 3 7 9",
        fresh: "0 1 2 3",
        ..PLAIN
    });
}

#[test]
fn umask_is_not_that_of_the_run_before() {
    expect_private(&Channel { leave: "umask 0000", look: "umask", found: "0000", fresh: "0022", ..PLAIN });
}

#[test]
fn resource_limits_are_not_those_of_the_run_before() {
    expect_private(&Channel {
        leave: "ulimit -n 100; ulimit -s 1024; ulimit -f 77",
        look: "echo $(ulimit -n; ulimit -s; ulimit -f)",
        found: "100 1024 77",
        fresh: "1024 8192 1048576",
        ..PLAIN
    });
}

#[test]
fn nice_value_is_not_that_of_the_run_before() {
    expect_private(&Channel { before: &["nice", "-n", "7"], look: "nice", found: "7", fresh: "0", ..PLAIN });
}

#[test]
fn ignored_signals_are_not_those_of_the_run_before() {
    expect_private(&Channel {
        leave: "trap '' USR1 PIPE TERM",
        look: "perl -e 'print join q( ), grep { ($SIG{$_} // q()) eq q(IGNORE) } qw(HUP INT USR1 PIPE TERM)'",
        found: "USR1 PIPE TERM",
        fresh: "",
        ..PLAIN
    });
}

#[test]
fn working_directory_is_not_that_of_the_run_before() {
    expect_private(&Channel {
        leave: "mkdir deep; work=$PWD; cd deep; OLDPWD=$work",
        look: "basename \"$PWD\"",
        found: "deep",
        fresh: "work",
        ..PLAIN
    });
}

#[test]
fn variables_of_one_run_are_not_in_the_environment_of_the_next() {
    for warm in Warm::each() {
        let other = warm.other_owner();
        let lookers: Vec<&Warm> = std::iter::once(&warm).chain(&other).collect();
        for looker in &lookers {
            looker.heat("default");
        }
        let look = "export THERE; cat /proc/[0-9]*/environ 2>/dev/null | tr '\\0' '\\n' | grep -c '^LC_MARK=[t]here'";
        let set = warm.line("default", look).variable("LC_MARK", "there");
        let ended = warm.hit(set);
        assert_ne!(ended.text(), "0", "{}", ended.story());
        for looker in lookers.iter().chain(&lookers) {
            looker.hit(looker.line("default", look)).expect_text("0");
        }
    }
}

#[test]
fn host_name_is_the_same_in_every_run_and_cannot_be_changed() {
    let look = "perl -e 'my $n = \"mark\"; print syscall(170, $n, 4) < 0 ? \"refused \" : \"changed \"'; \
                cat /proc/sys/kernel/hostname";
    if !knows_numbers() {
        return;
    }
    for warm in Warm::each() {
        let cold = warm.finish(warm.line("default", look));
        assert!(cold.text().starts_with("refused "), "{}", cold.story());
        for _ in 0..2 {
            warm.hit(warm.line("default", look)).expect_text(&cold.text());
        }
    }
}

#[test]
fn mounts_of_a_warm_run_are_those_of_a_cold_one() {
    // Without numbers: those of mounts and of memory's devices are new for each.
    let look = "awk '{ $1 = $2 = \"\"; sub(/^0:[0-9]+$/, \"\", $3); print }' /proc/self/mountinfo | \
                sed -E 's/[ug]id=[0-9]+//g' | sort";
    for warm in Warm::each() {
        let cold = warm.finish(warm.line("default", look));
        assert!(cold.text().lines().count() > 10, "{}", cold.story());
        for _ in 0..2 {
            warm.hit(warm.line("default", look)).expect_text(&cold.text());
        }
    }
}

#[test]
fn process_that_left_its_session_is_gone_before_the_next_run_and_writes_nothing_more() {
    const DAEMON: &str = "exit 0 if fork; POSIX::setsid(); exit 0 if fork; \
                          open STDIN, \"</dev/null\"; open STDOUT, \">/dev/null\"; open STDERR, \">/dev/null\"; \
                          while (1) { open F, \">>\", \"ticks\"; print F \"x\"; close F; select undef, undef, undef, 0.01 }";
    for warm in Warm::each() {
        let word = marker("left");
        warm.heat("default");
        let line = format!(
            "perl -MPOSIX -e '{DAEMON}' {word}; setsid sleep 1000.{} >/dev/null 2>&1 & \
             while [ ! -s ticks ]; do sleep 0.02; done; echo ticking",
            std::process::id()
        );
        warm.hit(warm.line("default", &line)).expect_code(0).expect_text("ticking");
        // The tool's end is told when everything it left has ended.
        let ticks = || std::fs::metadata(warm.ground().work().join("ticks")).unwrap().len();
        let before = ticks();
        let look = "set -- /proc/[0-9]*; echo $#; sleep 0.1";
        warm.hit(warm.line("default", look)).expect_text("2");
        assert_eq!(ticks(), before);
        assert_eq!(left::with_word(&word), []);
    }
}

#[test]
fn signal_to_everything_reaches_neither_another_run_nor_a_spare() {
    for warm in Warm::each() {
        warm.heat("default");
        let line = "echo alive; : > left; while [ ! -e go ]; do sleep 0.02; done; echo still";
        let first = warm.start_hit(warm.line("default", line));
        assert!(wait_until(PATIENCE, || warm.ground().work().join("left").exists()));
        let second = warm.start_hit(warm.line(
            "default",
            ": > second; while [ ! -e kill ]; do sleep 0.02; done; kill -9 -1 1; echo shot",
        ));
        assert!(wait_until(PATIENCE, || warm.ground().work().join("second").exists()));
        assert!(wait_until(PATIENCE, || !warm.spares().is_empty()));
        let spares = warm.spares();
        warm.ground().put("kill", "");
        second.finish().expect_code(0).expect_text("shot");
        assert_eq!(left::alive(&spares).len(), spares.len());
        warm.hit(warm.line("default", "echo next")).expect_text("next");
        warm.ground().put("go", "");
        first.finish().expect_code(0).expect_text("alive\nstill");
    }
}

#[test]
fn two_warm_runs_at_once_share_no_namespace_and_no_uid() {
    const KINDS: [&str; 5] = ["net", "pid", "mnt", "ipc", "uts"];
    for warm in Warm::each() {
        warm.heat("default");
        let word = marker("at-once");
        let line = format!(
            "for kind in {}; do readlink /proc/self/ns/$kind; done; while [ ! -e go ]; do sleep 0.02; done; : {word}",
            KINDS.join(" ")
        );
        let started = [0, 1].map(|_| warm.start_hit(warm.line("default", &line)));
        // The tool, not the client, which has the same words.
        let tools = || {
            let launcher = warm.launcher();
            let below: BTreeSet<u32> = left::tree(launcher).iter().map(|process| process.pid).collect();
            left::with_word(&word).into_iter().filter(|tool| below.contains(&tool.pid)).collect::<Vec<_>>()
        };
        assert!(wait_until(PATIENCE, || tools().len() == 2), "{:?}", tools());
        let uids: BTreeSet<u32> = tools().iter().map(|tool| uid_of(tool.pid)).collect();
        let own = if warm.setting.mode.is_system() { 2 } else { 1 };
        assert_eq!(uids.len(), own, "{:?}: {uids:?}", warm.setting.mode);
        assert!(!uids.contains(&0));
        warm.ground().put("go", "");
        let [one, other] = started.map(Started::finish);
        let (one, other) = (one.expect_code(0).text(), other.expect_code(0).text());
        assert_eq!(one.lines().count(), KINDS.len(), "{one}");
        for (one, other) in one.lines().zip(other.lines()) {
            assert_ne!(one, other, "{:?}", warm.setting.mode);
        }
    }
}

fn uid_of(pid: u32) -> u32 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let uid = status.lines().find_map(|line| line.strip_prefix("Uid:")).unwrap();
    uid.split_whitespace().next().unwrap().parse().unwrap()
}

#[test]
fn worker_is_used_once_and_is_gone_when_its_run_has_ended() {
    for warm in Warm::each() {
        warm.heat("default");
        let mut used: Vec<left::Process> = Vec::new();
        for _ in 0..3 {
            assert!(wait_until(PATIENCE, || !warm.spares().is_empty()));
            let spares = warm.spares();
            assert!(spares.iter().all(|spare| !used.contains(spare)), "{spares:?} {used:?}");
            used.extend(spares);
            warm.hit(warm.line("default", "true")).expect_code(0);
        }
        let spares = warm.spares();
        used.retain(|worker| !spares.contains(worker));
        expect_gone(&used);
    }
    if !Person::me().is_root() {
        not_tested("uids of warm runs", "runs have uids of their own in root's daemon only");
    }
}
