//! Opens images to serve them: makes a [`Catalog`] from offers.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::runtime::Handle;

use super::blob::ServedBlob;
use super::catalog::{Catalog, names_of_layers};
use super::layers::{LayerReader, ReadLayer};
use super::options::{Offer, PullName, ServeOptions};
use super::packing::LayerPacker;
use crate::choice;
use crate::error::Error;
use crate::event::{Event, Events};
use crate::image::{Compression, Format, Platform, Reference};
use crate::pack;
use crate::reuse::Cache;
use crate::source::layout::Tree;
use crate::source::{self, Contents, Image, ImagesKnown, LayerId, Selection};

/// The contents of a location, read as far as the manifests require it.
enum OpenedOffer {
    Images(Vec<Image>, HashMap<LayerId, ReadLayer>),
    Trees(Vec<Tree>),
}

/// Which images of an offer are opened.
#[derive(Clone)]
pub enum Which {
    /// All images of its selection.
    All,
    /// The only image, or the one with this name. In an index, the image for this platform.
    One { name: Reference, platform: Option<Platform> },
}

/// Opens images, one after another.
pub async fn open(
    offers: &[Offer],
    which: &Which,
    options: &ServeOptions,
    cache: &Arc<Cache>,
    events: &Events,
) -> Result<Catalog, Error> {
    let mut catalog = Catalog::default();
    let packer = Arc::new(LayerPacker::new(options.compression, options.level));
    let recipe = pack::recipe(options.compression, options.level);
    for offer in offers {
        let reader = LayerReader {
            image: offer.image.to_string(),
            compression: options.compression,
            recipe: recipe.clone(),
            cache: cache.clone(),
            packer: packer.clone(),
            events: events.clone(),
            runtime: Handle::current(),
        };
        let (opened, which) = (offer.clone(), which.clone());
        let may_run = options.may_run;
        let reading = tokio::task::spawn_blocking(move || read(&opened, &which, &reader, may_run));
        // The task itself fails only while the runtime shuts down, or if the work panicked.
        match reading.await.unwrap_or_else(|error| Err(Error::Failed(error.to_string())))? {
            OpenedOffer::Images(images, layers) => {
                add_images(&mut catalog, offer, &images, layers, options.format)?;
            }
            OpenedOffer::Trees(trees) => add_trees(&mut catalog, offer, &trees)?,
        }
    }
    Ok(catalog)
}

fn read(
    offer: &Offer,
    which: &Which,
    reader: &LayerReader,
    may_run: bool,
) -> Result<OpenedOffer, Error> {
    let (reading, noting) = (reader.events.clone(), reader.events.clone());
    let options = source::Options {
        images: ImagesKnown::AndLayersInAnyOrder,
        may_run,
        progress: Box::new(move |position, total| reading(Event::Reading { position, total })),
        note: Arc::new(move |note| noting(Event::Note(note))),
    };
    let Offer { image, selection, .. } = offer;
    match source::open(image, options)? {
        Contents::Layers(source) => {
            let meant = |images: &[Image]| match which {
                Which::All => {
                    let meant = choice::selected(image, selection, images)?;
                    Ok(meant.into_iter().cloned().collect())
                }
                Which::One { name, .. } => Ok(vec![choice::pick(image, selection, name, images)?]),
            };
            let (images, layers) = reader.read(source, &meant)?;
            Ok(OpenedOffer::Images(images, layers))
        }
        Contents::Layout(layout) => Ok(OpenedOffer::Trees(match which {
            Which::All if *selection == Selection::default() => layout.trees()?,
            Which::All => vec![layout.select(selection)?],
            Which::One { platform, .. } => {
                let tree = layout.select(selection)?;
                vec![match tree.nodes[tree.root].children.is_empty() {
                    true => tree,
                    false => layout
                        .select(&Selection { platform: platform.clone(), ..selection.clone() })?,
                }]
            }
        })),
    }
}

fn add_images(
    catalog: &mut Catalog,
    offer: &Offer,
    images: &[Image],
    mut layers: HashMap<LayerId, ReadLayer>,
    format: Option<Format>,
) -> Result<(), Error> {
    let mut names: HashMap<LayerId, String> = HashMap::new();
    for image in images {
        for (id, name) in image.layers.iter().zip(names_of_layers(&image.config)) {
            names.extend(name.map(|name| (*id, name)));
        }
    }
    let blobs: HashMap<LayerId, Arc<ServedBlob>> = layers
        .iter_mut()
        .map(|(id, layer)| {
            let blob = ServedBlob {
                digest: layer.blob.digest.clone(),
                size: layer.blob.size,
                name: names.remove(id),
                entry: layer.entry.clone(),
                bytes: layer.bytes.clone(),
            };
            (*id, Arc::new(blob))
        })
        .collect();
    for image in images {
        let called = names_of(offer, images.len(), &image.names, PullName::of)?;
        let of_image = image.layers.iter().filter_map(|id| layers.get(id));
        let format = format.unwrap_or_else(|| fitting_format(of_image));
        catalog.add_image(called, image, &layers, &blobs, format)?;
    }
    Ok(())
}

fn add_trees(catalog: &mut Catalog, offer: &Offer, trees: &[Tree]) -> Result<(), Error> {
    for tree in trees {
        let of_layout = |name: &str| PullName::of_layout(name, &offer.image);
        let names = names_of(offer, trees.len(), &tree.names, of_layout)?;
        catalog.add_tree(names, tree)?;
    }
    Ok(())
}

/// The names under which one of `count` images can be pulled.
fn names_of(
    offer: &Offer,
    count: usize,
    own: &[String],
    parse: impl Fn(&str) -> Option<PullName>,
) -> Result<Vec<PullName>, Error> {
    if let Some(name) = &offer.name {
        return match count {
            1 => Ok(vec![name.clone()]),
            _ => Err(Error::Usage(format!(
                "{} holds {count} images, which cannot all be called {name}; choose one with \
                 PATH:NAME, PATH@DIGEST or --platform",
                offer.image
            ))),
        };
    }
    let mut names: Vec<PullName> = own.iter().filter_map(|name| parse(name)).collect();
    names.sort();
    names.dedup();
    if names.is_empty() {
        names.push(PullName::of_file(&offer.image));
    }
    Ok(names)
}

/// Docker's format if all layers are gzip, as with `docker push`. Otherwise OCI's, which also has
/// media types for other layers.
fn fitting_format<'a>(layers: impl IntoIterator<Item = &'a ReadLayer>) -> Format {
    let is_gzip = |layer: &ReadLayer| layer.blob.compression == Compression::Gzip;
    if layers.into_iter().all(is_gzip) { Format::Docker } else { Format::Oci }
}
