//! `stockade audit verify`: whether the record is what was written.

use std::path::PathBuf;
use std::time::SystemTime;

use stockade_audit::{Check, MasterKey, Report, VerificationKey};

use super::Place;
use crate::error::CliError;
use crate::{exit, json, out};

const EXAMPLES: &str = "Examples:
  stockade audit verify                                 with the key, where it's at its usual place
  stockade audit verify --without-key                   what anybody can check who may read the files
  stockade audit verify --heads /mnt/elsewhere/heads    against copies of its heads
  journalctl -u stockade -o cat > heads; stockade audit verify --heads heads

Exit status: 0 as it was written, but for the last record of a writer that was killed; 1 changed, dropped, reordered, cut, or a
wrong key; 2 for a wrong command line.";

/// Says whether anything was changed, dropped, reordered or cut off, and which record is the first
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    /// A file with copies of heads: the daemon's second place, or lines of the journal. Repeatable
    #[arg(long, value_name = "FILE")]
    heads: Vec<PathBuf>,
    /// Whose signatures must stand in it: 64 hexadecimal digits, as an earlier `verify` has shown them
    #[arg(long, value_name = "HEX", value_parser = public_of)]
    public_key: Option<PublicKey>,
    /// The verification key's file, where it's kept elsewhere
    #[arg(long, value_name = "FILE")]
    verification_key: Option<PathBuf>,
    /// Only what can be checked without a key
    #[arg(long, conflicts_with_all = ["key", "verification_key"])]
    without_key: bool,
    /// One JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: Place,
}

/// An Ed25519 key.
#[derive(Debug, Clone, Copy)]
struct PublicKey([u8; 32]);

fn public_of(text: &str) -> Result<PublicKey, String> {
    let expected = || "expected 64 hexadecimal digits".to_owned();
    let digit = |at: usize| text.get(at..at + 1).and_then(|digit| u8::from_str_radix(digit, 16).ok());
    let mut key = [0; 32];
    if text.len() != 2 * key.len() {
        return Err(expected());
    }
    for (at, byte) in key.iter_mut().enumerate() {
        let (high, low) = (digit(2 * at).ok_or_else(expected)?, digit(2 * at + 1).ok_or_else(expected)?);
        *byte = high << 4 | low;
    }
    Ok(PublicKey(key))
}

pub(super) fn verify(arguments: &Arguments) -> Result<u8, CliError> {
    let directory = arguments.place.directory();
    super::there(&directory)?;
    let verification = arguments.verification_key.as_deref();
    let check = Check {
        master: master(arguments)?,
        verification: verification.map(|path| VerificationKey::read(path, &directory)).transpose()?,
        copies: arguments.heads.clone(),
        public: arguments.public_key.map(|key| key.0),
        now: SystemTime::now(),
    };
    let report = stockade_audit::verify(&directory, &check)?;
    let status = if report.is_clean() { 0 } else { exit::FAILED };
    if arguments.json {
        return out::print_with(&json::line(&report), status);
    }
    out::print_with(told(&report).as_bytes(), status)
}

/// The key that is named, or the one at the usual place if there is one.
fn master(arguments: &Arguments) -> Result<Option<MasterKey>, CliError> {
    let usual = arguments.place.key.is_none() && !arguments.place.key().exists();
    if arguments.without_key || (usual && arguments.verification_key.is_none()) {
        return Ok(None);
    }
    arguments.place.master().map(Some)
}

fn told(report: &Report) -> String {
    let Report { segments, records, erased, first, last, heads, signed, public, .. } = report;
    let mut lines = Vec::new();
    lines.extend(report.findings.iter().map(ToString::to_string));
    if report.wrong > report.findings.len() as u64 {
        lines.push(format!("and {} more", report.wrong - report.findings.len() as u64));
    }
    if let Some(unfinished) = &report.unfinished {
        let (segment, bytes, offset) = (unfinished.segment, unfinished.bytes, unfinished.offset);
        lines.push(format!(
            "unfinished: segment {segment} ends with {bytes} bytes of a record, from byte {offset}"
        ));
    }
    lines.push(format!(
        "{records} records in {segments} segments, {first} to {last}; {erased} erased in their time"
    ));
    if !report.recovered.is_empty() {
        let many = report.recovered.len();
        lines.push(format!("{many} times a writer was killed over a record, which the next one has said"));
    }
    lines.push(match *signed {
        0 => "no head was signed: an end that was cut off can't be seen".to_owned(),
        signed if signed >= *last => format!("{heads} heads agree; the last record is signed for"),
        signed => format!("{heads} heads agree; records after {signed} could have been cut off unseen"),
    });
    let known =
        if report.known { "" } else { " (taken from the record itself: --public-key or --heads say better)" };
    lines.push(format!("signed by {public}{known}"));
    lines.push(match (report.opened, report.macs) {
        (true, true) => "every record was opened, and its MAC checked".to_owned(),
        (true, false) => "every record was opened; its MAC takes the verification key".to_owned(),
        (false, _) => "without a key: chain and signatures were checked".to_owned(),
    });
    lines.push(if report.is_clean() {
        "clean".to_owned()
    } else {
        format!("not clean: {} findings", report.wrong)
    });
    lines.join("\n") + "\n"
}
