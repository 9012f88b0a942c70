//! Figures beside their goals.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context;

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
pub(crate) enum DesiredState {
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

    /// Shows what is being measured.
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
        goal: DesiredState,
    ) {
        let (goal, kept) = match goal {
            DesiredState::Least(least) => (format!("≥ {least}{unit}"), number >= least),
            DesiredState::Most(most) => (format!("≤ {most}{unit}"), number <= most),
        };
        self.rows.push(Row {
            what: what.into(),
            figure: format!("{number:.2}{unit}{detail}"),
            goal: Some((goal, kept)),
        });
    }

    /// All of it as a table in Markdown, and whether a goal is missed.
    pub(crate) fn table(&self) -> (String, bool) {
        let mut table = HEAD.to_owned();
        for Row { what, figure, goal } in &self.rows {
            let goal = match goal {
                None => "–".to_owned(),
                Some((goal, true)) => goal.clone(),
                Some((goal, false)) => format!("{goal}, **missed**"),
            };
            table += &format!("| {what} | {figure} | {goal} |\n");
        }
        let is_missed = |row: &Row| row.goal.as_ref().is_some_and(|(_, kept)| !kept);
        (table, self.rows.iter().any(is_missed))
    }
}

/// Puts a table in the place of the one that a page has between two marks. Where only a part was measured,
/// the rows of the others stay.
pub(crate) fn put_into(page: &Path, mut table: String, is_part: bool) -> anyhow::Result<()> {
    let text = std::fs::read_to_string(page)?;
    let parts = text.split_once(BEGIN).and_then(|(before, rest)| {
        let (known, after) = rest.split_once(END)?;
        Some((before, known, after))
    });
    let (before, known, after) =
        parts.with_context(|| format!("{} has no {BEGIN} and {END}", page.display()))?;
    if is_part {
        let what = |row: &str| row.split('|').nth(1).map(str::to_owned);
        let measured: BTreeSet<_> = table.lines().map(what).collect();
        let rows = known.lines().filter(|line| line.starts_with('|'));
        let others = rows.filter(|row| !HEAD.contains(row) && !measured.contains(&what(row)));
        table.extend(others.flat_map(|row| [row, "\n"]));
    }
    std::fs::write(page, format!("{before}{BEGIN}\n\n{table}\n{END}{after}"))?;
    Ok(())
}

const HEAD: &str = "| what | measured | goal |\n|---|---|---|\n";

const BEGIN: &str = "<!-- measured -->";
const END: &str = "<!-- end -->";

/// The middle one.
pub(crate) fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers.get(numbers.len() / 2).copied().unwrap_or(f64::NAN)
}

/// How many a second.
pub(crate) fn rate(count: usize, took: Duration) -> f64 {
    count as f64 / took.as_secs_f64()
}
