//! The text of a sysctl, as it is compared and written.

use std::fmt;
use std::sync::Arc;

/// Maximum length of a value, in bytes. Only lists such as `ip_local_reserved_ports` come near it.
const MAX_LEN: usize = 1024;

/// A sysctl's value in normal form: not empty, printable ASCII, single spaces between words.
///
/// The kernel prints multiple numbers with tabs between them (`tcp_rmem`) and accepts spaces. Values
/// that differ only in whitespace are equal.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Value(Arc<str>);

/// Why a text is not a valid value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidValue {
    /// Nothing but white space.
    #[error("the value must not be empty")]
    Empty,
    /// Over 1024 bytes.
    #[error("the value has {len} bytes; at most {MAX_LEN} are allowed")]
    TooLong {
        /// Length in bytes.
        len: usize,
    },
    /// A control character, a newline or a character outside ASCII.
    #[error("the value contains {character:?}; only printable ASCII is allowed")]
    Character {
        /// The first such character.
        character: char,
    },
}

impl Value {
    /// Parses and normalizes; leading, trailing and repeated blanks and tabs are folded.
    ///
    /// # Errors
    /// When nothing is left, when it is longer than 1024 bytes, or when it holds anything but
    /// printable ASCII: a newline would write a second value.
    pub fn parse(text: &str) -> Result<Self, InvalidValue> {
        if text.len() > MAX_LEN {
            return Err(InvalidValue::TooLong { len: text.len() });
        }
        let unprintable = |c: &char| !(matches!(c, ' '..='~' | '\t'));
        if let Some(character) = text.chars().find(unprintable) {
            return Err(InvalidValue::Character { character });
        }
        let mut words = text.split_ascii_whitespace();
        let first = words.next().ok_or(InvalidValue::Empty)?;
        let mut folded = String::with_capacity(text.len());
        folded.push_str(first);
        for word in words {
            folded.push(' ');
            folded.push_str(word);
        }
        Ok(Self(folded.into()))
    }

    /// The value as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The value as a number, where it is one (decimal, not negative).
    #[must_use]
    pub fn as_number(&self) -> Option<u64> {
        self.0.parse().ok()
    }
}

impl From<u64> for Value {
    fn from(number: u64) -> Self {
        Self(number.to_string().into())
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn white_space_does_not_make_values_differ() {
        let kernel = Value::parse("4096\t131072\t6291456").unwrap();
        assert_eq!(kernel, Value::parse(" 4096  131072 6291456 ").unwrap());
    }

    #[test]
    fn a_newline_is_refused_because_it_would_write_twice() {
        assert_eq!(
            Value::parse("1\n0"),
            Err(InvalidValue::Character { character: '\n' })
        );
    }

    #[test]
    fn blanks_alone_are_empty() {
        assert_eq!(Value::parse(" \t "), Err(InvalidValue::Empty));
    }
}
