//! Tools are put into their directory, and taken away. What a daemon reads at any moment is the old file or the new one.

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use stockade_gate::tools::ToolError;
use stockade_gate::tools::load::{self, Text};

use super::{Place, look, read, wrong};
use crate::error::CliError;
use crate::out;

/// Puts a file, and its signature's, among the others.
pub(super) fn add(place: &Place, file: &Path, replace: bool) -> Result<u8, CliError> {
    let (text, tool) = read(file).map_err(|errors| wrong(&errors))?;
    let own = &place.own;
    let target = own.join(format!("{}.toml", tool.name));
    let is_there = target.symlink_metadata().is_ok();
    if is_there && !replace {
        let text =
            format!("a tool named `{}` is there already: say --replace, or rename the new one", tool.name);
        return Err(CliError::Asked(text));
    }
    together(place, &target, &text).map_err(|errors| wrong(&errors))?;
    make(own).map_err(CliError::io(format!("make the directory {}", own.display())))?;
    let doing = || CliError::io(format!("write {}", target.display()));
    let signature = signature_of(&target);
    match &text.signature {
        Some((_, said)) => write(&signature, said.as_bytes()).map_err(doing())?,
        None => gone(&signature).map_err(doing())?,
    }
    write(&target, text.text.as_bytes()).map_err(doing())?;
    let done = if is_there { "replaced" } else { "added" };
    out::print(format!("{} {}: {done}\n", tool.name, tool.version).as_bytes())
}

/// Takes a tool away.
pub(super) fn remove(place: &Place, name: &str) -> Result<u8, CliError> {
    if !stockade_gate::tools::is_name(name) {
        return Err(CliError::Asked(format!("`{}` is no tool's name", name.escape_debug())));
    }
    let target = place.own.join(format!("{name}.toml"));
    let doing = || CliError::io(format!("remove {}", target.display()));
    std::fs::remove_file(&target).map_err(doing())?;
    gone(&signature_of(&target)).map_err(doing())?;
    out::print(format!("{name}: removed\n").as_bytes())
}

/// Whether all that is there would be in order with this one.
fn together(place: &Place, target: &Path, new: &Text) -> Result<(), Vec<ToolError>> {
    let mut kept = load::texts(&place.directories, place.is_required, &look)?;
    kept.texts.retain(|text| Path::new(&text.file) != target);
    let file = target.display().to_string();
    kept.texts.push(Text { file, ..new.clone() });
    kept.registry().map(drop)
}

fn signature_of(target: &Path) -> PathBuf {
    PathBuf::from(format!("{}.{}", target.display(), load::SIGNATURE))
}

/// With all above it; for us alone to write to, for everybody to read where it's root's.
fn make(directory: &Path) -> io::Result<()> {
    let mode = if rustix::process::geteuid().is_root() { 0o755 } else { 0o700 };
    std::fs::DirBuilder::new().recursive(true).mode(mode).create(directory)
}

fn gone(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

/// Writes a file whole: beside it first, under a name that nothing reads, then in its place.
pub(super) fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let beside = path.with_file_name(format!(".{name}.{}", std::process::id()));
    let mut open = OpenOptions::new();
    let mut file = open.write(true).create_new(true).mode(0o644).open(&beside)?;
    let written = file.write_all(bytes).and_then(|()| file.sync_all());
    let done = written.and_then(|()| std::fs::rename(&beside, path));
    if done.is_err() {
        gone(&beside)?;
    }
    done
}
