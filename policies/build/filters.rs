//! The filters of the profiles as shipped policies have them, so that no run of one puts its filter together.
//! `src/syscalls/table.rs` includes what is made here. A test holds that they are what the crate would make, and that there is
//! one for each shipped policy.

use std::env;
use std::fmt::Write as _;

use crate::arguments::Variant;
use crate::calls::Names;
use crate::filter::{AS_OLDER_KERNEL, Programs, programs};
use crate::listing::{self, Profiles};
use crate::rules::Compiled;
use crate::sets::{Arch, Call, Calls};
use crate::table::{BpfInstruction, TABLES, Tables};

/// `strict` with what extends it, `loopback`, `moderate`, `minimal`.
const SHIPPED: [(&str, Variant); 4] = [
    ("standard", Variant { minimal: false, network: false, internet: true, plain_tcp: false }),
    ("standard", Variant { minimal: false, network: true, internet: true, plain_tcp: false }),
    ("standard", Variant { minimal: false, network: false, internet: false, plain_tcp: false }),
    ("minimal", Variant { minimal: true, network: false, internet: false, plain_tcp: false }),
];

/// The filters as Rust, for the architecture that is built for.
pub(crate) fn built(names: &Names, rules: &Compiled, texts: &[String; 4]) -> Result<String, String> {
    let profiles = listing::read(texts.each_ref().map(String::as_str), &|name| names.call(name).is_some())?;
    TABLES.set(tables(names, rules)?).map_err(|_| "the tables are made once")?;
    let target = env::var("CARGO_CFG_TARGET_ARCH").unwrap_or_default();
    let arch = match target.as_str() {
        "x86_64" => Arch::X86_64,
        "aarch64" => Arch::Aarch64,
        _ => return Ok(rust(&[], &[])),
    };
    let (mut table, mut code) = (Vec::new(), Vec::new());
    for (profile, variant) in SHIPPED {
        let calls = set(names, profiles.named.get(profile).ok_or("no such profile")?.keys().copied());
        let Programs { base, delta, allowed } = one(names, &profiles, (arch, variant), &calls)?;
        let (start, middle) = (code.len(), code.len() + base.len());
        code.extend(base);
        code.extend(delta.unwrap_or_default());
        let (bits, members, end) = (variant.bit(), calls.0, code.len());
        table.push(format!(
            "    Built {{ arch: Arch::{arch:?}, variant: {bits}, calls: Calls({members:?}), base: {start}..{middle}, \
             delta: {middle}..{end}, allowed: {allowed} }},\n"
        ));
    }
    Ok(rust(&table, &code))
}

fn rust(table: &[String], code: &[BpfInstruction]) -> String {
    let mut lines = String::new();
    for BpfInstruction { code, jt, jf, k } in code {
        let _ = writeln!(lines, "    BpfInstruction {{ code: {code}, jt: {jt}, jf: {jf}, k: {k} }},");
    }
    let (count, table, length) = (table.len(), table.concat(), code.len());
    format!(
        "static FILTERS: [Built; {count}] = [\n{table}];\n\
         static FILTER_CODE: [BpfInstruction; {length}] = [\n{lines}];\n"
    )
}

fn one(
    names: &Names,
    profiles: &Profiles<'_>,
    of: (Arch, Variant),
    calls: &Calls,
) -> Result<Programs, String> {
    let init = set(names, profiles.init.keys().copied());
    programs(of, calls, &init, &set(names, AS_OLDER_KERNEL))
}

fn set<'a>(names: &Names, of: impl IntoIterator<Item = &'a str>) -> Calls {
    let mut calls = Calls::default();
    of.into_iter().filter_map(|name| names.call(name)).for_each(|call| calls.insert(call));
    calls
}

fn tables(names: &Names, rules: &Compiled) -> Result<Tables, String> {
    let short = |number: usize| u16::try_from(number).map_err(|error| error.to_string());
    let check = |(call, variants, site, range): &(usize, u16, _, std::ops::Range<usize>)| {
        Ok::<_, String>((Call(short(*call)?), *variants, *site, short(range.start)?..short(range.end)?))
    };
    let checks = rules.checks.iter().map(check).collect::<Result<_, _>>()?;
    let code = rules.code.iter().map(|it| BpfInstruction { code: it.code, jt: it.jt, jf: it.jf, k: it.k });
    Ok(Tables { by_number: names.by_number(), checks, code: code.collect() })
}
