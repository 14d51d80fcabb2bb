//! An image as its config describes it (OCI image-spec 1.1, "Image Configuration"), with those
//! fields that a push has no use for.

use std::collections::{BTreeMap, HashSet};
use std::hash::Hash;

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::{InspectedImage, InspectedLayer};
use crate::image::{Bounded, Config, Digest};
use crate::{json, source};

/// More arguments, variables or ports than any image has.
const MAX_ELEMENTS: usize = 16 * 1024;

type Texts = Option<Bounded<String, MAX_ELEMENTS>>;

#[derive(Default, Deserialize)]
#[serde(default)]
struct Fields {
    created: Option<String>,
    config: Option<Run>,
}

/// How the image is run.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Run {
    entrypoint: Texts,
    cmd: Texts,
    env: Texts,
    exposed_ports: Option<BTreeMap<String, IgnoredAny>>,
    working_dir: Option<String>,
    user: Option<String>,
}

impl InspectedImage {
    /// An image of these names. `stored` has for each layer what tells its bytes from those of
    /// others, their length, and the blob's digest where it is stored as one.
    pub(super) fn new<T: Eq + Hash>(
        names: Vec<String>,
        config: &Config,
        stored: impl Iterator<Item = (T, u64, Option<Digest>)>,
    ) -> Self {
        // Nothing of this matters to a push. A config that has it in another form is shown without.
        let fields: Fields = json::from_slice(config.bytes()).unwrap_or_default();
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
