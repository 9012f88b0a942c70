//! The paths that ARCHITECTURE.md names must exist.

use std::fs;
use std::path::Path;

use anyhow::Context as _;

const MAP: &str = "ARCHITECTURE.md";

pub(super) fn violations(root: &Path) -> anyhow::Result<Vec<String>> {
    let text = fs::read_to_string(root.join(MAP)).with_context(|| format!("cannot read {MAP}"))?;
    let missing = paths(&text)
        .into_iter()
        .filter(|path| !root.join(path).exists());
    Ok(missing
        .map(|path| format!("{MAP} names {path}, which does not exist"))
        .collect())
}

/// The paths in code spans and link targets. `a/{b,c}.rs` names two.
fn paths(text: &str) -> Vec<String> {
    let code = text.split('`').skip(1).step_by(2);
    let links = text
        .split("](")
        .skip(1)
        .filter_map(|rest| rest.split(')').next());
    code.filter(|span| span.contains('/') && !span.contains([' ', '\n', ':']))
        .filter(|span| !span.starts_with('/'))
        .chain(links.filter(|link| !link.contains("://") && !link.starts_with('#')))
        .flat_map(expand)
        .collect()
}

fn expand(path: &str) -> Vec<String> {
    let Some((before, (inside, after))) = path
        .split_once('{')
        .and_then(|(before, rest)| Some((before, rest.split_once('}')?)))
    else {
        return vec![path.to_owned()];
    };
    inside
        .split(',')
        .map(|name| format!("{before}{name}{after}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_spans_and_links_are_paths_and_the_rest_is_not() {
        let text = "`a/{b,c}.rs`, `size(x)`, [d](docs/d.md), `/proc`, [e](https://e.example/f), `cargo x/y`";
        assert_eq!(paths(text), ["a/b.rs", "a/c.rs", "docs/d.md"]);
    }

    #[test]
    fn a_path_that_does_not_exist_is_reported() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("here")).unwrap();
        fs::write(root.path().join(MAP), "`here/` `gone/`").unwrap();
        let found = violations(root.path()).unwrap();
        assert_eq!(found, ["ARCHITECTURE.md names gone/, which does not exist"]);
    }
}
