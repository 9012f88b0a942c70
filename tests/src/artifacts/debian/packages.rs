//! Packages of the distribution, unpacked with all that they depend on, for the guest.
//!
//! apt itself resolves the dependencies, as for a machine on which nothing is installed, so neither the names of
//! libraries' packages nor their versions are written down here. What is installed on this machine stays as it is.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{DebianError, command, files_in, run, run_in, unpack, update_lists_if_missing};
use crate::artifacts::cache;

/// What of a package goes into a guest. Paths are absolute, below `/usr` (as systems with one `/usr` have them), and a
/// `*` at the end stands for the rest of a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Package {
    pub name: &'static str,
    /// Programs and libraries; the libraries that they are linked with go with them.
    pub programs: &'static [&'static str],
    /// Files, and folders with all that is in them.
    pub files: &'static [&'static str],
}

/// ip(8) and bridge(8), which can do what busybox cannot: VXLAN, forwarding entries, neighbor tables.
pub const IPROUTE2: Package = Package {
    name: "iproute2",
    programs: &["/usr/bin/ip", "/usr/sbin/bridge"],
    files: &[],
};

/// The sysctl(8) of most distributions.
pub const PROCPS: Package = Package {
    name: "procps",
    programs: &["/usr/sbin/sysctl"],
    files: &[],
};

/// What applies the files of sysctl.d(5) at boot.
pub const SYSTEMD_SYSCTL: Package = Package {
    name: "systemd",
    programs: &["/usr/lib/systemd/systemd-sysctl"],
    files: &[],
};

/// TuneD with its Python, and the library that it loads by name.
pub const TUNED: Package = Package {
    name: "tuned",
    programs: &[
        "/usr/bin/python3",
        "/usr/sbin/tuned",
        "/usr/lib/x86_64-linux-gnu/libudev.so.1",
    ],
    files: &[
        "/etc/tuned",
        "/usr/lib/tuned",
        "/usr/lib/python3*",
        "/usr/lib/x86_64-linux-gnu/girepository-1.0",
    ],
};

/// What gives a program another time of day than the machine has. It is used on this machine, not in a guest.
pub const LIBFAKETIME: Package = Package {
    name: "libfaketime",
    programs: &[],
    files: &["/usr/lib/x86_64-linux-gnu/faketime"],
};

/// All that tests ask for.
pub const ALL: [Package; 5] = [IPROUTE2, PROCPS, SYSTEMD_SYSCTL, TUNED, LIBFAKETIME];

/// Folders that systems with one `/usr` have there, and others beside it.
const MERGED: [&str; 4] = ["bin", "sbin", "lib", "lib64"];
/// What no program reads; half of the space.
const DOCUMENTATION: [&str; 4] = [
    "usr/share/doc",
    "usr/share/man",
    "usr/share/locale",
    "usr/share/i18n",
];

/// The folder in which a package is unpacked with all that it depends on, as if it were `/`.
pub fn root_of(package: &Package) -> Result<PathBuf, DebianError> {
    update_lists_if_missing()?;
    let files = closure(package.name)?;
    let key = cache::key(&files.iter().map(String::as_bytes).collect::<Vec<_>>());
    let name = format!("packages/{}-{key}", package.name);
    let root = cache::entry(&name, |target| {
        let what = format!("getting {} with what it depends on", package.name);
        let packages: Vec<String> = files.iter().filter_map(|file| with_version(file)).collect();
        unpack(&what, EXPECTED, &packages, target)?;
        merge(target)
    });
    root.map_err(|error| DebianError::Cache {
        what: package.name.to_owned(),
        source: Box::new(error),
    })
}

const EXPECTED: Duration = Duration::from_secs(20);

/// The files that apt would download for this package on an empty machine, by name.
fn closure(package: &str) -> Result<Vec<String>, DebianError> {
    let mut query = command("apt-get");
    query.args(["-qq", "-o", "Dir::State::Status=/dev/null"]);
    query.args(["-o", "Debug::NoLocking=true"]);
    query.args(["install", "--print-uris", "--no-install-recommends"]);
    query.arg(package);
    let output = run(query)?;
    let mut files = parse_uris(&String::from_utf8_lossy(&output.stdout));
    files.sort();
    Ok(files)
}

/// The second word of `'http://…' NAME_VERSION_ARCHITECTURE.deb SIZE HASH`.
fn parse_uris(output: &str) -> Vec<String> {
    let lines = output.lines().filter(|line| line.starts_with('\''));
    lines
        .filter_map(|line| line.split_whitespace().nth(1))
        .map(str::to_owned)
        .collect()
}

/// `NAME=VERSION` of `NAME_VERSION_ARCHITECTURE.deb`, where the colon after an epoch is written %3a.
fn with_version(file: &str) -> Option<String> {
    let mut parts = file.split('_');
    let (name, version) = (parts.next()?, parts.next()?);
    Some(format!("{name}={}", version.replace("%3a", ":")))
}

/// Merges `/lib` and `/usr/lib` of packages into one folder, and leaves out what is not needed.
fn merge(root: &Path) -> Result<(), DebianError> {
    for name in MERGED {
        let beside = root.join(name);
        if beside.is_dir() {
            let mut copy = command("cp");
            let usr = format!("usr/{name}");
            copy.args(["-a", "--remove-destination"]);
            copy.args([&format!("{name}/."), &usr]);
            run_in(root, {
                let mut folder = command("mkdir");
                folder.args(["-p", &usr]);
                folder
            })?;
            run_in(root, copy)?;
            // What cannot be removed costs space only.
            let _ = fs::remove_dir_all(&beside);
        }
    }
    for name in DOCUMENTATION {
        let _ = fs::remove_dir_all(root.join(name));
    }
    Ok(())
}

/// The paths below `root` that a pattern means.
pub(crate) fn matches(root: &Path, pattern: &str) -> Vec<String> {
    let Some(start) = pattern.strip_suffix('*') else {
        let exists = fs::symlink_metadata(below(root, pattern)).is_ok();
        return exists.then(|| pattern.to_owned()).into_iter().collect();
    };
    let (folder, start) = start.rsplit_once('/').unwrap_or(("", start));
    let mut found: Vec<String> = files_in(&below(root, folder))
        .iter()
        .filter_map(|path| path.file_name()?.to_str())
        .filter(|name| name.starts_with(start))
        .map(|name| format!("{folder}/{name}"))
        .collect();
    found.sort();
    found
}

/// Where an absolute path of the package lies on this machine.
pub(crate) fn below(root: &Path, path: &str) -> PathBuf {
    let path = path.trim_start_matches('/');
    let merged = MERGED.iter().any(|name| {
        path.strip_prefix(name)
            .is_some_and(|rest| rest.starts_with('/'))
    });
    if merged {
        root.join("usr").join(path)
    } else {
        root.join(path)
    }
}

/// The file behind a path, where links are followed inside of `root`.
pub(crate) fn follow(root: &Path, path: &str) -> io::Result<PathBuf> {
    let mut file = below(root, path);
    for _ in 0..MOST_LINKS {
        let Ok(target) = fs::read_link(&file) else {
            return fs::metadata(&file).map(|_| file);
        };
        file = match target.to_str().filter(|_| target.is_absolute()) {
            Some(absolute) => below(root, absolute),
            None => file.parent().unwrap_or(root).join(target),
        };
    }
    Err(io::Error::other("too many links"))
}

const MOST_LINKS: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn versions_are_read_from_what_apt_would_download() {
        let printed = "'http://deb.debian.org/pool/libc/libcap2_2.66.deb' libcap2_1%3a2.66-4+b1_amd64.deb 27708 \
                       MD5Sum:c0\nNOTE: nothing else\n";
        let files = parse_uris(printed);
        assert_eq!(files, ["libcap2_1%3a2.66-4+b1_amd64.deb"]);
        assert_eq!(
            with_version(&files[0]).as_deref(),
            Some("libcap2=1:2.66-4+b1")
        );
    }

    #[test]
    fn links_are_followed_inside_the_folder() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("usr/lib64")).unwrap();
        fs::create_dir_all(root.path().join("usr/lib/x")).unwrap();
        fs::write(root.path().join("usr/lib/x/ld.so"), "").unwrap();
        symlink("/lib/x/ld.so", root.path().join("usr/lib64/ld.so")).unwrap();
        symlink("../lib64/ld.so", root.path().join("usr/lib/ld.so")).unwrap();
        let found = follow(root.path(), "/lib/ld.so").unwrap();
        assert!(found.ends_with("usr/lib/x/ld.so"), "{}", found.display());
        assert_eq!(
            matches(root.path(), "/usr/lib*"),
            ["/usr/lib", "/usr/lib64"]
        );
    }
}
