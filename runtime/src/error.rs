//! An error with its causes, in one line.

use std::error::Error;

/// `what failed: why: why that`, for a log line or a condition's message.
///
/// A cause that an error has already repeated in its own text is not said twice: not every library
/// leaves its causes to `source`.
#[must_use]
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(source) = cause {
        let said = source.to_string();
        if !text.contains(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        cause = source.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot read the state")]
    struct Outer(#[source] Middle);

    #[derive(Debug, thiserror::Error)]
    #[error("cannot open state.json: {0}")]
    struct Middle(#[source] std::io::Error);

    #[test]
    fn causes_follow_in_one_line_and_none_is_said_twice() {
        let error = Outer(Middle(std::io::Error::other("disk on fire")));
        assert_eq!(
            chain(&error),
            "cannot read the state: cannot open state.json: disk on fire"
        );
    }
}
