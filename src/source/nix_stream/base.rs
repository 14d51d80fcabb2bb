//! The image that another one is built on: a docker archive, whose layers come first.

use std::path::Path;
use std::sync::Arc;

use super::error::NixStreamError;
use super::json::Value;
use super::refusal::Refusal;
use crate::image::LayerId;
use crate::source::archive;
use crate::source::error::Error;
use crate::source::interface::{Image, Layer, Source};
use crate::source::location::Options;
use crate::source::printable::printable_path;

/// A base image.
pub struct Base {
    source: Box<dyn Source>,
    /// Its name for messages.
    name: Arc<str>,
    /// The names of its layers, in the order of their ids.
    entries: Vec<String>,
}

impl Base {
    /// Opens the archive at `path`.
    pub fn open(path: &Path, options: Options) -> Result<Self, Refusal> {
        let name = printable_path(path);
        let source = archive::open_docker_archive(path, options)?;
        if let Some(images) = source.images() {
            let [image] = images else {
                return Err(Refusal::unknown("its base image is an archive of several"));
            };
            let mut ids = image.layers.clone();
            ids.sort_unstable();
            if ids.windows(2).any(|two| two[0] == two[1]) {
                // Only the script knows the names that these get.
                return Err(Refusal::unknown("its base image has a layer twice"));
            }
        }
        Ok(Self { source, name, entries: Vec::new() })
    }

    /// The memory that reading it takes.
    pub fn memory(&self) -> usize {
        self.source.memory()
    }

    /// The next layer; `None` after the last.
    pub fn next_layer(&mut self) -> Result<Option<Layer<'_>>, Error> {
        let layer = self.source.next_layer()?;
        self.entries.extend(layer.as_ref().map(|layer| layer.entry.clone()));
        Ok(layer)
    }

    /// The first image of the archive, after the last layer.
    pub fn image(&self) -> Result<&Image, Error> {
        let image = self.source.images().and_then(<[Image]>::first);
        image.ok_or_else(|| self.broken("it holds no image"))
    }

    /// The names of its layers, lowest first.
    pub fn layer_names(&self) -> Result<Vec<&str>, Error> {
        let name = |id: &LayerId| self.entries.get(id.0).map(String::as_str);
        let names: Option<Vec<&str>> = self.image()?.layers.iter().map(name).collect();
        names.ok_or_else(|| self.broken("it lists a layer that it does not hold"))
    }

    /// Its environment, `NAME=value` each.
    pub fn environment(&self) -> Result<Vec<String>, Error> {
        let parsed = Value::parse(self.image()?.config.bytes());
        let whole = parsed.map_err(|error| self.broken(&format!("its config: {error}")))?;
        let odd = || self.broken("the \"config\" in its config is not what a builder writes");
        let config = whole.get("config").ok_or_else(odd)?;
        environment(config).ok_or_else(odd)
    }

    /// The error for an archive that cannot be built upon.
    pub fn broken(&self, what: &str) -> Error {
        NixStreamError::BadBase { base: self.name.clone(), what: what.to_owned() }.into()
    }
}

/// The environment in the `config` of an image's config; `None` if it is malformed.
pub fn environment(config: &Value) -> Option<Vec<String>> {
    let Value::Map(_) = config else {
        return None;
    };
    let text = |value: &Value| match value {
        Value::Text(text) => Some(text.clone()),
        _ => None,
    };
    match config.get("Env") {
        None => Some(Vec::new()),
        Some(Value::List(entries)) => entries.iter().map(text).collect(),
        Some(_) => None,
    }
}
