//! The push. It connects source, reuse, pack and registry.
//!
//! [`push`] opens the image, starts to read what was pushed before, brings each blob to the
//! repository, and puts the manifest last. Reading, packing, asking and uploading happen at the
//! same time: one thread reads the image, and each layer is a future.

mod ahead;
mod archive;
mod blobs;
mod content;
mod destination;
mod expand;
mod image_push;
mod index;
mod input;
mod layers;
mod layout;
mod making;
mod manifests;
mod options;
mod read;
mod report;
mod run;
mod slot;
mod spare;

use std::time::Instant;

pub use self::expand::expand;
pub use self::index::{EventsOf, push_all, push_index};
pub(crate) use self::manifests::put_under;
pub use self::options::{DEFAULT_JOBS, Index, IndexItem, Item, PushOptions};
pub(crate) use self::slot::check_platform;

use self::destination::Destination;
use self::image_push::{Brought, Failure, Form, ImagePush, Pushed, Trust};
use self::input::{Input, Opened};
use self::manifests::PutTarget;
use self::run::Run;
use self::slot::IndexSlot;
use crate::error::Error;
use crate::event::{Event, Events};
use crate::registry::Repository;
use crate::report::Report;
use crate::reuse::{self, Previous, Reuse};
use crate::ssh::HostPush;

/// Pushes an image. The tags are set last, so an earlier error leaves them unchanged.
///
/// Dropping the future stops everything at once.
/// [`registry::Options::sessions`](crate::registry::Options::sessions) then still holds the upload
/// sessions that were open.
pub async fn push(item: &Item, options: &PushOptions, events: &Events) -> Result<Report, Error> {
    let run = Run::new(options, std::slice::from_ref(item), events.clone());
    let pushed = push_image(item, 0, &run, None, events).await;
    run.close().await;
    Ok(pushed?.report)
}

/// Pushes one image of a run.
async fn push_image(
    item: &Item,
    number: usize,
    run: &Run,
    slot: Option<&IndexSlot<'_>>,
    events: &Events,
) -> Result<Pushed, Error> {
    if let Some(to_host) = HostPush::of_item(item, &run.options, events) {
        return Ok(Pushed { report: to_host.run().await?, entries: Vec::new() });
    }
    let input = Input::of(item, run.options.may_run).await?;
    let image =
        ImagePush { item, number, run, slot, input: &input, events, started: Instant::now() };
    // Boxed because the type of the nested futures is too deep for the compiler.
    let untrue = match Box::pin(image.attempt(Trust::WhatIsKnown)).await {
        Ok(pushed) => return Ok(pushed),
        Err(Failure::Final(error)) => return Err(error),
        Err(Failure::Untrue(error)) => error,
    };
    if !input.can_be_read_again() {
        return Err(Error::Unrepeatable(Box::new(untrue)));
    }
    events(Event::Warning(format!("{}; the image is read again", untrue.headline())));
    match Box::pin(image.attempt(Trust::OnlyThisRun)).await {
        Ok(pushed) => Ok(pushed),
        Err(Failure::Final(error) | Failure::Untrue(error)) => Err(error),
    }
}

impl ImagePush<'_> {
    /// One attempt, as the crate's front page describes it: `archive::bring` has steps 1 to 4 for
    /// the layers of an archive, `layout::bring` for blobs that are ready.
    async fn attempt(&self, trust: Trust) -> Result<Pushed, Failure> {
        let opened = self.open().await?;
        let destination = Destination::choose(self.item, self.input, &opened, self.slot).await?;
        self.run.reserve(self.number, &destination)?;
        (self.events)(Event::Destination { reference: destination.name() });

        let repository = self.run.repository(&destination);
        let target = PutTarget::new(&repository, &destination, &self.run.previous, self.events);
        let known = self.read_previous(&repository, &destination, &opened, trust)?;
        let brought = match opened {
            Opened::Layout(tree) => layout::bring(self, tree, &target, &known).await?,
            Opened::Archive(images) => archive::bring(self, images, &target, &known, trust).await?,
        };
        let form = match self.options().dry_run {
            true => &brought.forms[0],
            false => self.put_manifests(&brought, &target).await?,
        };
        self.remember(&brought, form, &known);
        Ok(self.pushed(form, &target, &brought, &known).await)
    }

    /// Begins to read what was pushed before.
    fn read_previous(
        &self,
        repository: &Repository,
        destination: &Destination,
        opened: &Opened,
        trust: Trust,
    ) -> Result<Reuse, Error> {
        let options = self.options();
        let image = opened.images().map(|images| self.pick(destination, images)).transpose()?;
        let config = image.map(|image| image.config);
        let mut wanted = reuse::Options {
            platform: config.as_ref().map(|config| config.platform().clone()),
            allowed: options.compressions(),
            trust_annotations: options.trust_annotations,
            config,
            ..reuse::Options::default()
        };
        if trust == Trust::WhatIsKnown {
            let previous = |repository: &Repository, reference: &str| {
                Previous::new(repository.clone(), reference)
            };
            let references = destination.lookups();
            wanted.tags = references.iter().map(|tag| previous(repository, tag)).collect();
            wanted.fallback = (!references.iter().any(|tag| tag == "latest"))
                .then(|| previous(repository, "latest"));
            for image in &options.reuse_from {
                let theirs = repository.registry().readable_repository(image.repository());
                let reference = image.digest().or(image.tag()).unwrap_or("latest");
                wanted.reuse_from.push(previous(&theirs, reference));
            }
            wanted.siblings = Some(self.run.siblings(repository));
            wanted.recipe = Some(options.recipe());
        }
        let (cache, events) = (self.run.cache.clone(), self.events.clone());
        Ok(Reuse::begin(repository.clone(), wanted, &self.run.previous, cache, events))
    }

    /// Puts the manifests in the first format that the registry accepts. All blobs are in the
    /// repository by now. The push becomes visible only through this.
    async fn put_manifests<'b>(
        &self,
        brought: &'b Brought,
        target: &PutTarget<'_>,
    ) -> Result<&'b Form, Failure> {
        let mut forms = brought.forms.iter().peekable();
        while let Some(form) = forms.next() {
            let error = match target.put_tree(&form.tree).await {
                Ok(()) => return Ok(form),
                Err(error) => error,
            };
            if forms.peek().is_none() || !manifests::is_format_refused(&error) {
                let ledger = &self.run.ledger;
                return Err(manifests::judge_refusal(
                    error,
                    &form.blobs,
                    ledger,
                    target.repository,
                ));
            }
            let warning = format!("{}; it is put in Docker's format instead", error.headline());
            (self.events)(Event::Warning(warning));
        }
        // Never reached: there is at least one form, and the loop returns at the last one.
        Err(Error::Failed("the image has no manifest".to_owned()).into())
    }

    /// Saves in the cache what can help the next push.
    fn remember(&self, brought: &Brought, form: &Form, known: &Reuse) {
        if self.options().dry_run {
            return;
        }
        let present: Vec<_> = form.blobs.iter().map(|blob| blob.digest().clone()).collect();
        known.remember_blobs(&present);
        if let Some(config) = &form.tree.nodes[form.tree.root].config {
            known.remember_config(config);
        }
        if let Some(archive) = &brought.archive {
            archive.remember(self, known);
        }
    }

    async fn pushed(
        &self,
        form: &Form,
        target: &PutTarget<'_>,
        brought: &Brought,
        known: &Reuse,
    ) -> Pushed {
        let config = form.tree.nodes[form.tree.root].config.as_ref();
        let totals = report::Totals {
            bytes_sent: (!self.options().dry_run).then(|| target.repository.bytes_sent()),
            is_unchanged: target.is_there(&form.tree.nodes[form.tree.root].digest).await,
            changes: config.and_then(|config| known.changes(config)),
            took: self.started.elapsed(),
            compression: brought.archive.as_ref().map(|_| self.options().compression),
        };
        let report = report::of(target.destination, form, &totals, &self.run.texts);
        Pushed { report, entries: form.entries.clone() }
    }
}
