//! Many tries one after another, each in a process and a session of its own, so that none sees what another left of itself.

use std::io::Write as _;
use std::time::Duration;

use nix::sys::wait::WaitStatus;
use nix::unistd::ForkResult;

use crate::{Answer, Arguments, Attempt, Refused, attempt, look_up, raw};

const TABLE: &[(&str, Attempt)] = &[("tries", tries)];

pub(crate) fn find(name: &str) -> Option<Attempt> {
    look_up(TABLE, name)
}

/// Seconds that one try may take.
const PATIENCE: u32 = 15;

/// Makes every try of a file: a line each, of a title, a name and its arguments, with tabs between them. Prints a line each:
/// the title, a tab, and what a single try prints; `killed SIGNAL` when it was.
fn tries(arguments: &Arguments) -> Answer {
    let text = std::fs::read_to_string(arguments.text(0)?)?;
    let mut count = 0_u32;
    for line in text.lines() {
        let mut words = line.split('\t').map(str::to_owned);
        let (Some(title), Some(name)) = (words.next(), words.next()) else {
            return Err(Refused::Usage(format!("a title and a name: {line}")));
        };
        one(&title, &name, &Arguments(words.collect()))?;
        count += 1;
    }
    Ok(count.to_string())
}

/// Where a user's processes are counted together, others of the same user may leave no room for a moment.
fn fork() -> nix::Result<ForkResult> {
    const ROUNDS: u32 = 1000;
    let mut forked = raw::fork();
    for _ in 0..ROUNDS {
        if !matches!(forked, Err(nix::errno::Errno::EAGAIN)) {
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
        forked = raw::fork();
    }
    forked
}

fn one(title: &str, name: &str, arguments: &Arguments) -> Result<(), Refused> {
    let say = |what: &str| {
        let mut out = std::io::stdout().lock();
        // In one piece, so that a try that is killed leaves no half of a line.
        out.write_all(format!("{title}\t{what}\n").as_bytes()).and_then(|()| out.flush())
    };
    match fork()? {
        ForkResult::Child => {
            raw::die_in(PATIENCE);
            let _ = rustix::process::setsid();
            let said = attempt(name, arguments).unwrap_or_else(|usage| format!("{name} usage {usage}"));
            raw::leave(i32::from(say(&said).is_err()));
        }
        ForkResult::Parent { child } => match nix::sys::wait::waitpid(child, None)? {
            WaitStatus::Exited(..) => {}
            WaitStatus::Signaled(_, signal, _) => say(&format!("{name} killed {}", signal.as_str()))?,
            other => say(&format!("{name} said {other:?}"))?,
        },
    }
    Ok(())
}
