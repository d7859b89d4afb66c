//! What who approves is shown of a request, and the digest of all that would run: what isn't shown, too.
//!
//! The digest goes over what the launcher would be told, as it would be told, and the whole of what the run would be confined to.
//! So nothing that is added to either can be forgotten here. What neither has goes in beside it: the directory that was passed as
//! the workspace (its numbers, not its name only), where standard input comes from, a tool's parameters as they came.

use stockade_gate::approve::Canonical;
use stockade_protocol::approval::ApprovalInput;
use stockade_protocol::bounds::MAX_APPROVAL_SHOWN;
use stockade_protocol::denied::{Denied, DenyReason};
use stockade_protocol::{Bytes, codec};

use crate::admission::{Admitted, StdinPlan};
use crate::aside::Foreign;
use crate::descriptors;

/// What the kernel calls a file: the numbers of its device and of itself.
type Identity = [u64; 3];

/// See the module.
#[derive(Debug)]
pub(super) struct Shown {
    pub(super) digest: [u8; 32],
    pub(super) argv: Vec<Bytes>,
    pub(super) parameters: Option<Bytes>,
    pub(super) environment: Vec<Bytes>,
    pub(super) input: ApprovalInput,
    pub(super) workspace: Bytes,
    pub(super) cwd: Bytes,
    pub(super) is_cut: bool,
}

impl Shown {
    /// Of a request that was admitted, with a tool's parameters and the descriptors of its workspace and its standard input.
    ///
    /// # Errors
    /// It can't be told what would run.
    pub(super) fn of(
        admitted: &Admitted,
        parameters: Option<Bytes>,
        (workspace, stdin): (Option<&Foreign>, Option<&Foreign>),
    ) -> Result<Self, Denied> {
        let workspace = identity(workspace)?.ok_or_else(by_path)?;
        let digest = digest(admitted, parameters.as_ref(), workspace, identity(stdin)?)?;
        let Admitted { launch, stdin, .. } = admitted;
        let mut is_cut = false;
        let names = launch.environment.iter().map(|(name, _)| name.clone());
        Ok(Self {
            digest,
            argv: all_within(launch.argv.iter().cloned(), &mut is_cut),
            parameters: parameters.map(|parameters| within(parameters, &mut is_cut)),
            environment: all_within(names, &mut is_cut),
            input: match stdin {
                StdinPlan::Null => ApprovalInput::None,
                StdinPlan::Inline(bytes) => ApprovalInput::Inline(within(bytes.clone(), &mut is_cut)),
                StdinPlan::Stream => ApprovalInput::Stream,
                StdinPlan::Passed | StdinPlan::Relayed(_) => ApprovalInput::Descriptor,
            },
            workspace: launch.workspace.clone(),
            cwd: launch.cwd.clone(),
            is_cut,
        })
    }
}

/// A path may lead to another directory by the time that somebody has answered.
fn by_path() -> Denied {
    let text = "what somebody has to approve first needs its workspace as a descriptor, not as a path";
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
    parameters: Option<&Bytes>,
    workspace: Identity,
    stdin: Option<Identity>,
) -> Result<[u8; 32], Denied> {
    let Admitted { launch, spec, stdin: plan } = admitted;
    let (launch, spec) = (codec::encode_launch(launch), codec::encode_launch(&**spec));
    let numbers = |identity: Identity| identity.map(u64::to_le_bytes).concat();
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
        .maybe("parameters", parameters.map(|parameters| &**parameters));
    Ok(digest.finish())
}

/// So much of it as is shown.
fn within(mut bytes: Bytes, is_cut: &mut bool) -> Bytes {
    *is_cut |= bytes.len() > MAX_APPROVAL_SHOWN;
    bytes.0.truncate(MAX_APPROVAL_SHOWN);
    bytes
}

fn all_within(all: impl Iterator<Item = Bytes>, is_cut: &mut bool) -> Vec<Bytes> {
    /// What one takes beside its bytes.
    const EACH: usize = 8;
    let (mut left, mut shown) = (MAX_APPROVAL_SHOWN, Vec::new());
    for mut one in all {
        if left < EACH {
            *is_cut = true;
            break;
        }
        left -= EACH;
        *is_cut |= one.len() > left;
        one.0.truncate(left);
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
            let shown = all_within(all.into_iter(), &mut is_cut);
            (shown.iter().map(|one| one.len() + 8).sum::<usize>(), shown.len(), is_cut)
        };
        assert_eq!(shown(vec!["ls".into(), "-l".into()]), (20, 2, false));
        assert_eq!(shown(vec![Bytes(vec![0; MAX_APPROVAL_SHOWN - 8])]), (MAX_APPROVAL_SHOWN, 1, false));
        assert_eq!(shown(vec![Bytes(vec![0; MAX_APPROVAL_SHOWN - 7])]), (MAX_APPROVAL_SHOWN, 1, true));
        assert_eq!(shown(vec![Bytes::default(); 4_000]), (MAX_APPROVAL_SHOWN, 2_048, true));
        let mut is_cut = false;
        assert_eq!(within(Bytes(vec![0; MAX_APPROVAL_SHOWN + 1]), &mut is_cut).len(), MAX_APPROVAL_SHOWN);
        assert!(is_cut);
    }
}
