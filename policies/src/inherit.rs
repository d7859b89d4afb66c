//! What a policy has of its parent.
//!
//! | values | in a child |
//! |---|---|
//! | texts, numbers, sizes, times, truths, port lists | the child's, where it states one |
//! | lists that allow (`read`, `write`, `execute`, `dev`, `environment.allow`, `syscalls.allow`) | the parent's and the child's together; a child's empty list allows nothing |
//! | lists that take away (`deny`, `protect`, `syscalls.deny`, `output.secrets`) | the parent's and the child's together, always: none is ever lost |
//! | `environment.default`, `environment.set` | name by name |
//! | `description` | the child's own only |

use std::collections::BTreeMap;

use crate::document::{Document, Environment, Filesystem, Limits, Network, Output, RunAs, Syscalls};
use crate::position::Located;

type List<T> = Option<Vec<Located<T>>>;

/// The child with what it has of its parent. The parent is effective already.
pub(crate) fn inherit(child: Document, parent: Document) -> Document {
    Document {
        description: child.description,
        extends: child.extends,
        level: child.level.or(parent.level),
        filesystem: filesystem(child.filesystem, parent.filesystem),
        network: network(child.network, parent.network),
        environment: environment(child.environment, parent.environment),
        limits: limits(child.limits, parent.limits),
        output: output(child.output, parent.output),
        syscalls: syscalls(child.syscalls, parent.syscalls),
        run_as: run_as(child.run_as, parent.run_as),
    }
}

/// A list that allows.
fn allowed<T>(child: List<T>, parent: List<T>) -> List<T> {
    match child {
        None => parent,
        Some(own) if own.is_empty() => Some(own),
        Some(own) => Some(both(parent, own)),
    }
}

/// A list that takes away.
fn taken<T>(child: List<T>, parent: List<T>) -> List<T> {
    match child {
        None => parent,
        Some(own) => Some(both(parent, own)),
    }
}

/// The parent's first.
fn both<T>(parent: List<T>, own: Vec<Located<T>>) -> Vec<Located<T>> {
    let mut all = parent.unwrap_or_default();
    all.extend(own);
    all
}

fn filesystem(child: Filesystem, parent: Filesystem) -> Filesystem {
    Filesystem {
        read: allowed(child.read, parent.read),
        write: allowed(child.write, parent.write),
        execute: allowed(child.execute, parent.execute),
        deny: taken(child.deny, parent.deny),
        protect: taken(child.protect, parent.protect),
        tmp_size: child.tmp_size.or(parent.tmp_size),
        hidden_home: child.hidden_home.or(parent.hidden_home),
        dev: allowed(child.dev, parent.dev),
    }
}

fn network(child: Network, parent: Network) -> Network {
    Network {
        mode: child.mode.or(parent.mode),
        tcp_connect: child.tcp_connect.or(parent.tcp_connect),
        tcp_bind: child.tcp_bind.or(parent.tcp_bind),
    }
}

fn environment(child: Environment, parent: Environment) -> Environment {
    let by_name = |child, mut parent: BTreeMap<_, _>| {
        parent.extend::<BTreeMap<String, Located<String>>>(child);
        parent
    };
    Environment {
        allow: allowed(child.allow, parent.allow),
        default: by_name(child.default, parent.default),
        set: by_name(child.set, parent.set),
    }
}

fn limits(child: Limits, parent: Limits) -> Limits {
    Limits {
        wall_time: child.wall_time.or(parent.wall_time),
        cpu_time: child.cpu_time.or(parent.cpu_time),
        idle_time: child.idle_time.or(parent.idle_time),
        memory: child.memory.or(parent.memory),
        processes: child.processes.or(parent.processes),
        open_files: child.open_files.or(parent.open_files),
        file_size: child.file_size.or(parent.file_size),
        output: child.output.or(parent.output),
        stdin: child.stdin.or(parent.stdin),
        core: child.core.or(parent.core),
        stack: child.stack.or(parent.stack),
        address_space: child.address_space.or(parent.address_space),
        nice: child.nice.or(parent.nice),
        io_priority: child.io_priority.or(parent.io_priority),
    }
}

fn output(child: Output, parent: Output) -> Output {
    Output { redact: child.redact.or(parent.redact), secrets: taken(child.secrets, parent.secrets) }
}

fn syscalls(child: Syscalls, parent: Syscalls) -> Syscalls {
    Syscalls {
        profile: child.profile.or(parent.profile),
        allow: allowed(child.allow, parent.allow),
        deny: taken(child.deny, parent.deny),
    }
}

fn run_as(child: RunAs, parent: RunAs) -> RunAs {
    RunAs { user: child.user.or(parent.user), range: child.range.or(parent.range) }
}
