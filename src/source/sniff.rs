//! What a file is, by its content: the table of all that can be read.
//!
//! Comes in: a [`Location`]. Goes out: the [`Source`] of the first row that knows the content, or
//! that row's word on why it cannot be read and what to do instead.

use std::fs::{self, File};
use std::io::{self, Cursor, IsTerminal, Read};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::decompress::{self, Progress, Wrapping};
use super::docker_archive::streamed;
use super::entries::OCI_LAYOUT;
use super::error::{Error, Place};
use super::nix2container;
use super::tar::{self, BLOCK};
use super::{Contents, Location, Options, Source, layout, nix_stream, spool, tar_file};

/// A file that was opened, and how it begins.
pub struct Opened {
    /// Its name for messages, safe to print.
    pub name: Arc<str>,
    /// Its path; `None` for standard input.
    pub path: Option<PathBuf>,
    /// The file, of which [`head`](Self::head) was read.
    pub file: File,
    /// What it is to the file system.
    pub metadata: fs::Metadata,
    /// Its first bytes: 512, or fewer where it ends before.
    pub head: Vec<u8>,
    /// To be told of bytes consumed.
    pub progress: Progress,
    /// Whether it may be run.
    pub may_run: bool,
    /// To be told what is of interest to few.
    pub note: Arc<dyn Fn(String) + Send + Sync>,
}

/// One kind of content.
struct Kind {
    is: fn(&Opened) -> bool,
    open: fn(Opened) -> Result<Contents, Error>,
}

/// All kinds. The first that fits is taken.
const KINDS: &[Kind] = &[
    Kind { is: Opened::is_layout_folder, open: open_layout_folder },
    Kind { is: Opened::is_skopeo_folder, open: open_skopeo_folder },
    Kind { is: |it| it.metadata.is_dir(), open: |it| Err(Error::Directory { file: it.name }) },
    Kind { is: |it| it.head.is_empty(), open: |it| Err(Error::Empty { file: it.name }) },
    Kind { is: Opened::is_plain_tar_file, open: open_seekable_archive },
    Kind { is: Opened::is_tar_or_compressed, open: open_streamed_archive },
    Kind { is: Opened::is_executable, open: nix_stream::open },
    Kind { is: Opened::is_json, open: nix2container::open },
    Kind { is: Opened::is_damaged_tar, open: |it| Err(it.damaged_tar()) },
];

/// Opens what is at `location`.
pub fn open(location: &Location, options: Options) -> Result<Contents, Error> {
    let opened = Opened::new(location, options)?;
    match KINDS.iter().find(|kind| (kind.is)(&opened)) {
        Some(kind) => (kind.open)(opened),
        None => Err(opened.unknown()),
    }
}

fn open_layout_folder(opened: Opened) -> Result<Contents, Error> {
    // Only what has a path was taken for a folder.
    let path = opened.path.unwrap_or_default();
    layout::open_folder(&path, opened.name).map(Contents::Layout)
}

fn open_skopeo_folder(opened: Opened) -> Result<Contents, Error> {
    let path = opened.path.unwrap_or_default();
    layout::open_skopeo_folder(&path, opened.name).map(Contents::Layout)
}

/// Opens what is at `path` if it is a docker archive, and whatever else it is not.
pub fn open_archive(path: &Path, options: Options) -> Result<Box<dyn Source>, Error> {
    let opened = Opened::new(&Location::Path(path.to_owned()), options)?;
    let contents = if opened.is_plain_tar_file() {
        open_seekable_archive(opened)
    } else if opened.is_tar_or_compressed() {
        open_streamed_archive(opened)
    } else {
        return Err(opened.unknown());
    };
    match contents? {
        Contents::Layers(source) => Ok(source),
        Contents::Layout(_) => Err(Error::NoManifest { file: printable(path) }),
    }
}

fn open_seekable_archive(opened: Opened) -> Result<Contents, Error> {
    let length = opened.metadata.len();
    tar_file::open(opened.file, length, opened.name, opened.progress)
}

fn open_streamed_archive(opened: Opened) -> Result<Contents, Error> {
    let wrapping = Wrapping::of(&opened.head);
    let total = Some(&opened.metadata).filter(|metadata| metadata.is_file()).map(fs::Metadata::len);
    let memory = decompress::memory(wrapping, &opened.head);
    let mut stream = decompress::stream(
        Cursor::new(opened.head).chain(opened.file),
        opened.name.clone(),
        total,
        (wrapping, memory),
        opened.progress,
    )?;
    if spool::may_be_layout(stream.peek()?) {
        let (file, length) = spool::spool(stream, &opened.name)?;
        // The whole of the original file was read by now, and whoever listens knows it.
        return tar_file::open(file, length, opened.name, Box::new(|_, _| {}));
    }
    Ok(Contents::Layers(streamed::open(stream, opened.name, (wrapping, memory))))
}

impl Opened {
    fn new(location: &Location, options: Options) -> Result<Self, Error> {
        let (name, path, file) = match location {
            Location::Path(path) => {
                let name = printable(path);
                let file = File::open(path).map_err(|source| match source.kind() {
                    io::ErrorKind::NotFound => match fs::read_link(path) {
                        Ok(target) => {
                            Error::Dangling { file: name.clone(), target: printable(&target) }
                        }
                        Err(_) => Error::Absent { file: name.clone() },
                    },
                    _ => Error::Open { file: name.clone(), source },
                })?;
                (name, Some(path.clone()), file)
            }
            Location::Stdin => {
                let stdin = io::stdin();
                if stdin.is_terminal() {
                    return Err(Error::Terminal);
                }
                let name: Arc<str> = "standard input".into();
                let own = stdin
                    .as_fd()
                    .try_clone_to_owned()
                    .map_err(|source| Error::Open { file: name.clone(), source })?;
                (name, None, File::from(own))
            }
        };
        let metadata =
            file.metadata().map_err(|source| Error::Open { file: name.clone(), source })?;
        let mut head = Vec::with_capacity(BLOCK);
        if !metadata.is_dir() {
            (&file).take(BLOCK as u64).read_to_end(&mut head).map_err(|source| Error::Read {
                file: name.clone(),
                at: 0,
                source,
            })?;
        }
        let Options { may_run, progress, note } = options;
        Ok(Self { name, path, file, metadata, head, progress, may_run, note })
    }

    /// Its path, if it is a folder that has one.
    fn folder(&self) -> Option<&Path> {
        self.path.as_deref().filter(|_| self.metadata.is_dir())
    }

    fn is_layout_folder(&self) -> bool {
        self.folder().is_some_and(|path| path.join(OCI_LAYOUT).is_file())
    }

    fn is_skopeo_folder(&self) -> bool {
        self.folder().is_some_and(layout::is_skopeo_folder)
    }

    fn is_plain_tar_file(&self) -> bool {
        // Standard input may be a file too, but stands wherever its owner left it.
        self.path.is_some() && self.metadata.is_file() && tar::is_tar(&self.head)
    }

    fn is_tar_or_compressed(&self) -> bool {
        tar::is_tar(&self.head) || Wrapping::of(&self.head) != Wrapping::None
    }

    fn is_executable(&self) -> bool {
        self.head.starts_with(b"#!") || self.head.starts_with(b"\x7fELF")
    }

    fn is_json(&self) -> bool {
        let first = self.head.trim_ascii_start().first();
        matches!(first, Some(b'{' | b'['))
    }

    fn is_damaged_tar(&self) -> bool {
        self.head.get(257..262) == Some(b"ustar")
    }

    fn damaged_tar(self) -> Error {
        if self.head.len() < BLOCK {
            return Error::TruncatedTar {
                file: self.name,
                at: self.head.len() as u64,
                entry: Place::Start,
            };
        }
        Error::CorruptTar {
            file: self.name,
            at: 0,
            entry: Place::Start,
            what: "the header's checksum is wrong",
        }
    }

    fn unknown(self) -> Error {
        let head = self.head.as_slice();
        let what = if head.starts_with(b"version https://git-lfs") {
            "a Git LFS pointer (`git lfs pull` fetches the file itself)"
        } else if head.starts_with(b"PK\x03\x04") {
            "a zip file"
        } else if head.trim_ascii_start().starts_with(b"<") {
            "an HTML or XML page, as a failed download leaves it"
        } else if is_text(head) {
            "a text file"
        } else {
            "neither a tar nor gzip, zstd, xz or bzip2 data"
        };
        Error::Unknown { file: self.name, what }
    }
}

/// Whether it reads as UTF-8 without control characters, but for a character cut at the end.
fn is_text(head: &[u8]) -> bool {
    let text = match std::str::from_utf8(head) {
        Ok(text) => text,
        Err(error) if error.error_len().is_none() => {
            std::str::from_utf8(&head[..error.valid_up_to()]).unwrap_or_default()
        }
        Err(_) => return false,
    };
    !text.is_empty() && !text.contains(|c: char| c.is_control() && !c.is_whitespace())
}

/// A path as it is shown: what could steer a terminal is escaped.
fn printable(path: &Path) -> Arc<str> {
    super::names::printable(&path.display().to_string()).into()
}
