//! What Flux's objects say, and what follows from it for one revision: pure functions from statuses to an outcome.

use super::client::{Condition, condition, conditions, text};
use kube::api::DynamicObject;
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeMap;

/// A Kustomization as its status says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct KustomizationState {
    /// Its name.
    pub name: String,
    /// The names of those that it waits for.
    pub depends_on: Vec<String>,
    /// Whether it is suspended.
    pub suspended: bool,
    /// The generation of its specification.
    pub generation: i64,
    /// The generation that its status is about.
    pub observed_generation: i64,
    /// `main@sha1:…`, tried last.
    pub last_attempted: Option<String>,
    /// `main@sha1:…`, applied and found healthy last.
    pub last_applied: Option<String>,
    /// The token of the reconciliation asked for last.
    pub last_handled: Option<String>,
    /// Its conditions.
    pub conditions: Vec<Condition>,
    /// What Flux keeps of earlier reconciliations. Equal digests are merged, so a revert to the same manifests rewrites the earlier entry.
    pub history: Vec<Value>,
}

/// What became of a revision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "outcome", rename_all = "kebab-case")]
pub enum FluxOutcome {
    /// Every Kustomization has applied exactly this revision and is healthy.
    Applied,
    /// A Kustomization failed at exactly this revision.
    Failed {
        /// Its name.
        kustomization: String,
        /// Flux's reason, such as `HealthCheckFailed`.
        reason: String,
        /// What Flux said.
        message: String,
        /// The log of the Job that failed, where the message names one.
        job_log: Option<String>,
    },
    /// Something is suspended, so the revision is not applied.
    Suspended {
        /// What.
        object: String,
        /// The revision where it stands.
        stands_at: Option<String>,
    },
    /// The deadline passed.
    TimedOut {
        /// The last status seen.
        last: String,
    },
}

/// What to do next about one revision.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// It is over.
    Done(FluxOutcome),
    /// Wait; these Kustomizations wait for dependencies that are done by now and look again by themselves only much later.
    Wait { poke: Vec<String>, status: String },
}

/// Reasons of `Ready=False` that say that this very revision did not work.
const FAILED: [&str; 4] = ["HealthCheckFailed", "BuildFailed", "ReconciliationFailed", "PruneFailed"];
/// Messages of failures that pass by themselves.
const PASSING: [&str; 7] = [
    "connection refused",
    "i/o timeout",
    "no endpoints available",
    "EOF",
    "no matches for kind",
    "context deadline exceeded",
    "etcdserver",
];

impl KustomizationState {
    /// Reads a Kustomization.
    #[must_use]
    pub fn read(object: &DynamicObject) -> Self {
        let list = |pointer: &str| object.data.pointer(pointer).and_then(Value::as_array).cloned().unwrap_or_default();
        Self {
            name: object.metadata.name.clone().unwrap_or_default(),
            depends_on: list("/spec/dependsOn").iter().filter_map(|d| Some(d["name"].as_str()?.to_owned())).collect(),
            suspended: object.data.pointer("/spec/suspend") == Some(&Value::Bool(true)),
            generation: object.metadata.generation.unwrap_or_default(),
            observed_generation: object.data.pointer("/status/observedGeneration").and_then(Value::as_i64).unwrap_or_default(),
            last_attempted: text(object, "/status/lastAttemptedRevision").map(str::to_owned),
            last_applied: text(object, "/status/lastAppliedRevision").map(str::to_owned),
            last_handled: text(object, "/status/lastHandledReconcileAt").map(str::to_owned),
            conditions: conditions(object),
            history: list("/status/history"),
        }
    }

    fn condition(&self, kind: &str) -> Option<&Condition> {
        self.conditions.iter().find(|condition| condition.kind == kind)
    }

    fn is(&self, kind: &str) -> bool {
        self.condition(kind).is_some_and(|condition| condition.status == "True")
    }

    /// Whether exactly this revision is applied and healthy.
    #[must_use]
    pub fn has_applied(&self, revision: &str) -> bool {
        self.last_applied.as_deref() == Some(revision)
            && self.observed_generation == self.generation
            && self.is("Ready")
            && !self.is("Reconciling")
    }

    /// Whether exactly this revision failed, and what Flux says about it.
    fn has_failed(&self, revision: &str) -> Option<&Condition> {
        if self.last_attempted.as_deref() != Some(revision) {
            return None;
        }
        if let Some(stalled) = self.condition("Stalled").filter(|condition| condition.status == "True") {
            return Some(stalled);
        }
        let ready = self.condition("Ready").filter(|ready| ready.status == "False" && FAILED.contains(&ready.reason.as_str()))?;
        let passing = ready.reason == "ReconciliationFailed" && PASSING.iter().any(|passing| ready.message.contains(passing));
        (!passing).then_some(ready)
    }

    fn waits_for_others(&self) -> bool {
        self.condition("Ready").is_some_and(|ready| ready.status == "False" && ready.reason == "DependencyNotReady")
    }

    fn status(&self) -> String {
        let said = self.condition("Ready").map_or_else(|| "no condition yet".to_owned(), ToString::to_string);
        format!("{}: {said}", self.name)
    }
}

/// What follows from the states of all Kustomizations for a revision. `root` is the one that makes the others; `fresh` says of each whether it has
/// looked again since it was asked to, which matters where it had applied this revision before.
pub(super) fn next(
    states: &BTreeMap<String, KustomizationState>,
    root: &str,
    revision: &str,
    fresh: impl Fn(&KustomizationState) -> bool,
) -> Next {
    let Some(first) = states.get(root) else {
        return Next::Wait { poke: Vec::new(), status: format!("there is no Kustomization {root} yet") };
    };
    let done = |state: &KustomizationState| state.has_applied(revision) && fresh(state);
    for state in states.values() {
        if let Some(failed) = state.has_failed(revision) {
            let (reason, message) = (failed.reason.clone(), failed.message.clone());
            return Next::Done(FluxOutcome::Failed { kustomization: state.name.clone(), reason, message, job_log: None });
        }
    }
    let open: Vec<_> = states.values().filter(|state| !done(state)).collect();
    if done(first) && open.is_empty() {
        return Next::Done(FluxOutcome::Applied);
    }
    // What is suspended never comes to the revision, nor does what waits for it.
    if let Some(suspended) = open.iter().find(|state| state.suspended)
        && (suspended.name == root || open.iter().all(|state| waits_for(states, state, &suspended.name)))
    {
        let object = format!("Kustomization {}", suspended.name);
        return Next::Done(FluxOutcome::Suspended { object, stands_at: suspended.last_applied.clone() });
    }
    let poke = |state: &&&KustomizationState| {
        state.waits_for_others() && state.depends_on.iter().all(|name| states.get(name).is_some_and(|other| other.has_applied(revision)))
    };
    Next::Wait {
        poke: open.iter().filter(poke).map(|state| state.name.clone()).collect(),
        status: open.iter().map(|state| state.status()).collect::<Vec<_>>().join("; "),
    }
}

/// Whether a Kustomization is the named one, or depends on it, however far.
fn waits_for(states: &BTreeMap<String, KustomizationState>, state: &KustomizationState, name: &str) -> bool {
    // Flux refuses cycles; the depth keeps one from mattering here.
    fn walk(states: &BTreeMap<String, KustomizationState>, at: &str, name: &str, depth: usize) -> bool {
        at == name
            || (depth > 0 && states.get(at).is_some_and(|state| state.depends_on.iter().any(|next| walk(states, next, name, depth - 1))))
    }
    walk(states, &state.name, name, states.len())
}

/// The revision of a source's artifact, and what it says about itself.
pub(super) fn source_status(source: &DynamicObject) -> (Option<String>, String) {
    let revision = text(source, "/status/artifact/revision").map(str::to_owned);
    let said = condition(source, "Ready").map_or_else(|| "no condition yet".to_owned(), |ready| ready.to_string());
    (revision, said)
}

/// The Job that a failed health check names, as (namespace, name).
pub(super) fn named_job(message: &str) -> Option<(String, String)> {
    let rest = message.split("Job/").nth(1)?;
    let (namespace, rest) = rest.split_once('/')?;
    let name: String = rest.chars().take_while(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '.')).collect();
    Some((namespace.to_owned(), name))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEW: &str = "main@sha1:new";
    const OLD: &str = "main@sha1:old";

    fn state(name: &str, after: &[&str], applied: &str, ready: (&str, &str)) -> KustomizationState {
        let (status, reason) = ready;
        KustomizationState {
            name: name.to_owned(),
            depends_on: after.iter().map(ToString::to_string).collect(),
            generation: 1,
            observed_generation: 1,
            last_attempted: Some(applied.to_owned()),
            last_applied: Some(applied.to_owned()),
            conditions: vec![Condition {
                kind: "Ready".into(),
                status: status.into(),
                reason: reason.into(),
                message: "words".into(),
                since: String::new(),
            }],
            ..KustomizationState::default()
        }
    }

    fn judge(states: &[KustomizationState]) -> Next {
        next(&states.iter().map(|s| (s.name.clone(), s.clone())).collect(), "root", NEW, |_| true)
    }

    const READY: (&str, &str) = ("True", "ReconciliationSucceeded");
    const WAITING: (&str, &str) = ("False", "DependencyNotReady");

    #[test]
    fn applied_means_exactly_this_revision_by_all() {
        assert_eq!(judge(&[state("root", &[], NEW, READY), state("a", &[], NEW, READY)]), Next::Done(FluxOutcome::Applied));
        for other in [state("a", &[], OLD, READY), state("a", &[], NEW, ("Unknown", "Progressing"))] {
            assert!(matches!(judge(&[state("root", &[], NEW, READY), other]), Next::Wait { .. }));
        }
        let mut changed = state("a", &[], NEW, READY);
        changed.generation = 2;
        assert!(matches!(judge(&[state("root", &[], NEW, READY), changed]), Next::Wait { .. }));
        assert!(matches!(judge(&[]), Next::Wait { .. }));
    }

    #[test]
    fn a_failure_counts_only_at_exactly_this_revision() {
        let failed = |attempted: &str| {
            let mut failed = state("migrations", &[], OLD, ("False", "HealthCheckFailed"));
            failed.last_attempted = Some(attempted.to_owned());
            judge(&[state("root", &[], NEW, READY), failed])
        };
        assert!(matches!(failed(NEW), Next::Done(FluxOutcome::Failed { kustomization, .. }) if kustomization == "migrations"));
        assert!(matches!(failed(OLD), Next::Wait { .. }));
    }

    #[test]
    fn a_webhook_that_is_not_up_yet_is_waited_for() {
        let mut failed = state("databases", &[], OLD, ("False", "ReconciliationFailed"));
        failed.last_attempted = Some(NEW.to_owned());
        failed.conditions[0].message = "failed calling webhook: dial tcp: connect: connection refused".into();
        assert!(matches!(judge(&[state("root", &[], NEW, READY), failed.clone()]), Next::Wait { .. }));
        failed.conditions[0].message = "admission webhook denied the request: instances must be positive".into();
        assert!(matches!(judge(&[state("root", &[], NEW, READY), failed]), Next::Done(FluxOutcome::Failed { .. })));
    }

    #[test]
    fn what_waits_for_done_dependencies_is_asked_to_look_again() {
        let states = [
            state("root", &[], NEW, READY),
            state("a", &[], NEW, READY),
            state("b", &["a"], OLD, WAITING),
            state("c", &["b"], OLD, WAITING),
        ];
        assert!(matches!(judge(&states), Next::Wait { poke, .. } if poke == ["b"]));
    }

    #[test]
    fn a_suspended_one_ends_it_when_nothing_else_can_go_on() {
        let mut suspended = state("b", &["a"], OLD, READY);
        suspended.suspended = true;
        let tail = state("c", &["b"], OLD, WAITING);
        let blocked = judge(&[state("root", &[], NEW, READY), state("a", &[], NEW, READY), suspended.clone(), tail.clone()]);
        assert!(matches!(blocked, Next::Done(FluxOutcome::Suspended { stands_at: Some(at), .. }) if at == OLD));
        let going_on = judge(&[state("root", &[], NEW, READY), state("a", &[], OLD, ("Unknown", "Progressing")), suspended, tail]);
        assert!(matches!(going_on, Next::Wait { .. }));
    }

    #[test]
    fn the_job_that_failed_is_found_in_what_flux_says() {
        let message =
            "health check failed after 5s: failed early due to stalled resources: [Job/orders/orders-migration-0003-ab status: 'Failed']";
        assert_eq!(named_job(message), Some(("orders".into(), "orders-migration-0003-ab".into())));
        assert_eq!(named_job("kustomize build failed"), None);
    }
}
