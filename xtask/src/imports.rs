//! Which crate of the workspace may depend on which.

use std::collections::BTreeMap;

use anyhow::Context as _;
use serde_json::Value;

use crate::cargo::{cargo, finish};

/// Each crate and the crates of this workspace that it may import.
const MAY_IMPORT: [(&str, &[&str]); 10] = [
    ("nettune-sizing", &[]),
    ("nettune-runtime", &[]),
    ("nettune-test-support", &[]),
    ("nettune-crds", &["nettune-sizing"]),
    ("nettune-offline", &["nettune-sizing", "nettune-crds"]),
    ("nettune-planner", &["nettune-sizing", "nettune-crds"]),
    ("nettune-reconcile", &["nettune-sizing", "nettune-crds"]),
    (
        "nettune-operator",
        &[
            "nettune-sizing",
            "nettune-crds",
            "nettune-planner",
            "nettune-runtime",
        ],
    ),
    (
        "nettune-agent",
        &[
            "nettune-sizing",
            "nettune-crds",
            "nettune-offline",
            "nettune-reconcile",
            "nettune-runtime",
            "nettune-test-support",
        ],
    ),
    (
        "kubectl-nettune",
        &[
            "nettune-sizing",
            "nettune-crds",
            "nettune-offline",
            "nettune-planner",
        ],
    ),
];
/// They test and build all others; no other crate may import them.
const MAY_IMPORT_ALL: [&str; 2] = ["nettune-tests", "xtask"];

/// Reads the dependencies from cargo and returns the violations, one sentence each.
pub(crate) async fn violations() -> anyhow::Result<Vec<String>> {
    let metadata = cargo(["metadata", "--quiet", "--format-version", "1", "--no-deps"]);
    let lines = finish(metadata, |_| ())
        .await?
        .succeeded("cargo metadata")?;
    let json = lines
        .iter()
        .find(|line| line.starts_with('{'))
        .context("cargo metadata printed no JSON")?;
    Ok(check(&ours(&serde_json::from_str(json)?)))
}

/// Each package of the workspace with the others that it depends on, also for tests and builds.
fn ours(metadata: &Value) -> BTreeMap<String, Vec<String>> {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let name = |value: &Value| value["name"].as_str().unwrap_or_default().to_owned();
    let packages = list(&metadata["packages"]);
    let names: Vec<String> = packages.iter().map(name).collect();
    let imports = |package: &Value| {
        list(&package["dependencies"])
            .iter()
            .map(name)
            .filter(|n| names.contains(n))
            .collect()
    };
    packages
        .iter()
        .map(|package| (name(package), imports(package)))
        .collect()
}

fn check(packages: &BTreeMap<String, Vec<String>>) -> Vec<String> {
    packages
        .iter()
        .flat_map(|(name, imports)| check_one(name, imports))
        .collect()
}

fn check_one(name: &str, imports: &[String]) -> Vec<String> {
    if MAY_IMPORT_ALL.contains(&name) {
        return Vec::new();
    }
    let Some((_, allowed)) = MAY_IMPORT.iter().find(|(package, _)| *package == name) else {
        return vec![format!(
            "{name} is a new crate: add what it may import to xtask/src/imports.rs"
        )];
    };
    let forbidden = imports
        .iter()
        .filter(|import| !allowed.contains(&import.as_str()));
    forbidden
        .map(|import| format!("{name} must not import {import}; it may import {allowed:?}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(packages: &[(&str, &[&str])]) -> BTreeMap<String, Vec<String>> {
        let owned = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
        packages
            .iter()
            .map(|&(name, imports)| (name.to_owned(), owned(imports)))
            .collect()
    }

    #[test]
    fn the_planner_must_not_import_the_runtime() {
        let found = check(&names(&[
            ("nettune-planner", &["nettune-sizing", "nettune-runtime"]),
            ("xtask", &["nettune-tests"]),
        ]));
        assert_eq!(found.len(), 1);
        assert!(
            found[0].starts_with("nettune-planner must not import nettune-runtime"),
            "{found:?}"
        );
    }

    #[test]
    fn a_new_crate_needs_a_rule() {
        assert!(
            check(&names(&[("nettune-new", &[])]))[0].starts_with("nettune-new is a new crate")
        );
    }

    #[test]
    fn third_party_dependencies_are_ignored() {
        let metadata = serde_json::json!({"packages": [
            {"name": "nettune-sizing", "dependencies": [{"name": "serde"}]},
            {"name": "nettune-crds", "dependencies": [{"name": "nettune-sizing"}, {"name": "kube"}]},
        ]});
        assert_eq!(ours(&metadata)["nettune-crds"], ["nettune-sizing"]);
        assert!(check(&ours(&metadata)).is_empty());
    }
}
