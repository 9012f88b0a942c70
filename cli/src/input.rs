//! Tunings and Nodes from files.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use kube::CustomResourceExt;
use nettune_crds::{InvalidTuning, NodeLabels, NodeNetworkTuning};
use nettune_planner::ObservedNode;
use nettune_sizing::Policy;
use serde_json::Value;

use crate::schema::{self, Refused};

/// The tuning that is planned where no file is given.
const DEFAULT: &str = include_str!("../../examples/default.yaml");

/// Why a file cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InputError {
    #[error("cannot read {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{} is no YAML", path.display())]
    Yaml {
        path: PathBuf,
        source: Box<serde_saphyr::Error>,
    },
    #[error("{} is no JSON", path.display())]
    Json {
        path: PathBuf,
        source: serde_json::Error,
    },
    #[error("{} holds {found}, not a {wanted}", path.display())]
    Kind {
        path: PathBuf,
        found: String,
        wanted: &'static str,
    },
    #[error("{} holds no {wanted}", path.display())]
    Empty { path: PathBuf, wanted: &'static str },
    #[error("{}, {object}", path.display())]
    Field {
        path: PathBuf,
        object: String,
        source: Refused,
    },
    #[error("{}, {object}", path.display())]
    Object {
        path: PathBuf,
        object: String,
        source: serde_json::Error,
    },
    #[error("{}, {object}", path.display())]
    Tuning {
        path: PathBuf,
        object: String,
        source: InvalidTuning,
    },
}

/// The tunings of a file, valid ones; the default one where there is no file.
pub(crate) fn tunings(path: Option<&Path>) -> Result<Vec<NodeNetworkTuning>, InputError> {
    const KIND: &str = "NodeNetworkTuning";
    let (path, text) = match path {
        None => (PathBuf::from("the default tuning"), DEFAULT.to_owned()),
        Some(path) => read(path)?,
    };
    let path = path.as_path();
    let schema = spec_schema();
    let objects = objects(path, &text)?;
    let tunings = objects.into_iter().map(|object| {
        let described = of_kind(path, &object, KIND)?;
        check_tuning(&schema, &object).map_err(|source| InputError::Field {
            path: path.to_owned(),
            object: described.clone(),
            source,
        })?;
        let tuning = typed::<NodeNetworkTuning>(path, object, &described)?;
        let valid = Policy::try_from(&tuning.spec)
            .and_then(|_| Ok(NodeLabels::try_from(&tuning.spec.node_selector)?));
        match valid {
            Ok(_) => Ok(tuning),
            Err(source) => Err(InputError::Tuning {
                path: path.to_owned(),
                object: described,
                source,
            }),
        }
    });
    not_empty(path, tunings.collect::<Result<_, _>>()?, KIND)
}

/// The Nodes of a file.
pub(crate) fn nodes(path: &Path) -> Result<Vec<ObservedNode>, InputError> {
    const KIND: &str = "Node";
    let (path, text) = read(path)?;
    let nodes = objects(&path, &text)?.into_iter().map(|object| {
        let described = of_kind(&path, &object, KIND)?;
        typed(&path, object, &described)
    });
    not_empty(&path, nodes.collect::<Result<_, _>>()?, KIND)
}

/// A file's text, and what to call it; `-` is stdin.
fn read(path: &Path) -> Result<(PathBuf, String), InputError> {
    let (name, text) = if path == Path::new("-") {
        (PathBuf::from("stdin"), io::read_to_string(io::stdin()))
    } else {
        (path.to_owned(), fs::read_to_string(path))
    };
    match text {
        Ok(text) => Ok((name, text)),
        Err(source) => Err(InputError::Read { path: name, source }),
    }
}

/// The objects of a file in JSON or YAML: one, several documents, or the items of lists.
fn objects(path: &Path, text: &str) -> Result<Vec<Value>, InputError> {
    let documents: Vec<Value> = if text.trim_start().starts_with('{') {
        serde_json::from_str(text)
            .map(|document| vec![document])
            .map_err(|source| InputError::Json {
                path: path.to_owned(),
                source,
            })?
    } else {
        serde_saphyr::from_multiple_with_options(text, yaml_options()).map_err(|source| {
            InputError::Yaml {
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

/// The default limits stop at some thousand Nodes; these files are the user's own.
fn yaml_options() -> serde_saphyr::Options {
    serde_saphyr::options! {
        with_snippet: false,
        budget: serde_saphyr::budget! {
            max_events: 1_000_000_000,
            max_nodes: 500_000_000,
            max_total_scalar_bytes: 4 << 30,
        },
    }
}

/// An object's kind and name, where it is of the kind that is wanted.
fn of_kind(path: &Path, object: &Value, wanted: &'static str) -> Result<String, InputError> {
    let kind = object.get("kind").and_then(Value::as_str);
    if kind != Some(wanted) {
        let found = match kind {
            Some(kind) => format!("a {kind}"),
            None => "an object without a kind".to_owned(),
        };
        return Err(InputError::Kind {
            path: path.to_owned(),
            found,
            wanted,
        });
    }
    let name = object.pointer("/metadata/name").and_then(Value::as_str);
    Ok(format!("{wanted} {}", name.unwrap_or("without a name")))
}

fn typed<T: serde::de::DeserializeOwned>(
    path: &Path,
    object: Value,
    described: &str,
) -> Result<T, InputError> {
    serde_json::from_value(object).map_err(|source| InputError::Object {
        path: path.to_owned(),
        object: described.to_owned(),
        source,
    })
}

fn not_empty<T>(path: &Path, all: Vec<T>, wanted: &'static str) -> Result<Vec<T>, InputError> {
    if all.is_empty() {
        return Err(InputError::Empty {
            path: path.to_owned(),
            wanted,
        });
    }
    Ok(all)
}

/// The schema of a tuning's spec, as the CRD has it.
fn spec_schema() -> Value {
    let crd = serde_json::to_value(NodeNetworkTuning::crd()).unwrap_or_default();
    crd.pointer("/spec/versions/0/schema/openAPIV3Schema/properties/spec")
        .cloned()
        .unwrap_or_default()
}

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
