//! Runs an invocation: the work on one side, the terminal and the signals on the other.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::digest_file;
use super::exit::Code;
use super::invocation::{Action, Invocation};
use super::outcome::{self, ImageOutcome};
use super::output::{self, Output, labels};
use super::result;
use super::signals::Signals;
use super::task::{SAME_DESTINATION, Task, same_destination};
use crate::Error;
use crate::event::{Event, Events};
use crate::image::Platform;
use crate::inspect::{Inspection, inspect};
use crate::push::{Item, PushOptions, expand, push, push_all, push_index};
use crate::report::Report;
use crate::source::Location;

/// How long the registry has to take back its upload sessions when the push is stopped.
const GRACE: Duration = Duration::from_secs(2);

/// Does what is asked for, prints, and says how the process ends.
pub async fn run(invocation: Invocation) -> ExitCode {
    let Invocation { action, push: options, json, verbosity } = invocation;
    let mut signals = match Signals::listen() {
        Ok(signals) => signals,
        Err(error) => return cannot_start(&error),
    };
    let output = Output::stderr(verbosity, options.dry_run);
    if options.registry.tls.skip_verify {
        output.warn(
            "--insecure-skip-tls-verify: certificates are not checked; whoever is in between can \
             read the credentials and change the image",
        );
    }
    let sessions = options.registry.sessions.clone();
    let tagging = Arc::new(AtomicBool::new(false));
    let is_several = action.is_several();
    let work = Work { options, output: &output, tagging: &tagging };
    let outcome = signals
        .stop(with_ticks(&output, work.run(action)), async || {
            output.finish();
            let tagging = tagging.load(Ordering::Relaxed);
            output.print(&interrupted(tagging, is_several));
            sessions.cancel_all(GRACE).await;
        })
        .await;
    output.finish();
    let code = match outcome {
        Some(Ok(done)) => tell(&done, json, &output),
        Some(Err(error)) => {
            output.fail(&error);
            error.exit_code()
        }
        None => Code::Interrupted,
    };
    code.into()
}

/// Reports that the process could not be set up, and says how it ends.
pub fn cannot_start(error: &io::Error) -> ExitCode {
    // If standard error is closed there is nowhere to say so.
    let _ = writeln!(io::stderr(), "error: cannot start: {error}");
    Code::Failed.into()
}

/// What was done, to be told.
enum Done {
    /// One image was pushed, or an index; and where its digest is to be written.
    One(Box<Report>, Option<PathBuf>),
    /// Several images were, or some of them, in this time.
    Several(Vec<ImageOutcome>, Duration),
    /// An image was looked at.
    Inspected(Inspection),
}

/// What there is to work with.
struct Work<'a> {
    options: PushOptions,
    output: &'a Output,
    /// Whether a tag may have changed.
    tagging: &'a Arc<AtomicBool>,
}

impl Work<'_> {
    async fn run(&self, action: Action) -> Result<Done, Error> {
        let options = &self.options;
        let (task, digest_file) = match action {
            Action::Push { task, digest_file } => (task, digest_file),
            Action::Inspect { image, selection, against } => {
                let events = self.output.events_of(0);
                return inspect(&image, &selection, against.as_ref(), options, &events)
                    .await
                    .map(Done::Inspected);
            }
        };
        // What concerns all images is told without a label, whichever it is said of.
        let events = |image: Option<usize>| self.events_of(image.unwrap_or(0));
        match task {
            Task::One(item) => {
                let report = push(&item, options, &self.events_of(0)).await?;
                Ok(Done::One(Box::new(report), digest_file))
            }
            Task::Index(index) => {
                self.output.call(labels::of_index(&index.images));
                let report = push_index(&index, options, &events).await?;
                Ok(Done::One(Box::new(report), digest_file))
            }
            Task::Several(items) => Ok(self.several(&items).await),
            Task::All { archive, platform } => {
                Ok(self.several(&self.all(&archive, platform).await?).await)
            }
        }
    }

    async fn several(&self, items: &[Item]) -> Done {
        let started = Instant::now();
        let events = |image: Option<usize>| self.events_of(image.unwrap_or(0));
        self.output.call(labels::of_items(items));
        let results = push_all(items, &self.options, &events).await;
        let outcomes = items.iter().zip(results).map(|(item, done)| ImageOutcome::of(item, done));
        Done::Several(outcomes.collect(), started.elapsed())
    }

    /// The images of an archive, each with its own name for a destination.
    async fn all(
        &self,
        archive: &Location,
        platform: Option<Platform>,
    ) -> Result<Vec<Item>, Error> {
        let mut items = expand(archive, &self.options).await?;
        for item in &mut items {
            item.selection.platform.clone_from(&platform);
        }
        match same_destination(&items) {
            Some(what) => Err(Error::Usage(format!("{what}; {SAME_DESTINATION}"))),
            None => Ok(items),
        }
    }

    /// The sink for an image's events, which also takes note when a tag may change.
    fn events_of(&self, image: usize) -> Events {
        let events = self.output.events_of(image);
        let tagging = self.tagging.clone();
        Arc::new(move |event| {
            if matches!(event, Event::Tagging) {
                tagging.store(true, Ordering::Relaxed);
            }
            events(event);
        })
    }
}

/// Tells what was done, on standard error and on standard output.
fn tell(done: &Done, json: bool, output: &Output) -> Code {
    let stdout = &mut io::stdout().lock();
    let (code, handed_on) = match done {
        Done::One(report, digest_file) => {
            output.report(report);
            let written = digest_file.as_deref().map_or(Ok(()), |path| write(path, report));
            let printed = result::print_one(report, json, stdout).map_err(Unwritten::pushed);
            (Code::Pushed, written.and(printed))
        }
        Done::Several(outcomes, took) => {
            output.report_all(outcomes, *took);
            let printed = result::print_all(outcomes, *took, json, stdout);
            (outcome::exit_code(outcomes), printed.map_err(Unwritten::pushed))
        }
        Done::Inspected(inspection) => {
            let printed = if json {
                result::print_json(inspection, stdout)
            } else {
                let columns = output::inspect::columns();
                result::print(output::inspect::text(inspection, columns).as_bytes(), stdout)
            };
            (Code::Pushed, printed.map_err(Unwritten::Inspection))
        }
    };
    match handed_on {
        Ok(()) => code,
        Err(error) => {
            output.fail(&error);
            if code == Code::Pushed { Code::Failed } else { code }
        }
    }
}

fn write(path: &Path, report: &Report) -> Result<(), Unwritten> {
    digest_file::write(path, &report.digest)
        .map_err(|error| Unwritten::Pushed("the digest file", error))
}

/// The work is done, but what it gave could not be handed on.
#[derive(Debug, thiserror::Error)]
enum Unwritten {
    #[error("the image is pushed, but {0} could not be written: {1}")]
    Pushed(&'static str, #[source] io::Error),
    #[error("what is in the image could not be written to standard output: {0}")]
    Inspection(#[source] io::Error),
}

impl Unwritten {
    fn pushed(error: io::Error) -> Self {
        Self::Pushed("the result to standard output", error)
    }
}

/// What is said when a signal has stopped the work.
fn interrupted(tagging: bool, is_several: bool) -> String {
    if tagging && is_several {
        "interrupted; manifests were being put, so some tags may point to their new images".into()
    } else {
        Error::Interrupted { tagging }.to_string()
    }
}

/// Runs `work`, with a tick for the terminal now and then.
async fn with_ticks<T>(output: &Output, work: impl Future<Output = T>) -> T {
    let mut ticks = tokio::time::interval(output::TICK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    tokio::pin!(work);
    loop {
        tokio::select! {
            done = &mut work => return done,
            _ = ticks.tick() => output.tick(Instant::now()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interruption_says_whether_a_tag_may_have_changed() {
        for is_several in [false, true] {
            assert_eq!(interrupted(false, is_several), "interrupted; no tag was changed");
        }
        assert!(interrupted(true, false).contains("the tag may point to the new image or the old"));
        assert!(interrupted(true, true).contains("some tags may point to their new images"));
    }
}
