//! Limits on the size of files and folders.

use std::collections::BTreeMap;
use std::path::Path;

use super::Source;

const MAX_LINES: usize = 500;
const MAX_FILES: usize = 15;

pub(super) fn violations(sources: &[Source]) -> Vec<String> {
    let mut violations = Vec::new();
    let mut folders: BTreeMap<&Path, usize> = BTreeMap::new();
    for Source { path, text } in sources {
        let lines = text.lines().count();
        if lines > MAX_LINES {
            violations.push(format!(
                "{} has {lines} lines; split it (the limit is {MAX_LINES})",
                path.display()
            ));
        }
        *folders.entry(path.parent().unwrap_or(path)).or_default() += 1;
    }
    for (folder, files) in folders {
        if files > MAX_FILES {
            violations.push(format!(
                "{} has {files} Rust files; group them in folders (the limit is {MAX_FILES})",
                folder.display()
            ));
        }
    }
    violations
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(path: String, lines: usize) -> Source {
        Source {
            path: path.into(),
            text: "//\n".repeat(lines),
        }
    }

    #[test]
    fn a_long_file_is_reported_with_its_length() {
        let found = violations(&[source("a.rs".into(), 500), source("b.rs".into(), 501)]);
        assert_eq!(found.len(), 1);
        assert!(found[0].starts_with("b.rs has 501 lines"), "{found:?}");
    }

    #[test]
    fn a_crowded_folder_is_reported() {
        let files = |folder, count| (0..count).map(move |n| source(format!("{folder}/{n}.rs"), 1));
        let sources: Vec<_> = files("full", 15).chain(files("crowded", 16)).collect();
        let found = violations(&sources);
        assert_eq!(found.len(), 1);
        assert!(
            found[0].starts_with("crowded has 16 Rust files"),
            "{found:?}"
        );
    }
}
