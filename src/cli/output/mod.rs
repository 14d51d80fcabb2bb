//! Everything that is printed while a push runs and when it is over: events, reports and errors
//! in, text on standard error out.

mod bars;
mod failure;
mod lines;
mod progress;
mod summary;
mod text;

use std::io::{self, IsTerminal, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use indicatif::ProgressDrawTarget;

use self::bars::Bars;
use self::lines::Lines;
use self::progress::Progress;
use self::text::{Paint, escape};
use crate::event::{Event, Events};
use crate::report::{Outcome, Report};

/// How much is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verbosity {
    /// Errors only.
    Quiet,
    /// Progress, warnings, retries, the summary.
    Normal,
    /// Besides, notes and one line for each request.
    Requests,
    /// Besides, the requests' headers.
    Headers,
}

/// How long [`Output::tick`] may be left uncalled.
pub const TICK: Duration = Duration::from_millis(500);

/// Standard error, for one push. Clones are the same.
#[derive(Clone)]
pub struct Output {
    state: Arc<Mutex<State>>,
    verbosity: Verbosity,
    paint: Paint,
    dry_run: bool,
}

struct State {
    progress: Progress,
    screen: Screen,
    /// After this, events are no longer shown: what runs on in other threads has nothing to say.
    finished: bool,
}

enum Screen {
    Bars(Bars),
    Lines(Lines<Box<dyn Write + Send>>),
}

impl Output {
    /// Standard error: bars if it is a terminal that a person looks at, plain lines else.
    pub fn stderr(verbosity: Verbosity, dry_run: bool) -> Self {
        // `console` lets CLICOLOR_FORCE win over NO_COLOR, which is to win over everything
        // (https://no-color.org).
        let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let colours = !refused && console::colors_enabled_stderr();
        console::set_colors_enabled_stderr(colours);
        // The bars would ask whether standard output has colours, where none are ever printed.
        console::set_colors_enabled(colours);
        let screen = if verbosity > Verbosity::Quiet && is_watched() {
            let (_, columns) = console::Term::stderr().size();
            Screen::Bars(Bars::new(ProgressDrawTarget::stderr_with_hz(bars::DRAWS), columns.into()))
        } else {
            Screen::Lines(Lines::new(Box::new(io::stderr()), Instant::now()))
        };
        Self::new(screen, verbosity, Paint { colours }, dry_run)
    }

    fn new(screen: Screen, verbosity: Verbosity, paint: Paint, dry_run: bool) -> Self {
        Self {
            state: Arc::new(Mutex::new(State {
                progress: Progress::default(),
                screen,
                finished: false,
            })),
            verbosity,
            paint,
            dry_run,
        }
    }

    /// The sink for the push's events.
    pub fn events(&self) -> Events {
        let output = self.clone();
        Arc::new(move |event| output.show(&event, Instant::now()))
    }

    fn show(&self, event: &Event, now: Instant) {
        let mut state = self.lock();
        if state.finished {
            return;
        }
        state.progress.apply(event, now);
        if self.verbosity == Verbosity::Quiet {
            return;
        }
        for line in self.say(event, &state.screen) {
            state.screen.line(&line, now);
        }
        let State { progress, screen, .. } = &mut *state;
        if let Screen::Bars(bars) = screen {
            bars.update(event, progress, now);
        }
    }

    /// To be called every now and then, whether anything happens or not.
    pub fn tick(&self, now: Instant) {
        let mut state = self.lock();
        if state.finished || self.verbosity == Verbosity::Quiet {
            return;
        }
        let State { progress, screen, .. } = &mut *state;
        match screen {
            Screen::Bars(bars) => bars.tick(progress, now),
            Screen::Lines(lines) => lines.tick(progress, now),
        }
    }

    /// The lines that an event is worth.
    fn say(&self, event: &Event, screen: &Screen) -> Vec<String> {
        let is_log = matches!(screen, Screen::Lines(_));
        match event {
            Event::Destination { reference } if is_log => {
                let doing = if self.dry_run { "checking" } else { "pushing" };
                vec![format!("{doing} {}", escape(reference))]
            }
            // A plan is told in order when it is complete.
            Event::LayerSettled { .. } if self.dry_run => vec![],
            // At a terminal, the bar for the whole counts what is there.
            Event::LayerSettled { report, .. }
                if is_log
                    || self.verbosity > Verbosity::Normal
                    || !matches!(report.outcome, Outcome::Reused { .. }) =>
            {
                vec![summary::layer(report, screen.name_columns(), self.paint)]
            }
            Event::Retry { why, wait } => {
                let when = match wait.is_zero() {
                    true => "at once".to_owned(),
                    false => format!("in {}", text::time(wait.as_secs_f64())),
                };
                vec![format!("{} {}; again {when}", self.paint.doubtful("retry:"), escape(why))]
            }
            Event::Warning(warning) => vec![self.warning(warning)],
            Event::Note(note) if self.verbosity > Verbosity::Normal => {
                vec![self.paint.faint(&escape(note))]
            }
            Event::Request { line, headers } if self.verbosity > Verbosity::Normal => {
                let headers = headers.iter().filter(|_| self.verbosity == Verbosity::Headers);
                let indented = headers.map(|header| format!("  {}", escape(header)));
                std::iter::once(escape(line).into_owned())
                    .chain(indented)
                    .map(|line| self.paint.faint(&line))
                    .collect()
            }
            _ => vec![],
        }
    }

    fn warning(&self, warning: &str) -> String {
        let label = self.paint.doubtful("warning:");
        format!("{label} {}", escape(warning))
    }

    /// Says something that the user should know before anything happens.
    pub fn warn(&self, warning: &str) {
        self.show(&Event::Warning(warning.to_owned()), Instant::now());
    }

    /// Takes the bars away; from now on only [`report`](Self::report) and [`fail`](Self::fail)
    /// print.
    pub fn finish(&self) {
        let mut state = self.lock();
        state.finished = true;
        if let Screen::Bars(bars) = &mut state.screen {
            bars.clear();
            state.screen = Screen::Lines(Lines::new(Box::new(io::stderr()), Instant::now()));
        }
    }

    /// Says what came of the push: with `--dry-run` layer by layer.
    pub fn report(&self, report: &Report) {
        if self.verbosity == Verbosity::Quiet {
            return;
        }
        if self.dry_run {
            for layer in &report.layers {
                self.print(&summary::layer(layer, summary::NAME_COLUMNS, self.paint));
            }
        }
        self.print(&summary::whole(report, self.paint));
    }

    /// Says why there is nothing to report.
    pub fn fail(&self, error: &dyn std::error::Error) {
        for line in failure::lines(error, self.paint) {
            self.print(&line);
        }
    }

    /// Prints a line of this program's own.
    pub fn print(&self, line: &str) {
        self.lock().screen.line(line, Instant::now());
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic while printing must not silence what is printed about it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Screen {
    fn line(&mut self, text: &str, now: Instant) {
        match self {
            Self::Bars(bars) => bars.line(text),
            Self::Lines(lines) => lines.line(text, now),
        }
    }

    fn name_columns(&self) -> usize {
        match self {
            Self::Bars(bars) => bars.name_columns(),
            Self::Lines(_) => summary::NAME_COLUMNS,
        }
    }
}

/// Whether standard error is a terminal that can move its cursor, and not a CI's imitation of one.
fn is_watched() -> bool {
    let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let ci = set("CI") && std::env::var("CI").is_ok_and(|value| value != "false");
    io::stderr().is_terminal() && !console::is_dumb() && !ci
}

#[cfg(test)]
pub(super) mod tests;
