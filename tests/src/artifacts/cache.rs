//! The cache folder of the user: what is costly to get is got once, whole or not at all.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

/// Why an entry of the cache could not be made.
#[derive(Debug, thiserror::Error)]
pub enum CacheError<E: std::error::Error + 'static> {
    #[error("no cache folder: set XDG_CACHE_HOME or HOME")]
    NoHome,
    #[error("cannot {attempt} {}", path.display())]
    Io {
        attempt: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(transparent)]
    Fill(E),
}

/// `$XDG_CACHE_HOME/nettune`, by default `~/.cache/nettune`.
pub fn dir() -> Option<PathBuf> {
    let set = |name| {
        std::env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    let base = set("XDG_CACHE_HOME").or_else(|| set("HOME").map(|home| home.join(".cache")))?;
    Some(base.join("nettune"))
}

/// The folder of the entry `name`, filled by `fill` if it is not there yet.
///
/// `fill` gets an empty folder, which takes the entry's name only when it is full: what was cut off leaves nothing
/// half-done. One process fills at a time, the others wait.
pub fn entry<E: std::error::Error>(
    name: &str,
    fill: impl FnOnce(&Path) -> Result<(), E>,
) -> Result<PathBuf, CacheError<E>> {
    let entry = dir().ok_or(CacheError::NoHome)?.join(name);
    if entry.is_dir() {
        return Ok(entry);
    }
    let parent = entry.parent().unwrap_or(&entry);
    fs::create_dir_all(parent).map_err(failed("create", parent))?;
    let _lock = lock(&entry)?;
    // Another process may have filled it while this one waited for the lock.
    if !entry.is_dir() {
        fill_and_rename(&entry, fill)?;
    }
    Ok(entry)
}

fn fill_and_rename<E: std::error::Error>(
    entry: &Path,
    fill: impl FnOnce(&Path) -> Result<(), E>,
) -> Result<(), CacheError<E>> {
    let partial = beside(entry, "partial");
    if partial.exists() {
        fs::remove_dir_all(&partial)
            .map_err(failed("remove what a cut-off build left in", &partial))?;
    }
    fs::create_dir(&partial).map_err(failed("create", &partial))?;
    fill(&partial).map_err(CacheError::Fill)?;
    fs::rename(&partial, entry).map_err(failed("rename to", entry))
}

fn lock<E: std::error::Error>(entry: &Path) -> Result<File, CacheError<E>> {
    let path = beside(entry, "lock");
    let file = File::create(&path).map_err(failed("create", &path))?;
    if file.try_lock().is_err() {
        eprintln!("waiting for another process that fills {}", entry.display());
        file.lock().map_err(failed("lock", &path))?;
    }
    Ok(file)
}

fn beside(entry: &Path, suffix: &str) -> PathBuf {
    let mut name = entry
        .file_name()
        .unwrap_or(OsStr::new("entry"))
        .to_os_string();
    name.push(".");
    name.push(suffix);
    entry.with_file_name(name)
}

fn failed<E: std::error::Error>(
    attempt: &'static str,
    path: &Path,
) -> impl FnOnce(io::Error) -> CacheError<E> {
    move |source| CacheError::Io {
        attempt,
        path: path.to_path_buf(),
        source,
    }
}

/// FNV-1a over all parts, as 16 hex digits: names an entry after what went into it.
pub fn key(parts: &[&[u8]]) -> String {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for byte in parts.iter().flat_map(|part| part.iter().chain(&[0])) {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    }
    format!("{hash:016x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fill_that_fails_leaves_no_entry() {
        let dir = tempfile::tempdir().unwrap();
        let entry = dir.path().join("thing");
        let cut_off = fill_and_rename(&entry, |partial| {
            fs::write(partial.join("half"), "").and(Err(io::Error::other("cut off")))
        });
        assert!(cut_off.is_err() && !entry.exists());

        fill_and_rename(&entry, |partial| fs::write(partial.join("whole"), "")).unwrap();
        assert!(entry.join("whole").exists() && !entry.join("half").exists());
    }

    #[test]
    fn the_key_depends_on_where_a_part_ends() {
        assert_ne!(key(&[b"ab", b"c"]), key(&[b"a", b"bc"]));
    }
}
