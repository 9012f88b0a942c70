//! `cargo xtask structure`: sizes of files and folders, import cycles, and the paths in ARCHITECTURE.md.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use nettune_tests::workspace;

use crate::cargo::exit_code;

mod circles;
mod map;
mod sizes;

/// A Rust file of the workspace.
struct Source {
    /// Relative to the top of the workspace.
    path: PathBuf,
    text: String,
}

/// For `cargo xtask structure`.
pub(crate) fn run() -> anyhow::Result<ExitCode> {
    let violations = violations()?;
    for violation in &violations {
        println!("{violation}");
    }
    Ok(exit_code(violations.is_empty()))
}

/// The violations, one sentence each.
pub(crate) fn violations() -> anyhow::Result<Vec<String>> {
    let root = &workspace::root();
    let mut sources = Vec::new();
    read_dir(root, Path::new(""), &mut sources)?;
    let mut violations = sizes::violations(&sources);
    violations.extend(circles::violations(&sources));
    violations.extend(map::violations(root)?);
    Ok(violations)
}

/// Reads all Rust files below `dir`, in the order of their paths.
fn read_dir(root: &Path, dir: &Path, sources: &mut Vec<Source>) -> anyhow::Result<()> {
    let cannot_read = |path: &Path| format!("cannot read {}", path.display());
    let mut paths = Vec::new();
    for entry in fs::read_dir(root.join(dir)).with_context(|| cannot_read(dir))? {
        paths.push(dir.join(entry?.file_name()));
    }
    paths.sort();
    for path in paths {
        let file = root.join(&path);
        let is_hidden = |name: &std::ffi::OsStr| name.as_encoded_bytes().starts_with(b".");
        if path.file_name().is_some_and(is_hidden) || path.ends_with("target") {
            continue;
        }
        if file.is_dir() {
            read_dir(root, &path, sources)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&file).with_context(|| cannot_read(&path))?;
            sources.push(Source { path, text });
        }
    }
    Ok(())
}
