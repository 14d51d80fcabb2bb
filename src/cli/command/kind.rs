//! The commands, with what each needs.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use clap_complete::Shell;

use crate::cli::serve::UntilPulled;
use crate::image::{Platform, Reference};
use crate::push::{Index, Item};
use crate::registry::auth::Secret;
use crate::serve::Offer;
use crate::source::{Location, Selection};
use crate::ssh::Host;

/// What to do.
#[derive(Debug)]
pub enum Command {
    /// Push one image.
    Push(Item),
    /// Push several images in one run.
    PushSeveral(Vec<Item>),
    /// Push every image of an archive under its own name.
    PushAll {
        /// The archive.
        archive: Location,
        /// Which image of a multi-platform image.
        platform: Option<Platform>,
    },
    /// Push images for several platforms, and an index that lists them.
    PushIndex(Index),
    /// Print a completion script.
    Completions(Shell),
    /// Write the man pages into this folder.
    Man(PathBuf),
    /// Show what is in an image.
    Inspect {
        /// The image.
        image: AnyImage,
        /// `--against`.
        against: Option<Reference>,
    },
    /// Compare two images.
    Diff {
        /// The old image.
        old: AnyImage,
        /// The new image.
        new: AnyImage,
    },
    /// Check a login, and keep it.
    Login {
        /// The registry.
        registry: String,
        /// The user; `None`: to be asked for at the terminal.
        username: Option<String>,
        /// The password; `None`: likewise.
        password: Option<Secret>,
    },
    /// Forget a login.
    Logout {
        /// The registry.
        registry: String,
    },
    /// Serve images.
    Serve {
        /// The images.
        offers: Vec<Offer>,
        /// Where to listen.
        listen: SocketAddr,
        /// `--until-pulled`.
        until_pulled: UntilPulled,
    },
    /// Point tags to an image in a registry.
    Tag {
        /// The image.
        image: Reference,
        /// The tags.
        tags: Vec<String>,
    },
}

/// An image to look at, here or in a registry.
#[derive(Debug)]
pub enum AnyImage {
    /// A local image.
    Local(Location, Selection),
    /// An image in a registry; of an index, the one for a platform.
    Remote(Reference, Option<Platform>),
}

impl Command {
    /// Whether it may move the tags of several images.
    pub fn pushes_several(&self) -> bool {
        matches!(self, Self::PushSeveral(_) | Self::PushAll { .. })
    }

    /// The machines that it pushes to, and for each of its other pushes `None`.
    pub fn hosts(&self) -> Vec<Option<&Host>> {
        match self {
            Self::Push(item) => vec![item.host.as_ref()],
            Self::PushSeveral(items) => items.iter().map(|item| item.host.as_ref()).collect(),
            Self::PushIndex(index) => vec![index.host.as_ref()],
            // Each image goes to the name that it carries.
            Self::PushAll { .. } => vec![None],
            _ => vec![],
        }
    }

    /// The images it reads.
    pub fn images(&self) -> Vec<&Location> {
        match self {
            Self::Push(item) => vec![&item.image],
            Self::PushSeveral(items) => items.iter().map(|item| &item.image).collect(),
            Self::PushAll { archive, .. } => vec![archive],
            Self::PushIndex(index) => index.images.iter().map(|image| &image.image).collect(),
            Self::Inspect { image, .. } => image.location().into_iter().collect(),
            Self::Diff { old, new } => old.location().into_iter().chain(new.location()).collect(),
            Self::Serve { offers, .. } => offers.iter().map(|offer| &offer.image).collect(),
            Self::Tag { .. }
            | Self::Login { .. }
            | Self::Logout { .. }
            | Self::Completions(_)
            | Self::Man(_) => vec![],
        }
    }

    /// The destinations that the command line or the list names.
    pub fn destinations(&self) -> Vec<&Reference> {
        match self {
            Self::Push(item) => item.destination.iter().collect(),
            Self::PushSeveral(items) => {
                items.iter().filter_map(|item| item.destination.as_ref()).collect()
            }
            Self::PushAll { .. }
            | Self::Diff { .. }
            | Self::Serve { .. }
            | Self::Tag { .. }
            | Self::Login { .. }
            | Self::Logout { .. }
            | Self::Completions(_)
            | Self::Man(_) => vec![],
            Self::PushIndex(index) => vec![&index.destination],
            Self::Inspect { against, .. } => against.iter().collect(),
        }
    }
}

impl fmt::Display for AnyImage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local(location, _) => location.fmt(f),
            Self::Remote(reference, _) => reference.fmt(f),
        }
    }
}

impl AnyImage {
    pub fn location(&self) -> Option<&Location> {
        match self {
            Self::Local(location, _) => Some(location),
            Self::Remote(..) => None,
        }
    }
}
