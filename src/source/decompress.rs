//! Reads ahead and decompresses a stream on a separate thread.
//!
//! Input: a file or pipe, and its compression. Output: its content, in chunks through a bounded
//! channel. Decompressing takes longest, so it runs at the same time as everything else. The input
//! is read to its very end, so that all checksums are verified.

use std::cell::Cell;
use std::collections::VecDeque;
use std::io::{self, BufReader, Read};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvError, Sender, SyncSender, channel, sync_channel};
use std::thread;

use super::error::Error;
use super::file::FileError;
use super::gzip::GzipReader;
use super::location::ReadProgress;
use super::tar::Bytes;
use super::wrapping::Wrapping;

/// The length of a chunk, and of a read from the file. Larger ones gain nothing.
const CHUNK: usize = 256 << 10;

/// The most chunks that are read ahead: 4 MiB.
const CHUNKS_AHEAD: usize = 16;

/// Compressed data that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum DecompressError {
    /// The compressed data stops before its end.
    #[error(
        "{file}: truncated {wrapping} after {bytes} bytes; was the download or the build cut off? \
         Make or fetch it again"
    )]
    Truncated { file: Arc<str>, wrapping: Wrapping, bytes: u64 },
    /// The compressed data is damaged.
    #[error("{file}: corrupt {wrapping}, noticed at byte {bytes}: {what}; make or fetch it again")]
    Corrupt { file: Arc<str>, wrapping: Wrapping, bytes: u64, what: String },
    /// The compressed data has too much padding.
    #[error(
        "{file}: more than {limit_mib} MiB of the {wrapping} data hold nothing; does the program that \
         writes it end? Make it again"
    )]
    Padding { file: Arc<str>, wrapping: Wrapping, limit_mib: u64 },
    /// Decompressing would take more memory than is allowed.
    #[error(
        "{file}: its {wrapping} compression needs more than {limit_mib} MiB of memory to read; \
         decompress it first: `{command} {file} | pushimg - DEST`"
    )]
    WindowTooLarge { file: Arc<str>, wrapping: Wrapping, limit_mib: u64, command: &'static str },
}

impl From<DecompressError> for Error {
    fn from(error: DecompressError) -> Self {
        Self::image(error)
    }
}

/// The most bytes that are read without any output of the decompressor. More is considered endless
/// padding.
const MAX_PADDING: u64 = 64 << 20;

/// The decompressed content of a file, which the thread reads.
///
/// Dropping it ends the thread. If the thread is waiting for a pipe, it ends when the pipe has data
/// or is closed.
pub struct Stream {
    messages: Receiver<Message>,
    /// Messages that were received before their turn.
    ahead: VecDeque<Message>,
    used: Sender<Vec<u8>>,
    chunk: Vec<u8>,
    start: usize,
    end: usize,
    at_end: bool,
    file: Arc<str>,
}

enum Message {
    /// A chunk, and how much of it is filled.
    Data(Vec<u8>, usize),
    End,
    Failed(Error),
}

/// Begins to read `input`. Decompressing it takes up to `memory` bytes of memory.
pub fn stream(
    input: impl Read + Send + 'static,
    file: Arc<str>,
    total: Option<u64>,
    (wrapping, memory): (Wrapping, usize),
    progress: ReadProgress,
) -> Result<Stream, Error> {
    let (messages_in, messages) = sync_channel(CHUNKS_AHEAD);
    let (used, used_out) = channel();
    let name = file.clone();
    thread::Builder::new()
        .name("read image".into())
        .spawn(move || {
            let (consumed, at_output) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
            let input = CountedReader {
                input,
                file: name.clone(),
                wrapping,
                total,
                consumed: consumed.clone(),
                at_output: at_output.clone(),
                progress,
            };
            let output = || at_output.set(consumed.get());
            let fail = |error| classify(error, &name, wrapping, memory, consumed.get());
            let result = decoder(input, wrapping, memory)
                .map_err(fail)
                .and_then(|content| read(content, output, fail, &messages_in, &used_out));
            let message = match result {
                Ok(()) => Message::End,
                Err(error) => Message::Failed(error),
            };
            // Fails only if the stream was dropped.
            let _ = messages_in.send(message);
        })
        .map_err(|source| FileError::Open { file: file.clone(), source })?;
    Ok(Stream {
        messages,
        ahead: VecDeque::new(),
        used,
        chunk: Vec::new(),
        start: 0,
        end: 0,
        at_end: false,
        file,
    })
}

impl Stream {
    /// A stream of uncompressed bytes that are in memory already. Without a thread, fuzz targets
    /// run many times faster.
    #[cfg(any(test, feature = "fuzzing"))]
    pub fn of(bytes: &[u8]) -> Self {
        let (messages_in, messages) = channel();
        for chunk in bytes.chunks(CHUNK) {
            // Cannot fail: the receiver exists.
            let _ = messages_in.send(Message::Data(chunk.to_vec(), chunk.len()));
        }
        let _ = messages_in.send(Message::End);
        let chunk = Vec::new();
        Self {
            messages,
            ahead: VecDeque::new(),
            used: channel().0,
            chunk,
            start: 0,
            end: 0,
            at_end: false,
            file: "x".into(),
        }
    }

    /// The next bytes, without consuming them. Waits for bytes if there are none yet; empty at the
    /// end.
    pub fn peek(&mut self) -> Result<&[u8], Error> {
        while self.start == self.end && !self.at_end {
            match self.next_message() {
                Ok(Message::Data(chunk, length)) => {
                    let used = std::mem::replace(&mut self.chunk, chunk);
                    (self.start, self.end) = (0, length);
                    if !used.is_empty() {
                        // Fails only if the thread has ended. Then it does not need the buffer.
                        let _ = self.used.send(used);
                    }
                }
                Ok(Message::End) => self.at_end = true,
                Ok(Message::Failed(error)) => return Err(error),
                Err(_) => {
                    return Err(FileError::ReaderGone { file: self.file.clone() }.into());
                }
            }
        }
        Ok(&self.chunk[self.start..self.end])
    }

    /// Whether everything that is left fits into the chunks that are read ahead. These chunks are
    /// kept and come next.
    pub fn is_short(&mut self) -> Result<bool, Error> {
        while self.ahead.len() < CHUNKS_AHEAD {
            match self.messages.recv() {
                Ok(message @ Message::Data(..)) => self.ahead.push_back(message),
                Ok(last) => {
                    self.ahead.push_back(last);
                    return Ok(true);
                }
                // The thread's last message was received before.
                Err(_) => return Ok(true),
            }
        }
        Ok(false)
    }

    fn next_message(&mut self) -> Result<Message, RecvError> {
        self.ahead.pop_front().map_or_else(|| self.messages.recv(), Ok)
    }
}

impl Bytes for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Error> {
        let available = self.peek()?;
        let count = available.len().min(buffer.len());
        buffer[..count].copy_from_slice(&available[..count]);
        self.start += count;
        Ok(count)
    }

    fn skip(&mut self, count: u64) -> Result<u64, Error> {
        let mut left = count;
        while left > 0 {
            let available = self.peek()?.len();
            if available == 0 {
                break;
            }
            let passed = available.min(usize::try_from(left).unwrap_or(usize::MAX));
            self.start += passed;
            left -= passed as u64;
        }
        Ok(count - left)
    }
}

/// Reads `content` to its end and sends it in chunks. Runs on the thread.
fn read(
    mut content: impl Read,
    output: impl Fn(),
    fail: impl Fn(io::Error) -> Error,
    out: &SyncSender<Message>,
    used: &Receiver<Vec<u8>>,
) -> Result<(), Error> {
    loop {
        let mut chunk = used.try_recv().unwrap_or_else(|_| vec![0; CHUNK]);
        let mut length = 0;
        let result = loop {
            match content.read(&mut chunk[length..]) {
                Ok(0) => break Ok(()),
                Ok(count) => {
                    length += count;
                    output();
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => break Err(fail(error)),
            }
            if length == chunk.len() {
                break Ok(());
            }
        };
        if length > 0 && out.send(Message::Data(chunk, length)).is_err() {
            return Ok(());
        }
        result?;
        if length == 0 {
            return Ok(());
        }
    }
}

fn decoder<'a>(
    input: CountedReader<impl Read + 'a>,
    wrapping: Wrapping,
    memory: usize,
) -> io::Result<Box<dyn Read + 'a>> {
    let buffered = |input| BufReader::with_capacity(CHUNK, input);
    Ok(match wrapping {
        Wrapping::None => Box::new(input),
        Wrapping::Gzip => Box::new(GzipReader::new(buffered(input))),
        Wrapping::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(buffered(input))?;
            decoder.window_log_max(memory.ilog2())?;
            Box::new(decoder)
        }
        Wrapping::Xz => {
            let stream = liblzma::stream::Stream::new_stream_decoder(
                memory as u64,
                liblzma::stream::CONCATENATED,
            )?;
            Box::new(liblzma::bufread::XzDecoder::new_stream(buffered(input), stream))
        }
        Wrapping::Bzip2 => Box::new(bzip2::bufread::MultiBzDecoder::new(buffered(input))),
    })
}

/// Turns a decoder's error into an error about the file.
fn classify(
    error: io::Error,
    file: &Arc<str>,
    wrapping: Wrapping,
    memory: usize,
    bytes: u64,
) -> Error {
    let file = file.clone();
    let error = match error.downcast::<Error>() {
        Ok(ours) => return ours,
        Err(other) => other,
    };
    if error.kind() == io::ErrorKind::UnexpectedEof {
        return DecompressError::Truncated { file, wrapping, bytes }.into();
    }
    let text = error.to_string();
    let is_too_large = match wrapping {
        // The crate gives zstd's error only as text.
        Wrapping::Zstd => text.contains("too much memory"),
        Wrapping::Xz => is_memory_limit(&error),
        _ => false,
    };
    if is_too_large {
        let limit_mib = memory as u64 >> 20;
        let command = wrapping.command();
        return DecompressError::WindowTooLarge { file, wrapping, limit_mib, command }.into();
    }
    DecompressError::Corrupt { file, wrapping, bytes, what: text }.into()
}

fn is_memory_limit(error: &io::Error) -> bool {
    error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<liblzma::stream::Error>())
        .is_some_and(|inner| *inner == liblzma::stream::Error::MemLimit)
}

/// Reads the compressed file and counts its bytes.
struct CountedReader<R> {
    input: R,
    file: Arc<str>,
    wrapping: Wrapping,
    total: Option<u64>,
    consumed: Rc<Cell<u64>>,
    /// The value of `consumed` at the last output of the decompressor.
    at_output: Rc<Cell<u64>>,
    progress: ReadProgress,
}

impl<R: Read> Read for CountedReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = loop {
            match self.input.read(buffer) {
                Ok(count) => break count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // The input has already made an error of ours, which is more exact.
                Err(error) if error.get_ref().is_some_and(|inner| inner.is::<Error>()) => {
                    return Err(error);
                }
                Err(source) => {
                    return Err(io::Error::other(Error::from(FileError::Read {
                        file: self.file.clone(),
                        at: self.consumed.get(),
                        source,
                    })));
                }
            }
        };
        if count > 0 {
            if self.consumed.get() - self.at_output.get() > MAX_PADDING {
                return Err(io::Error::other(Error::from(DecompressError::Padding {
                    file: self.file.clone(),
                    wrapping: self.wrapping,
                    limit_mib: MAX_PADDING >> 20,
                })));
            }
            self.consumed.set(self.consumed.get() + count as u64);
            (self.progress)(self.consumed.get(), self.total);
        }
        Ok(count)
    }
}
