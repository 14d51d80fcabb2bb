//! Writes the files of a push: `--digest-file`, which is replaced atomically, and `--summary`,
//! which is appended to.

use std::fs::Permissions;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::image::Digest;

/// Appends `text` to `path`. The file is created if it is missing.
pub fn append(path: &Path, text: &str) -> io::Result<()> {
    let mut file = fs_err::OpenOptions::new().append(true).create(true).open(path)?;
    file.write_all(text.as_bytes())
}

/// Writes `digest` and a newline to `path`. A file is replaced atomically, and symlinks are
/// followed. A pipe or a device is written directly.
pub fn write_digest(path: &Path, digest: &Digest) -> io::Result<()> {
    let line = format!("{digest}\n");
    let target = match fs_err::canonicalize(path) {
        Ok(target) if target.is_file() => target,
        Ok(device) => return fs_err::write(device, line),
        Err(_) => path.to_owned(),
    };
    let folder = match target.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    // A temporary file is private by default. This one gets the usual permissions with the umask.
    let mut file = tempfile::Builder::new()
        .prefix(".pushimg-digest-")
        .permissions(Permissions::from_mode(0o666))
        .tempfile_in(folder)?;
    file.write_all(line.as_bytes())?;
    file.persist(&target)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_file_holds_one_line_and_replaces_what_was_there() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("digest");
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        for content in [b"one", b"two"] {
            let digest = Digest::of(content);
            write_digest(&path, &digest).unwrap();
            assert_eq!(fs_err::read_to_string(&path).unwrap(), format!("{digest}\n"));
        }
        let digest = Digest::of(b"three");
        write_digest(&link, &digest).unwrap();
        assert!(fs_err::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs_err::read_to_string(&path).unwrap(), format!("{digest}\n"));
        assert_eq!(fs_err::read_dir(folder.path()).unwrap().count(), 2);
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o600, 0o600);
    }

    #[test]
    fn a_device_is_written_to_and_stays_one() {
        write_digest(Path::new("/dev/null"), &Digest::of(b"")).unwrap();
        assert!(!Path::new("/dev/null").is_file());
        assert!(write_digest(Path::new("/dev/full"), &Digest::of(b"")).is_err());
    }
}
