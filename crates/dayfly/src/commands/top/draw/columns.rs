//! The columns of a list, and their widths on a terminal. Pure.

/// A column of a list of `Row`s.
#[derive(Debug)]
pub(super) struct Column<Row> {
    pub(super) head: &'static str,
    pub(super) width: Width,
    /// True for numbers.
    pub(super) is_right: bool,
    /// True if only a wide terminal has room for it.
    pub(super) is_extra: bool,
    /// Returns the text of its cell.
    pub(super) text: fn(&Row) -> String,
}

/// The width of a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Width {
    /// So many columns of the terminal.
    Fixed(u16),
    /// A share of those that are left.
    Share(u16),
}

/// Columns from which a terminal is wide.
const WIDE: u16 = 140;
/// Columns between two cells.
pub(super) const GAP: u16 = 1;
/// Fewest columns of a share.
const SHARE_MIN: u16 = 4;

/// Returns the columns that a terminal has room for, each with its width.
pub(super) fn laid_out<Row>(all: &[Column<Row>], columns: u16) -> Vec<(&Column<Row>, u16)> {
    let used: Vec<&Column<Row>> = all.iter().filter(|column| !column.is_extra || columns >= WIDE).collect();
    let fixed = |column: &&Column<Row>| match column.width {
        Width::Fixed(width) => width,
        Width::Share(_) => 0,
    };
    let shares = |column: &&Column<Row>| match column.width {
        Width::Fixed(_) => 0,
        Width::Share(share) => share,
    };
    let gaps = GAP * u16::try_from(used.len().saturating_sub(1)).unwrap_or_default();
    let taken = used.iter().map(fixed).sum::<u16>() + gaps;
    let (left, parts) = (columns.saturating_sub(taken), used.iter().map(shares).sum::<u16>().max(1));
    let width = |column: &Column<Row>| match column.width {
        Width::Fixed(width) => width,
        Width::Share(share) => (left * share / parts).max(SHARE_MIN),
    };
    used.into_iter().map(|column| (column, width(column))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(width: Width, is_extra: bool) -> Column<()> {
        Column { head: "", width, is_right: false, is_extra, text: |()| String::new() }
    }

    #[test]
    fn columns_fill_the_terminal_and_extra_ones_are_for_wide_ones() {
        let all =
            [column(Width::Fixed(10), false), column(Width::Share(1), false), column(Width::Share(2), true)];
        let widths = |columns| laid_out(&all, columns).iter().map(|(_, width)| *width).collect::<Vec<_>>();
        assert_eq!(widths(80), [10, 69]);
        assert_eq!(widths(202), [10, 63, 126]);
        assert_eq!(widths(5), [10, SHARE_MIN], "what does not fit is cut by the terminal");
    }
}
