//! A launcher started before the command line is read, where a run will most likely need one of its own.
//!
//! Its first work, a network namespace, takes as long as everything this process does before it sends the run. A wrong
//! guess costs time and nothing else: a launcher whose channel closes ends, and one that is needed is started then.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use stockade_supervisor::paths::Surroundings;
use stockade_wire::channel::Channel;

use crate::embedded;
use crate::error::CliError;

/// A launcher, if one was started.
#[derive(Debug, Default)]
pub(crate) struct Ahead(Option<Channel>);

impl Ahead {
    /// Starts one if these words of `stockade run` will most likely want it.
    pub(crate) fn guess(words: &[OsString]) -> Self {
        // Where a daemon is looked for doesn't depend on the home directory, which takes time to find out.
        let uid = rustix::process::geteuid().as_raw();
        let variable = |name: &str| std::env::var_os(name);
        let surroundings = Surroundings { variable: &variable, uid, home: PathBuf::new() };
        let sockets = || surroundings.sockets().iter().any(|path| Path::exists(path));
        // A failure shows, with its reason, when one is started because it's needed.
        Self(if wanted(words, sockets) { embedded::start_launcher().ok() } else { None })
    }

    /// It, or a new one.
    ///
    /// # Errors
    /// [`CliError::Embedded`].
    pub(crate) fn launcher(self) -> Result<Channel, CliError> {
        self.0.map_or_else(embedded::start_launcher, Ok)
    }
}

/// Whether a launcher will be wanted, as far as can be told from the options without parsing them.
fn wanted(words: &[OsString], is_daemon: impl FnOnce() -> bool) -> bool {
    let mut options = words.iter().filter_map(|word| word.to_str()).take_while(|word| *word != "--");
    let decides = options.find_map(|word| match word {
        "--embedded" => Some(true),
        "-h" | "--help" | "-d" | "--detach" => Some(false),
        word if word.starts_with("--socket") => Some(false),
        _ => None,
    });
    decides.unwrap_or_else(|| !is_daemon())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_launcher_is_wanted_where_no_daemon_is_and_none_is_asked_for() {
        let table: [(&[&str], bool, bool); 7] = [
            (&["run", "--", "true"], false, true),
            (&["run", "--", "true"], true, false),
            (&["run", "--embedded", "true"], true, true),
            (&["run", "--", "x", "--embedded"], true, false),
            (&["run", "--socket", "/x", "--", "true"], false, false),
            (&["run", "--socket=/x", "true"], false, false),
            (&["run", "--help"], false, false),
        ];
        for (words, daemon, expected) in table {
            let words: Vec<OsString> = words.iter().map(Into::into).collect();
            assert_eq!(wanted(&words, || daemon), expected, "{words:?}");
        }
    }
}
