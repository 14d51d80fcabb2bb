//! Parses an image argument: `PATH`, `-`, or, for one of several images in a file, `PATH:NAME` or
//! `PATH@sha256:…`.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::image::Digest;
use crate::source::{Location, Selection};

/// Parses the location of an image. A relative path starts from `folder`.
///
/// If a file has exactly this name, it is the image, even if the name contains `:` or `@`.
/// Otherwise the longest beginning that is a file is the path, and the rest chooses the image in
/// it.
pub fn parse(text: &OsStr, folder: &Path) -> (Location, Selection) {
    let only = Selection::default();
    if text == "-" {
        return (Location::Stdin, only);
    }
    let path = folder.join(text);
    if exists(&path) {
        return (Location::Path(path), only);
    }
    let bytes = text.as_bytes();
    let separators = bytes.iter().enumerate().rev().filter(|(_, byte)| matches!(byte, b':' | b'@'));
    for (at, separator) in separators {
        let shorter = folder.join(OsStr::from_bytes(&bytes[..at]));
        let Ok(rest) = std::str::from_utf8(&bytes[at + 1..]) else { continue };
        if at == 0 || rest.is_empty() || !exists(&shorter) {
            continue;
        }
        let selection = match separator {
            b':' => Selection { name: Some(rest.to_owned()), ..only },
            _ => match rest.parse::<Digest>() {
                Ok(digest) => Selection { digest: Some(digest), ..only },
                // This is not a valid image name. The later error lists the names that exist.
                Err(_) => Selection { name: Some(rest.to_owned()), ..only },
            },
        };
        return (Location::Path(shorter), selection);
    }
    (Location::Path(path), only)
}

/// Splits `IMAGE=DESTINATION` at the last `=`, because a destination contains none. `None` if there
/// is no `=`, or if a file has the whole name.
pub fn split_last(text: &OsStr) -> Option<(&OsStr, &OsStr)> {
    split(text, text.as_bytes().iter().rposition(|byte| *byte == b'=')?)
}

/// Splits `PLATFORM=IMAGE` at the first `=`, because a platform contains none. `None` in the same
/// cases as in [`split_last`].
pub fn split_first(text: &OsStr) -> Option<(&OsStr, &OsStr)> {
    split(text, text.as_bytes().iter().position(|byte| *byte == b'=')?)
}

fn split(text: &OsStr, at: usize) -> Option<(&OsStr, &OsStr)> {
    let (left, right) = (&text.as_bytes()[..at], &text.as_bytes()[at + 1..]);
    (!exists(&PathBuf::from(text))).then(|| (OsStr::from_bytes(left), OsStr::from_bytes(right)))
}

/// Whether there is a file with this name. A symlink without a target counts.
fn exists(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_follows_a_file_tells_which_image_of_it() {
        let folder = tempfile::tempdir().unwrap();
        let digest = Digest::of(b"x");
        for file in ["image.tar", "a:b", "a:b@c"] {
            fs_err::write(folder.path().join(file), "").unwrap();
        }
        std::os::unix::fs::symlink("/nowhere", folder.path().join("gone:v1")).unwrap();
        let named = |name: &str| Selection { name: Some(name.into()), ..Selection::default() };
        let digested = Selection { digest: Some(digest.clone()), ..Selection::default() };
        for (text, path, selection) in [
            ("image.tar", "image.tar", Selection::default()),
            ("image.tar:v1", "image.tar", named("v1")),
            ("image.tar:r.io:5000/app:v1", "image.tar", named("r.io:5000/app:v1")),
            (&format!("image.tar@{digest}"), "image.tar", digested.clone()),
            (&format!("a:b@c@{digest}"), "a:b@c", digested),
            ("a:b", "a:b", Selection::default()),
            ("a:b:c", "a:b", named("c")),
            ("gone:v1", "gone:v1", Selection::default()),
            ("absent:v1", "absent:v1", Selection::default()),
            ("image.tar:", "image.tar:", Selection::default()),
            ("image.tar@sha256:12", "image.tar", named("sha256:12")),
            (":v1", ":v1", Selection::default()),
        ] {
            let wanted = (Location::Path(folder.path().join(path)), selection);
            assert_eq!(parse(OsStr::new(text), folder.path()), wanted, "{text}");
        }
        assert_eq!(parse(OsStr::new("-"), folder.path()).0, Location::Stdin);
    }

    #[test]
    fn a_pair_is_split_unless_it_is_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a=b");
        assert_eq!(split_last(OsStr::new("a=b=c")), Some((OsStr::new("a=b"), OsStr::new("c"))));
        assert_eq!(split_first(OsStr::new("a=b=c")), Some((OsStr::new("a"), OsStr::new("b=c"))));
        assert_eq!(split_last(OsStr::new("a")), None);
        assert!(split_last(path.as_os_str()).is_some());
        fs_err::write(&path, "").unwrap();
        assert_eq!(split_last(path.as_os_str()), None);
    }
}
