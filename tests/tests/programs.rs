//! Real programs do their work under the shipped policies, in every mode.
//!
//! A row names its policy, the programs it needs, what to do (a line of bash in a workspace of its own) and what must
//! be on the output. A program that isn't on this machine is said by name.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
#![allow(clippy::disallowed_methods, reason = "tests start programs and wait for them")]

use std::time::Duration;

use stockade_tests::{Ended, Ground, Mode, Person, Setting, not_tested, program};

struct Row {
    name: &'static str,
    policy: &'static str,
    needs: &'static [&'static str],
    files: &'static [(&'static str, &'static str)],
    line: &'static str,
    text: &'static str,
}

const fn row(
    name: &'static str,
    needs: &'static [&'static str],
    line: &'static str,
    text: &'static str,
) -> Row {
    Row { name, policy: "default", needs, files: &[], line, text }
}

/// Runs every row in every mode, and tells all that failed at once.
fn every(rows: &[Row]) {
    let possible: Vec<&Row> = rows.iter().filter(|row| is_possible(row)).collect();
    let mut failed = Vec::new();
    for row in possible {
        for setting in Setting::each() {
            if row.name == "temporary file under minimal" && !keeps_temporary_files(&setting) {
                not_tested(row.name, "root's daemon finds no home for a user without an account");
                continue;
            }
            for (name, text) in row.files {
                setting.ground.put(name, text);
            }
            let run = setting.run(row.policy).words(["bash", "-c", row.line]);
            let ended = run.patience(Duration::from_secs(180)).finish();
            if ended.code != Some(0) || ended.text() != row.text {
                failed.push(format!("== {} in {:?}: {}", row.name, setting.mode, ended.story()));
            }
        }
    }
    assert!(failed.is_empty(), "{} failed\n{}", failed.len(), failed.join("\n"));
}

/// At `minimal` temporary files lie in the owner's home, which root's daemon knows from the user database alone.
fn keeps_temporary_files(setting: &Setting) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    let uid = std::fs::metadata(setting.ground.work()).unwrap().uid();
    let accounts = std::fs::read_to_string("/etc/passwd").unwrap();
    let known = accounts.lines().any(|line| line.split(':').nth(2) == Some(uid.to_string().as_str()));
    known || setting.mode != Mode::RootDaemonForUser
}

/// Whether the row works here without a sandbox, as the same user: what fails there says nothing of ours.
fn is_possible(row: &Row) -> bool {
    if let Some(missing) = row.needs.iter().find(|name| program(name).is_none()) {
        not_tested(row.name, &format!("{missing} isn't installed"));
        return false;
    }
    let ground = Ground::new(Person::user());
    for (name, text) in row.files {
        ground.put(name, text);
    }
    let mut command = ground.command("bash");
    command.args(["-c", row.line]);
    let ended = Ended::of(command);
    let is_right = ended.code == Some(0) && ended.text() == row.text;
    if !is_right {
        let story = ended.story().replace('\n', " | ");
        not_tested(row.name, &format!("on this machine it fails without a sandbox, too: {story}"));
    }
    is_right
}

#[test]
fn shells_do_their_work() {
    every(&[
        row("bash pipelines", &[], "seq 1000 | grep 7 | sort -rn | head -3 | tr '\\n' ' '", "997 987 979"),
        row("bash here-documents", &[], "cat <<END | wc -l\na\nb\nc\nEND\ncat <<< here", "3\nhere"),
        row("bash process substitution", &[], "diff <(seq 3) <(seq 4) || true", "3a4\n> 4"),
        row(
            "bash job control",
            &[],
            "set -m; sleep 0.3 & sleep 0.2 & jobs | wc -l; wait; (sleep 5 & kill %1; wait %1) 2>/dev/null || echo $?",
            "2\n143",
        ),
        row(
            "bash job stopped and continued",
            &[],
            "set -m; sleep 0.5 & kill -STOP $!; kill -CONT $!; wait $!; echo on",
            "on",
        ),
        row(
            "bash co-process",
            &[],
            "coproc cat; echo hi >&${COPROC[1]}; read -r x <&${COPROC[0]}; echo $x; kill $COPROC_PID",
            "hi",
        ),
        row(
            "temporary files",
            &[],
            "f=$(mktemp); echo t > $f; cat $f; d=$(mktemp -d); touch $d/x; ls $d",
            "t\nx",
        ),
        row(
            "named pipes",
            &[],
            "p=/dev/shm/pipe-$$; mkfifo $p; (echo through > $p &); cat $p; rm $p",
            "through",
        ),
        row(
            "file times and links",
            &[],
            "touch -d 2020-01-01 a; ln a b; ln -s a c; stat -c %Y b; readlink c",
            "1577836800\na",
        ),
        row("own processes in /proc", &[], "cat /proc/self/comm; grep -c . /proc/uptime", "cat\n1"),
        row(
            "devices",
            &[],
            "head -c 4 /dev/urandom | wc -c; head -c 3 /dev/zero | wc -c; echo x > /dev/null; echo z | cat /dev/stdin; ls /dev/fd >/dev/null; echo ok",
            "4\n3\nz\nok",
        ),
        row("processor count", &["nproc"], "[ $(nproc) -ge 1 ] && echo yes", "yes"),
        row("terminal size without a terminal", &[], "tty || true", "not a tty"),
    ]);
}

#[test]
fn output_can_be_opened_again_by_its_name() {
    for setting in Setting::each() {
        let line =
            "echo one > /dev/stdout; echo two | tee /dev/stderr >/proc/self/fd/1; echo three >> /dev/fd/1";
        let ended = setting.bash("default", line);
        ended.expect_code(0).expect_text("one\ntwo\nthree").expect_errors(&["two"]);
    }
}

#[test]
fn text_tools_do_their_work() {
    every(&[
        row(
            "tar and gzip",
            &["tar", "gzip"],
            "mkdir d; seq 9 > d/f; tar czf d.tgz d; rm -r d; tar xzf d.tgz; tail -1 d/f; gzip -k d/f; zcat d/f.gz | wc -l",
            "9\n9",
        ),
        row(
            "find -exec",
            &["find"],
            "mkdir -p a/b; touch a/1 a/b/2; find . -type f -exec basename {} \\; | sort",
            "1\n2",
        ),
        row("xargs -P", &["xargs"], "seq 40 | xargs -P 8 -I{} sh -c 'echo {}' | sort -n | tail -1", "40"),
        row("sed -i", &["sed"], "echo cat > f; sed -i s/cat/dog/ f; cat f", "dog"),
        row("awk", &["awk"], "seq 10 | awk '{s+=$1} END {print s}'", "55"),
        row("jq", &["jq"], "echo '{\"a\":[1,2,3]}' | jq -c '.a | add'", "6"),
        row(
            "sqlite3",
            &["sqlite3"],
            "sqlite3 t.db 'create table t(x); insert into t values (1),(2); select sum(x) from t'",
            "3",
        ),
        row(
            "sqlite3 with a write-ahead log",
            &["sqlite3"],
            "sqlite3 t.db 'pragma journal_mode=wal; create table t(x); insert into t values (5); select x from t'",
            "wal\n5",
        ),
        row("ripgrep", &["rg"], "mkdir -p s/t; echo needle > s/t/f; echo hay > s/g; rg -l needle s", "s/t/f"),
        row(
            "perl",
            &["perl"],
            "perl -e 'my %h=(a=>1); print join(\",\", map {\"$_=$h{$_}\"} keys %h), \"\\n\"; print scalar(`echo sub`)'",
            "a=1\nsub",
        ),
        row(
            "patch and diff",
            &["diff", "patch"],
            "echo a > x; echo b > y; diff -u x y > p || true; patch -s x p; cat x",
            "b",
        ),
        row(
            "make",
            &["make"],
            "printf 'all: a b\\n\\t@cat a b\\na b:\\n\\t@echo $@ > $@\\n' > Makefile; make -s -j4",
            "a\nb",
        ),
        row("date and time zones", &["date"], "TZ=Asia/Tokyo date -d @0 +%H", "09"),
        row("users by name", &["getent"], "getent passwd root | cut -d: -f1", "root"),
    ]);
}

#[test]
fn sort_of_a_hundred_megabytes_is_right() {
    every(&[Row {
        policy: "build",
        ..row(
            "sort of 100 MB",
            &["sort", "perl"],
            "perl -e 'for (1..10_000_000) { $x = ($x * 1103515245 + 12345) % 2147483648; printf \"%09d\\n\", $x % 1000000000 }' > big; \
             [ $(stat -c %s big) -eq 100000000 ]; sort -S 64M big > sorted; sort -c sorted; wc -l < sorted; rm big sorted",
            "10000000",
        )
    }]);
}

const PYTHON: &[(&str, &str)] = &[
    (
        "pool.py",
        "import multiprocessing as m\ndef f(x): return x * x\nif __name__ == '__main__':\n    with m.Pool(3) as p: print(sum(p.map(f, range(10))))\n    q = m.Queue(); p = m.Process(target=q.put, args=(7,)); p.start(); print(q.get()); p.join()\n    l = m.Lock(); v = m.Value('i', 3); print(v.value)\n",
    ),
    (
        "aio.py",
        "import asyncio\nasync def main():\n    p = await asyncio.create_subprocess_exec('echo', 'sub', stdout=asyncio.subprocess.PIPE)\n    out, _ = await p.communicate()\n    await asyncio.gather(*[asyncio.sleep(0.01) for _ in range(50)])\n    print(out.decode().strip())\nasyncio.run(main())\n",
    ),
    (
        "threads.py",
        "import threading, queue\nq = queue.Queue()\nt = [threading.Thread(target=lambda i=i: q.put(i)) for i in range(20)]\n[x.start() for x in t]; [x.join() for x in t]\nprint(sum(q.get() for _ in t))\n",
    ),
    (
        "test_own.py",
        "import unittest, textwrap, tempfile\nclass T(unittest.TestCase):\n    def test_dedent(self): self.assertEqual(textwrap.dedent('  a'), 'a')\n    def test_file(self):\n        with tempfile.TemporaryFile() as f: self.assertEqual(f.write(b'xy'), 2)\n",
    ),
    (
        "shm.py",
        "from multiprocessing import shared_memory\ns = shared_memory.SharedMemory(create=True, size=64)\ns.buf[0] = 9\nt = shared_memory.SharedMemory(name=s.name)\nprint(t.buf[0]); t.close(); s.close(); s.unlink()\n",
    ),
];

const fn python(name: &'static str, line: &'static str, text: &'static str) -> Row {
    Row { files: PYTHON, ..row(name, &["python3"], line, text) }
}

#[test]
fn python_does_its_work() {
    every(&[
        python("python", "python3 -c 'print(6*7)'", "42"),
        python(
            "python venv",
            "python3 -m venv --without-pip env; ./env/bin/python -c 'import sys; print(sys.prefix != sys.base_prefix)'",
            "True",
        ),
        python(
            "python venv with pip",
            "python3 -m venv env 2>err || { grep -q ensurepip err && echo no ensurepip && exit 0; cat err; exit 1; }; ./env/bin/pip --version | cut -d' ' -f1",
            "pip",
        ),
        python(
            "python subprocess",
            "python3 -c \"import subprocess as s; print(s.run(['sh','-c','cat; exit 3'], input='in', text=True, capture_output=True))\"",
            "CompletedProcess(args=['sh', '-c', 'cat; exit 3'], returncode=3, stdout='in', stderr='')",
        ),
        python("python threading", "python3 threads.py", "190"),
        python("python multiprocessing", "python3 pool.py", "285\n7\n3"),
        python("python shared memory", "python3 shm.py", "9"),
        python(
            "python sqlite3",
            "python3 -c \"import sqlite3; c=sqlite3.connect('x.db'); c.execute('create table t(x)'); c.execute('insert into t values (4)'); c.commit(); print(c.execute('select x from t').fetchone()[0])\"",
            "4",
        ),
        python(
            "python tempfile",
            "python3 -c \"import tempfile, os; f=tempfile.NamedTemporaryFile(); f.write(b'x'); f.flush(); print(os.path.getsize(f.name)); d=tempfile.TemporaryDirectory(); print(os.path.isdir(d.name))\"",
            "1\nTrue",
        ),
        python("python asyncio", "python3 aio.py", "sub"),
        python(
            "python socketpair",
            "python3 -c \"import socket; a,b=socket.socketpair(); a.send(b'hi'); print(b.recv(2).decode())\"",
            "hi",
        ),
        python(
            "python home and user",
            "python3 -c \"import os, pathlib; pathlib.Path.home(); h=os.path.expanduser('~'); open(h+'/x','w').write('y'); print(open(h+'/x').read())\"",
            "y",
        ),
        python("python unittest", "python3 -m unittest -q test_own 2>&1 | tail -1", "OK"),
        python(
            "python unittest of the library",
            "python3 -m unittest -q test.test_textwrap test.test_tempfile test.test_subprocess.POSIXProcessTestCase 2>&1 | tail -1 | cut -c1-2",
            "OK",
        ),
    ]);
}

const NODE: &[(&str, &str)] = &[
    (
        "worker.js",
        "const { Worker, isMainThread, parentPort } = require('worker_threads');\nif (isMainThread) { const w = new Worker(__filename); w.on('message', m => console.log(m)); } else parentPort.postMessage('from a thread');\n",
    ),
    (
        "child.js",
        "const c = require('child_process');\nconsole.log(c.execSync('echo sub').toString().trim());\nconst f = c.fork('echo.js'); f.on('message', m => { console.log(m); f.disconnect(); }); f.send('ping');\nc.spawn('sh', ['-c', 'echo spawned'], { stdio: 'inherit' });\n",
    ),
    ("echo.js", "process.on('message', m => setTimeout(() => process.send(m + ' pong'), 300));\n"),
    (
        "package.json",
        "{ \"name\": \"x\", \"version\": \"1.0.0\", \"scripts\": { \"test\": \"node --test t.test.js > out 2>&1; node -e 'console.log(6*7)'\" } }\n",
    ),
    (
        "t.test.js",
        "const t = require('node:test'); const a = require('node:assert'); t('adds', () => a.equal(1 + 1, 2));\n",
    ),
];

const fn node(
    name: &'static str,
    needs: &'static [&'static str],
    line: &'static str,
    text: &'static str,
) -> Row {
    Row { files: NODE, policy: "build", ..row(name, needs, line, text) }
}

#[test]
fn node_does_its_work() {
    every(&[
        node("node", &["node"], "node -e 'console.log(6*7)'", "42"),
        node("node worker threads", &["node"], "node worker.js", "from a thread"),
        node("node child processes", &["node"], "node child.js | sort", "ping pong\nspawned\nsub"),
        node("npm test offline", &["npm"], "npm test --silent --offline", "42"),
        Row { policy: "default", ..node("node under default", &["node"], "node worker.js", "from a thread") },
    ]);
}

const GIT: &str = "export GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@b GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@b; \
                   git init -q -b main r; cd r; git config user.name a; git config user.email a@b; echo 1 > f; \
                   git add f; git commit -qm one; ";

#[test]
fn git_does_its_work() {
    let lines = [
        ("git init, commit, log", "git log --format=%s", "one"),
        ("git diff", "echo 2 > f; git diff --numstat", "1\t1\tf"),
        (
            "git branch and merge",
            "git checkout -qb x; echo 3 > g; git add g; git commit -qm two; git checkout -q main; git merge -q x; cat g",
            "3",
        ),
        ("git worktree", "git worktree add -q ../w; cat ../w/f; git worktree list | wc -l", "1\n2"),
        (
            "git clone of a local repository",
            "cd ..; git clone -q r c; git -C c log --format=%s; git clone -q --no-local r d; ls d",
            "one\nf",
        ),
        ("git gc and fsck", "git gc -q; git fsck 2>&1 | grep -v notice | wc -l", "0"),
        ("git stash", "echo 9 > f; git stash -q; cat f; git stash pop -q; cat f", "1\n9"),
    ];
    let rows: Vec<Row> = lines
        .into_iter()
        .map(|(name, line, text)| {
            row(name, &["git"], Box::leak(format!("{GIT}{line}").into_boxed_str()), text)
        })
        .collect();
    every(&rows);
}

#[test]
fn git_commits_in_a_repository_that_was_there_before_with_its_hooks_guarded() {
    for setting in Setting::each() {
        let make = "git init -q . && git config user.name a && git config user.email a@b && echo 1 > f && \
                    git add f && git commit -qm one";
        let mut command = setting.ground.command("bash");
        command.args(["-c", make]);
        assert!(command.status().unwrap().success());
        let line = "echo 2 > f; git commit -qam two; git log --format=%s; git checkout -qb x; git branch | wc -l; \
                    echo evil > .git/hooks/post-commit; git config alias.x '!evil'; true";
        let ended = setting.bash("default", line);
        ended.expect_code(0).expect_text("two\none\n2");
        assert!(!setting.ground.work().join(".git/hooks/post-commit").exists());
        let config = std::fs::read_to_string(setting.ground.work().join(".git/config")).unwrap();
        assert!(!config.contains("evil"), "{config}");
    }
}

const C: &[(&str, &str)] = &[
    (
        "main.c",
        "#include <stdio.h>\nint twice(int);\nint main(void) { printf(\"%d\\n\", twice(21)); return 0; }\n",
    ),
    ("twice.c", "int twice(int x) { return 2 * x; }\n"),
    (
        "Makefile",
        "prog: main.o twice.o\n\t$(CC) -o $@ $^\n%.o: %.c\n\t$(CC) -O2 -c -o $@ $<\ntest: prog\n\t@./prog\n",
    ),
];

const RUST: &[(&str, &str)] = &[
    ("Cargo.toml", "[package]\nname = \"small\"\nversion = \"0.1.0\"\nedition = \"2021\"\n"),
    ("src/main.rs", "fn main() { println!(\"{}\", 6 * 7); }\n"),
];

const JAVA: &[(&str, &str)] = &[(
    "Hello.java",
    "public class Hello { public static void main(String[] a) { System.out.println(6 * 7); } }\n",
)];

#[test]
fn compilers_do_their_work() {
    every(&[
        Row { files: C, ..row("gcc and make under default", &["gcc", "make"], "make -s -j2 test", "42") },
        Row { files: C, policy: "build", ..row("gcc and make", &["gcc", "make"], "make -s -j2 test", "42") },
        Row {
            files: JAVA,
            policy: "build",
            ..row("java -version", &["java"], "java -version 2>&1 | grep -c -i 'version'", "1")
        },
        Row {
            files: JAVA,
            policy: "build",
            ..row("javac and java", &["javac"], "javac Hello.java; java -Xmx128m Hello", "42")
        },
    ]);
}

/// cargo lies in a home, not on the system's path: the tool chain of whoever runs the tests.
#[test]
fn cargo_builds_a_small_crate_offline() {
    let cargo = std::env::var_os("CARGO").map(std::path::PathBuf::from);
    let Some(tools) = cargo.as_deref().and_then(std::path::Path::parent) else {
        not_tested("cargo build", "the tests weren't started by cargo");
        return;
    };
    for setting in Setting::each() {
        if setting.ground.person != Person::me() {
            not_tested(
                "cargo build as another user",
                "the tool chain lies in the home of whoever runs the tests",
            );
            continue;
        }
        for (name, text) in RUST {
            setting.ground.put(name, text);
        }
        let home = std::env::var("HOME").unwrap();
        if setting.mode.has_daemon() && !setting.mode.is_system() {
            not_tested("cargo build through a user's daemon", "the daemon under test has a home of its own");
            continue;
        }
        let path = format!("{}:{}", tools.display(), stockade_tests::ground::PATH);
        let run = setting.run("build").variable("PATH", path).variable("HOME", home);
        let run = run.words(["bash", "-c", "cargo build -q --offline && ./target/debug/small"]);
        run.patience(Duration::from_secs(180)).finish().expect_code(0).expect_text("42");
    }
}

#[test]
fn server_and_client_talk_over_loopback_of_their_own() {
    every(&[
        Row {
            policy: "loopback",
            ..row(
                "python http server",
                &["python3"],
                "echo served > page; python3 -m http.server 8123 --bind 127.0.0.1 >/dev/null 2>&1 & \
                 for i in $(seq 50); do python3 -c \"import urllib.request as u; print(u.urlopen('http://127.0.0.1:8123/page').read().decode().strip())\" 2>/dev/null && break; sleep 0.1; done; kill $!",
                "served",
            )
        },
        Row {
            policy: "loopback",
            ..row(
                "localhost by name, IPv6, datagrams",
                &["python3"],
                "python3 -c \"import socket as s; a=s.socket(s.AF_INET, s.SOCK_DGRAM); a.bind(('localhost',0)); b=s.socket(s.AF_INET, s.SOCK_DGRAM); b.sendto(b'x', a.getsockname()); print(a.recv(9).decode()); c=s.socket(s.AF_INET6); c.bind(('::1',0)); print('six')\"",
                "x\nsix",
            )
        },
    ]);
}

#[test]
fn what_wants_the_network_fails_at_once_and_says_so() {
    for setting in Setting::each() {
        for line in [
            "python3 -c \"import urllib.request as u; u.urlopen('http://example.com/', timeout=300)\"",
            "git ls-remote https://example.com/x.git",
            "curl -sS --max-time 300 http://example.com/",
            "exec 3<>/dev/tcp/192.0.2.1/80",
        ] {
            let ended = setting.bash("default", line);
            // By itself, and not by the end of its time.
            assert!(!matches!(ended.code, Some(0 | 124)), "{line}: {}", ended.story());
            assert!(!ended.errors().is_empty(), "{line}: {}", ended.story());
        }
    }
}

#[test]
fn small_levels_run_programs_too() {
    let mut rows = Vec::new();
    for policy in ["strict", "moderate", "minimal"] {
        for (name, line, text) in [
            ("shell", "echo hello | tr a-z A-Z", "HELLO"),
            (
                "python",
                "python3 -c 'import subprocess as s; print(s.check_output([\"echo\",\"x\"]).decode().strip())'",
                "x",
            ),
            ("temporary file", "f=$(mktemp); echo t > $f; cat $f; rm $f", "t"),
            ("files", "ls /usr/bin >/dev/null; cat /etc/hostname >/dev/null || true; echo ok", "ok"),
        ] {
            let name = Box::leak(format!("{name} under {policy}").into_boxed_str());
            rows.push(Row { policy, ..row(name, &["python3"], line, text) });
        }
    }
    every(&rows);
}
