//! Where the workspace keeps its files and the binaries that cargo built.

use std::path::{Path, PathBuf};

/// Names the folder that holds the binaries under test; `cargo xtask` sets it.
pub const BIN_DIR_VARIABLE: &str = "NETTUNE_BIN_DIR";

/// A binary of this workspace that is not built.
#[derive(Debug, thiserror::Error)]
#[error("{} is not built; run `cargo build --workspace --bins`", path.display())]
pub struct MissingBinary {
    /// Where it was looked for.
    pub path: PathBuf,
}

/// The top folder of the workspace.
pub fn root() -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().unwrap_or(tests).to_path_buf()
}

/// The path of the binary `name` of this workspace.
///
/// Looks in `NETTUNE_BIN_DIR`, else in the folder of the profile that the running program was built with.
pub fn binary(name: &str) -> Result<PathBuf, MissingBinary> {
    let path = bin_dir().join(name);
    if path.is_file() {
        Ok(path)
    } else {
        Err(MissingBinary { path })
    }
}

fn bin_dir() -> PathBuf {
    if let Some(dir) = std::env::var_os(BIN_DIR_VARIABLE) {
        return PathBuf::from(dir);
    }
    profile_dir_of_this_program().unwrap_or_else(|| root().join("target/debug"))
}

/// Test binaries lie in `target/PROFILE/deps`, examples in `target/PROFILE/examples`, others in `target/PROFILE`.
fn profile_dir_of_this_program() -> Option<PathBuf> {
    let program = std::env::current_exe().ok()?;
    let dir = program.parent()?;
    match dir.file_name()?.to_str()? {
        "deps" | "examples" => dir.parent().map(Path::to_path_buf),
        _ => Some(dir.to_path_buf()),
    }
}
