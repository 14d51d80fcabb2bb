//! The threads that pack. Some compress blocks in any order. One writes the results to their
//! spools, in the order in which the blocks came.
//!
//! A block is queued for both at once: the compressors get it as a [`Job`], and the writer gets a
//! place in its queue, where it waits for the compressed block. The queues have room for all
//! blocks, so queueing never waits, and compressors never wait for the writer. So there can be no
//! deadlock. The threads end when the last [`Threads`] is dropped and all queued work is done.

use std::sync::Arc;
use std::thread::{self, JoinHandle};

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};

use super::block::Block;
use super::codec::{Codec, Encoder};
use super::error::Error;
use super::packed::Packed;
use super::spool::Tail;
use crate::image::{Compression, DiffId};

/// The queues of the threads.
pub(super) struct Threads {
    jobs: Sender<Job>,
    orders: Sender<Order>,
}

struct Job {
    tail: Arc<Tail>,
    block: Block,
    done: Sender<Block>,
}

enum Order {
    Append { tail: Arc<Tail>, block: Receiver<Block> },
    Finish { tail: Arc<Tail>, compression: Compression, diff_id: DiffId },
}

impl Threads {
    /// Starts the writer and `compressors` compressing threads.
    pub(super) fn start(
        codec: Codec,
        compressors: usize,
    ) -> Result<(Self, Vec<JoinHandle<()>>), Error> {
        // The number of blocks limits the length of the queues, since every job and every append
        // has one.
        let (jobs, taken) = unbounded();
        let (orders, ordered) = unbounded();
        let mut threads = vec![spawn("pack-write", move || write(&ordered))?];
        for _ in 0..compressors {
            let taken = taken.clone();
            threads.push(spawn("pack-compress", move || compress(codec, &taken))?);
        }
        Ok((Self { jobs, orders }, threads))
    }

    /// Queues `block` to be compressed and appended to the blob.
    pub(super) fn compress(&self, tail: &Arc<Tail>, block: Block) {
        let done = self.append(tail);
        // Fails only if every compressor has panicked; then `done` is dropped, which the writer
        // sees.
        let _ = self.jobs.send(Job { tail: Arc::clone(tail), block, done });
    }

    /// Reserves the next place in the blob for the block that the returned sender will get. If the
    /// sender is dropped without a block, the blob fails.
    pub(super) fn append(&self, tail: &Arc<Tail>) -> Sender<Block> {
        let (done, block) = bounded(1);
        let tail = Arc::clone(tail);
        // Fails only if the writer has panicked; the last `Tail` that is dropped tells the readers.
        let _ = self.orders.send(Order::Append { tail, block });
        done
    }

    /// Queues the end of the blob, after everything that was appended to it.
    pub(super) fn finish(&self, tail: Arc<Tail>, compression: Compression, diff_id: DiffId) {
        // Fails only if the writer has panicked. Dropping the `Tail` then tells the readers.
        let _ = self.orders.send(Order::Finish { tail, compression, diff_id });
    }
}

/// Starts a thread with a name, which tools such as `top` can show.
pub(super) fn spawn<T: Send + 'static>(
    name: &str,
    run: impl FnOnce() -> T + Send + 'static,
) -> Result<JoinHandle<T>, Error> {
    thread::Builder::new()
        .name(name.to_owned())
        .spawn(run)
        .map_err(|error| Error::Threads(Arc::new(error)))
}

fn compress(codec: Codec, jobs: &Receiver<Job>) {
    // Made at the first block: most pushes pack little, and a compressor takes memory.
    let mut encoder = None;
    for Job { tail, mut block, done } in jobs {
        if tail.is_wanted() {
            match encode(codec, &mut encoder, &mut block) {
                // Fails only if the writer has panicked.
                Ok(()) => drop(done.send(block)),
                Err(error) => tail.fail(error),
            }
        }
    }
}

fn encode(codec: Codec, encoder: &mut Option<Encoder>, block: &mut Block) -> Result<(), Error> {
    if encoder.is_none() {
        *encoder = codec.encoder()?;
    }
    if let Some(encoder) = encoder {
        let room = encoder.bound(codec.block_size());
        block
            .pack(room, |raw, out| encoder.encode(raw, out))
            .map_err(|reason| codec.failed(&reason))?;
    }
    Ok(())
}

fn write(orders: &Receiver<Order>) {
    for order in orders {
        match order {
            Order::Append { tail, block } => match block.recv() {
                Ok(block) => tail.append(block.stored()),
                // The block was dropped instead of sent. Either the blob is not wanted any more, or
                // `tail` already has the error.
                Err(_) => tail.fail(Error::Abandoned),
            },
            Order::Finish { tail, compression, diff_id } => {
                tail.finish(|blob| Packed::new(blob, compression, diff_id))
            }
        }
    }
}
