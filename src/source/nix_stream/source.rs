//! The image of a stream script as a source. It makes the layers one after another, and then the
//! config from their diff IDs.

use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::Arc;

use super::ahead::Ahead;
use super::base::Base;
use super::conf::Conf;
use super::config::{self, ConfigLayer, Unwritable};
use super::error::NixStreamError;
use super::json;
use super::layer::{self, LayerRecipe, StoreLayer};
use crate::image::{Config, ConfigError, DiffId, Hasher, LayerId, LayerKey};
use crate::source::error::Error;
use crate::source::file::FileError;
use crate::source::interface::{Claim, Image, Layer, OnlyOnce, Source};
use crate::source::layer_bytes::LayerBytes;
use crate::source::layout::{Region, RegionFile};
use crate::source::location::ReadProgress;
use crate::source::printable::printable_path;
use crate::source::regular_file::RegularFile;

/// The layer that was made when the image was built: a tar, and its checksum.
pub struct Customisation {
    /// The store path that contains both.
    pub path: String,
    /// The tar.
    pub tar: PathBuf,
    pub size: u64,
    pub diff_id: DiffId,
}

/// The image of a stream script, as a source.
pub struct NixStream {
    base: Option<Base>,
    base_is_done: bool,
    own: OwnLayers,
    images: Option<Vec<Image>>,
}

impl NixStream {
    /// Begins to look at the layers. `file` is the image's name for messages.
    pub fn new(
        file: Arc<str>,
        conf: Conf,
        store_mode: u32,
        base: Option<Base>,
        customisation: Customisation,
        progress: ReadProgress,
    ) -> Self {
        let making = LayerRecipe { owner: Arc::new(conf.owner.clone()), store_mode };
        let nothing: Box<dyn Read + Send> = Box::new(io::empty());
        let content = StreamContent { inner: nothing, position: 0, progress };
        let (diff_ids, first_id) = (Vec::new(), 0);
        let ahead = Ahead::start(file.clone(), conf.store_layers.clone(), making.clone());
        let own =
            OwnLayers { file, conf, making, ahead, customisation, first_id, diff_ids, content };
        Self { base, base_is_done: false, own, images: None }
    }

    /// Puts the image together. All its layers must be known.
    fn image(&self) -> Result<Image, Error> {
        let own = &self.own;
        let mut listed = Vec::new();
        let mut layers = Vec::new();
        let mut environment = None;
        if let Some(base) = &self.base {
            let image = base.image()?;
            for (name, diff_id) in base.layer_names()?.into_iter().zip(image.config.diff_ids()) {
                listed.push(ConfigLayer { diff_id: diff_id.clone(), paths: vec![name.to_owned()] });
            }
            layers.clone_from(&image.layers);
            environment = Some(base.environment()?);
        }
        for (index, diff_id) in own.diff_ids.iter().flatten().enumerate() {
            layers.push(LayerId(own.first_id + index));
            listed.push(ConfigLayer { diff_id: diff_id.clone(), paths: own.paths(index) });
        }
        let bad = |source| NixStreamError::BadConfig { file: own.file.clone(), source };
        let bytes =
            config::config(&own.conf, environment, &listed).map_err(
                |unwritable| match unwritable {
                    Unwritable::Json(json::UnwritableJson::TooLong(length)) => {
                        bad(ConfigError::TooLong(length))
                    }
                    // It is not a number: those were checked when the conf was read.
                    Unwritable::Json(json::UnwritableJson::OtherNumber) | Unwritable::Name => {
                        NixStreamError::UnusualBase { file: own.file.clone() }
                    }
                },
            )?;
        let config = Config::parse(bytes).map_err(bad)?;
        Ok(Image { names: vec![own.conf.repo_tag.clone()], config, layers })
    }
}

impl Source for NixStream {
    fn images(&self) -> Option<&[Image]> {
        self.images.as_deref()
    }

    fn early_names(&self) -> Option<Vec<String>> {
        Some(vec![self.own.conf.repo_tag.clone()])
    }

    fn keys(&self) -> Vec<LayerKey> {
        let layers = self.own.conf.store_layers.iter();
        layers.filter_map(|paths| layer::key_of(paths, &self.own.making)).collect()
    }

    fn next_layer(&mut self) -> Result<Option<Layer<'_>>, Error> {
        if !self.base_is_done {
            let Self { base, base_is_done, own, .. } = self;
            if let Some(base) = base
                && let Some(layer) = base.next_layer()?
            {
                own.first_id = layer.id.0 + 1;
                return Ok(Some(layer));
            }
            *base_is_done = true;
            return own.next_layer();
        }
        if self.own.are_done() {
            if self.images.is_none() {
                self.own.settle()?;
                self.images = Some(vec![self.image()?]);
            }
            return Ok(None);
        }
        self.own.next_layer()
    }

    fn again(&mut self) -> Result<Layer<'_>, Error> {
        self.own.again()
    }

    fn learn(&mut self, diff_id: &DiffId) {
        if let Some(last) = self.own.diff_ids.last_mut()
            && self.base_is_done
        {
            last.get_or_insert_with(|| diff_id.clone());
        }
    }

    fn memory(&self) -> usize {
        self.base.as_ref().map_or(0, Base::memory)
    }
}

/// The layers above the base image.
struct OwnLayers {
    file: Arc<str>,
    conf: Conf,
    making: LayerRecipe,
    ahead: Ahead,
    customisation: Customisation,
    /// The id of the first of them.
    first_id: usize,
    /// The diff IDs of the layers that were yielded, if known.
    diff_ids: Vec<Option<DiffId>>,
    content: StreamContent,
}

impl OwnLayers {
    /// Whether all of them were yielded.
    fn are_done(&self) -> bool {
        self.diff_ids.len() > self.conf.store_layers.len()
    }

    /// What the layer at `index` was made of.
    fn paths(&self, index: usize) -> Vec<String> {
        let customisation = || vec![self.customisation.path.clone()];
        self.conf.store_layers.get(index).cloned().unwrap_or_else(customisation)
    }

    fn again(&mut self) -> Result<Layer<'_>, Error> {
        let last = self.diff_ids.len().checked_sub(1);
        let paths = last.and_then(|index| Some((index, self.conf.store_layers.get(index)?)));
        let (index, paths) = paths.ok_or(OnlyOnce)?;
        let layer = StoreLayer::look(paths, &self.making)?;
        let (size, claim) = self.begin(layer);
        Ok(self.layer(index, size, claim))
    }

    /// Makes `layer` the layer whose content is read.
    fn begin(&mut self, layer: StoreLayer) -> (u64, Claim) {
        let (size, key) = (layer.size(), layer.key());
        self.content.inner = Box::new(layer.content());
        (size, key.map_or(Claim::Nothing, Claim::Key))
    }

    fn next_layer(&mut self) -> Result<Option<Layer<'_>>, Error> {
        self.settle()?;
        let index = self.diff_ids.len();
        let (size, claim) = match self.conf.store_layers.get(index) {
            Some(_) => {
                let layer = self.ahead.next()?;
                self.diff_ids.push(None);
                self.begin(layer)
            }
            None => {
                let Customisation { tar, size, diff_id, .. } = &self.customisation;
                let file = RegularFile::open(tar)
                    .map_err(|source| FileError::Store { path: printable_path(tar), source })?;
                self.content.inner = Box::new(file.with_length(*size));
                self.diff_ids.push(Some(diff_id.clone()));
                (*size, Claim::DiffId(diff_id.clone()))
            }
        };
        Ok(Some(self.layer(index, size, claim)))
    }

    /// The bytes of the layer at `index`, which can be made at any time. Its tar has `length`
    /// bytes.
    fn bytes(&self, index: usize, length: u64) -> LayerBytes {
        let Some(paths) = self.conf.store_layers.get(index).cloned() else {
            let Customisation { tar, size, .. } = &self.customisation;
            return LayerBytes::Stored(Region {
                name: printable_path(tar),
                file: RegionFile::Path(tar.as_path().into()),
                offset: 0,
                length: *size,
            });
        };
        let making = self.making.clone();
        let make = move || -> Result<Box<dyn Read + Send>, Error> {
            Ok(Box::new(StoreLayer::look(&paths, &making)?.content()))
        };
        LayerBytes::Made { size: Some(length), make: Arc::new(make) }
    }

    fn layer(&mut self, index: usize, size: u64, claim: Claim) -> Layer<'_> {
        let paths = self.paths(index);
        let bytes = Some(self.bytes(index, size));
        Layer {
            id: LayerId(self.first_id + index),
            entry: match &paths[..] {
                [] => format!("store layer {}", index + 1),
                [path] => path.clone(),
                [path, others @ ..] => format!("{path} +{}", others.len()),
            },
            size,
            claim,
            content: &mut self.content,
            bytes,
        }
    }

    /// Makes sure that the diff ID of the last layer is known: if it was not reported, the layer is
    /// made once more and hashed.
    fn settle(&mut self) -> Result<(), Error> {
        let Some(index) = self.diff_ids.len().checked_sub(1) else {
            return Ok(());
        };
        let paths = self.conf.store_layers.get(index);
        if let (None, Some(paths)) = (&self.diff_ids[index], paths) {
            let mut content = StoreLayer::look(paths, &self.making)?.content();
            let hashed = Hasher::read(&mut content);
            let (digest, _) = hashed.map_err(|error| Error::from_read(error, "layer"))?;
            self.diff_ids[index] = Some(digest.into());
        }
        Ok(())
    }
}

/// The content of the layer yielded last.
struct StreamContent {
    inner: Box<dyn Read + Send>,
    /// How many bytes of all layers were read.
    position: u64,
    progress: ReadProgress,
}

impl Read for StreamContent {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.position += count as u64;
        (self.progress)(self.position, None);
        Ok(count)
    }
}
