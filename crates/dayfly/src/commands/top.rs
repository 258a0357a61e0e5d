//! `dayfly top`: shows pools and machines at the terminal, as they change.
//!
//! ```text
//!   status of each process ──┐
//!   counts of the kernel ────┼──> Looks ──> Board ──┐
//!   keys ────────────────────┴──> press ──> State ──┴──> draw ──> terminal
//!                                   └──> Effect: follow a log, drain a pool
//! ```
//!
//! It reads what processes publish, as `dayfly ps` and `dayfly why` do, and what the kernel counts; no process waits for
//! it. The board, the state and the drawing are pure. Only a drain, which asks first, changes something.

mod board;
mod draw;
mod keys;
mod log_tail;
mod look;
mod screen;
mod state;
mod text;
mod usage;

use std::collections::VecDeque;
use std::io::{self, IsTerminal as _};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Interval, MissedTickBehavior, interval, timeout};

use super::steer;
use crate::exit::{Failure, Outcome, Result, Signal};
use crate::printer;
use crate::settings::{self, Places};
use crate::signals::Signals;
use board::{Board, PoolKey};
use draw::{Look, Scene};
use keys::{Effect, press};
use log_tail::LogTail;
use look::Looks;
use screen::{Screen, Typed};
use state::{Mode, State};

/// Interval at which a log that is followed is read.
const TICK: Duration = Duration::from_millis(200);
/// Number of ticks between two looks at the host.
const TICKS_PER_LOOK: u32 = 5;
/// Longest wait at the end for the answer to an order.
const ORDER_LIMIT: Duration = Duration::from_secs(2);
/// Hint if the terminal cannot show the screen.
const USE_PS: &str =
    "`dayfly ps` prints the loops, runners and machines once, and `dayfly ps --json` for programs";

pub(crate) async fn run(places: &Places) -> Result<Outcome> {
    let is_terminal = io::stdin().is_terminal() && io::stdout().is_terminal();
    if let Some(why) = screen::unfit(is_terminal, settings::terminal_kind().as_deref()) {
        return Err(Failure::usage(why).hint(USE_PS));
    }
    let mut signals = Signals::take_over()?;
    let looks = Looks::of(places);
    // An error of the first look is shown on the terminal as it was.
    let board = looks.glance()?;
    let screen = Screen::enter().map_err(lost)?;
    let mut top = Top {
        places,
        looks,
        screen,
        board,
        state: State::default(),
        log: None,
        orders: JoinSet::new(),
        look: Look { has_colour: settings::wants_colour() },
        ticks: 0,
    };
    let ended = top.run(&mut signals).await;
    // Restored before anything else is printed, whatever the end is.
    drop(top.screen);
    if let Ok(Some(answer)) = timeout(ORDER_LIMIT, top.orders.join_next()).await {
        printer::note(words_of(answer));
    }
    ended
}

/// Returns the failure of a terminal that cannot be used any more.
fn lost(error: io::Error) -> Failure {
    Failure::cannot(format!("cannot use the terminal: {error}"))
}

/// The screen, and everything that it shows.
struct Top<'a> {
    places: &'a Places,
    looks: Looks<'a>,
    screen: Screen,
    board: Board,
    state: State,
    /// The log that is shown.
    log: Option<LogTail>,
    /// The orders whose answers have not come.
    orders: JoinSet<Result<String>>,
    look: Look,
    /// Number of ticks so far.
    ticks: u32,
}

/// The event that the screen handles next.
enum Event {
    Typed(Option<Typed>),
    Signal(Signal),
    Tick,
    Answered(std::result::Result<Result<String>, JoinError>),
}

/// The next action of the screen.
enum Next {
    Draw,
    Wait,
    End(Outcome),
}

impl Top<'_> {
    async fn run(&mut self, signals: &mut Signals) -> Result<Outcome> {
        self.draw()?;
        let mut typed = screen::typed();
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let event = self.next(signals, &mut typed, &mut ticks).await;
            match self.handle(event)? {
                Next::Draw => self.draw()?,
                Next::Wait => {}
                Next::End(outcome) => return Ok(outcome),
            }
        }
    }

    async fn next(
        &mut self,
        signals: &mut Signals,
        typed: &mut mpsc::Receiver<Typed>,
        ticks: &mut Interval,
    ) -> Event {
        tokio::select! {
            signal = signals.next() => Event::Signal(signal),
            typed = typed.recv() => Event::Typed(typed),
            Some(answer) = self.orders.join_next() => Event::Answered(answer),
            _ = ticks.tick() => Event::Tick,
        }
    }

    fn handle(&mut self, event: Event) -> Result<Next> {
        match event {
            Event::Signal(signal) => return Ok(Next::End(Outcome::StoppedBy(signal))),
            Event::Typed(Some(Typed::Key(key))) => {
                let (state, effect) = press(std::mem::take(&mut self.state), key, &self.board);
                self.state = state;
                if effect == Effect::Quit {
                    return Ok(Next::End(Outcome::Success));
                }
                self.carry_out(effect);
            }
            Event::Typed(Some(Typed::Resized)) => {}
            Event::Typed(Some(Typed::Gone(error))) => return Err(lost(error)),
            Event::Typed(None) => return Err(lost(io::ErrorKind::UnexpectedEof.into())),
            Event::Answered(answer) => self.state.message = Some(words_of(answer)),
            Event::Tick => return Ok(self.tick()),
        }
        Ok(Next::Draw)
    }

    fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::None | Effect::Quit => {}
            Effect::Unfollow => self.log = None,
            Effect::Follow(runner) => match LogTail::open(self.places, &runner) {
                Ok(log) => self.log = Some(log),
                Err(failure) => {
                    (self.state.mode, self.state.message) = (Mode::Lists, Some(failure.to_string()));
                }
            },
            Effect::Drain(PoolKey { instance, pool }) => {
                let places = self.places.clone();
                self.orders.spawn(async move { steer::drain_pool(&places, &instance, pool).await });
            }
        }
        let lines = self.log.as_ref().map_or(0, |log| log.lines.len());
        self.state.keep_in_log(lines);
    }

    /// Reads the log, and from time to time looks at the host.
    fn tick(&mut self) -> Next {
        let grown = self.log.as_mut().map(|log| (log.grow(), log.lines.len()));
        let mut next = Next::Wait;
        match grown {
            Some((Ok(count), lines)) if count > 0 => {
                self.state.log_grew(count, lines);
                next = Next::Draw;
            }
            Some((Err(error), _)) => {
                self.log = None;
                (self.state.mode, self.state.message) =
                    (Mode::Lists, Some(format!("the log cannot be read: {error}")));
                next = Next::Draw;
            }
            _ => {}
        }
        let is_due = self.ticks.is_multiple_of(TICKS_PER_LOOK);
        self.ticks = self.ticks.wrapping_add(1);
        if is_due {
            match self.looks.look() {
                Ok(board) => self.board = board,
                // The next look may succeed.
                Err(failure) => self.state.message = Some(failure.to_string()),
            }
            next = Next::Draw;
        }
        next
    }

    fn draw(&mut self) -> Result<()> {
        let none = VecDeque::new();
        let place = self.places.state.to_string_lossy();
        let scene = Scene {
            board: &self.board,
            state: &self.state,
            log: self.log.as_ref().map_or(&none, |log| &log.lines),
            place: &place,
            look: self.look,
        };
        self.screen.draw(|frame| draw::draw(frame, &scene)).map_err(lost)
    }
}

/// Returns the answer to an order in words.
fn words_of(answer: std::result::Result<Result<String>, JoinError>) -> String {
    match answer {
        Ok(Ok(words)) => words,
        Ok(Err(failure)) => {
            let hint = failure.what_to_do().map(|hint| format!(" ({hint})")).unwrap_or_default();
            format!("{failure}{hint}")
        }
        Err(error) => format!("the order was not given: {error}"),
    }
}
