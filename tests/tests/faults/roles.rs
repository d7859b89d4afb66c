//! Which of our processes is which.

use stockade_tests::left;

/// What a process is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Role {
    /// Answers clients.
    Supervisor,
    /// Makes workers.
    Launcher,
    /// Reads output.
    Relay,
    /// Looks at runs.
    Monitor,
    /// Reads for the monitor.
    Survey,
    /// Removes placeholders.
    Sweep,
    /// Clones workers.
    Template,
    /// Cloned, and hasn't its name yet.
    Worker,
    /// A run's first process.
    Init,
    /// Of a run, before it becomes the tool, or beside its init.
    Child,
    /// Not yet what it will be.
    Newborn,
    /// The command, or what it started.
    Tool,
}

/// A process, by any of its threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Known {
    pub(crate) pid: u32,
    pub(crate) role: Role,
}

/// What a thread belongs to; `None` if it's gone.
pub(crate) fn of(thread: u32, supervisor: u32) -> Option<Known> {
    let status = std::fs::read_to_string(format!("/proc/{thread}/status")).ok()?;
    let value = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    let pid = value("Tgid:")?.parse().ok()?;
    let mut inside = value("NSpid:")?.split_whitespace();
    let (levels, innermost) = (inside.clone().count(), inside.next_back()?);
    let role = match value("Name:")? {
        _ if pid == supervisor => Role::Supervisor,
        "stockade-launch" => Role::Launcher,
        "stockade-relay" => Role::Relay,
        "stockade-monito" => Role::Monitor,
        "stockade-survey" => Role::Survey,
        "stockade-sweep" => Role::Sweep,
        "stockade-templa" if levels == 1 => Role::Template,
        "stockade-templa" => Role::Worker,
        "stockade-init" if levels == 1 || innermost == "1" => Role::Init,
        "stockade-init" => Role::Child,
        "stockade" | "exe" | "stockade-inject" => Role::Newborn,
        _ => Role::Tool,
    };
    Some(Known { pid, role })
}

/// The processes of a role beneath some others, or among them.
pub(crate) fn beneath(roots: &[u32], role: Role, supervisor: u32) -> Vec<u32> {
    let trees = roots.iter().flat_map(|root| left::tree(*root));
    let mut found: Vec<u32> = trees
        .filter(|process| process.state != 'Z')
        .filter(|process| of(process.pid, supervisor).is_some_and(|known| known.role == role))
        .map(|process| process.pid)
        .collect();
    found.sort_unstable();
    found.dedup();
    found
}
