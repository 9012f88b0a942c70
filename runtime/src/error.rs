//! An error with its causes, in one line.

use std::error::Error;

/// `what failed: why: why that`, for a log line or a condition's message.
///
/// A cause that an error repeats in its own text is not added again.
#[must_use]
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        let cause = source.to_string();
        if !text.contains(&cause) {
            text.push_str(": ");
            text.push_str(&cause);
        }
        next = source.source();
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
    fn causes_follow_in_one_line_without_repetition() {
        let error = Outer(Middle(std::io::Error::other("disk on fire")));
        assert_eq!(
            chain(&error),
            "cannot read the state: cannot open state.json: disk on fire"
        );
    }
}
