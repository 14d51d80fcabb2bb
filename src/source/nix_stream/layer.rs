//! A layer made of store paths: the length of its tar, its key, and the tar itself.

use std::ffi::OsStr;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;

use super::header::{FilesOwner, Member, header};
use super::walk::{Files, Position};
use crate::image::{Digest, LayerKey};
use crate::source::error::Error;
use crate::source::pieces::{TarPiece, TarPieces};
use crate::source::tar::BLOCK;
use crate::source::ustar::FileKind;

/// A tar is filled with zeros up to a multiple of this length.
const RECORD: u64 = 10_240;

/// Names the way in which a layer's bytes are made from its key. If that changes, the number must
/// change, too.
const RECIPE: &str = "pushimg nix store layer 1";

/// The store whose paths never change.
const STORE: &str = "/nix/store/";

/// What all layers of an image have in common.
#[derive(Clone, Debug)]
pub struct LayerRecipe {
    pub owner: Arc<FilesOwner>,
    /// The permissions of `/nix` and `/nix/store`.
    pub store_mode: u32,
}

/// A layer about to be made.
pub struct StoreLayer {
    making: LayerRecipe,
    files: Files,
    size: u64,
    key: Option<LayerKey>,
}

impl StoreLayer {
    /// Lists all files of the paths, without opening them.
    pub fn look(paths: &[String], making: &LayerRecipe) -> Result<Self, Error> {
        let mut files = Files::default();
        for path in paths {
            files.add(path)?;
        }
        let mut size = 2 * BLOCK as u64;
        size += store_folders(making).len() as u64;
        let mut position = files.start();
        while let Some(member) = position.next(&files) {
            let header = header(&member, &making.owner).len() as u64;
            // Does not saturate in practice: no real files have sizes that add up to so much.
            size = size.saturating_add(header).saturating_add(content_size(&member));
        }
        // A path of the Nix store determines its content, as long as the files were not changed.
        let key = key_of(paths, making).filter(|_| files.are_untouched());
        let size = size.checked_next_multiple_of(RECORD).unwrap_or(u64::MAX);
        Ok(Self { making: making.clone(), files, size, key })
    }

    /// The length of the tar.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// What determines the tar's bytes, if these paths cannot change.
    pub fn key(&self) -> Option<LayerKey> {
        self.key.clone()
    }

    /// The tar.
    pub fn content(self) -> impl Read + Send {
        let start = store_folders(&self.making);
        let position = self.files.start();
        TarPieces::new(StoreTar {
            left: self.size - start.len() as u64,
            next: Some(TarPiece::Bytes(start)),
            layer: self,
            position,
        })
    }
}

/// The key of a layer of these paths, if all of them are Nix store paths. Does not check whether
/// their files were changed.
pub fn key_of(paths: &[String], making: &LayerRecipe) -> Option<LayerKey> {
    paths.iter().all(|path| is_store_path(path)).then(|| key(paths, making))
}

/// The headers of `/nix` and `/nix/store`.
fn store_folders(making: &LayerRecipe) -> Vec<u8> {
    let folder = |name: &[u8]| {
        let (kind, mode) = (FileKind::Folder, making.store_mode);
        header(&Member { name, kind, mode, size: 0, target: b"" }, &making.owner)
    };
    [folder(b"/nix"), folder(b"/nix/store")].concat()
}

fn content_size(member: &Member<'_>) -> u64 {
    member.size.checked_next_multiple_of(BLOCK as u64).unwrap_or(u64::MAX)
}

/// The parts of a tar.
struct StoreTar {
    layer: StoreLayer,
    position: Position,
    /// The piece that comes before the next file.
    next: Option<TarPiece>,
    /// How many bytes come after that, including the zeros at the end.
    left: u64,
}

impl Iterator for StoreTar {
    type Item = Result<TarPiece, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(piece) = self.next.take() {
            return Some(Ok(piece));
        }
        let Some(member) = self.position.next(&self.layer.files) else {
            // Two blocks of zeros, and zeros up to the end of the record.
            let end = std::mem::take(&mut self.left).min(2 * RECORD) as usize;
            return (end > 0).then(|| Ok(TarPiece::Bytes(vec![0; end])));
        };
        let header = header(&member, &self.layer.making.owner);
        self.left = self.left.saturating_sub(header.len() as u64 + content_size(&member));
        if member.size > 0 {
            let path = PathBuf::from(OsStr::from_bytes(member.name));
            self.next = Some(TarPiece::File { path, size: member.size });
        }
        Some(Ok(TarPiece::Bytes(header)))
    }
}

/// `/nix/store/<32 digits of base 32>-name`, and nothing below it.
fn is_store_path(path: &str) -> bool {
    let Some((hash, name)) = path.strip_prefix(STORE).and_then(|path| path.split_at_checked(32))
    else {
        return false;
    };
    let is_base32 = |byte: u8| byte.is_ascii_digit() || byte.is_ascii_lowercase();
    let is_of_name = |byte: u8| byte.is_ascii_alphanumeric() || b"+-._?=".contains(&byte);
    let name = name.strip_prefix('-').unwrap_or_default();
    hash.bytes().all(is_base32) && !name.is_empty() && name.bytes().all(is_of_name)
}

/// The digest of everything that determines the layer's bytes. Each value has its length before it,
/// so that different layers have different digests.
fn key(paths: &[String], making: &LayerRecipe) -> LayerKey {
    let FilesOwner { mtime, uid, gid, uname, gname } = &*making.owner;
    let numbers = [*mtime, *uid, *gid, i64::from(making.store_mode)].map(|n| n.to_string());
    let fixed = [RECIPE, STORE].into_iter().chain(numbers.iter().map(String::as_str));
    let all = fixed.chain([uname.as_str(), gname]).chain(paths.iter().map(String::as_str));
    let mut text = String::new();
    for value in all {
        text.push_str(&format!("{}:{value}\n", value.len()));
    }
    LayerKey(Digest::of(text.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn making() -> LayerRecipe {
        let (uname, gname) = ("root".into(), "root".into());
        let owner = FilesOwner { mtime: 1, uid: 0, gid: 0, uname, gname };
        LayerRecipe { owner: Arc::new(owner), store_mode: 0o755 }
    }

    #[test]
    fn all_that_a_layer_is_made_of_is_in_its_key() {
        let path = |name: &str| format!("/nix/store/{}-{name}", "0".repeat(32));
        let paths = [path("a"), path("b")];
        let with = |change: fn(&mut LayerRecipe, &mut FilesOwner)| {
            let (mut making, mut owner) = (making(), (*making().owner).clone());
            change(&mut making, &mut owner);
            key(&paths, &LayerRecipe { owner: Arc::new(owner), ..making })
        };
        let keys = [
            key(&paths, &making()),
            key(&paths[..1], &making()),
            key(&[paths[1].clone(), paths[0].clone()], &making()),
            key(&[], &making()),
            with(|making, _| making.store_mode = 0o555),
            with(|_, owner| owner.mtime = 2),
            with(|_, owner| owner.uid = 1),
            with(|_, owner| owner.gid = 1),
            with(|_, owner| owner.uname = "r".into()),
            with(|_, owner| owner.gname = "r".into()),
            with(|_, owner| (owner.uname, owner.gname) = ("rootr".into(), "oot".into())),
        ];
        for (index, key) in keys.iter().enumerate() {
            assert!(!keys[..index].contains(key), "{index}");
        }
        // Other versions and other machines use this text for the same layer.
        let text = "25:pushimg nix store layer 1\n11:/nix/store/\n1:1\n1:0\n1:0\n3:493\n4:root\n\
                    4:root\n";
        assert_eq!(keys[3], LayerKey(Digest::of(text.as_bytes())));
    }

    #[test]
    fn only_paths_of_the_store_itself_have_a_key() {
        let hash = "0123456789abcdfghijklmnpqrsvwxyz";
        for path in [format!("/nix/store/{hash}-glibc-2.38"), format!("/nix/store/{hash}-a+b._?=")]
        {
            assert!(is_store_path(&path), "{path}");
        }
        for path in [
            format!("/nix/store/{hash}"),
            format!("/nix/store/{hash}-"),
            format!("/nix/store/{hash}-a/b"),
            format!("/nix/store/{hash}-a b"),
            format!("/tmp/nix/store/{hash}-a"),
            format!("/nix/store/.links/{hash}-a"),
            format!("/nix/store/{}-a", hash.to_uppercase()),
            "/nix/store".to_owned(),
        ] {
            assert!(!is_store_path(&path), "{path}");
        }
        let folder = tempfile::tempdir().unwrap();
        let paths = [folder.path().to_str().unwrap().to_owned()];
        assert_eq!(StoreLayer::look(&paths, &making()).unwrap().key(), None);
    }

    #[test]
    fn a_layer_without_paths_is_the_folders_of_the_store() {
        let layer = StoreLayer::look(&[], &making()).unwrap();
        assert_eq!(layer.size(), RECORD);
        let mut tar = Vec::new();
        layer.content().read_to_end(&mut tar).unwrap();
        assert_eq!(tar.len() as u64, RECORD);
        assert!(tar.starts_with(b"/nix/\0") && tar[BLOCK..].starts_with(b"/nix/store/\0"));
    }
}
