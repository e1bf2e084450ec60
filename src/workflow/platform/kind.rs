//! The kind platform: Flux applies the tree, CloudNativePG runs and restores the databases, and every claim is about what happened in a cluster.

mod up;

use super::{Answer, Ended, Platform, Promoted, Recovery, RecoveryFailure, RecoveryOrder, Stopped};
use crate::clock;
use crate::database::Address;
use crate::gitops::tree::NAMESPACE;
use crate::gitops::{CommitId, Repository};
use crate::platform::kind::application::Application;
use crate::platform::kind::flux::{self, FluxOutcome, FluxReconciliation};
use crate::platform::kind::{Forward, KindCluster, KindError, KubeClient, Secrets, bucket, cnpg, diagnostics, push, recovery};
use crate::platform::local::Verification;
use crate::platform::local::application::Traffic;
use crate::platform::local::reconciler::Reconciled;
use crate::platform::observation::Observation;
use crate::recovery::{Lost, Observer, commits_after};
use crate::wait::{Poll, Wait};
use crate::workflow::Failure;
use crate::workflow::faults::Harm;
use crate::workflow::outcome::chain;
use futures::future::LocalBoxFuture;
use jiff::Timestamp;
use serde_json::json;
use std::path::PathBuf;
use std::time::Duration;
use turnback_core::drill::ReasonCode;
use turnback_core::evidence::Reached;
use turnback_core::recovery::{ArchiveFacts, BaseBackup, Lsn, RecoveryPoint, Target};

pub use up::KindSettings;
pub(super) use up::up;

/// How long Flux may take to apply a revision.
const RECONCILE_LIMIT: Duration = Duration::from_secs(180);
/// How long a recovery may take, from its commit to a Cluster that is ready.
const RECOVERY_LIMIT: Duration = Duration::from_secs(600);
/// How long a backup may take.
const BACKUP_LIMIT: Duration = Duration::from_secs(600);
/// How long an error that health shows may take to reach the application's log.
const LOG_LIMIT: Duration = Duration::from_secs(10);
/// What Flux makes the migrations with.
const MIGRATIONS: &str = "orders-migrations";

/// The kind platform of one drill.
pub(super) struct Kind {
    cluster: KindCluster,
    client: KubeClient,
    secrets: Secrets,
    repository: Repository,
    git: Forward,
    application: Application,
    with_application: bool,
    database: String,
    source: &'static str,
    primary: (Address, Forward),
    restored: Option<(Address, Forward)>,
    /// The Cluster that is being restored, and what was seen of it.
    recovering: String,
    reconciliations: Vec<FluxReconciliation>,
    recovery_log: Option<String>,
    kubeconfig: PathBuf,
    kubectl: PathBuf,
}

fn platform(error: &KindError) -> Failure {
    match error {
        KindError::TimedOut { .. } => Failure::because(ReasonCode::DeadlineExceeded, chain(error)),
        _ => Failure::platform(error),
    }
}

impl Kind {
    async fn apply(&mut self, commit: &CommitId) -> Result<Reconciled, Failure> {
        let started = clock::now();
        push::push(&self.repository, &self.git).await.map_err(|e| platform(&e))?;
        let seen = flux::reconcile(&self.client, commit, RECONCILE_LIMIT).await.map_err(|e| platform(&e))?;
        self.reconciled(seen, commit, started)
    }

    /// What Flux made of a commit, in the words that every platform uses.
    fn reconciled(&mut self, seen: FluxReconciliation, commit: &CommitId, started: Timestamp) -> Result<Reconciled, Failure> {
        let outcome = seen.outcome.clone();
        self.reconciliations.push(seen);
        let revision = match outcome {
            FluxOutcome::Applied => commit.clone(),
            FluxOutcome::Suspended { object, stands_at } => {
                let stands_at = stands_at.as_deref().and_then(|revision| CommitId::parse(revision.rsplit(':').next()?));
                stands_at.ok_or_else(|| {
                    Failure::because(ReasonCode::PlatformFailed, format!("{object} is suspended and has applied nothing yet"))
                })?
            }
            FluxOutcome::Failed { kustomization, reason, message, job_log } => {
                let log = job_log.map_or_else(String::new, |log| format!("; the Job wrote: {}", last_line(&log)));
                let text = format!("Flux could not apply {} at {}: {reason}: {message}{log}", kustomization, commit.short());
                let code = if kustomization == MIGRATIONS { ReasonCode::ChangeNotApplied } else { ReasonCode::PlatformFailed };
                return Err(Failure::because(code, text));
            }
            FluxOutcome::TimedOut { last } => {
                let text = format!("Flux has not applied {} within {} s: {last}", commit.short(), RECONCILE_LIMIT.as_secs());
                return Err(Failure::because(ReasonCode::DeadlineExceeded, text));
            }
        };
        Ok(Reconciled { revision, applied: Vec::new(), started, ended: clock::now(), log: String::new() })
    }

    /// A look at the application. Health and metrics come at once, its log by way of the node; where health shows an error, the log is given a
    /// moment to show it too.
    async fn observe(&mut self) -> Result<Observation, Failure> {
        let mut seen = self.application.observe().await;
        if !seen.healthy && seen.log_errors.is_empty() {
            let application = &self.application;
            let look = async || {
                let again = application.observe().await;
                Ok::<_, KindError>(if again.healthy || !again.log_errors.is_empty() {
                    Poll::Ready(again)
                } else {
                    Poll::NotYet(format!("health {:?}, no error line in the log yet", again.status))
                })
            };
            if let Ok(again) =
                Wait::new("the application's log shows the error", LOG_LIMIT).every(Duration::from_millis(250)).until(look).await
            {
                seen = again;
            }
        }
        Ok(seen)
    }

    async fn take_backup(&mut self, label: &str) -> Result<BaseBackup, Failure> {
        let mut observer = Observer::connect(self.primary.0.options()).await.map_err(|e| Failure::platform(&e))?;
        let before = observer.position().await.map_err(|e| Failure::platform(&e))?;
        let name = format!("{}-{label}", self.source);
        let taken = cnpg::backup(&self.client, NAMESPACE, self.source, &name, BACKUP_LIMIT).await.map_err(|error| match error {
            KindError::TimedOut { .. } => Failure::because(ReasonCode::BackupNotCompleted, chain(&error)),
            other => Failure::platform(&other),
        })?;
        let Some(backup) = taken.backup else {
            let text = format!("Backup {name} is {}: {}", taken.phase, taken.error.unwrap_or_else(|| "without a word why".to_owned()));
            return Err(Failure::because(ReasonCode::BackupNotCompleted, text));
        };
        // CNPG counts whole seconds; the primary's own clock around it is exact and errs towards a longer backup.
        let after = observer.position().await.map_err(|e| Failure::platform(&e))?;
        let bytes = self.stored(&backup.id).await.map_or(0, |stored| stored.iter().map(|object| object.bytes).sum());
        Ok(BaseBackup { begin_time: before.time, end_time: after.time, system_identifier: after.system_identifier, bytes, ..backup })
    }

    /// The objects of a base backup in the bucket.
    async fn stored(&self, backup: &str) -> Result<Vec<bucket::StoredObject>, KindError> {
        let within = format!("/base/{backup}/");
        let all = bucket::list(&self.cluster, &self.client).await?;
        Ok(all.into_iter().filter(|object| object.key.contains(&within)).collect())
    }

    async fn verify(&self, backup: &BaseBackup) -> Result<Verification, Failure> {
        let stored = self.stored(&backup.id).await.map_err(|e| platform(&e))?;
        let has = |name: &str| stored.iter().any(|object| object.key.rsplit('/').next().is_some_and(|file| file.starts_with(name)));
        let missing: Vec<_> = ["backup.info", "data.tar"].into_iter().filter(|name| !has(name)).collect();
        let bytes: u64 = stored.iter().map(|object| object.bytes).sum();
        let output = if missing.is_empty() {
            format!(
                "complete in the object store: {} objects, {} kB; that its content is whole shows in restoring it",
                stored.len(),
                bytes / 1024
            )
        } else {
            format!("{} of base backup {} not in the object store", missing.join(" and "), backup.id)
        };
        Ok(Verification { ok: missing.is_empty(), output, damaged_file: missing.first().map(|name| (*name).to_owned()) })
    }

    async fn archive(&self, last_commit: (Timestamp, Lsn)) -> Result<ArchiveFacts, Failure> {
        let all = bucket::list(&self.cluster, &self.client).await.map_err(|e| platform(&e))?;
        let within = format!("{}/wals/", self.source);
        let mut segments: Vec<_> =
            all.iter().filter(|object| object.key.contains(&within)).filter_map(|object| segment(&object.key)).collect();
        segments.sort();
        let mut observer = Observer::connect(self.primary.0.options()).await.map_err(|e| Failure::platform(&e))?;
        let segment_bytes = observer.segment_bytes().await.map_err(|e| Failure::platform(&e))?;
        Ok(ArchiveFacts { segments, segment_bytes, last_commit: Some(last_commit) })
    }

    async fn recover(&mut self, order: RecoveryOrder<'_>) -> Recovery {
        order.cluster.clone_into(&mut self.recovering);
        let verification = match self.verify(&order.plan.backup).await {
            Ok(verification) => verification,
            Err(failure) => return Recovery::failed(failure),
        };
        if !verification.ok {
            return Recovery { verification: Some(verification), stopped: None };
        }
        let stopped = self.follow(&order).await;
        Recovery { verification: Some(verification), stopped: Some(stopped) }
    }

    /// Hands the commit to Flux and follows the recovery Job, whichever has something to say first.
    async fn follow(&mut self, order: &RecoveryOrder<'_>) -> Result<Stopped, RecoveryFailure> {
        let started = clock::now();
        let client = self.client.clone();
        push::push(&self.repository, &self.git).await.map_err(|e| platform(&e))?;
        let mut following = Box::pin(recovery::follow_recovery(&client, NAMESPACE, order.cluster, RECOVERY_LIMIT));
        let mut reconciling = Box::pin(flux::reconcile(&client, order.declared, RECOVERY_LIMIT));
        let (followed, reconciled) = tokio::select! {
            biased;
            followed = &mut following => {
                let followed = followed.map_err(|e| platform(&e))?;
                // A recovery that failed never becomes healthy: Flux is not waited for.
                let reconciled = if followed.is_ready() { Some((&mut reconciling).await) } else { None };
                (followed, reconciled)
            }
            reconciled = &mut reconciling => {
                let failed = match &reconciled {
                    Ok(seen) => !matches!(seen.outcome, FluxOutcome::Applied),
                    Err(_) => true,
                };
                if failed {
                    drop(following);
                    let seen = reconciled.map_err(|e| platform(&e))?;
                    self.reconciled(seen, order.declared, started)?;
                    return Err(Failure::because(ReasonCode::PlatformFailed, "the recovery's commit was not applied").into());
                }
                ((&mut following).await.map_err(|e| platform(&e))?, Some(reconciled))
            }
        };
        drop((following, reconciling));
        self.recovery_log = Some(followed.log.clone());
        if let Some(reconciled) = reconciled {
            let seen = reconciled.map_err(|e| platform(&e))?;
            self.reconciled(seen, order.declared, started)?;
        }
        if !followed.is_ready() {
            return Err(recovery_failed(&followed));
        }
        let Some(lsn) = followed.redo_done else {
            let failure = Failure::because(ReasonCode::PlatformFailed, "the recovery Job's log does not say where replay ended");
            return Err(RecoveryFailure { failure, check: None, log: Some(followed.log) });
        };
        let (marker_present, sentinel_absent) = stopped_where(lsn, followed.stopping_line.as_deref(), order.point);
        let reached = Reached {
            pause_state: "promoted at the target".to_owned(),
            lsn,
            last_commit: followed.last_completed_transaction.as_ref().and_then(|(_, time)| *time),
            marker_present: Some(marker_present),
            sentinel_absent: Some(sentinel_absent),
        };
        let immediate = order.plan.target.target == Target::Immediate;
        let said = followed.stopping_line.clone().unwrap_or_else(|| format!("replay ended at {lsn} without naming its target"));
        Ok(Stopped { reached, at_target: followed.stopping_line.is_some() || immediate, said, parts: followed.parts })
    }

    async fn promote(&mut self) -> Result<Promoted, RecoveryFailure> {
        let (address, forward) =
            cnpg::superuser(&self.client, NAMESPACE, &self.recovering, &self.database).await.map_err(|e| platform(&e))?;
        let mut observer = Observer::connect(address.options()).await.map_err(|e| Failure::platform(&e))?;
        let position = observer.position().await.map_err(|e| Failure::platform(&e))?;
        let promoted = Promoted {
            address: address.clone(),
            timeline: position.timeline.unwrap_or_default(),
            system_identifier: position.system_identifier,
            parts: Vec::new(),
            note: json!({ "cluster": self.recovering }),
        };
        self.restored = Some((address, forward));
        Ok(promoted)
    }

    async fn end(self, keep: bool) -> Ended {
        let mut ended = Ended::default();
        ended.keep_history(&self.repository);
        match serde_json::to_string_pretty(&self.reconciliations) {
            Ok(text) => ended.files.push(("flux/reconciliations.json".to_owned(), text)),
            Err(error) => ended.lost.push(("flux/reconciliations.json".to_owned(), error.to_string())),
        }
        if let Some(log) = &self.recovery_log {
            ended.files.push(("logs/recovery.log".to_owned(), log.clone()));
        }
        let mut secrets = self.secrets.values();
        let superusers = std::iter::once(&self.primary).chain(&self.restored);
        secrets.extend(superusers.filter_map(|(address, _)| password(address.url())));
        let gathered = diagnostics::gather(&self.client, &diagnostics::NAMESPACES, &secrets).await;
        ended.files.extend(gathered.into_iter().map(|(name, text)| (format!("cluster/{name}"), text)));
        if keep {
            let kubectl = format!("{} --kubeconfig {}", self.kubectl.display(), self.kubeconfig.display());
            ended.kept.push(format!("{kubectl} --namespace {NAMESPACE} get clusters,backups,jobs,pods"));
            for cluster in std::iter::once(self.source).chain(self.restored.is_some().then_some(self.recovering.as_str())) {
                ended.kept.push(format!("{kubectl} --namespace {NAMESPACE} exec -it {cluster}-1 -c postgres -- psql {}", self.database));
            }
            return ended;
        }
        match self.cluster.delete().await {
            Ok(()) => ended.removed.push(format!("the kind cluster {}", self.cluster.name())),
            Err(error) => ended.left.push(format!("the kind cluster {}: {}", self.cluster.name(), chain(&error))),
        }
        ended
    }
}

/// Whether the marker was replayed and the sentinel was not. `lsn` is where the last record begins that replay looked at (“redo done at”): that
/// record itself was replayed unless replay stopped before it. A transaction's commit record begins where its message ends, or just behind.
fn stopped_where(lsn: Lsn, stopping: Option<&str>, point: &RecoveryPoint) -> (bool, bool) {
    let before = stopping.filter(|line| line.contains("stopping before"));
    let at = before.and_then(|line| line.split_once("of transaction ")?.1.split(|c: char| !c.is_ascii_digit()).next()?.parse::<u32>().ok());
    // The log has the low half of the 64-bit id.
    let stopped_before = |xid: u64| at == Some((xid & 0xFFFF_FFFF) as u32);
    let (marker, sentinel) = (&point.marker, &point.sentinel);
    if stopped_before(marker.xid) {
        (false, true)
    } else if stopped_before(sentinel.xid) {
        (true, true)
    } else if before.is_some() {
        (lsn > marker.lsn, lsn <= sentinel.lsn)
    } else {
        (lsn >= marker.lsn, lsn < sentinel.lsn)
    }
}

/// Why a recovery Job did not get to its target, by what PostgreSQL or barman said last.
fn recovery_failed(seen: &recovery::Recovery) -> RecoveryFailure {
    let fatal = seen.fatal.clone().unwrap_or_else(|| "the recovery ended without a word why".to_owned());
    let completed = seen.last_completed_transaction.as_ref().map_or_else(String::new, |(line, _)| format!("; {line}"));
    let text = format!("{fatal}{completed}");
    let missing = ["requested WAL segment", "could not locate required checkpoint record"].iter().any(|words| fatal.contains(words));
    let code = if fatal.contains("recovery ended before configured recovery target was reached") {
        ReasonCode::TargetNotReached
    } else if missing {
        ReasonCode::WalMissing
    } else if fatal.contains("backup") {
        ReasonCode::BackupDamaged
    } else {
        ReasonCode::PlatformFailed
    };
    RecoveryFailure { failure: Failure::because(code, text), check: None, log: Some(seen.log.clone()) }
}

/// The WAL segment that an object of the bucket holds: `…/wals/0000000100000000/000000010000000000000003.gz`.
fn segment(key: &str) -> Option<String> {
    let file = key.rsplit('/').next()?;
    let name = file.split('.').next()?;
    (name.len() == 24 && name.bytes().all(|byte| byte.is_ascii_hexdigit()) && !file.contains(".backup")).then(|| name.to_owned())
}

/// The password in a URL, as it stands there: CNPG makes them of letters and digits alone.
fn password(url: &str) -> Option<String> {
    let (credentials, _) = url.split_once("://")?.1.rsplit_once('@')?;
    Some(credentials.split_once(':')?.1.to_owned())
}

fn last_line(log: &str) -> &str {
    log.lines().rfind(|line| !line.trim().is_empty()).unwrap_or_default()
}

impl Platform for Kind {
    fn repository(&self) -> &Repository {
        &self.repository
    }

    fn has_application(&self) -> bool {
        self.with_application
    }

    fn primary(&self) -> Address {
        self.primary.0.clone()
    }

    fn apply<'a>(&'a mut self, commit: &'a CommitId) -> Answer<'a, Reconciled> {
        Box::pin(self.apply(commit))
    }

    fn observe(&mut self) -> Answer<'_, Observation> {
        Box::pin(self.observe())
    }

    fn start_traffic(&mut self) -> Answer<'_, Traffic> {
        Box::pin(async { Ok(self.application.traffic()) })
    }

    fn take_backup<'a>(&'a mut self, label: &'a str) -> Answer<'a, BaseBackup> {
        Box::pin(self.take_backup(label))
    }

    fn whole(&self) -> &'static str {
        "its description and its data in the object store"
    }

    fn verify<'a>(&'a self, backup: &'a BaseBackup) -> Answer<'a, Verification> {
        Box::pin(self.verify(backup))
    }

    fn loss<'a>(&'a self, point: &'a RecoveryPoint, _to: Lsn) -> LocalBoxFuture<'a, Option<Lost>> {
        Box::pin(async move { commits_after(self.primary.0.options(), point).await.ok().flatten() })
    }

    fn archive(&self, last_commit: (Timestamp, Lsn)) -> Answer<'_, ArchiveFacts> {
        Box::pin(self.archive(last_commit))
    }

    fn recover<'a>(&'a mut self, order: RecoveryOrder<'a>) -> LocalBoxFuture<'a, Recovery> {
        Box::pin(self.recover(order))
    }

    fn promote(&mut self) -> LocalBoxFuture<'_, Result<Promoted, RecoveryFailure>> {
        Box::pin(self.promote())
    }

    fn suspend(&mut self) -> Answer<'_, ()> {
        Box::pin(async {
            for state in flux::states(&self.client).await.map_err(|e| platform(&e))? {
                flux::suspend(&self.client, &state.name, true).await.map_err(|e| platform(&e))?;
            }
            Ok(())
        })
    }

    fn harm_segment<'a>(&'a mut self, harm: Harm, segment: &'a str, at: u64) -> Answer<'a, ()> {
        Box::pin(async move {
            let all = bucket::list(&self.cluster, &self.client).await.map_err(|e| platform(&e))?;
            let Some(object) = all.iter().find(|object| self::segment(&object.key).as_deref() == Some(segment)) else {
                return Err(Failure::order(format!("segment {segment} is not in the bucket")));
            };
            self.harm(harm, object, at).await
        })
    }

    fn harm_backup<'a>(&'a mut self, harm: Harm, backup: &'a BaseBackup) -> Answer<'a, String> {
        Box::pin(async move {
            let stored = self.stored(&backup.id).await.map_err(|e| platform(&e))?;
            let Some(object) = stored.iter().max_by_key(|object| object.bytes) else {
                return Err(Failure::order("the backup holds no object to harm"));
            };
            self.harm(harm, object, object.bytes / 2).await?;
            Ok(object.key.clone())
        })
    }

    fn end(self: Box<Self>, keep: bool) -> LocalBoxFuture<'static, Ended> {
        Box::pin((*self).end(keep))
    }
}

impl Kind {
    async fn harm(&self, harm: Harm, object: &bucket::StoredObject, at: u64) -> Result<(), Failure> {
        // Objects are compressed: an offset of the original may lie beyond their end.
        let at = at.min(object.bytes / 2);
        let harmed = match harm {
            Harm::Missing => bucket::remove(&self.cluster, &self.client, &object.key).await,
            Harm::Flipped => bucket::flip(&self.cluster, &self.client, &object.key, at).await,
            Harm::Truncated => bucket::truncate(&self.cluster, &self.client, &object.key, object.bytes / 2).await,
        };
        harmed.map_err(|e| platform(&e))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use turnback_core::recovery::Marker;

    #[test]
    fn where_replay_stopped_is_told_to_the_transaction() {
        let marker = |xid, lsn| Marker { xid, lsn: Lsn(lsn) };
        let point = RecoveryPoint {
            name: "p".into(),
            restore_point: "p".into(),
            time: Timestamp::UNIX_EPOCH,
            lsn: Lsn(0x190),
            timeline: 1,
            system_identifier: "7".into(),
            marker: marker(748, 0x0F8),
            sentinel: marker((5 << 32) + 749, 0x1F8),
            sentinel_time: Timestamp::UNIX_EPOCH,
            segment: String::new(),
        };
        let stopped = |lsn, line| stopped_where(Lsn(lsn), Some(line), &point);
        // Just right: before the sentinel, and after the restore point that lies between the two.
        assert_eq!(stopped(0x1F8, "recovery stopping before commit of transaction 749, time 2026-11-21 04:50:26+00"), (true, true));
        assert_eq!(stopped(0x128, "recovery stopping at restore point \"p\""), (true, true));
        assert_eq!(stopped(0x0F8, "recovery stopping after commit of transaction 748, time 2026-11-21 04:50:26+00"), (true, true));
        // One transaction too early, and one too late.
        assert_eq!(stopped(0x0F8, "recovery stopping before commit of transaction 748, time 2026-11-21 04:50:26+00"), (false, true));
        assert_eq!(stopped(0x1F8, "recovery stopping after commit of transaction 749, time 2026-11-21 04:50:26+00"), (true, false));
        assert_eq!(stopped(0x300, "recovery stopping before commit of transaction 760, time 2026-11-21 04:50:27+00"), (true, false));
        assert_eq!(stopped_where(Lsn(0x50), None, &point), (false, true));
    }

    #[test]
    fn a_password_is_found_where_a_url_has_one() {
        assert_eq!(password("postgresql://postgres:s3cret@127.0.0.1:5432/orders?sslmode=disable").as_deref(), Some("s3cret"));
        assert_eq!(password("postgresql://postgres@127.0.0.1:5432/orders"), None);
    }

    #[test]
    fn segments_are_told_from_what_else_lies_beside_them() {
        let of = |key: &str| segment(key);
        let name = "000000010000000000000003";
        assert_eq!(of(&format!("backups/orders-production/wals/0000000100000000/{name}.gz")).as_deref(), Some(name));
        assert_eq!(of(&format!("backups/x/wals/0000000100000000/{name}")).as_deref(), Some(name));
        assert_eq!(of(&format!("backups/x/wals/0000000100000000/{name}.00000028.backup.gz")), None);
        assert_eq!(of("backups/x/wals/00000002.history.gz"), None);
    }
}
