//! Packs layers whose blob is not the layer itself: because it is compressed, or because the source
//! can give the bytes only once.

use std::io::Read;

use parking_lot::Mutex;

use crate::error::Error;
use crate::pack::{self, Packer, Packing, Spool};
use crate::source;

/// How many bytes of memory the server needs for other things. The packer uses that much less.
const TAKEN: usize = 32 << 20;

/// Packs layers for all images that are served.
pub struct LayerPacker {
    options: pack::Options,
    /// Started for the first layer, because most servers pack nothing.
    packer: Mutex<Option<Packer>>,
}

impl LayerPacker {
    pub fn new(compression: crate::image::Compression, level: Option<i32>) -> Self {
        let spool_dir = std::env::temp_dir();
        let options = pack::Options { compression, level, threads: 0, taken: TAKEN, spool_dir };
        Self { options, packer: Mutex::default() }
    }

    fn packer(&self) -> Result<Packer, pack::Error> {
        let mut packer = self.packer.lock();
        match &*packer {
            Some(packer) => Ok(packer.clone()),
            None => Ok(packer.insert(Packer::new(self.options.clone())?).clone()),
        }
    }

    /// Begins to pack a layer of the image `image`.
    pub fn begin(&self, image: &str, entry: &str) -> Result<(LayerPacking, Spool), Error> {
        let (image, entry) = (image.to_owned(), entry.to_owned());
        let begun = self.packer().and_then(|packer| Ok((packer.clone(), packer.begin()?)));
        match begun {
            Ok((packer, (packing, spool))) => {
                Ok((LayerPacking { image, entry, packer, packing }, spool))
            }
            Err(source) => Err(Error::Pack { image, entry, source }),
        }
    }
}

/// A layer being packed. If it is dropped early, its spool counts as abandoned.
pub struct LayerPacking {
    image: String,
    entry: String,
    packer: Packer,
    packing: Packing,
}

impl LayerPacking {
    /// Reads the layer to its end, on the caller's thread.
    pub fn read(mut self, content: &mut dyn Read) -> Result<(), Error> {
        let packed = loop {
            let mut block = self.packer.block();
            let length = block
                .fill(content)
                .map_err(|error| source::Error::from_read(error, &self.entry))?;
            if length == 0 {
                break self.packing.finish().map(drop);
            }
            if let Err(error) = self.packing.write(block) {
                break Err(error);
            }
        };
        let (image, entry) = (self.image, self.entry);
        packed.map_err(|source| Error::Pack { image, entry, source })
    }
}
