//! What a policy has of its parent.
//!
//! | values | in a child |
//! |---|---|
//! | texts, numbers, sizes, times, truths, port lists | the child's, where it states one |
//! | lists that allow (`read`, `write`, `execute`, `dev`, `environment.allow`, `syscalls.allow`) | the parent's and the child's together; a child's empty list allows nothing |
//! | lists that take away (`deny`, `protect`, `syscalls.deny`) | the parent's and the child's together, always: none is ever lost |
//! | `environment.default`, `environment.set` | name by name |
//! | `description` | the child's own only |

use std::collections::BTreeMap;

use crate::document::{Document, Environment, Filesystem, Limits, Network, RunAs, Syscalls};
use crate::position::Located;

type List<T> = Option<Vec<Located<T>>>;

/// The child with what it has of its parent. The parent is effective already.
pub(crate) fn inherit(child: Document, parent: &Document) -> Document {
    Document {
        description: child.description,
        extends: child.extends,
        level: child.level.or_else(|| parent.level.clone()),
        filesystem: filesystem(child.filesystem, &parent.filesystem),
        network: network(child.network, &parent.network),
        environment: environment(child.environment, &parent.environment),
        limits: limits(child.limits, &parent.limits),
        syscalls: syscalls(child.syscalls, &parent.syscalls),
        run_as: run_as(child.run_as, &parent.run_as),
    }
}

/// A list that allows.
fn allowed<T: Clone>(child: List<T>, parent: &List<T>) -> List<T> {
    match child {
        None => parent.clone(),
        Some(own) if own.is_empty() => Some(own),
        Some(own) => Some(parent.iter().flatten().cloned().chain(own).collect()),
    }
}

/// A list that takes away.
fn taken<T: Clone>(child: List<T>, parent: &List<T>) -> List<T> {
    match (child, parent) {
        (None, None) => None,
        (child, parent) => {
            Some(parent.iter().flatten().cloned().chain(child.into_iter().flatten()).collect())
        }
    }
}

fn filesystem(child: Filesystem, parent: &Filesystem) -> Filesystem {
    Filesystem {
        read: allowed(child.read, &parent.read),
        write: allowed(child.write, &parent.write),
        execute: allowed(child.execute, &parent.execute),
        deny: taken(child.deny, &parent.deny),
        protect: taken(child.protect, &parent.protect),
        tmp_size: child.tmp_size.or_else(|| parent.tmp_size.clone()),
        hidden_home: child.hidden_home.or_else(|| parent.hidden_home.clone()),
        dev: allowed(child.dev, &parent.dev),
    }
}

fn network(child: Network, parent: &Network) -> Network {
    Network {
        mode: child.mode.or_else(|| parent.mode.clone()),
        tcp_connect: child.tcp_connect.or_else(|| parent.tcp_connect.clone()),
        tcp_bind: child.tcp_bind.or_else(|| parent.tcp_bind.clone()),
    }
}

fn environment(child: Environment, parent: &Environment) -> Environment {
    let by_name = |child, parent: &BTreeMap<_, _>| {
        let mut joined = parent.clone();
        joined.extend::<BTreeMap<String, Located<String>>>(child);
        joined
    };
    Environment {
        allow: allowed(child.allow, &parent.allow),
        default: by_name(child.default, &parent.default),
        set: by_name(child.set, &parent.set),
    }
}

fn limits(child: Limits, parent: &Limits) -> Limits {
    Limits {
        wall_time: child.wall_time.or_else(|| parent.wall_time.clone()),
        cpu_time: child.cpu_time.or_else(|| parent.cpu_time.clone()),
        idle_time: child.idle_time.or_else(|| parent.idle_time.clone()),
        memory: child.memory.or_else(|| parent.memory.clone()),
        processes: child.processes.or_else(|| parent.processes.clone()),
        open_files: child.open_files.or_else(|| parent.open_files.clone()),
        file_size: child.file_size.or_else(|| parent.file_size.clone()),
        output: child.output.or_else(|| parent.output.clone()),
        stdin: child.stdin.or_else(|| parent.stdin.clone()),
        core: child.core.or_else(|| parent.core.clone()),
        stack: child.stack.or_else(|| parent.stack.clone()),
        address_space: child.address_space.or_else(|| parent.address_space.clone()),
        nice: child.nice.or_else(|| parent.nice.clone()),
        io_priority: child.io_priority.or_else(|| parent.io_priority.clone()),
    }
}

fn syscalls(child: Syscalls, parent: &Syscalls) -> Syscalls {
    Syscalls {
        profile: child.profile.or_else(|| parent.profile.clone()),
        allow: allowed(child.allow, &parent.allow),
        deny: taken(child.deny, &parent.deny),
    }
}

fn run_as(child: RunAs, parent: &RunAs) -> RunAs {
    RunAs {
        user: child.user.or_else(|| parent.user.clone()),
        range: child.range.or_else(|| parent.range.clone()),
    }
}
