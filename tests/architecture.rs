//! Holds the source tree to the project's own rules: which way dependencies point, who may sleep, print or start programs, how long a file
//! may be, what must not stand in it, and that the documents name every reason code.
//!
//! It reads files and nothing else.

use std::fs;
use std::path::{Path, PathBuf};
use turnback_core::drill::ReasonCode;

/// The longest a file may be, in lines.
const LONGEST: usize = 600;

/// Where the project's own text lives; build output and evidence are elsewhere.
const ROOTS: [&str; 11] = [".ci", "core", "docs", "features", "fixtures", "flux", "scripts", "src", "steps", "tests", "Cargo.toml"];

struct Source {
    path: String,
    text: String,
}

impl Source {
    /// Lines that are not comments, each with its number.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let lines = self.text.lines().enumerate().map(|(index, line)| (index + 1, line));
        lines.filter(|(_, line)| !line.trim_start().starts_with("//"))
    }

    fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    /// The part of a Rust file before its own tests.
    fn before_tests(&self) -> &str {
        self.text.split("#[cfg(test)]\nmod ").next().unwrap_or(&self.text)
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn collect(path: &Path, files: &mut Vec<PathBuf>) {
    if path.is_file() {
        files.push(path.to_owned());
    } else if let Ok(entries) = fs::read_dir(path) {
        let mut entries: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
        entries.sort();
        for entry in entries.iter().filter(|entry| !entry.ends_with("target")) {
            collect(entry, files);
        }
    }
}

/// Every text file of the project.
fn sources() -> Vec<Source> {
    let mut files = Vec::new();
    for name in ROOTS {
        collect(&root().join(name), &mut files);
    }
    for entry in fs::read_dir(root()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "md" || extension == "toml") && !files.contains(&path) {
            files.push(path);
        }
    }
    let relative = |path: &Path| path.strip_prefix(root()).unwrap().to_string_lossy().into_owned();
    let read = |path: PathBuf| fs::read_to_string(&path).ok().map(|text| Source { path: relative(&path), text });
    let sources: Vec<_> = files.into_iter().filter_map(read).collect();
    assert!(sources.iter().any(|source| source.path == "src/main.rs"), "the source tree was not found");
    sources
}

fn rust_under(prefixes: &[&str]) -> Vec<Source> {
    sources().into_iter().filter(|source| source.is_rust() && prefixes.iter().any(|prefix| source.path.starts_with(prefix))).collect()
}

/// Fails with every place where one of the words stands in code.
#[track_caller]
fn refuse(sources: &[Source], words: &[&str], why: &str) {
    let mut found = Vec::new();
    for source in sources {
        for (number, line) in source.code() {
            found.extend(words.iter().filter(|word| line.contains(*word)).map(|word| format!("{}:{number}: {word}", source.path)));
        }
    }
    assert!(found.is_empty(), "{why}\n  {}", found.join("\n  "));
}

#[test]
fn core_knows_no_client_no_file_no_clock_and_no_chance() {
    let words = [
        "tokio::",
        "kube::",
        "sqlx::",
        "git2::",
        "duct::",
        "reqwest::",
        "cucumber::",
        "std::fs",
        "std::net",
        "std::process",
        "std::env",
        "std::thread",
        "SystemTime",
        "Instant::now",
        "Timestamp::now",
        "rand::",
        "Uuid::new",
        "use tokio",
        "use sqlx",
        "use git2",
    ];
    let pure: Vec<_> = rust_under(&["core/src/"])
        .into_iter()
        .map(|source| Source { path: source.path.clone(), text: source.before_tests().to_owned() })
        .collect();
    refuse(&pure, &words, "core is handed whatever it needs to know");
    let manifest = fs::read_to_string(root().join("core/Cargo.toml")).unwrap();
    for package in ["tokio", "kube", "sqlx", "git2", "duct", "reqwest", "rustix", "tempfile"] {
        assert!(!manifest.lines().any(|line| line.starts_with(package)), "core/Cargo.toml depends on {package}");
    }
}

/// How high a module of the turnback package stands; a module may use those below and beside it.
fn height(module: &str) -> u8 {
    match module {
        "wait" | "clock" => 0,
        "workflow" => 2,
        "steps" => 3,
        "cli" | "main" | "lib" => 4,
        _ => 1,
    }
}

#[test]
fn dependencies_point_one_way() {
    let mut found = Vec::new();
    for source in rust_under(&["src/", "steps/"]) {
        let inside = source.path.strip_prefix("src/").unwrap_or(&source.path);
        let own = inside.split(['/', '.']).next().unwrap_or(inside);
        for (number, line) in source.code() {
            for used in line.split("crate::").skip(1).chain(line.split("turnback::").skip(1)) {
                let module = used.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or(used);
                if height(module) > height(own) {
                    found.push(format!("{}:{number}: {own} uses {module}", source.path));
                }
            }
        }
    }
    let way = "cli → steps → workflow → {gitops, database, recovery, platform} → wait";
    assert!(found.is_empty(), "dependencies point one way: {way}\n  {}", found.join("\n  "));
}

#[test]
fn steps_call_the_workflow_and_hold_no_client() {
    let words = ["sqlx::", "git2::", "duct::", "reqwest::", "std::process", "std::fs", "sleep", "tokio::time"];
    refuse(&rust_under(&["steps/", "src/steps"]), &words, "steps call workflow and assert");
}

#[test]
fn only_wait_sleeps() {
    let sources: Vec<_> = rust_under(&["src/", "steps/", "fixtures/", "tests/"])
        .into_iter()
        .filter(|source| source.path != "src/wait.rs" && source.path != "tests/architecture.rs")
        .collect();
    refuse(&sources, &["thread::sleep", "time::sleep", "time::interval"], "every wait has a name and a deadline: use turnback::wait");
}

#[test]
fn only_the_command_line_prints() {
    let sources: Vec<_> = rust_under(&["src/", "steps/", "core/src/"])
        .into_iter()
        .filter(|source| !source.path.starts_with("src/cli") && source.path != "src/main.rs")
        .collect();
    refuse(&sources, &["println!", "print!(", "eprint!("], "workflow and adapters emit events; cli prints");
}

#[test]
fn nothing_is_left_for_later() {
    let words = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X:")];
    for source in sources().iter().filter(|source| source.is_rust()) {
        for (index, line) in source.text.lines().enumerate() {
            assert!(!words.iter().any(|word| line.contains(word)), "{}:{}: {line}", source.path, index + 1);
        }
    }
}

#[test]
fn no_file_is_too_long() {
    // What a program writes, nobody reads from top to bottom.
    let written = |path: &str| path.ends_with(".snap") || path.ends_with("go.sum") || path.contains("/golden/");
    let counted = |source: &Source| !written(&source.path);
    let long: Vec<_> = sources()
        .iter()
        .filter(|source| counted(source) && source.text.lines().count() > LONGEST)
        .map(|source| format!("{}: {} lines", source.path, source.text.lines().count()))
        .collect();
    assert!(long.is_empty(), "no file is longer than {LONGEST} lines\n  {}", long.join("\n  "));
}

#[test]
fn no_machine_and_no_package_registry_is_named() {
    // Put together here, so that this file does not hold what it looks for.
    let words = [
        concat!("/wo", "rk/"),
        concat!("/ro", "ot/"),
        concat!("/tmp", "/h/"),
        concat!("static.", "crates.io"),
        concat!("index.", "crates.io"),
        concat!("registry.", "npmjs"),
        concat!("py", "pi.org"),
        concat!("proxy.", "golang"),
        concat!("arti", "factory"),
    ];
    for source in sources() {
        for (index, line) in source.text.lines().enumerate() {
            let word = words.iter().find(|word| line.contains(**word));
            assert!(word.is_none(), "{}:{}: {line}", source.path, index + 1);
        }
    }
}

#[test]
fn every_module_says_what_it_is_for() {
    let modules = rust_under(&["src/", "steps/", "core/src/", "tests/", "fixtures/"]);
    // A file that holds only a module's own tests speaks for itself.
    for source in modules.iter().filter(|source| !source.path.ends_with("/tests.rs")) {
        assert!(source.text.starts_with("//!") || source.text.starts_with("#!["), "{} does not begin with what it is for", source.path);
    }
}

#[test]
fn the_documents_explain_every_reason_code() {
    let text = fs::read_to_string(root().join("docs/verdicts.md")).unwrap();
    for reason in ReasonCode::ALL {
        let heading = format!("### `{}`", reason.code());
        let section = text.split(&format!("{heading}\n")).nth(1).unwrap_or_else(|| panic!("docs/verdicts.md has no {heading}"));
        let section = section.split("\n#").next().unwrap_or(section);
        let joined = section.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(joined.contains(reason.remedy()), "docs/verdicts.md: the remedy of {} is not the one that a verdict gives", reason.code());
    }
    let headings = text.lines().filter_map(|line| line.strip_prefix("### `")?.strip_suffix('`'));
    for code in headings {
        assert!(ReasonCode::from_code(code).is_some(), "docs/verdicts.md explains {code}, which no verdict can have");
    }
}
