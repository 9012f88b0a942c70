//! Builds tools from the Go modules that the go.mod files under `tests/tools/` name, into the cache.

use std::fs;
use std::io::{self, BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use crate::artifacts::cache::{self, CacheError};
use crate::process::{command, command_line, spawn};
use crate::progress::Progress;
use crate::workspace;

/// Lines of the compiler's output that go into an error.
const TAIL_LINES: usize = 20;

/// One go.mod under `tests/tools/` and what is built from it.
pub(super) struct Module {
    /// Folder under `tests/tools/`.
    dir: &'static str,
    /// The tools, for people.
    pub(super) what: &'static str,
    /// Package paths, and the names of their binaries where these differ from the last part of the path.
    packages: &'static [(&'static str, Option<&'static str>)],
    /// Cold, on two cores.
    expected: Duration,
    /// The module whose version is stamped into the binaries, as Kubernetes' own build does it.
    stamp: Option<&'static str>,
}

pub(super) const ETCD: Module = Module {
    dir: "etcd",
    what: "etcd",
    packages: &[("go.etcd.io/etcd/server/v3", Some("etcd"))],
    expected: Duration::from_secs(45),
    stamp: None,
};

pub(super) const KUBERNETES: Module = Module {
    dir: "kubernetes",
    what: "kube-apiserver and kubectl",
    packages: &[
        ("k8s.io/kubernetes/cmd/kube-apiserver", None),
        ("k8s.io/kubernetes/cmd/kubectl", None),
    ],
    expected: Duration::from_secs(9 * 60),
    stamp: Some("k8s.io/kubernetes"),
};

pub(super) const KUBE_PROXY: Module = Module {
    dir: "kube-proxy",
    what: "kube-proxy",
    packages: &[("k8s.io/kubernetes/cmd/kube-proxy", None)],
    expected: Duration::from_secs(5 * 60),
    stamp: Some("k8s.io/kubernetes"),
};

pub(super) const ACTIONLINT: Module = Module {
    dir: "actionlint",
    what: "actionlint",
    packages: &[("github.com/rhysd/actionlint/cmd/actionlint", None)],
    expected: Duration::from_secs(10),
    stamp: None,
};

pub(super) const HELM: Module = Module {
    dir: "helm",
    what: "helm",
    packages: &[("helm.sh/helm/v4/cmd/helm", None)],
    expected: Duration::from_secs(4 * 60),
    stamp: None,
};

/// Why a tool could not be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    #[error(
        "`{command}` cannot be run: install Go 1.26 or newer (https://go.dev/dl) and run this again, or set \
         KUBEBUILDER_ASSETS to a folder with etcd, kube-apiserver and kubectl"
    )]
    NoGo {
        command: String,
        #[source]
        source: io::Error,
    },
    #[error("cannot {attempt} {}", path.display())]
    File {
        attempt: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("`{command}` in {} ended with {status}:\n{tail}", dir.display())]
    Failed {
        command: String,
        dir: PathBuf,
        status: ExitStatus,
        tail: String,
    },
}

/// The folder with the module's binaries, built if it is not in the cache.
pub(super) fn build(module: &Module) -> Result<PathBuf, CacheError<BuildError>> {
    let dir = workspace::root().join("tests/tools").join(module.dir);
    let key = key(&dir).map_err(CacheError::Fill)?;
    cache::entry(&format!("tools/{}-{key}", module.dir), |target| {
        build_into(module, &dir, target)
    })
}

/// Names what decides about the binaries: the modules' versions and the compiler.
fn key(dir: &Path) -> Result<String, BuildError> {
    let read = |name| {
        let path = dir.join(name);
        fs::read(&path).map_err(|source| BuildError::File {
            attempt: "read",
            path,
            source,
        })
    };
    Ok(cache::key(&[
        &read("go.mod")?,
        &read("go.sum")?,
        go_version()?.as_bytes(),
    ]))
}

fn go_version() -> Result<String, BuildError> {
    let no_go = |source| BuildError::NoGo {
        command: "go env GOVERSION".to_owned(),
        source,
    };
    let output = Command::new("go")
        .args(["env", "GOVERSION"])
        .output()
        .map_err(no_go)?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn build_into(module: &Module, dir: &Path, target: &Path) -> Result<(), BuildError> {
    let progress = Progress::start(&format!("building {}, once", module.what), module.expected);
    let go_mod = dir.join("go.mod");
    let text = fs::read_to_string(&go_mod).map_err(|source| BuildError::File {
        attempt: "read",
        path: go_mod,
        source,
    })?;
    run(go_build(module, &text, dir, target), dir, &progress)?;
    for (package, name) in module.packages {
        let built = target.join(package_binary(package));
        let Some(name) = name else { continue };
        fs::rename(&built, target.join(name)).map_err(|source| BuildError::File {
            attempt: "rename",
            path: built,
            source,
        })?;
    }
    progress.done();
    Ok(())
}

fn go_build(module: &Module, go_mod: &str, dir: &Path, target: &Path) -> Command {
    let mut go = command("go");
    go.current_dir(dir).env("CGO_ENABLED", "0");
    // -v names each package on standard error as it is compiled.
    go.args([
        "build",
        "-v",
        "-trimpath",
        "-ldflags",
        &ldflags(module, go_mod),
        "-o",
    ])
    .arg(target);
    go.args(module.packages.iter().map(|(package, _)| package));
    go
}

/// What Kubernetes' own build passes; without the version, the API server would call itself v0.0.0.
fn ldflags(module: &Module, go_mod: &str) -> String {
    let Some(version) = module.stamp.and_then(|path| required_version(go_mod, path)) else {
        return "-s -w".to_owned();
    };
    let mut numbers = version.trim_start_matches('v').split('.');
    let (major, minor) = (
        numbers.next().unwrap_or_default(),
        numbers.next().unwrap_or_default(),
    );
    let stamp = "k8s.io/component-base/version.git";
    format!("-s -w -X {stamp}Version={version} -X {stamp}Major={major} -X {stamp}Minor={minor}")
}

/// The version of a module that go.mod requires.
fn required_version<'a>(go_mod: &'a str, module: &str) -> Option<&'a str> {
    go_mod.lines().find_map(|line| {
        let mut words = line
            .trim()
            .trim_start_matches("require ")
            .split_whitespace();
        (words.next() == Some(module))
            .then(|| words.next())
            .flatten()
            .filter(|version| version.starts_with('v'))
    })
}

/// Go names a binary after the last part of the package's path that is no major version.
fn package_binary(package: &str) -> &str {
    let is_version = |part: &&str| {
        part.strip_prefix('v')
            .is_some_and(|n| n.parse::<u32>().is_ok())
    };
    package
        .rsplit('/')
        .find(|part| !is_version(part))
        .unwrap_or(package)
}

fn run(mut go: Command, dir: &Path, progress: &Progress) -> Result<(), BuildError> {
    let line = command_line(&go);
    go.stdout(Stdio::null()).stderr(Stdio::piped());
    let no_go = |source| BuildError::NoGo {
        command: line.clone(),
        source,
    };
    let mut child = spawn(go).map_err(no_go)?;
    let mut tail = Vec::new();
    if let Some(stderr) = child.stderr.take() {
        for step in BufReader::new(stderr).lines().map_while(Result::ok) {
            progress.at(&step);
            tail.push(step);
            tail.drain(..tail.len().saturating_sub(TAIL_LINES));
        }
    }
    let status = child.wait().map_err(no_go)?;
    if status.success() {
        return Ok(());
    }
    Err(BuildError::Failed {
        command: line,
        dir: dir.to_path_buf(),
        status,
        tail: tail.join("\n"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn binaries_are_stamped_with_the_version_that_go_mod_requires() {
        let go_mod = "require (\n\tk8s.io/api v0.37.1\n\tk8s.io/kubernetes v1.37.1\n)\n\nreplace k8s.io/api => k8s.io/api v0.37.1\n";
        let flags = ldflags(&KUBERNETES, go_mod);
        assert!(
            flags.contains("gitVersion=v1.37.1 ")
                && flags.contains("gitMajor=1 ")
                && flags.ends_with("gitMinor=37"),
            "{flags}"
        );
    }

    #[test]
    fn a_major_version_in_the_path_is_not_the_binary() {
        assert_eq!(package_binary("go.etcd.io/etcd/server/v3"), "server");
        assert_eq!(package_binary("k8s.io/kubernetes/cmd/kubectl"), "kubectl");
    }
}
