//! Reads tunings and Nodes from files.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use nettune_crds::NodeNetworkTuning;
use nettune_offline::manifest::{self, ManifestError, Size};
use nettune_planner::ObservedNode;

/// The tuning without -f.
const DEFAULT: &str = include_str!("../../examples/default.yaml");

#[derive(Debug, thiserror::Error)]
pub(crate) enum InputError {
    #[error("cannot read {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Manifest(#[from] ManifestError),
}

/// The tunings in a file; the default tuning without a file.
pub(crate) fn tunings(path: Option<&Path>) -> Result<Vec<NodeNetworkTuning>, InputError> {
    let (path, text) = match path {
        None => (PathBuf::from("the default tuning"), DEFAULT.to_owned()),
        Some(path) => read(path)?,
    };
    Ok(manifest::tunings(&path, &text)?)
}

pub(crate) fn nodes(path: &Path) -> Result<Vec<ObservedNode>, InputError> {
    let (path, text) = read(path)?;
    Ok(manifest::objects_of_kind(
        &path,
        &text,
        "Node",
        Size::Large,
    )?)
}

/// The name of a file for errors, and its text. `-` is stdin.
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
