//! The format of the state files: the state of one node in one boot, as JSON.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use nettune_sizing::{SysctlKey, Value};
use serde::{Deserialize, Serialize};

use nettune_reconcile::desired::{Revision, Source};
use nettune_reconcile::effect::{AppliedOnce, Persisted, Record};
use nettune_reconcile::observed::Content;

/// The version that this agent writes, and the only one that it reads.
pub(crate) const VERSION: u32 = 1;

/// A state, and the name of the other node whose profile was dropped from it.
pub(crate) type Read = (Persisted, Option<String>);

/// Why a file is not a state.
pub(crate) enum Undecodable {
    /// It is truncated, overwritten, or another file.
    Foreign(serde_json::Error),
    /// A newer agent wrote it.
    Newer { version: u32 },
}

/// Present in every version of the file.
#[derive(Deserialize)]
struct Header {
    version: u32,
}

#[derive(Serialize, Deserialize)]
struct StateFile {
    format: Format,
    version: u32,
    node: String,
    boot_id: String,
    originals_lost: bool,
    source: Option<Source>,
    records: BTreeMap<String, RecordFile>,
    #[serde(default, alias = "relief")]
    overflow_raises: BTreeMap<String, u64>,
    applied_once: Option<AppliedOnceFile>,
    released: Option<Revision>,
}

#[derive(Serialize, Deserialize)]
enum Format {
    #[serde(rename = "nettune-agent-state")]
    State,
}

/// An empty string is a sysctl that was empty.
#[derive(Serialize, Deserialize)]
struct RecordFile {
    original: Option<String>,
    before: Option<String>,
    written: String,
}

#[derive(Serialize, Deserialize)]
struct AppliedOnceFile {
    revision: Revision,
    keys: BTreeSet<String>,
}

/// Reads what is still valid for this node in this boot.
pub(crate) fn decode(bytes: &[u8], node: &str, boot_id: &str) -> Result<Read, Undecodable> {
    let Header { version } = serde_json::from_slice(bytes).map_err(Undecodable::Foreign)?;
    if version != VERSION {
        return Err(Undecodable::Newer { version });
    }
    let file: StateFile = serde_json::from_slice(bytes).map_err(Undecodable::Foreign)?;
    let is_other = file.node != node && file.source.is_some();
    let other_node = is_other.then(|| file.node.clone());
    let persisted = still_valid(file, node, boot_id).map_err(Undecodable::Foreign)?;
    Ok((persisted, other_node))
}

fn still_valid(file: StateFile, node: &str, boot_id: &str) -> Result<Persisted, serde_json::Error> {
    let source = file.source.filter(|_| file.node == node).map(Arc::new);
    if file.boot_id != boot_id {
        return Ok(Persisted {
            source,
            ..Persisted::default()
        });
    }
    // Keys that are not on this version's allow-list can be neither written nor restored.
    let known = |name: &str| SysctlKey::parse(name).ok();
    let mut records = BTreeMap::new();
    for (name, record) in file.records {
        let record = record.try_into()?;
        records.extend(known(&name).map(|key| (key, record)));
    }
    let raises = file.overflow_raises.into_iter();
    let raises = raises.filter_map(|(name, raised)| Some((known(&name)?, raised)));
    let applied_once = file.applied_once.map(|done| AppliedOnce {
        revision: done.revision,
        keys: done.keys.iter().filter_map(|name| known(name)).collect(),
    });
    Ok(Persisted {
        originals_lost: file.originals_lost,
        source,
        records,
        overflow_raises: raises.collect(),
        applied_once,
        released: file.released,
    })
}

/// The bytes of a file.
pub(crate) fn encode(
    persisted: &Persisted,
    node: &str,
    boot_id: &str,
) -> serde_json::Result<Vec<u8>> {
    let record = |(key, record): (&SysctlKey, &Record)| (key.name().to_owned(), record.into());
    serde_json::to_vec(&StateFile {
        format: Format::State,
        version: VERSION,
        node: node.to_owned(),
        boot_id: boot_id.to_owned(),
        originals_lost: persisted.originals_lost,
        source: persisted.source.as_deref().cloned(),
        records: persisted.records.iter().map(record).collect(),
        overflow_raises: persisted
            .overflow_raises
            .iter()
            .map(|(key, raised)| (key.name().to_owned(), *raised))
            .collect(),
        applied_once: persisted.applied_once.as_ref().map(|done| AppliedOnceFile {
            revision: done.revision.clone(),
            keys: done.keys.iter().map(|key| key.name().to_owned()).collect(),
        }),
        released: persisted.released.clone(),
    })
}

impl From<&Record> for RecordFile {
    fn from(record: &Record) -> Self {
        Self {
            original: record
                .original
                .as_ref()
                .map(|content| content.as_str().to_owned()),
            before: record.before.as_ref().map(ToString::to_string),
            written: record.written.to_string(),
        }
    }
}

impl TryFrom<RecordFile> for Record {
    type Error = serde_json::Error;

    fn try_from(file: RecordFile) -> Result<Self, Self::Error> {
        let value = |text: String| Value::parse(&text).map_err(serde::de::Error::custom);
        let content = |text: String| {
            if text.is_empty() {
                Ok(Content::Empty)
            } else {
                value(text).map(Content::Value)
            }
        };
        Ok(Self {
            original: file.original.map(content).transpose()?,
            before: file.before.map(value).transpose()?,
            written: value(file.written)?,
        })
    }
}
