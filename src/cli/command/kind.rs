//! The commands with their arguments.

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

/// The command to run.
#[derive(Debug)]
pub enum Command {
    /// Push one image.
    Push(Item),
    PushSeveral(Vec<Item>),
    /// Push every image of an archive under its own name.
    PushAll {
        archive: Location,
        /// The platform to choose from a multi-platform image.
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
        image: AnyImage,
        /// `--against`.
        against: Option<Reference>,
    },
    /// Compare two images.
    Diff {
        old: AnyImage,
        new: AnyImage,
    },
    /// Check a login, and keep it.
    Login {
        registry: String,
        /// The user; `None` if it must be asked for at the terminal.
        username: Option<String>,
        /// The password; `None` if it must be asked for at the terminal.
        password: Option<Secret>,
    },
    /// Forget a login.
    Logout {
        registry: String,
    },
    /// Serve images.
    Serve {
        offers: Vec<Offer>,
        listen: SocketAddr,
        /// `--until-pulled`.
        until_pulled: UntilPulled,
    },
    /// Point tags to an image in a registry.
    Tag {
        image: Reference,
        tags: Vec<String>,
    },
}

/// An image for `inspect` or `diff`, local or in a registry.
#[derive(Debug)]
pub enum AnyImage {
    /// A local image.
    Local(Location, Selection),
    /// An image in a registry. In an index, the image for this platform.
    Remote(Reference, Option<Platform>),
}

impl Command {
    /// Whether it may put tags for several images.
    pub fn pushes_several(&self) -> bool {
        matches!(self, Self::PushSeveral(_) | Self::PushAll { .. })
    }

    /// For each push the machine that it goes to, or `None` if it goes to a registry.
    pub fn hosts(&self) -> Vec<Option<&Host>> {
        match self {
            Self::Push(item) => vec![item.host.as_ref()],
            Self::PushSeveral(items) => items.iter().map(|item| item.host.as_ref()).collect(),
            Self::PushIndex(index) => vec![index.host.as_ref()],
            // Each image goes to its own name, which is in a registry.
            Self::PushAll { .. } => vec![None],
            _ => vec![],
        }
    }

    /// The images that it reads.
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

    /// The destinations in the command line or in the list.
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
