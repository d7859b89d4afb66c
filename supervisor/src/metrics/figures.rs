//! What is counted on the way. One set a daemon.

use std::collections::HashMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prometheus::core::Collector;
use prometheus::{
    Counter, Error, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, Opts,
    Registry,
};
use stockade_protocol::client::{Count, ProtocolErrorCode};
use stockade_protocol::confinement::Confinement;
use stockade_protocol::denied::Denied;
use stockade_protocol::launch::{MAKING, Made};
use stockade_protocol::outcome::{Outcome, Usage};

use super::endpoint::Endpoint;
use super::gated::Gated;
use super::kernel::features;
use super::labels::{self, CODES, LAYERS, OTHER, OUTCOMES, REASONS, STAGES, stage_word};
use super::table::{self, Kind, Metric};
use super::timing::Timing;

/// Policies that have series of their own; those after them are counted together, as `other`.
pub(super) const POLICIES: usize = 200;

/// Ended runs of a policy or of a tool, by outcome.
pub(super) type Outcomes = Vec<IntCounter>;

/// Counters and histograms, and the registry of all that is told.
pub(crate) struct Figures {
    pub(super) registry: Registry,
    /// When the daemon started, in seconds since the epoch.
    pub(super) born: f64,
    /// What the kernel has; it doesn't change.
    pub(super) features: Vec<(&'static str, bool)>,
    /// The Landlock ABI that it offers, as the program that serves has asked it.
    pub(crate) landlock: u8,
    /// Where they are told, if they are.
    pub(crate) told_at: Option<Endpoint>,
    /// What is looked at when somebody asks, by name.
    pub(super) gauges: HashMap<&'static str, GaugeVec>,
    /// What only grows and is known elsewhere, by name.
    pub(super) totals: HashMap<&'static str, Counter>,
    /// What is counted of the gate.
    pub(crate) gated: Gated,
    runs: IntCounterVec,
    policies: HashMap<String, Outcomes>,
    others: Outcomes,
    denials: Vec<IntCounter>,
    setup_failures: Vec<IntCounter>,
    connected: IntCounter,
    errors: Vec<IntCounter>,
    /// Not enforced, enforced.
    layers: Vec<[IntCounter; 2]>,
    start: Histogram,
    queue: Histogram,
    launch: Histogram,
    /// Each stage of a worker's making.
    making: Vec<Histogram>,
    duration: Histogram,
    cpu: Histogram,
    memory: Histogram,
    kill: Histogram,
    input: IntCounter,
    output: IntCounter,
    redactions: [IntCounter; 2],
    adopted: IntCounter,
    launchers: IntCounter,
    loaded: IntCounter,
    refused: IntCounter,
    sent: IntCounter,
    lost: IntCounter,
}

impl core::fmt::Debug for Figures {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Figures").field("policies", &self.policies.len()).finish_non_exhaustive()
    }
}

impl Figures {
    /// With everything at 0.
    ///
    /// # Errors
    /// A name in the table that isn't one.
    pub(crate) fn new() -> Result<Self, Error> {
        let make = Make(Registry::new());
        let (mut gauges, mut totals) = (HashMap::new(), HashMap::new());
        for metric in table::TABLE {
            match metric.kind {
                Kind::Gauge => drop(gauges.insert(metric.name, make.gauges(metric)?)),
                Kind::Total => drop(totals.insert(metric.name, make.total(metric)?)),
                Kind::Counter | Kind::Histogram(_) => {}
            }
        }
        let runs = make.counters(&table::RUNS)?;
        let setup = make.histograms(&table::RUN_SETUP)?;
        let making = make.histograms(&table::WORKER_SETUP)?;
        let relayed = make.counters(&table::RELAYED)?;
        let reloads = make.counters(&table::RELOADS)?;
        let spans = make.counters(&table::SPANS)?;
        let layers = make.counters(&table::LAYERS)?;
        let redactions = make.counters(&table::REDACTIONS)?;
        let both = |layer: &&str| {
            let of = |enforced| layers.get_metric_with_label_values(&[*layer, enforced]);
            Ok::<_, Error>([of("false")?, of("true")?])
        };
        Ok(Self {
            others: outcomes_of(&runs, OTHER)?,
            policies: HashMap::new(),
            denials: all(&make.counters(&table::DENIALS)?, REASONS)?,
            setup_failures: all(&make.counters(&table::SETUP_FAILURES)?, STAGES)?,
            errors: all(&make.counters(&table::CONNECTION_ERRORS)?, CODES)?,
            layers: LAYERS.iter().map(both).collect::<Result<_, _>>()?,
            start: make.histogram(&table::RUN_START)?,
            queue: setup.get_metric_with_label_values(&["queue"])?,
            launch: setup.get_metric_with_label_values(&["launch"])?,
            making: MAKING
                .iter()
                .map(|stage| making.get_metric_with_label_values(&[stage_word(*stage)]))
                .collect::<Result<_, _>>()?,
            duration: make.histogram(&table::RUN_DURATION)?,
            cpu: make.histogram(&table::RUN_CPU)?,
            memory: make.histogram(&table::RUN_MEMORY)?,
            kill: make.histogram(&table::KILL)?,
            input: relayed.get_metric_with_label_values(&["input"])?,
            output: relayed.get_metric_with_label_values(&["output"])?,
            redactions: [
                redactions.get_metric_with_label_values(&["form"])?,
                redactions.get_metric_with_label_values(&["value"])?,
            ],
            adopted: make.counter(&table::ADOPTED)?,
            launchers: make.counter(&table::LAUNCHER_STARTS)?,
            loaded: reloads.get_metric_with_label_values(&["loaded"])?,
            refused: reloads.get_metric_with_label_values(&["refused"])?,
            connected: make.counter(&table::CONNECTED)?,
            sent: spans.get_metric_with_label_values(&["sent"])?,
            lost: spans.get_metric_with_label_values(&["lost"])?,
            gated: Gated::new(&make)?,
            registry: make.0,
            told_at: None,
            features: features(),
            landlock: 0,
            born: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64(),
            gauges,
            totals,
            runs,
        })
    }

    /// Gives policies their series, as long as there are any.
    pub(super) fn know<'a>(&mut self, policies: impl IntoIterator<Item = &'a str>) {
        for policy in policies {
            if self.policies.len() >= POLICIES {
                return;
            }
            if !self.policies.contains_key(policy)
                && let Ok(outcomes) = outcomes_of(&self.runs, policy)
            {
                self.policies.insert(policy.to_owned(), outcomes);
            }
        }
    }

    /// A message of a client was denied.
    pub(crate) fn denied(&self, denied: &Denied) {
        self.denials[labels::reason(&denied.reason)].inc();
        self.gated.denied(denied);
    }

    /// A client was given marks in place of secrets: so many of forms, and so many of values.
    pub(crate) fn redacted(&self, marks: [u64; 2]) {
        for (counter, count) in self.redactions.iter().zip(marks).filter(|(_, count)| *count > 0) {
            counter.inc_by(count);
        }
    }

    /// A client has connected.
    pub(crate) fn connected(&self) {
        self.connected.inc();
    }

    /// A connection was refused or closed.
    pub(crate) fn broken(&self, code: ProtocolErrorCode) {
        self.errors[labels::code(&code)].inc();
    }

    /// A launcher has come up.
    pub(crate) fn launcher_up(&self) {
        self.launchers.inc();
    }

    /// A run of an earlier daemon's was taken over.
    pub(crate) fn adopted(&self) {
        self.adopted.inc();
    }

    /// The policies were read again, and taken or not.
    pub(crate) fn reloaded(&self, taken: bool) {
        if taken { &self.loaded } else { &self.refused }.inc();
    }

    /// Spans have reached the collector, or are lost.
    pub(crate) fn spans(&self, count: usize, sent: bool) {
        if sent { &self.sent } else { &self.lost }.inc_by(count as u64);
    }

    /// Workers were made.
    pub(crate) fn made(&self, made: &[Made]) {
        for made in made {
            for (histogram, took) in self.making.iter().zip(made.took_ns) {
                histogram.observe(Duration::from_nanos(took.into()).as_secs_f64());
            }
        }
    }

    /// A command has started.
    pub(crate) fn started(&self, confinement: &Confinement) {
        for report in &confinement.layers {
            self.layers[labels::layer(&report.layer)][usize::from(report.enforced)].inc();
        }
    }

    /// A run is over, and everything is known of it; `usage` of one whose command began.
    pub(crate) fn ended(&mut self, policy: &str, timing: &Timing, outcome: &Outcome, usage: Option<&Usage>) {
        self.outcomes(policy)[labels::outcome(outcome)].inc();
        if let Outcome::SetupFailed { failure } = outcome {
            self.setup_failures[labels::stage(&failure.stage)].inc();
        }
        let spans = timing.spans(Duration::from_micros(usage.map_or(0, |usage| usage.wall_us)));
        let observe = |histogram: &Histogram, span: Option<Duration>| {
            if let Some(span) = span {
                histogram.observe(span.as_secs_f64());
            }
        };
        observe(&self.queue, spans.queue);
        observe(&self.kill, spans.kill);
        let Some(usage) = usage else { return };
        self.input.inc_by(usage.bytes_in);
        self.output.inc_by(usage.bytes_out);
        if !timing.has_end() {
            // Lost, and what it used with it: zeros would be made up.
            return;
        }
        observe(&self.launch, spans.launch);
        observe(&self.start, spans.queue.zip(spans.launch).map(|(queue, launch)| queue + launch));
        observe(&self.duration, Some(Duration::from_micros(usage.wall_us)));
        observe(&self.cpu, Some(Duration::from_micros(usage.user_us.saturating_add(usage.system_us))));
        self.memory.observe(usage.memory_peak as f64);
    }

    fn outcomes(&mut self, policy: &str) -> &Outcomes {
        if !self.policies.contains_key(policy) {
            self.know([policy]);
        }
        self.policies.get(policy).unwrap_or(&self.others)
    }

    /// Ended runs by outcome, of all policies.
    pub(crate) fn by_outcome(&self) -> Vec<Count> {
        let of = |at: usize| self.policies.values().chain([&self.others]).map(move |all| all[at].get()).sum();
        let count = |(at, word): (usize, &&str)| Count { name: (*word).to_owned(), count: of(at) };
        OUTCOMES.iter().enumerate().map(count).collect()
    }

    /// Denials by reason.
    pub(crate) fn by_reason(&self) -> Vec<Count> {
        let count =
            |(word, count): (&&str, &IntCounter)| Count { name: (*word).to_owned(), count: count.get() };
        REASONS.iter().zip(&self.denials).map(count).collect()
    }

    /// Launchers that came up.
    pub(crate) fn launchers(&self) -> u64 {
        self.launchers.get()
    }
}

/// A series for each outcome, of what has a name and an outcome.
pub(super) fn outcomes_of(runs: &IntCounterVec, name: &str) -> Result<Outcomes, Error> {
    OUTCOMES.iter().map(|outcome| runs.get_metric_with_label_values(&[name, outcome])).collect()
}

fn all(counters: &IntCounterVec, words: &[&str]) -> Result<Vec<IntCounter>, Error> {
    words.iter().map(|word| counters.get_metric_with_label_values(&[word])).collect()
}

/// Makes what the table says, and has it told.
pub(super) struct Make(Registry);

impl Make {
    fn told<C: Collector + Clone + 'static>(&self, made: C) -> Result<C, Error> {
        self.0.register(Box::new(made.clone()))?;
        Ok(made)
    }

    fn counter(&self, metric: &Metric) -> Result<IntCounter, Error> {
        self.told(IntCounter::new(metric.name, metric.help)?)
    }

    pub(super) fn counters(&self, metric: &Metric) -> Result<IntCounterVec, Error> {
        self.told(IntCounterVec::new(Opts::new(metric.name, metric.help), metric.labels)?)
    }

    fn total(&self, metric: &Metric) -> Result<Counter, Error> {
        self.told(Counter::new(metric.name, metric.help)?)
    }

    fn gauges(&self, metric: &Metric) -> Result<GaugeVec, Error> {
        self.told(GaugeVec::new(Opts::new(metric.name, metric.help), metric.labels)?)
    }

    pub(super) fn histogram(&self, metric: &Metric) -> Result<Histogram, Error> {
        self.told(Histogram::with_opts(buckets(metric))?)
    }

    pub(super) fn histograms(&self, metric: &Metric) -> Result<HistogramVec, Error> {
        self.told(HistogramVec::new(buckets(metric), metric.labels)?)
    }
}

fn buckets(metric: &Metric) -> HistogramOpts {
    let bounds = if let Kind::Histogram(bounds) = metric.kind { bounds } else { &[] };
    HistogramOpts::new(metric.name, metric.help).buckets(bounds.to_vec())
}
