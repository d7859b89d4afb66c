//! Keys and signatures of tools.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::rand::{GetRandomFlags, getrandom};
use stockade_gate::tools::ToolError;
use stockade_gate::tools::load;
use stockade_gate::tools::signature::{Keys, Secret, SignatureError, Signed};
use stockade_policies::files::{self, Refusal};

use super::{Place, look, read, wrong};
use crate::error::CliError;
use crate::{escape, out};

/// Makes a key.
pub(super) fn keygen(file: &Path) -> Result<u8, CliError> {
    let mut random = [0; 32];
    let count = getrandom(&mut random, GetRandomFlags::empty())
        .map_err(|error| CliError::Io { doing: "get random bytes".into(), source: error.into() })?;
    if count != random.len() {
        return Err(CliError::Asked("the kernel gave too few random bytes; try again".into()));
    }
    let secret = Secret::of(&random);
    let doing = || format!("write the secret key {}", file.display());
    let mut open = OpenOptions::new();
    let mut opened =
        open.write(true).create_new(true).mode(0o600).open(file).map_err(CliError::io(doing()))?;
    let written = opened.write_all(secret.text().as_bytes()).and_then(|()| opened.sync_all());
    written.map_err(CliError::io(doing()))?;
    out::print(secret.public_text().as_bytes())
}

/// Signs a tool's file that is in order.
pub(super) fn sign(file: &Path, key: &Path) -> Result<u8, CliError> {
    let (text, tool) = read(file).map_err(|errors| wrong(&errors))?;
    let secret = secret(key)?;
    let signature = PathBuf::from(format!("{}.{}", file.display(), load::SIGNATURE));
    let doing = format!("write {}", signature.display());
    super::store::write(&signature, secret.sign(text.text.as_bytes()).text().as_bytes())
        .map_err(CliError::io(doing))?;
    out::print(format!("{} {}: signed\n", tool.name, tool.version).as_bytes())
}

/// A secret key that nobody else can read.
fn secret(path: &Path) -> Result<Secret, CliError> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let private = |found: &std::fs::Metadata| {
        if found.mode() & 0o077 == 0 {
            return Ok(());
        }
        Err(Refusal::new("others may read this secret key", "chmod 600 it, and think of a new one"))
    };
    let text = files::text(path, directory, private).map_err(|error| wrong(&[ToolError::from(error)]))?;
    let mistakes = |mistakes: Vec<stockade_policies::Mistake>| {
        wrong(&mistakes.into_iter().map(ToolError::from).collect::<Vec<_>>())
    };
    Secret::read(&path.display().to_string(), &text).map_err(mistakes)
}

/// Whose signature stands over a file, by the keys that are trusted here.
pub(super) fn verify(place: &Place, file: &Path) -> Result<u8, CliError> {
    let text = load::file(file).map_err(|error| wrong(&[ToolError::from(error)]))?;
    let (mut keys, mut errors) = (Keys::default(), Vec::new());
    for directory in &place.directories {
        if let Err(error) = load::keys(&directory.join(load::KEYS), &look, &mut keys, &mut errors) {
            errors.push(error.into());
        }
    }
    if !errors.is_empty() {
        return Err(wrong(&errors));
    }
    let refused = |why| wrong(&[ToolError::Signature { file: text.file.clone(), why }]);
    let Some((name, said)) = &text.signature else { return Err(refused(SignatureError::Missing)) };
    let signed = Signed::read(name, said)
        .map_err(|mistakes| wrong(&mistakes.into_iter().map(ToolError::from).collect::<Vec<_>>()))?;
    let key = keys.verify(text.text.as_bytes(), &signed).map_err(refused)?;
    let shown = escape::line(text.file.as_bytes());
    out::print(format!("{shown}: signed with the key `{}`\n", escape::line(key.as_bytes())).as_bytes())
}
