//! What of the policies' data is worked out when the crate is built, so that no run waits for it: the tables of
//! system calls (`calls`), from `syscalls/*.txt`. A wrong data file fails the build.

mod calls;
mod listing;

use std::error::Error;
use std::io::Write as _;
use std::path::Path;
use std::{env, fs, io};

fn main() -> Result<(), Box<dyn Error>> {
    let out = env::var_os("OUT_DIR").ok_or("OUT_DIR is not set: cargo starts build scripts")?;
    depend_on("build")?;
    let [standard, minimal, init, never] = listing::FILES.map(read);
    let texts = [standard?, minimal?, init?, never?];
    fs::write(Path::new(&out).join("calls.rs"), calls::tables(&texts)?)?;
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
