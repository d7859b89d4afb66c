//! Single layers, each timed within a process of its own that does nothing else and then ends.

use std::ffi::OsString;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};

use super::layers::{self, Group, OTHERS};
use crate::error::BenchError;
use crate::role;
use crate::spawn::{self, Null, micros};

/// The role.
pub(crate) const STEP: &str = "role-step";
/// How many network namespaces of a process there may be. The kernel clears away at once all that wait for it, and each time
/// waits itself: with few, those waits are what is measured.
const AT_ONCE: u32 = 512;
/// Those that are made until each takes as long as the next, and those that count.
const RAMP: u32 = AT_ONCE;
const COUNTED: u32 = AT_ONCE;
/// How long all of that may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between two looks whether the kernel has let a network namespace go.
const LOOK: Duration = Duration::from_micros(20);

/// One step: the name of its variant, and what takes its time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Step {
    /// The variant.
    pub(crate) name: &'static str,
    timed: fn(&Path) -> Result<f64, BenchError>,
}

/// One that takes half a second, many times over.
pub(crate) const LONG: Step = Step { name: "net-ns-gone", timed: network_namespaces_in_turn };
/// The others.
pub(crate) const STEPS: [Step; 8] = [
    Step { name: "user-ns", timed: |_| took(layers::user_namespace) },
    Step { name: "other-ns", timed: other_namespaces },
    Step { name: "net-ns", timed: network_namespace },
    Step { name: "root", timed: root },
    Step { name: "filter", timed: filter },
    Step { name: "cgroup", timed: |_| in_group(|group| took(|| group.make().and_then(|()| group.remove()))) },
    Step { name: "cgroup-joined", timed: |_| in_group(joined) },
    Step { name: "fresh", timed: fresh },
];

impl Step {
    /// Takes it once, with this directory to mount on; in microseconds.
    pub(crate) fn take(self, place: &Path) -> Result<f64, BenchError> {
        role::number(STEP, &[self.name.as_ref(), place.as_os_str()])
    }
}

/// The role: a step's name and a directory.
pub(crate) fn run(words: &[OsString]) -> Result<(), BenchError> {
    let [name, place] = words else { return Err(BenchError::Wrong("a step has a name and a place".into())) };
    let step = STEPS.into_iter().chain([LONG]).find(|step| *name == *step.name);
    let step = step.ok_or_else(|| BenchError::Wrong(format!("no step is named {}", name.display())))?;
    crate::out::print(&format!("{}\n", (step.timed)(place.as_ref())?))
}

fn took(step: impl FnOnce() -> Result<(), BenchError>) -> Result<f64, BenchError> {
    let began = Instant::now();
    step()?;
    Ok(micros(began.elapsed()))
}

fn other_namespaces(_: &Path) -> Result<f64, BenchError> {
    layers::rights()?;
    took(|| layers::namespaces(OTHERS))
}

fn network_namespace(_: &Path) -> Result<f64, BenchError> {
    layers::rights()?;
    took(|| layers::namespaces(CloneFlags::CLONE_NEWNET))
}

/// Makes them one after the other where only so many may be at once: from there on one is made for each that the kernel
/// has cleared away, and takes what both take.
fn network_namespaces_in_turn(_: &Path) -> Result<f64, BenchError> {
    layers::user_namespace()?;
    std::fs::write("/proc/sys/user/max_net_namespaces", AT_ONCE.to_string())
        .map_err(BenchError::io("bound the network namespaces"))?;
    let began = Instant::now();
    let next = || loop {
        match unshare(CloneFlags::CLONE_NEWNET) {
            Err(Errno::ENOSPC) if began.elapsed() < PATIENCE => spawn::moment(LOOK),
            ended => return ended.map_err(BenchError::nix("make a network namespace")),
        }
    };
    (0..RAMP).try_for_each(|_| next())?;
    Ok(took(|| (0..COUNTED).try_for_each(|_| next()))? / f64::from(COUNTED))
}

fn root(place: &Path) -> Result<f64, BenchError> {
    layers::rights()?;
    layers::namespaces(CloneFlags::CLONE_NEWNS)?;
    took(|| layers::root(place))
}

fn filter(_: &Path) -> Result<f64, BenchError> {
    let programs = layers::filters()?;
    took(|| layers::filter(&programs))
}

fn in_group(step: impl FnOnce(&Group) -> Result<f64, BenchError>) -> Result<f64, BenchError> {
    step(&Group::named(&format!("stockade-bench-{}", std::process::id()))?)
}

fn joined(group: &Group) -> Result<f64, BenchError> {
    group.make()?;
    let joined = took(|| group.join());
    // Once it's made it goes, whatever came between.
    let left = group.leave().and_then(|()| group.remove());
    joined.and_then(|took| left.map(|()| took))
}

/// A spawn of `/bin/true` in new namespaces of every kind, until it has ended.
fn fresh(_: &Path) -> Result<f64, BenchError> {
    let null = Null::open()?;
    let mut command = spawn::command("/bin/true");
    null.give(&mut command)?;
    took(|| {
        layers::user_namespace()?;
        layers::namespaces(OTHERS | CloneFlags::CLONE_NEWNET)?;
        spawn::timed(&mut command).map(drop)
    })
}
