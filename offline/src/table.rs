//! Tables of sysctls for the terminal, each row with its explanation below it.

use comfy_table::presets::NOTHING;
use comfy_table::{ColumnConstraint, ContentArrangement, Table};
use textwrap::{Options, WordSplitter};

/// Columns of the terminal.
const WIDTH: u16 = 100;

/// One row of a table, and what is printed below it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row<const COLUMNS: usize> {
    /// The first one is the name.
    pub cells: [String; COLUMNS],
    /// A paragraph. Rows that differ only in their name share it.
    pub note: String,
}

/// Draws a table. Rows that differ only in their name are next to each other, their note below.
#[must_use]
pub fn draw<const COLUMNS: usize>(titles: [&str; COLUMNS], rows: &[Row<COLUMNS>]) -> String {
    let groups = groups(rows);
    let rows = groups.iter().flatten();
    let mut table = Table::new();
    table
        .load_style(NOTHING)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_width(WIDTH)
        .set_header(titles)
        .add_rows(rows.map(|row| row.cells.iter()))
        .column_iter_mut()
        .for_each(|column| {
            column.set_padding((0, 2));
        });
    if let Some(names) = table.column_mut(0) {
        names.set_constraint(ColumnConstraint::ContentWidth);
    }
    // A long value continues on lines of its own, which have no name.
    let mut lines = table.lines().peekable();
    let mut text = String::new();
    let mut print_row = |text: &mut String| {
        let mut first = true;
        while let Some(line) = lines.next_if(|line| first || line.starts_with(' ')) {
            text.push_str(line.trim_end());
            text.push('\n');
            first = false;
        }
    };
    print_row(&mut text);
    for group in groups {
        group.iter().for_each(|_| print_row(&mut text));
        if let Some(row) = group.first().filter(|row| !row.note.is_empty()) {
            wrap(&mut text, &row.note, "    ", "    ");
        }
    }
    text
}

/// The thresholds of IPv4 and IPv6, for example, have the same value for the same reason.
fn groups<const COLUMNS: usize>(rows: &[Row<COLUMNS>]) -> Vec<Vec<&Row<COLUMNS>>> {
    let mut groups: Vec<Vec<&Row<COLUMNS>>> = Vec::new();
    for row in rows {
        let same = |group: &&mut Vec<&Row<COLUMNS>>| {
            group.first().is_some_and(|first| {
                first.note == row.note && first.cells.iter().skip(1).eq(row.cells.iter().skip(1))
            })
        };
        match groups.iter_mut().find(same) {
            Some(group) => group.push(row),
            None => groups.push(vec![row]),
        }
    }
    groups
}

/// Appends a paragraph, broken between words, with one indent for its first line and another for
/// the rest.
pub fn wrap(text: &mut String, paragraph: &str, first: &str, rest: &str) {
    let options = Options::new(WIDTH.into())
        .initial_indent(first)
        .subsequent_indent(rest)
        .break_words(false)
        .word_splitter(WordSplitter::NoHyphenation);
    text.push_str(&textwrap::fill(paragraph, options));
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(name: &str, value: &str, note: &str) -> Row<3> {
        Row {
            cells: [name.to_owned(), value.to_owned(), "Exact".to_owned()],
            note: note.to_owned(),
        }
    }

    #[test]
    fn paragraphs_break_between_words_and_keep_their_indent() {
        let mut text = String::new();
        wrap(&mut text, &"×123456789 ".repeat(10), "", "  ");
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[0].chars().count(), 98);
        assert_eq!(lines[1], "  ×123456789");
    }

    #[test]
    fn rows_that_differ_only_in_their_name_share_a_note() {
        let rows = [
            row("a", "1", "why"),
            row("long", "2", ""),
            row("b", "1", "why"),
        ];
        let expected = "\
NAME  VALUE  RULE
a     1      Exact
b     1      Exact
    why
long  2      Exact
";
        assert_eq!(draw(["NAME", "VALUE", "RULE"], &rows), expected);
    }

    #[test]
    fn a_long_value_wraps_and_leaves_the_names_their_width() {
        let name = "n".repeat(50);
        let rows = [row(&name, &"1".repeat(70), "why"), row("next", "2", "")];
        let text = draw(["NAME", "VALUE", "RULE"], &rows);
        assert!(text.contains(&format!("\n{name}  1")), "{text}");
        assert!(text.contains("1\n    why\nnext  "), "{text}");
        assert_eq!(text.matches('1').count(), 70, "{text}");
        assert!(text.lines().all(|line| line.len() <= 100), "{text}");
    }
}
