//! Counts tests from what libtest prints.

use std::fmt;
use std::ops::AddAssign;

/// How many tests did what.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Count {
    pub(crate) passed: usize,
    pub(crate) failed: usize,
    pub(crate) skipped: usize,
}

impl Count {
    /// The sum of all `test result:` lines. A program that ended badly without one has failed as a whole: it was
    /// killed, or did not build.
    pub(super) fn of_run(lines: &[String], success: bool) -> Self {
        let mut count = Self::default();
        for line in lines
            .iter()
            .filter_map(|line| line.strip_prefix("test result: "))
        {
            count += Self {
                passed: number(line, "passed"),
                failed: number(line, "failed"),
                skipped: number(line, "ignored"),
            };
        }
        if !success && count.failed == 0 {
            count.failed = 1;
        }
        count
    }
}

/// The number before `word` in `ok. 3 passed; 0 failed; 0 ignored; …`.
fn number(line: &str, word: &str) -> usize {
    let words: Vec<&str> = line
        .split([' ', ';', '.'])
        .filter(|part| !part.is_empty())
        .collect();
    words
        .windows(2)
        .find(|pair| pair[1] == word)
        .and_then(|pair| pair[0].parse().ok())
        .unwrap_or_default()
}

impl AddAssign for Count {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed", self.passed, self.failed)?;
        if self.skipped > 0 {
            write!(f, ", {} skipped", self.skipped)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_run(lines: &[&str], success: bool) -> Count {
        Count::of_run(
            &lines
                .iter()
                .map(|&line| line.to_owned())
                .collect::<Vec<_>>(),
            success,
        )
    }

    #[test]
    fn all_result_lines_are_added_up() {
        let passed = "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 1.06s";
        let failed = "test result: FAILED. 0 passed; 2 failed; 0 ignored; 0 measured; 3 filtered out; finished in 33.07s";
        let count = of_run(&["running 4 tests", passed, failed], false);
        assert_eq!(
            count,
            Count {
                passed: 3,
                failed: 2,
                skipped: 1
            }
        );
        assert_eq!(count.to_string(), "3 passed, 2 failed, 1 skipped");
    }

    #[test]
    fn a_program_that_was_killed_has_failed() {
        let count = of_run(&["running 4 tests"], false);
        assert_eq!(count.to_string(), "0 passed, 1 failed");
    }
}
