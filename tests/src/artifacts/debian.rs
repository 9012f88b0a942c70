//! What the kernel tier takes from Debian or Ubuntu: QEMU, busybox and strace installed, a kernel and packages for
//! the guest only unpacked.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Output};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::artifacts::cache::{self, CacheError};
use crate::process::{command, command_line, output_of};
use crate::progress::Progress;

pub mod packages;

/// Programs that the tier needs on this machine, each with the package that has it.
const PROGRAMS: [(&str, &str); 3] = [
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("busybox", "busybox-static"),
    ("strace", "strace"),
];
/// Meta packages that depend on the newest kernel for virtual machines: Debian's, then Ubuntu's.
const KERNELS: [&str; 2] = ["linux-image-cloud-amd64", "linux-image-virtual"];
const DPKG_LISTS: &str = "/var/lib/apt/lists";

/// Why something of the distribution is not to be had.
#[derive(Debug, thiserror::Error)]
pub enum DebianError {
    #[error("{missing} missing; run `sudo {command}`")]
    NotRoot { missing: String, command: String },
    #[error("`{command}` cannot be run; on a system without apt, {instead}")]
    NoApt {
        command: String,
        instead: &'static str,
        #[source]
        source: io::Error,
    },
    #[error("`{command}` ended with {status}:\n{stderr}")]
    Failed {
        command: String,
        status: ExitStatus,
        stderr: String,
    },
    #[error(
        "apt knows no kernel package of {KERNELS:?}; run `apt-get update`, or this is no amd64"
    )]
    NoKernel,
    #[error("no {what} in {}", dir.display())]
    NotInPackage { what: &'static str, dir: PathBuf },
    #[error("cannot unpack {what} for the guest")]
    Cache {
        what: String,
        #[source]
        source: Box<CacheError<DebianError>>,
    },
}

/// A kernel with its modules.
#[derive(Debug, Clone)]
pub struct Kernel {
    /// The compressed image that QEMU boots.
    pub image: PathBuf,
    /// `lib/modules/RELEASE`.
    pub modules: PathBuf,
}

/// Sees to it that QEMU, busybox and strace are installed; as root it installs what is missing.
pub fn install_programs() -> Result<(), DebianError> {
    let missing: Vec<&str> = PROGRAMS
        .iter()
        .filter(|(program, _)| find_program(program).is_none())
        .map(|(_, package)| *package)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let mut install = command("apt-get");
    install
        .args(["install", "-y", "--no-install-recommends"])
        .args(&missing)
        .env("DEBIAN_FRONTEND", "noninteractive");
    if !rustix::process::geteuid().is_root() {
        return Err(DebianError::NotRoot {
            missing: missing.join(" and "),
            command: command_line(&install),
        });
    }
    let progress = Progress::start(
        &format!("installing {}", missing.join(" and ")),
        Duration::from_secs(30),
    );
    update_lists_if_missing()?;
    run(install)?;
    progress.done();
    Ok(())
}

/// The path of a program, also where PATH of a plain user leaves out the sbin folders.
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let more = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"].map(PathBuf::from);
    std::env::split_paths(&path)
        .chain(more)
        .map(|dir| dir.join(name))
        .find(|file| file.is_file())
}

/// The distribution's newest kernel for virtual machines, downloaded and unpacked once for each version.
pub fn kernel() -> Result<Kernel, DebianError> {
    static FOUND: Mutex<Option<Kernel>> = Mutex::new(None);
    let mut found = FOUND.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(kernel) = &*found {
        return Ok(kernel.clone());
    }
    let packages = kernel_packages()?;
    let dir = cache::entry(&format!("kernel/{}", packages.join("+")), |target| {
        let expected = Duration::from_secs(15);
        unpack(
            "getting a kernel for the guest",
            expected,
            &packages,
            target,
        )
    });
    let dir = dir.map_err(|error| DebianError::Cache {
        what: "a kernel".to_owned(),
        source: Box::new(error),
    });
    let kernel = in_dir(&dir?)?;
    *found = Some(kernel.clone());
    Ok(kernel)
}

/// `PACKAGE=VERSION` of the image and, where it is packaged apart (Ubuntu), of the modules.
fn kernel_packages() -> Result<Vec<String>, DebianError> {
    update_lists_if_missing()?;
    let is_kernel =
        |name: &str| name.starts_with("linux-image-") || name.starts_with("linux-modules-");
    for meta in KERNELS {
        let Some(image) = depends(meta)?.into_iter().find(|name| is_kernel(name)) else {
            continue;
        };
        let modules = depends(&image)?
            .into_iter()
            .find(|name| name.starts_with("linux-modules-"));
        return std::iter::once(image)
            .chain(modules)
            .map(|package| with_version(&package))
            .collect();
    }
    Err(DebianError::NoKernel)
}

fn update_lists_if_missing() -> Result<(), DebianError> {
    let has_lists = fs::read_dir(DPKG_LISTS).is_ok_and(|dir| {
        dir.flatten()
            .any(|entry| entry.file_name().to_string_lossy().contains("_Packages"))
    });
    if has_lists {
        return Ok(());
    }
    let mut update = command("apt-get");
    update.arg("update");
    if !rustix::process::geteuid().is_root() {
        return Err(DebianError::NotRoot {
            missing: "apt's package lists".to_owned(),
            command: command_line(&update),
        });
    }
    run(update).map(drop)
}

/// The names that a package depends on; none where the package is unknown.
fn depends(package: &str) -> Result<Vec<String>, DebianError> {
    let mut query = command("apt-cache");
    query.args(["depends", "--important", package]);
    match run(query) {
        Ok(output) => Ok(parse_depends(&String::from_utf8_lossy(&output.stdout))),
        Err(DebianError::Failed { .. }) => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

fn parse_depends(output: &str) -> Vec<String> {
    let names = output.lines().filter_map(|line| {
        line.trim()
            .trim_start_matches('|')
            .strip_prefix("Depends: ")
    });
    names.map(|name| name.trim().to_owned()).collect()
}

fn with_version(package: &str) -> Result<String, DebianError> {
    let mut query = command("apt-cache");
    query.args(["show", "--no-all-versions", package]);
    let output = run(query)?;
    let text = String::from_utf8_lossy(&output.stdout);
    let version = text
        .lines()
        .find_map(|line| line.strip_prefix("Version: "))
        .ok_or(DebianError::NoKernel)?;
    Ok(format!("{package}={}", version.trim()))
}

/// Downloads packages, each with its version, and unpacks them into one folder.
fn unpack(
    what: &str,
    expected: Duration,
    packages: &[String],
    target: &Path,
) -> Result<(), DebianError> {
    let progress = Progress::start(what, expected);
    progress.at(&packages.join(" "));
    let mut download = command("apt-get");
    run_in(target, {
        download.arg("download").args(packages);
        download
    })?;
    for package in files_in(target)
        .into_iter()
        .filter(|path| path.extension().is_some_and(|e| e == "deb"))
    {
        progress.at(&package.display().to_string());
        let mut extract = command("dpkg-deb");
        extract.arg("-x").arg(&package).arg(target);
        run(extract)?;
        // What cannot be removed costs space only.
        let _ = fs::remove_file(&package);
    }
    progress.done();
    Ok(())
}

fn in_dir(dir: &Path) -> Result<Kernel, DebianError> {
    let missing = |what| DebianError::NotInPackage {
        what,
        dir: dir.to_path_buf(),
    };
    let is_image = |path: &PathBuf| {
        path.file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with("vmlinuz-"))
    };
    let image = files_in(&dir.join("boot"))
        .into_iter()
        .find(is_image)
        .ok_or_else(|| missing("boot/vmlinuz-*"))?;
    let modules = ["lib/modules", "usr/lib/modules"]
        .iter()
        .flat_map(|place| files_in(&dir.join(place)))
        .next();
    Ok(Kernel {
        image,
        modules: modules.ok_or_else(|| missing("lib/modules/*"))?,
    })
}

fn files_in(dir: &Path) -> Vec<PathBuf> {
    fs::read_dir(dir)
        .map(|entries| entries.flatten().map(|entry| entry.path()).collect())
        .unwrap_or_default()
}

fn run(command: Command) -> Result<Output, DebianError> {
    let line = command_line(&command);
    let instead =
        "install qemu-system-x86_64 and a static busybox, and run the kernel tier elsewhere";
    let output = output_of(command).map_err(|source| DebianError::NoApt {
        command: line.clone(),
        instead,
        source,
    })?;
    if output.status.success() {
        return Ok(output);
    }
    let stderr = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(DebianError::Failed {
        command: line,
        status: output.status,
        stderr,
    })
}

fn run_in(dir: &Path, mut command: Command) -> Result<Output, DebianError> {
    command.current_dir(dir);
    run(command)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_concrete_kernel_is_read_from_what_the_meta_package_depends_on() {
        let printed = "linux-image-cloud-amd64\n  Depends: linux-image-6.1.0-56-cloud-amd64\n";
        assert_eq!(parse_depends(printed), ["linux-image-6.1.0-56-cloud-amd64"]);
    }
}
