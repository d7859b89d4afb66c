//! `make -j2` of a generated C project: under policy `build` and in the other jails, beside the same outside.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use stockade_client::Request;

use super::Axis;
use crate::daemon::{DEFAULT, Daemon};
use crate::error::BenchError;
use crate::ground::{Ground, write};
use crate::others::{JAILS, installed};
use crate::ours;
use crate::results::{Better, Results};
use crate::rounds::{Case, Entrants, Variant, interleave};
use crate::session::Session;
use crate::spawn;
use crate::variants::BARE;

pub(crate) const AXIS: Axis = Axis {
    name: "build",
    rounds: 5,
    round: Duration::from_millis(12_000),
    besides: Duration::from_secs(15),
    measure,
};
/// Sources, and functions in each: about what a small library has.
const FILES: u32 = 24;
const FUNCTIONS: u32 = 40;
const MAKE: [&str; 3] = ["/usr/bin/make", "-s", "-j2"];
const CASE: &str = "make -j2";

fn measure(session: &mut Session) -> Result<Results, BenchError> {
    let rounds = session.rounds(&AXIS);
    let (mut results, mut shuffle) = session.begin(&AXIS);
    if let Some(missing) = ["make", "gcc"].into_iter().find(|program| installed(program).is_none()) {
        results.not_measured(CASE, "all", format!("{missing} is not installed"));
        return Ok(results);
    }
    let project = project(&session.ground)?;
    let daemon = Daemon::start(&session.ground, DEFAULT)?;
    let mut entrants = Entrants::default();
    let outside = || {
        let mut command = spawn::command(MAKE[0]);
        command.args(&MAKE[1..]).current_dir(&project);
        command
    };
    entrants.add(BARE, Ok(Variant::new(BARE, || make(session, &project, outside))));
    for (name, policy) in [("warm", "build"), ("minimal", "minimal")] {
        if session.only.wants(name) {
            entrants.add(name, inside(&project, &daemon, name, policy));
        }
    }
    for jail in JAILS.into_iter().filter(|jail| session.only.wants(jail.name)) {
        let (session, project) = (&*session, &project);
        let variant = jail.prepare(&session.ground, project, &MAKE);
        let variant =
            variant.map(|mut next| Variant::new(jail.name, move || make(session, project, &mut next)));
        entrants.add(jail.name, variant.map(|variant| variant.against(BARE)));
    }
    let case = Case { name: CASE, unit: "ms", better: Better::Less, rounds };
    interleave(&mut results, &mut shuffle, case, entrants);
    Ok(results)
}

/// A program of [`FILES`] sources.
fn project(ground: &Ground) -> Result<PathBuf, BenchError> {
    let project = ground.directory("project")?;
    let mut objects = String::new();
    let mut calls = String::new();
    let mut declarations = String::new();
    for file in 0..FILES {
        write(&project.join(format!("part{file}.c")), &source(file))?;
        let _ = write!(objects, " part{file}.o");
        let _ = writeln!(declarations, "int part{file}(int);");
        let _ = write!(calls, " + part{file}(count)");
    }
    write(
        &project.join("main.c"),
        &format!(
            "{declarations}int main(int count, char **words) {{ (void)words; return (0{calls}) == 42; }}\n"
        ),
    )?;
    let make =
        format!("CFLAGS = -O1\nprogram: main.o{objects}\n\tcc -o $@ $^\nclean:\n\trm -f program *.o\n");
    write(&project.join("Makefile"), &make)?;
    Ok(project)
}

fn source(file: u32) -> String {
    let mut text = String::from("#include <stdio.h>\n#include <stdlib.h>\n#include <string.h>\n");
    let mut calls = String::new();
    for function in 0..FUNCTIONS {
        let _ = writeln!(
            text,
            "static int f{function}(int n) {{ char b[64]; int s = n; for (int i = 0; i < n % 50; i++) {{ \
             snprintf(b, sizeof b, \"%d\", i * {file}); s += (int)strlen(b) ^ atoi(b); }} return s; }}"
        );
        let _ = write!(calls, " + f{function}(n)");
    }
    let _ = writeln!(text, "int part{file}(int n) {{ return 0{calls}; }}");
    text
}

/// Makes the project anew by this command; what was built before goes first, outside of the time.
fn make(session: &Session, project: &Path, next: impl FnMut() -> Command) -> Result<f64, BenchError> {
    clean(project)?;
    built(project, spawn::whole(&session.null, next)?)
}

fn inside<'a>(
    project: &'a Path,
    daemon: &Daemon,
    name: &str,
    policy: &str,
) -> Result<Variant<'a>, BenchError> {
    let mut client = daemon.connect()?;
    let request = Request::new(MAKE).policy(policy).variable("PATH", spawn::PATH).workspace(project);
    let request = request.map_err(BenchError::io("open the project"))?;
    Ok(Variant::new(name, move || {
        clean(project)?;
        let took = ours::timed(&mut client, &request)?;
        built(project, took)
    })
    .against(BARE))
}

fn clean(project: &Path) -> Result<(), BenchError> {
    let mut command = spawn::command(MAKE[0]);
    spawn::tried(command.args(["-s", "clean"]).current_dir(project)).map(drop)
}

/// The time in milliseconds; none of a build that built nothing.
fn built(project: &Path, micros: f64) -> Result<f64, BenchError> {
    match project.join("program").exists() {
        true => Ok(micros / 1e3),
        false => Err(BenchError::Wrong("make ended well and built nothing".into())),
    }
}
