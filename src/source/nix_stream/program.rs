//! A program whose stdout is a docker archive, which is what `./result | docker load` relies on.
//!
//! Input: the path of the program. Output: its image as a source. If the program fails, reading the
//! end of its output fails, too, so that there is no image.

use std::collections::VecDeque;
use std::io::{self, BufRead, BufReader, Cursor, Read};
use std::path::Path;
use std::process::{Child, ChildStderr, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use parking_lot::Mutex;

use super::error::{LastLines, NixStreamError};
use crate::source::archive::{self, ArchiveStream, Contents};
use crate::source::decompress;
use crate::source::error::Error;
use crate::source::file::FileError;
use crate::source::interface::{Image, Layer, Source};
use crate::source::location::{ImagesKnown, Note, ReadProgress};
use crate::source::printable::printable;
use crate::source::tar::{self, BLOCK};
use crate::source::wrapping::{self, Wrapping};

/// How much of a line on stderr is kept.
const MAX_LINE: usize = 1000;

/// How many of the last lines on stderr an error shows.
const LAST_LINES: usize = 6;

/// How long to wait for the rest of stderr after the program has ended. Other processes that it
/// started may still hold stderr open.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Runs the program, and begins to read what it writes. `file` is its name for messages.
pub fn open(
    path: &Path,
    file: Arc<str>,
    images: ImagesKnown,
    progress: ReadProgress,
    note: Note,
) -> Result<Contents, Error> {
    // A name without a slash would be looked up in PATH.
    let mut child = Command::new(Path::new(".").join(path))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|source| NixStreamError::CannotRun { file: file.clone(), source })?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let running = Running { child: Arc::new(Mutex::new(child)) };
    // Cannot happen: both pipes were requested above.
    let (Some(stdout), Some(stderr)) = (stdout, stderr) else {
        return Err(FileError::ReaderGone { file }.into());
    };
    let said = listen(stderr, file.clone(), note)?;
    let child = running.child.clone();
    let mut output = ProgramOutput { stdout, child, said, file: file.clone() };
    let mut head = Vec::with_capacity(BLOCK);
    (&mut output).take(BLOCK as u64).read_to_end(&mut head).map_err(|error| {
        // `ProgramOutput` fails with an error of ours.
        Error::from_read(error, &file)
    })?;
    let wrapping = Wrapping::of(&head);
    if wrapping == Wrapping::None && !tar::is_tar(&head) {
        let what = if head.is_empty() { "nothing" } else { "something else" };
        return Err(NixStreamError::NoArchiveWritten { file, what }.into());
    }
    let memory = wrapping::memory(wrapping, &head);
    let input = Cursor::new(head).chain(output);
    let stream = decompress::stream(input, file.clone(), None, (wrapping, memory), progress)?;
    let input = ArchiveStream { stream, name: file, wrapping, memory, again: None };
    Ok(match archive::open_stream(input, images, || {})? {
        Contents::Layers(archive) => {
            Contents::Layers(Box::new(Streamed { archive, _running: running }))
        }
        layout @ Contents::Layout(_) => layout,
    })
}

/// The image that a program writes. Dropping it ends the program.
struct Streamed {
    archive: Box<dyn Source>,
    _running: Running,
}

impl Source for Streamed {
    fn images(&self) -> Option<&[Image]> {
        self.archive.images()
    }

    fn next_layer(&mut self) -> Result<Option<Layer<'_>>, Error> {
        self.archive.next_layer()
    }

    fn memory(&self) -> usize {
        self.archive.memory()
    }
}

/// A program. Dropping this kills it if it still runs.
struct Running {
    child: Arc<Mutex<Child>>,
}

impl Drop for Running {
    fn drop(&mut self) {
        let mut child = self.child.lock();
        // Fails only if the program has already ended.
        let _ = child.kill();
        let _ = child.wait();
    }
}

/// The program's stdout. If the program fails, the end of its stdout is an error.
struct ProgramOutput {
    stdout: ChildStdout,
    child: Arc<Mutex<Child>>,
    said: Receiver<Vec<String>>,
    file: Arc<str>,
}

impl ProgramOutput {
    /// Waits until the program ends. Between the checks the child is not locked, so that it can be
    /// killed.
    fn wait(&self) -> io::Result<ExitStatus> {
        let mut pause = Duration::from_millis(1);
        loop {
            let mut child = self.child.lock();
            if let Some(status) = child.try_wait()? {
                return Ok(status);
            }
            drop(child);
            thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(50));
        }
    }
}

impl Read for ProgramOutput {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.stdout.read(buffer)?;
        if count > 0 || buffer.is_empty() {
            return Ok(count);
        }
        let status = self.wait()?;
        if status.success() {
            return Ok(0);
        }
        let lines = self.said.recv_timeout(LAST_WORDS).unwrap_or_default();
        let (file, said) = (self.file.clone(), LastLines(lines));
        let failed = NixStreamError::ProgramFailed { file, status: status.to_string(), said };
        Err(io::Error::other(Error::from(failed)))
    }
}

/// Passes each line of the program's stderr to `note`. At the end of stderr, the receiver gets the
/// last lines.
fn listen(stderr: ChildStderr, file: Arc<str>, note: Note) -> Result<Receiver<Vec<String>>, Error> {
    let (last_in, last_out) = channel();
    let name = file.clone();
    thread::Builder::new()
        .name("stderr of the image".into())
        .spawn(move || {
            let mut stderr = BufReader::new(stderr);
            let mut last = VecDeque::new();
            while let Ok(Some(line)) = next_line(&mut stderr) {
                note(format!("{name}: {line}"));
                last.push_back(line);
                if last.len() > LAST_LINES {
                    last.pop_front();
                }
            }
            // Fails if the receiver was dropped: the lines are needed only for an error.
            let _ = last_in.send(last.into());
        })
        .map_err(|source| NixStreamError::CannotRun { file, source })?;
    Ok(last_out)
}

/// The next line, safe to print. Long lines are cut off.
fn next_line(input: &mut impl BufRead) -> io::Result<Option<String>> {
    let mut line = Vec::new();
    loop {
        let bytes = match input.fill_buf() {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        if bytes.is_empty() && line.is_empty() {
            return Ok(None);
        }
        let end = bytes.iter().position(|byte| *byte == b'\n');
        let length = end.unwrap_or(bytes.len());
        let kept = length.min(MAX_LINE.saturating_sub(line.len()));
        line.extend(&bytes[..kept]);
        let (is_whole, passed) = (end.is_some() || bytes.is_empty(), length);
        input.consume(passed + usize::from(end.is_some()));
        if is_whole {
            return Ok(Some(printable(String::from_utf8_lossy(&line).trim_end())));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_told_apart_and_long_ones_cut() {
        let text = format!("one\n\ntwo\r\n{}\n\x1b[31mlast\u{fffd}", "x".repeat(100_000));
        let mut input = BufReader::with_capacity(7, text.as_bytes());
        let mut lines = Vec::new();
        while let Some(line) = next_line(&mut input).unwrap() {
            lines.push(line);
        }
        let long = "x".repeat(MAX_LINE);
        assert_eq!(lines, ["one", "", "two", &long, "\\u{1b}[31mlast\u{fffd}"]);
    }
}
