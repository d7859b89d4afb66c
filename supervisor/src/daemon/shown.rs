//! What who approves is shown of a request, and the digest of all that would run: what isn't shown, too.
//!
//! The digest goes over what the launcher would be told, as it would be told, and the whole of what the run would be confined to.
//! So nothing that is added to either can be forgotten here. What neither has goes in beside it: the directory that was passed as
//! the workspace (its numbers, not its name only), where standard input comes from, a tool's parameters as they came.

use std::os::fd::AsRawFd as _;

use stockade_gate::approve::Canonical;
use stockade_protocol::approval::{ApprovalInput, ApprovalWhole};
use stockade_protocol::bounds::MAX_APPROVAL_SHOWN;
use stockade_protocol::client::Overrides;
use stockade_protocol::denied::{Denied, DenyReason};
use stockade_protocol::{Bytes, codec};

use crate::admission::{Admitted, StdinPlan};
use crate::aside::Foreign;
use crate::descriptors;

/// What one of a list takes beside its bytes.
const EACH: usize = 8;

/// What the kernel calls a file: the numbers of its device and of itself.
type Identity = [u64; 3];

/// What came beside an admitted request.
#[derive(Debug)]
pub(super) struct Beside<'a> {
    /// A tool's parameters, as they came.
    pub(super) parameters: Option<&'a [u8]>,
    /// Limits that its client has tightened.
    pub(super) overrides: Overrides,
    /// Its client's descriptors.
    pub(super) workspace: Option<&'a Foreign>,
    pub(super) stdin: Option<&'a Foreign>,
    pub(super) output: &'a [Foreign],
}

/// See the module.
#[derive(Debug)]
pub(super) struct Shown {
    pub(super) digest: [u8; 32],
    pub(super) argv: Vec<Bytes>,
    pub(super) parameters: Option<Bytes>,
    pub(super) environment: Vec<Bytes>,
    /// Without those that are secrets.
    pub(super) values: Vec<Option<Bytes>>,
    pub(super) input: ApprovalInput,
    pub(super) workspace: Bytes,
    pub(super) cwd: Bytes,
    pub(super) output: Vec<Bytes>,
    pub(super) overrides: Overrides,
    pub(super) whole: ApprovalWhole,
    pub(super) is_cut: bool,
}

impl Shown {
    /// Of a request that was admitted, with what came beside it.
    ///
    /// # Errors
    /// It can't be told what would run.
    pub(super) fn of(admitted: &Admitted, beside: &Beside<'_>) -> Result<Self, Denied> {
        let workspace = identity(beside.workspace)?.ok_or_else(by_path)?;
        let outputs = beside.output.iter().map(|one| identity(Some(one))).collect::<Result<Vec<_>, _>>()?;
        let digest = digest(admitted, beside, workspace, &outputs)?;
        let Admitted { launch, stdin, .. } = admitted;
        let mut is_cut = false;
        let (environment, values) = variables(admitted, &mut is_cut);
        Ok(Self {
            digest,
            argv: all_within(&launch.argv, MAX_APPROVAL_SHOWN, &mut is_cut),
            parameters: beside.parameters.map(|all| within(all, MAX_APPROVAL_SHOWN, &mut is_cut)),
            environment,
            values,
            input: match stdin {
                // A file that the run itself opens: nobody has seen what is in it.
                StdinPlan::Null if launch.openings.iter().any(|opening| opening.number == 0) => {
                    ApprovalInput::Descriptor
                }
                StdinPlan::Null => ApprovalInput::None,
                StdinPlan::Inline(bytes) => {
                    ApprovalInput::Inline(within(bytes, MAX_APPROVAL_SHOWN, &mut is_cut))
                }
                StdinPlan::Stream => ApprovalInput::Stream,
                StdinPlan::Passed | StdinPlan::Relayed(_) => ApprovalInput::Descriptor,
            },
            workspace: launch.workspace.clone(),
            cwd: launch.cwd.clone(),
            output: beside.output.iter().map(called).collect(),
            overrides: beside.overrides.clone(),
            whole: whole(admitted, beside),
            is_cut,
        })
    }

    /// Bytes that a request holds while it waits, roughly, with what is shown of it; asked before anything is copied.
    pub(super) fn held(admitted: &Admitted, beside: &Beside<'_>) -> usize {
        let whole = whole(admitted, beside);
        let parts = [whole.argv, whole.parameters, whole.environment, whole.input];
        let bytes = parts.map(|part| part + part.min(MAX_APPROVAL_SHOWN as u64)).iter().sum::<u64>();
        let each = (whole.words + 2 * whole.variables) * size_of::<Bytes>() as u64;
        usize::try_from(bytes + each).unwrap_or(usize::MAX)
    }

    /// With so many bytes of each part at most.
    pub(super) fn shorter(&self, most: usize) -> Self {
        let mut is_cut = self.is_cut;
        let cut = &mut is_cut;
        let (environment, values) = pairs_within(self.variables(), most, cut);
        Self {
            digest: self.digest,
            argv: all_within(&self.argv, most, cut),
            parameters: self.parameters.as_deref().map(|all| within(all, most, cut)),
            environment,
            values,
            input: match &self.input {
                ApprovalInput::Inline(bytes) => ApprovalInput::Inline(within(bytes, most, cut)),
                other => other.clone(),
            },
            workspace: within(&self.workspace, most, cut),
            cwd: within(&self.cwd, most, cut),
            output: all_within(&self.output, most, cut),
            overrides: self.overrides.clone(),
            whole: self.whole,
            is_cut,
        }
    }

    fn variables(&self) -> impl Iterator<Item = (&Bytes, Option<&Bytes>)> {
        self.environment.iter().zip(self.values.iter().map(Option::as_ref))
    }

    /// Bytes that this takes in a list, roughly, with so many of each part at most.
    pub(super) fn size(&self, most: usize) -> usize {
        let list = |all: &[Bytes]| all.iter().map(|one| one.len() + EACH).sum::<usize>().min(most + EACH);
        let values = self.values.iter().flatten().map(|value| value.len() + 2 * EACH).sum::<usize>();
        let names = self.environment.iter().map(|name| name.len() + EACH).sum::<usize>();
        let input = if let ApprovalInput::Inline(bytes) = &self.input { bytes.len() } else { 0 };
        let single = [
            self.parameters.as_ref().map_or(0, |parameters| parameters.len()),
            names + values,
            input,
            self.workspace.len(),
            self.cwd.len(),
        ];
        list(&self.argv) + list(&self.output) + single.map(|length| length.min(most)).iter().sum::<usize>()
    }
}

fn whole(admitted: &Admitted, beside: &Beside<'_>) -> ApprovalWhole {
    let Admitted { launch, stdin, .. } = admitted;
    let inline = if let StdinPlan::Inline(bytes) = stdin { bytes.len() } else { 0 };
    ApprovalWhole {
        words: launch.argv.len() as u64,
        argv: launch.argv.iter().map(|word| word.len() as u64).sum(),
        parameters: beside.parameters.map_or(0, <[u8]>::len) as u64,
        variables: launch.environment.len() as u64,
        environment: launch.environment.iter().map(|(name, value)| (name.len() + value.len()) as u64).sum(),
        input: inline as u64,
    }
}

/// A file as the kernel calls it. Who asks has opened it: its name says more than that it's there.
fn called(file: &Foreign) -> Bytes {
    let path = file.get().and_then(|file| std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd())));
    path.map_or_else(|_| "unknown".into(), Bytes::from)
}

/// Names and values, without the values of secrets.
fn variables(admitted: &Admitted, is_cut: &mut bool) -> (Vec<Bytes>, Vec<Option<Bytes>>) {
    let environment = &admitted.launch.environment;
    let mut secrets = admitted.confines.secrets(environment).peekable();
    let is_secret =
        |variable: &(Bytes, Bytes)| secrets.next_if(|secret| core::ptr::eq(*secret, variable)).is_some();
    let hidden: Vec<bool> = environment.iter().map(is_secret).collect();
    let shown = environment.iter().zip(hidden);
    let shown = shown.map(|((name, value), is_secret)| (name, (!is_secret).then_some(value)));
    pairs_within(shown, MAX_APPROVAL_SHOWN, is_cut)
}

/// So many bytes of both together.
fn pairs_within<'a>(
    all: impl Iterator<Item = (&'a Bytes, Option<&'a Bytes>)>,
    most: usize,
    is_cut: &mut bool,
) -> (Vec<Bytes>, Vec<Option<Bytes>>) {
    let (mut left, mut names, mut values) = (most, Vec::new(), Vec::new());
    for (name, value) in all {
        if left < 2 * EACH {
            *is_cut = true;
            break;
        }
        left -= 2 * EACH;
        let name = within(name, left, is_cut);
        left -= name.len();
        let value = value.map(|value| within(value, left, is_cut));
        left -= value.as_ref().map_or(0, |value| value.len());
        names.push(name);
        values.push(value);
    }
    (names, values)
}

/// A path may lead to another directory by the time that somebody has answered: what is approved is a directory that is open.
fn by_path() -> Denied {
    let text = "what somebody has to approve first needs its workspace open";
    Denied::new(DenyReason::NotApproved, text)
        .decided_by("approve", "workspace")
        .remedy("pass the open directory beside the request, as `stockade run` does")
}

fn unknown(why: impl core::fmt::Display) -> Denied {
    let text = format!("it can't be told what would run, so nobody can approve it: {why}");
    Denied::new(DenyReason::NotApproved, text).decided_by("approve", "digest")
}

fn identity(descriptor: Option<&Foreign>) -> Result<Option<Identity>, Denied> {
    let look = |descriptor: &Foreign| descriptors::identity(descriptor.get()?);
    descriptor.map(look).transpose().map_err(unknown)
}

fn digest(
    admitted: &Admitted,
    beside: &Beside<'_>,
    workspace: Identity,
    outputs: &[Option<Identity>],
) -> Result<[u8; 32], Denied> {
    let Admitted { launch, spec, stdin: plan, .. } = admitted;
    let stdin = identity(beside.stdin)?;
    let (launch, spec) = (codec::encode_launch(launch), codec::encode_launch(&**spec));
    let numbers = |identity: Identity| identity.map(u64::to_le_bytes).concat();
    let outputs: Vec<_> = outputs.iter().flatten().map(|file| numbers(*file)).collect();
    let (kind, inline): (&[u8], Option<&Bytes>) = match plan {
        StdinPlan::Null => (b"none", None),
        StdinPlan::Inline(bytes) => (b"inline", Some(bytes)),
        StdinPlan::Stream => (b"stream", None),
        StdinPlan::Passed | StdinPlan::Relayed(_) => (b"descriptor", None),
    };
    let digest = Canonical::default()
        .part("launch", &launch.map_err(unknown)?)
        .part("spec", &spec.map_err(unknown)?)
        .part("workspace", &numbers(workspace))
        .part("stdin", kind)
        .maybe("stdin-bytes", inline.map(|bytes| &**bytes))
        .maybe("stdin-file", stdin.map(numbers).as_deref())
        .list("output-files", outputs.iter().map(Vec::as_slice))
        .maybe("parameters", beside.parameters);
    Ok(digest.finish())
}

/// So much of it as is shown: copied, and the rest isn't.
fn within(bytes: &[u8], most: usize, is_cut: &mut bool) -> Bytes {
    *is_cut |= bytes.len() > most;
    Bytes(bytes[..bytes.len().min(most)].to_vec())
}

fn all_within(all: &[Bytes], most: usize, is_cut: &mut bool) -> Vec<Bytes> {
    let (mut left, mut shown) = (most, Vec::new());
    for one in all {
        if left < EACH {
            *is_cut = true;
            break;
        }
        left -= EACH;
        let one = within(one, left, is_cut);
        left -= one.len();
        shown.push(one);
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_is_bounded_and_says_that_it_is_cut() {
        let shown = |all: Vec<Bytes>| {
            let mut is_cut = false;
            let shown = all_within(&all, MAX_APPROVAL_SHOWN, &mut is_cut);
            (shown.iter().map(|one| one.len() + 8).sum::<usize>(), shown.len(), is_cut)
        };
        assert_eq!(shown(vec!["ls".into(), "-l".into()]), (20, 2, false));
        assert_eq!(shown(vec![Bytes(vec![0; MAX_APPROVAL_SHOWN - 8])]), (MAX_APPROVAL_SHOWN, 1, false));
        assert_eq!(shown(vec![Bytes(vec![0; MAX_APPROVAL_SHOWN - 7])]), (MAX_APPROVAL_SHOWN, 1, true));
        assert_eq!(shown(vec![Bytes::default(); 4_000]), (MAX_APPROVAL_SHOWN, 2_048, true));
        let mut is_cut = false;
        let cut = within(&vec![0; MAX_APPROVAL_SHOWN + 1], MAX_APPROVAL_SHOWN, &mut is_cut);
        assert_eq!((cut.len(), is_cut), (MAX_APPROVAL_SHOWN, true));
        assert!(cut.0.capacity() < 2 * MAX_APPROVAL_SHOWN, "what isn't shown isn't held");
    }

    #[test]
    fn what_is_shown_shorter_is_as_short_and_says_so() {
        let long = |byte: u8| Bytes(vec![byte; MAX_APPROVAL_SHOWN - EACH]);
        let shown = Shown {
            digest: [7; 32],
            argv: vec![long(b'a')],
            parameters: Some(long(b'p')),
            environment: vec!["A".into(), "B_TOKEN".into()],
            values: vec![Some(long(b'v')), None],
            input: ApprovalInput::Inline(long(b'i')),
            workspace: "/w".into(),
            cwd: Bytes::default(),
            output: Vec::new(),
            overrides: Overrides::default(),
            whole: ApprovalWhole { argv: 99, ..ApprovalWhole::default() },
            is_cut: false,
        };
        for most in [MAX_APPROVAL_SHOWN, 1_024, 64] {
            let short = shown.shorter(most);
            let ApprovalInput::Inline(input) = &short.input else { panic!("{short:?}") };
            let values = short.values.iter().flatten().map(|value| value.len()).sum::<usize>();
            let texts = [&short.argv[0], short.parameters.as_ref().unwrap(), input].map(|part| part.len());
            assert!(texts.iter().sum::<usize>() + values <= shown.size(most), "{most}");
            assert!(texts.iter().chain([&values]).all(|length| *length <= most), "{most}: {texts:?}");
            assert_eq!((short.digest, short.whole), (shown.digest, shown.whole));
            assert!(short.is_cut || most == MAX_APPROVAL_SHOWN);
            assert!(short.values.get(1).is_none_or(Option::is_none));
        }
    }
}
