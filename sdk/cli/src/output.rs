//! What goes to stdout: JSON for programs, tables for people. Nothing else writes there.

use anyhow::{Context, Result};
use serde::Serialize;
use ssl_edge::vision::Skipped;
use std::io::{ErrorKind, Write};
use std::path::Path;

/// How results are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// One JSON object a line.
    Json,
    /// Text for people.
    Human,
}

impl Format {
    /// Prints `value` as one line of JSON, or what `human` makes of it.
    pub(crate) fn print<T: Serialize>(
        self,
        value: &T,
        human: impl FnOnce(&T) -> String,
    ) -> Result<()> {
        let text = match self {
            Format::Json => {
                serde_json::to_string(value).context("the result cannot be written as JSON")?
            }
            Format::Human => human(value),
        };
        print_line(text.trim_end())
    }
}

/// A table for people: the first column flush left, all others flush right.
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with the given column heads.
    pub(crate) fn new(heads: &[&str]) -> Self {
        Self {
            rows: vec![heads.iter().map(|head| head.to_string()).collect()],
        }
    }

    /// Adds a row; it has as many cells as the table has heads.
    pub(crate) fn row(&mut self, cells: Vec<String>) -> &mut Self {
        debug_assert_eq!(cells.len(), self.rows[0].len());
        self.rows.push(cells);
        self
    }

    /// The table as text, a rule below its head.
    pub(crate) fn render(&self) -> String {
        let n_columns = self.rows[0].len();
        let width = |column: usize| {
            self.rows
                .iter()
                .map(|row| row[column].chars().count())
                .max()
                .unwrap_or(0)
        };
        let widths: Vec<usize> = (0..n_columns).map(width).collect();
        let mut text = String::new();
        for (index, row) in self.rows.iter().enumerate() {
            let cells: Vec<String> = row
                .iter()
                .zip(&widths)
                .enumerate()
                .map(|(column, (cell, &width))| match column {
                    0 => format!("{cell:<width$}"),
                    _ => format!("{cell:>width$}"),
                })
                .collect();
            text.push_str(cells.join("  ").trim_end());
            text.push('\n');
            if index == 0 {
                text.push_str(&"-".repeat(widths.iter().sum::<usize>() + 2 * (n_columns - 1)));
                text.push('\n');
            }
        }
        text
    }
}

/// A fraction as a percentage with one decimal.
pub(crate) fn percent(fraction: f64) -> String {
    format!("{:.1} %", 100.0 * fraction)
}

/// A line for people on stderr.
pub(crate) fn note(text: impl std::fmt::Display) {
    // A reader of stderr that went away is no reason to stop the work.
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Files and folders that were left out, on stderr, with the reason.
pub(crate) fn note_skipped(skipped: &[Skipped]) {
    for Skipped { path, reason } in skipped {
        note(describe_skipped(path, reason));
    }
}

/// A file that was left out, named once.
pub(crate) fn describe_skipped(path: &Path, reason: &str) -> String {
    let name = path.display().to_string();
    match reason.contains(&name) {
        true => format!("skipped: {reason}"),
        false => format!("skipped: {name}: {reason}"),
    }
}

fn print_line(text: &str) -> Result<()> {
    match writeln!(std::io::stdout().lock(), "{text}") {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => std::process::exit(0),
        other => other.context("cannot write to stdout"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned() {
        let mut table = Table::new(&["features", "1 shot"]);
        table
            .row(vec!["raw".into(), "9.0 %".into()])
            .row(vec!["encoder".into(), "100.0 %".into()]);
        assert_eq!(
            table.render(),
            "features   1 shot\n-----------------\nraw         9.0 %\nencoder   100.0 %\n"
        );
    }

    #[test]
    fn fractions_become_percentages() {
        assert_eq!(percent(0.6094), "60.9 %");
    }
}
