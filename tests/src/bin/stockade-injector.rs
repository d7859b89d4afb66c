//! `stockade-injector SOCKET CALLS PROGRAM [ARGUMENT…]`: says on the socket that it is there, has the calls named (by commas)
//! wait for whoever listens there, of itself and all that it starts, and becomes the program.
//!
//! The listener takes the descriptor out of this process (pidfd_getfd(2)), while `execve`, which is always among the calls,
//! waits: nothing could be sent any more once calls wait.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test's program fails loudly")]
#![allow(clippy::disallowed_methods, reason = "it becomes another program")]

use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use syscalls::Sysno;

fn main() {
    let mut arguments = std::env::args_os().skip(1);
    let socket = arguments.next().unwrap();
    let names = arguments.next().unwrap().into_string().unwrap();
    let program = arguments.next().unwrap();
    let mut calls: Vec<Sysno> = names.split(',').filter_map(|name| name.parse().ok()).collect();
    if !calls.contains(&Sysno::execve) {
        calls.push(Sysno::execve);
    }
    let mut command = Command::new(program);
    command.args(arguments);
    let _said = UnixStream::connect(socket).unwrap();
    let _listener = stockade_tests::seccomp::hold_up(&calls).unwrap();
    let error = command.exec();
    panic!("{error}");
}
