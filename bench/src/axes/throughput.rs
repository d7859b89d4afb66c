//! Runs a second with 1, 2, 8 and 64 in flight, whole bursts interleaved; and whether two clients are served alike.
//!
//! A burst of `/bin/true` goes on for a second, and only what ends in the later part of it counts: by then whatever was
//! prepared is used up (the sixty-four workers that may be parked last a fraction of the ramp), and what the runs leave
//! behind is being cleared away beside them. A variant keeps so many
//! in flight by as many threads, each with a connection of its own; `pipelined` by one connection. In `fair` two
//! clients ask for the same, with slots for all; in `fair, few slots` one asks for three times as much as the other,
//! for slots that neither could be content with.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use stockade_client::{Client, Request};

use super::Axis;
use crate::daemon::{DEFAULT, Daemon, FEW_SLOTS, MEASURED, RECORDED, RECORDED_ON_DISK, tool_name};
use crate::error::{BenchError, chain};
use crate::ours;
use crate::results::{Better, Results};
use crate::rounds::{Case, Entrants, Variant, interleave};
use crate::session::{Session, times};
use crate::shuffle::Shuffle;
use crate::spawn::{self, millis, timed};
use crate::stats;
use crate::variants::BARE;

pub(crate) const AXIS: Axis = Axis {
    name: "throughput",
    rounds: 7,
    round: Duration::from_millis(29_000),
    besides: Duration::from_secs(21),
    measure,
};
/// Between two bursts, so that what one leaves to be cleared away isn't the next one's.
const PAUSE: Duration = Duration::from_millis(100);
/// Of a burst, what doesn't count.
const RAMP: Duration = Duration::from_millis(400);
/// Of a burst, what counts.
const COUNTED: Duration = Duration::from_millis(600);
/// The same where what two clients got is compared: of few runs, chance alone would give one a tenth more.
const COUNTED_APART: Duration = Duration::from_millis(1_500);
/// In flight, with the name of the case and who takes part beside `bare`: with few in flight the levels differ as they do
/// in latency, and one connection for all differs from one for each only where there are many.
const IN_FLIGHT: [(u32, &str, &[&str]); 4] = [
    (1, "1 in flight", &["warm"]),
    (2, "2 in flight", &["warm"]),
    (8, "8 in flight", &["warm", "strict", "moderate", "minimal", PIPELINED]),
    (64, "64 in flight", &["warm", PIPELINED]),
];
/// The same where two medians are compared.
const COUNTED_RECORDED: Duration = Duration::from_millis(100);
/// Rounds of that, and of scrapes, to one of the others: they are short.
const SHORT_OF: u32 = 3;
/// Between two scrapes: more often than anybody's, and one in each burst.
const SCRAPE_EVERY: Duration = Duration::from_secs(1);
/// A daemon that tells metrics, and is asked for them or not.
const SCRAPED: &str = "scraped";
const UNSCRAPED: &str = "unscraped";
/// One scrape.
const SCRAPE: &str = "scrape";
/// Rounds of that, to one of the others.
const SCRAPES: u32 = 20;
/// Without a record, beside those that have one.
const UNRECORDED: &str = "unrecorded";
/// Over one connection.
const PIPELINED: &str = "pipelined";
/// The variants that show whether 64 in flight are served at the rate of 8.
const FEW: &str = "warm-8";
const MANY: &str = "warm-64";
/// Over the socket: name and policy.
const OVER_SOCKET: [(&str, &str); 4] =
    [("warm", "default"), ("strict", "strict"), ("moderate", "moderate"), ("minimal", "minimal")];

/// The part of a burst that counts.
#[derive(Debug, Clone, Copy)]
struct Window {
    from: Instant,
    to: Instant,
}

impl Window {
    /// Opens after a pause and the ramp.
    fn open(counted: Duration) -> Self {
        spawn::moment(PAUSE);
        let from = Instant::now() + RAMP;
        Self { from, to: from + counted }
    }

    fn is_over(self) -> bool {
        Instant::now() >= self.to
    }

    /// Whether what ends then counts.
    fn counts(self, at: Instant) -> bool {
        self.from <= at && at < self.to
    }

    /// What the ends of all workers come to.
    fn burst(self, ends: Vec<Vec<Instant>>) -> Burst {
        let mut ends: Vec<Instant> = ends.into_iter().flatten().filter(|end| self.counts(*end)).collect();
        ends.sort_unstable();
        let count = u32::try_from(ends.len()).unwrap_or(u32::MAX);
        let before = [self.from].into_iter().chain(ends.iter().copied());
        let after = ends.iter().copied().chain([self.to]);
        let pause = before.zip(after).map(|(before, after)| after - before).max().unwrap_or_default();
        Burst { rate: f64::from(count) / (self.to - self.from).as_secs_f64(), pause }
    }
}

/// What came of a burst.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Burst {
    /// Ends a second.
    rate: f64,
    /// The longest time without an end: a rate may be good though everything stood still for a while.
    pause: Duration,
}

/// The longest pause of all bursts of a variant.
#[derive(Debug, Default)]
struct Pauses(RefCell<BTreeMap<String, Duration>>);

impl Pauses {
    /// Keeps a burst's pause and gives its rate.
    fn keep(&self, variant: &str, burst: Burst) -> f64 {
        let mut all = self.0.borrow_mut();
        let longest = all.entry(variant.to_owned()).or_default();
        *longest = burst.pause.max(*longest);
        burst.rate
    }

    fn write(self, results: &mut Results, case: &str) {
        for (variant, pause) in self.0.into_inner() {
            results.number(case, &variant, "longest pause", millis(pause), "ms");
        }
    }
}

fn measure(session: &mut Session) -> Result<Results, BenchError> {
    let rounds = session.rounds(&AXIS);
    let (mut results, mut shuffle) = session.begin(&AXIS);
    results.about("counted of a burst", format!("{} ms after {} ms", COUNTED.as_millis(), RAMP.as_millis()));
    let daemon = Daemon::start(&session.ground, DEFAULT)?;
    recorded(session, &daemon, rounds, &mut results, &mut shuffle);
    scraped(session, rounds, &mut results, &mut shuffle)?;
    for (in_flight, name, who) in IN_FLIGHT {
        let pauses = Pauses::default();
        let entrants = entrants(session, &daemon, &pauses, in_flight, who);
        let case = Case { name, unit: "runs/s", better: Better::More, rounds };
        interleave(&mut results, &mut shuffle, case, entrants);
        pauses.write(&mut results, name);
    }
    let pauses = Pauses::default();
    let case = Case { name: "64 beside 8", unit: "runs/s", better: Better::More, rounds };
    interleave(&mut results, &mut shuffle, case, many_beside_few(session, &daemon, &pauses));
    pauses.write(&mut results, case.name);
    let few = Daemon::start(&session.ground, FEW_SLOTS)?;
    for (name, daemon, demands) in [("fair", &daemon, [32, 32]), ("fair, few slots", &few, [48, 16])] {
        let case = Case { name, unit: "% apart", better: Better::Less, rounds };
        let mut entrants = Entrants::default();
        entrants.add("warm", two_clients(session, daemon, demands));
        interleave(&mut results, &mut shuffle, case, entrants);
    }
    Ok(results)
}

fn entrants<'a>(
    session: &'a Session,
    daemon: &'a Daemon,
    pauses: &'a Pauses,
    in_flight: u32,
    who: &[&str],
) -> Entrants<'a> {
    let wants = |name: &str| who.contains(&name) && session.only.wants(name);
    let mut entrants = Entrants::default();
    let bare = move || Ok(pauses.keep(BARE, bare_burst(session, in_flight)?));
    entrants.add(BARE, Ok(Variant::new(BARE, bare)));
    for (name, policy) in OVER_SOCKET.into_iter().filter(|(name, _)| wants(name)) {
        entrants.add(name, over_socket(session, daemon, pauses, (name, policy), in_flight));
    }
    if wants(PIPELINED) {
        let prepare = || -> Result<Variant<'a>, BenchError> {
            let (mut client, request) = (daemon.connect()?, true_under(session, "default")?);
            let sample = move || {
                let window = Window::open(COUNTED);
                let ends = pipelined(&mut client, &request, in_flight, window)?;
                Ok(pauses.keep(PIPELINED, window.burst(vec![ends])))
            };
            Ok(Variant::new(PIPELINED, sample).against(BARE))
        };
        entrants.add(PIPELINED, prepare());
    }
    entrants
}

/// What metrics that are asked for add to the slowest runs.
fn scraped(
    session: &Session,
    rounds: u32,
    results: &mut Results,
    shuffle: &mut Shuffle,
) -> Result<(), BenchError> {
    let daemon = Daemon::start(&session.ground, MEASURED)?;
    let mut entrants = Entrants::default();
    entrants.add(UNSCRAPED, slowest(session, &daemon, UNSCRAPED, None));
    if session.only.wants(SCRAPED) {
        let variant = slowest(session, &daemon, SCRAPED, Some(SCRAPE_EVERY));
        entrants.add(SCRAPED, variant.map(|variant| variant.against(UNSCRAPED)));
    }
    interleave(results, shuffle, times("p99 of a burst, 1 in flight", rounds * SHORT_OF), entrants);
    scrapes(session, &daemon, rounds, results, shuffle);
    Ok(())
}

/// How long a scrape takes where every tool has been called.
fn scrapes(session: &Session, daemon: &Daemon, rounds: u32, results: &mut Results, shuffle: &mut Shuffle) {
    let called = || -> Result<(), BenchError> {
        let mut client = daemon.connect()?;
        for number in 0..MEASURED.tools {
            ours::timed(&mut client, &true_under(session, "default")?.tool(&tool_name(number), "{}"))?;
        }
        Ok(())
    };
    let sample = move || {
        let began = Instant::now();
        daemon.scrape()?;
        Ok(millis(began.elapsed()))
    };
    let mut entrants = Entrants::default();
    if session.only.wants(SCRAPE) {
        entrants.add(SCRAPE, called().map(|()| Variant::new(SCRAPE, sample)));
    }
    let case = Case { name: "200 tools", unit: "ms", better: Better::Less, rounds: rounds * SCRAPES };
    interleave(results, shuffle, case, entrants);
}

/// The p99 of a run's time, of those of a burst with one in flight.
fn slowest<'a>(
    session: &'a Session,
    daemon: &'a Daemon,
    name: &'static str,
    scrape: Option<Duration>,
) -> Result<Variant<'a>, BenchError> {
    let (mut client, request) = (daemon.connect()?, true_under(session, "default")?);
    let sample = move || {
        let window = Window::open(COUNTED);
        let mut took = Vec::new();
        std::thread::scope(|scope| {
            let scraping = scope.spawn(|| -> Result<(), BenchError> {
                // Within what counts.
                spawn::moment(RAMP);
                while let Some(pause) = scrape.filter(|_| !window.is_over()) {
                    daemon.scrape()?;
                    spawn::moment(pause);
                }
                Ok(())
            });
            while !window.is_over() {
                let one = ours::timed(&mut client, &request)?;
                if window.counts(Instant::now()) {
                    took.push(one);
                }
            }
            scraping
                .join()
                .unwrap_or_else(|_| Err(BenchError::Wrong("a thread of the benchmark died".into())))
        })?;
        stats::quantile(took, 0.99).ok_or_else(no_run)
    };
    Ok(Variant::new(name, sample))
}

/// What the record adds: its daemons beside one without it, in the same rounds, a median of all runs of a burst each.
fn recorded(session: &Session, daemon: &Daemon, rounds: u32, results: &mut Results, shuffle: &mut Shuffle) {
    let mut entrants = Entrants::default();
    let start = |how| Daemon::start(&session.ground, how);
    let daemons = [(RECORDED.name, start(RECORDED)), (RECORDED_ON_DISK.name, start(RECORDED_ON_DISK))];
    entrants.add(UNRECORDED, medians(session, daemon, UNRECORDED));
    for (name, daemon) in &daemons {
        if session.only.wants(name) {
            let variant = daemon.as_ref().map_err(|error| BenchError::Daemon(chain(error)));
            let variant = variant.and_then(|daemon| medians(session, daemon, name));
            entrants.add(name, variant.map(|variant| variant.against(UNRECORDED)));
        }
    }
    interleave(results, shuffle, times("8 in flight, recorded", rounds * SHORT_OF), entrants);
}

/// The median time of a run, of those of a burst with 8 in flight.
fn medians<'a>(session: &'a Session, daemon: &Daemon, name: &'static str) -> Result<Variant<'a>, BenchError> {
    let clients = (0..8).map(|_| Ok((daemon.connect()?, true_under(session, "default")?)));
    let mut clients = clients.collect::<Result<Vec<(Client, Request)>, BenchError>>()?;
    let sample = move || {
        let window = Window::open(COUNTED_RECORDED);
        let work = |(client, request): &mut (Client, Request)| -> Result<Vec<f64>, BenchError> {
            let mut took = Vec::new();
            while !window.is_over() {
                let one = ours::timed(client, request)?;
                if window.counts(Instant::now()) {
                    took.push(one);
                }
            }
            Ok(took)
        };
        stats::median(all(clients.iter_mut(), work)?.into_iter().flatten()).ok_or_else(no_run)
    };
    Ok(Variant::new(name, sample))
}

fn no_run() -> BenchError {
    BenchError::Wrong("no run has ended".into())
}

/// Whether the rate collapses: both in the same rounds.
fn many_beside_few<'a>(session: &'a Session, daemon: &Daemon, pauses: &'a Pauses) -> Entrants<'a> {
    let mut entrants = Entrants::default();
    if session.only.wants(MANY) {
        entrants.add(FEW, over_socket(session, daemon, pauses, (FEW, "default"), 8));
        let many = over_socket(session, daemon, pauses, (MANY, "default"), 64);
        entrants.add(MANY, many.map(|many| many.against(FEW)));
    }
    entrants
}

fn true_under(session: &Session, policy: &str) -> Result<Request, BenchError> {
    ours::request(&session.ground, policy, &["/bin/true"])
}

fn over_socket<'a>(
    session: &'a Session,
    daemon: &Daemon,
    pauses: &'a Pauses,
    (name, policy): (&'static str, &str),
    in_flight: u32,
) -> Result<Variant<'a>, BenchError> {
    let mut clients = (0..in_flight)
        .map(|_| Ok((daemon.connect()?, true_under(session, policy)?)))
        .collect::<Result<Vec<(Client, Request)>, BenchError>>()?;
    let sample = move || {
        let once = |(client, request): &mut &mut (Client, Request)| ours::timed(client, request).map(drop);
        Ok(pauses.keep(name, burst(clients.iter_mut(), once)?))
    };
    Ok(Variant::new(name, sample).against(BARE))
}

fn bare_burst(session: &Session, in_flight: u32) -> Result<Burst, BenchError> {
    burst(0..in_flight, |_| {
        let mut command = spawn::command("/bin/true");
        session.null.give(&mut command)?;
        timed(&mut command).map(drop)
    })
}

/// Each of the workers, a thread, runs one after the other until the burst is over.
fn burst<W: Send>(
    workers: impl Iterator<Item = W>,
    once: impl Fn(&mut W) -> Result<(), BenchError> + Sync,
) -> Result<Burst, BenchError> {
    let window = Window::open(COUNTED);
    let work = |mut worker: W| -> Result<Vec<Instant>, BenchError> {
        let mut ends = Vec::new();
        while !window.is_over() {
            once(&mut worker)?;
            ends.push(Instant::now());
        }
        Ok(ends)
    };
    all(workers, work).map(|ends| window.burst(ends))
}

/// A thread for each, and what each came to.
fn all<W: Send, T: Send>(
    workers: impl Iterator<Item = W>,
    work: impl Fn(W) -> Result<T, BenchError> + Sync,
) -> Result<Vec<T>, BenchError> {
    let work = &work;
    std::thread::scope(|scope| {
        let threads: Vec<_> = workers.map(|worker| scope.spawn(move || work(worker))).collect();
        let died = || BenchError::Wrong("a thread of the benchmark died".into());
        threads.into_iter().map(|thread| thread.join().unwrap_or_else(|_| Err(died()))).collect()
    })
}

/// Keeps so many in flight over one connection until the burst is over; when each ended.
fn pipelined(
    client: &mut Client,
    request: &Request,
    in_flight: u32,
    window: Window,
) -> Result<Vec<Instant>, BenchError> {
    let (mut waiting, mut ends) = (0, Vec::new());
    while waiting < in_flight {
        client.begin(request)?;
        waiting += 1;
    }
    while waiting > 0 {
        ours::expect_success(&ours::next_end(client)?)?;
        ends.push(Instant::now());
        if window.is_over() {
            waiting -= 1;
        } else {
            client.begin(request)?;
        }
    }
    Ok(ends)
}

/// How far apart two clients are at the end of a burst, in per cent of what the better one got.
fn two_clients<'a>(session: &Session, daemon: &Daemon, demands: [u32; 2]) -> Result<Variant<'a>, BenchError> {
    let mut clients = Vec::new();
    for demand in demands {
        clients.push((daemon.connect()?, true_under(session, "default")?, demand));
    }
    Ok(Variant::new("warm", move || {
        let window = Window::open(COUNTED_APART);
        let served =
            all(clients.iter_mut(), |(client, request, demand)| pipelined(client, request, *demand, window))?;
        let served = served.iter().map(|ends| ends.iter().filter(|end| window.counts(**end)).count());
        Ok(apart(&served.map(|count| u32::try_from(count).unwrap_or(u32::MAX)).collect::<Vec<_>>()))
    }))
}

/// In per cent of the most.
fn apart(served: &[u32]) -> f64 {
    let (least, most) = (served.iter().min(), served.iter().max());
    let (least, most) = (f64::from(*least.unwrap_or(&0)), f64::from(*most.unwrap_or(&0)));
    100.0 * (most - least) / most.max(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn apart_is_in_per_cent_of_the_one_that_got_most() {
        let table: [(&[u32], f64); 4] =
            [(&[100, 100], 0.0), (&[90, 100], 10.0), (&[0, 40], 100.0), (&[0, 0], 0.0)];
        for (served, expected) in table {
            assert!((apart(served) - expected).abs() < 1e-9, "{served:?}");
        }
    }

    #[test]
    fn what_ends_before_or_after_the_window_does_not_count_and_the_longest_pause_is_seen() {
        let from = Instant::now();
        let window = Window { from, to: from + COUNTED };
        let at = |ms| from + Duration::from_millis(ms);
        let before = from.checked_sub(Duration::from_millis(1)).unwrap();
        let ends = vec![vec![before, at(0), at(280)], vec![at(120), at(560), at(600), at(601)]];
        let burst = window.burst(ends);
        assert!((burst.rate - 4.0 / 0.6).abs() < 1e-9, "{burst:?}");
        assert_eq!(burst.pause, Duration::from_millis(280));
        assert_eq!(window.burst(vec![vec![at(40)]]).pause, Duration::from_millis(560), "up to the end");
        assert_eq!(window.burst(Vec::new()), Burst { rate: 0.0, pause: COUNTED });
    }

    #[test]
    fn the_longest_pause_of_all_bursts_of_a_variant_is_kept() {
        let pauses = Pauses::default();
        for (variant, ms) in [("a", 5), ("b", 1), ("a", 9), ("a", 2)] {
            pauses.keep(variant, Burst { rate: 1.0, pause: Duration::from_millis(ms) });
        }
        let mut results = Results::new("throughput");
        pauses.write(&mut results, "c");
        assert_eq!(results.find("c", "a", "longest pause"), Some(9.0));
        assert_eq!(results.find("c", "b", "longest pause"), Some(1.0));
    }

    #[test]
    fn a_worker_that_fails_fails_the_burst() {
        let work =
            |worker: u32| if worker == 3 { Err(BenchError::Wrong("broken".into())) } else { Ok(worker) };
        assert_eq!(all([1, 2].into_iter(), work).unwrap(), [1, 2]);
        assert_eq!(all([1, 3].into_iter(), work).unwrap_err().to_string(), "broken");
    }
}
