//! Writes what is generated from the API types: `crds/manifests/*.yaml` and `docs/api.md`.
//!
//! `generate` writes; `generate --check` exits with 1 if a file is out of date.

mod document;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use kube::CustomResourceExt;
use nettune_crds::{NodeNetworkProfile, NodeNetworkTuning};

#[derive(Debug, thiserror::Error)]
enum GenerateError {
    #[error("cannot serialize {path} as YAML")]
    Yaml {
        path: PathBuf,
        source: serde_saphyr::ser::Error,
    },
    #[error("cannot write {path}")]
    Write {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("{path} is out of date; run `cargo xtask generate`")]
    Stale { path: PathBuf },
    #[error("unknown argument {argument:?}; only --check is supported")]
    Argument { argument: String },
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            let mut cause = std::error::Error::source(&error);
            while let Some(source) = cause {
                eprintln!("  caused by: {source}");
                cause = source.source();
            }
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), GenerateError> {
    let check = match std::env::args().nth(1).as_deref() {
        None => false,
        Some("--check") => true,
        Some(argument) => {
            return Err(GenerateError::Argument {
                argument: argument.to_owned(),
            });
        }
    };
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let crds = [NodeNetworkTuning::crd(), NodeNetworkProfile::crd()];
    for crd in &crds {
        let path = top.join(format!("crds/manifests/{}.yaml", crd.spec.names.plural));
        let yaml = serde_saphyr::to_string(crd).map_err(|source| GenerateError::Yaml {
            path: path.clone(),
            source,
        })?;
        let head = "# Generated from crds/src by `cargo xtask generate`; do not edit.\n";
        put(&path, &format!("{head}{yaml}"), check)?;
    }
    put(&top.join("docs/api.md"), &document::api(&crds), check)
}

fn put(path: &Path, content: &str, check: bool) -> Result<(), GenerateError> {
    if std::fs::read_to_string(path).is_ok_and(|old| old == content) {
        return Ok(());
    }
    if check {
        return Err(GenerateError::Stale { path: path.into() });
    }
    std::fs::write(path, content).map_err(|source| GenerateError::Write {
        path: path.into(),
        source,
    })
}
