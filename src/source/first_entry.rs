//! The first file of a tar, which shows what program wrote the archive.

use super::tar::{EntryKind, OCI_LAYOUT, Tar, normalise};
use super::wrapping::Wrapping;

/// The beginning of an archive.
pub struct FirstEntry {
    /// Whether the tar begins with a file, and not with a folder.
    begins_with_file: bool,
    /// Whether it begins with the folder `./` with a fixed time.
    begins_with_fixed_dot: bool,
    /// Whether the first file is a tar that begins with the folder `/nix`.
    is_store_layer: bool,
    /// The name of the first file, if it is among the first bytes.
    file: Option<String>,
}

impl FirstEntry {
    /// Looks at the first bytes of a tar.
    pub fn of(head: &[u8]) -> Self {
        let mut tar = Tar::new(head, "".into(), Wrapping::None);
        let mut first = Self {
            begins_with_file: true,
            begins_with_fixed_dot: false,
            is_store_layer: false,
            file: None,
        };
        while let Ok(Some(entry)) = tar.next_entry() {
            if matches!(entry.kind, EntryKind::File | EntryKind::Sparse) {
                first.file = Some(normalise(&entry.name));
                break;
            }
            first.begins_with_fixed_dot |=
                first.begins_with_file && entry.name == "./" && has_fixed_time(head);
            first.begins_with_file = false;
        }
        let mut layer = Tar::new(tar.into_bytes(), "".into(), Wrapping::None);
        first.is_store_layer = matches!(
            layer.next_entry(),
            Ok(Some(entry)) if entry.kind == EntryKind::Other && normalise(&entry.name) == "nix"
        );
        first
    }

    /// Whether the archive may be an OCI layout. Since Docker 25, Docker's archives are OCI layouts
    /// as well, and only the end of the archive shows whether it has a `manifest.json`.
    pub fn may_be_of_layout(&self) -> bool {
        self.file.as_ref().is_some_and(|name| {
            name.starts_with("blobs/") || name == OCI_LAYOUT || name == "index.json"
        })
    }

    /// Whether the archive begins like those of Nix's dockerTools, which hold one image each.
    /// `buildLayeredImage` and `streamLayeredImage` begin with a layer of store paths,
    /// `<digits>/layer.tar`. `buildImage` begins with the folder `./`, which has a fixed time. An
    /// archive that was made by hand may also have such names, and still hold several images.
    pub fn is_of_nix(&self) -> bool {
        let is_layer = |name: &String| {
            let digits = name.strip_suffix("/layer.tar").unwrap_or_default();
            digits.len() == 64 && digits.bytes().all(|byte| byte.is_ascii_hexdigit())
        };
        let begins_with_layer = self.begins_with_file && self.file.as_ref().is_some_and(is_layer);
        self.begins_with_fixed_dot || (begins_with_layer && self.is_store_layer)
    }
}

/// Whether the time in the first header of a tar is not later than the time of Nix's builds, which
/// is in 1980 (`SOURCE_DATE_EPOCH`).
fn has_fixed_time(head: &[u8]) -> bool {
    const TIME: std::ops::Range<usize> = 136..148;
    const NIX_BUILDS: u64 = 315_532_800;
    let time = head.get(TIME).and_then(|time| std::str::from_utf8(time).ok());
    let digits = time.map(|time| time.trim_matches(['\0', ' ']));
    digits.is_some_and(|digits| {
        u64::from_str_radix(digits, 8).is_ok_and(|seconds| seconds <= NIX_BUILDS)
    })
}
