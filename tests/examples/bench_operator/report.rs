//! Figures beside their goals.

use std::time::{Duration, Instant};

/// What was measured.
pub(crate) struct Report {
    began: Instant,
    rows: Vec<Row>,
}

struct Row {
    what: String,
    figure: String,
    goal: Option<(String, bool)>,
}

/// A bound that a figure has to keep.
pub(crate) enum Goal {
    /// At least this.
    Least(f64),
    /// At most this.
    Most(f64),
}

impl Report {
    /// Nothing yet.
    pub(crate) fn new() -> Self {
        Self {
            began: Instant::now(),
            rows: Vec::new(),
        }
    }

    /// Says what is being done, so that a long run is seen to move.
    pub(crate) fn doing(&self, what: &str) {
        eprintln!("[{:>4} s] {what}", self.began.elapsed().as_secs());
    }

    /// A figure without a goal.
    pub(crate) fn figure(&mut self, what: impl Into<String>, figure: impl Into<String>) {
        self.rows.push(Row {
            what: what.into(),
            figure: figure.into(),
            goal: None,
        });
    }

    /// A figure that has one. `detail` is what the number was made of.
    pub(crate) fn judged(
        &mut self,
        what: impl Into<String>,
        number: f64,
        unit: &str,
        detail: &str,
        goal: Goal,
    ) {
        let (goal, kept) = match goal {
            Goal::Least(least) => (format!("≥ {least}{unit}"), number >= least),
            Goal::Most(most) => (format!("≤ {most}{unit}"), number <= most),
        };
        self.rows.push(Row {
            what: what.into(),
            figure: format!("{number:.2}{unit}{detail}"),
            goal: Some((goal, kept)),
        });
    }

    /// Prints all of it; true where a goal is missed.
    pub(crate) fn print(&self) -> bool {
        println!("| what | measured | goal |");
        println!("|---|---|---|");
        for Row { what, figure, goal } in &self.rows {
            let goal = match goal {
                None => "–".to_owned(),
                Some((goal, true)) => goal.clone(),
                Some((goal, false)) => format!("{goal}, **missed**"),
            };
            println!("| {what} | {figure} | {goal} |");
        }
        self.rows
            .iter()
            .any(|row| row.goal.as_ref().is_some_and(|(_, kept)| !kept))
    }
}

/// The middle one.
pub(crate) fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers.get(numbers.len() / 2).copied().unwrap_or(f64::NAN)
}

/// How many a second.
pub(crate) fn rate(count: usize, took: Duration) -> f64 {
    count as f64 / took.as_secs_f64()
}
