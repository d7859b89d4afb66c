//! The tables of system calls as Rust: names and numbers from the `syscalls` crate, profiles from the data files.
//! `src/syscalls/table.rs` includes them and has their types.
//!
//! Names and reasons are offsets into one text and not references: references would have to be relocated at the
//! start of every process, and there is one for each step of a run.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};

use syscalls::{aarch64, x86_64};

use crate::listing::{self, Calls, FILES};
use crate::sets::Call;

/// Numbers are looked for below this; no architecture here has one above.
const NUMBERS: u16 = 1024;
/// What `src/syscalls/table.rs` has bits for.
const MOST: usize = 512;

/// Every name, sorted, and for each architecture of `Arch::ALL` the numbers of those that it has.
pub(crate) struct Names {
    pub(crate) all: Vec<&'static str>,
    numbers: [BTreeMap<&'static str, u16>; 2],
}

impl Names {
    pub(crate) fn new() -> Self {
        let numbers = [
            numbered(|id| Some(x86_64::Sysno::new(id)?.name())),
            numbered(|id| Some(aarch64::Sysno::new(id)?.name())),
        ];
        let mut all: Vec<_> = numbers.iter().flat_map(|table| table.keys().copied()).collect();
        all.sort_unstable();
        all.dedup();
        Self { all, numbers }
    }

    /// A call by its name.
    pub(crate) fn call(&self, name: &str) -> Option<Call> {
        u16::try_from(self.all.binary_search(&name).ok()?).ok().map(Call)
    }

    /// Every call by rising number, in the order of `Arch::ALL`.
    pub(crate) fn by_number(&self) -> [Vec<(u32, Call)>; 2] {
        self.numbers.each_ref().map(|table| {
            let numbered = |(name, number): (&&str, &u16)| Some((u32::from(*number), self.call(name)?));
            let mut calls: Vec<_> = table.iter().filter_map(numbered).collect();
            calls.sort_unstable();
            calls
        })
    }
}

/// The tables, from the texts of [`FILES`].
pub(crate) fn tables(names: &Names, texts: &[String; 4]) -> Result<String, String> {
    let Names { all: names, numbers } = names;
    if names.len() > MOST {
        return Err(format!("{} system calls are over the {MOST} of a set; raise both", names.len()));
    }
    let texts = texts.each_ref().map(String::as_str);
    let profiles = listing::read(texts, &|name| names.binary_search(&name).is_ok())?;
    let mut out = String::new();
    write_names(&mut out, names, numbers).map_err(|error| error.to_string())?;
    let profile =
        |name: &str| profiles.named.get(name).ok_or_else(|| format!("there is no profile `{name}`"));
    let lists = [
        ("STANDARD", profile("standard")?),
        ("MINIMAL", profile("minimal")?),
        ("INIT", &profiles.init),
        ("NEVER", &profiles.never),
    ];
    let mut reasons = String::new();
    for (name, calls) in lists {
        write_list(&mut out, name, calls, names, &mut reasons)?;
    }
    writeln!(out, "const FILES: [&str; 4] = {FILES:?};\nconst REASONS: &str = {reasons:?};")
        .map_err(|error| error.to_string())?;
    Ok(out)
}

fn numbered(name: impl Fn(usize) -> Option<&'static str>) -> BTreeMap<&'static str, u16> {
    (0..NUMBERS).filter_map(|number| Some((name(usize::from(number))?, number))).collect()
}

/// Every name, and for each architecture its calls by number.
fn write_names(out: &mut String, names: &[&str], numbers: &[BTreeMap<&str, u16>; 2]) -> fmt::Result {
    writeln!(out, "const NAMES: &str = {:?};", names.concat())?;
    writeln!(out, "static CALLS: [Named; {}] = [", names.len())?;
    let mut start = 0;
    for name in names {
        let [x86_64, aarch64] = numbers.each_ref().map(|table| table.get(name).copied());
        let end = start + name.len();
        writeln!(out, "    Named {{ start: {start}, end: {end}, numbers: [{x86_64:?}, {aarch64:?}] }},")?;
        start = end;
    }
    writeln!(out, "];")?;
    for (table, constant) in numbers.iter().zip(["X86_64", "AARCH64"]) {
        let mut by_number: Vec<(u16, usize)> = table
            .iter()
            .filter_map(|(name, number)| Some((*number, names.binary_search(name).ok()?)))
            .collect();
        by_number.sort_unstable();
        writeln!(out, "static {constant}: [(u16, Call); {}] = [", by_number.len())?;
        for (number, call) in by_number {
            writeln!(out, "    ({number}, Call({call})),")?;
        }
        writeln!(out, "];")?;
    }
    Ok(())
}

/// One list of calls with the line that each stands on.
fn write_list(
    out: &mut String,
    constant: &str,
    calls: &Calls<'_>,
    names: &[&str],
    reasons: &mut String,
) -> Result<(), String> {
    let mut lines = String::new();
    let mut members = [0_u64; MOST / 64];
    for (name, entry) in calls {
        let call = names.binary_search(name).map_err(|_| format!("{name} is in no table"))?;
        let file = FILES.iter().position(|file| *file == entry.file).ok_or("a file that isn't listed")?;
        members[call / 64] |= 1 << (call % 64);
        // Much is said of several calls.
        let start = reasons.find(entry.reason).unwrap_or_else(|| {
            reasons.push_str(entry.reason);
            reasons.len() - entry.reason.len()
        });
        let (line, end) = (entry.line, start + entry.reason.len());
        writeln!(
            lines,
            "    Line {{ call: Call({call}), file: {file}, line: {line}, start: {start}, end: {end} }},"
        )
        .map_err(|error| error.to_string())?;
    }
    writeln!(
        out,
        "static {constant}_LINES: [Line; {}] = [\n{lines}];\n\
         pub(super) static {constant}: List = List {{ calls: Calls({members:?}), lines: &{constant}_LINES }};",
        calls.len()
    )
    .map_err(|error| error.to_string())
}
