//! What is looked at when somebody asks: the state as it is, and the process.

use super::kernel::{kernel, levels};
use super::labels::{self, MECHANISMS, PLANS};
use super::process::Process;
use super::table::{self, Metric};
use crate::daemon::State;
use crate::record::Record;

/// A limiter's whole share, in the millionths that it's told in.
const WHOLE: f64 = 1_000_000.0;

/// Why new runs aren't taken; nothing: they are. That the socket is there needs no look: nobody is answered before.
pub(crate) fn unready(state: &State) -> Vec<&'static str> {
    let mut reasons = Vec::new();
    if state.links.current().is_none() {
        reasons.push("no launcher is up: the log says why the last one ended");
    }
    if state.dispatcher.counts().draining {
        reasons.push("the daemon is stopping");
    }
    reasons
}

/// Sets what is looked at.
pub(super) fn look(state: &mut State) {
    let names: Vec<String> = state.specs.policies().names().into_iter().map(str::to_owned).collect();
    state.figures.know(names.iter().map(String::as_str));
    set(state, &table::POLICY_NAMES, names.len());
    gate(state);
    audit(state);
    runs(state);
    pool(state);
    daemon(state);
    process(state);
}

fn gate(state: &mut State) {
    let State { gate, figures, .. } = state;
    figures.gated.know(gate.tools().tools().map(|tool| tool.name.as_str()));
    set(state, &table::TOOL_NAMES, state.gate.tools().tools().len());
    let breaking = state.gate.breaking(state.uptime());
    let states = [("closed", breaking.closed), ("open", breaking.open), ("half-open", breaking.half_open)];
    for (word, count) in states {
        put(state, &table::BREAKERS, &[word], count as f64);
    }
    let running = u32::try_from(state.dispatcher.counts().running).unwrap_or(u32::MAX);
    let limiter = state.gate.limiter(state.uptime(), running);
    let (share, keys) = limiter.map_or((1.0, 0), |limiter| (f64::from(limiter.share) / WHOLE, limiter.keys));
    put(state, &table::LIMITER_SHARE, &[], share);
    put(state, &table::LIMITER_KEYS, &[], keys as f64);
    set(state, &table::APPROVALS_WAITING, state.approvals.len());
    set(state, &table::REVIEWING, state.approvals.reviewing());
    let (grants, requests) = state.grant_counts();
    set(state, &table::GRANTS, grants);
    set(state, &table::GRANT_REQUESTS, requests);
}

fn audit(state: &State) {
    let log = state.record.as_ref().map(Record::state);
    set(state, &table::AUDIT_RECORDING, usize::from(log.is_some()));
    let is_writable = log.as_ref().is_none_or(|log| log.unavailable.is_none());
    set(state, &table::AUDIT_WRITABLE, usize::from(is_writable));
    set(state, &table::AUDIT_WAITING, state.record.as_ref().map_or(0, |record| record.undecided.len()));
    let (durable, bytes, syncs, refused) =
        log.map_or((0, 0, 0, 0), |log| (log.durable, log.bytes, log.syncs, log.refused));
    put(state, &table::AUDIT_LAST, &[], durable as f64);
    put(state, &table::AUDIT_BYTES, &[], bytes as f64);
    total(state, &table::AUDIT_SYNCS, syncs as f64);
    total(state, &table::AUDIT_REFUSED, refused as f64);
}

fn runs(state: &State) {
    let counts = state.dispatcher.counts();
    total(state, &table::ACCEPTED, counts.accepted as f64);
    set(state, &table::RUNNING, counts.running);
    set(state, &table::SLOTS, state.limits.bounds.slots.total);
    set(state, &table::QUEUED, counts.queued);
    set(state, &table::QUEUE, state.limits.bounds.queue.total);
    set(state, &table::KNOWN, state.runs.len());
    set(state, &table::UNCLAIMED, state.runs.values().filter(|run| run.is_unclaimed).count());
    set(state, &table::UNREAPED, counts.unreaped);
    set(state, &table::DRAINING, usize::from(counts.draining));
}

fn pool(state: &State) {
    let warmth = state.links.warmth();
    put(state, &table::TEMPLATES, &[], f64::from(warmth.templates));
    put(state, &table::PARKED, &[], f64::from(warmth.parked));
    put(state, &table::REFILL, &[], std::time::Duration::from_micros(warmth.refill_us).as_secs_f64());
    total(state, &table::HITS, warmth.hits as f64);
    total(state, &table::MISSES, warmth.misses as f64);
}

fn daemon(state: &State) {
    set(state, &table::CONNECTIONS, state.connections.len());
    set(state, &table::CONNECTION_MEMORY, state.ledger.taken());
    set(state, &table::LAUNCHER_UP, usize::from(state.links.current().is_some()));
    set(state, &table::OLDER, state.links.ids().into_iter().filter(|id| state.links.is_elder(*id)).count());
    set(state, &table::READY, usize::from(unready(state).is_empty()));
    let build = [env!("CARGO_PKG_VERSION"), std::env::consts::ARCH];
    put(state, &table::BUILD, &build, 1.0);
    if let Some(gauge) = state.figures.gauges.get(table::POSTURE.name) {
        // What the last launcher said may be something else.
        gauge.reset();
    }
    if let Some(introduction) = state.links.introduction() {
        let kernel = kernel();
        let words = [
            PLANS[labels::plan(&introduction.plan)],
            MECHANISMS[labels::mechanism(&introduction.memory)],
            kernel.as_str(),
        ];
        put(state, &table::POSTURE, &words, 1.0);
    }
    for (feature, there) in &state.figures.features {
        put(state, &table::FEATURES, &[feature], f64::from(*there));
    }
    let abi = state.figures.landlock;
    put(state, &table::LANDLOCK, &[], f64::from(abi));
    for (level, supported) in levels(&state.figures.features, abi, !state.settings.is_user_mode()) {
        put(state, &table::LEVELS, &[level], f64::from(supported));
    }
}

fn process(state: &State) {
    let process = Process::look();
    put(state, &table::PROCESS_START, &[], state.figures.born);
    if let Some(cpu) = process.cpu {
        total(state, &table::PROCESS_CPU, cpu.as_secs_f64());
    }
    let looked = [
        (&table::PROCESS_RESIDENT, process.resident),
        (&table::PROCESS_VIRTUAL, process.address_space),
        (&table::PROCESS_FDS, process.descriptors),
        (&table::PROCESS_MAX_FDS, process.descriptor_limit),
    ];
    for (metric, value) in looked {
        if let Some(value) = value {
            put(state, metric, &[], value as f64);
        }
    }
}

fn set(state: &State, metric: &Metric, count: usize) {
    put(state, metric, &[], count as f64);
}

fn put(state: &State, metric: &Metric, labels: &[&str], value: f64) {
    let gauge =
        state.figures.gauges.get(metric.name).map(|gauges| gauges.get_metric_with_label_values(labels));
    match gauge {
        Some(Ok(gauge)) => gauge.set(value),
        Some(Err(error)) => tracing::error!(metric = metric.name, %error, "a figure can't be told"),
        None => tracing::error!(metric = metric.name, "a figure isn't looked at but counted"),
    }
}

/// What only grows, unless it belongs to a launcher that is another one now.
fn total(state: &State, metric: &Metric, value: f64) {
    if let Some(counter) = state.figures.totals.get(metric.name) {
        counter.reset();
        counter.inc_by(value);
    }
}
