//! The profile's status, made from what was found on the node.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use nettune_crds::conditions::{
    self, CONNTRACK_PRESSURE, CONTESTED, DRIFTED, NEIGHBOR_PRESSURE, READY, RELEASED, reasons,
};
use nettune_crds::{KeyState, NodeNetworkProfileStatus, ProfileFacts, SysctlStatus, TablesUse};

use crate::kernel::facts::Identity;
use crate::pressure::conditions::PressureCondition;
use crate::pressure::monitor::TableConditions;
use nettune_reconcile::desired::{Revision, Task};
use nettune_reconcile::outcome::KeyReport;

/// What was found on the node when nothing was left to do.
#[derive(Debug, Clone, PartialEq)]
pub struct NodeReport {
    /// The version of the profile that the agent works on.
    pub revision: Option<Revision>,
    pub task: Task,
    pub keys: Vec<KeyReport>,
    /// Whether a release has ended.
    pub released: bool,
    /// A newer version of the profile that cannot be read, and why.
    pub malformed: Option<(Revision, String)>,
    pub tables: Option<TablesUse>,
    pub table_conditions: TableConditions,
    pub facts: ProfileFacts,
    pub identity: Arc<Identity>,
}

/// The longest message of a key that the schema allows, in characters.
const MOST_CHARACTERS: usize = 1024;

impl NodeReport {
    /// The version of the profile that the status is about.
    #[must_use]
    pub fn reported_revision(&self) -> Option<&Revision> {
        let malformed = self.malformed.as_ref().map(|(revision, _)| revision);
        malformed.or(self.revision.as_ref())
    }

    /// The profile's status. From `previous`, its present one, come the times of conditions that have not
    /// changed, and conditions of others.
    #[must_use]
    pub fn status(
        &self,
        previous: &NodeNetworkProfileStatus,
        now: Timestamp,
    ) -> NodeNetworkProfileStatus {
        let observed_generation = self.reported_revision().map(|revision| revision.generation);
        let mut conditions = previous.conditions.clone();
        let mut set = |type_, (status, reason, message): (Option<bool>, &str, String)| {
            conditions::set(
                &mut conditions,
                type_,
                status,
                reason,
                message,
                observed_generation,
                now,
            );
        };
        let known = |(status, reason, message)| (Some(status), reason, message);
        set(READY, known(self.ready()));
        set(DRIFTED, known(self.drifted()));
        set(CONTESTED, known(self.contested()));
        set(
            NEIGHBOR_PRESSURE,
            pressure(&self.table_conditions.neighbors),
        );
        set(
            CONNTRACK_PRESSURE,
            pressure(&self.table_conditions.conntrack),
        );
        if self.released {
            set(RELEASED, known(self.release()));
        } else {
            conditions.retain(|condition: &Condition| condition.type_ != RELEASED);
        }
        NodeNetworkProfileStatus {
            observed_generation,
            sysctls: self.keys.iter().map(sysctl).collect(),
            tables: self.tables.clone(),
            facts: Some(self.facts.clone()),
            kernel_release: self.identity.kernel_release.clone(),
            boot_id: self.identity.boot_id.clone(),
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            conditions,
        }
    }

    fn ready(&self) -> (bool, &'static str, String) {
        if let Some((_, why)) = &self.malformed {
            let message = format!("{why}; keeping the last valid profile");
            return (false, reasons::INVALID, message);
        }
        if self.task == Task::Release {
            let (_, reason, message) = self.release();
            return (self.count(KeyState::Failed) == 0, reason, message);
        }
        if let Some((first, more)) = self.first_in(KeyState::Failed) {
            let reason = if self.all_failed_are_invalid() {
                reasons::INVALID
            } else {
                reasons::FAILED
            };
            return (
                false,
                reason,
                format!("{}: {}{more}", first.name, first.message),
            );
        }
        if let Some((first, more)) = self.first_in(KeyState::Contested) {
            let message = format!("{}: {}{more}", first.name, first.message);
            return (false, reasons::CONTESTED, message);
        }
        let (reason, message) = self.summary();
        (true, reason, message)
    }

    /// The states of the keys, in one sentence, if none has failed and none is contested.
    fn summary(&self) -> (&'static str, String) {
        let inapplicable = self.count(KeyState::NotApplicable);
        let (all, applied) = (
            self.managed().count() - inapplicable,
            self.count(KeyState::Applied),
        );
        let (drifted, waiting) = (self.count(KeyState::Drifted), self.count(KeyState::Waiting));
        let mut message = match (all, inapplicable) {
            (0, 0) => "no sysctls are managed".to_owned(),
            (0, _) => "no managed sysctl applies to this node".to_owned(),
            _ if waiting > 0 => format!("{applied} applied"),
            _ => format!(
                "{applied} of {all} {} applied",
                plural(all, "sysctl", "sysctls")
            ),
        };
        if waiting > 0 {
            message.push_str(&format!(", {waiting} waiting for {}", self.waits_for()));
        }
        if drifted > 0 {
            let because = match self.task {
                Task::Observe => "mode Observe writes nothing",
                Task::Enforce => "another process keeps changing what is set again after a pause",
                _ => "mode ApplyOnce does not undo later changes",
            };
            message.push_str(&format!(", {drifted} drifted: {because}"));
        }
        if inapplicable > 0 && all > 0 {
            message.push_str(&format!("; {inapplicable} not applicable to this node"));
        }
        let dropped = self.keys.iter().filter(|key| key.dropped).count();
        if dropped > 0 {
            let of = plural(
                dropped,
                "original value of a sysctl that is no longer managed is",
                "original values of sysctls that are no longer managed are",
            );
            message.push_str(&format!("; {dropped} {of} not restored"));
        }
        let reason = match self.task {
            Task::Observe => reasons::OBSERVED,
            _ if waiting > 0 => reasons::WAITING,
            _ => reasons::APPLIED,
        };
        (reason, message)
    }

    fn drifted(&self) -> (bool, &'static str, String) {
        match self.first_in(KeyState::Drifted) {
            Some((first, more)) => {
                let message = format!("{}: {}{more}", first.name, first.message);
                (true, reasons::VALUES_DIFFER, message)
            }
            None => (false, reasons::NO_DRIFT, String::new()),
        }
    }

    fn contested(&self) -> (bool, &'static str, String) {
        match self.first_in(KeyState::Contested) {
            Some((first, more)) => {
                let message = format!("{}: {}{more}", first.name, first.message);
                (true, reasons::CONTESTED, message)
            }
            None => (false, reasons::NOT_CONTESTED, String::new()),
        }
    }

    fn release(&self) -> (bool, &'static str, String) {
        let all = self.keys.len();
        let restored = self.count(KeyState::Applied);
        if restored == all {
            let message = match all {
                0 => "nothing was written in this boot, so nothing had to be restored".to_owned(),
                1 => "the 1 sysctl that was written is restored".to_owned(),
                _ => format!("all {all} sysctls are restored"),
            };
            return (true, reasons::RESTORED, message);
        }
        let left = self
            .keys
            .iter()
            .filter(|key| key.state != KeyState::Applied);
        let left: Vec<String> = left
            .map(|key| format!("{}: {}", key.name, key.message))
            .collect();
        let message = format!(
            "{restored} of {all} sysctls are restored; {}",
            left.join("; ")
        );
        (
            true,
            reasons::PARTIALLY_RESTORED,
            shortened(&message, MOST_CHARACTERS),
        )
    }

    /// The keys that count towards conditions.
    fn managed(&self) -> impl Iterator<Item = &KeyReport> {
        self.keys.iter().filter(|key| !key.dropped)
    }

    fn count(&self, state: KeyState) -> usize {
        self.managed().filter(|key| key.state == state).count()
    }

    fn first_in(&self, state: KeyState) -> Option<(&KeyReport, String)> {
        let mut of_state = self.managed().filter(|key| key.state == state);
        let first = of_state.next()?;
        let more = match of_state.count() {
            0 => String::new(),
            more => format!(" (and {more} more)"),
        };
        Some((first, more))
    }

    fn all_failed_are_invalid(&self) -> bool {
        let mut failed = self.keys.iter().filter(|key| key.state == KeyState::Failed);
        failed.all(|key| key.invalid)
    }

    fn waits_for(&self) -> String {
        let mut waits: Vec<&str> = self
            .managed()
            .filter(|key| key.state == KeyState::Waiting)
            .map(|key| key.waits_for.as_deref().unwrap_or("the kernel"))
            .collect();
        waits.sort_unstable();
        waits.dedup();
        waits.join(" and ")
    }
}

fn pressure(finding: &PressureCondition) -> (Option<bool>, &'static str, String) {
    (finding.status, finding.reason, finding.message.clone())
}

fn plural<'a>(count: usize, one: &'a str, more: &'a str) -> &'a str {
    if count == 1 { one } else { more }
}

fn sysctl(key: &KeyReport) -> SysctlStatus {
    SysctlStatus {
        name: key.name.to_string(),
        observed: key
            .observed
            .as_ref()
            .map(|content| content.as_str().to_owned()),
        original: key
            .original
            .as_ref()
            .map(|content| content.as_str().to_owned()),
        state: key.state,
        message: shortened(&key.message, MOST_CHARACTERS),
        drift_count: i64::try_from(key.drift_count).unwrap_or(i64::MAX),
    }
}

fn shortened(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(most - 1).collect();
    short.push('…');
    short
}
