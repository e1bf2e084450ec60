//! Interruptions at every phase, two drills in one work root, and `clean` after a kill.

use crate::support::{Place, until};
use rustix::process::{Pid, Signal, kill_process};
use turnback_core::drill::Phase;

/// The beginning of every phase of a drill, as its journal names it.
fn phases() -> Vec<String> {
    Phase::ALL.iter().map(|phase| format!("{{\"phase\":\"{phase}\"}}")).collect()
}

/// Three places besides where most is going on.
fn moments() -> Vec<String> {
    let busy = ["server-started", "restore-planned", "replay-stopped"].map(|kind| format!("\"kind\":\"{kind}\""));
    phases().into_iter().chain(busy).collect()
}

/// Runs the shipped drill and sends it a signal at that moment; returns its exit code.
fn signalled(place: &Place, moment: &str, signal: Signal) -> Option<i32> {
    let running = place.start(&["data_rollback"]);
    let pid = Pid::from_raw(i32::try_from(running.pids()[0]).unwrap()).unwrap();
    place.until_journal_says(moment);
    kill_process(pid, signal).unwrap();
    running.wait().unwrap().status.code()
}

fn interrupted(signal: Signal, name: &str, moments: Vec<String>) {
    for moment in moments {
        let place = Place::new();
        let code = signalled(&place, &moment, signal);
        let package = place.package().unwrap();
        let evidence = std::fs::read(package.join("evidence.json")).unwrap_or_else(|error| panic!("{moment}: not sealed: {error}"));
        let evidence: serde_json::Value = serde_json::from_slice(&evidence).unwrap();
        let verdict = &evidence["predicate"]["verdict"];
        let seen = (code, verdict["decision"].as_str(), verdict["reasons"][0]["code"].as_str());
        assert_eq!(seen, (Some(130), Some("INCONCLUSIVE"), Some("interrupted")), "{moment}: {verdict:#}");
        assert!(verdict["reasons"][0]["message"].as_str().unwrap().contains(name), "{moment}: {verdict:#}");
        assert_eq!(evidence["predicate"]["cleanup"]["complete"], true, "{moment}: {:#}", evidence["predicate"]["cleanup"]);
        assert_eq!(turnback::evidence::read(package.join("journal.ndjson")).unwrap().torn, 0, "{moment}");
        place.assert_nothing_left();
    }
}

#[test]
fn ctrl_c_at_any_moment_ends_in_order() {
    interrupted(Signal::INT, "SIGINT", moments());
}

#[test]
fn sigterm_in_every_phase_ends_in_order() {
    interrupted(Signal::TERM, "SIGTERM", phases());
}

#[test]
fn after_a_kill_at_any_moment_the_journal_can_be_read_and_clean_removes_everything() {
    for moment in moments() {
        let place = Place::new();
        assert_eq!(signalled(&place, &moment, Signal::KILL), None, "{moment}: it ended by itself");
        let journal = turnback::evidence::read(place.package().unwrap().join("journal.ndjson")).unwrap();
        let reached = journal.entries.iter().any(|entry| moment.contains(&entry.kind) || moment.contains(&entry.data.to_string()));
        assert!(reached, "{moment} is not in the journal");

        let clean = || {
            let output = place.command().arg("clean").output().unwrap();
            let said = [output.stdout, output.stderr].concat();
            (output.status.code(), String::from_utf8_lossy(&said).into_owned())
        };
        let (code, said) = clean();
        assert!(code == Some(0) && said.contains("removed"), "{moment}: {said}");
        assert_eq!(place.processes(), Vec::<String>::new(), "{moment}: processes are left");
        let (code, said) = clean();
        assert!(code == Some(0) && said.starts_with("nothing to remove"), "{moment}: {said}");
        assert!(!place.work().exists(), "{moment}: the work root is left");
    }
}

#[test]
fn after_a_kill_the_next_drill_runs_also_without_clean() {
    let place = Place::new();
    signalled(&place, "\"kind\":\"replay-stopped\"", Signal::KILL);
    std::fs::remove_dir_all(place.evidence()).unwrap();
    place.run(&["deleted_rows"]).goes();
    let output = place.command().arg("clean").output().unwrap();
    assert!(output.status.success());
    place.assert_nothing_left();
}

#[test]
fn a_second_drill_in_the_same_place_is_refused_naming_the_first() {
    let place = Place::new();
    let first = place.start(&["deleted_rows"]);
    place.until_journal_says("\"kind\":\"server-started\"");
    let journal = turnback::evidence::read(place.package().unwrap().join("journal.ndjson")).unwrap();
    let run = journal.entries[0].data["run"]["id"].as_str().unwrap().to_owned();
    let pid = first.pids()[0].to_string();

    let evidence = place.path().join("second");
    let mut command = place.command();
    let second = command.args(["run", "deleted_rows", "--evidence"]).arg(&evidence).output().unwrap();
    let said = String::from_utf8_lossy(&second.stderr).into_owned();
    assert_eq!(second.status.code(), Some(2), "{said}");
    assert!(said.contains(&run) && said.contains(&pid) && said.contains("--work"), "{said}");
    let begun = std::fs::read_dir(&evidence).into_iter().flatten().count();
    assert_eq!(begun, 0, "the refused drill left evidence");

    let clean = place.command().arg("clean").output().unwrap();
    assert_eq!(clean.status.code(), Some(2), "a running drill was cleaned away");
    assert_eq!(first.wait().unwrap().status.code(), Some(0), "the first drill was disturbed");
    until("it is gone", || place.processes().is_empty());
    place.assert_nothing_left();
}
