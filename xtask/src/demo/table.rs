//! The demo's table: who asked what, and what came back. Every line is judged; it fits 100 columns.
//!
//! Lines are printed as they come, so a person sees progress.

use crate::say;

const FROM: usize = 6;
const ASKED: usize = 49;
const CAME: usize = 36;

/// Counts of the lines printed so far.
#[derive(Default)]
pub(crate) struct Table {
    pub(crate) right: usize,
    pub(crate) wrong: usize,
}

impl Table {
    /// Prints the head of a part.
    pub(crate) fn head(&self, title: &str) {
        say::line(format!("\n{title}"));
        say::line(format!("  {:FROM$} {:ASKED$} {:CAME$}", "from", "asked", "came back").trim_end());
    }

    /// Prints a line. `Err` is what came back instead of what was expected.
    pub(crate) fn row(&mut self, from: &str, asked: &str, came: &Result<String, String>) {
        let (mark, text) = match came {
            Ok(text) => ("ok", text),
            Err(text) => ("WRONG", text),
        };
        let asked = fit(asked, ASKED);
        if came.is_ok() {
            self.right += 1;
            say::line(format!("  {from:FROM$} {asked:ASKED$} {:CAME$} {mark}", fit(text, CAME)));
        } else {
            self.wrong += 1;
            say::line(format!("  {from:FROM$} {asked:ASKED$} {mark}: {text}"));
        }
    }
}

fn fit(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    text.chars().take(width - 2).chain("..".chars()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_text_is_cut_and_wrong_lines_are_counted() {
        assert_eq!(fit("abcdef", 4), "ab..");
        assert_eq!(fit("abcd", 4), "abcd");
        let mut table = Table::default();
        table.row("cart", "curl", &Ok("web-1".to_owned()));
        table.row("cart", "curl", &Err("nothing".to_owned()));
        assert_eq!((table.right, table.wrong), (1, 1));
    }
}
