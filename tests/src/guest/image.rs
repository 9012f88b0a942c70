//! The guest's initramfs: busybox, modules in the order of their dependencies, programs, files.

use std::fs::{self, File};
use std::io::{self, BufWriter};
use std::path::Path;

use super::GuestConfig;
use super::archive::Archive;
use super::modules::{LoadOrder, Module, Modules, ModulesError};
use super::programs::{self, Entries, Entry, ImageError, MERGED, in_usr};
use crate::artifacts::debian::Kernel;

const INIT: &str = include_str!("init.sh");
/// The console's driver, and the bus it is found on.
const CONSOLE_MODULES: [&str; 2] = ["virtio_pci", "virtio_console"];
/// The network card's driver.
const NETWORK_MODULES: [&str; 1] = ["virtio_net"];
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
    let entries = programs::collect(config, busybox)?;

    let failed = |source| ImageError::Io {
        attempt: "write",
        path: path.to_path_buf(),
        source,
    };
    let mut archive = Archive::new(BufWriter::new(File::create(path).map_err(failed)?));
    fill(&mut archive, config, &at_boot, &later).map_err(failed)?;
    add(&mut archive, &entries, path)?;
    archive.finish().map_err(failed)?;
    Ok(load_order)
}

fn add<W: io::Write>(
    archive: &mut Archive<W>,
    entries: &Entries,
    image: &Path,
) -> Result<(), ImageError> {
    let failed = |attempt, path: &Path| {
        let path = path.to_path_buf();
        move |source| ImageError::Io {
            attempt,
            path,
            source,
        }
    };
    for (name, entry) in entries {
        let added = match entry {
            Entry::File(source, mode) => {
                let content = fs::read(source).map_err(failed("read", source))?;
                archive.file(name, *mode, &content)
            }
            Entry::Link(target) => archive.link(name, target),
        };
        added.map_err(failed("write", image))?;
    }
    Ok(())
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
    // One /usr, as in packages: what is in /bin here and in /usr/bin there is one file.
    for link in MERGED {
        archive.folder(&format!("/usr{link}"))?;
        archive.link(link, &format!("usr{link}"))?;
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
        .try_for_each(|(path, content)| archive.file(&in_usr(path), 0o644, content))
}

fn at_boot(config: &GuestConfig, modules: &Modules) -> Result<Vec<Module>, ModulesError> {
    let mut loaded = Vec::new();
    let network = NETWORK_MODULES
        .into_iter()
        .filter(|_| config.api_server_port.is_some());
    let named = config.modules.iter().map(String::as_str);
    for name in CONSOLE_MODULES.into_iter().chain(network).chain(named) {
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
