//! Sysctls in a table, for people: what `kubectl nettune plan` and `nettune-agent check` print.

/// Columns of the terminal that it fits in.
pub const WIDTH: usize = 100;

/// The widest that a column gets; what is longer moves the rest of its line.
const WIDEST: usize = 60;

const INDENT: &str = "    ";

/// One line of a table, and what is written below it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row<const COLUMNS: usize> {
    /// The first is the name.
    pub cells: [String; COLUMNS],
    /// A paragraph below; lines that differ in nothing but their name share it.
    pub note: String,
}

/// Draws a table: rows that differ in nothing but their name together, with their note below.
#[must_use]
pub fn draw<const COLUMNS: usize>(titles: [&str; COLUMNS], rows: &[Row<COLUMNS>]) -> String {
    let mut widths = titles.map(|title| title.chars().count());
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(&row.cells) {
            *width = (*width).max(cell.chars().count()).min(WIDEST);
        }
    }
    // The last column that is long (a list of ports) must not push the others off the terminal.
    let gaps = 2 * COLUMNS.saturating_sub(1);
    while widths.iter().sum::<usize>() + gaps > WIDTH {
        let Some(widest) = widths.iter_mut().skip(1).max() else {
            break;
        };
        *widest -= 1;
    }
    let mut text = String::new();
    line(&mut text, &titles, widths);
    for alike in same_but_for_the_name(rows) {
        for row in &alike {
            line(&mut text, &row.cells, widths);
        }
        if let Some(row) = alike.first().filter(|row| !row.note.is_empty()) {
            wrap(&mut text, &row.note, INDENT, INDENT);
        }
    }
    text
}

fn line<const COLUMNS: usize>(
    text: &mut String,
    cells: &[impl AsRef<str>; COLUMNS],
    widths: [usize; COLUMNS],
) {
    let start = text.len();
    for (cell, width) in cells.iter().zip(widths) {
        let cell = cell.as_ref();
        text.push_str(&format!("{cell:width$}  "));
    }
    text.truncate(start.max(text.trim_end().len()));
    text.push('\n');
}

/// Both families of a threshold have the same value for the same reason.
fn same_but_for_the_name<const COLUMNS: usize>(rows: &[Row<COLUMNS>]) -> Vec<Vec<&Row<COLUMNS>>> {
    let mut all: Vec<Vec<&Row<COLUMNS>>> = Vec::new();
    for row in rows {
        let same = |alike: &&mut Vec<&Row<COLUMNS>>| {
            alike.first().is_some_and(|first| {
                first.note == row.note && first.cells.iter().skip(1).eq(row.cells.iter().skip(1))
            })
        };
        match all.iter_mut().find(same) {
            Some(alike) => alike.push(row),
            None => all.push(vec![row]),
        }
    }
    all
}

/// Breaks a paragraph between words, its first line after `first` and each other one after `rest`; a
/// word that is longer than a line has one of its own.
pub fn wrap(text: &mut String, paragraph: &str, first: &str, rest: &str) {
    let mut line = first.to_owned();
    let mut empty = true;
    for word in paragraph.split_whitespace() {
        let length = line.chars().count() + word.chars().count() + usize::from(!empty);
        if !empty && length > WIDTH {
            text.push_str(&line);
            text.push('\n');
            rest.clone_into(&mut line);
            empty = true;
        }
        if !empty {
            line.push(' ');
        }
        line.push_str(word);
        empty = false;
    }
    text.push_str(&line);
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(name: &str, value: &str, note: &str) -> Row<2> {
        Row {
            cells: [name.to_owned(), value.to_owned()],
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
    fn rows_that_differ_in_their_name_alone_share_a_note() {
        let rows = [
            row("a", "1", "why"),
            row("long", "2", ""),
            row("b", "1", "why"),
        ];
        let expected = "NAME  VALUE\na     1\nb     1\n    why\nlong  2\n";
        assert_eq!(draw(["NAME", "VALUE"], &rows), expected);
    }

    #[test]
    fn a_long_value_leaves_the_names_their_width() {
        let rows = [row(&"n".repeat(50), &"v".repeat(70), "")];
        let text = draw(["NAME", "VALUE"], &rows);
        assert!(
            text.starts_with(&format!("NAME{}  VALUE\n", " ".repeat(46))),
            "{text}"
        );
    }
}
