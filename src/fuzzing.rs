//! What the targets in `fuzz/` call, one function each, and the test that runs their corpus.
//!
//! A function takes any bytes, gives them to a parser of what comes from outside, and panics where
//! the parser does, or where what it returns breaks a promise. It is built for tests and with the
//! feature `fuzzing` only, so that parsers may stay private and no shipped program has any of it.

use std::io::Read;
use std::sync::LazyLock;

use tokio::runtime::Runtime;

use crate::image::{
    Blob, Compression, Config, DiffId, Digest, Format, History, LayerKey, Listed, Manifest,
    ManifestLayer,
};
use crate::pack::{self, Packer};
use crate::source;

pub use crate::cli::fuzzing::{image_list, reference};
pub use crate::registry::auth::fuzzing::{challenge, docker_config, token_answer};
pub use crate::registry::fuzzing::{error_body, headers};
pub use crate::source::fuzzing::{archive, docker_manifest, pax, tar, wrapping};

/// A target's function.
pub type FuzzTarget = fn(&[u8]);

/// All targets, by the names of their binaries and of the folders of their corpora.
pub const TARGETS: &[(&str, FuzzTarget)] = &[
    ("archive", archive),
    ("challenge", challenge),
    ("config", config),
    ("docker_config", docker_config),
    ("docker_manifest", docker_manifest),
    ("error_body", error_body),
    ("headers", headers),
    ("image_list", image_list),
    ("listed", listed),
    ("names", names),
    ("pack", pack),
    ("pax", pax),
    ("reference", reference),
    ("tar", tar),
    ("token_answer", token_answer),
    ("wrapping", wrapping),
];

/// An image config. Of what can be read, a manifest can be made and read again.
pub fn config(data: &[u8]) {
    let Ok(config) = Config::parse(data.to_vec()) else {
        return;
    };
    assert_eq!(config.bytes(), data);
    for history in config.layer_history() {
        shown(source::name_from_history(history).unwrap_or_default());
    }
    let layer = |id: &DiffId| {
        let (digest, key) = (id.digest().clone(), Some(LayerKey(id.digest().clone())));
        ManifestLayer { blob: Blob { digest, size: 1, compression: Compression::Gzip }, key }
    };
    let layers: Vec<ManifestLayer> = config.diff_ids().iter().map(layer).collect();
    for format in [Format::Docker, Format::Oci] {
        let manifest = Manifest::of(&config, &layers, format).expect("gzip can be said in both");
        let Ok(Listed::Image(read)) = Listed::parse(&manifest.bytes) else {
            panic!("{:?}", manifest.bytes);
        };
        assert_eq!(read.config.digest, config.digest().as_str());
        assert_eq!(read.layers.len(), layers.len());
    }
}

/// A registry's manifest or index.
pub fn listed(data: &[u8]) {
    let _ = Listed::parse(data);
}

/// Names for people, from a layer's first bytes, from history, and of anything.
pub fn names(data: &[u8]) {
    shown(source::package_name(data).unwrap_or_default());
    let text = String::from_utf8_lossy(data).into_owned();
    assert!(!source::printable(&text).contains(source::is_harmful));
    let (comment, created_by) = text.split_once('\n').unwrap_or((&text, &text));
    let history = History {
        comment: comment.to_owned(),
        created_by: created_by.to_owned(),
        empty_layer: false,
    };
    shown(source::name_from_history(&history).unwrap_or_default());
}

fn shown(name: String) {
    // Forty, and the number of other packages behind it.
    assert!(name.chars().count() <= 48, "{name:?}");
    assert!(!name.contains(source::is_harmful), "{name:?}");
}

/// A layer, stored plain, gzip or zstd, at the head of `data` a byte that says how it is packed.
pub fn pack(data: &[u8]) {
    static PACKERS: LazyLock<[Packer; 3]> = LazyLock::new(|| {
        [Compression::None, Compression::Gzip, Compression::Zstd].map(|compression| {
            let spool_dir = std::env::temp_dir();
            Packer::new(pack::Options { compression, level: None, threads: 1, taken: 0, spool_dir })
                .expect("a packer of the usual kind")
        })
    });
    static RUNTIME: LazyLock<Runtime> =
        LazyLock::new(|| Runtime::new().expect("a runtime of the usual kind"));
    let Some((how, layer)) = data.split_first() else {
        return;
    };
    let packer = &PACKERS[usize::from(*how) % 3];
    let packed = || -> Result<_, pack::Error> {
        let (mut packing, spool) = packer.begin()?;
        let mut rest = layer;
        loop {
            let mut block = packer.block();
            if block.fill(&mut rest).expect("a slice can be read") == 0 {
                break;
            }
            packing.write(block)?;
        }
        let diff_id = packing.finish()?;
        let packed = RUNTIME.block_on(spool.finished())?;
        assert_eq!(packed.diff_id, diff_id);
        let mut blob = Vec::new();
        while let Some(piece) = RUNTIME.block_on(spool.chunk(blob.len() as u64, 1 << 20))? {
            blob.extend_from_slice(&piece);
        }
        Ok((packed, blob))
    };
    let Ok((packed, blob)) = packed() else {
        return;
    };
    assert_eq!(packed.blob.digest, Digest::of(&blob));
    assert_eq!(packed.blob.size, blob.len() as u64);
    let mut unpacked = Vec::new();
    let most = 16 << 20;
    match packed.blob.compression {
        Compression::None => unpacked.clone_from(&blob),
        Compression::Gzip => {
            let decoder = flate2::read::MultiGzDecoder::new(blob.as_slice());
            decoder.take(most).read_to_end(&mut unpacked).expect("it was verified");
        }
        Compression::Zstd => {
            let decoder = zstd::Decoder::new(blob.as_slice()).expect("a decoder");
            decoder.take(most).read_to_end(&mut unpacked).expect("it was verified");
        }
    }
    if (unpacked.len() as u64) < most {
        assert_eq!(packed.diff_id, Digest::of(&unpacked).into());
    }
    // Zeros after a stored layer are left off.
    let stored = layer.strip_prefix(blob.as_slice());
    let is_stored = stored.is_some_and(|rest| rest.iter().all(|byte| *byte == 0));
    assert!(is_stored || unpacked == layer);
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::TARGETS;

    #[test]
    fn every_input_of_the_corpus_is_taken_without_panic() {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
        for (name, run) in TARGETS {
            let folder = corpus.join(name);
            let mut inputs = 0;
            for entry in fs_err::read_dir(&folder).unwrap() {
                let path = entry.unwrap().path();
                // What the test runner shows of a test that panics.
                println!("{}", path.display());
                run(&fs_err::read(&path).unwrap());
                inputs += 1;
            }
            assert!(inputs > 0, "{} is empty", folder.display());
        }
    }

    #[test]
    fn every_target_has_its_program() {
        let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
        let manifest = fs_err::read_to_string(fuzz.join("Cargo.toml")).unwrap();
        for (name, _) in TARGETS {
            let program = fs_err::read_to_string(fuzz.join(format!("targets/{name}.rs"))).unwrap();
            assert!(program.contains(&format!("pushimg::fuzzing::{name}(data)")), "{name}");
            assert!(manifest.contains(&format!("name = \"{name}\"")), "{name}");
        }
    }
}
