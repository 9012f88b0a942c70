//! Kernel releases as distributions write them.

use std::fmt;

/// A kernel's version as far as behavior depends on it.
///
/// The patch level is unknown if the distribution hides it: Ubuntu, Debian (`6.1.0-18-amd64`) and
/// RHEL put a 0 and their own number in its place. Unknown sorts before every known one, so that a
/// fix from a certain patch level is not assumed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KernelVersion {
    major: u16,
    minor: u16,
    patch: Option<u16>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{release:?} is not a kernel release such as 5.15.0-1053-aws")]
pub struct ParseKernelVersionError {
    release: String,
}

impl KernelVersion {
    /// A version from its numbers; `patch` is `None` where it is not known.
    #[must_use]
    pub const fn new(major: u16, minor: u16, patch: Option<u16>) -> Self {
        Self {
            major,
            minor,
            patch,
        }
    }

    /// Parses what `uname -r` prints: two or three numbers and then whatever the distribution adds.
    ///
    /// # Errors
    /// When it does not start with two numbers.
    pub fn parse(release: &str) -> Result<Self, ParseKernelVersionError> {
        Self::leading(release.trim()).ok_or_else(|| ParseKernelVersionError {
            release: release.chars().take(64).collect(),
        })
    }

    /// Parses Ubuntu's `/proc/version_signature`, whose last word is the version of the kernel that
    /// theirs is based on: `Ubuntu 5.4.0-150.167-generic 5.4.233`.
    ///
    /// # Errors
    /// When it is not three words of which the last starts with two numbers.
    pub fn from_version_signature(text: &str) -> Result<Self, ParseKernelVersionError> {
        let mut words = text.split_ascii_whitespace();
        match (words.next(), words.next(), words.next(), words.next()) {
            (Some(_), Some(_), Some(base), None) => Self::parse(base),
            _ => Err(ParseKernelVersionError {
                release: text.trim().chars().take(64).collect(),
            }),
        }
    }

    /// Whether this version is `major.minor` or a later one.
    #[must_use]
    pub const fn at_least(self, major: u16, minor: u16) -> bool {
        self.major > major || (self.major == major && self.minor >= minor)
    }

    /// The first two numbers, which tell a stable series.
    #[must_use]
    pub const fn series(self) -> (u16, u16) {
        (self.major, self.minor)
    }

    /// The third number; `None` where the distribution hides it or the text had none.
    #[must_use]
    pub const fn patch(self) -> Option<u16> {
        self.patch
    }

    fn leading(release: &str) -> Option<Self> {
        let (major, rest) = number(release)?;
        let (minor, rest) = number(rest.strip_prefix('.')?)?;
        let third = rest.strip_prefix('.').and_then(number);
        let patch = match third {
            // "5.4.0-150-generic": a 0 with anything behind it stands for a number that is hidden.
            Some((0, suffix)) if !suffix.is_empty() => None,
            Some((patch, _)) => Some(patch),
            None => None,
        };
        Some(Self::new(major, minor, patch))
    }
}

/// The number that a text starts with, and what follows it.
fn number(text: &str) -> Option<(u16, &str)> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, rest) = text.split_at_checked(digits)?;
    Some((number.parse().ok()?, rest))
}

/// `5.4.233`, or `5.4` where the patch level is not known.
impl fmt::Display for KernelVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)?;
        match self.patch {
            Some(patch) => write!(f, ".{patch}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_read_as_distributions_write_them() {
        for (release, version) in [
            ("5.15.0-1053-aws", KernelVersion::new(5, 15, None)),
            ("5.4.0-150-generic", KernelVersion::new(5, 4, None)),
            ("6.1.0-18-amd64", KernelVersion::new(6, 1, None)),
            ("4.18.0-553.el8_10.x86_64", KernelVersion::new(4, 18, None)),
            (
                "6.12.48+deb13-cloud-amd64",
                KernelVersion::new(6, 12, Some(48)),
            ),
            (
                "6.6.87.2-microsoft-standard-WSL2",
                KernelVersion::new(6, 6, Some(87)),
            ),
            (
                "5.4.254-170.358.amzn2.x86_64",
                KernelVersion::new(5, 4, Some(254)),
            ),
            ("5.10.103-v7l+", KernelVersion::new(5, 10, Some(103))),
            ("6.8.0\n", KernelVersion::new(6, 8, Some(0))),
            ("6.18-rc2", KernelVersion::new(6, 18, None)),
            ("5.15", KernelVersion::new(5, 15, None)),
        ] {
            assert_eq!(KernelVersion::parse(release), Ok(version), "{release}");
        }
    }

    #[test]
    fn garbage_is_no_release() {
        for garbage in [
            "", " ", "linux", "5", "5.", ".5", "v5.15", "-5.4", "5.x", "65536.1", "５.４",
        ] {
            assert!(KernelVersion::parse(garbage).is_err(), "{garbage:?}");
        }
    }

    #[test]
    fn ubuntus_signature_names_the_base_that_its_release_hides() {
        let base = KernelVersion::from_version_signature("Ubuntu 5.4.0-150.167-generic 5.4.233\n");
        assert_eq!(base, Ok(KernelVersion::new(5, 4, Some(233))));
        assert!(KernelVersion::from_version_signature("Ubuntu 5.4.0-150.167-generic").is_err());
        assert!(KernelVersion::from_version_signature("").is_err());
    }

    #[test]
    fn versions_compare_by_number_and_not_by_text() {
        let version = KernelVersion::new(5, 10, None);
        assert!(version.at_least(5, 9) && version.at_least(5, 10) && version.at_least(4, 19));
        assert!(!version.at_least(5, 11) && !version.at_least(6, 0));
    }

    #[test]
    fn a_hidden_patch_level_is_not_shown_as_zero() {
        assert_eq!(KernelVersion::new(5, 4, None).to_string(), "5.4");
        assert_eq!(KernelVersion::new(5, 4, Some(0)).to_string(), "5.4.0");
    }
}
