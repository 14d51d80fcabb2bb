//! Everything that is printed while a push runs and when it is over: events, reports and errors
//! in, text on standard error out.

mod bars;
mod failure;
pub mod inspect;
pub mod labels;
mod lines;
mod progress;
pub mod summary;
mod text;

use std::io::{self, IsTerminal, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use indicatif::ProgressDrawTarget;

use self::bars::Bars;
use self::lines::Lines;
use self::progress::Progress;
use self::text::{Paint, escape};
use super::outcome::ImageOutcome;
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

/// Standard error, for one push or for several together. Clones are the same.
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
    /// What lines call the images, by their places; empty where there is one image.
    labels: Vec<String>,
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
                progress: Progress::new(1),
                screen,
                labels: Vec::new(),
                finished: false,
            })),
            verbosity,
            paint,
            dry_run,
        }
    }

    /// Sets the labels that lines of several images begin with.
    pub fn set_labels(&self, labels: Vec<String>) {
        let mut state = self.lock();
        state.progress = Progress::new(labels.len().max(1));
        state.labels = labels;
    }

    /// The sink for the events of the image at this place.
    pub fn events_of(&self, image: usize) -> Events {
        let output = self.clone();
        Arc::new(move |event| output.show(image, &event, Instant::now()))
    }

    fn show(&self, image: usize, event: &Event, now: Instant) {
        let mut state = self.lock();
        if state.finished {
            return;
        }
        state.progress.apply(image, event, now);
        if self.verbosity == Verbosity::Quiet {
            return;
        }
        let label = state.labels.get(image).filter(|_| is_of_one_image(event));
        let label = label.map(|label| format!("{label}  ")).unwrap_or_default();
        for line in self.say(event, &state.screen) {
            state.screen.line(&format!("{label}{line}"), now);
        }
        let State { progress, screen, .. } = &mut *state;
        if let Screen::Bars(bars) = screen {
            bars.update(image, event, progress, now);
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
        if self.verbosity > Verbosity::Quiet {
            self.print(&self.warning(warning));
        }
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

    /// Says what came of a push: with `--dry-run` layer by layer.
    pub fn report(&self, report: &Report) {
        self.report_labelled(report, "");
    }

    /// Says what came of the push of each of several images, in their order, and in all.
    pub fn report_all(&self, outcomes: &[ImageOutcome], took: Duration) {
        for (place, outcome) in outcomes.iter().enumerate() {
            match outcome {
                ImageOutcome::Pushed(report) => {
                    let label = self.lock().labels.get(place).cloned().unwrap_or_default();
                    self.report_labelled(report, &label);
                }
                ImageOutcome::Failed { name, error } => {
                    let label = format!("failed {}:", escape(name));
                    for line in failure::lines(&label, error, self.paint) {
                        self.print(&line);
                    }
                }
            }
        }
        if self.verbosity > Verbosity::Quiet {
            self.print(&summary::total(outcomes, took, self.dry_run, self.paint));
        }
    }

    fn report_labelled(&self, report: &Report, label: &str) {
        if self.verbosity == Verbosity::Quiet {
            return;
        }
        if self.dry_run {
            let label = if label.is_empty() { String::new() } else { format!("{label}  ") };
            for layer in &report.layers {
                let line = summary::layer(layer, summary::NAME_COLUMNS, self.paint);
                self.print(&format!("{label}{line}"));
            }
        }
        if self.verbosity > Verbosity::Normal {
            for manifest in &report.manifests {
                self.print(&self.paint.faint(&summary::manifest(manifest)));
            }
        }
        let whole = summary::whole(report, self.paint);
        // What is said of a plan of one image has its name above it.
        let name = if self.dry_run && !label.is_empty() {
            format!("{}: ", escape(&report.reference))
        } else {
            String::new()
        };
        self.print(&format!("{name}{whole}"));
    }

    /// Says why there is nothing to report.
    pub fn fail(&self, error: &dyn std::error::Error) {
        for line in failure::lines(failure::ERROR, error, self.paint) {
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

/// Whether what an event tells is about the image whose it is. A request is told with its URL, and
/// a connection may serve several images.
fn is_of_one_image(event: &Event) -> bool {
    matches!(event, Event::LayerSettled { .. } | Event::Warning(_) | Event::Note(_))
}

/// Whether standard error is a terminal that can move its cursor, and not a CI's imitation of one.
fn is_watched() -> bool {
    let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let ci = set("CI") && std::env::var("CI").is_ok_and(|value| value != "false");
    io::stderr().is_terminal() && !console::is_dumb() && !ci
}

#[cfg(test)]
pub(super) mod tests;
