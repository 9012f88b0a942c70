//! Objects from files, refused as the API server would refuse them.

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use kube::CustomResourceExt;
use nettune_sizing::Policy;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::schema::{self, Refused};
use crate::{InvalidTuning, NodeLabels, NodeNetworkTuning};

/// Why the text of a file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// It is no YAML.
    #[error("{} is no YAML", path.display())]
    Yaml {
        /// The file.
        path: PathBuf,
        /// What is wrong, and where.
        source: Box<serde_saphyr::Error>,
    },
    /// It is no JSON.
    #[error("{} is no JSON", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// What is wrong, and where.
        source: serde_json::Error,
    },
    /// An object of another kind.
    #[error("{} holds {found}, not a {wanted}", path.display())]
    Kind {
        /// The file.
        path: PathBuf,
        /// What it holds.
        found: String,
        /// The kind that is wanted.
        wanted: &'static str,
    },
    /// No object.
    #[error("{} holds no {wanted}", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
        /// The kind that is wanted.
        wanted: &'static str,
    },
    /// A field that the schema does not allow.
    #[error("{}, {object}", path.display())]
    Field {
        /// The file.
        path: PathBuf,
        /// Kind and name.
        object: String,
        /// The field, and what is wrong with it.
        source: Refused,
    },
    /// An object that does not have the form of its kind.
    #[error("{}, {object}", path.display())]
    Object {
        /// The file.
        path: PathBuf,
        /// Kind and name.
        object: String,
        /// What is wrong.
        source: serde_json::Error,
    },
    /// A tuning whose values do not go together.
    #[error("{}, {object}", path.display())]
    Tuning {
        /// The file.
        path: PathBuf,
        /// Kind and name.
        object: String,
        /// What is wrong.
        source: InvalidTuning,
    },
}

/// How much a file may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Size {
    /// Some objects: what unfolds into much more than the file has is refused.
    Small,
    /// Every Node of a large cluster, in a file of the user's own.
    Large,
}

const TUNING: &str = "NodeNetworkTuning";

/// The tunings of a file's text, valid ones. `path` is what the file is called in errors.
///
/// # Errors
/// When one of them cannot be used, or there is none: with the file, the object and the field.
pub fn tunings(path: &Path, text: &str) -> Result<Vec<NodeNetworkTuning>, ManifestError> {
    let objects = objects(path, text, Size::Small)?;
    let tunings = objects.into_iter().map(|object| {
        let described = of_kind(path, &object, TUNING)?;
        check_tuning(&SPEC_SCHEMA, &object).map_err(|source| ManifestError::Field {
            path: path.to_owned(),
            object: described.clone(),
            source,
        })?;
        let tuning = typed::<NodeNetworkTuning>(path, object, &described)?;
        let valid = Policy::try_from(&tuning.spec)
            .and_then(|_| Ok(NodeLabels::try_from(&tuning.spec.node_selector)?));
        match valid {
            Ok(_) => Ok(tuning),
            Err(source) => Err(ManifestError::Tuning {
                path: path.to_owned(),
                object: described,
                source,
            }),
        }
    });
    not_empty(path, tunings.collect::<Result<_, _>>()?, TUNING)
}

/// The objects of one kind in a file's text. `path` is what the file is called in errors.
///
/// # Errors
/// When there is none, or one that is of another kind or does not have the form of its kind.
pub fn all_of<T: DeserializeOwned>(
    path: &Path,
    text: &str,
    kind: &'static str,
    size: Size,
) -> Result<Vec<T>, ManifestError> {
    let objects = objects(path, text, size)?.into_iter().map(|object| {
        let described = of_kind(path, &object, kind)?;
        typed(path, object, &described)
    });
    not_empty(path, objects.collect::<Result<_, _>>()?, kind)
}

/// The objects of a file in JSON or YAML: one, several documents, or the items of lists.
fn objects(path: &Path, text: &str, size: Size) -> Result<Vec<Value>, ManifestError> {
    let documents: Vec<Value> = if text.trim_start().starts_with('{') {
        serde_json::from_str(text)
            .map(|document| vec![document])
            .map_err(|source| ManifestError::Json {
                path: path.to_owned(),
                source,
            })?
    } else {
        serde_saphyr::from_multiple_with_options(text, yaml_options(size)).map_err(|source| {
            ManifestError::Yaml {
                path: path.to_owned(),
                source: Box::new(source),
            }
        })?
    };
    Ok(documents.into_iter().flat_map(items).collect())
}

fn items(mut document: Value) -> Vec<Value> {
    match document.get_mut("items").map(Value::take) {
        Some(Value::Array(items)) => items,
        _ if document.is_null() => Vec::new(),
        _ => vec![document],
    }
}

fn yaml_options(size: Size) -> serde_saphyr::Options {
    match size {
        // The largest tuning that the API server takes has some 9,000 values.
        Size::Small => serde_saphyr::options! {
            with_snippet: false,
            budget: serde_saphyr::budget! { max_events: 50_000, max_nodes: 25_000 },
            alias_limits: serde_saphyr::alias_limits! { max_total_replayed_events: 50_000 },
        },
        // The default limits stop at some thousand Nodes.
        Size::Large => serde_saphyr::options! {
            with_snippet: false,
            budget: serde_saphyr::budget! {
                max_events: 1_000_000_000,
                max_nodes: 500_000_000,
                max_total_scalar_bytes: 4 << 30,
            },
        },
    }
}

/// An object's kind and name, where it is of the kind that is wanted.
fn of_kind(path: &Path, object: &Value, wanted: &'static str) -> Result<String, ManifestError> {
    let kind = object.get("kind").and_then(Value::as_str);
    if kind != Some(wanted) {
        let found = match kind {
            Some(kind) => format!("a {kind}"),
            None => "an object without a kind".to_owned(),
        };
        return Err(ManifestError::Kind {
            path: path.to_owned(),
            found,
            wanted,
        });
    }
    let name = object.pointer("/metadata/name").and_then(Value::as_str);
    Ok(format!("{wanted} {}", name.unwrap_or("without a name")))
}

fn typed<T: DeserializeOwned>(
    path: &Path,
    object: Value,
    described: &str,
) -> Result<T, ManifestError> {
    serde_json::from_value(object).map_err(|source| ManifestError::Object {
        path: path.to_owned(),
        object: described.to_owned(),
        source,
    })
}

fn not_empty<T>(path: &Path, all: Vec<T>, wanted: &'static str) -> Result<Vec<T>, ManifestError> {
    if all.is_empty() {
        return Err(ManifestError::Empty {
            path: path.to_owned(),
            wanted,
        });
    }
    Ok(all)
}

/// The schema of a tuning's spec, as the CRD has it: making it takes milliseconds.
static SPEC_SCHEMA: LazyLock<Value> = LazyLock::new(|| {
    let crd = serde_json::to_value(NodeNetworkTuning::crd()).unwrap_or_default();
    crd.pointer("/spec/versions/0/schema/openAPIV3Schema/properties/spec")
        .cloned()
        .unwrap_or_default()
});

/// The version, and the fields of the spec.
fn check_tuning(schema: &Value, object: &Value) -> Result<(), Refused> {
    const VERSION: &str = "nettune.dev/v1alpha1";
    let version = object.get("apiVersion").unwrap_or(&Value::Null);
    if version.as_str() != Some(VERSION) {
        return Err(Refused::Value {
            path: "apiVersion".to_owned(),
            value: version.to_string(),
            wanted: VERSION.to_owned(),
        });
    }
    match object.get("spec") {
        None | Some(Value::Null) => Err(Refused::Missing {
            path: "spec".to_owned(),
        }),
        Some(spec) => schema::check(schema, spec, "spec"),
    }
}
