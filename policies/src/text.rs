//! A policy as text again, with everything it has of its parents and every default.

use core::fmt::Display;
use std::fmt::Write as _;

use stockade_protocol::spec::Ports;

use crate::names::{User, io_text, level_text, mode_text};
use crate::policy::Policy;
use crate::position::Located;

/// The whole policy.
pub(crate) fn whole(policy: &Policy) -> String {
    let mut text = Text(String::new());
    text.entry("name", quoted(&policy.name));
    text.entry("description", quoted(policy.description()));
    text.entry("level", quoted(level_text(policy.level.value)));
    filesystem(&mut text, policy);
    text.section("network");
    text.entry("mode", quoted(mode_text(policy.mode.value)));
    text.entry("tcp-connect", ports(&policy.network.tcp_connect));
    text.entry("tcp-bind", ports(&policy.network.tcp_bind));
    let environment = &policy.document.environment;
    text.section("environment");
    text.list("allow", environment.allow.as_deref());
    for (section, variables) in
        [("environment.default", &environment.default), ("environment.set", &environment.set)]
    {
        text.section(section);
        for (name, value) in variables {
            text.entry(name, quoted(&value.value));
        }
    }
    limits(&mut text, policy);
    let output = &policy.document.output;
    text.section("output");
    if let Some(redact) = &output.redact {
        text.entry("redact", redact.value);
    }
    text.list("secrets", output.secrets.as_deref());
    let syscalls = &policy.document.syscalls;
    text.section("syscalls");
    if let Some(profile) = &syscalls.profile {
        text.entry("profile", quoted(&profile.value));
    }
    text.list("allow", syscalls.allow.as_deref());
    text.list("deny", syscalls.deny.as_deref());
    text.section("run-as");
    text.entry("user", quoted(if policy.user.value == User::Caller { "caller" } else { "ephemeral" }));
    if policy.trusted {
        text.entry("range", quoted(policy.range));
    }
    text.0
}

fn filesystem(text: &mut Text, policy: &Policy) {
    let filesystem = &policy.document.filesystem;
    text.section("filesystem");
    text.list("read", filesystem.read.as_deref());
    text.list("write", filesystem.write.as_deref());
    text.list("execute", filesystem.execute.as_deref());
    text.list("deny", filesystem.deny.as_deref());
    text.list("protect", filesystem.protect.as_deref());
    if let Some(size) = &filesystem.tmp_size {
        text.entry("tmp-size", quoted(size.value));
    }
    text.entry("hidden-home", filesystem.hidden_home.as_ref().is_some_and(|hidden| hidden.value));
    text.list("dev", filesystem.dev.as_deref());
}

fn limits(text: &mut Text, policy: &Policy) {
    let limits = &policy.limits;
    text.section("limits");
    text.entry("wall-time", quoted(limits.wall_time));
    text.entry("cpu-time", quoted(limits.cpu_time));
    text.entry("idle-time", quoted(limits.idle_time));
    text.entry("memory", quoted(limits.memory));
    text.entry("processes", limits.processes);
    text.entry("open-files", limits.open_files);
    text.entry("file-size", quoted(limits.file_size));
    text.entry("output", quoted(limits.output));
    text.entry("stdin", quoted(limits.stdin));
    text.entry("core", quoted(limits.core));
    text.entry("stack", quoted(limits.stack));
    text.entry("address-space", quoted(limits.address_space));
    text.entry("nice", limits.nice);
    text.entry("io-priority", quoted(io_text(limits.io_priority)));
}

struct Text(String);

impl Text {
    fn section(&mut self, name: &str) {
        // Writing to a string doesn't fail.
        let _ = writeln!(self.0, "\n[{name}]");
    }

    fn entry(&mut self, key: &str, value: impl Display) {
        let _ = writeln!(self.0, "{key} = {value}");
    }

    fn list<T: Display>(&mut self, key: &str, list: Option<&[Located<T>]>) {
        let elements: Vec<String> =
            list.unwrap_or_default().iter().map(|element| quoted(&element.value)).collect();
        let line: usize = elements.iter().map(|element| element.len() + 2).sum();
        if line <= 90 {
            self.entry(key, format_args!("[{}]", elements.join(", ")));
        } else {
            self.entry(key, format_args!("[\n    {},\n]", elements.join(",\n    ")));
        }
    }
}

fn ports(ports: &Ports) -> String {
    match ports {
        Ports::Any => quoted("any"),
        Ports::Only(list) => {
            let list: Vec<String> = list.iter().map(u16::to_string).collect();
            format!("[{}]", list.join(", "))
        }
    }
}

/// A basic TOML string.
#[must_use]
pub fn quoted(text: impl Display) -> String {
    let mut quoted = String::from("\"");
    for character in text.to_string().chars() {
        match character {
            '"' | '\\' => quoted.extend(['\\', character]),
            character if character.is_control() => {
                let _ = write!(quoted, "\\u{:04X}", u32::from(character));
            }
            character => quoted.push(character),
        }
    }
    quoted.push('"');
    quoted
}
