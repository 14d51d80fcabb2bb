//! Checks that a config belongs to its manifest's layers, as far as that is possible without
//! reading much: by their number, and by the diff IDs of layers that are short or not compressed.

use std::io::Read;

use super::error::LayoutError;
use super::manifest::{Descriptor, ManifestJson};
use super::region::Region;
use crate::image::{Compression, Config, Digest, Hasher};

/// The longest layer that is decompressed.
const MAX_LAYER: u64 = 64 << 10;

/// The most bytes of all layers that are decompressed.
const MAX_LAYERS_TOGETHER: u64 = 512 << 10;

/// The longest decompressed layer that is hashed.
const MAX_TAR: u64 = 4 << 20;

/// Fails if a config does not belong to its manifest.
pub fn config_fits(
    file: &std::sync::Arc<str>,
    digest: &Digest,
    manifest: &ManifestJson,
    config: &Config,
    regions: &[Option<Region>],
) -> Result<(), LayoutError> {
    let layers = &manifest.layers;
    // The config of an artifact may have an image's media type.
    if !layers.iter().any(|layer| Compression::of_media_type(&layer.media_type).is_some()) {
        return Ok(());
    }
    let (file, manifest) = (file.clone(), digest.clone());
    let diff_ids = config.diff_ids();
    if diff_ids.len() != layers.len() {
        let (diff_ids, layers) = (diff_ids.len(), layers.len());
        return Err(LayoutError::LayerCount { file, manifest, diff_ids, layers });
    }
    let mut left = MAX_LAYERS_TOGETHER;
    for ((layer, listed), region) in layers.iter().zip(diff_ids).zip(regions) {
        let Some(actual) = diff_id(layer, region.as_ref(), &mut left) else { continue };
        if actual != *listed.digest() {
            let (blob, listed) = (layer.digest.clone(), listed.clone());
            return Err(LayoutError::OtherLayer { file, manifest, blob, listed, actual });
        }
    }
    Ok(())
}

/// The diff ID of a layer, if it is cheap to compute. `None` for a damaged blob, whose upload will
/// report the damage.
fn diff_id(layer: &Descriptor, region: Option<&Region>, left: &mut u64) -> Option<Digest> {
    let compression = Compression::of_media_type(&layer.media_type)?;
    if compression == Compression::None {
        return Some(layer.digest.clone());
    }
    let region = region.filter(|region| region.length <= MAX_LAYER)?;
    *left = left.checked_sub(region.length)?;
    let blob = region.bytes().ok()?;
    if Digest::of(&blob) != layer.digest {
        return None;
    }
    let decoder: Box<dyn Read + '_> = match compression {
        Compression::None => return None,
        Compression::Gzip => Box::new(flate2::read::MultiGzDecoder::new(&*blob)),
        Compression::Zstd => Box::new(zstd::Decoder::new(&*blob).ok()?),
    };
    let mut tar = decoder.take(MAX_TAR + 1);
    let (digest, length) = Hasher::read(&mut tar).ok()?;
    (length <= MAX_TAR).then_some(digest)
}
