//! Modules of a crate must not import each other in a cycle.
//!
//! Paths are found in the text, not by a parser: everything after `crate::`, `super::` and `self::`, and after the
//! names of a module's own children. Unit tests and comments do not count. A child may use what its parent defines,
//! except for the crate's root, which only lists and exports modules.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::Source;

/// A module by its path below the crate: empty for the root.
type Module = Vec<String>;
type Imports = BTreeMap<Module, BTreeSet<Module>>;

pub(super) fn violations(sources: &[Source]) -> Vec<String> {
    let mut crates: BTreeMap<&Path, Vec<(Module, &str)>> = BTreeMap::new();
    for source in sources {
        if let Some((root, module)) = module_of(&source.path) {
            crates.entry(root).or_default().push((module, &source.text));
        }
    }
    let circles = crates.iter().flat_map(|(root, files)| {
        circles(&imports(files)).into_iter().map(|circle| {
            let names: Vec<_> = circle.iter().map(name).collect();
            format!("{}: import cycle: {}", root.display(), names.join(", "))
        })
    });
    circles.collect()
}

fn name(module: &Module) -> String {
    if module.is_empty() {
        "crate".to_owned()
    } else {
        module.join("::")
    }
}

/// The source folder of the crate, and the module that a file holds. Programs and tests have no modules to import.
fn module_of(path: &Path) -> Option<(&Path, Module)> {
    let root = path.ancestors().find(|dir| dir.ends_with("src"))?;
    let below = path.strip_prefix(root).ok()?.with_extension("");
    let module: Module = below
        .iter()
        .map(|part| part.to_string_lossy().into_owned())
        .collect();
    match module.first().map(String::as_str) {
        Some("bin") => None,
        Some("lib" | "main") if module.len() == 1 => Some((root, Module::new())),
        _ => Some((root, module)),
    }
}

fn imports(files: &[(Module, &str)]) -> Imports {
    let modules: BTreeSet<_> = files.iter().map(|(module, _)| module.clone()).collect();
    let mut imports = Imports::new();
    for (module, text) in files {
        let targets = imports.entry(module.clone()).or_default();
        for path in paths(module, &code(text), &modules) {
            let target = (0..=path.len())
                .rev()
                .map(|length| path[..length].to_vec())
                .find(|prefix| modules.contains(prefix));
            let is_parent = |target: &Module| !target.is_empty() && module.starts_with(target);
            targets.extend(target.filter(|target| target != module && !is_parent(target)));
        }
    }
    imports
}

/// A file without its comments and unit tests.
fn code(text: &str) -> String {
    let product = text
        .split("#[cfg(test)]\nmod tests {")
        .next()
        .unwrap_or_default();
    product
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .collect::<Vec<_>>()
        .join("\n")
}

/// All paths in `code` that lead into the crate itself, from its root.
fn paths(module: &Module, code: &str, modules: &BTreeSet<Module>) -> Vec<Module> {
    let mut starts = vec![
        ("crate".to_owned(), Module::new()),
        ("self".to_owned(), module.clone()),
    ];
    let parent = module.split_last().map(|(_, parent)| parent.to_vec());
    starts.extend(parent.map(|parent| ("super".to_owned(), parent)));
    let children = modules.iter().filter(|other| {
        other
            .split_last()
            .is_some_and(|(_, parent)| parent == module)
    });
    starts.extend(children.filter_map(|child| Some((child.last()?.clone(), child.clone()))));
    let mut found = Vec::new();
    for (word, base) in starts {
        let token = format!("{word}::");
        for (at, _) in code.match_indices(&token) {
            let starts_word = |c: char| !(c.is_alphanumeric() || c == '_' || c == ':');
            if code[..at].chars().next_back().is_none_or(starts_word) {
                expand(&base, &code[at + token.len()..], &mut found);
            }
        }
    }
    found
}

/// Follows a path, into each branch of `{…}`, and returns what comes behind it.
fn expand<'a>(base: &Module, text: &'a str, found: &mut Vec<Module>) -> &'a str {
    let text = text.trim_start();
    if let Some(mut rest) = text.strip_prefix('{') {
        loop {
            rest = expand(base, rest, found).trim_start();
            match rest.strip_prefix(',') {
                Some(next) if !next.trim_start().starts_with('}') => rest = next,
                Some(next) => return next.trim_start().trim_start_matches('}'),
                None => return rest.strip_prefix('}').unwrap_or(""),
            }
        }
    }
    let end = text
        .find(|c: char| !(c.is_alphanumeric() || c == '_' || c == '*'))
        .unwrap_or(text.len());
    let (word, rest) = text.split_at(end);
    let mut path = base.clone();
    match word {
        "super" => drop(path.pop()),
        "self" | "*" | "" => {}
        word => path.push(word.to_owned()),
    }
    match rest.strip_prefix("::") {
        Some(rest) => expand(&path, rest, found),
        None => {
            found.push(path);
            // `a as b`
            let renamed = rest.trim_start().strip_prefix("as ");
            renamed.map_or(rest, |rest| {
                rest.trim_start_matches(|c: char| c.is_alphanumeric() || c == '_')
            })
        }
    }
}

/// The groups of modules that reach each other.
fn circles(imports: &Imports) -> Vec<Vec<Module>> {
    let reached: Imports = imports
        .keys()
        .map(|module| (module.clone(), reach(imports, module)))
        .collect();
    let mut circles = BTreeSet::new();
    for (module, targets) in &reached {
        if targets.contains(module) {
            let back =
                |other: &&Module| reached.get(*other).is_some_and(|all| all.contains(module));
            circles.insert(targets.iter().filter(back).cloned().collect::<Vec<_>>());
        }
    }
    circles.into_iter().collect()
}

/// All modules that `module` imports, directly or through others.
fn reach(imports: &Imports, module: &Module) -> BTreeSet<Module> {
    let mut reached = BTreeSet::new();
    let mut open = vec![module];
    while let Some(next) = open.pop() {
        for target in imports.get(next).into_iter().flatten() {
            if reached.insert(target.clone()) {
                open.push(target);
            }
        }
    }
    reached
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(files: &[(&str, &str)]) -> Vec<String> {
        let source = |&(path, text): &(&str, &str)| Source {
            path: path.into(),
            text: text.to_owned(),
        };
        violations(&files.iter().map(source).collect::<Vec<_>>())
    }

    #[test]
    fn a_circle_of_three_is_named_once() {
        let found = check(&[
            ("x/src/lib.rs", "mod a; mod b; mod c; mod d;"),
            ("x/src/a.rs", "use crate::{d::D, b::{B, C as E}};"),
            ("x/src/b.rs", "use super::c;"),
            ("x/src/c.rs", "fn f() { crate::a::f() }"),
            ("x/src/d.rs", ""),
        ]);
        assert_eq!(found, ["x/src: import cycle: a, b, c"]);
    }

    #[test]
    fn a_module_must_not_use_the_root_that_uses_it() {
        let found = check(&[
            ("x/src/lib.rs", "mod a; pub use a::A;"),
            ("x/src/a.rs", "use crate::A;"),
        ]);
        assert_eq!(found, ["x/src: import cycle: crate, a"]);
    }

    #[test]
    fn a_child_may_use_its_parent() {
        let found = check(&[
            ("x/src/a.rs", "mod b; fn f() { b::g() }"),
            ("x/src/a/b.rs", "use super::A;"),
        ]);
        assert!(found.is_empty(), "{found:?}");
    }

    #[test]
    fn tests_comments_and_other_crates_do_not_count() {
        let test = "//! [`crate::a::A`]\nuse xcrate::a::A;\n#[cfg(test)]\nmod tests {\nuse crate::a::A;\n}";
        let found = check(&[
            ("x/src/lib.rs", "mod a; mod b;"),
            ("x/src/a.rs", "use crate::b::{self, B};"),
            ("x/src/b.rs", test),
            ("y/src/lib.rs", "mod a; mod b;"),
            ("y/src/b.rs", "use crate::a::A;"),
        ]);
        assert!(found.is_empty(), "{found:?}");
    }
}
