//! The desired state of one node: a profile as the agent understands it.

use std::collections::BTreeMap;
use std::sync::Arc;

use nettune_crds::{Mode, ProfileSysctl, ReleasePolicy};
use nettune_sizing::{DesiredValue, SysctlKey, keys};
use serde::{Deserialize, Serialize};

use crate::tables::limits::{HIGHEST, highest_of};

/// A profile as received; saved to be applied before the API server is reached.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Source {
    /// The profile object's uid and generation.
    #[serde(flatten)]
    pub revision: Revision,
    /// Its spec, as the API server sent it.
    pub spec: serde_json::Value,
}

/// One version of one profile object.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Revision {
    /// The object's uid: a profile that is recreated starts at generation 1 again.
    pub uid: String,
    pub generation: i64,
}

#[derive(Debug, Clone, PartialEq, Default)]
pub struct DesiredState {
    /// `None` if there is no profile.
    pub source: Option<Arc<Source>>,
    /// The tuning that the profile was made from.
    pub tuning: String,
    pub task: Task,
    /// What happens to a key that the profile no longer names.
    pub release_policy: ReleasePolicy,
    pub values: BTreeMap<SysctlKey, DesiredValue>,
    /// Entries that this agent cannot use.
    pub invalid: Vec<InvalidEntry>,
}

/// What is done with the keys of a profile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Task {
    /// There is no profile: nothing is written.
    #[default]
    Leave,
    /// Values are set, and set again after drift.
    Enforce,
    /// Values are set once for each generation of the profile; drift is reported and left.
    ApplyOnce,
    /// Values are reported; nothing is written.
    Observe,
    /// Original values are restored.
    Release,
}

/// An entry that is not a sysctl this agent may write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidEntry {
    /// Its name as given, truncated.
    pub name: String,
    pub message: String,
}

/// A profile of which nothing can be used.
#[derive(Debug, thiserror::Error)]
#[error("cannot read the profile's spec")]
pub struct MalformedProfile(#[source] serde_json::Error);

/// The most entries that are used; the schema allows no more.
const MOST_ENTRIES: usize = 128;

/// The most characters of a message, by the schema of the status.
const MOST_CHARACTERS: usize = 1024;

/// A spec whose entries are not parsed yet: one bad entry must not affect the others.
#[derive(Deserialize)]
struct Spec {
    #[serde(default)]
    tuning: String,
    #[serde(default)]
    mode: Mode,
    #[serde(default, rename = "releasePolicy")]
    release_policy: ReleasePolicy,
    #[serde(default)]
    sysctls: Vec<serde_json::Value>,
    #[serde(default)]
    release: bool,
}

impl DesiredState {
    /// Reads a profile. Entries that cannot be used are in [`DesiredState::invalid`].
    ///
    /// # Errors
    /// When the fields around the list are invalid: the caller keeps the last profile.
    pub fn read(source: Arc<Source>) -> Result<Self, MalformedProfile> {
        if !source.spec.is_object() {
            // A list would deserialize into a struct whose fields all have defaults.
            let error = serde::de::Error::custom("not an object");
            return Err(MalformedProfile(error));
        }
        let spec = Spec::deserialize(&source.spec).map_err(MalformedProfile)?;
        let task = match (spec.release, spec.mode) {
            (true, _) => Task::Release,
            (false, Mode::Enforce) => Task::Enforce,
            (false, Mode::ApplyOnce) => Task::ApplyOnce,
            (false, Mode::Observe) => Task::Observe,
        };
        let mut desired = Self {
            source: Some(source),
            tuning: spec.tuning,
            task,
            release_policy: spec.release_policy,
            ..Self::default()
        };
        for entry in spec.sysctls.iter().take(MOST_ENTRIES) {
            desired.take(entry);
        }
        if spec.sysctls.len() > MOST_ENTRIES {
            desired.invalid.truncate(MOST_ENTRIES - 1);
            desired.invalid.push(InvalidEntry {
                name: "sysctls".to_owned(),
                message: format!(
                    "the profile has {} entries; only the first {MOST_ENTRIES} are used",
                    spec.sysctls.len()
                ),
            });
        }
        Ok(desired)
    }

    #[must_use]
    pub fn revision(&self) -> Option<&Revision> {
        self.source.as_deref().map(|source| &source.revision)
    }

    /// The values that are compared with the kernel's; none without a profile or during a release.
    pub(crate) fn managed(&self) -> &BTreeMap<SysctlKey, DesiredValue> {
        static NONE: BTreeMap<SysctlKey, DesiredValue> = BTreeMap::new();
        match self.task {
            Task::Leave | Task::Release => &NONE,
            Task::Enforce | Task::ApplyOnce | Task::Observe => &self.values,
        }
    }

    /// Whether a key's original is restored.
    pub(crate) fn restores(&self, key: &SysctlKey) -> bool {
        self.task == Task::Release || self.gives_back(key)
    }

    /// Whether a key is no longer named and its original is restored.
    #[must_use]
    pub(crate) fn gives_back(&self, key: &SysctlKey) -> bool {
        self.release_policy == ReleasePolicy::Restore
            && matches!(self.task, Task::Enforce | Task::ApplyOnce)
            && !self.values.contains_key(key)
    }

    fn take(&mut self, entry: &serde_json::Value) {
        let name = || entry.get("name").and_then(|name| name.as_str());
        let parsed = ProfileSysctl::deserialize(entry)
            .map_err(|error| error.to_string())
            .and_then(|entry| entry.parse().map_err(|error| error.to_string()))
            .and_then(|(key, wanted)| in_range(key, wanted));
        let message = match parsed {
            Ok((key, _)) if self.values.contains_key(&key) => "listed twice".to_owned(),
            Ok((key, wanted)) => {
                self.values.insert(key, wanted);
                return;
            }
            Err(message) => message,
        };
        self.invalid.push(InvalidEntry {
            name: name().unwrap_or("(no name)").chars().take(128).collect(),
            // It may quote the entry, which has any length.
            message: message.chars().take(MOST_CHARACTERS).collect(),
        });
    }
}

/// Limits must be numbers: they are compared with each other and with the kernel's.
fn in_range(key: SysctlKey, wanted: DesiredValue) -> Result<(SysctlKey, DesiredValue), String> {
    let (least, most) = if key == keys::NF_CONNTRACK_MAX || key == keys::NF_CONNTRACK_BUCKETS {
        (1, HIGHEST)
    } else if let Some(most) = highest_of(&key) {
        (0, most)
    } else {
        return Ok((key, wanted));
    };
    let value = wanted.value();
    match value.as_number() {
        Some(number) if (least..=most).contains(&number) => Ok((key, wanted)),
        Some(0) => Err("0 means unlimited, which nettune never sets".to_owned()),
        _ => Err(format!(
            "must be an integer from {least} to {most}, not {value}"
        )),
    }
}

/// The desired value of a key.
pub(crate) fn in_words(wanted: &DesiredValue) -> String {
    match wanted {
        DesiredValue::Exact(value) => value.to_string(),
        DesiredValue::AtLeast(bounds) => format!("at least {}", bounds.floor()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(spec: serde_json::Value) -> Result<DesiredState, MalformedProfile> {
        let revision = Revision {
            uid: "u".into(),
            generation: 1,
        };
        DesiredState::read(Arc::new(Source { revision, spec }))
    }

    #[test]
    fn invalid_entry_is_reported_and_others_are_used() {
        let desired = read(json!({"tuning": "t", "sysctls": [
            {"name": "kernel.panic", "rule": "Exact", "value": "1"},
            {"name": "net.core.somaxconn", "rule": "Exact", "value": 5},
            {"name": "net.core.somaxconn", "rule": "Exact", "value": "4096"},
            {"name": "net.core.somaxconn", "rule": "Exact", "value": "8192"},
            {"name": "net.netfilter.nf_conntrack_max", "rule": "AtLeast", "value": "0"},
            {"name": "net.ipv4.neigh.default.gc_thresh3", "rule": "Exact", "value": "2147483648"},
            "nonsense",
        ]}))
        .unwrap();
        let taken: Vec<_> = desired.values.keys().map(SysctlKey::name).collect();
        assert_eq!(taken, ["net.core.somaxconn"]);
        assert_eq!(
            desired.values.values().next(),
            Some(&DesiredValue::exactly(4096))
        );
        let names: Vec<_> = desired
            .invalid
            .iter()
            .map(|entry| entry.name.as_str())
            .collect();
        assert_eq!(
            names,
            [
                "kernel.panic",
                "net.core.somaxconn",
                "net.core.somaxconn",
                "net.netfilter.nf_conntrack_max",
                "net.ipv4.neigh.default.gc_thresh3",
                "(no name)"
            ]
        );
    }

    #[test]
    fn path_traversal_and_huge_texts_do_not_affect_other_entries() {
        let long = "x".repeat(1 << 20);
        let entry = |name: &str| json!({"name": name, "rule": "Exact", "value": "1"});
        let desired = read(json!({"sysctls": [
            entry("net.core/../../kernel.panic"),
            entry("net.core.somaxconn\nnet.core.rmem_max"),
            entry(&long),
            {"name": "net.core.rmem_max", "rule": long, "value": "1"},
            {"name": "net.core.wmem_max", "rule": "Exact", "value": long},
            {"name": "net.core.optmem_max", "rule": ["Exact"], "value": {"a": 1}},
            {"name": "net.core.somaxconn", "rule": "Exact", "value": "4096", "reason": long},
        ]}))
        .unwrap();
        let taken: Vec<_> = desired.values.keys().map(SysctlKey::name).collect();
        assert_eq!(taken, ["net.core.somaxconn"]);
        assert_eq!(desired.invalid.len(), 6);
        for entry in &desired.invalid {
            assert!(entry.name.len() <= 128 && entry.message.len() <= MOST_CHARACTERS);
        }
    }

    #[test]
    fn release_overrides_the_mode() {
        let desired = read(json!({"mode": "Observe", "release": true})).unwrap();
        assert_eq!(desired.task, Task::Release);
    }

    #[test]
    fn unknown_mode_is_an_error() {
        assert!(read(json!({"mode": "Wish"})).is_err());
        assert!(read(json!([])).is_err());
    }

    #[test]
    fn ten_thousand_entries_are_bounded() {
        let entry = |n| {
            let name = format!("net.ipv4.neigh.eth{n}.gc_stale_time");
            json!({"name": name, "rule": "Exact", "value": "1"})
        };
        let desired = read(json!({"sysctls": (0..10_000).map(entry).collect::<Vec<_>>()})).unwrap();
        assert_eq!(desired.values.len(), MOST_ENTRIES);
        assert!(desired.invalid[0].message.contains("10000"));

        let entries = vec![json!({"name": "x", "rule": "Exact", "value": "1"}); 10_000];
        let desired = read(json!({"sysctls": entries})).unwrap();
        assert_eq!(desired.invalid.len(), MOST_ENTRIES);
        let last = &desired.invalid[MOST_ENTRIES - 1].message;
        assert!(last.contains("10000"), "{last}");
    }

    #[test]
    fn conntrack_limit_of_zero_is_rejected_with_a_reason() {
        let entry =
            json!({"name": "net.netfilter.nf_conntrack_max", "rule": "Exact", "value": "0"});
        let desired = read(json!({"sysctls": [entry]})).unwrap();
        assert_eq!(
            desired.invalid[0].message,
            "0 means unlimited, which nettune never sets"
        );
    }
}
