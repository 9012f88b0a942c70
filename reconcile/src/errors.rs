//! What an error of the kernel means, and what to do about it.

use nettune_sizing::SysctlKey;
use rustix::io::Errno;

use crate::memory::Cause;
use crate::observed::Content;

/// The message for a key that cannot be read.
pub(crate) fn reading(errno: Errno) -> String {
    let what_to_do = match errno {
        Errno::ACCESS | Errno::PERM => "run the agent as root (uid 0); it needs no capability",
        Errno::ISDIR | Errno::NOTDIR => "--sysctl-root must be the host's /proc/sys",
        Errno::MFILE | Errno::NFILE => "raise the limit of open files (ulimit -n)",
        _ => "check the kernel log (dmesg)",
    };
    format!("cannot read it: {}: {what_to_do}", describe(errno))
}

/// The message for a key that cannot be written.
pub(crate) fn writing(key: &SysctlKey, cause: &Cause) -> String {
    match cause {
        Cause::Refused { wrote, errno } => {
            let what_to_do = match *errno {
                Errno::INVAL | Errno::RANGE | Errno::DOM => {
                    "this kernel rejects this value; set another one in the tuning"
                }
                Errno::ROFS => "mount the host's /proc/sys/net writable into the agent's pod",
                Errno::ACCESS | Errno::PERM => {
                    "run the agent as root (uid 0); a security module may deny it too"
                }
                Errno::NOENT => "it disappeared; its module may have been unloaded",
                Errno::ISDIR | Errno::NOTDIR => "--sysctl-root must be the host's /proc/sys",
                Errno::NOMEM => "the kernel does not have enough memory for a table of this size",
                _ => "check the kernel log (dmesg)",
            };
            format!(
                "the kernel rejected {wrote}: {}: {what_to_do}",
                describe(*errno)
            )
        }
        Cause::ReadBack { wrote, found } => format!(
            "wrote {wrote}, but {key} then read {found}: the kernel or another process changes this value; \
             set the value that the kernel keeps in the tuning"
        ),
        Cause::Unsaved(errno) => format!(
            "not written because its original value could not be saved: {}: free space in the agent's state \
             directory, or make it writable",
            describe(*errno)
        ),
    }
}

/// The error's name as in the kernel's headers, and what it means.
fn describe(errno: Errno) -> String {
    let (name, meaning) = match errno {
        Errno::ACCESS => ("EACCES", "permission denied"),
        Errno::BUSY => ("EBUSY", "busy"),
        Errno::DOM => ("EDOM", "out of domain"),
        Errno::INVAL => ("EINVAL", "invalid value"),
        Errno::IO => ("EIO", "input/output error"),
        Errno::ISDIR => ("EISDIR", "is a directory"),
        Errno::MFILE => ("EMFILE", "too many open files"),
        Errno::NFILE => ("ENFILE", "too many open files on this node"),
        Errno::NOENT => ("ENOENT", "no such file"),
        Errno::NOMEM => ("ENOMEM", "out of memory"),
        Errno::NOSPC => ("ENOSPC", "no space left"),
        Errno::NOTDIR => ("ENOTDIR", "not a directory"),
        Errno::PERM => ("EPERM", "not permitted"),
        Errno::RANGE => ("ERANGE", "out of range"),
        Errno::ROFS => ("EROFS", "read-only file system"),
        other => {
            let text = std::io::Error::from(other).to_string();
            return format!("errno {} ({text})", other.raw_os_error());
        }
    };
    format!("{name} ({meaning})")
}

/// What was written without effect.
pub(crate) fn wrote(cause: &Cause) -> Option<&Content> {
    match cause {
        Cause::Refused { wrote, .. } | Cause::ReadBack { wrote, .. } => Some(wrote),
        Cause::Unsaved(_) => None,
    }
}
