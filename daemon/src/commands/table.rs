//! A table of text: columns as wide as their widest cell, two blanks between them, no blanks at line ends.
//! Pure; every listing is drawn with it.

/// Renders a header and rows. A row may be shorter than the header.
pub fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    let widths: Vec<usize> = header
        .iter()
        .enumerate()
        .map(|(column, title)| {
            let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
            cells.chain([title.chars().count()]).max().unwrap_or_default()
        })
        .collect();
    let titles: Vec<String> = header.iter().map(|&title| title.to_owned()).collect();
    std::iter::once(&titles).chain(rows).map(|row| line(row, &widths)).collect()
}

fn line(row: &[String], widths: &[usize]) -> String {
    let cells = row.iter().zip(widths).map(|(cell, &width)| format!("{cell:width$}"));
    let mut line = cells.collect::<Vec<_>>().join("  ");
    line.truncate(line.trim_end().len());
    line.push('\n');
    line
}

#[cfg(test)]
mod tests {
    use super::table;

    #[test]
    fn columns_line_up_and_lines_end_where_their_text_ends() {
        let rows = [vec!["shop/web".into(), "10.96.0.1".into()], vec!["x".into(), String::new()]];
        let expected = "NAME      ADDRESS\nshop/web  10.96.0.1\nx\n";
        assert_eq!(table(&["NAME", "ADDRESS"], &rows), expected);
    }
}
