//! The walls between the crates, and what the documents promise about the tree: who links what, where unsafe code may
//! stand, that each dependency has its reason, and that each test and file a document names is there.
//!
//! Asks `cargo tree` (offline: by the time a test runs everything has been fetched) and reads sources. Changes nothing.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// The one file of the product that may hold unsafe code.
const UNSAFE_FILE: &str = "worker/src/sys.rs";
/// The one file of the probe that may: calls that no safe wrapper makes are what it tries. No crate links it.
const UNSAFE_FILE_OF_THE_PROBE: &str = "tests/probe/src/raw.rs";
/// The one file of the suite that may: its reason stands at its top.
const UNSAFE_FILE_OF_TESTS: &str = "tests/src/seccomp.rs";
/// The one file that names the wire's codec.
const CODEC_FILE: &str = "protocol/src/codec.rs";

/// Which of our crates each links, through others too. Arrows point one way.
const ARROWS: [(&str, &[&str]); 12] = [
    ("stockade-protocol", &[]),
    ("stockade-wire", &["stockade-protocol"]),
    ("stockade-client", &["stockade-protocol", "stockade-wire"]),
    ("stockade-policies", &["stockade-protocol"]),
    ("stockade-gate", &["stockade-policies", "stockade-protocol"]),
    ("stockade-jsonrpc", &["stockade-protocol"]),
    ("stockade-audit", &[]),
    ("stockade-stats", &[]),
    ("stockade-worker", &["stockade-protocol", "stockade-wire"]),
    (
        "stockade-supervisor",
        &[
            "stockade-audit",
            "stockade-gate",
            "stockade-jsonrpc",
            "stockade-policies",
            "stockade-protocol",
            "stockade-stats",
            "stockade-wire",
        ],
    ),
    // What it measures it starts as a process or asks over the socket, as any client would; the filters that it measures
    // the floor with are the shipped policies' own.
    (
        "bench",
        &[
            "stockade-audit",
            "stockade-client",
            "stockade-gate",
            "stockade-policies",
            "stockade-protocol",
            "stockade-wire",
        ],
    ),
    // Whatever reads what strangers send.
    (
        "stockade-fuzz",
        &[
            "stockade-audit",
            "stockade-gate",
            "stockade-jsonrpc",
            "stockade-policies",
            "stockade-protocol",
            "stockade-stats",
            "stockade-supervisor",
            "stockade-wire",
            "stockade-worker",
        ],
    ),
];

/// All that `stockade-protocol` links: its four dependencies, their derives, and what those are made of.
const PROTOCOL_LINKS: [&str; 15] = [
    "bincode",
    "cfg-if",
    "getrandom",
    "libc",
    "proc-macro2",
    "quote",
    "serde",
    "serde_core",
    "serde_derive",
    "syn",
    "thiserror",
    "thiserror-impl",
    "unicode-ident",
    "unty",
    "uuid",
];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn read(path: &str) -> String {
    let path = root().join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Names of the packages that `package` links, itself left out; `depth` 1: those it names itself.
fn links(package: &str, depth: Option<u8>) -> BTreeSet<String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    #[allow(clippy::disallowed_methods, reason = "a test may start a program")]
    let mut command = std::process::Command::new(cargo);
    command.current_dir(root()).args(["tree", "--offline", "--edges", "normal", "--prefix", "none"]);
    command.args(["--no-dedupe", "--format", "{p}", "--package", package]);
    if let Some(depth) = depth {
        command.args(["--depth", &depth.to_string()]);
    }
    let output = command.output().expect("cargo can be started");
    assert!(output.status.success(), "cargo tree: {}", String::from_utf8_lossy(&output.stderr));
    let lines = String::from_utf8(output.stdout).unwrap();
    let names = lines.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned);
    let mut names: BTreeSet<String> = names.collect();
    assert!(names.remove(package), "cargo tree doesn't list {package} itself");
    names
}

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().copied().map(str::to_owned).collect()
}

/// Every file below the root with this extension, as paths from the root. Neither hidden folders nor build output.
fn files(extension: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut waiting = vec![root()];
    while let Some(folder) = waiting.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let entry = entry.unwrap();
            let (path, kind) = (entry.path(), entry.file_type().unwrap());
            let name = entry.file_name().into_string().unwrap();
            if kind.is_dir() && !name.starts_with('.') && !name.starts_with("target") {
                waiting.push(path);
            } else if kind.is_file() && path.extension().is_some_and(|found| found == extension) {
                found.push(path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned());
            }
        }
    }
    found.sort();
    found
}

#[test]
fn protocol_links_serde_bincode_uuid_thiserror_and_nothing_else() {
    assert_eq!(links("stockade-protocol", Some(1)), set(&["bincode", "serde", "thiserror", "uuid"]));
    let strangers: Vec<_> =
        links("stockade-protocol", None).difference(&set(&PROTOCOL_LINKS)).cloned().collect();
    assert!(strangers.is_empty(), "{strangers:?} came in through a dependency");
}

#[test]
fn worker_links_no_tokio_no_toml_and_no_policies() {
    let links = links("stockade-worker", None);
    for stranger in
        ["tokio", "toml", "toml_edit", "interprocess", "clap", "serde_json", "tracing", "stockade-policies"]
    {
        assert!(!links.contains(stranger), "the worker links {stranger}");
    }
}

#[test]
fn client_links_no_runtime_and_no_policies() {
    let links = links("stockade-client", None);
    for stranger in ["tokio", "async-io", "futures", "toml", "clap", "nix"] {
        assert!(!links.contains(stranger), "the client links {stranger}");
    }
}

#[test]
fn jsonrpc_links_what_json_needs_and_nothing_that_does_io() {
    let named = set(&["base64", "serde", "serde_json", "stockade-protocol", "thiserror"]);
    assert_eq!(links("stockade-jsonrpc", Some(1)), named);
    let links = links("stockade-jsonrpc", None);
    for stranger in ["tokio", "nix", "rustix", "schemars", "toml"] {
        assert!(!links.contains(stranger), "JSON-RPC links {stranger}");
    }
}

/// What makes the JSON Schema is for tests.
#[test]
fn nothing_that_is_shipped_links_what_makes_schemas() {
    let links = links("stockade", None);
    assert!(links.contains("stockade-jsonrpc"));
    assert!(!links.contains("schemars"));
}

#[test]
fn policies_link_nothing_that_does_io() {
    let links = links("stockade-policies", None);
    for stranger in ["tokio", "nix", "rustix", "interprocess", "landlock"] {
        assert!(!links.contains(stranger), "the policies link {stranger}");
    }
}

#[test]
fn crates_link_each_other_along_the_arrows_only() {
    for (package, allowed) in ARROWS {
        let ours = links(package, None).into_iter().filter(|name| name.starts_with("stockade-"));
        let strangers: Vec<_> = ours.filter(|name| !allowed.contains(&name.as_str())).collect();
        assert!(strangers.is_empty(), "{package} links {strangers:?}");
    }
}

/// What stands in a source outside comments, strings and character literals.
fn code_of(source: &str) -> String {
    let bytes = source.as_bytes();
    let mut code = String::new();
    let mut at = 0;
    while at < bytes.len() {
        let rest = &source[at..];
        let skipped = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            block_comment(rest)
        } else if let Some(length) = raw_string(rest, code.chars().last()) {
            length
        } else if rest.starts_with('"') {
            quoted(rest, b'"')
        } else if rest.starts_with('\'') && is_character(rest) {
            quoted(rest, b'\'')
        } else {
            let next = rest.chars().next().unwrap();
            code.push(next);
            at += next.len_utf8();
            continue;
        };
        code.extend(rest[..skipped].chars().filter(|c| *c == '\n'));
        code.push(' ');
        at += skipped;
    }
    code
}

/// Length of a block comment; they nest.
fn block_comment(rest: &str) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < rest.len() {
        match &rest.as_bytes()[at..] {
            [b'/', b'*', ..] => (depth, at) = (depth + 1, at + 2),
            [b'*', b'/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            break;
        }
    }
    at
}

/// Length of a raw string, where one begins.
fn raw_string(rest: &str, before: Option<char>) -> Option<usize> {
    if before.is_some_and(|c| c.is_alphanumeric() || c == '_') {
        return None;
    }
    let body =
        rest.strip_prefix("br").or_else(|| rest.strip_prefix("cr")).or_else(|| rest.strip_prefix('r'))?;
    let hashes = body.bytes().take_while(|byte| *byte == b'#').count();
    let text = body[hashes..].strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(hashes));
    let start = rest.len() - text.len();
    Some(start + text.find(&end).map_or(text.len(), |found| found + end.len()))
}

/// Length of a literal with escapes.
fn quoted(rest: &str, quote: u8) -> usize {
    let mut at = 1;
    while let Some(byte) = rest.as_bytes().get(at) {
        at += if *byte == b'\\' { 2 } else { 1 };
        if *byte == quote {
            break;
        }
    }
    at.min(rest.len())
}

/// Whether a quote opens a character and not a lifetime.
fn is_character(rest: &str) -> bool {
    let mut chars = rest.chars().skip(1);
    match chars.next() {
        Some('\\') => true,
        Some(_) => chars.next() == Some('\''),
        None => false,
    }
}

/// Lines on which `word` stands as a word of its own in code.
fn lines_with(source: &str, word: &str) -> Vec<usize> {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    let has = |line: &str| line.split(|c| !is_part(c)).any(|found| found == word);
    code_of(source).lines().enumerate().filter(|(_, line)| has(line)).map(|(index, _)| index + 1).collect()
}

#[test]
fn word_search_sees_code_and_neither_comments_nor_literals() {
    let source = "// unsafe\n/* unsafe /* unsafe */ unsafe */ fn f<'a>(x: &'a str) -> char { '\"' }\n\
                  #![forbid(unsafe_code)]\nlet a = \"unsafe \\\" unsafe\"; let b = r#\"unsafe \" unsafe\"#;\n\
                  let c = '\\''; unsafe { f() }\nunsafe impl Send for X {}";
    assert_eq!(lines_with(source, "unsafe"), [5, 6]);
}

#[test]
fn unsafe_code_stands_in_one_file_only() {
    let sources = files("rs");
    assert!(sources.len() > 20, "found only {} sources", sources.len());
    let mut wrong = Vec::new();
    let allowed = [UNSAFE_FILE, UNSAFE_FILE_OF_THE_PROBE, UNSAFE_FILE_OF_TESTS];
    for file in sources.iter().filter(|file| !allowed.contains(&file.as_str())) {
        wrong.extend(lines_with(&read(file), "unsafe").into_iter().map(|line| format!("{file}:{line}")));
    }
    for file in allowed {
        let there = lines_with(&read(file), "unsafe");
        assert!(!there.is_empty(), "{file} has no unsafe code: this test looks at the wrong file");
    }
    assert!(wrong.is_empty(), "unsafe code outside {allowed:?}: {wrong:?}");
}

#[test]
fn crates_forbid_unsafe_code_but_for_the_worker() {
    let roots =
        ["protocol", "wire", "policies", "gate", "audit", "jsonrpc", "supervisor", "client", "bench", "fuzz"];
    for krate in roots {
        let source = read(&format!("{krate}/src/lib.rs"));
        assert!(source.contains("#![forbid(unsafe_code)]"), "{krate}/src/lib.rs doesn't forbid unsafe code");
    }
    assert!(
        read("src/main.rs").contains("#![forbid(unsafe_code)]"),
        "src/main.rs doesn't forbid unsafe code"
    );
}

#[test]
fn codec_is_named_in_one_file_only() {
    for file in files("rs").iter().filter(|file| *file != CODEC_FILE) {
        let lines = lines_with(&read(file), "bincode");
        assert!(lines.is_empty(), "{file}:{lines:?} names the codec; {CODEC_FILE} is its place");
    }
}

/// Manifests of the root and of every member.
fn manifests() -> Vec<String> {
    files("toml")
        .into_iter()
        .filter(|file| Path::new(file).file_name().is_some_and(|name| name == "Cargo.toml"))
        .collect()
}

/// `[section]` of a manifest: its lines.
fn section<'a>(manifest: &'a str, name: &str) -> Vec<&'a str> {
    let lines = manifest.lines().skip_while(|line| line.trim() != format!("[{name}]")).skip(1);
    lines.take_while(|line| !line.starts_with('[')).collect()
}

/// Either a comment right above it, or a block of neighbours under one comment.
#[test]
fn dependencies_stand_once_each_with_its_reason() {
    let manifest = read("Cargo.toml");
    let lines = section(&manifest, "workspace.dependencies");
    assert!(lines.len() > 20, "the section wasn't found");
    let mut reason = false;
    for line in lines {
        match line.chars().next() {
            None => reason = false,
            Some('#') => reason = line.len() > 10,
            Some(_) => assert!(reason, "no reason above: {line}"),
        }
    }
    for file in manifests() {
        for name in ["dependencies", "dev-dependencies", "build-dependencies"] {
            for line in
                section(&read(&file), name).iter().filter(|line| !line.is_empty() && !line.starts_with('#'))
            {
                let inherited = line.contains(".workspace = true") || line.contains("workspace = true");
                assert!(inherited, "{file}: {line}: name its version in the root's [workspace.dependencies]");
            }
        }
    }
}

/// `fuzzing` opens doors for the fuzzer. Nothing that is shipped links that crate, and no other manifest turns it on.
#[test]
fn doors_for_the_fuzzer_are_opened_by_its_crate_alone() {
    let doors: Vec<String> = files("rs")
        .into_iter()
        .filter(|file| read(file).contains("feature = \"fuzzing\"") && !file.starts_with("tests/"))
        .collect();
    assert!(doors.len() > 3, "{doors:?}: this test looks for the wrong feature");
    for file in manifests() {
        let manifest = read(&file);
        let turned_on: Vec<&str> = manifest
            .lines()
            .filter(|line| line.contains("fuzzing") && !line.starts_with('#') && *line != "fuzzing = []")
            .collect();
        assert!(turned_on.is_empty() || file == "fuzz/Cargo.toml", "{file}: {turned_on:?}");
        let named = section(&manifest, "dependencies").iter().any(|line| line.starts_with("stockade-fuzz"));
        assert!(!named, "{file} links the fuzzer");
        // A feature that is on by default would be one that everybody has.
        assert!(!section(&manifest, "features").iter().any(|line| line.starts_with("default")), "{file}");
    }
}

#[test]
fn dependencies_come_from_the_registry_or_from_this_tree() {
    for file in manifests() {
        for line in read(&file).lines() {
            assert!(!line.contains("git ="), "{file}: {line}");
        }
    }
    for line in read("Cargo.lock").lines() {
        let Some(source) = line.strip_prefix("source = ") else { continue };
        assert!(source.starts_with("\"registry+"), "Cargo.lock: {source}");
    }
}

#[test]
fn members_take_lints_and_description_seriously() {
    for file in manifests() {
        let manifest = read(&file);
        assert!(
            section(&manifest, "lints").contains(&"workspace = true"),
            "{file} doesn't inherit the lints"
        );
        let description = manifest.lines().find(|line| line.starts_with("description = "));
        assert!(description.is_some_and(|line| line.len() > 30), "{file} has no description");
    }
}

/// Rows of every table below the heading `## heading` of a document, as cells.
fn rows(document: &str, heading: &str) -> Vec<Vec<String>> {
    let after = document.lines().skip_while(|line| *line != format!("## {heading}")).skip(1);
    let table = after.take_while(|line| !line.starts_with("## ")).filter(|line| line.starts_with('|'));
    let cells = |line: &str| line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect();
    table.map(cells).collect()
}

/// Words between backticks.
fn marked(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// Every function of the sources that is a test (or a property).
fn tests() -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for file in files("rs") {
        for line in read(&file).lines() {
            let Some(rest) = line.trim().strip_prefix("fn ") else { continue };
            names.insert(rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect());
        }
    }
    names
}

/// The column of a document's table that names tests: each name is a test of the sources, and no row is without one.
fn assert_tests_exist(file: &str, heading: &str, column: &str) {
    let (document, tests) = (read(file), tests());
    let rows = rows(&document, heading);
    let header = rows.first().unwrap_or_else(|| panic!("{file} has no table below `## {heading}`"));
    let column = header.iter().position(|cell| cell == column).expect("the column of tests");
    assert!(rows.len() > 6, "{file}: only {} rows", rows.len());
    for row in &rows[2..] {
        let names: Vec<&str> = marked(&row[column]).collect();
        assert!(!names.is_empty(), "{file}: {:?} names no test", row[0]);
        for name in names {
            let lint = name.contains("::") || name.contains('.');
            assert!(lint || tests.contains(name), "{file}: no test is named {name}");
        }
    }
}

#[test]
fn readme_names_tests_that_exist_for_every_guarantee() {
    assert_tests_exist("README.md", "Guarantees", "test that holds it");
}

#[test]
fn page_of_guarantees_names_tests_that_exist() {
    const PAGE: &str = "docs/guarantees.md";
    for heading in ["The workspace, and what is left in it", "Between runs and clients"] {
        assert_tests_exist(PAGE, heading, "test");
    }
    let (page, tests) = (read(PAGE), tests());
    for line in page.lines().filter_map(|line| line.strip_prefix("Tests of each row: ")) {
        assert!(marked(line).all(|name| tests.contains(name)), "{PAGE}: {line}");
    }
}

#[test]
fn architecture_names_tests_or_lints_for_every_invariant() {
    assert_tests_exist("ARCHITECTURE.md", "Invariants", "held by");
}

/// In a document, a backticked path into a crate's folder is a file or folder that is there.
#[test]
fn documents_name_files_that_exist() {
    let folders = [
        "src/",
        "protocol/",
        "wire/",
        "policies/",
        "gate/",
        "audit/",
        "worker/",
        "supervisor/",
        "client/",
        "jsonrpc/",
        "examples/",
        "tests/",
        "docs/",
        "systemd/",
        "packaging/",
        "bench/",
        "fuzz/",
    ];
    for file in files("md") {
        for path in marked(&read(&file)) {
            let plain = path.chars().all(|c| c.is_ascii_alphanumeric() || "._-/".contains(c));
            if plain && folders.iter().any(|folder| path.starts_with(folder)) {
                assert!(root().join(path).exists(), "{file} names {path}, which isn't there");
            }
        }
    }
}

/// `[text](file)` between documents.
#[test]
fn documents_link_to_files_that_exist() {
    for file in files("md") {
        let folder = root().join(&file).parent().unwrap().to_owned();
        for link in read(&file).split("](").skip(1) {
            let target = link.split([')', '#']).next().unwrap();
            if !target.is_empty() && !target.contains("://") {
                assert!(folder.join(target).exists(), "{file} links to {target}, which isn't there");
            }
        }
    }
}

/// The two commands a reader types first, in this order; CI runs the second as it stands there.
#[test]
fn readme_starts_with_the_two_commands_that_ci_runs() {
    let readme = read("README.md");
    let mut fences: Vec<&str> = Vec::new();
    let mut within = false;
    for line in readme.lines() {
        if line.starts_with("```") {
            within = !within && line != "```text";
        } else if within {
            fences.push(line);
        }
    }
    let commands: Vec<&str> = fences.iter().filter(|line| line.starts_with("cargo ")).copied().collect();
    assert_eq!(
        commands[..2],
        ["cargo run --release -- run -- python3 -c 'print(6*7)'", "cargo test --workspace"]
    );
    let ci = read(".ci/run");
    for command in &commands[..2] {
        assert!(ci.contains(command), ".ci/run doesn't run: {command}");
    }
}

/// The unmaintained codec is accepted once, with its reason beside it.
#[test]
fn advisory_of_the_codec_is_recorded_with_its_reason() {
    let deny = read("deny.toml");
    let entries: Vec<&str> = deny.lines().filter(|line| line.contains("RUSTSEC-")).collect();
    assert_eq!(entries.len(), 1, "{entries:?}");
    assert!(entries[0].contains("RUSTSEC-2025-0141") && entries[0].contains("reason = "), "{}", entries[0]);
}

/// What the Debian package has of a file: where it lies there.
fn packed(file: &str) -> Option<PathBuf> {
    let manifest = read("Cargo.toml");
    let assets = manifest.lines().filter_map(|line| line.strip_prefix("    [\"")?.strip_suffix("\"],"));
    assets.map(|asset| asset.split("\", \"").collect::<Vec<_>>()).find_map(|asset| {
        let [from, to, _mode] = asset[..] else { return None };
        let (folder, name) = file.rsplit_once('/').unwrap_or(("", file));
        let (of, pattern) = from.rsplit_once('/').unwrap_or(("", from));
        let fits = match pattern.split_once('*') {
            Some((first, last)) => name.starts_with(first) && name.ends_with(last),
            None => name == pattern,
        };
        (fits && of == folder && to.ends_with('/')).then(|| Path::new(to).join(name))
    })
}

/// The page of JSON-RPC is for who has the package and no sources: its schema and its examples lie where it says.
#[test]
fn what_the_page_of_jsonrpc_links_to_is_packed_where_it_links_to() {
    const PAGE: &str = "docs/jsonrpc.md";
    let folder = packed(PAGE).unwrap().parent().unwrap().to_owned();
    let page = read(PAGE);
    let links = page.split("](").skip(1).filter_map(|link| link.split([')', '#']).next());
    let mut found = 0;
    for link in links.filter(|link| !link.is_empty() && !link.contains("://")) {
        let file = match link.strip_prefix("../") {
            Some(above) => above.to_owned(),
            None => format!("docs/{link}"),
        };
        let meant = folder.join(link).components().fold(PathBuf::new(), |mut path, part| {
            if part.as_os_str() == ".." {
                path.pop();
            } else {
                path.push(part);
            }
            path
        });
        assert_eq!(packed(&file), Some(meant), "{link}");
        found += usize::from(file.starts_with("examples/") || file.ends_with(".json"));
    }
    assert!(found >= 5, "the schema and four examples: {found}");
    // And in the archive for other systems, which has whole folders.
    let build = read("packaging/build.sh");
    let copied = build.lines().find(|line| line.starts_with("cp -a systemd")).unwrap();
    assert!([" docs ", " examples "].iter().all(|folder| copied.contains(folder)), "{copied}");
}
