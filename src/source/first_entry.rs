//! What the first file of a tar tells of the program that wrote the archive.

use super::tar::{EntryKind, OCI_LAYOUT, Tar, normalise};
use super::wrapping::Wrapping;

/// The beginning of an archive.
pub struct FirstEntry {
    /// Whether the tar begins with a file, and not with a folder.
    begins_with_file: bool,
    /// Whether it begins with the folder `./`.
    begins_with_dot: bool,
    /// The name of the first file, if it is among the first bytes.
    file: Option<String>,
}

impl FirstEntry {
    /// Looks at the first bytes of a tar.
    pub fn of(head: &[u8]) -> Self {
        let mut tar = Tar::new(head, "".into(), Wrapping::None);
        let mut first = Self { begins_with_file: true, begins_with_dot: false, file: None };
        while let Ok(Some(entry)) = tar.next_entry() {
            if matches!(entry.kind, EntryKind::File | EntryKind::Sparse) {
                first.file = Some(normalise(&entry.name));
                break;
            }
            first.begins_with_dot |= first.begins_with_file && entry.name == "./";
            first.begins_with_file = false;
        }
        first
    }

    /// Whether the archive may be an OCI layout. Docker's own archives have been both since Docker
    /// 25, and only the end of the archive tells which it is.
    pub fn may_be_of_layout(&self) -> bool {
        self.file.as_ref().is_some_and(|name| {
            name.starts_with("blobs/") || name == OCI_LAYOUT || name == "index.json"
        })
    }

    /// Whether the archive begins as those of Nix's dockerTools do, which hold one image each.
    /// `buildLayeredImage` and `streamLayeredImage` begin with a layer, `<digits>/layer.tar`, where
    /// `docker save` has a folder before it; `buildImage` begins with the folder `./`.
    pub fn is_of_nix(&self) -> bool {
        let is_layer = |name: &String| {
            let digits = name.strip_suffix("/layer.tar").unwrap_or_default();
            digits.len() == 64 && digits.bytes().all(|byte| byte.is_ascii_hexdigit())
        };
        self.begins_with_dot || (self.begins_with_file && self.file.as_ref().is_some_and(is_layer))
    }
}
