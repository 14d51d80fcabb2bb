//! Lets a machine pull an image: a registry listens on a socket of this machine, and the connection
//! forwards a port of the other machine to it.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use tempfile::TempDir;
use tokio::net::UnixListener;

use super::error::Error;
use super::image::HostImage;
use super::runtime::Runtime;
use super::session::Connect;
use crate::event::{Event, Events};
use crate::image::{Compression, Digest, LayerId};
use crate::report::{Known, LayerReport, Outcome};
use crate::serve::ImageServer;

/// The longest path of a socket that every system allows.
const MAX_SOCKET: usize = 100;

/// A registry with one image, for one machine.
pub struct PullServer {
    image: Arc<HostImage>,
    events: Events,
    taken: Arc<Mutex<Taken>>,
    server: ImageServer,
}

/// What the machine has pulled.
#[derive(Default)]
struct Taken {
    layers: BTreeMap<LayerId, LayerReport>,
    config: bool,
}

impl PullServer {
    pub fn new(image: &Arc<HostImage>, events: &Events) -> Self {
        let taken = Arc::<Mutex<Taken>>::default();
        let theirs = (image.clone(), events.clone(), taken.clone());
        let served: Events = Arc::new(move |event| {
            let (image, events, taken) = &theirs;
            translate(image, events, &mut taken.lock(), event);
        });
        let server = ImageServer::over(image.catalog.clone(), &served);
        Self { image: image.clone(), events: events.clone(), taken, server }
    }

    /// Lets the runtime pull. `compression` says whether the connection compresses its data.
    pub async fn pull(
        &self,
        connect: Connect<'_>,
        runtime: &'static Runtime,
        compression: Compression,
    ) -> Result<(), Error> {
        let cannot = |said: String| Error::Pull { host: connect.host.to_string(), said };
        let (_folder, socket) = socket_folder().map_err(|error| cannot(error.to_string()))?;
        let listener = UnixListener::bind(&socket);
        let listener = listener.map_err(|error| cannot(error.to_string()))?;
        let compresses = compression != Compression::None && !self.image.is_compressed();
        let session = connect.forwarding(runtime, &socket, compresses).await?;
        let (session, port) = session.port().await?;
        let (digest, platform) = (&self.image.manifest.digest, &self.image.part.platform);
        let mut pull = session.pull(port, digest, platform).await?;
        // Afterwards the connections to the port are closed.
        self.server.serve(listener, pull.hear()).await;
        pull.end().await.map_err(|error| match error {
            Error::Load { said, .. } if self.taken.lock().layers.is_empty() => cannot(said),
            other => other,
        })
    }

    /// Bytes of blobs that were sent.
    pub fn bytes_sent(&self) -> u64 {
        self.server.bytes_sent()
    }

    /// Whether the machine pulled this layer, at least once to its end.
    pub fn was_taken(&self, layer: LayerId) -> bool {
        self.taken.lock().layers.contains_key(&layer)
    }

    /// Whether the machine pulled the config.
    pub fn config_sent(&self) -> bool {
        self.taken.lock().config
    }

    /// The result for each layer, when the pull is complete.
    pub fn layers(&self) -> Vec<LayerReport> {
        let taken = self.taken.lock();
        let there = || Outcome::Reused { why: Known::OnHost };
        let report = |layer: LayerId| match taken.layers.get(&layer) {
            Some(report) => report.clone(),
            None => self.image.settle(layer, there(), &self.events),
        };
        self.image.layers().map(report).collect()
    }
}

/// A folder that only its owner may enter, and a socket in it. Its path has no characters with a
/// special meaning for ssh.
fn socket_folder() -> std::io::Result<(TempDir, PathBuf)> {
    let is_plain = |path: &Path| {
        let text = path.to_string_lossy();
        let fits = |c: char| c.is_ascii_alphanumeric() || "/._-".contains(c);
        text.chars().all(fits) && text.len() + "/pushimg-XXXXXX/registry".len() <= MAX_SOCKET
    };
    let own = std::env::temp_dir();
    let parent = if is_plain(&own) { own.as_path() } else { Path::new("/tmp") };
    let only_owner = std::fs::Permissions::from_mode(0o700);
    let folder =
        tempfile::Builder::new().prefix("pushimg-").permissions(only_owner).tempdir_in(parent)?;
    let socket = folder.path().join("registry");
    Ok((folder, socket))
}

/// Translates the registry's events about blobs into events about layers.
fn translate(image: &HostImage, events: &Events, taken: &mut Taken, event: Event) {
    let first = |digest: &Digest| image.layers_of(digest).next();
    match event {
        Event::BlobAsked { digest, bytes, .. } => {
            if let Some(layer) = first(&digest) {
                let name = image.layer_name(layer).to_owned();
                events(Event::UploadStarted { layer, name, total: Some(bytes) });
            }
        }
        Event::BlobProgress { digest, position } => {
            if let Some(layer) = first(&digest) {
                let ready = image.part.layers[layer.0].size;
                events(Event::UploadProgress { layer, position, ready, total: None });
            }
        }
        Event::BlobSent { digest, whole, .. } if whole => {
            taken.config |= digest == image.part.config;
            for layer in image.layers_of(&digest) {
                let settle = || image.settle(layer, Outcome::Uploaded, events);
                taken.layers.entry(layer).or_insert_with(settle);
            }
        }
        Event::BlobSent { .. } => {}
        other => events(other),
    }
}
