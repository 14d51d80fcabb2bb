//! The files of store paths, in the order in which they go into a layer.
//!
//! Input: paths. Output: every file below them, sorted as Python sorts `pathlib` paths, part by
//! part: a folder, then everything in it, then the next file beside it. A layer may have hundreds
//! of thousands of files. To save memory, only the name of each file is kept, not its path.

use std::ffi::OsStr;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::code_points::compare;
use super::error::NixStreamError;
use super::header::Member;
use crate::source::error::Error;
use crate::source::file::FileError;
use crate::source::printable::printable_path;
use crate::source::ustar::FileKind;

/// The most files in one layer. They take some 60 MB of memory.
const MAX_FILES: usize = 1 << 20;

/// The mtime that Nix gives to all files in the store.
const STORE_MTIME: i64 = 1;

/// Files, each folder before its content.
#[derive(Default)]
pub struct Files {
    nodes: Vec<WalkedPath>,
    /// The names. The name of a symlink is followed by its target.
    names: Vec<u8>,
    /// Whether some of them were changed after Nix stored them.
    is_touched: bool,
}

struct WalkedPath {
    size: u64,
    mode: u16,
    kind: FileKind,
    /// How many folders it is below the path that was given.
    depth: u16,
    name: u16,
    target: u16,
}

impl Files {
    /// Adds a path and everything below it. Symlinks are not followed.
    pub fn add(&mut self, root: &str) -> Result<(), Error> {
        let path = PathBuf::from(root);
        let metadata = fs::symlink_metadata(&path).map_err(|error| failed(&path, error))?;
        let mut folder =
            self.push(&path, root.as_bytes(), FileStatus::of(&metadata), 0)?.then_some(path);
        // The open folders, each with the files that still have to be added. The last file is added
        // next.
        let mut levels: Vec<Level> = Vec::new();
        loop {
            if let Some(path) = folder.take() {
                let waiting = list(&path)?;
                levels.push(Level { path, waiting });
            }
            let depth = levels.len();
            let Some(level) = levels.last_mut() else {
                return Ok(());
            };
            let Some((name, status)) = level.waiting.pop() else {
                levels.pop();
                continue;
            };
            let path = level.path.join(OsStr::from_bytes(&name));
            folder = self.push(&path, &name, status, depth)?.then_some(path);
        }
    }

    /// Adds one file. Returns whether it is a folder.
    fn push(
        &mut self,
        path: &Path,
        name: &[u8],
        status: FileStatus,
        depth: usize,
    ) -> Result<bool, Error> {
        if self.nodes.len() == MAX_FILES {
            return Err(NixStreamError::TooManyFiles { limit: MAX_FILES }.into());
        }
        let Some(kind) = status.kind() else {
            return Err(NixStreamError::NotStorable { path: printable_path(path) }.into());
        };
        let mut target = Vec::new();
        if kind == FileKind::Symlink {
            let link = fs::read_link(path).map_err(|error| failed(path, error))?;
            target = link.into_os_string().into_vec();
        }
        // Cannot happen: the system would not have opened a path with such long parts, or with so
        // many.
        let too_long = |_| failed(path, io::ErrorKind::InvalidFilename.into());
        self.nodes.push(WalkedPath {
            size: if kind == FileKind::File { status.size } else { 0 },
            mode: (status.mode & 0o7777) as u16,
            kind,
            depth: u16::try_from(depth).map_err(too_long)?,
            name: u16::try_from(name.len()).map_err(too_long)?,
            target: u16::try_from(target.len()).map_err(too_long)?,
        });
        self.names.extend(name);
        self.names.extend(target);
        let is_writable = kind != FileKind::Symlink && status.mode & 0o222 != 0;
        self.is_touched |= is_writable || !status.is_old;
        Ok(kind == FileKind::Folder)
    }

    /// Whether all files are as Nix stores them: without write permissions, and with the time that
    /// Nix gives to all files.
    pub fn are_untouched(&self) -> bool {
        !self.is_touched
    }

    /// The position before the first file.
    pub fn start(&self) -> Position {
        Position::default()
    }
}

/// A position in [`Files`].
#[derive(Default)]
pub struct Position {
    next: usize,
    /// Where its name begins.
    name: usize,
    /// The path of the previous file, and where its parts end.
    path: Vec<u8>,
    ends: Vec<usize>,
}

impl Position {
    /// The next file. Its name is its whole path.
    pub fn next<'a>(&'a mut self, files: &'a Files) -> Option<Member<'a>> {
        let node = files.nodes.get(self.next)?;
        let (name, rest) = files.names[self.name..].split_at(usize::from(node.name));
        let target = &rest[..usize::from(node.target)];
        let depth = usize::from(node.depth);
        self.ends.truncate(depth);
        self.path.truncate(self.ends.last().copied().unwrap_or(0));
        if depth > 0 {
            self.path.push(b'/');
        }
        self.path.extend(name);
        self.ends.push(self.path.len());
        self.next += 1;
        self.name += name.len() + target.len();
        Some(Member {
            name: &self.path,
            kind: node.kind,
            mode: u32::from(node.mode),
            size: node.size,
            target,
        })
    }
}

/// A folder, and its files that still have to be added. The last file is added next.
struct Level {
    path: PathBuf,
    waiting: Vec<Waiting>,
}

/// The name and the status of a file that still has to be added.
type Waiting = (Box<[u8]>, FileStatus);

/// What is kept of a file's metadata while it waits.
#[derive(Clone, Copy)]
struct FileStatus {
    size: u64,
    mode: u32,
    /// Whether it has the time that Nix gives to all files.
    is_old: bool,
}

impl FileStatus {
    fn of(metadata: &Metadata) -> Self {
        let is_old = metadata.mtime() == STORE_MTIME;
        Self { size: metadata.size(), mode: metadata.mode(), is_old }
    }

    /// The kind of the file; `None` for devices, pipes and sockets, which cannot be in a store.
    fn kind(self) -> Option<FileKind> {
        match self.mode & 0o170_000 {
            0o100_000 => Some(FileKind::File),
            0o040_000 => Some(FileKind::Folder),
            0o120_000 => Some(FileKind::Symlink),
            _ => None,
        }
    }
}

/// The files in a folder, in reverse order.
fn list(path: &Path) -> Result<Vec<Waiting>, Error> {
    let mut found: Vec<Waiting> = Vec::new();
    for entry in fs::read_dir(path).map_err(|error| failed(path, error))? {
        let entry = entry.map_err(|error| failed(path, error))?;
        let metadata = entry.metadata().map_err(|error| failed(&entry.path(), error))?;
        if found.len() == MAX_FILES {
            return Err(NixStreamError::TooManyFiles { limit: MAX_FILES }.into());
        }
        found.push((entry.file_name().into_vec().into(), FileStatus::of(&metadata)));
    }
    found.sort_by(|(a, _), (b, _)| compare(b, a));
    Ok(found)
}

fn failed(path: &Path, source: io::Error) -> FileError {
    FileError::Store { path: printable_path(path), source }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn paths(files: &Files) -> Vec<String> {
        let mut position = files.start();
        let mut paths = Vec::new();
        while let Some(member) = position.next(files) {
            paths.push(String::from_utf8_lossy(member.name).into_owned());
        }
        paths
    }

    #[test]
    fn a_folder_and_all_below_it_come_before_its_neighbour() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().to_str().unwrap();
        for path in ["a/b", "a-b", "a.b/c", "a/b/d", "B"] {
            fs::create_dir_all(folder.path().join(path)).unwrap();
        }
        fs::write(folder.path().join("a/b/c"), "content").unwrap();
        symlink("/a/b", folder.path().join("a/0")).unwrap();
        let mut files = Files::default();
        files.add(&format!("{root}/a")).unwrap();
        files.add(root).unwrap();
        files.add(&format!("{root}/a/0")).unwrap();
        let below_a = ["a", "a/0", "a/b", "a/b/c", "a/b/d"];
        let all = ["", "B", "a", "a/0", "a/b", "a/b/c", "a/b/d", "a-b", "a.b", "a.b/c", "a/0"];
        let wanted = below_a.iter().chain(&all).map(|path| format!("{root}/{path}"));
        let wanted: Vec<String> = wanted.map(|path| path.trim_end_matches('/').into()).collect();
        assert_eq!(paths(&files), wanted);
        assert!(!files.are_untouched(), "anybody could write here");
    }

    #[test]
    fn a_file_says_what_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, "content").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o4555)).unwrap();
        symlink("file", folder.path().join("link")).unwrap();
        let mut files = Files::default();
        files.add(folder.path().to_str().unwrap()).unwrap();
        let mut position = files.start();
        position.next(&files).unwrap();
        let file = position.next(&files).unwrap();
        assert_eq!((file.kind, file.mode, file.size), (FileKind::File, 0o4555, 7));
        let link = position.next(&files).unwrap();
        assert_eq!((link.kind, link.mode, link.target), (FileKind::Symlink, 0o777, &b"file"[..]));
        assert!(position.next(&files).is_none());
    }

    #[test]
    fn what_cannot_be_stored_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("socket");
        let _socket = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let error = Files::default().add(folder.path().to_str().unwrap()).unwrap_err();
        assert!(error.to_string().starts_with(socket.to_str().unwrap()), "{error}");
        let error = Files::default().add("/no/such/path").unwrap_err();
        assert!(error.to_string().starts_with("/no/such/path: "), "{error}");
    }
}
