//! Without a cluster: a policy file replaces the API server, and the log replaces the status.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use nettune_crds::conditions::{READY, RELEASED};
use nettune_crds::{NodeNetworkProfileStatus, PodLinks};
use nettune_runtime::error::chain;
use nettune_sizing::Mono;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tokio::signal::unix::Signal;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::agent::ProfileUpdate;
use crate::api::rate_limit::RateLimiter;
use crate::kernel::facts;
use crate::standalone::policy::{Host, PolicyError, PolicyFile, SizedPolicy};
use crate::status::NodeReport;
use nettune_reconcile::desired::Source;

/// How often the file is checked. A check takes a microsecond and notices every kind of change: a write,
/// a rename over it, a symbolic link in its path that was replaced, as in a mounted ConfigMap.
const LOOK: Duration = Duration::from_secs(1);

/// How often the host is sized again: its network may come up after the agent, and its pods do.
const RESIZE: Duration = Duration::from_secs(30);

/// The policy of this host, as last read.
#[derive(Debug)]
pub struct PolicyWatch {
    path: PathBuf,
    host: Host,
    metrics: PolicyMetrics,
    /// The file's version when it was last read.
    version: FileVersion,
    policy: Option<PolicyFile>,
    /// The last profile, of this process or an earlier one.
    last: Option<Arc<Source>>,
    pod_links: Option<PodLinks>,
    warnings: Vec<String>,
}

/// Identifies one version of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
enum FileVersion {
    File {
        device: u64,
        inode: u64,
        size: u64,
        modified: (i64, i64),
        changed: (i64, i64),
    },
    Absent,
    /// The error of stat(2).
    Unknown(String),
}

#[derive(Debug, Clone, Default)]
pub struct PolicyMetrics {
    loads: Family<ResultLabel, Counter>,
    current: Gauge<i64, AtomicI64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultLabel {
    result: &'static str,
}

impl PolicyMetrics {
    #[must_use]
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let registry = registry.sub_registry_with_prefix("nettune");
        registry.register(
            "agent_policy_loads",
            "Reads of the policy file",
            metrics.loads.clone(),
        );
        registry.register(
            "agent_policy_current",
            "1 if the present policy file is applied, 0 if an earlier version is kept",
            metrics.current.clone(),
        );
        metrics
    }

    fn loaded(&self, ok: bool) {
        let result = if ok { "ok" } else { "failed" };
        self.loads.get_or_create(&ResultLabel { result }).inc();
        self.current.set(ok.into());
    }
}

impl PolicyWatch {
    /// A policy file that is not read yet. `last` is the profile of an earlier process.
    #[must_use]
    pub fn new(
        path: PathBuf,
        host: Host,
        last: Option<Arc<Source>>,
        metrics: PolicyMetrics,
    ) -> Self {
        Self {
            path,
            host,
            metrics,
            version: FileVersion::Absent,
            policy: None,
            last,
            pod_links: None,
            warnings: Vec::new(),
        }
    }

    /// Whether an earlier process has saved a profile.
    #[must_use]
    pub fn remembers(&self) -> bool {
        self.last.is_some()
    }

    /// Reads the file and returns its profile. An unusable file changes nothing.
    ///
    /// # Errors
    /// With the file and the field, when it cannot be used.
    pub fn load(&mut self) -> Result<ProfileUpdate, PolicyError> {
        // Before reading: a write in between is then read again.
        self.version = self.look();
        let read = PolicyFile::read(&self.path);
        self.metrics.loaded(read.is_ok());
        let policy = read?;
        let path = self.path.display().to_string();
        let tuning = policy.tuning.metadata.name.as_deref().unwrap_or_default();
        tracing::info!(path, tuning, mode = ?policy.tuning.spec.mode, "read the policy");
        if !policy.ignored_fields.is_empty() {
            let fields = policy.ignored_fields.join(", ");
            tracing::warn!(
                path,
                tuning,
                fields,
                "ignored policy fields that only apply to a cluster"
            );
        }
        let update = self.update(&policy);
        self.policy = Some(policy);
        update
    }

    fn update(&mut self, policy: &PolicyFile) -> Result<ProfileUpdate, PolicyError> {
        let sized = self.size(policy)?;
        for warning in &sized.warnings {
            if !self.warnings.contains(warning) {
                tracing::warn!(warning, "the policy has a warning");
            }
        }
        let source = sized.after(self.last.as_ref());
        self.warnings = sized.warnings;
        self.last = Some(Arc::clone(&source));
        Ok(ProfileUpdate::Profile(source))
    }

    fn size(&mut self, policy: &PolicyFile) -> Result<SizedPolicy, PolicyError> {
        let seen = facts::read(&self.host.roots, &self.host.identity, self.pod_links);
        self.pod_links = seen.pod_links;
        policy
            .size(&self.host, &seen)
            .map_err(|source| PolicyError::Tuning {
                path: self.path.clone(),
                source,
            })
    }

    fn look(&self) -> FileVersion {
        match fs::metadata(&self.path) {
            Ok(file) => FileVersion::File {
                device: file.dev(),
                inode: file.ino(),
                size: file.size(),
                modified: (file.mtime(), file.mtime_nsec()),
                changed: (file.ctime(), file.ctime_nsec()),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => FileVersion::Absent,
            Err(error) => FileVersion::Unknown(error.to_string()),
        }
    }

    /// Reads the file again whenever it changes or on SIGHUP, until shutdown.
    pub async fn run(
        mut self,
        updates: watch::Sender<Option<ProfileUpdate>>,
        mut hangups: Signal,
        shutdown: CancellationToken,
    ) {
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut sized = Instant::now();
        loop {
            let asked = tokio::select! {
                () = shutdown.cancelled() => return,
                _ = hangups.recv() => true,
                _ = looks.tick() => false,
            };
            let update = if asked {
                tracing::info!("received SIGHUP; reading the policy again");
                self.reload()
            } else if self.look() != self.version {
                self.reload()
            } else if sized.elapsed() >= RESIZE {
                self.resize()
            } else {
                continue;
            };
            sized = Instant::now();
            if let Some(update) = update {
                updates.send_if_modified(|last| {
                    let differs = last.as_ref() != Some(&update);
                    *last = Some(update);
                    differs
                });
            }
        }
    }

    fn reload(&mut self) -> Option<ProfileUpdate> {
        match self.load() {
            Ok(update) => Some(update),
            Err(error) => {
                let path = self.path.display().to_string();
                let error = chain(&error);
                match self.version {
                    FileVersion::Absent => tracing::warn!(
                        path,
                        "the policy file was deleted; the last policy stays in force"
                    ),
                    _ => tracing::error!(
                        path,
                        error,
                        "cannot use the policy; the last policy stays in force"
                    ),
                }
                None
            }
        }
    }

    fn resize(&mut self) -> Option<ProfileUpdate> {
        let policy = self.policy.take()?;
        let update = self.update(&policy);
        self.policy = Some(policy);
        update.ok()
    }
}

/// Logs each condition that changes, until shutdown; at most as often as a status would be written.
pub async fn report(
    mut reports: watch::Receiver<Option<Arc<NodeReport>>>,
    node: String,
    shutdown: CancellationToken,
) {
    let mut previous = NodeNetworkProfileStatus::default();
    let started = Instant::now();
    let mut limiter = RateLimiter::new(Mono::default());
    let mut next = Mono::default();
    loop {
        let changed = async {
            sleep_until(started + next.since(Mono::default())).await;
            reports.changed().await
        };
        tokio::select! {
            () = shutdown.cancelled() => return,
            found = changed => if found.is_err() { return },
        }
        let Some(found) = reports.borrow_and_update().clone() else {
            continue;
        };
        let now = Timestamp::try_from(SystemTime::now()).unwrap_or_default();
        let status = found.status(&previous, now);
        let mut has_changed = false;
        for condition in &status.conditions {
            let is_same = |other: &Condition| {
                (&other.type_, &other.status, &other.reason, &other.message)
                    == (
                        &condition.type_,
                        &condition.status,
                        &condition.reason,
                        &condition.message,
                    )
            };
            if !previous.conditions.iter().any(is_same) {
                let (type_, status) = (&condition.type_, &condition.status);
                let (reason, message) = (&condition.reason, &condition.message);
                if is_trouble(condition) {
                    tracing::warn!(
                        node,
                        condition = type_,
                        status,
                        reason,
                        message,
                        "condition changed"
                    );
                } else {
                    tracing::info!(
                        node,
                        condition = type_,
                        status,
                        reason,
                        message,
                        "condition changed"
                    );
                }
                has_changed = true;
            }
        }
        if has_changed {
            next = limiter.take(Mono::at(started.elapsed()));
        }
        previous = status;
    }
}

/// Whether a condition says that something is wrong: not ready, or any other that is True except for
/// Released.
fn is_trouble(condition: &Condition) -> bool {
    let healthy = [READY, RELEASED].contains(&condition.type_.as_str());
    condition.status == if healthy { "False" } else { "True" }
}
