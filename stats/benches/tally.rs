//! What counting costs the daemon's loop, and what writing costs the thread, beside hashing the same names once.
//!
//! `cargo bench -p stockade-stats`. Figures are of one run each and of this machine; ratios are what to compare.
#![allow(clippy::print_stdout, clippy::cast_precision_loss, reason = "a benchmark prints ratios")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a benchmark may end")]

use std::hash::{BuildHasher as _, RandomState};
use std::hint::black_box;
use std::sync::mpsc::channel;
use std::time::Instant;

use stockade_stats::{Ending, Question, Settings, Stage, Tally, Who, open};

const NOW: u64 = 1_900_000_000;
const TIMES: u32 = 200_000;

/// Nanoseconds a time, the least of five rounds.
fn measured(mut what: impl FnMut(u32)) -> u64 {
    let round = |what: &mut dyn FnMut(u32)| {
        let began = Instant::now();
        (0..TIMES).for_each(&mut *what);
        u64::try_from(began.elapsed().as_nanos() / u128::from(TIMES)).unwrap()
    };
    (0..5).map(|_| round(&mut what)).min().unwrap()
}

fn main() {
    let tools: Vec<String> = (0..1_000).map(|number| format!("tool-{number}")).collect();
    let hashes = RandomState::new();
    let hashing = measured(|at| {
        let tool = &tools[(at % 1_000) as usize];
        black_box((hashes.hash_one(tool), hashes.hash_one("default"), hashes.hash_one("1000")));
    });
    println!("three names hashed: {hashing} ns");
    for many in [1, 1_000] {
        let mut tally = Tally::default();
        let who = |at: u32| Who {
            tool: Some(&tools[(at % many) as usize]),
            policy: Some("default"),
            uid: at.wrapping_mul(7) % many,
        };
        let end = measured(|at| {
            let run = u128::from(at).to_be_bytes();
            let used = Some((u64::from(at % 5_000) + 500, 1 << 22));
            tally.end(NOW, run, who(at), Ending::Ok, used);
            tally.forget(run);
        });
        let deny = measured(|at| tally.deny(NOW, who(at), Stage::Rate));
        println!(
            "{many} tools, {many} users: an end {end} ns ({:.1} of hashing), a denial {deny} ns ({:.1})",
            end as f64 / hashing as f64,
            deny as f64 / hashing as f64
        );
        let directory = tempfile::tempdir().unwrap();
        let (writer, _) = open(Settings::new(directory.path(), 168, 366), Box::new(|_| {})).unwrap();
        for round in ["made", "added to"] {
            let began = Instant::now();
            writer.write(tally.clone());
            let (sender, receiver) = channel();
            assert!(writer.ask(Question::default(), move |report| sender.send(report).unwrap()));
            let rows = receiver.recv().unwrap().rows.len();
            let path = directory.path().join("statistics.db-wal");
            let bytes = std::fs::metadata(path).unwrap().len();
            println!("  {rows} rows {round} and read: {:?}, {} KiB", began.elapsed(), bytes / 1024);
        }
        writer.close();
    }
}
