//! The lists of pools and machines.

use dayfly_fleet::state::Phase;
use dayfly_fleet::status::PoolState;
use ratatui::Frame;
use ratatui::layout::{Alignment, Constraint, Rect};
use ratatui::style::{Color, Style};
use ratatui::text::Line;
use ratatui::widgets::{Cell, HighlightSpacing, Row, Table, TableState};

use super::columns::{Column, GAP, Width, laid_out};
use super::{Look, Scene};
use crate::commands::top::board::{MachineRow, PoolRow};
use crate::commands::top::state::{Focus, Shown};
use crate::commands::top::text::{NOTHING, fit, foreign, known, size};
use crate::commands::top::usage::sum;
use crate::units::short_span;

/// The mark of the selected row, also without colours.
const MARK: &str = "> ";
const MARK_WIDTH: u16 = 2;

/// A machine and the time of the look.
type MachineAt<'a> = (&'a MachineRow, u64);

/// Returns a column of text.
fn text<R>(head: &'static str, width: Width, text: fn(&R) -> String) -> Column<R> {
    Column { head, width, is_right: false, is_extra: false, text }
}

/// Returns a column of numbers.
fn number<R>(head: &'static str, width: u16, text: fn(&R) -> String) -> Column<R> {
    Column { head, width: Width::Fixed(width), is_right: true, is_extra: false, text }
}

/// Returns a column for wide terminals only.
fn extra<R>(column: Column<R>) -> Column<R> {
    Column { is_extra: true, ..column }
}

fn pool_columns() -> [Column<PoolRow>; 9] {
    [
        text("POOL", Width::Fixed(16), |row| foreign(&row.key.pool)),
        extra(text("INSTANCE", Width::Fixed(8), |row| row.key.instance.clone())),
        text("STATE", Width::Fixed(8), |row| state_word(row.state).to_owned()),
        number("WAIT", 5, |row| row.waiting.to_string()),
        number("BUSY", 5, |row| row.busy.to_string()),
        number("IDLE", 5, |row| row.idle.to_string()),
        number("START", 5, |row| row.starting.to_string()),
        extra(number("MACHINES", 8, |row| row.machines.to_string())),
        text("WHY", Width::Share(1), |row| {
            row.reasons.first().map(|reason| foreign(&reason.text)).unwrap_or_default()
        }),
    ]
}

fn machine_columns<'a>() -> [Column<MachineAt<'a>>; 15] {
    [
        text("RUNNER", Width::Fixed(13), |(row, _)| row.runner.clone().unwrap_or_else(|| NOTHING.to_owned())),
        extra(text("INSTANCE", Width::Fixed(8), |(row, _)| row.key.instance.clone())),
        extra(text("POOL", Width::Fixed(16), |(row, _)| foreign(&row.pool.pool))),
        text("STATE", Width::Fixed(9), |(row, _)| row.phase.as_str().to_owned()),
        number("FOR", 4, |(row, now_ms)| short_span(now_ms.saturating_sub(row.since_ms) / 1000)),
        number("CPU", 6, |(row, _)| known(row.usage.cpu_percent, |percent| format!("{percent}%"))),
        number("MEM", 5, |(row, _)| known(row.usage.memory, size)),
        number("NET", 5, |(row, _)| known(row.usage.traffic, |flow| size(sum(flow)))),
        extra(number("NET IN", 6, |(row, _)| known(row.usage.traffic, |flow| size(flow.inward)))),
        number("DISK", 5, |(row, _)| known(row.usage.disk, |flow| size(sum(flow)))),
        extra(number("READ", 5, |(row, _)| known(row.usage.disk, |flow| size(flow.inward)))),
        extra(number("SPACE", 5, |(row, _)| known(row.usage.space, size))),
        text("JOB", Width::Share(2), |(row, _)| foreign(job_of(row))),
        extra(text("WORKFLOW", Width::Share(1), |(row, _)| {
            foreign(row.workflow.as_deref().unwrap_or(NOTHING))
        })),
        extra(text("REPOSITORY", Width::Share(2), |(row, _)| {
            foreign(row.repository.as_deref().unwrap_or(NOTHING))
        })),
    ]
}

/// Returns the job of a machine, or the reason why it has none.
fn job_of(row: &MachineRow) -> &str {
    row.job.as_deref().or(row.trouble.as_deref()).unwrap_or(NOTHING)
}

fn state_word(state: PoolState) -> &'static str {
    match state {
        PoolState::Running => "running",
        PoolState::Paused => "paused",
        PoolState::Draining => "draining",
        PoolState::GivenUp => "given up",
    }
}

/// Draws the list of pools.
pub(super) fn draw_pools(frame: &mut Frame<'_>, area: Rect, (shown, scene): (&Shown<'_>, &Scene<'_>)) {
    let style = |row: &PoolRow| match row.state {
        PoolState::Running if row.reasons.is_empty() => Style::new(),
        _ => scene.look.coloured(Color::Yellow),
    };
    let selected = (shown.focus == Focus::Pools).then(|| shown.pool_at(scene.state)).flatten();
    draw_list(frame, area, List { columns: &pool_columns(), rows: &shown.pools, style: &style, selected });
}

/// Draws the list of machines.
pub(super) fn draw_machines(frame: &mut Frame<'_>, area: Rect, (shown, scene): (&Shown<'_>, &Scene<'_>)) {
    let rows: Vec<MachineAt<'_>> = shown.machines.iter().map(|row| (*row, scene.board.at_ms)).collect();
    let rows: Vec<&MachineAt<'_>> = rows.iter().collect();
    let style = |(row, _): &MachineAt<'_>| match row.phase {
        Phase::Busy => scene.look.coloured(Color::Green),
        Phase::Pausing => scene.look.coloured(Color::Red),
        _ => Style::new(),
    };
    let selected = (shown.focus == Focus::Machines).then(|| shown.machine_at(scene.state)).flatten();
    draw_list(frame, area, List { columns: &machine_columns(), rows: &rows, style: &style, selected });
}

/// A list that is drawn.
struct List<'a, R> {
    columns: &'a [Column<R>],
    rows: &'a [&'a R],
    style: &'a dyn Fn(&R) -> Style,
    selected: Option<usize>,
}

fn draw_list<R>(frame: &mut Frame<'_>, area: Rect, list: List<'_, R>) {
    let List { columns, rows, style, selected } = list;
    let columns = laid_out(columns, area.width.saturating_sub(MARK_WIDTH));
    let cell = |(column, width): &(&Column<R>, u16), text: &str| {
        let line = Line::from(fit(text, *width));
        Cell::from(if column.is_right { line.alignment(Alignment::Right) } else { line })
    };
    let first = first_row(rows.len(), selected, usize::from(area.height.saturating_sub(1)));
    let visible = rows.iter().skip(first).take(usize::from(area.height));
    let drawn = visible.map(|row| {
        Row::new(columns.iter().map(|column| cell(column, &(column.0.text)(row)))).style(style(row))
    });
    let head = Row::new(columns.iter().map(|column| cell(column, column.0.head))).style(Look::head());
    let widths = columns.iter().map(|(_, width)| Constraint::Length(*width));
    let table = Table::new(drawn, widths)
        .header(head)
        .column_spacing(GAP)
        .row_highlight_style(Look::selected())
        .highlight_symbol(MARK)
        .highlight_spacing(HighlightSpacing::Always);
    let mut at = TableState::default().with_selected(selected.map(|selected| selected - first));
    frame.render_stateful_widget(table, area, &mut at);
}

/// Returns the number of the first row that is drawn, so that the selected one can be seen. Only rows that can be seen
/// are drawn, so a frame of ten machines and one of ten thousand cost the same.
fn first_row(count: usize, selected: Option<usize>, height: usize) -> usize {
    let half = height / 2;
    selected.map_or(0, |selected| selected.saturating_sub(half).min(count.saturating_sub(height)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_selected_row_can_be_seen_at_every_place_and_the_end_of_the_list_has_no_gap() {
        for (count, height) in [(0, 5), (3, 5), (5, 5), (200, 5), (200, 1)] {
            for selected in 0..count {
                let first = first_row(count, Some(selected), height);
                assert!((first..first + height).contains(&selected), "{selected} of {count} in {height}");
                assert!(count <= height || first + height <= count, "{selected} of {count} in {height}");
            }
        }
        assert_eq!(first_row(200, None, 5), 0);
    }
}
