//! The kernel's modules: where each lies, what it depends on, and in which order they go in.
//!
//! Read from the modules themselves, as depmod(8) does, because a package that is only unpacked has no `modules.dep`.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::artifacts::debian::find_program;
use crate::process::{command, output_of};

/// Why a module cannot go into the image.
#[derive(Debug, thiserror::Error)]
pub enum ModulesError {
    #[error("the kernel in {} has no module {name}, neither as a file nor built in", dir.display())]
    Unknown { name: String, dir: PathBuf },
    #[error("cannot read {}", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot decompress {} by {program}", path.display())]
    Decompress {
        path: PathBuf,
        program: &'static str,
        #[source]
        source: io::Error,
    },
}

/// What to insert, in this order, for each module that can be loaded later.
pub(super) type LoadOrder = Vec<(String, Vec<String>)>;

/// A module that can be inserted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Module {
    /// With underscores, as in /proc/modules.
    pub(super) name: String,
    /// The decompressed file.
    pub(super) content: Vec<u8>,
}

/// All modules of one kernel.
#[derive(Debug)]
pub(super) struct Modules {
    dir: PathBuf,
    files: HashMap<String, PathBuf>,
    built_in: Vec<String>,
}

impl Modules {
    /// Those below `lib/modules/RELEASE`.
    pub(super) fn in_dir(dir: &Path) -> Result<Self, ModulesError> {
        let mut files = HashMap::new();
        collect(&dir.join("kernel"), &mut files)?;
        // A kernel without this file has no module that is built in and asked for by name.
        let list = fs::read_to_string(dir.join("modules.builtin")).unwrap_or_default();
        let built_in = list
            .lines()
            .filter_map(|line| module_name(Path::new(line)))
            .collect();
        Ok(Self {
            dir: dir.to_path_buf(),
            files,
            built_in,
        })
    }

    /// Adds `name` to `loaded`, after what it depends on and that is not there yet.
    pub(super) fn resolve(&self, name: &str, loaded: &mut Vec<Module>) -> Result<(), ModulesError> {
        let name = name.replace('-', "_");
        if self.built_in.contains(&name) || loaded.iter().any(|module| module.name == name) {
            return Ok(());
        }
        let unknown = || ModulesError::Unknown {
            name: name.clone(),
            dir: self.dir.clone(),
        };
        let content = read(self.files.get(&name).ok_or_else(unknown)?)?;
        for dependency in depends(&content) {
            self.resolve(&dependency, loaded)?;
        }
        loaded.push(Module { name, content });
        Ok(())
    }
}

fn collect(dir: &Path, files: &mut HashMap<String, PathBuf>) -> Result<(), ModulesError> {
    let failed = |source| ModulesError::Read {
        path: dir.to_path_buf(),
        source,
    };
    for entry in fs::read_dir(dir).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.is_dir() {
            collect(&path, files)?;
        } else if let Some(name) = module_name(&path) {
            files.insert(name, path);
        }
    }
    Ok(())
}

/// `nf_conntrack` of `…/nf-conntrack.ko.xz`.
fn module_name(path: &Path) -> Option<String> {
    let (name, _compression) = path.file_name()?.to_str()?.split_once(".ko")?;
    Some(name.replace('-', "_"))
}

/// Debian compresses by xz since 13, Ubuntu by zstd; the guest's insmod takes neither.
fn read(path: &Path) -> Result<Vec<u8>, ModulesError> {
    let program = match path.extension().and_then(|extension| extension.to_str()) {
        Some("xz") => "xz",
        Some("zst") => "zstd",
        _ => {
            return fs::read(path).map_err(|source| ModulesError::Read {
                path: path.to_path_buf(),
                source,
            });
        }
    };
    let failed = |source| ModulesError::Decompress {
        path: path.to_path_buf(),
        program,
        source,
    };
    let found =
        find_program(program).ok_or_else(|| failed(io::Error::other("it is not installed")))?;
    let mut decompress = command(found);
    decompress.arg("-dc").arg(path);
    let output = output_of(decompress).map_err(failed)?;
    if output.status.success() {
        Ok(output.stdout)
    } else {
        Err(failed(io::Error::other(
            String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        )))
    }
}

/// What the `depends=` entry of a module's `.modinfo` names.
fn depends(module: &[u8]) -> Vec<String> {
    const ENTRY: &[u8] = b"\0depends=";
    let Some(start) = module
        .windows(ENTRY.len())
        .position(|window| window == ENTRY)
    else {
        return Vec::new();
    };
    let list = module[start + ENTRY.len()..]
        .split(|&byte| byte == 0)
        .next()
        .unwrap_or_default();
    let list = String::from_utf8_lossy(list);
    list.split(',')
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn modules(files: &[(&str, &str)], built_in: &str) -> (tempfile::TempDir, Modules) {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("kernel")).unwrap();
        for (name, depends) in files {
            let content = format!("ELF\0license=GPL\0depends={depends}\0name={name}\0");
            fs::write(
                dir.path().join("kernel").join(format!("{name}.ko")),
                content,
            )
            .unwrap();
        }
        fs::write(dir.path().join("modules.builtin"), built_in).unwrap();
        let modules = Modules::in_dir(dir.path()).unwrap();
        (dir, modules)
    }

    #[test]
    fn dependencies_are_loaded_first_and_once() {
        let files = [
            ("ip_vs", "nf-conntrack,libcrc32c"),
            ("nf-conntrack", "libcrc32c"),
            ("libcrc32c", ""),
        ];
        let (_dir, modules) = modules(&files, "");
        let mut loaded = Vec::new();
        modules.resolve("ip_vs", &mut loaded).unwrap();
        modules.resolve("nf_conntrack", &mut loaded).unwrap();
        let names: Vec<_> = loaded.iter().map(|module| module.name.as_str()).collect();
        assert_eq!(names, ["libcrc32c", "nf_conntrack", "ip_vs"]);
    }

    #[test]
    fn built_in_modules_are_skipped_and_unknown_ones_are_named() {
        let (_dir, modules) = modules(&[("veth", "")], "kernel/drivers/net/virtio_net.ko\n");
        let mut loaded = Vec::new();
        modules.resolve("virtio_net", &mut loaded).unwrap();
        assert!(loaded.is_empty());
        assert!(
            modules
                .resolve("ip_vs", &mut loaded)
                .unwrap_err()
                .to_string()
                .contains("ip_vs")
        );
    }
}
