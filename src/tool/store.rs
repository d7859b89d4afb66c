//! Tools are put into their directory, and taken away. What a daemon reads at any moment is the old file or the new one.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
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
    std::fs::remove_file(&target).and_then(|()| kept(&target)).map_err(doing())?;
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

/// With all above it that isn't there; for us alone to write to.
fn make(directory: &Path) -> io::Result<()> {
    let missing: Vec<&Path> =
        directory.ancestors().take_while(|one| !(one.exists() || one.as_os_str().is_empty())).collect();
    for one in missing.into_iter().rev() {
        std::fs::DirBuilder::new().mode(0o700).create(one)?;
        for_all(one, 0o755)?;
        kept(one)?;
    }
    Ok(())
}

/// Has root's tools be read by everybody, whatever root's umask is: the service is another user, and would have none of them. A
/// user's own are his umask's.
fn for_all(path: &Path, mode: u32) -> io::Result<()> {
    if rustix::process::geteuid().is_root() {
        std::fs::set_permissions(path, Permissions::from_mode(mode))?;
    }
    Ok(())
}

/// Has what was just done to a name be so after a power cut, too.
fn kept(path: &Path) -> io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    File::open(parent.unwrap_or(Path::new(".")))?.sync_all()
}

fn gone(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done.and_then(|()| kept(path)),
    }
}

/// Writes a file whole: beside it first, under a name that nothing reads, then in its place.
pub(super) fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let beside = path.with_file_name(format!(".{name}.{}", std::process::id()));
    let mut open = OpenOptions::new();
    let mut file = open.write(true).create_new(true).mode(0o644).open(&beside)?;
    let written = for_all(&beside, 0o644).and_then(|()| file.write_all(bytes)).and_then(|()| file.sync_all());
    let done = written.and_then(|()| std::fs::rename(&beside, path));
    if done.is_err() {
        gone(&beside)?;
    }
    done.and_then(|()| kept(path))
}
