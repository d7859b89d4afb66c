//! A supervisor that is killed over and over while runs write.

use std::time::Duration;

use stockade_protocol::outcome::Outcome;
use stockade_tests::wire::request;
use stockade_tests::{Daemon, Ground, Mode};

use crate::follower::Follower;

/// Kills, unless `STOCKADE_RESTARTS` says otherwise.
const KILLS: u32 = 20;
/// Runs that write meanwhile.
const RUNS: usize = 20;

/// A run that writes numbered lines until it's told to stop, by a file of its own.
fn writer(daemon: &Daemon, ground: &Ground, number: usize) -> Follower {
    let line = format!(
        "i=0; while [ ! -e stop ]; do i=$((i+1)); echo run {number} line $i; [ $((i % 20)) = 0 ] && sleep 0.01; done; \
         exit {number}"
    );
    let mut asked = request(ground, "test-long", &["bash", "-c", &line]);
    asked.request_id = number as u64 + 1;
    Follower::of(daemon, ground, asked)
}

#[test]
fn many_kills_lose_no_run_and_no_byte() {
    let kills = std::env::var("STOCKADE_RESTARTS").map_or(KILLS, |kills| kills.parse().unwrap());
    let mode = Mode::a_daemon();
    let ground = Ground::new(mode.client());
    let daemon_ground = Ground::new(mode.server());
    let policy = "name = \"test-long\"\ndescription = \"as long as it takes\"\nextends = \"default\"\n\
                  [limits]\nwall-time = \"3h\"\ncpu-time = \"3h\"\noutput = \"none\"\n";
    std::fs::write(daemon_ground.policies().join("test-long.toml"), policy).unwrap();
    daemon_ground.person.own_all(&daemon_ground.policies());
    let daemon = Daemon::start_at(daemon_ground, &[]);
    let mut runs: Vec<Follower> = (0..RUNS).map(|number| writer(&daemon, &ground, number)).collect();
    for kill in 0..kills {
        for run in &mut runs {
            let had = run.output.len();
            run.follow(|run| run.output.len() > had);
            assert!(run.end.is_none(), "a run has ended by itself after {kill} kills: {:?}", run.end);
        }
        daemon.kill();
        for run in &mut runs {
            run.follow(|_| false);
        }
        daemon.start_again(&[]);
        for run in &mut runs {
            run.come_back(&daemon);
        }
    }
    std::fs::write(ground.work().join("stop"), "").unwrap();
    let mut bytes = 0;
    for (number, run) in runs.iter_mut().enumerate() {
        let code = u8::try_from(number).unwrap();
        assert_eq!(run.follow_to_the_end().0, Outcome::Exited { code });
        let text = String::from_utf8(std::mem::take(&mut run.output)).unwrap();
        let mut lines = 0_usize;
        for (at, line) in text.lines().enumerate() {
            assert_eq!(line, format!("run {number} line {}", at + 1));
            lines += 1;
        }
        assert!(lines > 0 && text.ends_with('\n'));
        bytes += text.len();
        run.acknowledge();
        assert_eq!(run.last_words(Duration::from_millis(50)), None, "something follows the end");
    }
    println!("{kills} kills, {RUNS} runs, {bytes} bytes of output, each once");
}
