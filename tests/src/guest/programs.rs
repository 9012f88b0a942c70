//! Programs for the guest: this machine's own and those of packages, each with the libraries that it is linked with.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use super::GuestConfig;
use super::modules::ModulesError;
use crate::artifacts::debian::DebianError;
use crate::artifacts::debian::packages::{self, Package, below, follow, matches};
use crate::process::{command, output_of};

/// Why an initramfs could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    #[error(transparent)]
    Modules(#[from] ModulesError),
    #[error(transparent)]
    Debian(#[from] DebianError),
    #[error("package {package} has no {path}")]
    NotInPackage {
        package: &'static str,
        path: &'static str,
    },
    #[error("cannot {attempt} {}", path.display())]
    Io {
        attempt: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{} needs {library}, which is not there", program.display())]
    NoLibrary { program: PathBuf, library: String },
}

/// What is at a path in the guest.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Entry {
    /// A copy of this file, with these permissions.
    File(PathBuf, u32),
    /// A link to this path.
    Link(String),
}

/// By path in the guest, where everything is below `/usr`.
pub(super) type Entries = BTreeMap<String, Entry>;

/// The dynamic loader of amd64, which can also list what it would load.
const LOADER: &str = "/usr/lib64/ld-linux-x86-64.so.2";
/// Folders that are links into `/usr` in the guest.
pub(super) const MERGED: [&str; 4] = ["/bin", "/sbin", "/lib", "/lib64"];

/// Where a path of a system with or without one `/usr` lies in the guest.
pub(super) fn in_usr(path: &str) -> String {
    let merged = MERGED.iter().any(|folder| {
        path.strip_prefix(folder)
            .is_some_and(|rest| rest.starts_with('/'))
    });
    if merged {
        format!("/usr{path}")
    } else {
        path.to_owned()
    }
}

/// Busybox, the programs and the packages of a guest. A library that a package brings goes before this machine's.
pub(super) fn collect(config: &GuestConfig, busybox: &Path) -> Result<Entries, ImageError> {
    let mut entries = Entries::new();
    for package in &config.packages {
        add_package(package, &mut entries)?;
    }
    let programs = config.programs.iter().map(PathBuf::as_path);
    for program in programs.chain([busybox]) {
        let name = program.file_name().unwrap_or_default().to_string_lossy();
        let entry = Entry::File(program.to_path_buf(), 0o755);
        entries.insert(format!("/usr/bin/{name}"), entry);
        let mut ldd = command("ldd");
        ldd.arg(program);
        for library in listed(ldd, program)? {
            let entry = Entry::File(PathBuf::from(&library), 0o755);
            entries.entry(in_usr(&library)).or_insert(entry);
        }
    }
    Ok(entries)
}

fn add_package(package: &Package, entries: &mut Entries) -> Result<(), ImageError> {
    let root = packages::root_of(package)?;
    let mut linked = Vec::new();
    for pattern in package.programs.iter().chain(package.files) {
        let found = matches(&root, pattern);
        if found.is_empty() {
            return Err(ImageError::NotInPackage {
                package: package.name,
                path: pattern,
            });
        }
        for path in found {
            add(&root, &path, entries)?;
        }
    }
    for pattern in package.programs {
        linked.extend(matches(&root, pattern));
    }
    // Extension modules are linked with libraries too, and nothing else names those.
    let modules = entries.keys().filter(|path| path.ends_with(".so"));
    linked.extend(modules.filter(|path| below(&root, path).exists()).cloned());
    add_libraries(&root, &linked, entries)
}

/// Adds a file, a link with what it leads to, or a folder with all that is in it.
fn add(root: &Path, path: &str, entries: &mut Entries) -> Result<(), ImageError> {
    let file = below(root, path);
    let failed = |source| ImageError::Io {
        attempt: "read",
        path: file.clone(),
        source,
    };
    let metadata = fs::symlink_metadata(&file).map_err(failed)?;
    if metadata.is_symlink() {
        let target = fs::read_link(&file).map_err(failed)?;
        let target = target.to_string_lossy().into_owned();
        let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
        let leads_to = if target.starts_with('/') {
            target.clone()
        } else {
            format!("{folder}/{target}")
        };
        entries.insert(in_usr(path), Entry::Link(target));
        // What a link leads to may be in another package that is not there: then it leads nowhere here too.
        let is_there = below(root, &leads_to).exists();
        return if is_there && !leads_to.contains("/../") {
            add(root, &leads_to, entries)
        } else {
            Ok(())
        };
    }
    if metadata.is_dir() {
        for entry in fs::read_dir(&file).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            add(root, &format!("{path}/{}", name.to_string_lossy()), entries)?;
        }
        return Ok(());
    }
    let mode = metadata.permissions().mode() & 0o7777;
    entries.insert(in_usr(path), Entry::File(file, mode));
    Ok(())
}

/// Asks the package's own loader: this machine's may be of another version, and has other libraries.
fn add_libraries(
    root: &Path,
    programs: &[String],
    entries: &mut Entries,
) -> Result<(), ImageError> {
    let unreadable = |source| ImageError::Io {
        attempt: "follow",
        path: root.join(LOADER.trim_start_matches('/')),
        source,
    };
    let loader = follow(root, LOADER).map_err(unreadable)?;
    entries.insert(LOADER.to_owned(), Entry::File(loader.clone(), 0o755));
    let folders = library_folders(&root.join("usr/lib"));
    for program in programs {
        let mut list = command(&loader);
        list.arg("--inhibit-cache").arg("--library-path");
        list.arg(folders.join(":"));
        list.arg("--list").arg(below(root, program));
        for library in listed(list, Path::new(program))? {
            // What is not below the root is this loader under the name that the program calls it by.
            let Some(inside) = library.strip_prefix(&*root.to_string_lossy()) else {
                continue;
            };
            let source = follow(root, inside).map_err(unreadable)?;
            let entry = Entry::File(source, 0o755);
            entries.entry(in_usr(inside)).or_insert(entry);
        }
    }
    Ok(())
}

/// All folders that have libraries in them.
fn library_folders(dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut has_library = false;
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        has_library |= name.starts_with("lib") && name.contains(".so");
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.extend(library_folders(&entry.path()));
        }
    }
    if has_library {
        found.insert(0, dir.to_string_lossy().into_owned());
    }
    found
}

/// The paths that ldd(1) or the loader print; none for a static program, for which they fail.
fn listed(list: std::process::Command, program: &Path) -> Result<Vec<String>, ImageError> {
    let output = output_of(list).map_err(|source: io::Error| ImageError::Io {
        attempt: "list the libraries of",
        path: program.to_path_buf(),
        source,
    })?;
    let missing = |library: &str| ImageError::NoLibrary {
        program: program.to_path_buf(),
        library: library.to_owned(),
    };
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(library)
        .map(|line| line.map_err(missing))
        .collect()
}

/// The path in `libc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x…)` or `/lib64/ld-linux-x86-64.so.2 (0x…)`; the name
/// as an error where it was not found.
fn library(line: &str) -> Option<Result<String, &str>> {
    let (name, path) = line.split_once(" => ").unwrap_or(("", line));
    let path = path.trim();
    if path.starts_with("not found") {
        return Some(Err(name.trim()));
    }
    path.starts_with('/')
        .then(|| Ok(path.split(" (").next().unwrap_or(path).to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_read_from_what_ldd_prints() {
        let libc = "\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f0000000000)";
        assert_eq!(
            library(libc),
            Some(Ok("/lib/x86_64-linux-gnu/libc.so.6".to_owned()))
        );
        let loader = "\t/lib64/ld-linux-x86-64.so.2 (0x00007f0000000000)";
        assert_eq!(
            library(loader),
            Some(Ok("/lib64/ld-linux-x86-64.so.2".to_owned()))
        );
        assert_eq!(library("\tlinux-vdso.so.1 (0x00007ffc00000000)"), None);
        assert_eq!(library("\tlibx.so.1 => not found"), Some(Err("libx.so.1")));
    }

    #[test]
    fn a_folder_is_added_with_links_and_their_targets() {
        let root = tempfile::tempdir().unwrap();
        let bin = root.path().join("usr/bin");
        fs::create_dir_all(&bin).unwrap();
        fs::write(bin.join("python3.11"), "").unwrap();
        std::os::unix::fs::symlink("python3.11", bin.join("python3")).unwrap();
        let mut entries = Entries::new();
        add(root.path(), "/bin/python3", &mut entries).unwrap();
        assert_eq!(
            entries["/usr/bin/python3"],
            Entry::Link("python3.11".to_owned())
        );
        assert!(matches!(
            entries["/usr/bin/python3.11"],
            Entry::File(_, 0o644)
        ));
    }
}
