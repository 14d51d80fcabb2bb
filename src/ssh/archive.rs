//! The archive that is sent to a machine: an image without the layers that it already has.

use std::collections::HashSet;
use std::io::{self, Read};

use serde_json::json;

use super::runtime::ArchiveForm;
use super::transfer::Transfer;
use crate::image::{Digest, Manifest};
use crate::serve::ServedPart;

/// An archive that is being written. The files that make it an image come last, so that an
/// incomplete archive is not a valid image.
pub struct ArchiveWriter<'a> {
    tar: tar::Builder<Transfer<'a>>,
    form: ArchiveForm,
    written: HashSet<String>,
}

impl<'a> ArchiveWriter<'a> {
    pub fn new(out: Transfer<'a>, form: ArchiveForm) -> Self {
        Self { tar: tar::Builder::new(out), form, written: HashSet::new() }
    }

    /// Whether a layer was written.
    pub fn has(&self, digest: &Digest) -> bool {
        self.written.contains(&self.path_of(digest))
    }

    /// Writes a layer of `size` bytes, unless it was written already.
    pub fn layer(&mut self, digest: &Digest, size: u64, content: &mut dyn Read) -> io::Result<()> {
        self.file(&self.path_of(digest), size, content)
    }

    /// Writes the config and the manifest, and ends the archive.
    pub fn finish(
        mut self,
        image: &ServedPart,
        config: &[u8],
        manifest: &Manifest,
        names: &[String],
    ) -> io::Result<()> {
        match self.form {
            ArchiveForm::Docker => {
                let path = format!("{}.json", image.config.hex());
                self.small(&path, config)?;
                let layers: Vec<_> =
                    image.layers.iter().map(|layer| self.path_of(&layer.blob)).collect();
                let list = json!([{"Config": path, "RepoTags": names, "Layers": layers}]);
                self.small("manifest.json", list.to_string().as_bytes())?;
            }
            ArchiveForm::Oci => {
                self.small(&self.path_of(&image.config), config)?;
                self.small(&self.path_of(&manifest.digest), &manifest.bytes)?;
                self.small("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
                let entries: Vec<_> = names
                    .iter()
                    .map(|name| {
                        json!({
                            "mediaType": manifest.media_type,
                            "digest": manifest.digest,
                            "size": manifest.bytes.len(),
                            // containerd reads the first annotation, podman the second.
                            "annotations": {
                                "io.containerd.image.name": name,
                                "org.opencontainers.image.ref.name": name,
                            },
                        })
                    })
                    .collect();
                let index = json!({"schemaVersion": 2, "manifests": entries});
                self.small("index.json", index.to_string().as_bytes())?;
            }
        }
        self.tar.into_inner()?.finish()
    }

    fn path_of(&self, digest: &Digest) -> String {
        match self.form {
            ArchiveForm::Docker => format!("{}/layer.tar", digest.hex()),
            ArchiveForm::Oci => format!("blobs/sha256/{}", digest.hex()),
        }
    }

    fn small(&mut self, path: &str, mut bytes: &[u8]) -> io::Result<()> {
        self.file(path, bytes.len() as u64, &mut bytes)
    }

    fn file(&mut self, path: &str, size: u64, content: &mut dyn Read) -> io::Result<()> {
        if !self.written.insert(path.to_owned()) {
            return Ok(());
        }
        let mut header = tar::Header::new_gnu();
        header.set_size(size);
        header.set_mode(0o644);
        self.tar.append_data(&mut header, path, content)
    }
}
