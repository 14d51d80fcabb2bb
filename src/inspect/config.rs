//! An image as its config describes it (OCI image-spec 1.1, "Image Configuration"), including the
//! fields that a push does not need.

use std::collections::{BTreeMap, HashSet};
use std::hash::Hash;

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::{InspectedImage, InspectedLayer};
use crate::image::{Bounded, Config, Digest};
use crate::{json, source};

/// The most arguments or environment variables that are read. If a config has more, its fields are
/// not shown.
const MAX_ELEMENTS: usize = 16 * 1024;

type Texts = Option<Bounded<String, MAX_ELEMENTS>>;

#[derive(Default, Deserialize)]
#[serde(default)]
struct ConfigJson {
    created: Option<String>,
    config: Option<RunJson>,
}

/// How to run the image.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct RunJson {
    entrypoint: Texts,
    cmd: Texts,
    env: Texts,
    exposed_ports: Option<BTreeMap<String, IgnoredAny>>,
    working_dir: Option<String>,
    user: Option<String>,
}

impl InspectedImage {
    /// An image with these names. `stored` has for each layer a value that identifies its bytes,
    /// their length, and the blob's digest if it is stored as a blob.
    pub(super) fn new<T: Eq + Hash>(
        names: Vec<String>,
        config: &Config,
        stored: impl Iterator<Item = (T, u64, Option<Digest>)>,
    ) -> Self {
        // A push needs none of these fields, so a config that has them in another form is still shown.
        let fields: ConfigJson = json::from_slice(config.bytes()).unwrap_or_default();
        let run = fields.config.unwrap_or_default();
        let texts = |list: Texts| list.map_or(Vec::new(), |list| list.0);
        let text = |text: Option<String>| text.filter(|text| !text.is_empty());

        let mut size = 0;
        let mut counted = HashSet::new();
        let mut history = config.layer_history();
        let mut diff_ids = config.diff_ids().iter();
        let layers = stored.map(|(bytes, length, digest)| {
            if counted.insert(bytes) {
                size += length;
            }
            let step = history.next();
            InspectedLayer {
                diff_id: diff_ids.next().cloned(),
                digest,
                size: length,
                store_paths: step
                    .map(|step| source::store_paths(step).map(str::to_owned).collect())
                    .unwrap_or_default(),
                created_by: step.and_then(source::command).map(str::to_owned),
                registry: None,
            }
        });
        let layers = layers.collect();
        Self {
            names,
            id: config.digest().clone(),
            manifest: None,
            platform: config.platform().clone(),
            created: text(fields.created),
            entrypoint: texts(run.entrypoint),
            cmd: texts(run.cmd),
            env: texts(run.env),
            exposed_ports: run.exposed_ports.unwrap_or_default().into_keys().collect(),
            working_dir: text(run.working_dir),
            user: text(run.user),
            size,
            layers,
        }
    }
}
