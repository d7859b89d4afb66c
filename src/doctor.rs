//! `stockade doctor`: tries every layer on this machine, by real runs.
//!
//! One run a level with all canaries, one that eats memory, one of the policy `default` as it is. A layer works if
//! what must fail failed in the run, and would have succeeded without it, and what must succeed did. What the
//! machine can't be asked is said to be unknown, never assumed.

mod deep;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use serde_json::json;
use stockade_client::Request;
use stockade_policies::{PolicySet, Source, Trust};
use stockade_protocol::confinement::{Confinement, Layer};
use stockade_protocol::outcome::{Outcome, SetupStage};
use stockade_protocol::spec::Level;
use stockade_supervisor::words::{self, Sentence};

use self::deep::Deep;
use crate::canary::{self, ALL, Canary, Must, Place};
use crate::color::Paint;
use crate::error::{CliError, chain};
use crate::trial::{self, Trial};
use crate::{escape, exit, follow, json, out, sources, table};

const EXAMPLES: &str = "Examples:
  stockade doctor
  stockade doctor --json | jq '.levels[] | select(.available | not)'
  stockade doctor --deep       every canary at every level, and in the daemon's runs

Exit status: 0 if the policy `default` can run here, 1 if not, or if something that is promised doesn't hold.";

/// Tries every layer on this machine and says which levels it can give.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// One JSON object
    #[arg(long)]
    json: bool,
    /// Every canary there is, each at every level and, where there is a daemon, in runs of its own
    #[arg(long)]
    deep: bool,
    /// The daemon's socket, for --deep
    #[arg(long, value_name = "PATH", requires = "deep")]
    socket: Option<PathBuf>,
}

/// What a row says of a layer or a level.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Verdict {
    Works,
    /// Why not, and what would help.
    Fails(String, Option<String>),
    /// Why it can't be told.
    Unknown(String),
}

/// What became of the run of one level.
#[derive(Debug)]
struct Seen {
    level: Level,
    /// Errno (0: it succeeded) by canary; `Err`: no run.
    canaries: Result<Results, Refusal>,
}

type Results = BTreeMap<String, i32>;

/// Why there was no run.
#[derive(Debug, Clone)]
struct Refusal {
    stage: Option<SetupStage>,
    why: String,
    remedy: Option<String>,
}

pub(crate) fn doctor(arguments: &Arguments) -> Result<u8, CliError> {
    let ground = Ground::new()?;
    let examined = examine(&ground)?;
    let deep =
        arguments.deep.then(|| Deep::of(&examined, &ground, arguments.socket.as_deref())).transpose()?;
    drop(ground);
    let holds = deep.as_ref().is_none_or(Deep::holds);
    let Examined { layers, levels, default, .. } = examined;
    let status = if holds && default.verdict == Verdict::Works { 0 } else { exit::FAILED };
    if arguments.json {
        let row = |(name, verdict): &(String, Verdict)| told(name, verdict);
        let mut value = json!({
            "layers": layers.iter().map(row).collect::<Vec<_>>(),
            "levels": levels.iter().map(row).collect::<Vec<_>>(),
            "default": told("default", &default.verdict),
            "how": default.how,
        });
        if let Some(deep) = deep {
            value["canaries"] = deep.json();
        }
        return out::print_with(&json::line(&value), status);
    }
    let mut text = shown(&layers, &levels, &default);
    if let Some(deep) = deep {
        text.push('\n');
        text.push_str(&deep.shown(Paint::to(&std::io::stdout())));
    }
    out::print_with(text.as_bytes(), status)
}

type Rows = Vec<(String, Verdict)>;

/// What was seen, and what is made of it.
#[derive(Debug)]
struct Examined {
    layers: Rows,
    levels: Rows,
    default: Default,
    seen: Vec<Seen>,
    /// The same without confinement.
    control: Results,
    /// All canaries under the policy `default` as it is here.
    here: Result<Ran, Refusal>,
}

/// A run of all canaries.
#[derive(Debug, Clone)]
struct Ran {
    results: Results,
    /// What held.
    held: Option<Box<Confinement>>,
}

impl Ran {
    /// What such a run has printed, a line a canary.
    fn of(trial: Trial) -> Self {
        let Trial::Ended { output, confinement: held, .. } = trial else {
            return Self { results: Results::new(), held: None };
        };
        let text = String::from_utf8_lossy(&output);
        let line = |line: &str| {
            let (name, errno) = line.split_once(' ')?;
            Some((name.to_owned(), errno.parse().ok()?))
        };
        Self { results: text.lines().filter_map(line).collect(), held }
    }

    fn how(&self) -> String {
        self.held.as_ref().map_or_else(String::new, |held| {
            format!("{}, memory by {}", follow::plan(held.plan), follow::mechanism(held.memory))
        })
    }
}

fn examine(ground: &Ground) -> Result<Examined, CliError> {
    let policies = policies()?;
    let mut control: Results = ALL
        .iter()
        .map(|canary| (canary.name.to_owned(), canary.attempt(&ground.place).unwrap_or(0)))
        .collect();
    // Whoever starts a program gives it its variables: the doctor gives this one to every run.
    control.insert(canary::GIVEN.to_owned(), 0);
    let mut seen = Vec::new();
    for (level, policy) in [
        (Level::Strict, "doctor-strict"),
        (Level::Moderate, "doctor-moderate"),
        (Level::Minimal, "doctor-minimal"),
    ] {
        seen.push(Seen { level, canaries: ground.canaries(&policies, policy)?.map(|ran| ran.results) });
    }
    let memory = memory(ground, &policies)?;
    let layers = LAYERS
        .iter()
        .map(|layer| {
            let verdict = match layer {
                Layer::Resources => memory.clone(),
                _ => of_layer(*layer, &seen, &control),
            };
            (format!("{layer:?}").to_lowercase(), verdict)
        })
        .collect();
    let levels =
        seen.iter().map(|seen| (follow::level(seen.level).to_owned(), of_level(seen, &control))).collect();
    // As a run here would find it: an operator may have put one of their own in its place.
    let here = match sources::named("default") {
        Ok(here) => ground.canaries(&here, "default")?,
        Err(error) => Err(Refusal { stage: None, why: chain(&error), remedy: None }),
    };
    let default = match here.clone() {
        Ok(ran) => Default { verdict: Verdict::Works, how: ran.how() },
        Err(refusal) => Default { verdict: Verdict::Fails(refusal.why, refusal.remedy), how: String::new() },
    };
    Ok(Examined { layers, levels, default, seen, control, here })
}

/// Whether the policy `default` runs here, and how.
#[derive(Debug)]
struct Default {
    verdict: Verdict,
    how: String,
}

const LAYERS: [Layer; 10] = [
    Layer::Namespaces,
    Layer::Root,
    Layer::Guard,
    Layer::Network,
    Layer::Identity,
    Layer::Resources,
    Layer::Rlimits,
    Layer::Landlock,
    Layer::Seccomp,
    Layer::Process,
];

/// The shipped policies with small changes that canaries need.
fn policies() -> Result<PolicySet, CliError> {
    let source = |name: &str, text: &str| Source {
        name: name.to_owned(),
        file: format!("doctor/{name}.toml"),
        text: text.to_owned(),
        trust: Trust::Shipped,
    };
    let limits = "[limits]\nopen-files = 64\nwall-time = \"20s\"\n";
    let strict = format!(
        "name = \"doctor-strict\"\nextends = \"default\"\n[filesystem]\ndeny = [\"denied\"]\n{limits}"
    );
    let memory = "name = \"doctor-memory\"\nextends = \"default\"\n[limits]\nmemory = \"64MiB\"\n";
    let of = |level: &str| format!("name = \"doctor-{level}\"\nextends = \"{level}\"\n{limits}");
    PolicySet::from_sources(vec![
        source("doctor-strict", &strict),
        source("doctor-moderate", &of("moderate")),
        source("doctor-minimal", &of("minimal")),
        source("doctor-memory", memory),
    ])
    .map_err(|error| CliError::Policies(error.into()))
}

/// A layer, seen at the strictest level that promises it and runs here.
fn of_layer(layer: Layer, seen: &[Seen], control: &Results) -> Verdict {
    let canaries: Vec<&Canary> = ALL.iter().filter(|canary| canary.layer == layer).collect();
    let promised = |level: Level| canaries.iter().any(|canary| canary.levels.contains(&level));
    let mut refusal = None;
    for seen in seen.iter().filter(|seen| promised(seen.level)) {
        match &seen.canaries {
            Ok(results) => {
                let asked = canaries.iter().copied().filter(|canary| canary.levels.contains(&seen.level));
                return judge(asked, results, control);
            }
            Err(why) => refusal = Some(why),
        }
    }
    match refusal {
        Some(refusal) if refusal.stage.is_none_or(|stage| belongs(stage, layer)) => {
            Verdict::Fails(refusal.why.clone(), refusal.remedy.clone())
        }
        Some(refusal) => Verdict::Unknown(format!("no run came so far: {}", refusal.why)),
        None => Verdict::Unknown("no level asks for it".into()),
    }
}

/// Whether a stage of set-up is a layer's.
fn belongs(stage: SetupStage, layer: Layer) -> bool {
    use SetupStage as S;
    let owner = match stage {
        S::UserNamespace | S::Namespaces | S::Template => Layer::Namespaces,
        S::Mount | S::Idmap | S::Open => Layer::Root,
        S::Guard => Layer::Guard,
        S::Network => Layer::Network,
        S::Identity | S::Capabilities => Layer::Identity,
        S::Cgroup => Layer::Resources,
        S::Rlimits => Layer::Rlimits,
        S::Landlock => Layer::Landlock,
        S::Seccomp => Layer::Seccomp,
        _ => Layer::Process,
    };
    owner == layer
}

fn of_level(seen: &Seen, control: &Results) -> Verdict {
    match &seen.canaries {
        Ok(results) => {
            judge(ALL.iter().filter(|canary| canary.levels.contains(&seen.level)), results, control)
        }
        Err(refusal) => Verdict::Fails(refusal.why.clone(), refusal.remedy.clone()),
    }
}

/// Holds canaries against what they must do.
fn judge<'a>(canaries: impl Iterator<Item = &'a Canary>, results: &Results, control: &Results) -> Verdict {
    let mut unknown = None;
    for canary in canaries {
        let without = control.get(canary.name).copied();
        match (canary.must, results.get(canary.name).copied()) {
            (_, None) => return Verdict::Fails(format!("no answer to: {}", canary.what), None),
            (Must::Fail, Some(0)) => return Verdict::Fails(format!("a run could {}", canary.what), None),
            (Must::Succeed, Some(errno)) if errno != 0 => {
                let error = std::io::Error::from_raw_os_error(errno);
                return Verdict::Fails(format!("a run could not {}: {error}", canary.what), None);
            }
            (Must::Fail, Some(_)) if without != Some(0) => {
                unknown =
                    Some(format!("can't be told here: without confinement, too, one can't {}", canary.what));
            }
            _ => {}
        }
    }
    unknown.map_or(Verdict::Works, Verdict::Unknown)
}

/// A run that holds four times the memory it may have, and one that holds little.
fn memory(ground: &Ground, policies: &PolicySet) -> Result<Verdict, CliError> {
    let hog = |size: &str| ground.attempt(policies, "doctor-memory", &["hog".to_owned(), size.to_owned()]);
    Ok(match (hog("256")?, hog("8")?) {
        (
            Trial::Ended { outcome: Outcome::MemoryExceeded { .. }, .. },
            Trial::Ended { outcome: Outcome::Exited { code: 0 }, .. },
        ) => Verdict::Works,
        (Trial::Ended { outcome: Outcome::Exited { code: 0 }, .. }, _) => {
            Verdict::Fails("a run could hold 256 MiB where 64 MiB are allowed".into(), None)
        }
        (big, small) => {
            let refusal = refusal(&small).or_else(|| refusal(&big));
            refusal.map_or_else(
                || Verdict::Unknown("the runs ended otherwise than by their memory".into()),
                |refusal| match refusal.stage {
                    Some(stage) if !belongs(stage, Layer::Resources) => {
                        Verdict::Unknown(format!("no run came so far: {}", refusal.why))
                    }
                    _ => Verdict::Fails(refusal.why, refusal.remedy),
                },
            )
        }
    })
}

/// Why a trial was no run; `None`: it was one.
fn refusal(trial: &Trial) -> Option<Refusal> {
    match trial {
        Trial::Denied(denied) => {
            Some(Refusal { stage: None, why: denied.message.clone(), remedy: denied.remedy.clone() })
        }
        Trial::Ended { outcome: Outcome::Exited { .. }, .. } => None,
        Trial::Ended { outcome, .. } => {
            let stage = match outcome {
                Outcome::SetupFailed { failure } => Some(failure.stage),
                _ => None,
            };
            let Sentence { text, remedy } = words::outcome(outcome).unwrap_or_else(|| Sentence {
                text: format!("ended: {}", crate::words::short(outcome)),
                remedy: None,
            });
            Some(Refusal { stage, why: text, remedy })
        }
    }
}

/// A directory of our own with a workspace in it, removed at the end.
#[derive(Debug)]
struct Ground {
    base: PathBuf,
    place: Place,
    _listener: TcpListener,
    /// An abstract one, and one beside the workspace; where there can be none, their canaries are found to prove nothing.
    _sockets: [Option<UnixListener>; 2],
}

impl Ground {
    fn new() -> Result<Self, CliError> {
        let name = format!("stockade-doctor-{}", stockade_protocol::ExecId::generate());
        // Canonical: a workspace is named as the kernel names it.
        let base = std::env::temp_dir().canonicalize().unwrap_or_else(|_| PathBuf::from("/tmp")).join(name);
        let cannot = |source| CliError::Io { doing: format!("prepare {}", base.display()), source };
        std::fs::DirBuilder::new().mode(0o700).create(&base).map_err(cannot)?;
        Self::fill(&base).map_err(|source| {
            let _ = std::fs::remove_dir_all(&base);
            cannot(source)
        })
    }

    fn fill(base: &Path) -> std::io::Result<Self> {
        let (work, outside) = (base.join("work"), base.join("outside"));
        std::fs::create_dir_all(work.join("denied"))?;
        std::fs::create_dir(&outside)?;
        std::fs::write(work.join("plain"), "plain")?;
        std::fs::write(outside.join("secret"), "secret")?;
        std::fs::copy("/proc/self/exe", work.join("stockade"))?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let port = listener.local_addr()?.port();
        let doctor = rustix::process::getpid().as_raw_nonzero().get();
        let sockets = [
            UnixListener::bind_addr(&canary::deep::listens_at(port)?).ok(),
            UnixListener::bind(outside.join("socket")).ok(),
        ];
        let place = Place { work, outside, port, doctor };
        Ok(Self { base: base.to_owned(), place, _listener: listener, _sockets: sockets })
    }

    /// Runs all canaries under a policy. The outer error is ours, the inner one the machine's.
    fn canaries(&self, policies: &PolicySet, policy: &str) -> Result<Result<Ran, Refusal>, CliError> {
        let trial = self.attempt(policies, policy, &self.place.words())?;
        Ok(match refusal(&trial) {
            Some(refusal) => Err(refusal),
            None => Ok(Ran::of(trial)),
        })
    }

    /// Asks for our own program as a canary, with these words.
    fn request(&self, policy: &str, words: &[String]) -> Result<Request, CliError> {
        let program = self.place.work.join("stockade");
        let program = program.display().to_string();
        let words = words.iter().map(String::as_str);
        let command = [program.as_str(), canary::ROLE].into_iter().chain(words);
        let environment = std::env::vars_os().map(|(name, value)| (name.into(), value.into())).collect();
        Request::new(command)
            .policy(policy)
            .environment(environment)
            .variable(canary::VARIABLE, "1")
            .workspace(&self.place.work)
            .map_err(CliError::io("open the doctor's workspace"))
    }

    fn attempt(&self, policies: &PolicySet, policy: &str, words: &[String]) -> Result<Trial, CliError> {
        match trial::attempt(policies, self.request(policy, words)?, &[]) {
            Err(CliError::Embedded(error)) => {
                let outcome = Outcome::Lost { reason: chain(error.as_ref()) };
                Ok(Trial::Ended { outcome, confinement: None, output: Vec::new() })
            }
            other => other,
        }
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        // What can't be removed lies in the temporary directory, under our name.
        let _ = std::fs::remove_dir_all(&self.base);
    }
}

fn told(name: &str, verdict: &Verdict) -> serde_json::Value {
    let (works, why, remedy) = match verdict {
        Verdict::Works => (Some(true), None, None),
        Verdict::Fails(why, remedy) => (Some(false), Some(why), remedy.as_ref()),
        Verdict::Unknown(why) => (None, Some(why), None),
    };
    json!({ "name": name, "works": works, "available": works, "why": why, "remedy": remedy })
}

fn shown(layers: &Rows, levels: &Rows, default: &Default) -> String {
    let paint = Paint::to(&std::io::stdout());
    let part = |head: &str, words: [&str; 3], rows: &Rows| {
        let head = [head.to_owned(), words[0].into(), "WHY NOT".into(), "REMEDY".into()];
        let rows: Vec<_> =
            std::iter::once(head).chain(rows.iter().map(|(name, verdict)| cells(name, verdict))).collect();
        table::columns(&rows, |row, column, cell| match (row, column, cell) {
            (0, _, cell) => paint.bold(cell),
            (_, 1, "yes") => paint.green(cell),
            (_, 1, "no") => paint.red(cell),
            (_, 1, "unknown") => paint.yellow(cell),
            _ => cell.to_owned(),
        })
    };
    let mut text = part("LAYER", ["WORKS", "", ""], layers);
    text.push('\n');
    text.push_str(&part("LEVEL", ["AVAILABLE", "", ""], levels));
    text.push('\n');
    text.push_str(&match &default.verdict {
        Verdict::Works => {
            format!("{}: the policy `default` runs here ({})\n", paint.green("ok"), default.how)
        }
        Verdict::Fails(why, remedy) => {
            let remedy = remedy.as_ref().map(|remedy| format!("; {remedy}")).unwrap_or_default();
            let why = escape::line(format!("{why}{remedy}").as_bytes());
            format!("{}: the policy `default` can't run here: {why}\n", paint.red("not ok"))
        }
        Verdict::Unknown(why) => format!("{}: {}\n", paint.yellow("unknown"), escape::line(why.as_bytes())),
    });
    if let Some(paths) = directories_line() {
        text.push_str(&paths);
    }
    text
}

fn directories_line() -> Option<String> {
    let known: Vec<_> =
        sources::directories().into_iter().map(|(path, _)| path).filter(|path| path.exists()).collect();
    let shown: Vec<_> = known.iter().map(|path| escape::line(path.as_os_str().as_encoded_bytes())).collect();
    if shown.is_empty() { None } else { Some(format!("policies of this machine: {}\n", shown.join(", "))) }
}

fn cells(name: &str, verdict: &Verdict) -> [String; 4] {
    let (word, why, remedy) = match verdict {
        Verdict::Works => ("yes", "", ""),
        Verdict::Fails(why, remedy) => ("no", why.as_str(), remedy.as_deref().unwrap_or("")),
        Verdict::Unknown(why) => ("unknown", why.as_str(), ""),
    };
    [name.to_owned(), word.to_owned(), escape::line(why.as_bytes()), escape::line(remedy.as_bytes())]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn results(of: impl Fn(&Canary) -> i32) -> Results {
        ALL.iter().map(|canary| (canary.name.to_owned(), of(canary))).collect()
    }

    fn confined() -> Results {
        results(|canary| if canary.must == Must::Fail { 1 } else { 0 })
    }

    fn seen(level: Level, canaries: Results) -> Seen {
        Seen { level, canaries: Ok(canaries) }
    }

    #[test]
    fn a_machine_where_all_holds_has_every_layer_and_level() {
        let control = results(|_| 0);
        let all = [Level::Strict, Level::Moderate, Level::Minimal].map(|level| seen(level, confined()));
        for layer in LAYERS.into_iter().filter(|layer| *layer != Layer::Resources) {
            assert_eq!(of_layer(layer, &all, &control), Verdict::Works, "{layer:?}");
        }
        assert!(all.iter().all(|seen| of_level(seen, &control) == Verdict::Works));
    }

    #[test]
    fn a_canary_that_gets_through_fails_its_layer() {
        let through = results(|canary| i32::from(canary.must == Must::Fail && canary.name != "setuid-bit"));
        let verdict = of_layer(Layer::Seccomp, &[seen(Level::Strict, through)], &results(|_| 0));
        assert_eq!(verdict, Verdict::Fails("a run could set a file's setuid bit".into(), None));
    }

    #[test]
    fn a_layer_that_denies_what_must_work_fails() {
        let tight = results(|_| 13);
        let verdict = of_layer(Layer::Root, &[seen(Level::Strict, tight)], &results(|_| 0));
        assert!(matches!(verdict, Verdict::Fails(why, _) if why.contains("could not")));
    }

    #[test]
    fn what_fails_without_confinement_too_proves_nothing() {
        let control = results(|canary| i32::from(canary.name == "connect-host"));
        let verdict = of_layer(Layer::Network, &[seen(Level::Strict, confined())], &control);
        assert!(matches!(verdict, Verdict::Unknown(_)), "{verdict:?}");
    }

    #[test]
    fn an_answer_that_is_missing_is_no_success() {
        let verdict = of_layer(Layer::Seccomp, &[seen(Level::Strict, BTreeMap::new())], &results(|_| 0));
        assert!(matches!(verdict, Verdict::Fails(..)));
    }

    #[test]
    fn forbidden_namespaces_fail_their_layer_and_leave_what_was_not_reached_unknown() {
        let refusal =
            Refusal { stage: Some(SetupStage::UserNamespace), why: "forbidden".into(), remedy: None };
        let none = |level| Seen { level, canaries: Err(refusal.clone()) };
        let all = [none(Level::Strict), none(Level::Moderate), seen(Level::Minimal, confined())];
        let control = results(|_| 0);
        assert!(matches!(of_layer(Layer::Namespaces, &all, &control), Verdict::Fails(..)));
        assert!(matches!(of_layer(Layer::Root, &all, &control), Verdict::Unknown(_)));
        assert_eq!(of_layer(Layer::Seccomp, &all, &control), Verdict::Works);
        assert_eq!(of_layer(Layer::Landlock, &all, &control), Verdict::Works);
    }
}
