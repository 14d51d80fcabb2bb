//! Reads the image on a thread of its own. The push decides for each layer whether its bytes are
//! packed, only hashed, or skipped, if necessary while they are being read.

use std::collections::HashMap;
use std::thread;
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot, watch};

use crate::error::Error;
use crate::image::DiffId;
use crate::pack::{Packer, Packing, Spool};
use crate::source::{self, Claim, Image, Layer, LayerId, Location, Source};

/// What to do with a layer's bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Not decided yet. A stream is packed meanwhile: its bytes come only once, and the processor
    /// cores are idle anyway.
    Undecided,
    /// Hash the bytes. Then the reader yields the layer again with its diff ID, so that the
    /// registry can be asked for it.
    Hash,
    /// Make a blob of the bytes.
    Pack,
    /// Skip the bytes: the registry has the layer, or another image packs it. This is its diff ID.
    Skip(DiffId),
}

/// How long a stream waits in total for the registry to say what it has. A near registry answers
/// within this time, so no layer is packed in vain. With a distant one it is better to pack
/// meanwhile.
const DECISION_TIME: Duration = Duration::from_millis(100);

/// A layer that the reader has come to.
pub struct IncomingLayer {
    pub id: LayerId,
    /// The layer's name in the source.
    pub entry: String,
    /// Length of the bytes as stored.
    pub size: u64,
    /// What is known about the layer before it is read.
    pub claim: Claim,
    /// Its diff ID, if its bytes were hashed before.
    pub known: Option<DiffId>,
    /// Sends the decision about the layer's bytes.
    pub verdict: watch::Sender<Decision>,
    /// Receives a value when the first bytes were read; no value if the layer is skipped unread.
    pub begun: oneshot::Receiver<Begun>,
    /// Receives a value when all bytes were read: their diff ID, or `None` if they were skipped.
    pub passed: oneshot::Receiver<Option<DiffId>>,
}

/// A layer whose first bytes were read.
pub struct Begun {
    /// Where its blob will be; `None` if the layer is only hashed.
    pub spool: Option<Spool>,
    /// The package name that its first bytes show.
    pub name: Option<String>,
}

/// The running reader. It returns the images at the end.
pub struct ReadingImage(oneshot::Receiver<Result<Vec<Image>, Error>>);

/// The reader was stopped, because its results are not needed any more.
struct Stopped;

/// A layer whose bytes were processed.
enum Passed {
    /// The layer is finished.
    Done(DiffId),
    /// The layer was only hashed, to learn its diff ID.
    Hashed(DiffId),
}

/// Starts to read. The channel yields the layers in order. Dropping it stops the thread.
///
/// If the images of the source are known early, only the layers of `wanted` are read.
pub fn start(
    image: &Location,
    source: Box<dyn Source>,
    packer: Packer,
    wanted: Option<&Image>,
) -> Result<(mpsc::Receiver<IncomingLayer>, ReadingImage), Error> {
    let wanted = wanted.map(|image| image.layers.iter().map(|id| (*id, ())).collect());
    // A few layers ahead, so that a stream need not wait until each layer is received.
    let (sender, layers) = mpsc::channel(16);
    let (done, images) = oneshot::channel();
    let reader = ImageReader {
        image: image.to_string(),
        packer,
        wanted,
        layers: sender,
        runtime: Handle::current(),
        decision_time: DECISION_TIME,
    };
    thread::Builder::new()
        .name("read".to_owned())
        .spawn(move || {
            // Sending fails if the result is not needed any more.
            if let Some(result) = reader.run(source) {
                let _ = done.send(result);
            }
        })
        .map_err(|error| Error::Failed(format!("cannot start a thread: {error}")))?;
    Ok((layers, ReadingImage(images)))
}

impl ReadingImage {
    /// Waits for the end of the source: its images, or the error that ended it.
    pub async fn images(self) -> Result<Vec<Image>, Error> {
        self.0.await.unwrap_or_else(|_| Err(Error::Failed("reading the image stopped".to_owned())))
    }
}

struct ImageReader {
    /// The image's file, for messages.
    image: String,
    packer: Packer,
    wanted: Option<HashMap<LayerId, ()>>,
    layers: mpsc::Sender<IncomingLayer>,
    runtime: Handle,
    /// The rest of [`DECISION_TIME`].
    decision_time: Duration,
}

impl ImageReader {
    /// Returns `None` if the reader was stopped.
    fn run(mut self, mut source: Box<dyn Source>) -> Option<Result<Vec<Image>, Error>> {
        loop {
            let layer = match source.next_layer() {
                Ok(Some(layer)) => layer,
                Ok(None) => break,
                Err(error) => return Some(Err(error.into())),
            };
            if self.wanted.as_ref().is_some_and(|wanted| !wanted.contains_key(&layer.id)) {
                continue;
            }
            let diff_id = match self.pass(layer, None) {
                Ok(Ok(Passed::Done(diff_id))) => diff_id,
                Ok(Ok(Passed::Hashed(diff_id))) => {
                    let layer = match source.again() {
                        Ok(layer) => layer,
                        Err(error) => return Some(Err(error.into())),
                    };
                    match self.pass(layer, Some(diff_id)) {
                        Ok(Ok(Passed::Done(diff_id) | Passed::Hashed(diff_id))) => diff_id,
                        Ok(Err(error)) => return Some(Err(error)),
                        Err(Stopped) => return None,
                    }
                }
                Ok(Err(error)) => return Some(Err(error)),
                Err(Stopped) => return None,
            };
            source.learn(&diff_id);
        }
        // At its end, a source knows its images.
        Some(Ok(source.images().unwrap_or_default().to_vec()))
    }

    /// Processes a layer's bytes, and returns their diff ID.
    fn pass(
        &mut self,
        layer: Layer<'_>,
        known: Option<DiffId>,
    ) -> Result<Result<Passed, Error>, Stopped> {
        let (verdict, mut decided) = watch::channel(Decision::Undecided);
        let (begun_tx, begun) = oneshot::channel();
        let (passed_tx, passed) = oneshot::channel();
        let incoming = IncomingLayer {
            id: layer.id,
            entry: layer.entry.clone(),
            size: layer.size,
            claim: layer.claim.clone(),
            known,
            verdict,
            begun,
            passed,
        };
        self.layers.blocking_send(incoming).map_err(|_| Stopped)?;
        // If the layer can be skipped without reading it, wait for the decision. Otherwise wait
        // only for a short time.
        match layer.claim {
            Claim::DiffId(_) | Claim::Key(_) => match self.wait(&mut decided)? {
                Decision::Skip(diff_id) => {
                    let _ = passed_tx.send(None);
                    return Ok(Ok(Passed::Done(diff_id)));
                }
                Decision::Hash => return self.hash(layer),
                Decision::Undecided | Decision::Pack => {}
            },
            Claim::Hint(_) | Claim::Nothing => self.wait_a_little(&mut decided)?,
        }
        let result = self.read(layer, &decided, begun_tx);
        match result {
            Ok(Some(diff_id)) => {
                let _ = passed_tx.send(Some(diff_id.clone()));
                Ok(Ok(Passed::Done(diff_id)))
            }
            Ok(None) => Err(Stopped),
            Err(error) => Ok(Err(error)),
        }
    }

    /// Reads a layer only to get its diff ID.
    fn hash(&self, layer: Layer<'_>) -> Result<Result<Passed, Error>, Stopped> {
        let in_entry =
            |source| Error::Pack { image: self.image.clone(), entry: layer.entry.clone(), source };
        let mut packing = self.packer.hash();
        loop {
            let mut block = self.packer.block();
            match block.fill(layer.content) {
                Ok(0) => return Ok(packing.finish().map(Passed::Hashed).map_err(in_entry)),
                Ok(_) => {}
                Err(error) => {
                    return Ok(Err(source::Error::from_read(error, &layer.entry).into()));
                }
            }
            if let Err(error) = packing.write(block) {
                return Ok(Err(in_entry(error)));
            }
            if self.layers.is_closed() {
                return Err(Stopped);
            }
        }
    }

    /// Waits for the decision about a layer.
    fn wait(&self, decided: &mut watch::Receiver<Decision>) -> Result<Decision, Stopped> {
        let decision = decided.wait_for(|verdict| *verdict != Decision::Undecided);
        self.runtime.block_on(decision).map(|verdict| verdict.clone()).map_err(|_| Stopped)
    }

    /// Waits for the decision, but no longer than the time that is left for it.
    fn wait_a_little(&mut self, decided: &mut watch::Receiver<Decision>) -> Result<(), Stopped> {
        let began = Instant::now();
        let decision = async {
            let decision = decided.wait_for(|verdict| *verdict != Decision::Undecided);
            tokio::time::timeout(self.decision_time, decision)
                .await
                .map(|decision| decision.map(drop))
        };
        let result = self.runtime.block_on(decision);
        self.decision_time = self.decision_time.saturating_sub(began.elapsed());
        // A timeout is not an error.
        result.unwrap_or(Ok(())).map_err(|_| Stopped)
    }

    /// Reads a layer to its end. Returns `None` if it was stopped or given up.
    fn read(
        &self,
        layer: Layer<'_>,
        decided: &watch::Receiver<Decision>,
        begun: oneshot::Sender<Begun>,
    ) -> Result<Option<DiffId>, Error> {
        let in_entry =
            |source| Error::Pack { image: self.image.clone(), entry: layer.entry.clone(), source };
        let (mut packing, spool): (Packing, Option<Spool>) = match *decided.borrow() {
            Decision::Skip(_) => (self.packer.hash(), None),
            Decision::Undecided | Decision::Hash | Decision::Pack => {
                let (packing, spool) = self.packer.begin().map_err(in_entry)?;
                (packing, Some(spool))
            }
        };
        let mut begun = Some((begun, spool));
        loop {
            let mut block = self.packer.block();
            let length = block
                .fill(layer.content)
                .map_err(|error| source::Error::from_read(error, &layer.entry))?;
            if let Some((begun, spool)) = begun.take() {
                // Fails if the receiver was dropped; this is checked below.
                let _ = begun.send(Begun { spool, name: source::package_name(block.bytes()) });
            }
            if length == 0 {
                return packing.finish().map(Some).map_err(in_entry);
            }
            packing.write(block).map_err(in_entry)?;
            if decided.has_changed().is_err() {
                return Ok(None);
            }
            if matches!(*decided.borrow(), Decision::Skip(_)) {
                packing.hash_only();
            }
        }
    }
}
