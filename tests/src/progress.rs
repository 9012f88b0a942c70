//! Shows what is being prepared, and for how long.
//!
//! A progress bar on a terminal; elsewhere (CI, a pipe) a line now and then.

use std::io::{self, IsTerminal as _, Write as _};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

const PLAIN_LINE_EVERY: Duration = Duration::from_secs(30);

/// All bars of this process: they share one terminal.
static BARS: LazyLock<MultiProgress> = LazyLock::new(MultiProgress::new);

/// Prints text and a newline on standard output, above the bars that are moving.
pub fn print(text: &str) -> io::Result<()> {
    BARS.suspend(|| writeln!(io::stdout(), "{text}"))
}

/// One piece of work whose progress is shown. Dropping it ends the display.
#[derive(Debug)]
pub struct Progress {
    what: String,
    started: Instant,
    display: Display,
}

#[derive(Debug)]
enum Display {
    Bar(ProgressBar),
    Plain { last_line: Mutex<Instant> },
}

impl Progress {
    /// Starts to show `what`, which takes about `expected`.
    pub fn start(what: &str, expected: Duration) -> Self {
        let started = Instant::now();
        let what = format!("{what} (about {})", in_words(expected));
        let display = if std::io::stderr().is_terminal() {
            Display::Bar(bar(&what, expected))
        } else {
            eprintln!("{what}");
            Display::Plain {
                last_line: Mutex::new(started),
            }
        };
        Self {
            what,
            started,
            display,
        }
    }

    /// Shows the current step.
    pub fn at(&self, step: &str) {
        match &self.display {
            Display::Bar(bar) => {
                bar.set_message(step.to_owned());
                bar.set_position(self.started.elapsed().as_secs());
            }
            Display::Plain { last_line } => self.plain_line(&mut lock(last_line), step),
        }
    }

    /// Ends the display with the time it took.
    pub fn done(self) {
        let line = format!(
            "{}: done in {}",
            self.what,
            in_words(self.started.elapsed())
        );
        match &self.display {
            Display::Bar(bar) => {
                bar.finish_and_clear();
                BARS.suspend(|| eprintln!("{line}"));
            }
            Display::Plain { .. } => eprintln!("{line}"),
        }
    }

    fn plain_line(&self, last_line: &mut Instant, step: &str) {
        if last_line.elapsed() >= PLAIN_LINE_EVERY {
            *last_line = Instant::now();
            eprintln!(
                "{}: {} so far {step}",
                self.what,
                in_words(self.started.elapsed())
            );
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Display::Bar(bar) = &self.display {
            bar.finish_and_clear();
        }
    }
}

fn bar(what: &str, expected: Duration) -> ProgressBar {
    let bar = BARS.add(ProgressBar::new(expected.as_secs().max(1)));
    let template = "{spinner} {prefix} [{bar:24}] {elapsed} {wide_msg}";
    bar.set_style(
        ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()),
    );
    bar.set_prefix(what.to_owned());
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A duration such as `45 s` or `8 min 30 s`.
pub fn in_words(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match (seconds / 60, seconds % 60) {
        (0, s) => format!("{s} s"),
        (m, 0) => format!("{m} min"),
        (m, s) => format!("{m} min {s} s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_minutes_and_seconds() {
        assert_eq!(in_words(Duration::from_secs(45)), "45 s");
        assert_eq!(in_words(Duration::from_secs(540)), "9 min");
        assert_eq!(in_words(Duration::from_secs(510)), "8 min 30 s");
    }
}
