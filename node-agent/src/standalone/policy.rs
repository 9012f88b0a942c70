//! A policy file: a tuning for this host alone, sized with the same code as the operator's.

use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kube::ResourceExt;
use nettune_crds::{
    InvalidTuning, NodeNetworkProfileSpec, NodeNetworkTuning, ProfileFacts, ProfileSysctl,
};
use nettune_offline::manifest::{self, ManifestError};
use nettune_offline::table::wrap;
use nettune_sizing::{NodeFacts, Policy, Sizes, Warning, size};
use rustix::fs::OFlags;

use crate::kernel::facts::Identity;
use crate::kernel::sysctl::Roots;
use crate::standalone::host::ClusterHints;
use nettune_reconcile::desired::{Revision, Source};

#[derive(Debug, Clone)]
pub struct Host {
    pub roots: Roots,
    pub identity: Arc<Identity>,
    pub hints: ClusterHints,
}

/// A policy sized for this host.
#[derive(Debug, Clone, PartialEq)]
pub struct SizedPolicy {
    /// The profile that an operator would write.
    pub spec: NodeNetworkProfileSpec,
    pub warnings: Vec<String>,
    pub facts: NodeFacts,
}

/// Why a policy file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    #[error("cannot read the policy {}", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the policy {} is larger than {MOST_BYTES} bytes", path.display())]
    TooLarge { path: PathBuf },
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    #[error("the policy {} contains {tunings} tunings; a host can have only one", path.display())]
    Several { path: PathBuf, tunings: usize },
    #[error("policy {} is invalid", path.display())]
    Tuning {
        path: PathBuf,
        #[source]
        source: InvalidTuning,
    },
}

/// The API server accepts objects of up to 1.5 MiB.
const MOST_BYTES: u64 = 1 << 20;

/// The uid of profiles from a policy. The API server's are UUIDs.
const UID: &str = "policy-file";

/// A tuning from a file.
#[derive(Debug, Clone, PartialEq)]
pub struct PolicyFile {
    pub tuning: NodeNetworkTuning,
    /// Fields of the spec that are ignored because they mean nothing on a single host.
    pub ignored_fields: Vec<&'static str>,
}

/// Fields that select nodes, or order changes between them.
const ABOUT_MANY_NODES: [&str; 4] = ["nodeSelector", "priority", "rollout", "resize"];

impl PolicyFile {
    /// Reads a file with one tuning.
    ///
    /// # Errors
    /// With the file and the field, when it cannot be used.
    pub fn read(path: &Path) -> Result<Self, PolicyError> {
        let text = text(path)?;
        Self::parse(path, &text)
    }

    /// Parses the file's text; `path` is for errors.
    ///
    /// # Errors
    /// With the file and the field, when it cannot be used.
    pub fn parse(path: &Path, text: &str) -> Result<Self, PolicyError> {
        let mut tunings = manifest::tunings(path, text)?;
        let (Some(tuning), true) = (tunings.pop(), tunings.is_empty()) else {
            return Err(PolicyError::Several {
                path: path.to_owned(),
                tunings: tunings.len() + 1,
            });
        };
        let raw: Vec<serde_json::Value> =
            manifest::objects_of_kind(path, text, "NodeNetworkTuning", manifest::Size::Small)?;
        let is_given = |field: &&str| {
            let given = raw.iter().find_map(|object| object.get("spec")?.get(field));
            given.is_some_and(|value| !value.is_null())
        };
        let ignored_fields = ABOUT_MANY_NODES.into_iter().filter(is_given).collect();
        Ok(Self {
            tuning,
            ignored_fields,
        })
    }

    /// What it is sized for, in the format of `kubectl nettune plan`.
    #[must_use]
    pub fn describe(&self, node: &str, sized: &SizedPolicy, hints: ClusterHints) -> String {
        let NodeFacts {
            memory,
            cores,
            kernel,
            ipv6,
            ..
        } = &sized.facts;
        let ClusterHints { nodes, pods, cloud } = hints;
        let kernel = kernel.map_or_else(|| "unknown".to_owned(), |kernel| kernel.to_string());
        let nodes = match nodes {
            1 => "a single node".to_owned(),
            nodes => format!("one of {nodes} nodes"),
        };
        let mut facts = format!(
            "{nodes} with up to {pods} pods; kernel {kernel}; {} MiB of memory; \
             {cores} cores",
            memory >> 20
        );
        if !ipv6 {
            facts += "; no IPv6";
        }
        if cloud {
            facts += "; at a cloud provider";
        }
        let (tuning, mode) = (&sized.spec.tuning, self.tuning.spec.mode);
        let mut text = String::new();
        wrap(
            &mut text,
            &format!("{node}, tuning {tuning}, mode {mode:?}"),
            "",
            "  ",
        );
        wrap(&mut text, &facts, "  ", "  ");
        if !self.ignored_fields.is_empty() {
            let fields = self.ignored_fields.join(", ");
            let passed = format!("ignored without a cluster: {fields}");
            wrap(&mut text, &passed, "  ", "  ");
        }
        text.push('\n');
        text
    }

    ///
    /// # Errors
    /// When the policy is invalid, which parsing has ruled out.
    pub fn size(&self, host: &Host, seen: &ProfileFacts) -> Result<SizedPolicy, InvalidTuning> {
        let policy = Policy::try_from(&self.tuning.spec)?;
        let facts = host.hints.node(&host.roots, &host.identity, seen);
        let Sizes { sysctls, warnings } = size(&policy, &host.hints.cluster(), &facts);
        Ok(SizedPolicy {
            spec: NodeNetworkProfileSpec {
                tuning: self.tuning.name_any(),
                mode: self.tuning.spec.mode,
                release_policy: self.tuning.spec.release_policy,
                sysctls: sysctls.iter().map(ProfileSysctl::from).collect(),
                release: false,
                canary: false,
            },
            warnings: warnings.into_iter().map(|Warning(text)| text).collect(),
            facts,
        })
    }
}

impl SizedPolicy {
    /// The profile's next version after `last`, or `last` itself if only reasons differ: a new version
    /// would make `ApplyOnce` apply again.
    #[must_use]
    pub fn after(&self, last: Option<&Arc<Source>>) -> Arc<Source> {
        let last = last.filter(|last| last.revision.uid == UID);
        if let Some(last) = last
            && wants(&last.spec).is_some_and(|wanted| wanted == without_reasons(self.spec.clone()))
        {
            return Arc::clone(last);
        }
        let generation = last.map_or(1, |last| last.revision.generation.saturating_add(1));
        Arc::new(Source {
            revision: Revision {
                uid: UID.to_owned(),
                generation,
            },
            spec: serde_json::to_value(&self.spec).unwrap_or_default(),
        })
    }
}

fn wants(spec: &serde_json::Value) -> Option<NodeNetworkProfileSpec> {
    serde_json::from_value(spec.clone())
        .ok()
        .map(without_reasons)
}

fn without_reasons(mut spec: NodeNetworkProfileSpec) -> NodeNetworkProfileSpec {
    for sysctl in &mut spec.sysctls {
        sysctl.reason.clear();
    }
    spec
}

fn text(path: &Path) -> Result<String, PolicyError> {
    let failed = |source| PolicyError::Read {
        path: path.to_owned(),
        source,
    };
    let mut text = String::new();
    // A pipe in its place must not block the agent.
    OpenOptions::new()
        .read(true)
        .custom_flags(OFlags::NONBLOCK.bits().cast_signed())
        .open(path)
        .and_then(|file| file.take(MOST_BYTES + 1).read_to_string(&mut text))
        .map_err(failed)?;
    if text.len() as u64 > MOST_BYTES {
        return Err(PolicyError::TooLarge {
            path: path.to_owned(),
        });
    }
    Ok(text)
}
