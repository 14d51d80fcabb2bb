//! The one interface of all sources: images, and layers that are read one after another.

use std::io::Read;

use super::error::Error;
use super::layer_bytes::LayerBytes;
use crate::image::{Config, DiffId, LayerId, LayerKey};

/// Something that holds images, being read front to back.
pub trait Source: Send {
    /// The images, or `None` while they are not known yet: a stream knows them only after
    /// [`next_layer`](Self::next_layer) has returned `None`, a seekable file at once. There is at
    /// least one. Every layer that they list has been or will be yielded. A stream may also yield
    /// layers that belong to no image.
    fn images(&self) -> Option<&[Image]>;

    /// The next layer in the order of storage; `None` after the last.
    ///
    /// Bytes of the previous layer that were not read are skipped, which costs nothing on a
    /// seekable file. Only after this has returned `None` is the source known to be complete, with
    /// its last checksum verified. After an error the source must not be used any more.
    fn next_layer(&mut self) -> Result<Option<Layer<'_>>, Error>;

    /// Yields the last layer once more, from its beginning. May be called only for a layer whose
    /// claim was a [`Claim::Key`].
    fn again(&mut self) -> Result<Layer<'_>, Error> {
        Err(OnlyOnce.into())
    }

    /// The names of the images, if they are known earlier than the images.
    fn early_names(&self) -> Option<Vec<String>> {
        let names = |image: &Image| image.names.clone();
        Some(self.images()?.iter().flat_map(names).collect())
    }

    /// The keys of the layers to come, if they are known, so that their blobs can be looked up all
    /// at once.
    fn keys(&self) -> Vec<LayerKey> {
        Vec::new()
    }

    /// Gives the source the diff ID of the last layer. The caller computed it from the bytes, or
    /// knew it already and skipped the bytes. A source that makes its layers needs the diff IDs to
    /// write the config.
    fn learn(&mut self, _diff_id: &DiffId) {}

    /// The most memory in bytes that reading takes in addition to a few megabytes: the window of a
    /// decompressor. The packer uses that much less.
    fn memory(&self) -> usize {
        0
    }
}

/// One image of a source.
#[derive(Clone, Debug)]
pub struct Image {
    /// The names that the source gives it (`RepoTags`), as written.
    pub names: Vec<String>,
    /// The image config, its bytes as stored.
    pub config: Config,
    /// The layers, lowest first; one may occur twice. As many as the config has diff IDs.
    pub layers: Vec<LayerId>,
}

/// One layer of a source, about to be read or skipped.
pub struct Layer<'a> {
    /// Its place in the source.
    pub id: LayerId,
    /// Its name in the source (the name of an archive's entry), for messages.
    pub entry: String,
    /// Length of the bytes as stored.
    pub size: u64,
    /// What the source knows about the layer without reading it.
    pub claim: Claim,
    /// The bytes as stored: a tar, or a tar already compressed. A failed read is an [`Error`] within
    /// an [`std::io::Error`]; [`Error::from_read`] takes it out.
    pub content: &'a mut (dyn Read + Send),
    /// The same bytes, which can be read at any time and without the source; `None` if only
    /// `content` gives them.
    pub bytes: Option<LayerBytes>,
}

/// What a source knows about a layer before its bytes are read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claim {
    /// The diff ID that the image's config lists for it.
    DiffId(DiffId),
    /// A diff ID that is guessed from the entry's name. It may be looked up, but must be verified
    /// by reading the layer.
    Hint(DiffId),
    /// The key of the files that the layer would be made of. If it was made before, its diff ID is
    /// known.
    Key(LayerKey),
    /// The source knows nothing about it.
    Nothing,
}

impl Claim {
    /// The key, if the claim is one.
    pub fn into_key(self) -> Option<LayerKey> {
        match self {
            Self::Key(key) => Some(key),
            Self::DiffId(_) | Self::Hint(_) | Self::Nothing => None,
        }
    }
}

/// A layer's bytes do not have the diff ID that the config lists.
#[derive(Debug, thiserror::Error)]
#[error(
    "{file}: layer {layer}, entry {entry:?}, is {actual}, but the image's config lists {listed}: \
     the archive is damaged, the store has changed since, or it was put together wrongly; make it \
     again (nothing was tagged)"
)]
pub struct LayerMismatch {
    /// The image, safe to print.
    pub file: String,
    /// The layer's place in the image, from 1.
    pub layer: usize,
    /// What the source calls the layer.
    pub entry: String,
    /// The diff ID in the config.
    pub listed: DiffId,
    /// The diff ID of the bytes.
    pub actual: DiffId,
}

/// A layer that can be read only once was requested again.
#[derive(Debug, thiserror::Error)]
#[error("a layer cannot be read twice; this is a fault in pushimg, please report it")]
pub struct OnlyOnce;

impl From<LayerMismatch> for Error {
    fn from(error: LayerMismatch) -> Self {
        Self::image(error)
    }
}

impl From<OnlyOnce> for Error {
    fn from(error: OnlyOnce) -> Self {
        Self::image(error)
    }
}
