//! The entries of an archive by name. Names are normalised, their number is limited, and links are
//! followed. If two entries have the same name, the later one is used, as when a tar is unpacked.

use std::collections::HashMap;
use std::sync::Arc;

use super::error::{TarError, Via};
use crate::source::printable::printable;
use crate::source::role::EntryRole;

/// The most entries that an archive may have.
const MAX_ENTRIES: usize = 65_536;

/// The most bytes that their names and link targets may take.
const MAX_NAME_BYTES: usize = 16 << 20;

/// The most links that are followed; more are considered a circle. Linux has the same limit.
const MAX_LINKS: usize = 40;

/// The name of a docker archive's list of images.
pub const MANIFEST: &str = "manifest.json";

/// The name of the file that makes an archive an OCI layout.
pub const OCI_LAYOUT: &str = "oci-layout";

/// The entries that may be needed. `T` is what is known about a file.
pub struct Entries<T> {
    file: Arc<str>,
    by_name: HashMap<String, LinkTarget<T>>,
    name_bytes: usize,
    root_file_system: Option<String>,
    /// The folder of the archive that has a `manifest.json` or an `oci-layout`.
    image_folder: Option<String>,
    /// Whether there is a layer as Docker stored it before 1.10, `<id>/json` beside it.
    is_legacy: bool,
}

enum LinkTarget<T> {
    File(T),
    /// A link to the entry of this (normalised) name.
    Link(String),
}

impl<T> Entries<T> {
    /// No entries yet. `file` is the archive's name for messages.
    pub fn new(file: Arc<str>) -> Self {
        Self {
            file,
            by_name: HashMap::new(),
            name_bytes: 0,
            root_file_system: None,
            image_folder: None,
            is_legacy: false,
        }
    }

    /// Looks at the (normalised) name of an entry, and returns whether the entry may be needed.
    ///
    /// Entries that no image refers to, such as `repositories`, are not needed.
    pub fn may_be_needed(&mut self, name: &str) -> bool {
        if self.root_file_system.is_none() && is_of_root_file_system(name) {
            self.root_file_system = Some(name.to_owned());
        }
        let last = name.rsplit('/').next().unwrap_or(name);
        if let Some((folder, MANIFEST | OCI_LAYOUT)) = name.rsplit_once('/') {
            self.image_folder.get_or_insert_with(|| folder.to_owned());
        }
        self.is_legacy |= name.ends_with("/json");
        let is_of_old_format = name.contains('/') && matches!(last, "VERSION" | "json");
        !is_of_old_format && !matches!(name, "" | "repositories")
    }

    /// Fails if the archive is clearly the tar of a root file system, so that a stream of it is not
    /// read as thousands of layers.
    pub fn check_kind(&self) -> Result<(), TarError> {
        match &self.root_file_system {
            Some(entry) if !self.contains(MANIFEST) => {
                Err(TarError::RootFileSystem { file: self.file.clone(), entry: entry.clone() })
            }
            _ => Ok(()),
        }
    }

    /// Remembers a file under its (normalised) name.
    pub fn insert_file(&mut self, name: String, file: T) -> Result<(), TarError> {
        self.insert(name, LinkTarget::File(file))
    }

    /// Remembers a symbolic link; its target is relative to where it stands.
    pub fn insert_symlink(&mut self, name: String, target: &str) -> Result<(), TarError> {
        let target = if target.starts_with('/') {
            normalise(target)
        } else {
            let folder = name.rsplit_once('/').map_or("", |(folder, _)| folder);
            normalise(&format!("{folder}/{target}"))
        };
        self.insert(name, LinkTarget::Link(target))
    }

    /// Remembers a hard link; its target is another entry's name.
    pub fn insert_hard_link(&mut self, name: String, target: &str) -> Result<(), TarError> {
        let target = normalise(target);
        // A link to itself adds nothing to what is known.
        if target == name && self.by_name.contains_key(&name) {
            return Ok(());
        }
        self.insert(name, LinkTarget::Link(target))
    }

    fn insert(&mut self, name: String, target: LinkTarget<T>) -> Result<(), TarError> {
        self.name_bytes += name.len();
        if let LinkTarget::Link(target) = &target {
            self.name_bytes += target.len();
        }
        self.by_name.insert(name, target);
        if self.by_name.len() > MAX_ENTRIES || self.name_bytes > MAX_NAME_BYTES {
            return Err(TarError::TooManyEntries { file: self.file.clone(), limit: MAX_ENTRIES });
        }
        Ok(())
    }

    /// Whether there is an entry of this (normalised) name.
    pub fn contains(&self, name: &str) -> bool {
        self.by_name.contains_key(name)
    }

    /// The file of this name, and the name that it is stored under. If it is missing, the link that
    /// leads to the missing entry, if there was one.
    pub fn find(&self, name: &str) -> Result<Result<(&str, &T), Via>, TarError> {
        let mut wanted = normalise(name);
        let mut via = None;
        for _ in 0..=MAX_LINKS {
            match self.by_name.get_key_value(&wanted) {
                Some((stored, LinkTarget::File(file))) => return Ok(Ok((stored, file))),
                Some((_, LinkTarget::Link(target))) => {
                    wanted.clone_from(target);
                    via = Some(target.clone());
                }
                None => return Ok(Err(Via(via))),
            }
        }
        Err(TarError::LinkCircle { file: self.file.clone(), entry: name.to_owned() })
    }

    /// The file of a name in manifest.json, and the name that it is stored under.
    pub fn resolve(&self, name: &str, role: EntryRole) -> Result<(&str, &T), TarError> {
        self.find(name)?.map_err(|via| {
            let (file, entry) = (self.file.clone(), name.to_owned());
            TarError::Missing { file, role, entry, via }
        })
    }

    /// The list of images; `None` if the archive has none.
    pub fn manifest(&self) -> Result<Option<&T>, TarError> {
        if !self.contains(MANIFEST) {
            return Ok(None);
        }
        self.resolve(MANIFEST, EntryRole::Manifest).map(|(_, file)| Some(file))
    }

    /// The error for an archive that is neither a docker archive nor an OCI layout.
    pub fn without_manifest(&self) -> TarError {
        let file = self.file.clone();
        match &self.root_file_system {
            Some(entry) => TarError::RootFileSystem { file, entry: entry.clone() },
            None => match &self.image_folder {
                Some(folder) => TarError::InFolder { file, folder: printable(folder) },
                None if self.is_legacy => TarError::Legacy { file },
                None => TarError::NoManifest { file },
            },
        }
    }
}

/// Normalises a name: `./a//b/../c/` becomes `a/c`. No name leads out of the archive.
pub fn normalise(name: &str) -> String {
    let mut parts = Vec::new();
    for part in name.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts.join("/")
}

/// The 64 hex digits in the names that layers commonly have: `<hex>/layer.tar`,
/// `blobs/sha256/<hex>`, `<hex>.tar` and `<hex>.tar.gz`.
pub fn hex_of(name: &str) -> Option<&str> {
    let hex = name
        .strip_suffix("/layer.tar")
        .or_else(|| name.strip_prefix("blobs/sha256/"))
        .or_else(|| name.strip_suffix(".tar"))
        .or_else(|| name.strip_suffix(".tar.gz"))?;
    let is_hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    (hex.len() == 64 && hex.bytes().all(is_hex)).then_some(hex)
}

/// Whether nearly every root file system or layer has a file of this name, but no docker archive
/// has.
fn is_of_root_file_system(name: &str) -> bool {
    let mut parts = name.split('/');
    matches!(
        (parts.next(), parts.next()),
        (Some("etc"), Some("passwd" | "os-release" | "ssl"))
            | (Some("usr"), Some("bin" | "lib" | "share"))
            | (Some("bin"), Some("sh" | "busybox"))
            | (Some("nix"), Some("store"))
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries() -> Entries<u8> {
        Entries::new("x.tar".into())
    }

    #[test]
    fn names_are_normalised() {
        for (name, normal) in [
            ("./manifest.json", "manifest.json"),
            ("/a//b/./c/", "a/b/c"),
            ("a/../../../b", "b"),
            ("..", ""),
            ("", ""),
        ] {
            assert_eq!(normalise(name), normal, "{name}");
        }
    }

    #[test]
    fn links_are_followed_within_the_archive() {
        let mut entries = entries();
        entries.insert_file("b/layer.tar".into(), 7).unwrap();
        entries.insert_symlink("a/layer.tar".into(), "../b/layer.tar").unwrap();
        entries.insert_hard_link("c.tar".into(), "./a/layer.tar").unwrap();
        entries.insert_symlink("d/e.tar".into(), "../../../../../c.tar").unwrap();
        entries.insert_symlink("f".into(), "/c.tar").unwrap();
        for name in ["a/layer.tar", "./c.tar", "d/e.tar", "f"] {
            assert_eq!(
                entries.resolve(name, EntryRole::Layer).unwrap(),
                ("b/layer.tar", &7),
                "{name}"
            );
        }
    }

    #[test]
    fn links_in_a_circle_and_to_nowhere_are_told_apart() {
        let mut entries = entries();
        entries.insert_symlink("a".into(), "b").unwrap();
        entries.insert_symlink("b".into(), "a").unwrap();
        entries.insert_symlink("self".into(), "self").unwrap();
        entries.insert_symlink("c".into(), "nowhere").unwrap();
        for name in ["a", "self"] {
            assert_eq!(
                entries.resolve(name, EntryRole::Layer).unwrap_err().to_string(),
                format!(
                    "x.tar: the link {name:?} leads in a circle; the archive is broken, make it again"
                )
            );
        }
        assert_eq!(
            entries.resolve("c", EntryRole::Layer).unwrap_err().to_string(),
            "x.tar: manifest.json names the layer \"c\", which is not in the archive (it is a link \
             to \"nowhere\", which is missing); it is incomplete, make it again"
        );
    }

    #[test]
    fn entries_are_remembered_up_to_a_limit_only() {
        let mut many = entries();
        let error = (0..).find_map(|n| many.insert_file(n.to_string(), 0).err()).unwrap();
        assert!(error.to_string().starts_with("x.tar holds more than 65536"), "{error}");
        let mut long = entries();
        let name = "x".repeat(1 << 20);
        let failed = (0..100).find(|n| long.insert_file(format!("{n}{name}"), 0).is_err());
        assert!(failed.is_some_and(|n| n <= 16));
    }

    #[test]
    fn diff_ids_are_guessed_from_names() {
        let hex = "0123456789abcdef".repeat(4);
        for name in ["{}/layer.tar", "blobs/sha256/{}", "{}.tar", "{}.tar.gz"] {
            assert_eq!(hex_of(&name.replace("{}", &hex)), Some(hex.as_str()));
        }
        for name in ["{}", "{}.json", "x/{}/layer.tar", "{}0.tar", "é{}.tar"] {
            assert_eq!(hex_of(&name.replace("{}", &hex)), None, "{name}");
        }
    }
}
