//! Draws the screen. Pure: the same scene on a terminal of the same size is the same picture.

mod columns;
mod lists;

use std::collections::VecDeque;

use dayfly_host::quantity::quantity;
use ratatui::Frame;
use ratatui::layout::{Alignment, Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Paragraph, Wrap};

use super::board::{Board, MachineRow, PoolRow};
use super::state::{Focus, LogView, Mode, Shown, State};
use super::text::{fit, foreign};

/// The least size of a terminal.
const COLUMNS_MIN: u16 = 40;
const ROWS_MIN: u16 = 10;
/// Rows of the details below the lists.
const DETAILS: u16 = 3;
/// Share of the rows that pools may take.
const POOLS_SHARE: u16 = 3;

/// The keys of the lists.
const KEYS: [(&str, &str); 8] = [
    ("Arrows, PgUp, PgDn, Home, End", "select a row"),
    ("Tab", "go to the other list"),
    ("/", "show only rows with a text; Esc shows all"),
    ("s, r", "sort by the next column; reverse the order"),
    ("l or Enter", "follow the log of the machine"),
    ("d", "drain the pool, after a question"),
    ("?", "show these keys"),
    ("q or Ctrl-C", "quit"),
];

/// Everything that is drawn.
#[derive(Debug)]
pub(super) struct Scene<'a> {
    pub(super) board: &'a Board,
    pub(super) state: &'a State,
    /// The last lines of the log that is shown.
    pub(super) log: &'a VecDeque<String>,
    /// The state folder, for a host without processes.
    pub(super) place: &'a str,
    pub(super) look: Look,
}

/// The styles. Colour only repeats what words say.
#[derive(Debug, Clone, Copy)]
pub(super) struct Look {
    pub(super) has_colour: bool,
}

impl Look {
    fn coloured(self, colour: Color) -> Style {
        if self.has_colour { Style::new().fg(colour) } else { Style::new() }
    }

    fn head() -> Style {
        Style::new().add_modifier(Modifier::BOLD)
    }

    fn selected() -> Style {
        Style::new().add_modifier(Modifier::REVERSED)
    }
}

/// Draws a scene.
pub(super) fn draw(frame: &mut Frame<'_>, scene: &Scene<'_>) {
    let area = frame.area();
    if area.width < COLUMNS_MIN || area.height < ROWS_MIN {
        let text = format!("too small: {COLUMNS_MIN}x{ROWS_MIN} is the least");
        frame.render_widget(Paragraph::new(text).wrap(Wrap { trim: true }), area);
        return;
    }
    let [title, body, last] =
        Layout::vertical([Constraint::Length(1), Constraint::Fill(1), Constraint::Length(1)]).areas(area);
    draw_title(frame, title, scene);
    match &scene.state.mode {
        Mode::Log(view) => draw_log(frame, body, (view, scene.log)),
        Mode::Help => draw_help(frame, body),
        Mode::Lists | Mode::Filter { .. } | Mode::Confirm(_) if scene.board.processes == 0 => {
            draw_nothing(frame, body, scene.place);
        }
        Mode::Lists | Mode::Filter { .. } | Mode::Confirm(_) => draw_lists(frame, body, scene),
    }
    frame.render_widget(Line::from(last_line(scene, last.width)), last);
}

fn draw_title(frame: &mut Frame<'_>, area: Rect, scene: &Scene<'_>) {
    let pools = &scene.board.pools;
    let sum = |of: fn(&PoolRow) -> u32| pools.iter().map(of).sum::<u32>();
    let counts = match &scene.state.mode {
        Mode::Log(view) => format!("log of {}", view.runner),
        _ => format!(
            "jobs: {} run, {} wait  runners: {} idle  machines: {}",
            sum(|pool| pool.busy),
            sum(|pool| pool.waiting),
            sum(|pool| pool.idle),
            sum(|pool| pool.machines)
        ),
    };
    let words =
        Line::from(vec![Span::styled("dayfly top", Look::head()), Span::raw("  "), Span::raw(counts)]);
    frame.render_widget(words, area);
    let clock = clock(scene.board.at_ms);
    let width = u16::try_from(clock.len()).unwrap_or(area.width).min(area.width);
    let right = Rect { x: area.right() - width, width, ..area };
    frame.render_widget(Line::from(clock), right);
}

/// Returns a moment as time of day.
fn clock(at_ms: u64) -> String {
    let at = i64::try_from(at_ms).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    at.map(|at| at.strftime(" %H:%M:%S UTC").to_string()).unwrap_or_default()
}

fn draw_nothing(frame: &mut Frame<'_>, area: Rect, place: &str) {
    let lines = [
        String::new(),
        format!("No orchestrator and no runner runs here (state in {}).", foreign(place)),
        "They appear here as soon as they start; `dayfly runs` lists what has ended.".to_owned(),
    ];
    let text = lines.map(Line::from).to_vec();
    frame.render_widget(Paragraph::new(text).alignment(Alignment::Center).wrap(Wrap { trim: true }), area);
}

fn draw_help(frame: &mut Frame<'_>, area: Rect) {
    let line = |(keys, meaning): &(&str, &str)| Line::from(format!("  {keys:29}  {meaning}"));
    let mut lines = vec![Line::from(""), Line::styled("Keys", Look::head())];
    lines.extend(KEYS.iter().map(line));
    lines.push(Line::from(""));
    lines.push(Line::from("CPU: hundredths of one processor. MEM: with the page cache of the files."));
    lines.push(Line::from("NET, DISK: bytes a second. A dash: this host does not count it."));
    frame.render_widget(Paragraph::new(lines).wrap(Wrap { trim: false }), area);
}

fn draw_lists(frame: &mut Frame<'_>, area: Rect, scene: &Scene<'_>) {
    let shown = Shown::of(scene.board, scene.state);
    let count = u16::try_from(shown.pools.len()).unwrap_or(u16::MAX);
    // One row for the heading; at least one pool can be seen.
    let pool_rows = count.saturating_add(1).clamp(2, (area.height / POOLS_SHARE).max(2));
    let rows = [
        Constraint::Length(pool_rows),
        Constraint::Length(1),
        Constraint::Fill(1),
        Constraint::Length(DETAILS),
    ];
    let [pools, _, machines, details] = Layout::vertical(rows).areas(area);
    lists::draw_pools(frame, pools, (&shown, scene));
    lists::draw_machines(frame, machines, (&shown, scene));
    let text = match shown.focus {
        Focus::Pools => shown.pool(scene.state).map(pool_details),
        Focus::Machines => shown.machine(scene.state).map(machine_details),
    };
    let text = text.unwrap_or_else(|| "nothing to show".to_owned());
    frame.render_widget(Paragraph::new(text).wrap(Wrap { trim: true }), details);
}

/// Returns the sentences about a pool.
fn pool_details(row: &PoolRow) -> String {
    if row.reasons.is_empty() {
        return format!(
            "{} of {}: no job waits, and nothing is wrong.",
            foreign(&row.key.pool),
            row.key.instance
        );
    }
    let sentence = |reason: &dayfly_fleet::why::Reason| {
        let todo = reason.todo.as_ref().map(|todo| format!(" -> {}", foreign(todo))).unwrap_or_default();
        format!("{}{todo}", foreign(&reason.text))
    };
    row.reasons.iter().map(sentence).collect::<Vec<_>>().join(" ")
}

/// Returns all that is known of a machine's job.
fn machine_details(row: &MachineRow) -> String {
    let named =
        |word: &str, text: &Option<String>| text.as_ref().map(|text| format!("{word} {}", foreign(text)));
    let parts = [
        named("runner", &row.runner),
        Some(format!("pool {} of {}", foreign(&row.pool.pool), row.key.instance)),
        named("job", &row.job),
        named("workflow", &row.workflow),
        named("repository", &row.repository),
        named("trouble:", &row.trouble),
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

/// Draws the last lines of a log that fit.
fn draw_log(frame: &mut Frame<'_>, area: Rect, (view, log): (&LogView, &VecDeque<String>)) {
    let rows = usize::from(area.height);
    let end = log.len().saturating_sub(view.back).max(rows.min(log.len()));
    let line = |text: &String| {
        let rest: String = text.chars().skip(view.shift).collect();
        Line::from(fit(&rest, area.width))
    };
    let lines: Vec<Line<'_>> = log.range(end.saturating_sub(rows)..end).map(line).collect();
    frame.render_widget(Paragraph::new(lines), area);
}

/// Returns the last line: a question, the filter, a message, or the keys.
fn last_line(scene: &Scene<'_>, columns: u16) -> Span<'static> {
    let state = scene.state;
    let text = match &state.mode {
        Mode::Confirm(pool) => {
            // The question has to be whole, whatever the pool's name is.
            let name = fit(&foreign(&pool.pool), columns.saturating_sub(60));
            format!("drain {name} of {}? Jobs go on, no runner starts. y: yes", pool.instance)
        }
        Mode::Filter { .. } => format!("filter: {}_  (Enter: keep, Esc: as before)", foreign(&state.filter)),
        Mode::Log(view) if view.back == 0 => {
            "follows  Up, Down, Home, End: scroll  Left, Right: shift  Esc: back".to_owned()
        }
        Mode::Log(view) => {
            let below = quantity(view.back, "line", "lines");
            format!("{below} below  End: follow  Left, Right: shift  Esc: back")
        }
        Mode::Help => "any key: back".to_owned(),
        Mode::Lists => match &state.message {
            Some(message) => foreign(message),
            None => keys_line(state),
        },
    };
    let style = match state.mode {
        Mode::Confirm(_) => scene.look.coloured(Color::Yellow).add_modifier(Modifier::BOLD),
        _ => Style::new(),
    };
    Span::styled(fit(&text, columns), style)
}

fn keys_line(state: &State) -> String {
    let order = if state.is_reversed { " reversed" } else { "" };
    let filter =
        if state.filter.is_empty() { String::new() } else { format!(" \"{}\"", foreign(&state.filter)) };
    format!(
        "q quit  Tab list  l log  d drain  ? keys  / filter{filter}  s sort: {}{order}",
        state.sort.word()
    )
}

#[cfg(test)]
mod tests;
