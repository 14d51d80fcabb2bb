//! An image that a machine pulls: a registry on a socket of this machine, to which the connection
//! forwards a port of the other one.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::net::UnixListener;

use super::error::Error;
use super::image::HostImage;
use super::session::{Connect, Loaded};
use crate::event::{Event, Events};
use crate::image::{Digest, LayerId};
use crate::report::{Known, LayerReport, Outcome};
use crate::serve::ImageServer;

/// What a machine pulled, or tried to.
pub struct Pulling {
    image: Arc<HostImage>,
    events: Events,
    /// The layers that it took.
    taken: Arc<Mutex<BTreeMap<LayerId, LayerReport>>>,
    server: ImageServer,
}

impl Pulling {
    pub fn new(image: &Arc<HostImage>, events: &Events) -> Self {
        let taken = Arc::<Mutex<BTreeMap<LayerId, LayerReport>>>::default();
        let theirs = (image.clone(), events.clone(), taken.clone());
        let served: Events = Arc::new(move |event| {
            let (image, events, taken) = &theirs;
            translate(image, events, &mut taken.lock(), event);
        });
        let server = ImageServer::over(image.catalog.clone(), &served);
        Self { image: image.clone(), events: events.clone(), taken, server }
    }

    /// Lets the machine pull. `compresses`: whether the connection compresses what it carries.
    pub async fn pull(&self, connect: Connect<'_>, compresses: bool) -> Result<Loaded, Error> {
        let cannot = |said: String| Error::Pull { host: connect.host.to_string(), said };
        // Only its owner may enter it.
        let folder = tempfile::Builder::new().prefix("pushimg-").tempdir();
        let folder = folder.map_err(|error| cannot(error.to_string()))?;
        let socket = folder.path().join("registry");
        let listener = UnixListener::bind(&socket);
        let listener = listener.map_err(|error| cannot(error.to_string()))?;
        let mut session = connect.forwarding(&socket, compresses).await?;
        let Some(port) = session.port().await else {
            session.leave().await;
            return Err(cannot("its SSH server forwards no ports".to_owned()));
        };
        let pulling = session.pull(port, &self.image.part.platform).await;
        let pulling = pulling.map_err(|error| cannot(error.to_string()))?;
        let mut pulled = None;
        self.server.serve(listener, async { pulled = Some(pulling.finish().await) }).await;
        match pulled {
            Some(Err(Error::Load { said, .. })) if self.taken.lock().is_empty() => {
                Err(cannot(said))
            }
            Some(pulled) => pulled,
            // The server ends only with the pull.
            None => Err(cannot("the pull did not end".to_owned())),
        }
    }

    /// Bytes of blobs that were sent.
    pub fn bytes_sent(&self) -> u64 {
        self.server.bytes_sent()
    }

    /// The digests of the layers that were sent whole.
    pub fn taken(&self) -> HashSet<Digest> {
        self.taken.lock().values().map(|layer| layer.digest.clone()).collect()
    }

    /// What became of each layer.
    pub fn layers(&self) -> Vec<LayerReport> {
        let mut taken = std::mem::take(&mut *self.taken.lock());
        let there = || Outcome::Reused { why: Known::OnHost };
        let report = |layer: LayerId| {
            let report = taken.remove(&layer);
            report.unwrap_or_else(|| self.image.settle(layer, there(), &self.events))
        };
        self.image.layers().map(report).collect()
    }
}

/// Tells what the registry says of blobs as what happens to layers.
fn translate(
    image: &HostImage,
    events: &Events,
    taken: &mut BTreeMap<LayerId, LayerReport>,
    event: Event,
) {
    match event {
        Event::BlobAsked { digest, bytes, .. } => {
            if let Some(layer) = image.layers_of(&digest).next() {
                let name = image.layer_name(layer).to_owned();
                events(Event::UploadStarted { layer, name, total: Some(bytes) });
            }
        }
        Event::BlobProgress { digest, position } => {
            if let Some(layer) = image.layers_of(&digest).next() {
                let ready = image.part.layers[layer.0].size;
                events(Event::UploadProgress { layer, position, ready, total: None });
            }
        }
        Event::BlobSent { digest, whole: true, .. } => {
            for layer in image.layers_of(&digest) {
                taken
                    .entry(layer)
                    .or_insert_with(|| image.settle(layer, Outcome::Uploaded, events));
            }
        }
        Event::BlobSent { .. } => {}
        other => events(other),
    }
}
