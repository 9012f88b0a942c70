//! Kernel releases as distributions write them.

use std::fmt;

/// A kernel's version as far as behaviour depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KernelVersion {
    major: u16,
    minor: u16,
    patch: u16,
}

/// A text that is no kernel release.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{release:?} is not a kernel release such as 5.15.0-1053-aws")]
pub struct ParseKernelVersionError {
    release: String,
}

impl KernelVersion {
    /// Parses what uname -r prints.
    ///
    /// # Errors
    /// When it does not start with two numbers.
    pub fn parse(release: &str) -> Result<Self, ParseKernelVersionError> {
        let mut numbers = release.split(['.', '-', '+']).map(str::parse::<u16>);
        match (numbers.next(), numbers.next()) {
            (Some(Ok(major)), Some(Ok(minor))) => Ok(Self {
                major,
                minor,
                patch: numbers.next().and_then(Result::ok).unwrap_or(0),
            }),
            _ => Err(ParseKernelVersionError {
                release: release.to_owned(),
            }),
        }
    }
}

impl fmt::Display for KernelVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}
