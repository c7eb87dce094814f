//! The shape of the house as a test: which crate may know which, where `unsafe` may live, what the pure crates do without.
//!
//! The rules are those of the table of crates in ARCHITECTURE.md. A new crate must be entered here first, with a word on
//! what it must never know; that is the moment to think about it.
#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test says what is wrong by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use cargo_metadata::{DependencyKind, MetadataCommand, Package};

/// What a crate must never depend on, of ours.
enum Never {
    /// Not even through others.
    Reach(&'static [&'static str]),
    /// Not itself; what it calls may. For the edges: they call `server`, which knows the rest.
    Name(&'static [&'static str]),
    /// It may depend on these and on nothing else of ours.
    AllBut(&'static [&'static str]),
}

use Never::{AllBut, Name, Reach};

/// Every crate of ours, in the order of the table in ARCHITECTURE.md.
const RULES: &[(&str, Never)] = &[
    ("types", AllBut(&[])),
    ("policy", AllBut(&["types"])),
    ("sched", AllBut(&["types"])),
    ("plan", AllBut(&["types"])),
    ("bill", AllBut(&["types"])),
    ("sim", AllBut(&["types", "sched", "plan"])),
    ("oip", AllBut(&["types"])),
    ("pipeline", Reach(&["store", "api", "node", "server"])),
    ("store", Reach(&["sched", "api", "worker"])),
    ("wire", Reach(&["store", "api", "sched"])),
    ("jail", AllBut(&["types"])),
    ("engine", Reach(&["store", "api", "sched", "server"])),
    ("worker", Reach(&["store", "api", "sched", "server"])),
    ("node", Reach(&["store", "api", "server", "engine"])),
    ("server", Reach(&["api", "engine", "worker"])),
    ("api", Name(&["sched", "store", "wire", "node", "worker"])),
    ("cli", Reach(&["engine"])),
    ("load", AllBut(&["types", "oip"])),
    // It reads folders; who carries out what it plans is a client of the admin API.
    ("import", AllBut(&["types"])),
    // It measures from outside: the program and its baselines, never the inside of the service. The scheduler is a plain
    // function and is measured as one.
    ("bench", Reach(&["api", "server", "store", "node"])),
    ("xtask", Reach(&["api", "server", "store", "node", "engine"])),
];

/// Crates that are plain functions over values. What they may use of others' is a closed list, so that nothing with
/// a clock, a socket, a file or dice in it comes in unseen.
const PURE: &[&str] = &["types", "policy", "sched", "plan", "bill"];
const FIT_FOR_PURE: &[&str] =
    &["bytes", "cedar-policy", "rustc-hash", "serde", "sha2", "slab", "smallvec", "thiserror", "uuid"];
/// What a pure crate must not even mention.
const UNFIT_WORDS: &[&str] = &[
    "Instant",
    "SystemTime",
    "std::fs",
    "std::net",
    "std::env",
    "std::process",
    "std::thread",
    "std::os",
    "tokio",
    "async",
];
/// Helpers for other crates' tests, behind the feature `testing`, in an otherwise pure crate.
const TESTING_MODULE: &str = "testing";

/// Crates that must not drag an async runtime or a network along, whatever else they do.
const RUNTIME_FREE: &[&str] = &[
    "types", "policy", "sched", "plan", "bill", "sim", "oip", "pipeline", "import", "wire", "jail", "engine", "worker",
];
const RUNTIMES: &[&str] = &[
    "tokio",
    "tokio-util",
    "hyper",
    "hyper-util",
    "axum",
    "tower",
    "sqlx",
    "reqwest",
    "ureq",
    "object_store",
    "async-std",
    "smol",
];

/// The only crates whose sources may say `unsafe`.
const MAY_BE_UNSAFE: &[&str] = &["jail", "wire", "engine"];

const PREFIX: &str = "tenantry-";

fn packages() -> BTreeMap<String, Package> {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../Cargo.toml");
    let metadata = MetadataCommand::new().manifest_path(manifest).no_deps().exec().unwrap();
    let named = |package: Package| {
        let name = package.name.strip_prefix(PREFIX).map(str::to_owned);
        (name.unwrap_or_else(|| panic!("{} should be called {PREFIX}{}", package.name, package.name)), package)
    };
    metadata.packages.into_iter().map(named).collect()
}

/// What a crate depends on to be built and run; what only its tests use does not count.
fn dependencies(package: &Package) -> impl Iterator<Item = &str> {
    let shipped = |kind| matches!(kind, DependencyKind::Normal | DependencyKind::Build);
    package.dependencies.iter().filter(move |edge| shipped(edge.kind)).map(|edge| edge.name.as_str())
}

fn ours(package: &Package) -> BTreeSet<&str> {
    dependencies(package).filter_map(|name| name.strip_prefix(PREFIX)).collect()
}

/// Every crate of ours that `from` depends on, with the way there.
fn reached<'a>(from: &'a str, packages: &'a BTreeMap<String, Package>) -> BTreeMap<&'a str, Vec<&'a str>> {
    let mut ways: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let mut open = vec![vec![from]];
    while let Some(way) = open.pop() {
        let Some(package) = way.last().and_then(|last| packages.get(*last)) else { continue };
        for next in ours(package) {
            if !ways.contains_key(next) {
                let longer: Vec<&str> = way.iter().copied().chain([next]).collect();
                ways.insert(next, longer.clone());
                open.push(longer);
            }
        }
    }
    ways
}

fn report(what: &str, faults: &[String]) {
    assert!(faults.is_empty(), "{what}:\n  {}\n", faults.join("\n  "));
}

#[test]
fn every_crate_has_its_rule_and_its_folder() {
    let known: BTreeSet<&str> = RULES.iter().map(|&(name, _)| name).collect();
    assert_eq!(known.len(), RULES.len(), "a crate has two rules");
    let mut faults = Vec::new();
    for (name, package) in packages() {
        if !known.contains(name.as_str()) {
            faults.push(format!(
                "`{name}` has no rule: enter it in RULES of crates/xtask/tests/edges.rs and in the table of \
                 ARCHITECTURE.md, with what it must never depend on"
            ));
        }
        if !package.manifest_path.ends_with(format!("crates/{name}/Cargo.toml")) {
            faults.push(format!("{} should live in crates/{name}", package.name));
        }
    }
    report("crates out of place", &faults);
}

#[test]
fn no_crate_knows_what_it_must_not_know() {
    let packages = packages();
    let mut faults = Vec::new();
    for (name, never) in RULES {
        let Some(package) = packages.get(*name) else { continue };
        let ways = reached(name, &packages);
        match never {
            Reach(names) => {
                for forbidden in names.iter().filter_map(|other| ways.get(other)) {
                    faults.push(forbidden.join(" -> "));
                }
            }
            Name(names) => {
                let direct = ours(package);
                for forbidden in names.iter().filter(|other| direct.contains(**other)) {
                    faults.push(format!("{name} -> {forbidden}"));
                }
            }
            AllBut(names) => {
                for forbidden in ways.iter().filter(|(other, _)| !names.contains(other)).map(|(_, way)| way) {
                    faults.push(forbidden.join(" -> "));
                }
            }
        }
    }
    report("edges the design forbids", &faults);
}

#[test]
fn pure_crates_use_only_what_is_fit_for_them() {
    let packages = packages();
    let mut faults = Vec::new();
    for name in PURE {
        let Some(package) = packages.get(*name) else { continue };
        for other in dependencies(package).filter(|other| !other.starts_with(PREFIX) && !FIT_FOR_PURE.contains(other)) {
            faults.push(format!("{name} -> {other}: if it has no clock, no IO and no dice, enter it in FIT_FOR_PURE"));
        }
        for file in sources(package, "src") {
            let is_helper =
                file.components().any(|part| Path::new(part.as_os_str()).file_stem() == Some(TESTING_MODULE.as_ref()));
            let code = code_of(&fs::read_to_string(&file).unwrap());
            for word in UNFIT_WORDS.iter().filter(|word| !is_helper && mentions(&code, word)) {
                faults.push(format!("{} mentions {word}", file.display()));
            }
        }
    }
    report("impure", &faults);
}

#[test]
fn codecs_and_workers_carry_no_async_runtime() {
    let packages = packages();
    let mut faults = Vec::new();
    for name in RUNTIME_FREE {
        for reached in reached(name, &packages).into_keys().chain([*name]) {
            let Some(package) = packages.get(reached) else { continue };
            for runtime in dependencies(package).filter(|other| RUNTIMES.contains(other)) {
                faults.push(format!("{name} reaches {runtime} through {reached}"));
            }
        }
    }
    report("runtimes where none belongs", &faults);
}

#[test]
fn unsafe_lives_in_its_three_crates_only() {
    let mut faults = Vec::new();
    for (name, package) in packages() {
        if MAY_BE_UNSAFE.contains(&name.as_str()) {
            continue;
        }
        for folder in ["src", "tests", "benches", "examples"] {
            for file in sources(&package, folder) {
                if mentions(&code_of(&fs::read_to_string(&file).unwrap()), "unsafe") {
                    faults.push(format!("{} says `unsafe`", file.display()));
                }
            }
        }
        let roots = package.targets.iter().filter(|target| target.is_lib() || target.is_bin());
        for root in roots.map(|target| target.src_path.as_std_path()) {
            let code: String = code_of(&fs::read_to_string(root).unwrap()).split_whitespace().collect();
            if !code.contains("#![forbid(unsafe_code)]") {
                faults.push(format!("{} lacks #![forbid(unsafe_code)]", root.display()));
            }
        }
    }
    report("unsafe outside jail, wire and engine", &faults);
}

/// Every Rust file below a folder of a package.
fn sources(package: &Package, folder: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut open = vec![package.manifest_path.as_std_path().with_file_name(folder)];
    while let Some(folder) = open.pop() {
        // A package need not have every folder.
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        for path in entries.map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    files.sort();
    files
}

/// Whether `word` stands in `code` and not as part of a longer name.
fn mentions(code: &str, word: &str) -> bool {
    let is_name = |c: char| c.is_alphanumeric() || c == '_';
    code.match_indices(word).any(|(at, _)| {
        let before = code.get(..at).and_then(|text| text.chars().next_back());
        let after = code.get(at + word.len()..).and_then(|text| text.chars().next());
        !before.is_some_and(is_name) && !after.is_some_and(is_name)
    })
}

/// The source without comments and without what stands in literals. Enough of a lexer for that and no more.
fn code_of(source: &str) -> String {
    let mut code = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(c) = rest.chars().next() {
        let skipped = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            block_comment(rest)
        } else if c == '"' {
            quoted(rest, 1)
        } else if let Some(hashes) = raw_string(rest, code.chars().next_back()) {
            let end = format!("\"{}", "#".repeat(hashes));
            let start = hashes + 2;
            rest.get(start..).and_then(|text| text.find(&end)).map_or(rest.len(), |at| start + at + end.len())
        } else if c == '\'' {
            character(rest)
        } else {
            code.push(c);
            rest = rest.get(c.len_utf8()..).unwrap_or_default();
            continue;
        };
        // What is left out still separates what stands around it.
        code.push(' ');
        rest = rest.get(skipped..).unwrap_or_default();
    }
    code
}

/// The length of a block comment; they nest.
fn block_comment(text: &str) -> usize {
    let mut depth = 0usize;
    let mut at = 0;
    loop {
        let rest = text.get(at..).unwrap_or_default();
        if rest.starts_with("/*") {
            depth += 1;
            at += 2;
        } else if rest.starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else if let Some(c) = rest.chars().next() {
            at += c.len_utf8();
        } else {
            return text.len();
        }
    }
}

/// The length of a literal that ends with the character it begins with; `from` is where its inside begins.
fn quoted(text: &str, from: usize) -> usize {
    let end = text.chars().next();
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(from) {
        if escaped {
            escaped = false;
        } else if c == '\\' {
            escaped = true;
        } else if Some(c) == end {
            return at + c.len_utf8();
        }
    }
    text.len()
}

/// The number of hashes, if a raw string begins here.
fn raw_string(text: &str, before: Option<char>) -> Option<usize> {
    if before.is_some_and(|c| c.is_alphanumeric() || c == '_') && before != Some('b') {
        return None;
    }
    let inside = text.strip_prefix('r')?;
    let hashes = inside.len() - inside.trim_start_matches('#').len();
    inside.get(hashes..)?.starts_with('"').then_some(hashes)
}

/// The length of a character literal, or of the quote alone where it begins a lifetime.
fn character(text: &str) -> usize {
    let mut inside = text.chars().skip(1);
    match (inside.next(), inside.next()) {
        (Some('\\'), _) | (Some(_), Some('\'')) => quoted(text, 1),
        _ => 1,
    }
}

#[test]
fn the_lexer_sees_code_and_nothing_else() {
    let source = r##"
        // unsafe in a comment /* not nested
        /* unsafe /* nested unsafe */ still unsafe */
        fn a<'unsafe_life>(x: &'unsafe_life str) -> char { let _ = "unsafe \" unsafe"; let _ = r#"unsafe " unsafe"#; '\'' }
        const B: char = '"'; const C: &[u8] = b"unsafe"; const D: &[u8] = br"unsafe"; fn unsafe_code() {}
    "##;
    assert!(!mentions(&code_of(source), "unsafe"), "{}", code_of(source));
    assert!(mentions(&code_of(source), "unsafe_code"));
    assert!(mentions(&code_of("fn a() { 'a'; unsafe { b() } }"), "unsafe"));
    assert!(mentions(&code_of("let c = '\"'; unsafe {}"), "unsafe"));
    assert!(mentions(&code_of("std::time::Instant::now()"), "Instant"));
}
