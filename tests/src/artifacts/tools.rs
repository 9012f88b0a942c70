//! etcd, kube-apiserver, kubectl and kube-proxy: found, or built once from their published Go modules.
//!
//! They are taken from `KUBEBUILDER_ASSETS` where that is set (the convention of envtest), else from `PATH` where all
//! three are there and new enough, else built into the cache.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

use crate::artifacts::cache::CacheError;

mod go;

pub use go::BuildError;

/// Names the folder that holds the three binaries.
pub const ASSETS_VARIABLE: &str = "KUBEBUILDER_ASSETS";
/// MutatingAdmissionPolicy is there from this minor version of Kubernetes 1 on.
const OLDEST_MINOR: u32 = 36;
const NAMES: [&str; 3] = ["etcd", "kube-apiserver", "kubectl"];

/// Paths of the binaries that make a control plane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tools {
    /// etcd, 3.5 or newer.
    pub etcd: PathBuf,
    /// kube-apiserver, 1.36 or newer.
    pub kube_apiserver: PathBuf,
    /// kubectl of the same version.
    pub kubectl: PathBuf,
}

/// Why there are no tools.
#[derive(Debug, thiserror::Error)]
pub enum ToolsError {
    #[error("{ASSETS_VARIABLE} is {}, which has no {missing}", dir.display())]
    Assets { dir: PathBuf, missing: &'static str },
    #[error("cannot get {what}")]
    Build {
        what: &'static str,
        #[source]
        source: CacheError<BuildError>,
    },
}

impl Tools {
    /// Finds the tools or builds them, which takes about ten minutes the first time and says so.
    pub fn get() -> Result<Self, ToolsError> {
        // Tests of one binary all ask; the answer stays the same.
        static FOUND: Mutex<Option<Tools>> = Mutex::new(None);
        let mut found = FOUND
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(tools) = &*found {
            return Ok(tools.clone());
        }
        let tools = find_or_build()?;
        *found = Some(tools.clone());
        Ok(tools)
    }

    fn in_dir(dir: &Path) -> Result<Self, &'static str> {
        match NAMES.into_iter().find(|name| !dir.join(name).is_file()) {
            Some(missing) => Err(missing),
            None => {
                let [etcd, kube_apiserver, kubectl] = NAMES.map(|name| dir.join(name));
                Ok(Self {
                    etcd,
                    kube_apiserver,
                    kubectl,
                })
            }
        }
    }
}

/// kube-proxy, from a module of its own: only the tests of what it does to a node wait for it. Takes about five minutes
/// the first time and says so.
pub fn kube_proxy() -> Result<PathBuf, ToolsError> {
    Ok(build_module(&go::KUBE_PROXY)?.join("kube-proxy"))
}

/// actionlint, which `cargo xtask ci` runs on the workflows.
pub fn actionlint() -> Result<PathBuf, ToolsError> {
    Ok(build_module(&go::ACTIONLINT)?.join("actionlint"))
}

/// helm, for the tests of the chart. Takes about four minutes the first time and says so.
///
/// # Errors
///
/// When the build fails.
pub fn helm() -> Result<PathBuf, ToolsError> {
    Ok(build_module(&go::HELM)?.join("helm"))
}

fn find_or_build() -> Result<Tools, ToolsError> {
    if let Some(dir) = std::env::var_os(ASSETS_VARIABLE).map(PathBuf::from) {
        return Tools::in_dir(&dir).map_err(|missing| ToolsError::Assets { dir, missing });
    }
    match in_path() {
        Some(tools) => Ok(tools),
        None => build(),
    }
}

/// All three, from PATH, if they fit: another version's kubectl alone is of no use.
fn in_path() -> Option<Tools> {
    let path = std::env::var_os("PATH")?;
    let find = |name: &str| {
        std::env::split_paths(&path)
            .map(|dir| dir.join(name))
            .find(|file| file.is_file())
    };
    let [Some(etcd), Some(kube_apiserver), Some(kubectl)] = NAMES.map(find) else {
        return None;
    };
    let version = Command::new(&kube_apiserver)
        .arg("--version")
        .output()
        .ok()?;
    let minor = minor_version(&String::from_utf8_lossy(&version.stdout))?;
    (minor >= OLDEST_MINOR).then_some(Tools {
        etcd,
        kube_apiserver,
        kubectl,
    })
}

/// The 37 of `Kubernetes v1.37.1`.
fn minor_version(output: &str) -> Option<u32> {
    output
        .trim()
        .strip_prefix("Kubernetes v1.")?
        .split('.')
        .next()?
        .parse()
        .ok()
}

fn build() -> Result<Tools, ToolsError> {
    let etcd = build_module(&go::ETCD)?;
    let kubernetes = build_module(&go::KUBERNETES)?;
    Ok(Tools {
        etcd: etcd.join("etcd"),
        kube_apiserver: kubernetes.join("kube-apiserver"),
        kubectl: kubernetes.join("kubectl"),
    })
}

fn build_module(module: &go::Module) -> Result<PathBuf, ToolsError> {
    go::build(module).map_err(|source| ToolsError::Build {
        what: module.what,
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_minor_version_is_read_from_what_the_server_prints() {
        assert_eq!(minor_version("Kubernetes v1.37.1\n"), Some(37));
        assert_eq!(minor_version("Kubernetes v1.32.4-dispatcher"), Some(32));
        assert_eq!(minor_version("v1.37.1"), None);
    }

    #[test]
    fn a_missing_asset_is_named() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("etcd"), "").unwrap();
        assert_eq!(Tools::in_dir(dir.path()), Err("kube-apiserver"));
    }
}
