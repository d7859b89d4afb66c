//! What of the policies' data is worked out when the crate is built, so that no run waits for it: the tables of
//! system calls (`calls`), from `syscalls/*.txt`, the rules on their arguments (`rules`), from
//! `src/syscalls/arguments.rs`, and the filters of shipped policies (`filters`), of both; and the shipped policies (`profiles`), from `profiles/*.toml`. A wrong data file fails
//! the build.

#[allow(dead_code, reason = "the crate's own file: it has the words of answers, too")]
#[path = "../src/syscalls/arguments.rs"]
mod arguments;
#[path = "../src/syscalls/assemble.rs"]
mod assemble;
mod calls;
#[path = "../src/syscalls/filter.rs"]
mod filter;
mod filters;
mod listing;
mod profiles;
mod rules;
#[allow(dead_code, unreachable_pub, reason = "the crate's own file: it has more than the build asks")]
#[path = "../src/syscalls/sets.rs"]
mod sets;
mod shorten;
mod table;

use std::error::Error;
use std::io::Write as _;
use std::path::Path;
use std::{env, fs, io};

fn main() -> Result<(), Box<dyn Error>> {
    let out = env::var_os("OUT_DIR").ok_or("OUT_DIR is not set: cargo starts build scripts")?;
    depend_on("build")?;
    let [standard, minimal, init, never] = listing::FILES.map(read);
    let texts = [standard?, minimal?, init?, never?];
    for shared in ["arguments", "assemble", "filter", "sets"] {
        depend_on(&format!("src/syscalls/{shared}.rs"))?;
    }
    let names = calls::Names::new();
    fs::write(Path::new(&out).join("calls.rs"), calls::tables(&names, &texts)?)?;
    let rules = rules::compiled(&names.all)?;
    fs::write(Path::new(&out).join("rules.rs"), rules.tables())?;
    fs::write(Path::new(&out).join("filters.rs"), filters::built(&names, &rules, &texts)?)?;
    let texts = profiles::NAMES.map(|name| read(&format!("profiles/{name}.toml")));
    let texts = texts.into_iter().collect::<Result<Vec<_>, _>>()?;
    fs::write(Path::new(&out).join("profiles.rs"), profiles::built(&texts)?)?;
    Ok(())
}

/// A data file of this crate. Cargo starts build scripts in the crate's own folder.
fn read(file: &str) -> Result<String, String> {
    depend_on(file)
        .and_then(|()| fs::read_to_string(file))
        .map_err(|error| format!("cannot read {file}: {error}"))
}

/// Tells cargo what to build again for.
fn depend_on(path: &str) -> io::Result<()> {
    writeln!(io::stdout(), "cargo::rerun-if-changed={path}")
}
