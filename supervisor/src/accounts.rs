//! Users and groups, without the C library's name service.
//!
//! That loads modules of the system's own C library into whoever asks, and a statically linked program has another one.
//! So the two files are read here, by the format of passwd(5) and group(5); who isn't in them (a directory service's
//! users, systemd's dynamic ones) is asked of getent(1), a process of its own that may crash or hang without us.
//! A line that doesn't fit its format is passed over, as the C library does.
//!
//! Both ways block. Never called on the daemon's loop once it serves: see `homes`.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use crate::patience::patience;

const PASSWD: &str = "/etc/passwd";
const GROUP: &str = "/etc/group";
/// By its full path: nothing of the caller's environment decides which program answers.
const GETENT: &str = "/usr/bin/getent";
/// The most that is read of a file: some 200,000 accounts.
const FILE_BYTES: u64 = 16 * 1024 * 1024;
/// The most that is taken of an answer: a group's line has all its members.
const ANSWER_BYTES: usize = 1024 * 1024;
/// How long an answer may take.
const ANSWER_WITHIN: Duration = patience(Duration::from_secs(5));

/// The home directory that the user database has for a user.
pub(crate) fn home(uid: u32) -> Option<PathBuf> {
    look_up(Path::new(PASSWD), GETENT, ["passwd", "--", &uid.to_string()], |line| home_in(line, uid))
}

/// The id of a user.
pub(crate) fn user(name: &str) -> Option<u32> {
    look_up(Path::new(PASSWD), GETENT, ["passwd", "--", name], |line| uid_in(line, name))
}

/// The groups that a user has when he logs in, the first his own; none of who isn't known.
pub(crate) fn groups_of(uid: u32) -> Vec<u32> {
    let account =
        look_up(Path::new(PASSWD), GETENT, ["passwd", "--", &uid.to_string()], |line| account_in(line, uid));
    let Some((name, gid)) = account else { return Vec::new() };
    let answer = ask(GETENT, ["initgroups", "--", &name], ANSWER_WITHIN);
    let asked = answer.as_deref().map(numbers_in).filter(|groups| !groups.is_empty());
    let mut groups = vec![gid];
    groups.extend(
        asked
            .unwrap_or_else(|| memberships(Path::new(GROUP), &name))
            .into_iter()
            .filter(|group| *group != gid),
    );
    groups
}

/// The name of a user and the group that is his own.
fn account_in(line: &[u8], uid: u32) -> Option<(String, u32)> {
    let fields: Vec<&[u8]> = line.split(|byte| *byte == b':').collect();
    let [name, _, id, gid, _, _, _] = fields[..] else { return None };
    let is_his = number(id)? == uid;
    Some((std::str::from_utf8(name).ok()?.to_owned(), number(gid)?)).filter(|_| is_his)
}

/// `name gid gid …`
fn numbers_in(answer: &[u8]) -> Vec<u32> {
    answer
        .split(u8::is_ascii_whitespace)
        .skip(1)
        .filter(|field| !field.is_empty())
        .filter_map(number)
        .collect()
}

/// The groups of a file that name somebody a member.
fn memberships(file: &Path, name: &str) -> Vec<u32> {
    let Ok(file) = File::open(file) else { return Vec::new() };
    let lines = BufReader::new(file.take(FILE_BYTES)).split(b'\n');
    let of = |line: Vec<u8>| {
        let fields: Vec<&[u8]> = line.split(|byte| *byte == b':').collect();
        let [_, _, id, members] = fields[..] else { return None };
        let is_one = members.split(|byte| *byte == b',').any(|member| member == name.as_bytes());
        number(id).filter(|_| is_one)
    };
    lines.map_while(Result::ok).filter_map(of).collect()
}

/// The id of a group.
pub(crate) fn group(name: &str) -> Option<u32> {
    look_up(Path::new(GROUP), GETENT, ["group", "--", name], |line| id_in(line, name))
}

/// In the file, else in what the program answers.
fn look_up<T>(file: &Path, program: &str, words: [&str; 3], found: impl Fn(&[u8]) -> Option<T>) -> Option<T> {
    in_file(file, &found).or_else(|| in_answer(&ask(program, words, ANSWER_WITHIN)?, &found))
}

/// `name:password:uid:gid:comment:home:shell`, if it is that user's.
fn home_in(line: &[u8], uid: u32) -> Option<PathBuf> {
    let fields: Vec<&[u8]> = line.split(|byte| *byte == b':').collect();
    let [_, _, id, _, _, home, _] = fields[..] else { return None };
    (number(id)? == uid).then(|| PathBuf::from(std::ffi::OsString::from_vec(home.to_vec())))
}

/// `name:password:uid:gid:comment:home:shell`, if it is that user's.
fn uid_in(line: &[u8], name: &str) -> Option<u32> {
    let fields: Vec<&[u8]> = line.split(|byte| *byte == b':').collect();
    let [found, _, id, _, _, _, _] = fields[..] else { return None };
    if found == name.as_bytes() { number(id) } else { None }
}

/// `name:password:gid:members`, if it is that group's.
fn id_in(line: &[u8], name: &str) -> Option<u32> {
    let fields: Vec<&[u8]> = line.split(|byte| *byte == b':').collect();
    let [found, _, id, _] = fields[..] else { return None };
    if found == name.as_bytes() { number(id) } else { None }
}

/// Digits and nothing else: no sign, which Rust would take.
fn number(field: &[u8]) -> Option<u32> {
    let digits = field.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(field).ok().filter(|_| digits)?.parse().ok()
}

/// The first line of a file that has it.
fn in_file<T>(path: &Path, found: impl Fn(&[u8]) -> Option<T>) -> Option<T> {
    let lines = BufReader::new(File::open(path).ok()?.take(FILE_BYTES)).split(b'\n');
    lines.map_while(Result::ok).find_map(|line| found(&line))
}

fn in_answer<T>(answer: &[u8], found: impl Fn(&[u8]) -> Option<T>) -> Option<T> {
    answer.split(|byte| *byte == b'\n').find_map(found)
}

/// What a program prints, if it is done in time and has said no more than it may. It leaves with us either way.
fn ask(program: &str, words: [&str; 3], within: Duration) -> Option<Vec<u8>> {
    let until = Instant::now() + within;
    let mut child = start(program, words)?;
    let answer = child.stdout.take().and_then(|output| read_until(output, until));
    // It has closed its output, or has had its time: in both cases there is nothing more to hear from it.
    let _gone = child.kill();
    let _reaped = child.wait();
    answer
}

#[allow(
    clippy::disallowed_methods,
    reason = "the one program beside the launcher; without code between fork and exec"
)]
fn start(program: &str, words: [&str; 3]) -> Option<Child> {
    #[cfg(test)]
    let _alone = crate::starting::one();
    let mut command = Command::new(program);
    command.args(words).env_clear();
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().ok()
}

/// Everything to the end of the file; `None` if that doesn't come by then, or is too much.
fn read_until(output: impl AsFd, until: Instant) -> Option<Vec<u8>> {
    let mut answer = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let left = Timespec::try_from(until.checked_duration_since(Instant::now())?).ok()?;
        match poll(&mut [PollFd::new(&output, PollFlags::IN)], Some(&left)) {
            Ok(0) => return None,
            Ok(_) => {}
            Err(Errno::INTR) => continue,
            Err(_broken) => return None,
        }
        match rustix::io::read(&output, &mut buffer) {
            Ok(0) => return Some(answer),
            Ok(read) => answer.extend_from_slice(&buffer[..read]),
            Err(Errno::INTR) => {}
            Err(_broken) => return None,
        }
        if answer.len() > ANSWER_BYTES {
            return None;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt as _;

    use super::*;

    #[test]
    fn a_users_line_gives_its_home_and_one_that_does_not_fit_nothing() {
        let line = b"me:x:7:8:Me,,,:/home/me:/bin/sh";
        assert_eq!(home_in(line, 7), Some(PathBuf::from("/home/me")));
        assert_eq!(home_in(line, 8), None);
        let odd = b"me:x:7:8::/home/\xff:";
        assert_eq!(home_in(odd, 7), Some(PathBuf::from(OsStr::from_bytes(b"/home/\xff"))));
        for line in [
            "",
            "#me",
            "+",
            "+::::::",
            "me:x:7:8:/home/me:/bin/sh",
            "me:x:+7:8::/h:",
            "me:x::8::/h:",
            "a:x:7:8::/h:/s:",
        ] {
            assert_eq!(home_in(line.as_bytes(), 7), None, "{line}");
            assert_eq!(home_in(line.as_bytes(), 0), None, "{line}");
        }
    }

    #[test]
    fn users_are_found_by_their_whole_names_and_have_the_groups_that_name_them() {
        assert_eq!((user("root"), user("no such user")), (Some(0), None));
        assert_eq!(uid_in(b"me:x:7:8:Me:/home/me:/bin/sh", "me"), Some(7));
        for line in ["me:x:7:8", "me:x:+7:8:::", "you:x:7:8:::", "me2:x:7:8:::"] {
            assert_eq!(uid_in(line.as_bytes(), "me"), None, "{line}");
        }
        assert_eq!(account_in(b"me:x:7:8:Me:/home/me:/bin/sh", 7), Some(("me".to_owned(), 8)));
        assert_eq!(numbers_in(b"me                    8 27\n"), [8, 27]);
        assert_eq!(groups_of(0).first(), Some(&0));
        assert!(groups_of(u32::MAX - 7).is_empty());
    }

    #[test]
    fn a_groups_line_gives_its_id_by_its_whole_name_only() {
        assert_eq!(id_in(b"editors:x:70:me,you", "editors"), Some(70));
        assert_eq!(id_in(b"editors::70:", "editors"), Some(70));
        for (line, name) in [
            ("editors:x:70:", "editor"),
            ("editors:x:70:", "70"),
            ("editors:x:70", "editors"),
            ("editors:x:-1:", "editors"),
        ] {
            assert_eq!(id_in(line.as_bytes(), name), None, "{line}");
        }
    }

    #[test]
    fn the_first_line_of_a_file_counts_and_bad_ones_are_passed_over() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("passwd");
        std::fs::write(&path, "nonsense\na:x:7:7::/first:\nb:x:7:7::/second:\nlast:x:9:9::/last:").unwrap();
        let home = |uid| in_file(&path, |line| home_in(line, uid));
        assert_eq!(home(7), Some(PathBuf::from("/first")));
        assert_eq!(home(9), Some(PathBuf::from("/last")));
        assert_eq!(home(8), None);
        assert_eq!(in_file(&directory.path().join("absent"), |line| home_in(line, 7)), None);
    }

    #[test]
    fn who_is_not_in_the_file_is_asked_for_and_who_is_in_it_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("passwd");
        std::fs::write(&file, "local:x:7:7::/home/local:\n").unwrap();
        let service = "echo 'other:x:8:8::/home/other:/bin/sh'; echo 'local:x:7:7::/home/elsewhere:'";
        let home = |uid| look_up(&file, "/bin/sh", ["-c", service, "sh"], |line| home_in(line, uid));
        assert_eq!(home(7), Some(PathBuf::from("/home/local")));
        assert_eq!(home(8), Some(PathBuf::from("/home/other")));
        assert_eq!(home(9), None);
    }

    /// What the C library's own tool says of root, whose line every machine has.
    #[test]
    fn root_has_the_home_that_getent_tells() {
        let told = ask(GETENT, ["passwd", "--", "0"], ANSWER_WITHIN);
        let Some(told) = told else { return assert!(!Path::new(GETENT).exists()) };
        assert_eq!(in_answer(&told, |line| home_in(line, 0)), home(0));
        assert!(home(0).is_some());
    }

    #[test]
    fn a_program_is_asked_with_an_empty_environment() {
        let answer = ask("/bin/sh", ["-c", "echo \"$#:${HOME-none}\"", "sh"], ANSWER_WITHIN);
        assert_eq!(answer.as_deref(), Some(&b"0:none\n"[..]));
    }

    #[test]
    fn a_program_that_hangs_or_floods_gives_no_answer_and_is_gone() {
        let directory = tempfile::tempdir().unwrap();
        let pid = directory.path().join("pid");
        for (script, within) in [
            ("echo $$ > PID; echo root; exec sleep 1000", Duration::from_millis(500)),
            ("echo $$ > PID; exec yes", Duration::from_secs(60)),
        ] {
            let script = script.replace("PID", pid.to_str().unwrap());
            assert_eq!(ask("/bin/sh", ["-c", &script, "sh"], within), None);
            // Where its start took longer than its time there is no file, or nothing in it.
            let told = std::fs::read_to_string(&pid).unwrap_or_default();
            if let Ok(pid) = told.trim().parse::<u32>() {
                assert!(!Path::new("/proc").join(pid.to_string()).exists(), "{script}");
            }
        }
    }

    #[test]
    fn a_program_that_is_not_there_gives_no_answer() {
        assert_eq!(ask("/nonexistent/getent", ["passwd", "--", "0"], ANSWER_WITHIN), None);
    }
}
