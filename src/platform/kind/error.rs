//! What can go wrong between the harness and a cluster: each error names the operation, the object, the cause and what to do next.

use crate::wait::WaitError;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// Why an operation on the kind platform failed.
#[derive(Debug, thiserror::Error)]
pub enum KindError {
    /// No description of programs and images.
    #[error(
        "there is no kit in {}: `scripts/offline/kit build` makes it (half an hour the first time), or TURNBACK_KIT names another place; \
         published images from public registries are not supported yet",
        .0.display()
    )]
    NoKit(PathBuf),
    /// A description that cannot be used.
    #[error("cannot use the kit {}: {problem}; `scripts/offline/kit build` makes it anew", path.display())]
    Kit {
        /// The description.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// A program cannot be started.
    #[error("cannot start {program} to {operation}: {source}; install it, or look at `turnback doctor`")]
    Start {
        /// What for.
        operation: String,
        /// The program.
        program: String,
        /// What the system said.
        source: io::Error,
    },
    /// A program ended badly.
    #[error("cannot {operation}: {program} ended with {status}: {said}")]
    Program {
        /// What for.
        operation: String,
        /// The program.
        program: String,
        /// How it ended.
        status: String,
        /// The end of what it said.
        said: String,
    },
    /// The container engine does not have the node image.
    #[error("the container engine does not have the node image {0}: `scripts/offline/kit load` puts it there")]
    NoImage(String),
    /// A cluster that somebody else may own.
    #[error(
        "the kind cluster {cluster} stays: {why}; delete it by hand with `kind delete cluster --name {cluster}` if it is yours to delete"
    )]
    NotOurs {
        /// The cluster.
        cluster: String,
        /// Why it is not taken for ours.
        why: String,
    },
    /// The kubeconfig cannot be used.
    #[error("cannot use the kubeconfig {}: {problem}", path.display())]
    Kubeconfig {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// The API refused or did not answer.
    #[error("cannot {operation} {object}: {}", said(source))]
    Api {
        /// What was tried.
        operation: &'static str,
        /// On what.
        object: String,
        /// What the API or the client said.
        source: Box<kube::Error>,
    },
    /// A manifest that cannot be applied as it stands.
    #[error("{file}: {problem}")]
    Manifest {
        /// The file.
        file: String,
        /// What is wrong with it.
        problem: String,
    },
    /// An object that is not as it must be to go on.
    #[error("{object}: {problem}")]
    State {
        /// The object.
        object: String,
        /// What is wrong, and what to do.
        problem: String,
    },
    /// A deadline passed.
    #[error("{name}: not within {} s; last status: {last}", limit.as_secs_f32())]
    TimedOut {
        /// What was waited for.
        name: String,
        /// How long.
        limit: Duration,
        /// The last status seen.
        last: String,
    },
    /// A file or socket of this machine.
    #[error("cannot {operation} {}: {source}", path.display())]
    Local {
        /// What was tried.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The Git server did not take a push.
    #[error("cannot push {revision} to the cluster's Git server: {problem}")]
    Push {
        /// The commit.
        revision: String,
        /// What the server or libgit2 said.
        problem: String,
    },
}

impl KindError {
    /// Whether a later try may succeed with nothing done: the API is restarting, busy, or was not reached.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Api { source, .. } => is_passing(source),
            _ => false,
        }
    }
}

/// Turns a failure of the client into an error that says what was tried on what.
pub(super) fn api(operation: &'static str, object: impl ToString) -> impl FnOnce(kube::Error) -> KindError {
    let object = object.to_string();
    move |source| KindError::Api { operation, object, source: Box::new(source) }
}

/// A wait's end as an error of its own.
pub(super) fn waited(error: WaitError<KindError>) -> KindError {
    match error {
        WaitError::TimedOut { name, limit, last } => KindError::TimedOut { name, limit, last },
        WaitError::Failed { source, .. } => source,
    }
}

/// What the API said, without the client's own words around it.
pub(super) fn said(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => {
            let mut text = other.to_string();
            let mut cause = std::error::Error::source(other);
            while let Some(inner) = cause {
                let more = inner.to_string();
                if !text.contains(&more) {
                    text = format!("{text}: {more}");
                }
                cause = inner.source();
            }
            text
        }
    }
}

/// Whether the API may answer otherwise a moment later.
pub(super) fn is_passing(error: &kube::Error) -> bool {
    match error {
        kube::Error::Api(status) => {
            matches!(status.code, 429 | 500 | 502..=504) || (status.code == 409 && status.reason != "AlreadyExists")
        }
        kube::Error::HyperError(_) | kube::Error::Service(_) | kube::Error::ReadEvents(_) | kube::Error::UpgradeConnection(_) => true,
        _ => false,
    }
}

/// Whether the API said that the object is there already.
pub(super) fn is_there(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.reason == "AlreadyExists")
}

/// Whether the API said that there is no such object.
pub(super) fn is_missing(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 404)
}
