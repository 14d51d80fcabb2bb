//! A cache key that identifies a file that never changes.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::location::Location;

/// Where Nix keeps what it built, read-only.
const NIX_STORE: &str = "/nix/store";

/// A key for the file at `location`, if it is in the Nix store, whose files never change.
///
/// The key holds the path with all symlinks resolved. Root can change even such a file, so the key
/// also holds its inode, length and times. `None` for any other file and for standard input.
pub fn identity(location: &Location) -> Option<String> {
    match location {
        Location::Path(path) => identity_below(path, Path::new(NIX_STORE)),
        Location::Stdin | Location::Registry(_) => None,
    }
}

fn identity_below(path: &Path, store: &Path) -> Option<String> {
    let path = fs::canonicalize(path).ok()?;
    if !path.starts_with(store) {
        return None;
    }
    // An executable gets no key, because it may write another image every time.
    let is_archive = |metadata: &fs::Metadata| metadata.is_file() && metadata.mode() & 0o111 == 0;
    let metadata = fs::metadata(&path).ok().filter(is_archive)?;
    Some(format!(
        "{}:{}:{}:{}.{:09}:{}.{:09}",
        path.to_str()?,
        metadata.ino(),
        metadata.size(),
        metadata.mtime(),
        metadata.mtime_nsec(),
        metadata.ctime(),
        metadata.ctime_nsec(),
    ))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn only_files_of_the_store_have_an_identity() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        let store = root.join("store");
        fs::create_dir(&store).unwrap();
        fs::write(store.join("image"), "x").unwrap();
        std::os::unix::fs::symlink(store.join("image"), root.join("result")).unwrap();

        let key = identity_below(&root.join("result"), &store).unwrap();
        assert!(key.starts_with(store.join("image").to_str().unwrap()));
        assert_eq!(identity_below(&store, &store), None);
        assert_eq!(identity_below(&root.join("absent"), &store), None);
        fs::write(root.join("other"), "x").unwrap();
        assert_eq!(identity_below(&root.join("other"), &store), None);
        assert_eq!(identity(&Location::Path(root.join("result"))), None);
        assert_eq!(identity(&Location::Stdin), None);

        let program = fs::Permissions::from_mode(0o555);
        fs::write(store.join("program"), "x").unwrap();
        fs::set_permissions(store.join("program"), program).unwrap();
        assert_eq!(identity_below(&store.join("program"), &store), None);

        fs::write(store.join("image"), "xy").unwrap();
        assert_ne!(identity_below(&root.join("result"), &store), Some(key));
    }
}
