//! What a policy and a request come to, by tables.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod common;

use common::{WORKSPACE, mounts, of, policy, refused, request, resolved, source, subject};
use stockade_policies::{PolicySet, ResolveError, ResolveRequest, Subject, Trust, resolve};
use stockade_protocol::Bytes;
use stockade_protocol::client::Overrides;
use stockade_protocol::denied::DenyReason;
use stockade_protocol::spec::{MountKind, NetworkMode, Ports, RunAs};

const PLAIN: &str = "[filesystem]\nwrite = [\"${workspace}\"]\n";

fn with_filesystem(keys: &str) -> String {
    format!("[filesystem]\n{keys}")
}

#[test]
fn mounts_are_parents_first_with_what_the_lists_add_up_to() {
    let text = with_filesystem(
        r#"
        read = ["/usr", "/srv/in", "${workspace}/vendor", "${home}/.cargo/registry"]
        write = ["${workspace}", "/srv/in/out", "${cache}"]
        execute = ["/usr", "${workspace}/bin", "${tmp}", "/usr/lib"]
        tmp-size = "1MiB"
        hidden-home = true
        dev = ["zero", "null", "zero"]
        "#,
    );
    assert_eq!(
        mounts(&resolved(&text)),
        [
            "/dev dev rw-",
            "/proc proc r--",
            "/tmp tmpfs rwx",
            "/usr bind r-x",
            "/home/u tmpfs rw-",
            "/srv/in bind r--",
            "/var/tmp tmpfs rw-",
            "/home/u/project workspace rw-",
            "/srv/in/out bind rw-",
            "/home/u/.cargo/registry bind r--",
            "/home/u/project/bin bind rwx",
            "/home/u/.cache/stockade/p made rw-",
        ]
    );
}

#[test]
fn private_directories_have_their_sizes_modes_and_nodes() {
    let text = with_filesystem(
        "write = [\"${workspace}\"]\ntmp-size = \"3MiB\"\nhidden-home = true\ndev = [\"zero\", \"null\", \"zero\"]",
    );
    let spec = resolved(&text).spec;
    let kind = |target: &str| {
        spec.mounts.iter().find(|mount| mount.target == Bytes::from(target)).unwrap().kind.clone()
    };
    assert_eq!(kind("/tmp"), MountKind::Tmpfs { size: 3 << 20, mode: 0o1777 });
    assert_eq!(kind("/home/u"), MountKind::Tmpfs { size: 3 << 20, mode: 0o700 });
    let nodes = vec![Bytes::from("null"), Bytes::from("zero")];
    assert_eq!(kind("/dev"), MountKind::Dev { nodes, shm_size: 3 << 20 });
}

#[test]
fn workspace_wins_over_private_directories_of_its_path() {
    let text = with_filesystem("write = [\"${workspace}\"]\ntmp-size = \"1MiB\"\nhidden-home = true");
    for (home, workspace, expected, absent) in [
        ("/home/u", "/home/u", "/home/u workspace rw-", "/home/u tmpfs rw-"),
        ("/home/u", "/tmp", "/tmp workspace rw-", "/tmp tmpfs rw-"),
        ("/home/u", "/tmp/x/y", "/tmp/x/y workspace rw-", "-"),
        ("/home/u", "/var/tmp", "/var/tmp workspace rw-", "/var/tmp tmpfs rw-"),
        ("/home/u", "/home", "/home workspace rw-", "-"),
        ("/tmp", "/srv/x", "/tmp tmpfs rw-", "-"),
        ("/", "/srv/x", "/tmp tmpfs rw-", "/ tmpfs rw-"),
        ("/bin", "/srv/x", "/tmp tmpfs rw-", "/bin tmpfs rw-"),
        ("/dev", "/srv/x", "/tmp tmpfs rw-", "/dev tmpfs rw-"),
        ("/run/x", "/srv/x", "/tmp tmpfs rw-", "/run/x tmpfs rw-"),
        ("/usr", "/srv/x", "/tmp tmpfs rw-", "/usr tmpfs rw-"),
    ] {
        let request = of(Subject { home: home.into(), workspace: workspace.into(), ..subject() });
        let lines = mounts(&resolve(&policy(&text), &request).unwrap());
        assert!(lines.contains(&expected.to_owned()), "{home} {workspace}: {lines:?}");
        assert!(!lines.contains(&absent.to_owned()), "{home} {workspace}: {lines:?}");
        for (index, line) in lines.iter().enumerate() {
            let target = line.split(' ').next().unwrap();
            let below = format!("{target}/");
            assert!(lines[..index].iter().all(|earlier| !earlier.starts_with(&below)), "{lines:?}");
        }
    }
}

#[test]
fn workspaces_that_are_the_systems_are_refused() {
    for (workspace, said) in [
        ("/", "is the whole machine"),
        ("/usr", "covers `/usr/bin`"),
        ("/etc", "covers `/etc`"),
        ("/var", "covers `/var/lib`"),
        ("/usr/lib", "covers `/usr/lib`"),
        ("/proc", "covers `/proc`"),
        ("/proc/1/root/home", "lies beneath `/proc`"),
        ("/sys/fs/cgroup", "lies beneath `/sys`"),
        ("/dev/shm", "lies beneath `/dev`"),
        ("/run/user/1000/x", "lies beneath `/run`"),
        ("/run/media", "lies beneath `/run`"),
        ("/etc/nginx", "lies beneath `/etc`"),
        ("/usr/./lib/", "covers `/usr/lib`"),
    ] {
        let error = refused(PLAIN, &of(Subject { workspace: workspace.into(), ..subject() }));
        assert!(matches!(error, ResolveError::SystemWorkspace { .. }), "{workspace}");
        assert!(error.to_string().contains(said), "{workspace}: {error}");
        let denied = error.denied();
        assert_eq!(denied.reason, DenyReason::BadRequest);
        assert!(denied.remedy.is_some());
    }
    for workspace in
        ["/usr/src/app", "/opt/app", "/srv", "/home", "/root", "/run/media/u/disk", "/var/www", "/usrx"]
    {
        let request = of(Subject { workspace: workspace.into(), ..subject() });
        assert!(resolve(&policy(PLAIN), &request).is_ok(), "{workspace}");
    }
}

#[test]
fn paths_of_a_request_must_be_absolute_and_plain() {
    let long = format!("/{}", "x".repeat(4096));
    for (path, said) in [
        ("", "is empty"),
        ("work", "is not absolute"),
        ("/a/../b", "has `..` in it"),
        ("/a\0b", "has a NUL in it"),
        (long.as_str(), "is longer than 4095 bytes"),
    ] {
        for request in [
            of(Subject { workspace: path.into(), ..subject() }),
            of(Subject { home: path.into(), ..subject() }),
            ResolveRequest { cwd: Some(path.into()), ..request() },
        ] {
            let message = refused(PLAIN, &request).to_string();
            assert!(message.contains(said) && message.len() < 700, "{path}: {message}");
        }
    }
    let deep = of(Subject { workspace: format!("/{}", "x".repeat(4090)).into(), ..subject() });
    let error = refused("[filesystem]\nread = [\"${workspace}/src/main\"]", &deep);
    assert!(error.to_string().starts_with("p.toml:2:9: `[filesystem] read:"), "{error}");
}

#[test]
fn working_directory_lies_beneath_the_workspace_and_is_visible() {
    let cwd = |path: &str| ResolveRequest { cwd: Some(path.into()), ..request() };
    let at = |path: &str| resolve(&policy(PLAIN), &cwd(path)).map(|resolved| resolved.cwd.to_text());
    assert_eq!(at("/home/u/project/src/").unwrap(), "/home/u/project/src");
    assert_eq!(at(WORKSPACE).unwrap(), WORKSPACE);
    for path in ["/home/u", "/home/u/project2", "/tmp", "/"] {
        assert!(matches!(at(path), Err(ResolveError::CwdOutside { .. })), "{path}");
    }
    let denied = format!("{PLAIN}deny = [\"secret\"]");
    let error = refused(&denied, &cwd("/home/u/project/secret/x"));
    assert!(error.to_string().starts_with("p.toml:3:9: the working directory"), "{error}");
    let error = refused("[filesystem]\nread = [\"/usr\"]", &request());
    assert!(matches!(error, ResolveError::Invisible { .. }), "{error}");
    assert!(error.denied().remedy.unwrap().contains("${workspace}"));
    // On the way to what is shown.
    assert!(resolve(&policy("[filesystem]\nread = [\"${workspace}/src\"]"), &request()).is_ok());
}

#[test]
fn denies_and_protections_are_kept_where_the_hosts_files_are() {
    let text = with_filesystem(
        r#"
        read = ["/srv", "/srv/a/b"]
        write = ["${workspace}", "/srv/w/inner", "/opt/x"]
        deny = [".env", "/srv/a", "/srv/a/c", "${home}/.ssh", "/nowhere/x", ".env/below", "/opt/x"]
        protect = [".git/hooks", "/srv/ro", "/srv/w", ".env", "/nowhere/y", "${home}/.bashrc"]
        hidden-home = true
        "#,
    );
    let resolved = resolved(&text);
    let paths = |list: &[Bytes]| list.iter().map(Bytes::to_text).collect::<Vec<_>>();
    assert_eq!(paths(&resolved.spec.deny), ["/srv/a", "/home/u/project/.env"]);
    assert_eq!(paths(&resolved.spec.protect), ["/home/u/project/.git/hooks"]);
    assert_eq!(
        mounts(&resolved),
        [
            "/proc proc r--",
            "/srv bind r--",
            "/home/u tmpfs rw-",
            "/home/u/project workspace rw-",
            "/srv/w/inner bind r--",
        ]
    );
}

#[test]
fn deny_above_the_workspace_refuses_the_run() {
    let error = refused(&format!("{PLAIN}deny = [\"/home/u\"]"), &request());
    assert_eq!(
        error.to_string(),
        "p.toml:3:9: the workspace `/home/u/project` lies beneath `[filesystem] deny: \"/home/u\"`"
    );
}

#[test]
fn children_add_to_lists_empty_ones_clear_and_denies_stay() {
    let parent = r#"
        [filesystem]
        read = ["/usr"]
        write = ["${workspace}"]
        deny = ["a"]
        protect = ["b"]
        [environment]
        allow = ["A"]
        set = { X = "1", Y = "1" }
        [syscalls]
        deny = ["mkdir"]
        [network]
        mode = "loopback"
        tcp-connect = "any"
        [limits]
        wall-time = "5s"
    "#;
    let child = r#"
        extends = "parent"
        [filesystem]
        read = ["/opt"]
        deny = ["c"]
        protect = []
        [environment]
        allow = []
        set = { Y = "2" }
        [syscalls]
        allow = ["mkdir"]
        deny = ["rmdir"]
        [network]
        tcp-connect = [80, 80, 22]
        [limits]
        memory = "none"
    "#;
    let set = common::set(&[("parent", parent), ("child", child)]).unwrap();
    let environment = vec![(Bytes::from("A"), Bytes::from("a"))];
    let request = ResolveRequest { environment, ..request() };
    let resolved = resolve(set.get("child").unwrap(), &request).unwrap();
    assert_eq!(
        mounts(&resolved),
        ["/opt bind r--", "/proc proc r--", "/usr bind r--", "/home/u/project workspace rw-"]
    );
    let denied: Vec<String> = resolved.spec.deny.iter().map(Bytes::to_text).collect();
    assert_eq!(denied, ["/home/u/project/a", "/home/u/project/c"]);
    assert_eq!(resolved.spec.protect.len(), 1);
    let environment: Vec<String> = resolved
        .environment
        .iter()
        .filter(|(name, _)| name.len() == 1)
        .map(|(name, value)| format!("{}={}", name.to_text(), value.to_text()))
        .collect();
    assert_eq!(environment, ["X=1", "Y=2"]);
    assert_eq!(resolved.spec.network.tcp_connect, Ports::Only(vec![22, 80]));
    assert_eq!(resolved.spec.network.mode, NetworkMode::Loopback);
    assert_eq!((resolved.spec.limits.wall_ms, resolved.spec.limits.memory), (Some(5_000), None));
    for call in ["mkdir", "rmdir"] {
        let answer = resolved.explain(&stockade_policies::Question::Syscall(call.into()));
        assert!(!answer.allowed, "{call}");
    }
}

#[test]
fn overrides_tighten_and_never_widen() {
    let text = format!("{PLAIN}[limits]\nwall-time = \"10s\"\nmemory = \"none\"\nprocesses = 5");
    let with = |overrides| resolve(&policy(&text), &of(Subject { overrides, ..subject() }));
    let limits =
        with(Overrides { wall_ms: Some(9_999), memory: Some(5), processes: Some(5), ..Overrides::default() })
            .unwrap()
            .spec
            .limits
            .clone();
    assert_eq!((limits.wall_ms, limits.memory, limits.processes), (Some(9_999), Some(5), 5));
    let error = with(Overrides { wall_ms: Some(10_001), ..Overrides::default() }).unwrap_err();
    assert_eq!(error.to_string(), "wall-time = 10001ms is wider than policy `p` allows (10000ms)");
    assert_eq!(error.denied().reason, DenyReason::BadRequest);
    assert!(with(Overrides { processes: Some(6), ..Overrides::default() }).is_err());
    for overrides in [
        Overrides { wall_ms: Some(0), ..Overrides::default() },
        Overrides { output: Some(0), ..Overrides::default() },
    ] {
        assert!(matches!(with(overrides), Err(ResolveError::Zero { .. })));
    }
}

#[test]
fn host_network_is_an_operators_to_give() {
    let text = format!("{PLAIN}[network]\nmode = \"host\"\ntcp-connect = [443]");
    let load = |trust| PolicySet::from_sources(vec![source("p", &text, trust)]).unwrap();
    for (trust, user_mode, given) in [
        (Trust::Operator, false, true),
        (Trust::Operator, true, true),
        (Trust::User, true, true),
        (Trust::User, false, false),
    ] {
        let result = resolve(load(trust).get("p").unwrap(), &of(Subject { user_mode, ..subject() }));
        assert_eq!(result.is_ok(), given, "{trust:?} {user_mode}");
        if let Err(error) = result {
            assert!(
                error.to_string().starts_with("p.toml:4:8: policy `p` gives the host's network"),
                "{error}"
            );
            assert_eq!(error.denied().reason, DenyReason::Policy);
        }
    }
}

#[test]
fn runs_have_an_id_of_their_own_where_there_is_one_to_give() {
    for (keys, user_mode, expected) in [
        ("", false, RunAs::Ephemeral { start: 2_000_000_000, count: 65_536 }),
        ("range = \"70000-70001\"", false, RunAs::Ephemeral { start: 70_000, count: 2 }),
        ("user = \"caller\"", false, RunAs::Caller),
        ("user = \"ephemeral\"", true, RunAs::Caller),
    ] {
        let policy = policy(&format!("{PLAIN}[run-as]\n{keys}"));
        let resolved = resolve(&policy, &of(Subject { user_mode, ..subject() })).unwrap();
        assert_eq!(resolved.spec.run_as, expected, "{keys}");
    }
}

#[test]
fn environment_is_what_is_allowed_then_what_is_set() {
    let text = format!(
        "{PLAIN}[environment]\nallow = [\"LC_*\", \"PATH\", \"B\"]\ndefault = {{ PATH = \"no\", D = \"${{tmp}}/d\", B = \"no\" }}\nset = {{ B = \"${{workspace}}/b:${{home}}\", HOME = \"${{tmp}}\" }}"
    );
    let environment =
        [("LC_ALL", "C"), ("LC_X=Y", "bad"), ("B", "theirs"), ("C", "c"), ("PATH", "/first"), ("PATH", "/p")]
            .map(|(name, value)| (Bytes::from(name), Bytes::from(value)))
            .to_vec();
    let resolved = resolve(&policy(&text), &ResolveRequest { environment, ..request() }).unwrap();
    let lines: Vec<String> = resolved
        .environment
        .iter()
        .map(|(name, value)| format!("{}={}", name.to_text(), value.to_text()))
        .collect();
    assert_eq!(lines, ["B=/home/u/project/b:/home/u", "D=/tmp/d", "HOME=/tmp", "LC_ALL=C", "PATH=/p"]);
    let nul = vec![(Bytes::from("LC_ALL"), Bytes(b"a\0b".to_vec()))];
    let error = refused(&text, &ResolveRequest { environment: nul, ..request() });
    assert_eq!(error.to_string(), "the environment variable `LC_ALL` has a NUL in its value");
}

#[test]
fn digest_is_of_all_that_enforces_and_of_nothing_else() {
    let digest = |request: &ResolveRequest, text: &str| resolve(&policy(text), request).unwrap().spec.digest;
    let one = digest(&request(), PLAIN);
    assert_ne!(one, [0; 32]);
    assert_eq!(one, digest(&request(), PLAIN));
    let environment = vec![(Bytes::from("A"), Bytes::from("a"))];
    assert_eq!(
        one,
        digest(&ResolveRequest { environment, ..of(Subject { owner_uid: 1001, ..subject() }) }, PLAIN)
    );
    let overrides = Overrides { wall_ms: Some(5), ..Overrides::default() };
    assert_ne!(one, digest(&of(Subject { overrides, ..subject() }), PLAIN));
    assert_ne!(one, digest(&of(Subject { workspace: "/srv/x".into(), ..subject() }), PLAIN));
    assert_ne!(one, digest(&request(), &format!("{PLAIN}deny = [\"x\"]")));
}

#[test]
fn too_many_paths_are_refused() {
    let paths: Vec<String> = (0..600).map(|number| format!("\"/srv/{number}\"")).collect();
    let error = refused(&format!("{PLAIN}read = [{}]", paths.join(",")), &request());
    assert!(matches!(error, ResolveError::TooManyPaths { .. }), "{error}");
    let error = refused(&format!("{PLAIN}deny = [{}]", paths.join(",").replace("/srv", "x")), &request());
    assert!(matches!(error, ResolveError::TooManyPaths { .. }), "{error}");
}
