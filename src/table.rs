//! Columns of text.

/// Lines of aligned columns, without spaces at their ends. A cell's width is its characters; `paint` (row, column,
/// cell) colours it afterwards.
pub(crate) fn columns<const N: usize>(
    rows: &[[String; N]],
    paint: impl Fn(usize, usize, &str) -> String,
) -> String {
    let mut widths = [0; N];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    let mut out = String::new();
    for (at, row) in rows.iter().enumerate() {
        let mut behind = 0;
        for (column, cell) in row.iter().enumerate() {
            if !cell.is_empty() {
                out.extend(std::iter::repeat_n(' ', behind));
                out.push_str(&paint(at, column, cell));
                behind = 0;
            }
            behind += widths[column] + 2 - cell.chars().count();
        }
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_whatever_colours_they_have() {
        let rows = [["id".into(), "état".into(), "x".into()], ["12345".into(), "ok".into(), String::new()]];
        let plain = columns(&rows, |_, _, cell| cell.to_owned());
        assert_eq!(plain, "id     état  x\n12345  ok\n");
        let painted = columns(&rows, |_, _, cell| format!("\x1b[1m{cell}\x1b[0m"));
        assert_eq!(painted.replace("\x1b[1m", "").replace("\x1b[0m", "").replace("  \n", "\n"), plain);
    }
}
