//! The files of a layer in the order of its tar, which is the order of their names.
//!
//! Store paths with their rewrites go in. [`LayerTree::next`] returns one [`LayerEntry`] after
//! another, with the folders that the files are in.
//!
//! A folder is read when its turn has come. So only the names in it, and in the folders above it, are
//! in memory. If a rewrite may move any file to any place, all names of that store path are.

use std::collections::BTreeMap;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::fault::LayerFault;
use super::label::Label;
use super::path::clean;
use super::perms::{self, Perms, Regexes};
use super::regex::replace_all;
use super::spec::{Rewrite, StorePath};
use crate::source::error::Error;
use crate::source::file::FileError;
use crate::source::printable::printable_path;
use crate::source::ustar::FileKind;

/// The most memory that names may take: enough for some 200,000 files.
const MAX_HELD: usize = 96 << 20;

/// The memory that a name takes besides its text and its path in the store.
const NODE: usize = 256;

/// Longer names cannot be unpacked.
const MAX_NAME: usize = 4095;

/// An entry of the tar.
pub struct LayerEntry {
    /// Its name: clean, and absolute unless a rewrite has changed that.
    pub name: Vec<u8>,
    /// The file in the store; `None` for a folder that others are in.
    pub file: Option<StoreFile>,
}

/// A file, a symlink or a folder in the store.
pub struct StoreFile {
    pub path: PathBuf,
    pub kind: FileKind,
    /// The mode by `lstat`.
    pub mode: u32,
    pub size: u64,
    origin: Origin,
}

/// The store path that a file comes from.
#[derive(Clone)]
struct Origin {
    /// Its place in the list. Of two files with the same name, the later one is used.
    place: usize,
    perms: Option<Arc<Perms>>,
}

/// A name that has not been returned yet.
#[derive(Default)]
struct NameNode {
    file: Option<StoreFile>,
    /// Folders in the store whose files belong under this name.
    below: Vec<(PathBuf, Origin)>,
}

/// A name with zero bytes in place of slashes. Sorted by these, a folder comes right before its files.
/// The root's is empty.
type TreeKey = Vec<u8>;

/// The names that have not been returned yet. A folder is returned before its files.
pub struct LayerTree {
    label: Arc<Label>,
    nodes: BTreeMap<TreeKey, NameNode>,
    /// The memory that they take.
    held: usize,
}

impl StoreFile {
    /// The `perms` of its store path.
    pub fn perms(&self) -> Option<&Perms> {
        self.origin.perms.as_deref()
    }
}

impl LayerTree {
    /// The files of these store paths. Folders are read later.
    pub fn new(label: Arc<Label>, paths: &[StorePath]) -> Result<Self, Error> {
        let mut tree = Self { label, nodes: BTreeMap::new(), held: 0 };
        let mut regexes = Regexes::default();
        for (place, path) in paths.iter().enumerate() {
            let options = path.options.as_ref();
            let perms = options.map(|options| Perms::new(&options.perms, &mut regexes)).transpose();
            let perms = perms.map_err(|fault| tree.label.fault(fault))?.flatten();
            let rewrite = options.map(|it| &it.rewrite).filter(|it| !it.regex.is_empty());
            let origin = Origin { place, perms };
            match (constant_rewrite(&path.path, rewrite), rewrite) {
                (Some(name), _) => tree.add(Path::new(&path.path), &name, origin)?,
                (None, Some(rewrite)) => tree.add_each(&path.path, rewrite, &origin)?,
                (None, None) => tree.add(Path::new(&path.path), path.path.as_bytes(), origin)?,
            }
        }
        Ok(tree)
    }

    /// The next entry; `None` after the last.
    pub fn next(&mut self) -> Result<Option<LayerEntry>, Error> {
        let Some((key, node)) = self.nodes.pop_first() else {
            return Ok(None);
        };
        self.held -= cost(key.len());
        for (folder, origin) in &node.below {
            self.expand(&key, folder, origin)?;
        }
        Ok(Some(LayerEntry { name: name_of(&key), file: node.file }))
    }

    /// Adds a store path as `name`, and its files below that name. With an empty name, its files are
    /// put into the root.
    fn add(&mut self, path: &Path, name: &[u8], origin: Origin) -> Result<(), Error> {
        let metadata = self.root_metadata(path)?;
        let folder = metadata.is_dir().then(|| from_bytes(clean(path.as_os_str().as_bytes())));
        if name.is_empty() {
            if let Some(folder) = folder
                && self.expand(&TreeKey::new(), &folder, &origin)?
            {
                self.node(TreeKey::new())?;
            }
            return Ok(());
        }
        let key = self.key(name, path)?;
        self.lead_to(&key)?;
        let file = self.store_file(path.to_owned(), &metadata, origin.clone())?;
        self.put(key.clone(), file)?;
        self.node(key)?.below.extend(folder.map(|folder| (folder, origin)));
        Ok(())
    }

    /// Adds a store path and its files, each under the name that the rewrite gives it.
    fn add_each(&mut self, path: &str, rewrite: &Rewrite, origin: &Origin) -> Result<(), Error> {
        let regex = perms::compile(&rewrite.regex).map_err(|fault| self.label.fault(fault))?;
        let mut metadata = self.root_metadata(Path::new(path))?;
        let mut path = PathBuf::from(path);
        let mut waiting: Vec<PathBuf> = Vec::new();
        loop {
            if metadata.is_dir() {
                let folder = from_bytes(clean(path.as_os_str().as_bytes()));
                let first = waiting.len();
                for child in self.read_folder(&folder)? {
                    let child = child?;
                    self.hold(cost(child.as_os_str().len()))?;
                    waiting.push(child);
                }
                // The last is taken first.
                waiting[first..].sort_unstable_by(|one, other| other.cmp(one));
            }
            let name = replace_all(&regex, path.as_os_str().as_bytes(), &rewrite.repl);
            if !name.is_empty() {
                let key = self.key(&name, &path)?;
                self.lead_to(&key)?;
                let file = self.store_file(path, &metadata, origin.clone())?;
                self.put(key, file)?;
            }
            let Some(next) = waiting.pop() else {
                return Ok(());
            };
            self.held -= cost(next.as_os_str().len());
            metadata = fs::symlink_metadata(&next).map_err(|source| unreadable(&next, source))?;
            path = next;
        }
    }

    /// Adds the files of a folder in the store below a name. Returns whether there are any.
    fn expand(&mut self, key: &TreeKey, folder: &Path, origin: &Origin) -> Result<bool, Error> {
        let mut any = false;
        for path in self.read_folder(folder)? {
            let path = path?;
            let metadata =
                fs::symlink_metadata(&path).map_err(|source| unreadable(&path, source))?;
            let last = path.file_name().unwrap_or_default().as_bytes();
            let key = [key.as_slice(), b"\0", last].concat();
            if key.len() > MAX_NAME {
                return Err(self.label.fault(LayerFault::Rewritten { path: shown(&path) }));
            }
            let folder = metadata.is_dir().then(|| path.clone());
            let file = self.store_file(path, &metadata, origin.clone())?;
            self.put(key.clone(), file)?;
            self.node(key)?.below.extend(folder.map(|folder| (folder, origin.clone())));
            any = true;
        }
        Ok(any)
    }

    /// Gives a file its name, which another file may have already.
    fn put(&mut self, key: TreeKey, file: StoreFile) -> Result<(), Error> {
        let node = self.node(key.clone())?;
        let Some(known) = node.file.take() else {
            node.file = Some(file);
            return Ok(());
        };
        let is_later = file.origin.place >= known.origin.place;
        let (first, last) = if is_later { (known, file) } else { (file, known) };
        let differ = if first.mode != last.mode {
            Some("permissions or kind")
        } else if first.kind == FileKind::File && first.size != last.size {
            Some("length")
        } else {
            match (first.perms(), last.perms()) {
                (Some(one), Some(other)) if one.equals(other) => None,
                (Some(_), _) => Some("`perms`"),
                (None, _) => None,
            }
        };
        if let Some(what) = differ {
            return Err(self.label.fault(LayerFault::Twice {
                name: String::from_utf8_lossy(&name_of(&key)).into_owned(),
                one: shown(&first.path),
                other: shown(&last.path),
                what,
            }));
        }
        node.file = Some(last);
        Ok(())
    }

    /// The node of a name, which is added if it is new.
    fn node(&mut self, key: TreeKey) -> Result<&mut NameNode, Error> {
        if !self.nodes.contains_key(&key) {
            self.hold(cost(key.len()))?;
        }
        Ok(self.nodes.entry(key).or_default())
    }

    /// Adds the folders that a name is in.
    fn lead_to(&mut self, key: &TreeKey) -> Result<(), Error> {
        let ends = (0..key.len()).rev().filter(|&at| key[at] == 0);
        for end in ends {
            if self.nodes.contains_key(&key[..end]) {
                break;
            }
            self.node(key[..end].to_vec())?;
        }
        Ok(())
    }

    fn hold(&mut self, bytes: usize) -> Result<(), Error> {
        self.held += bytes;
        if self.held > MAX_HELD {
            return Err(self.label.fault(LayerFault::TooManyFiles(MAX_HELD >> 20)));
        }
        Ok(())
    }

    fn key(&self, name: &[u8], path: &Path) -> Result<TreeKey, Error> {
        if name.len() > MAX_NAME || name.contains(&0) {
            return Err(self.label.fault(LayerFault::Rewritten { path: shown(path) }));
        }
        let mut key = clean(name);
        if key == b"/" {
            key.clear();
        }
        for byte in &mut key {
            if *byte == b'/' {
                *byte = 0;
            }
        }
        Ok(key)
    }

    fn root_metadata(&self, path: &Path) -> Result<Metadata, Error> {
        fs::symlink_metadata(path).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => self.label.gone(path),
            _ => unreadable(path, source),
        })
    }

    fn store_file(
        &self,
        path: PathBuf,
        metadata: &Metadata,
        origin: Origin,
    ) -> Result<StoreFile, Error> {
        let kind = metadata.file_type();
        let kind = if kind.is_file() {
            FileKind::File
        } else if kind.is_dir() {
            FileKind::Folder
        } else if kind.is_symlink() {
            FileKind::Symlink
        } else {
            return Err(self.label.fault(LayerFault::Kind(shown(&path))));
        };
        Ok(StoreFile { path, kind, mode: metadata.mode(), size: metadata.size(), origin })
    }

    /// The paths of what is in a folder, in any order.
    fn read_folder(
        &self,
        folder: &Path,
    ) -> Result<impl Iterator<Item = Result<PathBuf, Error>> + use<>, Error> {
        let folder = folder.to_owned();
        let children = fs::read_dir(&folder).map_err(|source| unreadable(&folder, source))?;
        Ok(children.map(move |child| match child {
            Ok(child) => Ok(folder.join(child.file_name())),
            Err(source) => Err(unreadable(&folder, source)),
        }))
    }
}

/// The new name of a store path, if everything in it keeps its place below that name. That is so
/// without a rewrite, or if the rewrite replaces `^` and the path itself by a constant, as
/// `copyToRoot` does.
fn constant_rewrite(path: &str, rewrite: Option<&Rewrite>) -> Option<Vec<u8>> {
    let Some(Rewrite { regex, repl }) = rewrite else {
        return Some(path.as_bytes().to_vec());
    };
    let means_itself = |c: char| c.is_ascii_alphanumeric() || "/._-=".contains(c);
    let is_clean = |path: &str| clean(path.as_bytes()) == path.as_bytes();
    let applies = regex.strip_prefix('^') == Some(path)
        && path.chars().all(means_itself)
        && is_clean(path)
        && (repl.is_empty() || repl.starts_with('/') && is_clean(repl))
        && !repl.contains(['$', '\0']);
    applies.then(|| repl.as_bytes().to_vec())
}

fn cost(length: usize) -> usize {
    2 * length + NODE
}

fn name_of(key: &TreeKey) -> Vec<u8> {
    if key.is_empty() {
        return b"/".to_vec();
    }
    key.iter().map(|&byte| if byte == 0 { b'/' } else { byte }).collect()
}

/// The error for a file of the store that exists but cannot be read.
pub fn unreadable(path: &Path, source: io::Error) -> Error {
    FileError::Store { path: printable_path(path), source }.into()
}

/// A path as text.
fn shown(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

fn from_bytes(bytes: Vec<u8>) -> PathBuf {
    use std::os::unix::ffi::OsStringExt;
    std::ffi::OsString::from_vec(bytes).into()
}
