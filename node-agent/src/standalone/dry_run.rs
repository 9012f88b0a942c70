//! What the agent would do on this host.
//!
//! The decisions are those of [`step`]: each effect is applied to what was read from the kernel, not to
//! the kernel, until nothing is left to do.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use nettune_crds::{KeyState, ProfileSysctl};
use nettune_offline::table::{self, Row, wrap};
use nettune_sizing::{Mono, SysctlKey};

use crate::standalone::policy::SizedPolicy;
use nettune_reconcile::desired::DesiredState;
use nettune_reconcile::effect::Effect;
use nettune_reconcile::memory::Memory;
use nettune_reconcile::observed::{Content, ObservedState, Seen};
use nettune_reconcile::outcome::KeyReport;
use nettune_reconcile::step::step;

/// More effects than any profile needs.
const MOST_EFFECTS: usize = 2000;

#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// The writes, in their order.
    pub writes: Vec<(SysctlKey, Content)>,
    /// Where each key would stand afterwards.
    pub keys: Vec<KeyReport>,
}

#[must_use]
pub fn dry_run(desired: &DesiredState, observed: &ObservedState, memory: &Memory) -> Outcome {
    let (mut observed, mut memory) = (observed.clone(), memory.clone());
    let now = Mono::default();
    let mut outcome = Outcome {
        writes: Vec::new(),
        keys: Vec::new(),
    };
    for _ in 0..MOST_EFFECTS {
        let step = step(desired, &observed, &memory, now);
        outcome.keys = step.keys;
        let written = match &step.effect {
            Effect::Rest { .. } => break,
            Effect::Persist(_) => None,
            Effect::Set(key, value) => Some((key.clone(), Content::from(value.clone()))),
            Effect::Clear(key) => Some((key.clone(), Content::Empty)),
        };
        if let Some((key, content)) = written {
            observed
                .keys
                .insert(key.clone(), Seen::Content(content.clone()));
            outcome.writes.push((key, content));
        }
        memory = step.memory.learn(step.effect, Ok(()), now);
    }
    outcome
}

impl Outcome {
    /// Whether nothing would be written and nothing fails.
    #[must_use]
    pub fn is_in_order(&self) -> bool {
        self.writes.is_empty() && self.keys.iter().all(|key| key.state != KeyState::Failed)
    }

    /// A table of every key, followed by the writes.
    #[must_use]
    pub fn table(&self, sized: &SizedPolicy, observed: &ObservedState) -> String {
        let writes: BTreeMap<&str, &Content> = self
            .writes
            .iter()
            .map(|(key, content)| (key.name(), content))
            .collect();
        let mut rows: Vec<_> = self
            .keys
            .iter()
            .map(|key| {
                let wanted = sized.spec.sysctls.iter();
                let wanted = wanted.clone().find(|sysctl| sysctl.name == *key.name);
                row(key, wanted, writes.get(&*key.name).copied(), observed)
            })
            .collect();
        rows.extend(self.beside(observed));
        let mut text = table::draw(["NAME", "NOW", "WANTED", "RULE", "CHECK"], &rows);
        for warning in &sized.warnings {
            text.push('\n');
            wrap(&mut text, warning, "warning: ", "         ");
        }
        text.push('\n');
        let total = rows.len();
        let _ = match (self.writes.len(), self.is_in_order()) {
            (0, true) => writeln!(text, "Nothing would be changed."),
            (0, false) => writeln!(
                text,
                "Nothing would be changed, but some sysctls cannot be set."
            ),
            (writes, _) => writeln!(
                text,
                "{} of {total} sysctls would be changed, with {writes} {}:{}",
                self.changed().len(),
                if writes == 1 { "write" } else { "writes" },
                self.order()
            ),
        };
        text
    }

    /// Keys that the policy does not name: thresholds that follow another one.
    fn beside<'a>(&'a self, observed: &'a ObservedState) -> impl Iterator<Item = Row<5>> + 'a {
        let named = |key: &SysctlKey| self.keys.iter().any(|report| *report.name == *key.name());
        self.changed()
            .into_iter()
            .filter(move |(key, _)| !named(key))
            .map(|(key, content)| Row {
                cells: [
                    key.name().to_owned(),
                    now(observed.content(key)),
                    content.to_string(),
                    "-".to_owned(),
                    "set".to_owned(),
                ],
                note: "not in the policy: follows the other thresholds, to keep them in order"
                    .to_owned(),
            })
    }

    /// Each key that would be written, with its final value.
    fn changed(&self) -> BTreeMap<&SysctlKey, &Content> {
        let writes = self.writes.iter();
        writes.map(|(key, content)| (key, content)).collect()
    }

    fn order(&self) -> String {
        let writes = self.writes.iter();
        let writes = writes.map(|(key, content)| format!("{} = {content}", key.name()));
        let mut text = String::new();
        for write in writes {
            text.push('\n');
            text.push_str("    ");
            text.push_str(&write);
        }
        text
    }
}

fn row(
    key: &KeyReport,
    wanted: Option<&ProfileSysctl>,
    write: Option<&Content>,
    observed: &ObservedState,
) -> Row<5> {
    let before = SysctlKey::parse(&key.name).ok();
    let before = before.as_ref().and_then(|key| observed.content(key));
    let check = match (write, key.state) {
        (_, KeyState::Failed) => "fails",
        (Some(_), _) => "set",
        (None, _) if key.dropped => "left",
        (None, KeyState::Applied) => "holds",
        (None, KeyState::Waiting) => "waits",
        (None, KeyState::NotApplicable) => "not here",
        (None, KeyState::Drifted | KeyState::Contested) => "left",
    };
    let reason = wanted.map_or("", |wanted| wanted.reason.as_str());
    let note = match (reason, key.message.as_str()) {
        (reason, "") => reason.to_owned(),
        ("", message) if key.dropped => message.to_owned(),
        ("", message) => format!("{check}: {message}"),
        (reason, message) => format!("{reason}; {check}: {message}"),
    };
    Row {
        cells: [
            key.name.to_string(),
            now(before),
            wanted
                .map_or("-", |wanted| wanted.value.as_str())
                .to_owned(),
            wanted.map_or("-".to_owned(), |wanted| wanted.rule.to_string()),
            check.to_owned(),
        ],
        note,
    }
}

fn now(content: Option<&Content>) -> String {
    content.map_or_else(|| "-".to_owned(), ToString::to_string)
}
