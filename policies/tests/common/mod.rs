//! Requests and policies for the tests of this crate.
#![allow(clippy::unwrap_used, clippy::panic, dead_code, unreachable_pub, reason = "tests; each uses a part")]

use std::path::PathBuf;

use stockade_policies::{
    Answer, Policy, PolicyError, PolicySet, Question, ResolveError, ResolveRequest, Resolved, Source,
    Subject, Trust, resolve,
};
use stockade_protocol::client::Overrides;

pub const WORKSPACE: &str = "/home/u/project";

pub fn subject() -> Subject {
    Subject {
        owner_uid: 1000,
        owner_gid: 1000,
        home: "/home/u".into(),
        workspace: WORKSPACE.into(),
        overrides: Overrides::default(),
        user_mode: false,
    }
}

pub fn request() -> ResolveRequest {
    of(subject())
}

pub fn of(subject: Subject) -> ResolveRequest {
    ResolveRequest { subject, cwd: None, environment: Vec::new() }
}

pub fn source(name: &str, text: &str, trust: Trust) -> Source {
    Source { name: name.into(), file: format!("{name}.toml"), text: text.into(), trust }
}

pub fn set(sources: &[(&str, &str)]) -> Result<PolicySet, PolicyError> {
    PolicySet::from_sources(sources.iter().map(|(name, text)| source(name, text, Trust::Operator)).collect())
}

/// One policy of an operator's, called `p`.
pub fn policy(text: &str) -> Policy {
    match set(&[("p", text)]) {
        Ok(set) => set.get("p").unwrap().clone(),
        Err(error) => panic!("{error}\n{text}"),
    }
}

pub fn resolved(text: &str) -> Resolved {
    resolve(&policy(text), &request()).unwrap()
}

pub fn refused(text: &str, request: &ResolveRequest) -> ResolveError {
    resolve(&policy(text), request).unwrap_err()
}

pub fn read(resolved: &Resolved, path: &str) -> Answer {
    resolved.explain(&Question::Read(PathBuf::from(path)))
}

pub fn write(resolved: &Resolved, path: &str) -> Answer {
    resolved.explain(&Question::Write(PathBuf::from(path)))
}

pub fn execute(resolved: &Resolved, path: &str) -> Answer {
    resolved.explain(&Question::Execute(PathBuf::from(path)))
}

/// `target kind rwx`, a line a mount.
pub fn mounts(resolved: &Resolved) -> Vec<String> {
    use stockade_protocol::spec::MountKind;
    let line = |mount: &stockade_protocol::spec::Mount| {
        let kind = match &mount.kind {
            MountKind::Workspace => "workspace",
            MountKind::Bind { create: false } => "bind",
            MountKind::Bind { create: true } => "made",
            MountKind::Tmpfs { .. } => "tmpfs",
            MountKind::Proc => "proc",
            MountKind::Dev { .. } => "dev",
        };
        let flag = |holds: bool, letter: &str| if holds { letter.to_owned() } else { "-".to_owned() };
        let access = mount.access;
        format!(
            "{} {kind} {}{}{}",
            mount.target.to_text(),
            flag(access.read, "r"),
            flag(access.write, "w"),
            flag(access.execute, "x")
        )
    };
    resolved.spec.mounts.iter().map(line).collect()
}
