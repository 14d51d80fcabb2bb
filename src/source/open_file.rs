//! A file that was opened and whose first bytes were read: enough to tell what it is.

use std::fs::{self, File};
use std::io::{self, IsTerminal, Read};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::error::Error;
use super::file::FileError;
use super::location::{ImagesKnown, Location, Note, Options, ReadProgress};
use super::printable::{printable, printable_path};
use super::tar::{self, BLOCK};
use super::wrapping::Wrapping;

/// A file that was opened, and how it begins.
pub struct OpenFile {
    /// Its name for messages, safe to print.
    pub name: Arc<str>,
    /// Its path; `None` for standard input.
    pub path: Option<PathBuf>,
    /// The file. Its [`head`](Self::head) has already been read.
    pub file: File,
    /// Its metadata.
    pub metadata: fs::Metadata,
    /// Its first bytes: 512, or fewer if it is shorter.
    pub head: Vec<u8>,
    /// When its images must be known.
    pub images: ImagesKnown,
    /// Called as the file is read.
    pub progress: ReadProgress,
    /// Whether it may be run.
    pub may_run: bool,
    /// Called with details that most users do not need.
    pub note: Note,
}

/// Why there is no file that can be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// There is no such file.
    #[error(
        "{file}: no such file; build the image first (`nix build` leaves ./result), or give `-` \
         to read it from standard input"
    )]
    Absent { file: Arc<str> },
    /// The name of a skopeo transport stands before the path.
    #[error("{file}: no such file; leave off the {transport} and give {path}")]
    Transport { file: Arc<str>, transport: &'static str, path: Arc<str> },
    /// The images are in a daemon or in podman's storage, and not in a file.
    #[error("{file}: images in {place} are not read; pipe one: `{command} | pushimg - DEST`")]
    NotAFile { file: Arc<str>, place: &'static str, command: String },
    /// A form of image that is not read.
    #[error(
        "{file}: this form is not read; write an archive of it: `skopeo copy {image} \
         oci-archive:image.tar`"
    )]
    OtherForm { file: Arc<str>, image: String },
    /// A symlink whose target does not exist.
    #[error(
        "{file} is a symlink to {target}, which is gone (did the Nix store collect its garbage?); \
         build the image again"
    )]
    Dangling { file: Arc<str>, target: Arc<str> },
    /// `-` was given but nothing is piped in.
    #[error(
        "standard input is a terminal; pipe an image into it: `docker save IMAGE | pushimg - DEST`"
    )]
    Terminal,
    /// Only an index takes an image that is in a registry.
    #[error("{image} is in a registry; only --index takes such an image")]
    InRegistry { image: String },
}

impl From<OpenError> for Error {
    fn from(error: OpenError) -> Self {
        Self::image(error)
    }
}

impl OpenFile {
    /// Opens what is at `location`, and reads its first bytes.
    pub fn new(location: &Location, options: Options) -> Result<Self, Error> {
        let (name, path, file) = match location {
            Location::Path(path) => {
                let name = printable_path(path);
                let file = File::open(path).map_err(|error| cannot_open(path, &name, error))?;
                (name, Some(path.clone()), file)
            }
            Location::Registry(reference) => {
                return Err(OpenError::InRegistry { image: reference.to_string() }.into());
            }
            Location::Stdin => {
                let stdin = io::stdin();
                if stdin.is_terminal() {
                    return Err(OpenError::Terminal.into());
                }
                let name: Arc<str> = "standard input".into();
                let own = stdin
                    .as_fd()
                    .try_clone_to_owned()
                    .map_err(|source| FileError::Open { file: name.clone(), source })?;
                (name, None, File::from(own))
            }
        };
        let metadata =
            file.metadata().map_err(|source| FileError::Open { file: name.clone(), source })?;
        let mut head = Vec::with_capacity(BLOCK);
        if !metadata.is_dir() {
            (&file)
                .take(BLOCK as u64)
                .read_to_end(&mut head)
                .map_err(|source| FileError::Read { file: name.clone(), at: 0, source })?;
        }
        let Options { images, may_run, progress, note } = options;
        Ok(Self { name, path, file, metadata, head, images, progress, may_run, note })
    }

    /// Its path, if it is a folder.
    pub fn folder(&self) -> Option<&Path> {
        self.path.as_deref().filter(|_| self.metadata.is_dir())
    }

    /// Whether it is a tar, not compressed, in which it is possible to seek.
    pub fn is_plain_tar_file(&self) -> bool {
        // Standard input may be a file, too, but its position need not be at the beginning.
        self.path.is_some() && self.metadata.is_file() && tar::is_tar(&self.head)
    }

    /// Whether it is a tar, or compressed.
    pub fn is_tar_or_compressed(&self) -> bool {
        tar::is_tar(&self.head) || Wrapping::of(&self.head) != Wrapping::None
    }
}

fn cannot_open(path: &Path, name: &Arc<str>, source: io::Error) -> Error {
    let file = name.clone();
    if source.kind() != io::ErrorKind::NotFound {
        return FileError::Open { file, source }.into();
    }
    match fs::read_link(path) {
        Ok(target) => OpenError::Dangling { file, target: printable_path(&target) }.into(),
        Err(_) => absent(path, file).into(),
    }
}

/// The names of skopeo's transports for files and folders, which users may write before the path.
const TRANSPORTS: [&str; 7] =
    ["docker-archive:", "oci-archive:", "oci:", "dir:", "tarball:", "file://", "nix:"];

/// The prefixes of images that are not in a file. Each has the name of the place, and the command
/// that writes the image to a pipe, with `{}` for the image's name.
const ELSEWHERE: [(&str, &str, &str); 5] = [
    ("docker-daemon:", "a Docker daemon", "docker save {}"),
    ("containers-storage:", "podman's storage", "podman save {}"),
    ("docker://", "a registry", "skopeo copy docker://{} docker-archive:/dev/stdout"),
    ("https://", "the web", "curl -fsSL https://{}"),
    ("http://", "the web", "curl -fsSL http://{}"),
];

/// skopeo's transports for forms of images that pushimg does not read.
const CONVERTED: [&str; 2] = ["ostree:", "sif:"];

/// The error for a path that does not exist.
fn absent(path: &Path, file: Arc<str>) -> OpenError {
    // A relative path may have been joined to a folder.
    let text = path.to_string_lossy();
    let begins = |prefix: &str| match text.strip_prefix(prefix) {
        Some(rest) => Some(rest.to_owned()),
        None => text.split_once(&format!("/{prefix}")).map(|(_, rest)| rest.to_owned()),
    };
    for transport in TRANSPORTS {
        if let Some(rest) = begins(transport) {
            let path = printable(&rest).into();
            return OpenError::Transport { file, transport, path };
        }
    }
    for (prefix, place, command) in ELSEWHERE {
        if let Some(rest) = begins(prefix) {
            let command = command.replace("{}", &printable(&rest));
            return OpenError::NotAFile { file, place, command };
        }
    }
    match CONVERTED.into_iter().find_map(|transport| Some((transport, begins(transport)?))) {
        Some((transport, rest)) => {
            let image = format!("{transport}{}", printable(&rest));
            OpenError::OtherForm { file, image }
        }
        None => OpenError::Absent { file },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_transport_is_to_be_left_off() {
        for (text, message) in [
            ("docker-archive:a.tar", "no such file; leave off the docker-archive: and give a.tar"),
            ("/x/oci:lay:v1", "no such file; leave off the oci: and give lay:v1"),
            ("dir:/srv/image", "no such file; leave off the dir: and give /srv/image"),
            ("docker-daemon:app:v1", "pipe one: `docker save app:v1 | pushimg - DEST`"),
            ("containers-storage:app", "pipe one: `podman save app | pushimg - DEST`"),
            (
                "docker://r.io/app:v1",
                "`skopeo copy docker://r.io/app:v1 docker-archive:/dev/stdout | ",
            ),
            ("https://h/a.tar.gz", "pipe one: `curl -fsSL https://h/a.tar.gz | pushimg - DEST`"),
            ("sif:/srv/a.sif", "write an archive of it: `skopeo copy sif:/srv/a.sif oci-archive:"),
            ("ostree:a@/srv", "write an archive of it: `skopeo copy ostree:a@/srv oci-archive:"),
            ("other:a.tar", "no such file; build the image first"),
        ] {
            let error = absent(Path::new(text), "FILE".into()).to_string();
            assert!(error.contains(message), "{error}");
        }
    }
}
