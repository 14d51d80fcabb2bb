//! The errors about one layer, with its image and its place.

use std::path::Path;
use std::sync::Arc;

use super::error::Nix2containerError;
use super::fault::LayerFault;
use crate::image::Digest;
use crate::source::error::Error;
use crate::source::printable::printable;

/// Where Nix keeps what it built.
const NIX_STORE: &str = "/nix/store/";

/// A layer, as messages name it.
pub struct Label {
    /// The image's file, safe to print.
    pub file: Arc<str>,
    /// Its place among the layers, from 1.
    pub layer: usize,
    /// What it is made of.
    pub entry: String,
}

impl Label {
    /// The layer cannot be made as the file says.
    pub fn fault(&self, fault: LayerFault) -> Error {
        let Self { file, layer, entry } = self;
        Nix2containerError::Layer {
            file: file.clone(),
            layer: *layer,
            entry: entry.clone(),
            fault: Box::new(fault),
        }
        .into()
    }

    /// A store path of the layer does not exist.
    pub fn gone(&self, path: &Path) -> Error {
        let path = path.to_string_lossy();
        // `nix-store --realise` takes the path of a package, not of a file in it.
        let realise = match path.strip_prefix(NIX_STORE) {
            Some(rest) => format!("{NIX_STORE}{}", rest.split('/').next().unwrap_or(rest)),
            None => path.to_string(),
        };
        Nix2containerError::StorePathGone {
            file: self.file.clone(),
            layer: self.layer,
            path: printable(&path),
            realise: printable(&realise),
        }
        .into()
    }

    /// The layer is longer or shorter than the file says.
    pub fn length(&self, listed: u64, actual: u64) -> Error {
        let Self { file, layer, entry } = self;
        Nix2containerError::LayerLength {
            file: file.clone(),
            layer: *layer,
            entry: entry.clone(),
            listed,
            actual,
        }
        .into()
    }

    /// The stored blob has another digest than the file says.
    pub fn other_blob(&self, listed: &Digest, actual: Digest) -> Error {
        let Self { file, layer, entry } = self;
        Nix2containerError::OtherBlob {
            file: file.clone(),
            layer: *layer,
            entry: entry.clone(),
            listed: listed.clone(),
            actual,
        }
        .into()
    }
}
