//! Runs a second with 1, 2, 8 and 64 in flight, whole bursts interleaved; and whether two clients are served alike.
//!
//! A burst is a fixed number of runs of `/bin/true`. A variant keeps so many in flight by as many threads, each with a
//! connection of its own; `pipelined` by one connection. In `fair` two clients ask for the same, with slots for all;
//! in `fair, few slots` one asks for three times as much as the other, for slots that neither could be content with.

use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Instant;

use stockade_client::{Client, Request};

use crate::daemon::{DEFAULT, Daemon, FEW_SLOTS};
use crate::error::BenchError;
use crate::ours;
use crate::results::{Better, Results};
use crate::rounds::{Case, Entrants, Variant, interleave};
use crate::session::Session;
use crate::spawn::{self, timed};
use crate::variants::BARE;

const ROUNDS: u32 = 10;
/// Runs in a burst.
const BURST: u32 = 256;
/// In flight, with the name of the case.
const IN_FLIGHT: [(u32, &str); 4] =
    [(1, "1 in flight"), (2, "2 in flight"), (8, "8 in flight"), (64, "64 in flight")];
/// Over the socket: name and policy.
const OVER_SOCKET: [(&str, &str); 4] =
    [("warm", "default"), ("strict", "strict"), ("moderate", "moderate"), ("minimal", "minimal")];

pub(crate) fn measure(session: &mut Session) -> Result<Results, BenchError> {
    let rounds = session.rounds(ROUNDS);
    let (mut results, mut shuffle) = session.begin("throughput", rounds);
    results.about("runs in a burst", BURST.to_string());
    let daemon = Daemon::start(&session.ground, DEFAULT)?;
    for (in_flight, name) in IN_FLIGHT {
        let entrants = entrants(session, &daemon, in_flight);
        let case = Case { name, unit: "runs/s", better: Better::More, rounds };
        interleave(&mut results, &mut shuffle, case, entrants);
    }
    for variant in ["warm", "pipelined"] {
        let rate = |case: &str| results.find(case, variant, "median");
        if let (Some(at_64), Some(at_8)) = (rate("64 in flight"), rate("8 in flight")) {
            results.number("64 in flight", variant, "of the rate at 8", at_64 / at_8, "x");
        }
    }
    let few = Daemon::start(&session.ground, FEW_SLOTS)?;
    for (name, daemon, demands) in [("fair", &daemon, [32, 32]), ("fair, few slots", &few, [48, 16])] {
        let case = Case { name, unit: "% apart", better: Better::Less, rounds };
        let mut entrants = Entrants::default();
        entrants.add("warm", two_clients(session, daemon, demands));
        interleave(&mut results, &mut shuffle, case, entrants);
    }
    Ok(results)
}

fn entrants<'a>(session: &'a Session, daemon: &'a Daemon, in_flight: u32) -> Entrants<'a> {
    let mut entrants = Entrants::default();
    entrants.add(BARE, Ok(Variant::new(BARE, move || bare_burst(session, in_flight))));
    for (name, policy) in OVER_SOCKET.into_iter().filter(|(name, _)| session.only.wants(name)) {
        entrants.add(name, over_socket(session, daemon, name, policy, in_flight));
    }
    if session.only.wants("pipelined") {
        let prepare = || -> Result<Variant<'a>, BenchError> {
            let (mut client, request) = (daemon.connect()?, true_under(session, "default")?);
            Ok(Variant::new("pipelined", move || pipelined_burst(&mut client, &request, in_flight))
                .against(BARE))
        };
        entrants.add("pipelined", prepare());
    }
    entrants
}

fn true_under(session: &Session, policy: &str) -> Result<Request, BenchError> {
    ours::request(&session.ground, policy, &["/bin/true"])
}

fn over_socket<'a>(
    session: &'a Session,
    daemon: &Daemon,
    name: &str,
    policy: &str,
    in_flight: u32,
) -> Result<Variant<'a>, BenchError> {
    let mut clients = (0..in_flight)
        .map(|_| Ok((daemon.connect()?, true_under(session, policy)?)))
        .collect::<Result<Vec<(Client, Request)>, BenchError>>()?;
    let sample =
        move || burst(clients.iter_mut(), |(client, request)| ours::timed(client, request).map(drop));
    Ok(Variant::new(name, sample).against(BARE))
}

fn bare_burst(session: &Session, in_flight: u32) -> Result<f64, BenchError> {
    burst(0..in_flight, |_| {
        let mut command = spawn::command("/bin/true");
        session.null.give(&mut command)?;
        timed(&mut command).map(drop)
    })
}

/// Each of the workers, a thread, takes runs from the same burst until none is left. Runs a second.
fn burst<W: Send>(
    workers: impl Iterator<Item = W>,
    once: impl Fn(&mut W) -> Result<(), BenchError> + Sync,
) -> Result<f64, BenchError> {
    let taken = AtomicU32::new(0);
    let work = |mut worker: W| -> Result<(), BenchError> {
        while taken.fetch_add(1, Ordering::Relaxed) < BURST {
            once(&mut worker)?;
        }
        Ok(())
    };
    let began = Instant::now();
    std::thread::scope(|scope| {
        let threads: Vec<_> = workers.map(|worker| scope.spawn(|| work(worker))).collect();
        threads.into_iter().try_for_each(|thread| thread.join().unwrap_or_else(|_| Err(thread_died())))
    })?;
    Ok(f64::from(BURST) / began.elapsed().as_secs_f64())
}

fn thread_died() -> BenchError {
    BenchError::Wrong("a thread of the benchmark died".into())
}

fn pipelined_burst(client: &mut Client, request: &Request, in_flight: u32) -> Result<f64, BenchError> {
    let began = Instant::now();
    for _ in 0..in_flight {
        client.begin(request)?;
    }
    for ended in 1..=BURST {
        ours::expect_success(&ours::next_end(client)?)?;
        if ended + in_flight <= BURST {
            client.begin(request)?;
        }
    }
    Ok(f64::from(BURST) / began.elapsed().as_secs_f64())
}

/// How far apart two clients are at the end of a burst, in per cent of what the better one got.
fn two_clients<'a>(
    session: &'a Session,
    daemon: &Daemon,
    demands: [u32; 2],
) -> Result<Variant<'a>, BenchError> {
    let mut clients = Vec::new();
    for demand in demands {
        clients.push((daemon.connect()?, true_under(session, "default")?, demand));
    }
    let sample = move || {
        let (total, over, together) =
            (AtomicU32::new(0), AtomicBool::new(false), Barrier::new(demands.len()));
        let served = std::thread::scope(|scope| {
            let serve = |(client, request, demand): &mut (Client, Request, u32)| {
                together.wait();
                served(client, request, *demand, &total, &over)
            };
            let threads: Vec<_> =
                clients.iter_mut().map(|client| scope.spawn(move || serve(client))).collect();
            let joined =
                threads.into_iter().map(|thread| thread.join().unwrap_or_else(|_| Err(thread_died())));
            joined.collect::<Result<Vec<u32>, _>>()
        })?;
        let (least, most) = (served.iter().min(), served.iter().max());
        let (least, most) = (f64::from(*least.unwrap_or(&0)), f64::from(*most.unwrap_or(&0)));
        Ok(100.0 * (most - least) / most.max(1.0))
    };
    Ok(Variant::new("warm", sample))
}

/// Keeps so many in flight until both clients together have had a burst; how many of them were this one's.
fn served(
    client: &mut Client,
    request: &Request,
    in_flight: u32,
    total: &AtomicU32,
    over: &AtomicBool,
) -> Result<u32, BenchError> {
    let mut waiting = 0;
    let mut count = 0;
    let mut go = || -> Result<(), BenchError> {
        while waiting < in_flight {
            client.begin(request)?;
            waiting += 1;
        }
        while waiting > 0 {
            ours::expect_success(&ours::next_end(client)?)?;
            waiting -= 1;
            if over.load(Ordering::Relaxed) {
                continue;
            }
            count += 1;
            if total.fetch_add(1, Ordering::Relaxed) + 1 >= BURST {
                over.store(true, Ordering::Relaxed);
            } else {
                client.begin(request)?;
                waiting += 1;
            }
        }
        Ok(())
    };
    let ended = go();
    // The other must not go on for ever.
    over.store(true, Ordering::Relaxed);
    ended.map(|()| count)
}
