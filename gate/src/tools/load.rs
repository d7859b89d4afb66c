//! Reads tools, their signatures and the keys that are trusted: the files of directories, each of which must be one that `look` has
//! nothing against. Who may write to them says what is run.

use std::fs::Metadata;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::time::ClockId;
use stockade_policies::files::{self, FileError, Refusal};

use super::MAX_TOOLS;
use super::registry::{Registry, ToolError};
pub use super::registry::{Text, Trust};
use super::signature::{Keys, MAX_KEYS};

/// The keys' directory, in that of the tools.
pub const KEYS: &str = "keys";
/// What a signature's file is called behind its tool's.
pub const SIGNATURE: &str = "sig";
/// The most entries of a directory of tools: each with its signature, and as much again of what isn't read.
const MAX_DIRECTORY: usize = 4 * MAX_TOOLS;

/// Whether a directory, or a file of it, may say what is run: whose it is, and who may write to it.
pub type Look<'a> = &'a dyn Fn(&Path, &Metadata) -> Result<(), Refusal>;

/// What was read of directories: each file may be obeyed, whatever it says.
#[derive(Debug, Clone, Default)]
pub struct Read {
    /// The tools' files.
    pub texts: Vec<Text>,
    /// The keys of all of them.
    pub trust: Trust,
}

impl Read {
    /// The registry of it.
    ///
    /// # Errors
    /// All that is wrong with any of it.
    pub fn registry(&self) -> Result<Registry, Vec<ToolError>> {
        Registry::of(&self.texts, &self.trust, &spent)
    }
}

/// The registry of these directories; one that isn't there has no tools. Keys are those of all of their [`KEYS`].
///
/// # Errors
/// All that is wrong with any file.
pub fn registry(
    directories: &[PathBuf],
    is_required: bool,
    look: Look<'_>,
) -> Result<Registry, Vec<ToolError>> {
    let (read, mut wrong) = attempt(directories, is_required, look);
    match read.registry() {
        Ok(registry) if wrong.is_empty() => Ok(registry),
        Ok(_) => Err(wrong),
        Err(more) => {
            wrong.extend(more);
            Err(wrong)
        }
    }
}

/// What there is in these directories, before it's a registry.
///
/// # Errors
/// All that can't be read.
pub fn texts(directories: &[PathBuf], is_required: bool, look: Look<'_>) -> Result<Read, Vec<ToolError>> {
    let (read, wrong) = attempt(directories, is_required, look);
    if wrong.is_empty() { Ok(read) } else { Err(wrong) }
}

fn attempt(directories: &[PathBuf], is_required: bool, look: Look<'_>) -> (Read, Vec<ToolError>) {
    let (mut texts, mut wrong) = (Vec::new(), Vec::new());
    let mut trust = Trust { is_required, ..Trust::default() };
    for directory in directories {
        let mut read = || -> Result<(), FileError> {
            keys(&directory.join(KEYS), look, &mut trust.keys, &mut wrong)?;
            all(directory, look, &mut texts, &mut wrong)
        };
        if let Err(error) = read() {
            wrong.push(error.into());
        }
    }
    (Read { texts, trust }, wrong)
}

/// One file of a tool and its signature's, wherever they are and whosever: to be checked, not to be obeyed.
///
/// # Errors
/// What can't be read.
pub fn file(path: &Path) -> Result<Text, FileError> {
    let cannot = |source| FileError::Read { path: path.to_owned(), source };
    let target = path.canonicalize().map_err(cannot)?;
    one(path, &target, target.parent().unwrap_or(Path::new("/")), &|_, _| Ok(()))
}

/// The processor time that this thread has spent.
#[must_use]
pub fn spent() -> Duration {
    let time = rustix::time::clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

fn all(
    directory: &Path,
    look: Look<'_>,
    texts: &mut Vec<Text>,
    wrong: &mut Vec<ToolError>,
) -> Result<(), FileError> {
    let paths = files::named(directory, MAX_DIRECTORY)?;
    let count = texts.len() + paths.len();
    if count > MAX_TOOLS {
        wrong.push(ToolError::TooMany { path: directory.to_owned(), count });
        return Ok(());
    }
    looked(directory, &paths, look)?;
    for path in paths {
        one(&path, &path, directory, look)
            .map_or_else(|error| wrong.push(error.into()), |text| texts.push(text));
    }
    Ok(())
}

fn one(shown: &Path, path: &Path, directory: &Path, look: Look<'_>) -> Result<Text, FileError> {
    let text = files::text(path, directory, |found| look(path, found))?;
    let mut sig = path.as_os_str().to_owned();
    sig.push(".");
    sig.push(SIGNATURE);
    let sig = PathBuf::from(sig);
    let signature = match files::text(&sig, directory, |found| look(&sig, found)) {
        Ok(said) => Some((sig.display().to_string(), said)),
        Err(FileError::Read { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    Ok(Text { file: shown.display().to_string(), name: stem(shown)?, text, signature })
}

/// The keys of a directory; none if it isn't there.
///
/// # Errors
/// The directory can't be read, or isn't one that is. What is wrong with a key's file is among `wrong`.
pub fn keys(
    directory: &Path,
    look: Look<'_>,
    keys: &mut Keys,
    wrong: &mut Vec<ToolError>,
) -> Result<(), FileError> {
    let paths = files::named(directory, 2 * MAX_KEYS)?;
    looked(directory, &paths, look)?;
    for path in paths {
        if keys.count() >= MAX_KEYS {
            let refusal =
                Refusal::new(format!("there are more than {MAX_KEYS} keys"), "take away what isn't needed");
            return Err(FileError::Refused { path: directory.to_owned(), refusal });
        }
        let text = match files::text(&path, directory, |found| look(&path, found)) {
            Ok(text) => text,
            Err(error) => {
                wrong.push(error.into());
                continue;
            }
        };
        let added = keys.add(&path.display().to_string(), &stem(&path)?, &text);
        wrong.extend(added.err().into_iter().flatten().map(ToolError::from));
    }
    Ok(())
}

fn looked(directory: &Path, paths: &[PathBuf], look: Look<'_>) -> Result<(), FileError> {
    if paths.is_empty() {
        return Ok(());
    }
    let path = || directory.to_owned();
    let found = directory.metadata().map_err(|source| FileError::Read { path: path(), source })?;
    look(directory, &found).map_err(|refusal| FileError::Refused { path: path(), refusal })
}

fn stem(path: &Path) -> Result<String, FileError> {
    let stem = path.file_stem().and_then(|stem| stem.to_str());
    stem.map(ToOwned::to_owned).ok_or_else(|| FileError::Refused {
        path: path.to_owned(),
        refusal: Refusal::new("the file's name isn't UTF-8, so it can be no tool's name", "rename it"),
    })
}

#[cfg(test)]
mod tests {
    use super::super::signature::Secret;
    use super::*;

    fn tool(name: &str) -> String {
        format!(
            "name = \"{name}\"\ndescription = \"x\"\nversion = \"1\"\npolicy = \"default\"\n[command]\nprogram = \"/bin/true\"\n[parameters]\ntype = \"object\"\n"
        )
    }

    fn anybody(_: &Path, _: &Metadata) -> Result<(), Refusal> {
        Ok(())
    }

    #[test]
    fn a_directory_is_read_with_its_keys_and_signatures() {
        let top = tempfile::tempdir().unwrap();
        let here = top.path();
        std::fs::write(here.join("a.toml"), tool("a")).unwrap();
        std::fs::write(here.join("README"), "no tool").unwrap();
        let directories = [here.to_owned(), here.join("none")];
        assert_eq!(registry(&directories, false, &anybody).unwrap().tools().len(), 1);
        assert!(registry(&directories, true, &anybody).is_err());
        let secret = Secret::of(&[1; 32]);
        std::fs::create_dir(here.join(KEYS)).unwrap();
        std::fs::write(here.join("keys/k.toml"), secret.public_text()).unwrap();
        std::fs::write(here.join("a.toml.sig"), secret.sign(tool("a").as_bytes()).text()).unwrap();
        assert_eq!(registry(&directories, true, &anybody).unwrap().tools().len(), 1);
        std::fs::write(here.join("a.toml"), tool("a") + "#").unwrap();
        assert!(registry(&directories, false, &anybody).is_err());
    }

    #[test]
    fn where_signatures_are_required_one_that_is_missing_foreign_or_stale_refuses_all_tools() {
        let (ours, theirs) = (Secret::of(&[1; 32]), Secret::of(&[2; 32]));
        let signed = |secret: &Secret, text: &str| Some(secret.sign(text.as_bytes()).text());
        for (signature, expected) in [
            (signed(&ours, &tool("b")), None),
            (None, Some("b.toml: it isn't signed")),
            (signed(&theirs, &tool("b")), Some("isn't trusted")),
            (signed(&ours, &tool("b").replace("true", "sh")), Some("isn't over what the file says now")),
            // Another tool's, that is in order there.
            (signed(&ours, &tool("a")), Some("isn't over what the file says now")),
        ] {
            let top = tempfile::tempdir().unwrap();
            let put = |name: &str, text: &str| std::fs::write(top.path().join(name), text).unwrap();
            std::fs::create_dir(top.path().join(KEYS)).unwrap();
            put("keys/k.toml", &ours.public_text());
            for name in ["a", "b"] {
                put(&format!("{name}.toml"), &tool(name));
            }
            put("a.toml.sig", &signed(&ours, &tool("a")).unwrap());
            if let Some(signature) = &signature {
                put("b.toml.sig", signature);
            }
            let made = registry(&[top.path().to_owned()], true, &anybody);
            match expected {
                None => assert_eq!(made.unwrap().tools().len(), 2),
                Some(expected) => {
                    let wrong = made.unwrap_err();
                    assert!(wrong.len() == 1 && wrong[0].to_string().contains(expected), "{wrong:?}");
                }
            }
            // No key at all is no way round it.
            std::fs::remove_dir_all(top.path().join(KEYS)).unwrap();
            assert_eq!(registry(&[top.path().to_owned()], true, &anybody).unwrap_err().len(), 2);
        }
    }

    #[test]
    fn one_bad_file_of_any_kind_and_there_is_no_registry() {
        for (file, text) in [("b.toml", "x"), ("a.toml.sig", "x"), ("keys/k.toml", "x")] {
            let top = tempfile::tempdir().unwrap();
            std::fs::create_dir(top.path().join(KEYS)).unwrap();
            std::fs::write(top.path().join("a.toml"), tool("a")).unwrap();
            assert!(registry(&[top.path().to_owned()], false, &anybody).is_ok());
            std::fs::write(top.path().join(file), text).unwrap();
            let wrong = registry(&[top.path().to_owned()], false, &anybody).unwrap_err();
            assert!(wrong[0].to_string().contains(file), "{wrong:?}");
        }
    }

    #[test]
    fn whatever_is_read_is_looked_at_first() {
        let top = tempfile::tempdir().unwrap();
        let secret = Secret::of(&[1; 32]);
        std::fs::create_dir(top.path().join(KEYS)).unwrap();
        std::fs::write(top.path().join("a.toml"), tool("a")).unwrap();
        std::fs::write(top.path().join("a.toml.sig"), secret.sign(tool("a").as_bytes()).text()).unwrap();
        std::fs::write(top.path().join("keys/k.toml"), secret.public_text()).unwrap();
        for name in ["a.toml", "a.toml.sig", "k.toml", "keys"] {
            let look = |path: &Path, _: &Metadata| {
                if path.file_name().is_some_and(|found| found == name) {
                    return Err(Refusal::new("others may write to it", "chmod go-w it"));
                }
                Ok(())
            };
            let wrong = registry(&[top.path().to_owned()], false, &look).unwrap_err();
            assert!(wrong[0].to_string().contains("others may write to it"), "{name}: {wrong:?}");
        }
    }

    #[test]
    fn links_out_and_what_is_no_file_are_refused() {
        let top = tempfile::tempdir().unwrap();
        let here = top.path().join("tools");
        std::fs::create_dir(&here).unwrap();
        std::fs::write(top.path().join("a.toml"), tool("a")).unwrap();
        std::os::unix::fs::symlink("../a.toml", here.join("a.toml")).unwrap();
        assert!(
            registry(std::slice::from_ref(&here), false, &anybody).unwrap_err()[0]
                .to_string()
                .contains("leads out")
        );
        std::fs::remove_file(here.join("a.toml")).unwrap();
        std::fs::create_dir(here.join("b.toml")).unwrap();
        assert!(
            registry(&[here], false, &anybody).unwrap_err()[0].to_string().contains("not a regular file")
        );
    }
}
