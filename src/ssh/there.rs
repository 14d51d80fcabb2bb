//! What was found on a machine: its runtime, its platform, and its layers.

use std::collections::HashSet;

use super::runtime::{ListKind, Runtime};
use super::transfer::Encoding;
use crate::image::{DiffId, Digest, Platform};
use crate::serve::ServedLayer;

/// What was found on a machine.
pub struct There {
    pub runtime: &'static Runtime,
    pub platform: Option<Platform>,
    pub layers: LayersThere,
    /// The last line of a list that the runtime could not finish.
    pub unlisted: Option<String>,
    /// The best compression that the machine can undo.
    pub encoding: Encoding,
    /// Parts of archives that earlier connections have left: names and lengths.
    pub kept: Vec<(String, u64)>,
    /// Whether its `dd` can receive an archive.
    pub can_receive: bool,
}

impl There {
    /// The longest kept part of the archive with this key: the file's name and length.
    pub fn kept(&self, key: &str) -> Option<(String, u64)> {
        let is_of = |name: &str| name.split('.').next() == Some(key);
        let of_key = self.kept.iter().filter(|(name, _)| is_of(name));
        of_key.max_by_key(|(_, length)| *length).cloned()
    }
}

/// The layers that a runtime has.
#[derive(Debug)]
pub enum LayersThere {
    /// The layers of its images, lowest first. A layer counts only if all layers below it are the
    /// same.
    Chains(Vec<Vec<DiffId>>),
    /// Layers that are identified by their diff IDs.
    DiffIds(HashSet<DiffId>),
    /// The same, however their blobs are compressed.
    AnyForm(HashSet<DiffId>),
    /// Blobs that are identified by their digests.
    Blobs(HashSet<Digest>),
}

impl LayersThere {
    /// Reads a runtime's list. Other lines are ignored, because a login script may print them.
    pub fn read(lists: ListKind, lines: &[String]) -> Self {
        let chains = || {
            lines.iter().filter_map(|line| serde_json::from_str::<Vec<DiffId>>(line.trim()).ok())
        };
        match lists {
            ListKind::Chains => Self::Chains(chains().collect()),
            ListKind::DiffIds => Self::DiffIds(chains().flatten().collect()),
            ListKind::AnyForm => Self::AnyForm(chains().flatten().collect()),
            ListKind::Blobs => {
                Self::Blobs(lines.iter().filter_map(|line| line.trim().parse().ok()).collect())
            }
        }
    }

    /// For each layer of an image, lowest first, whether the machine has it.
    pub fn have(&self, layers: &[ServedLayer]) -> Vec<bool> {
        match self {
            Self::Chains(chains) => {
                let shared = |chain: &Vec<DiffId>| {
                    let pairs = chain.iter().zip(layers);
                    pairs.take_while(|(theirs, ours)| **theirs == ours.diff_id).count()
                };
                let longest = chains.iter().map(shared).max().unwrap_or(0);
                (0..layers.len()).map(|place| place < longest).collect()
            }
            // podman does not know the diff ID of a compressed blob.
            Self::DiffIds(ids) => {
                let has = |layer: &ServedLayer| {
                    ids.contains(&layer.diff_id) && layer.blob == *layer.diff_id.digest()
                };
                layers.iter().map(has).collect()
            }
            Self::AnyForm(ids) => layers.iter().map(|layer| ids.contains(&layer.diff_id)).collect(),
            Self::Blobs(blobs) => layers.iter().map(|layer| blobs.contains(&layer.blob)).collect(),
        }
    }
}

/// The platform for the output of `uname -m`.
pub fn platform_of(machine: &str) -> Option<Platform> {
    let (architecture, variant) = match machine.trim() {
        "x86_64" | "amd64" => ("amd64", None),
        "aarch64" | "arm64" => ("arm64", None),
        "armv7l" => ("arm", Some("v7")),
        "armv6l" => ("arm", Some("v6")),
        "i386" | "i486" | "i586" | "i686" => ("386", None),
        "armv8l" => ("arm", Some("v7")),
        "loongarch64" => ("loong64", None),
        "" => return None,
        other => (other, None),
    };
    Some(Platform {
        os: "linux".to_owned(),
        architecture: architecture.to_owned(),
        variant: variant.map(str::to_owned),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn docker_knows_a_layer_only_upon_those_below_it() {
        let id = |text: &str| DiffId::from(Digest::of(text.as_bytes()));
        let [a, b, c] = ["a", "b", "c"].map(id);
        let line = |ids: &[&DiffId]| serde_json::to_string(ids).unwrap();
        let lines = ["Welcome!".to_owned(), line(&[&a, &c]), line(&[&a, &b, &c])];
        let layers = |ids: &[&DiffId]| -> Vec<ServedLayer> {
            let layer = |id: &&DiffId| ServedLayer {
                diff_id: (*id).clone(),
                blob: id.digest().clone(),
                size: 1,
                media_type: String::new(),
            };
            ids.iter().map(layer).collect()
        };
        let docker = LayersThere::read(ListKind::Chains, &lines);
        assert_eq!(docker.have(&layers(&[&a, &b])), [true, true]);
        assert_eq!(docker.have(&layers(&[&a, &c, &b])), [true, true, false]);
        assert_eq!(docker.have(&layers(&[&b, &a])), [false, false]);
        let podman = LayersThere::read(ListKind::DiffIds, &lines);
        assert_eq!(podman.have(&layers(&[&b, &id("d"), &a])), [true, false, true]);
    }

    #[test]
    fn a_machine_is_a_platform() {
        assert_eq!(platform_of("x86_64").unwrap().to_string(), "linux/amd64");
        assert_eq!(platform_of("armv7l").unwrap().to_string(), "linux/arm/v7");
        assert_eq!(platform_of(""), None);
    }
}
