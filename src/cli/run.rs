//! Runs an invocation: the command itself, its output on the terminal, and the signals that stop
//! it.

use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::command::{AnyImage, Command, Invocation, SAME_DESTINATION, same_destination};
use crate::image::Reference;

use super::done::{Done, append_summary};
use super::exit::Code;
use super::manual;
use super::name;
use super::outcome::ImageOutcome;
use super::output::{self, Output, labels, markdown};
use super::prompt;
use super::serve::serve;
use super::signals::Signals;
use crate::Error;
use crate::event::{Event, Events};
use crate::image::{Platform, is_tag};
use crate::inspect::{Comparison, InspectedImage, Inspection, inspect, inspect_remote};
use crate::open_files;
use crate::push::{Item, PushOptions, expand, push, push_all, push_index};
use crate::registry::auth::{Secret, store};
use crate::source::Location;
use crate::tag::tag;

/// How long a stopped push may take to cancel its upload sessions.
const GRACE: Duration = Duration::from_secs(2);

/// Runs the command, prints its result, and returns the exit code.
pub async fn run(invocation: Invocation) -> ExitCode {
    let Invocation { command, options, json, digest_file, summary, keep_tag, verbosity } =
        invocation;
    let mut signals = match Signals::listen() {
        Ok(signals) => signals,
        Err(error) => return cannot_start(&error),
    };
    let output = Output::stderr(verbosity, options.dry_run);
    if options.registry.tls.skip_verify {
        output.warn(
            "--insecure-skip-tls-verify: certificates are not checked; anyone on the network path \
             can read the credentials and change the image",
        );
    }
    let sessions = options.registry.sessions.clone();
    let tagging = Arc::new(AtomicBool::new(false));
    let pushes_several = command.pushes_several();
    let is_serving = matches!(command, Command::Serve { .. });
    let runner = Runner { options, output: &output, tagging: &tagging, keep_tag };
    // Boxed, because the type is too deep for the compiler's recursion limit.
    let running = Box::pin(runner.run(command));
    let outcome = signals
        .stop(with_ticks(&output, running), async || {
            output.finish();
            let tagging = tagging.load(Ordering::Relaxed);
            match is_serving {
                true => output.inform("stopped serving"),
                false => output.print(&interrupted(tagging, pushes_several)),
            }
            sessions.cancel_all(GRACE).await;
        })
        .await;
    output.finish();
    let code = match outcome {
        Some(Ok(done)) => {
            let code = done.print(json, digest_file.as_deref(), &output);
            append_summary(summary.as_deref(), &done.markdown(), code, &output)
        }
        Some(Err(error)) => {
            output.fail(&error);
            let text = markdown::failed(None, &error);
            append_summary(summary.as_deref(), &text, error.exit_code(), &output)
        }
        None => Code::Interrupted,
    };
    code.into()
}

/// Prepares the process for the runtime. The runtime panics if no file can be opened.
pub fn prepare() -> io::Result<()> {
    open_files::raise_limit();
    open_files::check()
}

/// Reports that the process could not start, and returns the exit code.
pub fn cannot_start(error: &io::Error) -> ExitCode {
    // If standard error is closed, the error cannot be reported.
    let advice = open_files::advice(error, "check what limits this process");
    let _ = writeln!(io::stderr(), "error: cannot start: {error}\nhint: {advice}");
    Code::Failed.into()
}

/// The options and the output for running a command.
struct Runner<'a> {
    options: PushOptions,
    output: &'a Output,
    /// Set before the first manifest is put, because from then on a tag may have changed.
    tagging: &'a Arc<AtomicBool>,
    /// `--keep-tag`.
    keep_tag: bool,
}

impl Runner<'_> {
    async fn run(&self, command: Command) -> Result<Done, Error> {
        let options = &self.options;
        match command {
            Command::Push(mut item) => {
                self.keep_tags(std::slice::from_mut(&mut item)).await?;
                let report = push(&item, options, &self.events_of(0)).await?;
                Ok(Done::One(Box::new(report)))
            }
            Command::PushSeveral(mut items) => {
                self.keep_tags(&mut items).await?;
                Ok(self.several(&items).await)
            }
            Command::PushAll { archive, platform } => {
                Ok(self.several(&self.all(&archive, platform).await?).await)
            }
            Command::PushIndex(index) => {
                if index.host.is_none() {
                    self.output.set_labels(labels::of_index(&index.images));
                }
                let events = |image: Option<usize>| self.events_of(image.unwrap_or(0));
                let report = push_index(&index, options, &events).await?;
                Ok(Done::One(Box::new(report)))
            }
            Command::Login { registry, username, password } => {
                let username = match username {
                    Some(username) => username,
                    None => prompt::name().await?,
                };
                let password = match password {
                    Some(password) => password,
                    None => Secret::new(prompt::password().await?),
                };
                let events = self.events_of(0);
                let asked = options.registry.clone();
                let place = store::login(&registry, &username, &password, asked, events).await?;
                self.output.print(&format!("logged in to {registry} as {username}: {place}"));
                Ok(Done::Text(vec![]))
            }
            Command::Logout { registry } => {
                let place = store::logout(&registry, &options.registry.credentials).await;
                self.output.print(&match place.map_err(store::LoginError::Keep)? {
                    Some(place) => format!("logged out of {registry}: {place}"),
                    None => format!("there is no login for {registry} to forget"),
                });
                Ok(Done::Text(vec![]))
            }
            Command::Completions(shell) => Ok(Done::Text(manual::completions(shell))),
            Command::Man(folder) => {
                manual::write_man_pages(&folder).map_err(|error| {
                    Error::Failed(format!("cannot write the man pages: {error}"))
                })?;
                Ok(Done::Text(vec![]))
            }
            Command::Inspect { image, against } => {
                self.inspect(&image, against.as_ref()).await.map(Done::Inspected)
            }
            Command::Diff { old, new } => {
                let (old, new) = (self.inspect_one(&old).await?, self.inspect_one(&new).await?);
                Ok(Done::Compared(Comparison::between(&old, &new)))
            }
            Command::Serve { offers, listen, until_pulled } => {
                serve(&offers, listen, until_pulled, options, self.output).await?;
                Ok(Done::Text(vec![]))
            }
            Command::Tag { image, tags } => {
                let tagged = tag(&image, &tags, &options.registry, &self.events_of(0)).await?;
                Ok(Done::Tagged(tagged))
            }
        }
    }

    /// With `--keep-tag`, gives each destination the tags in the image's own names.
    async fn keep_tags(&self, items: &mut [Item]) -> Result<(), Error> {
        for item in items.iter_mut().filter(|_| self.keep_tag) {
            let image = AnyImage::Local(item.image.clone(), item.selection.clone());
            let images = self.inspect(&image, None).await?.images;
            let names = images.iter().flat_map(|image| &image.names);
            // In a layout, a name may be only a tag.
            let mut tags: Vec<String> = names
                .map(|name| name.rsplit(':').next().unwrap_or(name).to_owned())
                .filter(|tag| is_tag(tag))
                .collect();
            tags.append(&mut item.tags);
            item.tags = name::other_tags(tags, None);
            if item.tags.is_empty() {
                return Err(Error::Usage(format!(
                    "{} carries no tag that could be kept; give one: HOST/REPOSITORY:TAG",
                    item.image
                )));
            }
        }
        Ok(())
    }

    async fn inspect(
        &self,
        image: &AnyImage,
        against: Option<&Reference>,
    ) -> Result<Inspection, Error> {
        let (options, events) = (&self.options, self.output.events_of(0));
        match image {
            AnyImage::Local(location, selection) => {
                inspect(location, selection, against, options, &events).await
            }
            AnyImage::Remote(reference, platform) => {
                inspect_remote(reference, platform.as_ref(), &options.registry, &events).await
            }
        }
    }

    /// Inspects a location that must contain a single image.
    async fn inspect_one(&self, image: &AnyImage) -> Result<InspectedImage, Error> {
        let images = self.inspect(image, None).await?.images;
        let count = images.len();
        let [only] = <[_; 1]>::try_from(images).map_err(|images| {
            let listed: Vec<_> = images
                .iter()
                .map(|image| {
                    let name = image.names.first().map_or(image.id.as_str(), String::as_str);
                    format!("{name} ({})", image.platform)
                })
                .collect();
            let choose = match image {
                AnyImage::Local(..) => "--platform, or with PATH:NAME",
                AnyImage::Remote(..) => "--platform",
            };
            Error::Usage(format!(
                "{image} holds {count} images: {}; choose one with {choose}",
                listed.join(", ")
            ))
        })?;
        Ok(only)
    }

    async fn several(&self, items: &[Item]) -> Done {
        let started = Instant::now();
        self.output.set_labels(labels::of_items(items));
        // Events of the whole run belong to no image, but they are printed without a label anyway.
        let events = |image: Option<usize>| self.events_of(image.unwrap_or(0));
        let results = push_all(items, &self.options, &events).await;
        let outcomes = items.iter().zip(results).map(|(item, done)| ImageOutcome::of(item, done));
        Done::Several(outcomes.collect(), started.elapsed())
    }

    /// The images of an archive, each with its own name as its destination.
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

    /// The sink for an image's events. It also sets `tagging`.
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

/// The message after a signal.
fn interrupted(tagging: bool, pushes_several: bool) -> String {
    if tagging && pushes_several {
        "interrupted; manifests were being put, so some tags may point to their new images".into()
    } else {
        Error::Interrupted { tagging }.to_string()
    }
}

/// Runs `work`, and refreshes the output while it runs.
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
        for pushes_several in [false, true] {
            assert_eq!(interrupted(false, pushes_several), "interrupted; no tag was changed");
        }
        assert!(interrupted(true, false).contains("the tag may point to the new image or the old"));
        assert!(interrupted(true, true).contains("some tags may point to their new images"));
    }
}
