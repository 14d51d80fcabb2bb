//! What to push, where to, and how.

use crate::image::{Compression, Format, Platform, Reference};
use crate::{pack, registry, reuse, source, ssh};

/// What to push, and where to.
#[derive(Clone, Debug)]
pub struct Item {
    /// Where the image is.
    pub image: source::Location,
    /// Which image, if there are several.
    pub selection: source::Selection,
    /// Where it goes. `None`: to the only name that the image itself has.
    pub destination: Option<Reference>,
    /// Tags besides the destination's own, in the same repository.
    pub tags: Vec<String>,
    /// The machine that gets the image over SSH, under the destination's name. `None`: the image
    /// goes to the destination's registry.
    pub host: Option<ssh::Host>,
}

impl Item {
    /// The only image at `image`, for this destination and without further tags.
    pub fn new(image: source::Location, destination: Option<Reference>) -> Self {
        let selection = source::Selection::default();
        Self { image, selection, destination, tags: Vec::new(), host: None }
    }
}

/// Images of several platforms, and the index over them.
#[derive(Clone, Debug)]
pub struct Index {
    /// Where the index goes. The images go there too, by their digests.
    pub destination: Reference,
    /// Tags besides the destination's own, in the same repository.
    pub tags: Vec<String>,
    /// The images. Their platforms come from their configs.
    pub images: Vec<IndexItem>,
    /// The machine that gets the image for its platform over SSH. `None`: the destination's
    /// registry gets all images.
    pub host: Option<ssh::Host>,
}

/// An image of an [`Index`].
#[derive(Clone, Debug)]
pub struct IndexItem {
    /// Where it is.
    pub image: source::Location,
    /// Which image, if there are several.
    pub selection: source::Selection,
    /// The platform that it must be for; `None`: any.
    pub platform: Option<Platform>,
}

/// How to push.
#[derive(Clone, Debug)]
pub struct PushOptions {
    /// The manifest's format. `None` (the default): Docker's, or OCI's if a layer is compressed
    /// with zstd. A manifest that the image already contains is not changed.
    pub format: Option<Format>,
    /// How new blobs are compressed. Default: gzip.
    pub compression: Compression,
    /// The compression level: 1 to 12 for gzip (libdeflate's levels), 1 to 22 for zstd. `None`: the
    /// default of the format.
    pub level: Option<i32>,
    /// Blobs uploaded at the same time. Default: [`DEFAULT_JOBS`].
    pub jobs: usize,
    /// Whether to find out what would be sent, without sending it. Default: no.
    pub dry_run: bool,
    /// Other images of the same registry whose layers may be reused. Default: none.
    pub reuse_from: Vec<Reference>,
    /// Whether to trust annotations in which previous images say what their layers were made from.
    /// Default: no.
    pub trust_annotations: bool,
    /// Whether an image that is a program may be run. Default: yes.
    pub may_run: bool,
    /// Whether to give up the other images of the run when one has failed. Default: no.
    pub fail_fast: bool,
    /// Where the local cache is. Default: `None`, no cache is used.
    pub cache: Option<reuse::CacheLocation>,
    /// How to talk to the registry. Default: without credentials.
    pub registry: registry::Options,
    /// How to bring images to machines over SSH. Default: with `ssh`.
    pub ssh: ssh::Options,
}

/// How many blobs are uploaded at the same time by default.
pub const DEFAULT_JOBS: usize = 8;

impl Default for PushOptions {
    fn default() -> Self {
        Self {
            format: None,
            compression: Compression::Gzip,
            level: None,
            jobs: DEFAULT_JOBS,
            dry_run: false,
            reuse_from: Vec::new(),
            trust_annotations: false,
            may_run: true,
            fail_fast: false,
            cache: None,
            registry: registry::Options::default(),
            ssh: ssh::Options::default(),
        }
    }
}

impl PushOptions {
    /// The compressions that the manifest's format can express.
    pub(super) fn compressions(&self) -> Vec<Compression> {
        let is_possible = |compression: &Compression| {
            self.format.is_none_or(|format| compression.media_type(format).is_some())
        };
        [Compression::Gzip, Compression::Zstd, Compression::None]
            .into_iter()
            .filter(is_possible)
            .collect()
    }

    /// How these options pack.
    pub(super) fn recipe(&self) -> String {
        pack::recipe(self.compression, self.level)
    }
}
