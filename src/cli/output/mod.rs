//! Everything that is printed on standard error during and after a push: events, reports, errors.

mod bars;
mod changes;
pub mod diff;
mod failure;
pub mod inspect;
pub mod labels;
mod lines;
pub mod markdown;
mod pace;
mod progress;
pub mod summary;
mod text;

use std::collections::HashSet;
use std::io::{self, IsTerminal, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use indicatif::ProgressDrawTarget;
use parking_lot::Mutex;

use self::bars::Bars;
use self::lines::Lines;
use self::progress::PushProgress;
use self::text::{Paint, escape};
use super::outcome::ImageOutcome;
use crate::event::{Event, Events};
use crate::report::{Outcome, Report};
use crate::tag::Tagged;

/// How much is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verbosity {
    /// Errors only.
    Quiet,
    /// Progress, warnings, retries, the summary.
    Normal,
    /// Also notes and a line for each request.
    Requests,
    /// Also the headers of requests.
    Headers,
}

/// The longest time between calls of [`Output::tick`].
pub const TICK: Duration = Duration::from_millis(500);

/// Standard error, for one run. Clones share their state.
#[derive(Clone)]
pub struct Output {
    state: Arc<Mutex<OutputState>>,
    verbosity: Verbosity,
    paint: Paint,
    dry_run: bool,
}

struct OutputState {
    progress: PushProgress,
    screen: Screen,
    /// The labels of the images, by their positions. Empty for a single image.
    labels: Vec<String>,
    /// The destinations that were already shown. A destination may be reported several times, by
    /// the images of an index or by repeated attempts.
    named: HashSet<String>,
    /// Whether later events are ignored. Threads that still run may send some.
    finished: bool,
}

enum Screen {
    Bars(Bars),
    Lines(Lines<Box<dyn Write + Send>>),
}

impl Output {
    /// Bars if standard error is an interactive terminal, plain lines otherwise.
    pub fn stderr(verbosity: Verbosity, dry_run: bool) -> Self {
        // In `console`, CLICOLOR_FORCE overrides NO_COLOR, but https://no-color.org requires the
        // opposite.
        let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let colours = !refused && console::colors_enabled_stderr();
        console::set_colors_enabled_stderr(colours);
        // The bars use the colour setting of standard output, so set it to that of standard error.
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
            state: Arc::new(Mutex::new(OutputState {
                progress: PushProgress::new(1),
                screen,
                labels: Vec::new(),
                named: HashSet::new(),
                finished: false,
            })),
            verbosity,
            paint,
            dry_run,
        }
    }

    /// Sets the labels of several images, which are printed before their lines.
    pub fn set_labels(&self, labels: Vec<String>) {
        let mut state = self.state.lock();
        state.progress = PushProgress::new(labels.len().max(1));
        state.labels = labels;
    }

    /// The sink for the events of the image at this position.
    pub fn events_of(&self, image: usize) -> Events {
        let output = self.clone();
        Arc::new(move |event| output.show(image, &event, Instant::now()))
    }

    fn show(&self, image: usize, event: &Event, now: Instant) {
        let mut state = self.state.lock();
        if state.finished {
            return;
        }
        state.progress.apply(image, event, now);
        if self.verbosity == Verbosity::Quiet {
            return;
        }
        let is_repeated = match event {
            Event::Destination { reference } => !state.named.insert(reference.clone()),
            _ => false,
        };
        let label = state.labels.get(image).filter(|_| is_of_one_image(event));
        let label = label.map(|label| format!("{label}  ")).unwrap_or_default();
        let lines = if is_repeated { Vec::new() } else { self.lines(event, &state.screen) };
        for line in lines {
            state.screen.line(&format!("{label}{line}"), now);
        }
        let OutputState { progress, screen, .. } = &mut *state;
        if let Screen::Bars(bars) = screen {
            bars.update(image, event, progress, now);
        }
    }

    /// Refreshes the progress. It must be called at least every [`TICK`], even if there are no
    /// events.
    pub fn tick(&self, now: Instant) {
        let mut state = self.state.lock();
        if state.finished || self.verbosity == Verbosity::Quiet {
            return;
        }
        let OutputState { progress, screen, .. } = &mut *state;
        match screen {
            Screen::Bars(bars) => bars.tick(progress, now),
            Screen::Lines(lines) => lines.tick(progress, now),
        }
    }

    /// The lines to print for an event.
    fn lines(&self, event: &Event, screen: &Screen) -> Vec<String> {
        let is_log = matches!(screen, Screen::Lines(_));
        match event {
            Event::Destination { reference } if is_log => {
                let doing = if self.dry_run { "checking" } else { "pushing" };
                vec![format!("{doing} {}", escape(reference))]
            }
            // A dry run prints all layers at the end, in order.
            Event::LayerDone { .. } if self.dry_run => vec![],
            // On a terminal, layers that are already there are not listed; the bar counts them.
            Event::LayerDone { report, .. }
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
                let mut lines = message(why);
                lines[0] = format!("{} {}; again {when}", self.paint.doubtful("retry:"), lines[0]);
                lines
            }
            Event::Warning(warning) => self.warning(warning),
            Event::BlobSent { repository, digest, name, bytes, whole, took } => {
                let (word, rest) = match whole {
                    true => (self.paint.good("sent"), String::new()),
                    false => (self.paint.doubtful("broke off"), " so far".to_owned()),
                };
                let took = text::time(took.as_secs_f64());
                let (size, short) = (text::size(*bytes), digest.short());
                let (repository, name) = (escape(repository), escape(name));
                vec![format!("{word} {repository} {short} {name}, {size}{rest} in {took}")]
            }
            Event::Note(note) if self.verbosity > Verbosity::Normal => {
                message(note).iter().map(|line| self.paint.faint(line)).collect()
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

    fn warning(&self, warning: &str) -> Vec<String> {
        let mut lines = message(warning);
        lines[0] = format!("{} {}", self.paint.doubtful("warning:"), lines[0]);
        lines
    }

    /// Prints a warning before the command starts.
    pub fn warn(&self, warning: &str) {
        if self.verbosity > Verbosity::Quiet {
            self.warning(warning).iter().for_each(|line| self.print(line));
        }
    }

    /// Prints a line that is not part of the result, unless only errors are printed.
    pub fn inform(&self, line: &str) {
        if self.verbosity > Verbosity::Quiet {
            self.print(line);
        }
    }

    /// Removes the bars and ignores all later events.
    pub fn finish(&self) {
        let mut state = self.state.lock();
        state.finished = true;
        if let Screen::Bars(bars) = &mut state.screen {
            bars.clear();
            state.screen = Screen::Lines(Lines::new(Box::new(io::stderr()), Instant::now()));
        }
    }

    /// Prints the summary of a push; with `--dry-run` also each layer.
    pub fn report(&self, report: &Report) {
        self.report_labelled(report, "");
    }

    /// Prints the summary of each of several images, in their order, and the total.
    pub fn report_all(&self, outcomes: &[ImageOutcome], took: Duration) {
        for (place, outcome) in outcomes.iter().enumerate() {
            match outcome {
                ImageOutcome::Pushed(report) => {
                    let label = self.state.lock().labels.get(place).cloned().unwrap_or_default();
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
        // With a single image, its name was already printed above the layers.
        let name = if self.dry_run && !label.is_empty() {
            format!("{}: ", escape(&report.reference))
        } else {
            String::new()
        };
        self.print(&format!("{name}{whole}"));
        if let Some(changed) = &report.changes {
            self.print(&format!("changed: {}", changes::line(changed, changes::LOG_COLUMNS)));
            if self.verbosity > Verbosity::Normal {
                changes::items(changed).for_each(|item| self.print(&self.paint.faint(&item)));
            }
        }
    }

    /// Prints which tags an image got.
    pub fn tagged(&self, tagged: &Tagged) {
        if self.verbosity > Verbosity::Quiet {
            let (word, tags) = (self.paint.good("tagged"), tagged.tags.join(", "));
            self.print(&format!("{word} {} as {}", escape(&tagged.pinned), escape(&tags)));
        }
    }

    /// Prints an error, its causes and its hints.
    pub fn fail(&self, error: &dyn std::error::Error) {
        for line in failure::lines(failure::ERROR, error, self.paint) {
            self.print(&line);
        }
    }

    /// Prints a line unchanged.
    pub fn print(&self, line: &str) {
        self.state.lock().screen.line(line, Instant::now());
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

/// The escaped lines of a message; at least one. Lines after the first are indented, because they
/// are causes and hints.
fn message(text: &str) -> Vec<String> {
    let mut lines = text.lines().filter(|line| !line.trim().is_empty());
    let first = escape(lines.next().unwrap_or_default()).into_owned();
    let others = lines.map(|line| format!("  {}", escape(line.trim_start())));
    std::iter::once(first).chain(others).collect()
}

/// Whether the lines of an event begin with the image's label. Requests have no label, because a
/// connection may be used for several images.
fn is_of_one_image(event: &Event) -> bool {
    matches!(event, Event::LayerDone { .. } | Event::Warning(_) | Event::Note(_))
}

/// Whether standard error is a terminal that supports cursor movement, and not the output of a CI
/// job.
fn is_watched() -> bool {
    let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let ci = set("CI") && std::env::var("CI").is_ok_and(|value| value != "false");
    io::stderr().is_terminal() && !console::is_dumb() && !ci
}

#[cfg(test)]
pub(super) mod tests;
