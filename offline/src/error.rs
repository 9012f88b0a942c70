//! Errors as text for the terminal.

use std::error::Error;

/// `error: WHAT`, and each cause on a line of its own. A cause that the line before it already
/// quotes is left out.
#[must_use]
pub fn text(error: &(dyn Error + 'static)) -> String {
    let mut previous = one_line(error);
    let mut text = format!("error: {previous}");
    let causes = std::iter::successors(error.source(), |&cause| cause.source());
    for cause in causes.map(one_line) {
        if !previous.contains(&cause) {
            text.push_str(&format!("\n  caused by: {cause}"));
        }
        previous = cause;
    }
    text
}

fn one_line(error: &(dyn Error + 'static)) -> String {
    let text = error.to_string();
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot read the policy")]
    struct Outer(#[source] Middle);

    #[derive(Debug, thiserror::Error)]
    #[error("line 1: {0}")]
    struct Middle(#[source] std::io::Error);

    #[test]
    fn each_cause_is_on_its_own_line_and_none_is_repeated() {
        let error = Outer(Middle(std::io::Error::other("disk\non fire")));
        assert_eq!(
            text(&error),
            "error: cannot read the policy\n  caused by: line 1: disk on fire"
        );
    }
}
