//! What the tests of this lane share: a place of its own for every run, scenarios built from the usual steps, and how a run ended.

use serde_json::Value;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::TempDir;
use turnback::wait::{Poll, Wait};

/// The executable under test.
pub const TURNBACK: &str = env!("CARGO_BIN_EXE_turnback");
/// No drill of this lane takes longer, also on a busy machine.
pub const LIMIT: Duration = Duration::from_secs(120);

/// A directory of its own with a work root and room for evidence.
pub struct Place {
    dir: TempDir,
}

impl Drop for Place {
    fn drop(&mut self) {
        // A test that failed must not leave servers behind whose directory is gone.
        if std::thread::panicking() {
            let _failed_already = self.command().arg("clean").output();
        }
    }
}

/// How a run ended, and what it left as evidence.
pub struct Ran {
    pub code: i32,
    pub out: String,
    pub err: String,
    /// The sealed evidence, where there is some.
    pub evidence: Option<Value>,
    /// Where it lies.
    pub package: Option<PathBuf>,
}

impl Place {
    pub fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("tb").tempdir().unwrap();
        // As root the servers run as another account, which must get through.
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        Self { dir }
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    pub fn work(&self) -> PathBuf {
        self.path().join("w")
    }

    pub fn evidence(&self) -> PathBuf {
        self.path().join("e")
    }

    pub fn write(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    /// `turnback run` with these arguments, in this place.
    pub fn run(&self, args: &[&str]) -> Ran {
        self.run_with(&self.evidence(), args)
    }

    pub fn run_with(&self, evidence: &Path, args: &[&str]) -> Ran {
        let mut command = self.command();
        command.arg("run").arg("--evidence").arg(evidence).args(args);
        let output = command.output().unwrap();
        let package = self.package();
        let sealed = package.as_ref().and_then(|package| std::fs::read(package.join("evidence.json")).ok());
        Ran {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
            evidence: sealed.map(|bytes| serde_json::from_slice(&bytes).unwrap()),
            package,
        }
    }

    /// The executable, in this place and without the caller's own settings.
    pub fn command(&self) -> assert_cmd::Command {
        let mut command = assert_cmd::Command::new(TURNBACK);
        command.current_dir(self.path()).timeout(LIMIT).env_remove("TURNBACK_PG_BIN").env("TURNBACK_WORK", self.work());
        command
    }

    /// Runs a scenario.
    pub fn drill(&self, scenario: &Scenario) -> Ran {
        let path = self.write("drill.feature", scenario.text());
        self.run(&[path.to_str().unwrap()])
    }

    /// The evidence package, where one was begun.
    pub fn package(&self) -> Option<PathBuf> {
        let mut packages: Vec<_> = std::fs::read_dir(self.evidence()).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
        packages.sort();
        packages.pop()
    }

    /// The journal as it is now.
    pub fn journal(&self) -> String {
        self.package().and_then(|package| std::fs::read_to_string(package.join("journal.ndjson")).ok()).unwrap_or_default()
    }

    /// Nothing of a drill is there any more: no directory, no process, nothing for `turnback clean`.
    pub fn assert_nothing_left(&self) {
        let left: Vec<_> = std::fs::read_dir(self.work())
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.file_name())
            .filter(|name| name != "turnback.lock")
            .collect();
        assert!(left.is_empty(), "left in the work directory: {left:?}");
        assert_eq!(self.processes(), Vec::<String>::new(), "processes are left");
        let cleaned = self.command().arg("clean").output().unwrap();
        let said = String::from_utf8_lossy(&cleaned.stdout).into_owned();
        assert!(cleaned.status.success() && said.starts_with("nothing to remove"), "{said}");
    }

    /// Processes that work in this place or were told of it.
    pub fn processes(&self) -> Vec<String> {
        let place = self.path().to_str().unwrap();
        let mut found = Vec::new();
        for entry in std::fs::read_dir("/proc").unwrap().flatten() {
            let name = entry.file_name();
            let Some(pid) = name.to_str().filter(|name| name.bytes().all(|byte| byte.is_ascii_digit())) else { continue };
            if pid == std::process::id().to_string() {
                continue;
            }
            let text = |file: &str| String::from_utf8_lossy(&std::fs::read(entry.path().join(file)).unwrap_or_default()).into_owned();
            let cwd = std::fs::read_link(entry.path().join("cwd")).unwrap_or_default();
            let zombie = text("stat").rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with('Z'));
            if !zombie && (cwd.starts_with(place) || text("cmdline").contains(place) || text("environ").contains(place)) {
                found.push(format!("{pid} {}", text("cmdline").replace('\0', " ")));
            }
        }
        found
    }

    /// Starts `turnback run` in the background.
    pub fn start(&self, args: &[&str]) -> duct::Handle {
        let evidence = self.evidence();
        let all = ["run", "--evidence", evidence.to_str().unwrap()].into_iter().chain(args.iter().copied());
        duct::cmd(TURNBACK, all)
            .dir(self.path())
            .env("TURNBACK_WORK", self.work())
            .env_remove("TURNBACK_PG_BIN")
            .stdin_null()
            .stdout_capture()
            .stderr_capture()
            .unchecked()
            .start()
            .unwrap()
    }

    /// Waits until the journal holds this text.
    pub fn until_journal_says(&self, needle: &str) {
        until(&format!("the journal says {needle}"), || self.journal().contains(needle));
    }
}

/// Waits for something that another process does.
pub fn until(what: &str, holds: impl Fn() -> bool) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let wait = Wait::new(what, LIMIT).every(Duration::from_millis(2));
    let look = async || Ok::<_, std::convert::Infallible>(if holds() { Poll::Ready(()) } else { Poll::NotYet("not yet".to_owned()) });
    runtime.block_on(wait.until(look)).unwrap();
}

impl Ran {
    pub fn verdict(&self) -> &Value {
        let evidence = self.evidence.as_ref().unwrap_or_else(|| panic!("no evidence; exit {}\n{}\n{}", self.code, self.out, self.err));
        &evidence["predicate"]["verdict"]
    }

    /// Asserts exit code, decision, the first reason's code, and what its message names.
    #[track_caller]
    pub fn ends(&self, code: i32, decision: &str, reason: &str, needles: &[&str]) -> &Self {
        let verdict = self.verdict();
        let first = &verdict["reasons"][0];
        let seen = (self.code, verdict["decision"].as_str().unwrap(), first["code"].as_str().unwrap());
        assert_eq!(seen, (code, decision, reason), "{verdict:#}\n{}", self.out);
        for needle in needles {
            assert!(first["message"].as_str().unwrap().contains(needle), "no {needle:?} in {}", first["message"]);
        }
        self
    }

    #[track_caller]
    pub fn goes(&self) -> &Self {
        self.ends(0, "GO", "recovered-exactly", &[])
    }

    #[track_caller]
    pub fn no_go(&self, reason: &str, needles: &[&str]) -> &Self {
        self.ends(1, "NO_GO", reason, needles)
    }

    #[track_caller]
    pub fn inconclusive(&self, reason: &str, needles: &[&str]) -> &Self {
        self.ends(3, "INCONCLUSIVE", reason, needles)
    }

    /// Asserts that nothing was started: the exit code, what is named, and no evidence.
    #[track_caller]
    pub fn refused(&self, code: i32, needles: &[&str]) -> &Self {
        assert_eq!(self.code, code, "{}\n{}", self.out, self.err);
        for needle in needles {
            assert!(self.err.contains(needle), "no {needle:?} in {}", self.err);
        }
        assert!(self.package.is_none(), "evidence was begun: {:?}", self.package);
        self
    }
}

/// A scenario, step by step, that can be spoiled at will.
#[derive(Clone)]
pub struct Scenario {
    steps: Vec<String>,
}

/// A small database.
pub const SHOP: &str = "\
CREATE TABLE shop (id int PRIMARY KEY, name text NOT NULL DEFAULT 'new', price numeric);
CREATE INDEX by_name ON shop (name);
CREATE SEQUENCE tickets;
CREATE ROLE clerk;
CREATE FUNCTION stamp() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$;
CREATE TRIGGER stamped BEFORE UPDATE ON shop FOR EACH ROW EXECUTE FUNCTION stamp();
INSERT INTO shop SELECT g, 'thing ' || g, g FROM generate_series(1, 100) g;";

/// What its bad migration does.
pub const HARM: &str = "UPDATE shop SET price = 0 WHERE id % 2 = 0;";

impl Scenario {
    /// The usual drill on a database and with a migration of one's own.
    pub fn own(database: &str, migration: &str) -> Self {
        let text = |step: &str, sql: &str| {
            // Quoted names may hold three quotes in a row.
            let fence = if sql.contains("\"\"\"") { "```" } else { "\"\"\"" };
            format!("{step}\n{fence}\n{sql}\n{fence}")
        };
        let steps = [
            text("Given a platform with this database:", database).as_str(),
            "Given the last backup is verified",
            "Given a fresh backup is taken",
            "Given the known-good state is recorded as \"good\"",
            text("When the migration \"harm\" is deployed:", migration).as_str(),
            "Then the change is in the migration history",
            "Then schema or data differ from \"good\"",
            "When the change is reverted in Git",
            "Then exactly the reverting revision is applied",
            "Then the data is still damaged",
            "When the database is restored to \"good\" by time",
            "Then replay stopped exactly there",
            "Then the restored server is the same system on a new timeline",
            "Then schema and data equal \"good\", exactly",
            "Then the change is not in the migration history",
        ]
        .map(str::to_owned)
        .to_vec();
        Self { steps }
    }

    /// The same on the small database.
    pub fn shop() -> Self {
        Self::own(SHOP, HARM)
    }

    #[track_caller]
    fn find(&self, part: &str) -> usize {
        self.steps.iter().position(|step| step.contains(part)).unwrap_or_else(|| panic!("no step has {part:?}"))
    }

    /// A step more, before the one that contains `part`.
    #[track_caller]
    pub fn before(mut self, part: &str, step: &str) -> Self {
        let at = self.find(part);
        self.steps.insert(at, step.to_owned());
        self
    }

    /// Another step in place of the one that contains `part`.
    #[track_caller]
    pub fn instead(mut self, part: &str, step: &str) -> Self {
        let at = self.find(part);
        step.clone_into(&mut self.steps[at]);
        self
    }

    /// A step more, after all others.
    pub fn last(mut self, step: &str) -> Self {
        self.steps.push(step.to_owned());
        self
    }

    /// Without the step that contains `part`.
    #[track_caller]
    pub fn without(mut self, part: &str) -> Self {
        let at = self.find(part);
        self.steps.remove(at);
        self
    }

    pub fn text(&self) -> String {
        let steps: Vec<_> = self.steps.iter().map(|step| format!("    {}", step.replace('\n', "\n    "))).collect();
        format!("Feature: a drill of the fault lane\n\n  Scenario: one fault\n{}\n", steps.join("\n"))
    }
}

/// SQL run on the restored server by someone who should not.
pub fn tampered(sql: &str) -> String {
    format!("When the fault: someone changes the restored database:\n\"\"\"\n{sql}\n\"\"\"")
}
