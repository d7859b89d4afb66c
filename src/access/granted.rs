//! What `stockade access check` says of grants: the daemon has them, and it's asked.

use std::path::Path;

use stockade_gate::grants::{Whom, of_command, of_parameters};
use stockade_gate::{Action, Asked, Given};
use stockade_protocol::grants::{GrantSummary, GrantWhat};

use crate::error::{CliError, chain};
use crate::place;
use crate::{escape, grant};

/// What a daemon's grants say.
pub(super) enum Granted {
    By(Box<GrantSummary>),
    Nobody,
    /// There is no daemon of these files, or why it can't be asked.
    NotAsked(Option<String>),
}

impl Granted {
    /// As a line of text.
    pub(super) fn sentence(&self) -> String {
        match self {
            Self::By(one) => format!(
                "refused by rules, permitted by a grant: {}: {}\n",
                escape::line(one.id.as_bytes()),
                grant::sentence(one)
            ),
            Self::Nobody => "no grant that you may see permits it\n".to_owned(),
            Self::NotAsked(None) => "grants aren't looked at: there is no daemon to ask\n".to_owned(),
            Self::NotAsked(Some(why)) => {
                format!("grants aren't looked at: {}\n", escape::line(why.as_bytes()))
            }
        }
    }

    /// Asks the daemon of the files that are asked about, if there is one, whether a grant fits.
    pub(super) fn look(socket: Option<&Path>, asked: &Asked<'_>) -> Self {
        let there = socket.filter(|path| path.try_exists().unwrap_or(true));
        there.map_or(Self::NotAsked(None), |socket| {
            Self::ask(socket, asked).unwrap_or_else(|error| Self::NotAsked(Some(chain(&error))))
        })
    }

    /// By the names, unit and digest that it tells, as it would itself.
    fn ask(socket: &Path, asked: &Asked<'_>) -> Result<Self, CliError> {
        let mut client = place::need("access check", Some(socket))?;
        let what = match asked.action {
            Action::Run => asked.policy.map(|name| GrantWhat::Policy(name.to_owned())),
            _ => asked.tool.map(|name| GrantWhat::Tool(name.to_owned())),
        };
        let digest = match asked.given {
            Given::Command(words) => of_command(words.iter().map(Vec::as_slice)),
            Given::Parameters(parameters) => of_parameters(parameters),
            Given::Nothing => None,
        };
        let fits = |one: &GrantSummary| {
            let to = Whom { uid: one.uid, unit: one.unit.clone() };
            to.is(asked.principal)
                && what.as_ref() == Some(&one.what)
                && one.uses_left.is_none_or(|left| left > 0)
                && one.digest.is_none_or(|of| digest == Some(of))
        };
        let found = client.grants()?.grants.into_iter().find(fits);
        Ok(found.map_or(Self::Nobody, |one| Self::By(Box::new(one))))
    }
}
