//! The guest's initramfs: busybox, modules in the order of their dependencies, programs with their libraries.

use std::fs::{self, File};
use std::io::{self, BufWriter};
use std::path::{Path, PathBuf};

use super::archive::Archive;
use super::modules::{Module, Modules, ModulesError};
use super::{GuestConfig, LoadOrder};
use crate::debian::Kernel;
use crate::process::{command, output_of};

const INIT: &str = include_str!("init.sh");
/// The network card's driver, and the bus it is found on.
const NETWORK_MODULES: [&str; 2] = ["virtio_pci", "virtio_net"];
const FOLDERS: [&str; 9] = [
    "/proc",
    "/sys",
    "/dev",
    "/tmp",
    "/run",
    "/var/log",
    "/var/lib/nettune",
    "/etc/nettune",
    "/modules",
];

/// Why an initramfs could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// A module cannot go in.
    #[error(transparent)]
    Modules(#[from] ModulesError),
    /// A program or library of the host cannot be read.
    #[error("cannot {attempt} {}", path.display())]
    Io {
        /// What was tried.
        attempt: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A library that a program needs is not on the host.
    #[error("{} needs {library}, which is not there", program.display())]
    NoLibrary {
        /// The program.
        program: PathBuf,
        /// The library.
        library: String,
    },
}

/// Writes the initramfs to `path`; returns what to insert for each module that can be loaded later.
pub(super) fn write(
    config: &GuestConfig,
    kernel: &Kernel,
    busybox: &Path,
    path: &Path,
) -> Result<LoadOrder, ImageError> {
    let modules = Modules::in_dir(&kernel.modules)?;
    let at_boot = at_boot(config, &modules)?;
    let (later, load_order) = later(config, &modules)?;
    let programs = with_libraries(config, busybox)?;

    let failed = |source| ImageError::Io {
        attempt: "write",
        path: path.to_path_buf(),
        source,
    };
    let mut archive = Archive::new(BufWriter::new(File::create(path).map_err(failed)?));
    fill(&mut archive, config, &at_boot, &later).map_err(failed)?;
    for (name, source) in programs {
        let content = fs::read(&source).map_err(|error| ImageError::Io {
            attempt: "read",
            path: source,
            source: error,
        })?;
        archive.file(&name, 0o755, &content).map_err(failed)?;
    }
    archive.finish().map_err(failed)?;
    Ok(load_order)
}

fn fill<W: io::Write>(
    archive: &mut Archive<W>,
    config: &GuestConfig,
    at_boot: &[Module],
    later: &[Module],
) -> io::Result<()> {
    for folder in FOLDERS {
        archive.folder(folder)?;
    }
    archive.file("/init", 0o755, INIT.as_bytes())?;
    let mut packed: Vec<&str> = Vec::new();
    for module in at_boot.iter().chain(later) {
        if !packed.contains(&module.name.as_str()) {
            archive.file(
                &format!("/modules/{}.ko", module.name),
                0o644,
                &module.content,
            )?;
            packed.push(&module.name);
        }
    }
    archive.file(
        "/modules/at_boot",
        0o644,
        names(at_boot).join(" ").as_bytes(),
    )?;
    if config.api_server_port.is_some() {
        archive.file("/modules/network", 0o644, b"")?;
    }
    config
        .files
        .iter()
        .try_for_each(|(path, content)| archive.file(path, 0o644, content))
}

fn at_boot(config: &GuestConfig, modules: &Modules) -> Result<Vec<Module>, ModulesError> {
    let mut loaded = Vec::new();
    let network = NETWORK_MODULES
        .into_iter()
        .filter(|_| config.api_server_port.is_some());
    for name in network.chain(config.modules.iter().map(String::as_str)) {
        modules.resolve(name, &mut loaded)?;
    }
    Ok(loaded)
}

fn later(
    config: &GuestConfig,
    modules: &Modules,
) -> Result<(Vec<Module>, LoadOrder), ModulesError> {
    let mut packed = Vec::new();
    let mut load_order = Vec::new();
    for name in &config.more_modules {
        let mut needed = Vec::new();
        modules.resolve(name, &mut needed)?;
        load_order.push((name.clone(), names(&needed)));
        packed.extend(needed);
    }
    Ok((packed, load_order))
}

fn names(modules: &[Module]) -> Vec<String> {
    modules.iter().map(|module| module.name.clone()).collect()
}

/// Path in the guest and file on the host of busybox, the programs and their libraries, each once.
fn with_libraries(
    config: &GuestConfig,
    busybox: &Path,
) -> Result<Vec<(String, PathBuf)>, ImageError> {
    let mut files = vec![("/bin/busybox".to_owned(), busybox.to_path_buf())];
    for program in &config.programs {
        let name = program.file_name().unwrap_or_default().to_string_lossy();
        files.push((format!("/bin/{name}"), program.clone()));
    }
    for program in config
        .programs
        .iter()
        .map(PathBuf::as_path)
        .chain([busybox])
    {
        for library in libraries(program)? {
            if !files.iter().any(|(name, _)| *name == library) {
                files.push((library.clone(), PathBuf::from(library)));
            }
        }
    }
    Ok(files)
}

/// The paths that ldd(1) names; none for a static program, for which it fails.
fn libraries(program: &Path) -> Result<Vec<String>, ImageError> {
    let mut ldd = command("ldd");
    ldd.arg(program);
    let output = output_of(ldd).map_err(|source| ImageError::Io {
        attempt: "run ldd on",
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
}
