//! Pushing a local repository's branch to the cluster's Git server, through a forwarded port.

use super::{Forward, KindError};
use crate::gitops::{BRANCH, CommitId, Repository};
use crate::wait::{Poll, Wait, WaitError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// The repository on the server.
const PATH: &str = "fleet.git";
/// How long the server may take to answer for the first time, and a push altogether.
const PUSHED: Duration = Duration::from_secs(60);

/// Where the cluster itself finds the repository.
pub const URL: &str = "http://git-server.git-server.svc.cluster.local/fleet.git";

/// Pushes the branch's head and returns it. A server that does not answer yet is waited for; one that refuses is not.
///
/// # Errors
/// When the server refuses the commit, for example because its branch holds commits that the local one does not, or stays silent.
pub async fn push(repository: &Repository, forward: &Forward) -> Result<CommitId, KindError> {
    let head = repository.head().map_err(|error| KindError::Push { revision: BRANCH.to_owned(), problem: error.to_string() })?;
    let url = format!("http://{}/{PATH}", forward.address());
    let look = async || {
        let (path, url) = (repository.path().to_owned(), url.clone());
        let pushed = tokio::task::spawn_blocking(move || once(&path, &url)).await;
        match pushed {
            Ok(Ok(())) => Ok(Poll::Ready(())),
            Ok(Err(Failed::Passing(status))) => Ok(Poll::NotYet(forward.last_failure().unwrap_or(status))),
            Ok(Err(Failed::Refused(problem))) => Err(KindError::Push { revision: head.to_string(), problem }),
            Err(panicked) => Err(KindError::Push { revision: head.to_string(), problem: panicked.to_string() }),
        }
    };
    match Wait::new("the Git server takes the push", PUSHED).every(Duration::from_millis(500)).until(look).await {
        Ok(()) => Ok(head),
        Err(WaitError::Failed { source, .. }) => Err(source),
        Err(timed_out @ WaitError::TimedOut { .. }) => Err(KindError::Push { revision: head.to_string(), problem: timed_out.to_string() }),
    }
}

enum Failed {
    Passing(String),
    Refused(String),
}

fn once(path: &std::path::Path, url: &str) -> Result<(), Failed> {
    let class = |error: git2::Error| match error.class() {
        // The connection ended, or the server answered with what is not Git's.
        git2::ErrorClass::Net | git2::ErrorClass::Os | git2::ErrorClass::Http => Failed::Passing(error.message().to_owned()),
        _ => Failed::Refused(error.message().to_owned()),
    };
    let repository =
        git2::Repository::open_ext(path, git2::RepositoryOpenFlags::NO_SEARCH, std::iter::empty::<&std::path::Path>()).map_err(class)?;
    let refused = Arc::new(Mutex::new(None));
    let told = Arc::clone(&refused);
    let mut callbacks = git2::RemoteCallbacks::new();
    callbacks.push_update_reference(move |reference, status| {
        if let Some(status) = status {
            *told.lock().unwrap_or_else(PoisonError::into_inner) = Some(format!("{reference}: {status}"));
        }
        Ok(())
    });
    let mut options = git2::PushOptions::new();
    options.remote_callbacks(callbacks);
    let mut remote = repository.remote_anonymous(url).map_err(class)?;
    remote.push(&[format!("refs/heads/{BRANCH}:refs/heads/{BRANCH}")], Some(&mut options)).map_err(class)?;
    drop(options);
    let said = refused.lock().unwrap_or_else(PoisonError::into_inner).take();
    said.map_or(Ok(()), |said| Err(Failed::Refused(said)))
}
