//! Opens an image, as often as it has to be read.

use std::path::PathBuf;
use std::sync::Arc;

use tempfile::tempfile;

use super::options::Item;
use crate::error::Error;
use crate::event::{self, Event, Events};
use crate::image::Digest;
use crate::open_files;
use crate::reuse::Cache;
use crate::source::layout::Tree;
use crate::source::{
    self, Contents, Image, ImagesKnown, LayerId, LayerKey, Location, Selection, Source,
};

/// An image's location, and whether it can be read more than once.
pub struct Input {
    location: Location,
    /// Whether the image may be run, if it is a program.
    may_run: bool,
    /// When its images must be known.
    images: ImagesKnown,
    /// A pipe's content, kept because it has to be read twice.
    _spooled: Option<std::fs::File>,
}

/// What was found at a location.
pub enum Opened {
    /// The images of an archive, or of a program that writes one: layers that are read one after
    /// another, and packed.
    Archive(Images),
    /// An OCI layout, or an image in a registry: manifests and blobs as they are stored.
    Layout(Tree),
}

impl Opened {
    /// The images, if they are known before the layers are read.
    pub fn images(&self) -> Option<&[Image]> {
        match self {
            Self::Archive(images) => images.images(),
            Self::Layout(_) => None,
        }
    }
}

/// The images of an archive.
pub enum Images {
    /// Their file is open, and their layers can be read.
    Source(Box<dyn Source>),
    /// The cache knows them, so their file need not be opened.
    Remembered(Vec<Image>),
}

impl Images {
    /// The images, where they are known before the layers are read.
    pub fn images(&self) -> Option<&[Image]> {
        match self {
            Self::Source(source) => source.images(),
            Self::Remembered(images) => Some(images),
        }
    }

    /// The only name in the source, if it is known before the images are known.
    pub fn early_name(&self) -> Option<String> {
        let Self::Source(source) = self else { return None };
        let [name] = <[String; 1]>::try_from(source.early_names()?).ok()?;
        Some(name)
    }

    /// The keys of layers that the source will make.
    pub fn keys(&self) -> Vec<LayerKey> {
        match self {
            Self::Source(source) => source.keys(),
            Self::Remembered(_) => Vec::new(),
        }
    }
}

impl Input {
    /// The input of an item. Without a destination the image is read twice, because the first
    /// reading finds its name.
    pub async fn of(item: &Item, may_run: bool) -> Result<Self, Error> {
        let input = match item.destination {
            Some(_) => Self::new(&item.image, may_run),
            None => Self::repeatable(&item.image, may_run).await?,
        };
        // If one of several images was chosen, the images must be known first, so that layers of
        // the others are not sent.
        let is_chosen = item.selection != Selection::default();
        let images = if is_chosen { ImagesKnown::First } else { input.images };
        Ok(Self { images, ..input })
    }

    /// An input that is read once. A file can be read again nevertheless.
    pub fn new(location: &Location, may_run: bool) -> Self {
        let images = ImagesKnown::UnlessSingle;
        Self { location: location.clone(), may_run, images, _spooled: None }
    }

    /// An input that can be read twice: the content of a pipe is first written to a file.
    async fn repeatable(location: &Location, may_run: bool) -> Result<Self, Error> {
        match location {
            Location::Stdin => blocking(move || Self::spool(may_run)).await,
            Location::Path(_) | Location::Registry(_) => Ok(Self::new(location, may_run)),
        }
    }

    fn spool(may_run: bool) -> Result<Self, Error> {
        let spooled = || -> std::io::Result<std::fs::File> {
            let mut file = tempfile()?;
            std::io::copy(&mut std::io::stdin().lock(), &mut file)?;
            Ok(file)
        };
        let file = spooled().map_err(|error| {
            Error::Failed(format!(
                "cannot spool standard input in {}: {error}; {}",
                std::env::temp_dir().display(),
                open_files::advice(
                    &error,
                    "set TMPDIR to a directory with room, or give the destination, and no copy is \
                     needed"
                )
            ))
        })?;
        let path = descriptor_path(&file);
        let images = ImagesKnown::UnlessSingle;
        Ok(Self { location: Location::Path(path), may_run, images, _spooled: Some(file) })
    }

    /// Opens the image, or takes its contents list from the cache. `selection` chooses an image of
    /// a layout.
    pub async fn open(
        &self,
        selection: Selection,
        cache: &Cache,
        events: &Events,
    ) -> Result<Opened, Error> {
        if let Some(images) = self.remembered(cache).await {
            return Ok(Opened::Archive(Images::Remembered(images)));
        }
        Ok(match self.source(events).await? {
            Contents::Layers(source) => Opened::Archive(Images::Source(source)),
            Contents::Layout(layout) => {
                Opened::Layout(blocking(move || Ok(layout.select(&selection)?)).await?)
            }
        })
    }

    /// The cached images of a file, if the file cannot have changed since they were cached.
    async fn remembered(&self, cache: &Cache) -> Option<Vec<Image>> {
        let images = cache.image(&self.identity()?).await?;
        let images = images.into_iter().map(|image| Image {
            names: image.names,
            config: image.config,
            layers: image.layers.into_iter().map(LayerId).collect(),
        });
        Some(images.collect())
    }

    /// Opens the image for reading.
    pub async fn source(&self, events: &Events) -> Result<Contents, Error> {
        let location = self.location.clone();
        let options = self.open_options(self.images, Some(events));
        blocking(move || Ok(source::open(&location, options)?)).await
    }

    /// If `events` is given, it receives the progress of the reading.
    fn open_options(&self, images: ImagesKnown, events: Option<&Events>) -> source::Options {
        let events = events.cloned().unwrap_or_else(event::ignore);
        let noting = events.clone();
        source::Options {
            images,
            may_run: self.may_run,
            progress: Box::new(move |position, total| events(Event::Reading { position, total })),
            note: Arc::new(move |note| noting(Event::Note(note))),
        }
    }

    /// Reads the image only to list its images.
    pub async fn images(&self) -> Result<Vec<Image>, Error> {
        let location = self.location.clone();
        let options = self.open_options(ImagesKnown::WhenTold, None);
        blocking(move || {
            let Contents::Layers(mut source) = source::open(&location, options)? else {
                return Ok(Vec::new());
            };
            while source.images().is_none() && source.next_layer()?.is_some() {}
            Ok(source.images().unwrap_or_default().to_vec())
        })
        .await
    }

    /// The names of all images, each with the digest that selects the image.
    pub async fn names(&self) -> Result<Vec<(Digest, Vec<String>)>, Error> {
        let location = self.location.clone();
        let options = self.open_options(ImagesKnown::WhenTold, None);
        blocking(move || match source::open(&location, options)? {
            Contents::Layers(mut source) => {
                while source.images().is_none() && source.next_layer()?.is_some() {}
                let images = source.images().unwrap_or_default().iter();
                let named =
                    images.map(|image| (image.config.digest().clone(), image.names.clone()));
                Ok(named.collect())
            }
            Contents::Layout(layout) => {
                let trees = layout.trees()?.into_iter();
                let named = trees.map(|tree| {
                    // Keep only full names. Most layouts have only a tag, which names no
                    // repository.
                    let whole = tree.names.iter().filter(|name| name.contains('/')).cloned();
                    (tree.nodes[tree.root].digest.clone(), whole.collect())
                });
                Ok(named.collect())
            }
        })
        .await
    }

    /// Whether the image can be opened again. This is not possible for a pipe.
    pub fn can_be_read_again(&self) -> bool {
        let is_lasting = |meta: std::fs::Metadata| meta.is_file() || meta.is_dir();
        match &self.location {
            Location::Path(path) => std::fs::metadata(path).is_ok_and(is_lasting),
            Location::Stdin => false,
            Location::Registry(_) => true,
        }
    }

    /// A key that identifies a file that never changes; `None` for other files.
    pub fn identity(&self) -> Option<String> {
        source::identity(&self.location)
    }
}

/// A path by which an open file without a name can be opened again.
fn descriptor_path(file: &std::fs::File) -> PathBuf {
    use std::os::fd::AsRawFd;
    let folder = if cfg!(target_os = "linux") { "/proc/self/fd" } else { "/dev/fd" };
    format!("{folder}/{}", file.as_raw_fd()).into()
}

/// Runs blocking work on a thread that is not one of the runtime's.
pub async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    // Fails only while the runtime shuts down, or if the work panicked.
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| Err(Error::Failed(error.to_string())))
}
