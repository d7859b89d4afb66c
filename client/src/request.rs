//! A request with the descriptors that belong to it, so that the two can't disagree.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use stockade_protocol::Bytes;
use stockade_protocol::client::{ExecRequest, OutputMode, Overrides, StdinMode, ToolCall, Workspace};

/// One request. Starts as: policy `default`, no environment, `/dev/null` as standard input, output as events, the
/// run ends with the connection.
///
/// ```
/// use stockade_client::Request;
///
/// let request = Request::new(["sort", "-u"])
///     .policy("strict")
///     .variable("LC_ALL", "C")
///     .stdin_bytes("b\na\nb\n")
///     .workspace_path("/srv/work");
/// assert_eq!(request.exec().policy, "strict");
/// ```
#[derive(Debug)]
pub struct Request {
    exec: ExecRequest,
    workspace: Option<OwnedFd>,
    stdin: Option<OwnedFd>,
    output: Option<(OwnedFd, OwnedFd)>,
}

impl Request {
    /// For a command: the program (looked up in the run's `PATH` unless it has a `/`) and its arguments.
    #[must_use]
    pub fn new<A: Into<Bytes>>(argv: impl IntoIterator<Item = A>) -> Self {
        Self {
            exec: ExecRequest {
                request_id: 0,
                argv: argv.into_iter().map(Into::into).collect(),
                environment: Vec::new(),
                cwd: Bytes::default(),
                policy: "default".into(),
                workspace: Workspace::Path { path: Bytes::from("/nonexistent") },
                overrides: Overrides::default(),
                stdin: StdinMode::None,
                output: OutputMode::Stream,
                detach: false,
                tool: None,
            },
            workspace: None,
            stdin: None,
            output: None,
        }
    }

    /// For a call of a tool that the daemon has: its file says the command, the policy and what is read. `parameters`: a JSON
    /// object.
    #[must_use]
    pub fn tool(mut self, name: &str, parameters: impl Into<Bytes>) -> Self {
        self.exec.tool = Some(ToolCall { name: name.to_owned(), parameters: parameters.into() });
        self.exec.argv.clear();
        self.exec.policy.clear();
        self.exec.stdin = StdinMode::None;
        self.stdin = None;
        self
    }

    /// Under this policy.
    #[must_use]
    pub fn policy(mut self, name: &str) -> Self {
        self.exec.policy = name.to_owned();
        self
    }

    /// In this directory, opened here and now by this process and passed as a descriptor: so the caller proves its
    /// own access, and a later change of the path doesn't matter.
    ///
    /// # Errors
    /// Those of `open(2)`: the path isn't there, isn't a directory, isn't the caller's to enter.
    pub fn workspace(mut self, path: &Path) -> io::Result<Self> {
        let directory =
            rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        let path = path_of(&directory)?;
        self.exec.workspace = Workspace::Descriptor { path: path.into() };
        self.workspace = Some(directory);
        Ok(self)
    }

    /// In this directory, opened by the supervisor's side as the caller. Absolute.
    #[must_use]
    pub fn workspace_path(mut self, path: impl AsRef<Path>) -> Self {
        self.exec.workspace = Workspace::Path { path: path.as_ref().into() };
        self.workspace = None;
        self
    }

    /// With this working directory: absolute and beneath the workspace. Without it, the workspace itself.
    #[must_use]
    pub fn cwd(mut self, path: impl AsRef<Path>) -> Self {
        self.exec.cwd = path.as_ref().into();
        self
    }

    /// With this environment variable. The policy's allow-list decides whether it arrives.
    #[must_use]
    pub fn variable(mut self, name: impl Into<Bytes>, value: impl Into<Bytes>) -> Self {
        let (name, value) = (name.into(), value.into());
        self.exec.environment.retain(|(known, _)| *known != name);
        self.exec.environment.push((name, value));
        self
    }

    /// With this whole environment, in place of what was given before.
    #[must_use]
    pub fn environment(mut self, environment: Vec<(Bytes, Bytes)>) -> Self {
        self.exec.environment = environment;
        self
    }

    /// With limits that may only be tighter than the policy's.
    #[must_use]
    pub fn overrides(mut self, overrides: Overrides) -> Self {
        self.exec.overrides = overrides;
        self
    }

    /// With these bytes as standard input.
    #[must_use]
    pub fn stdin_bytes(mut self, bytes: impl Into<Bytes>) -> Self {
        self.exec.stdin = StdinMode::Inline(bytes.into());
        self.stdin = None;
        self
    }

    /// With standard input sent later ([`Client::stdin`](crate::Client::stdin)).
    #[must_use]
    pub fn stdin_stream(mut self) -> Self {
        self.exec.stdin = StdinMode::Stream;
        self.stdin = None;
        self
    }

    /// With this descriptor as standard input: a pipe, a file or a terminal becomes the tool's own where the policy
    /// has no rule on input; else the supervisor reads it.
    #[must_use]
    pub fn stdin_from(mut self, descriptor: OwnedFd) -> Self {
        self.exec.stdin = StdinMode::Descriptor;
        self.stdin = Some(descriptor);
        self
    }

    /// With these descriptors as standard output and error where the policy has no rule on output; else output
    /// comes as events all the same, and [`Confinement::stdio`](crate::Confinement) says so.
    #[must_use]
    pub fn output_to(mut self, stdout: OwnedFd, stderr: OwnedFd) -> Self {
        self.exec.output = OutputMode::Descriptor;
        self.output = Some((stdout, stderr));
        self
    }

    /// Goes on when the connection ends.
    #[must_use]
    pub fn detach(mut self) -> Self {
        self.exec.detach = true;
        self
    }

    /// The message this makes. Its request id is chosen when it's sent.
    #[must_use]
    pub fn exec(&self) -> &ExecRequest {
        &self.exec
    }

    /// The message and the descriptors beside it, in the wire's order: for who sends it another way than over a connection.
    #[must_use]
    pub fn into_parts(self) -> (ExecRequest, Vec<OwnedFd>) {
        let output = self.output.into_iter().flat_map(|(stdout, stderr)| [stdout, stderr]);
        (self.exec, self.workspace.into_iter().chain(self.stdin).chain(output).collect())
    }

    /// The descriptors beside it, in the wire's order: workspace, stdin, stdout, stderr.
    #[must_use]
    pub fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        let output = self.output.iter().flat_map(|(stdout, stderr)| [stdout, stderr]);
        self.workspace.iter().chain(&self.stdin).chain(output).map(AsFd::as_fd).collect()
    }
}

/// The absolute path an open directory has in this process's view.
fn path_of(directory: &OwnedFd) -> io::Result<PathBuf> {
    use std::os::fd::AsRawFd as _;
    let link = format!("/proc/self/fd/{}", directory.as_raw_fd());
    let path = std::fs::read_link(link)?;
    // The kernel marks an unlinked directory so; a live one of that very name is still found by its link count.
    if path.as_os_str().as_bytes().ends_with(b" (deleted)") && rustix::fs::fstat(directory)?.st_nlink == 0 {
        return Err(io::Error::new(io::ErrorKind::NotFound, "the directory has been removed"));
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn descriptors_of_a_full_request_stand_in_the_wires_order() {
        use std::os::fd::AsRawFd;
        let null = || OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
        let (stdin, stdout, stderr) = (null(), null(), null());
        let raw = [stdin.as_raw_fd(), stdout.as_raw_fd(), stderr.as_raw_fd()];
        let request = Request::new(["true"])
            .output_to(stdout, stderr)
            .stdin_from(stdin)
            .workspace("/".as_ref())
            .unwrap();
        let passed: Vec<_> = request.descriptors().iter().map(AsRawFd::as_raw_fd).collect();
        assert_eq!(passed[1..], raw);
        assert_eq!(passed.len(), 4);
        assert_eq!(request.exec().workspace, Workspace::Descriptor { path: Bytes::from("/") });
        let (_, parts) = request.into_parts();
        assert_eq!(parts.iter().map(AsRawFd::as_raw_fd).collect::<Vec<_>>(), passed);
    }

    #[test]
    fn a_workspace_given_again_as_a_path_passes_no_descriptor() {
        let request = Request::new(["true"]).workspace("/".as_ref()).unwrap().workspace_path("/srv");
        assert!(request.descriptors().is_empty());
    }

    #[test]
    fn a_workspace_that_is_a_file_is_refused_here() {
        let error = Request::new(["true"]).workspace("/etc/passwd".as_ref()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotADirectory);
    }

    #[test]
    fn a_removed_workspace_is_refused_here() {
        let directory = tempfile::tempdir().unwrap();
        let open = rustix::fs::open(directory.path(), OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).unwrap();
        directory.close().unwrap();
        assert_eq!(path_of(&open).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_variable_given_twice_has_its_last_value() {
        let request = Request::new(["true"]).variable("A", "1").variable("A", "2");
        assert_eq!(request.exec().environment, [(Bytes::from("A"), Bytes::from("2"))]);
    }
}
