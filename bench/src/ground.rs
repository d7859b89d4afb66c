//! Where everything happens: a directory that is gone afterwards, with the binary under test, the policies that the
//! axes need, and a workspace.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::error::BenchError;
use crate::spawn;

/// The policies of the benchmark. Each is a shipped one with exactly what an axis needs changed.
const POLICIES: [(&str, &str); 3] = [
    // No rule on output: descriptors go straight through.
    (
        "bench-passed",
        "description = \"Default without a rule on output\"\nextends = \"default\"\n[limits]\noutput = \"none\"\n",
    ),
    // A rule on output that nothing here reaches: everything is relayed.
    (
        "bench-relayed",
        "description = \"Default with room for a flood of output\"\nextends = \"default\"\n[limits]\noutput = \"64GiB\"\nwall-time = \"10m\"\n",
    ),
    // For commands that stay while they are looked at.
    (
        "bench-long",
        "description = \"Default for an hour\"\nextends = \"default\"\n[limits]\nwall-time = \"1h\"\n",
    ),
];

/// A place to work in.
#[derive(Debug)]
pub(crate) struct Ground {
    place: TempDir,
    /// The binary under test: a copy, which a build that goes on meanwhile doesn't replace.
    pub(crate) stockade: PathBuf,
    /// The directory of [`POLICIES`].
    pub(crate) policies: PathBuf,
    /// An empty directory that runs work in.
    pub(crate) workspace: PathBuf,
}

impl Ground {
    /// Makes one, with this binary; without one it's built.
    pub(crate) fn new(stockade: Option<&Path>) -> Result<Self, BenchError> {
        let source = match stockade {
            Some(path) => path.to_owned(),
            None => built()?,
        };
        if !source.exists() {
            return Err(BenchError::NoBinary { path: source });
        }
        let place = tempfile::Builder::new()
            .prefix("stockade-bench-")
            // Root's daemon starts templates that aren't root: they must get in.
            .permissions(Permissions::from_mode(0o755))
            .tempdir()
            .map_err(BenchError::io("make a temporary directory"))?;
        let inside = |name: &str| place.path().join(name);
        let ground = Self {
            stockade: inside("stockade"),
            policies: inside("policies"),
            workspace: inside("workspace"),
            place,
        };
        std::fs::copy(&source, &ground.stockade)
            .map_err(BenchError::io(format!("copy {}", source.display())))?;
        ground.directory("policies")?;
        ground.directory("workspace")?;
        for (name, text) in POLICIES {
            write_policy(&ground.policies, name, text)?;
        }
        Ok(ground)
    }

    /// Makes a directory in it, unless it's there.
    pub(crate) fn directory(&self, name: &str) -> Result<PathBuf, BenchError> {
        let path = self.place.path().join(name);
        std::fs::create_dir_all(&path).map_err(BenchError::io(format!("make {}", path.display())))?;
        Ok(path)
    }
}

/// Writes a policy file; the name is the first key of its text.
pub(crate) fn write_policy(directory: &Path, name: &str, text: &str) -> Result<(), BenchError> {
    let path = directory.join(format!("{name}.toml"));
    write(&path, &format!("name = \"{name}\"\n{text}"))
}

/// Writes a file.
pub(crate) fn write(path: &Path, text: &str) -> Result<(), BenchError> {
    std::fs::write(path, text).map_err(BenchError::io(format!("write {}", path.display())))
}

/// Where the binaries of our own build lie.
pub(crate) fn beside_us() -> Result<PathBuf, BenchError> {
    let me = std::env::current_exe().map_err(BenchError::io("tell where this binary is"))?;
    let above = me.parent().unwrap_or(Path::new("/"));
    Ok(if above.ends_with("deps") { above.parent().unwrap_or(above) } else { above }.to_owned())
}

/// The binary of the same build as this one: built by the cargo that runs us, else whatever lies beside us.
fn built() -> Result<PathBuf, BenchError> {
    let directory = beside_us()?;
    let Some(cargo) = std::env::var_os("CARGO") else { return Ok(directory.join("stockade")) };
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."));
    let mut command = spawn::with_our_environment(cargo);
    command.current_dir(root).args(["build", "--quiet", "-p", "stockade"]);
    command.arg("--target-dir").arg(directory.parent().unwrap_or(&directory));
    if directory.ends_with("release") {
        command.arg("--release");
    } else {
        crate::out::say(
            "note: this is no release build; its figures mean little (cargo run --release -p bench)",
        );
    }
    let status = command.status().map_err(BenchError::io("start cargo"))?;
    if !status.success() {
        return Err(BenchError::Build(status.to_string()));
    }
    Ok(directory.join("stockade"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ground_has_the_binary_and_a_policy_a_file_and_is_gone_when_dropped() {
        let ground = Ground::new(Some("/bin/true".as_ref())).unwrap();
        assert!(ground.stockade.exists() && ground.workspace.is_dir());
        let text = std::fs::read_to_string(ground.policies.join("bench-passed.toml")).unwrap();
        assert!(text.starts_with("name = \"bench-passed\"\n"), "{text}");
        let path = ground.place.path().to_owned();
        drop(ground);
        assert!(!path.exists());
    }

    #[test]
    fn a_binary_that_is_not_there_is_named_with_a_remedy() {
        let error = Ground::new(Some("/nonexistent/stockade".as_ref())).unwrap_err();
        assert_eq!(error.to_string(), "/nonexistent/stockade is not there");
        assert!(error.remedy().is_some());
    }
}
