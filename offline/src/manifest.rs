//! Kubernetes objects from files, refused where the API server would refuse them.

use std::path::Path;
use std::sync::LazyLock;

use kube::CustomResourceExt;
use nettune_crds::{InvalidTuning, NodeLabels, NodeNetworkTuning, Rollout};
use nettune_sizing::Policy;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::schema::{self, FieldError, FieldErrors};

/// Why the text of a file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    #[error("{file} is not valid YAML")]
    Yaml {
        file: String,
        source: Box<serde_saphyr::Error>,
    },
    #[error("{file} is not valid JSON")]
    Json {
        file: String,
        source: serde_json::Error,
    },
    #[error("{file} contains {found}, not a {kind}")]
    OtherKind {
        file: String,
        found: String,
        kind: &'static str,
    },
    #[error("{file} contains no {kind}")]
    Empty { file: String, kind: &'static str },
    #[error("{file}: {object} is invalid")]
    Object {
        file: String,
        /// Kind and name.
        object: String,
        source: ObjectError,
    },
}

/// Why an object cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ObjectError {
    #[error(transparent)]
    Fields(#[from] FieldErrors),
    #[error(transparent)]
    Form(#[from] serde_json::Error),
    #[error(transparent)]
    Tuning(#[from] InvalidTuning),
}

/// How large a file may become when it is parsed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Size {
    /// A few objects. A file whose YAML aliases expand to much more is refused.
    Small,
    /// Every Node of a large cluster. Only for files that the user chose.
    Large,
}

const TUNING: &str = "NodeNetworkTuning";

/// Reads and validates the tunings in a file's text. Errors call the file `path`.
///
/// # Errors
/// When there is no tuning, or one that the API server would refuse: with object and field.
pub fn tunings(path: &Path, text: &str) -> Result<Vec<NodeNetworkTuning>, ManifestError> {
    each_of_kind(path, text, TUNING, Size::Small, tuning)
}

/// Reads the objects of one kind in a file's text. Errors call the file `path`.
///
/// # Errors
/// When there is none, or one that is of another kind or does not have the form of its kind.
pub fn objects_of_kind<T: DeserializeOwned>(
    path: &Path,
    text: &str,
    kind: &'static str,
    size: Size,
) -> Result<Vec<T>, ManifestError> {
    let typed = |object| Ok(serde_json::from_value(object)?);
    each_of_kind(path, text, kind, size, typed)
}

fn each_of_kind<T>(
    path: &Path,
    text: &str,
    kind: &'static str,
    size: Size,
    read: impl Fn(Value) -> Result<T, ObjectError>,
) -> Result<Vec<T>, ManifestError> {
    let file = || path.display().to_string();
    let mut all = Vec::new();
    for object in objects(path, text, size)? {
        let found = object.get("kind").and_then(Value::as_str);
        if found != Some(kind) {
            let found = found.map_or("an object without a kind".to_owned(), |kind| {
                format!("a {kind}")
            });
            return Err(ManifestError::OtherKind {
                file: file(),
                found,
                kind,
            });
        }
        let name = object.pointer("/metadata/name").and_then(Value::as_str);
        let described = format!("{kind} {}", name.unwrap_or("without a name"));
        all.push(read(object).map_err(|source| ManifestError::Object {
            file: file(),
            object: described,
            source,
        })?);
    }
    if all.is_empty() {
        return Err(ManifestError::Empty { file: file(), kind });
    }
    Ok(all)
}

/// The objects of a file in JSON or YAML: one, several documents, or the items of lists.
fn objects(path: &Path, text: &str, size: Size) -> Result<Vec<Value>, ManifestError> {
    let file = || path.display().to_string();
    let documents: Vec<Value> = if text.trim_start().starts_with('{') {
        let document = serde_json::from_str(text).map_err(|source| ManifestError::Json {
            file: file(),
            source,
        })?;
        vec![document]
    } else {
        serde_saphyr::from_multiple_with_options(text, yaml_options(size)).map_err(|source| {
            ManifestError::Yaml {
                file: file(),
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
        // The largest tuning that the API server accepts has about 9,000 values.
        Size::Small => serde_saphyr::options! {
            with_snippet: false,
            budget: serde_saphyr::budget! { max_events: 50_000, max_nodes: 25_000 },
            alias_limits: serde_saphyr::alias_limits! { max_total_replayed_events: 50_000 },
        },
        // The default limits are reached at a few thousand Nodes.
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

/// The schema of a tuning's spec. Generating the CRD takes milliseconds.
static SPEC_SCHEMA: LazyLock<Value> = LazyLock::new(|| {
    let crd = serde_json::to_value(NodeNetworkTuning::crd()).unwrap_or_default();
    crd.pointer("/spec/versions/0/schema/openAPIV3Schema/properties/spec")
        .cloned()
        .unwrap_or_default()
});

fn tuning(object: Value) -> Result<NodeNetworkTuning, ObjectError> {
    const VERSION: &str = "nettune.dev/v1alpha1";
    let version = object.get("apiVersion").unwrap_or(&Value::Null);
    if version.as_str() != Some(VERSION) {
        let wrong = FieldError::value("apiVersion", version, VERSION.to_owned());
        return Err(FieldErrors(vec![wrong]).into());
    }
    match object.get("spec") {
        None | Some(Value::Null) => {
            let path = "spec".to_owned();
            return Err(FieldErrors(vec![FieldError::Missing { path }]).into());
        }
        Some(spec) => schema::check(&SPEC_SCHEMA, spec, "spec")?,
    }
    let tuning: NodeNetworkTuning = serde_json::from_value(object)?;
    Policy::try_from(&tuning.spec)?;
    Rollout::try_from(&tuning.spec)?;
    NodeLabels::try_from(&tuning.spec.node_selector).map_err(InvalidTuning::from)?;
    Ok(tuning)
}
