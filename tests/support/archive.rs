//! Docker archives made by the test, in the form that `dockerTools.buildLayeredImage` writes: the
//! layers first, each named by its diff ID, then the config, then `manifest.json`.

use std::io::Write;
use std::path::{Path, PathBuf};

use ring::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use sha2::{Digest, Sha256};

/// A layer's uncompressed tar.
#[derive(Clone)]
pub struct Layer {
    /// The store path's name, such as `glibc-2.38`, as it appears in the config's history.
    pub name: String,
    pub tar: Vec<u8>,
}

impl Layer {
    /// A layer with the one file `nix/store/<name>/content`.
    pub fn file(name: &str, content: &[u8]) -> Self {
        Self::files(name, &[("content", content)])
    }

    /// A layer with the given files below `nix/store/<name>/`.
    pub fn files(name: &str, files: &[(&str, &[u8])]) -> Self {
        let mut tar = tar::Builder::new(Vec::new());
        for folder in ["nix", "nix/store", &format!("nix/store/{name}")] {
            let mut header = header(0, 0o755);
            header.set_entry_type(tar::EntryType::Directory);
            tar.append_data(&mut header, format!("{folder}/"), std::io::empty())
                .expect("a folder in a tar");
        }
        for (file, content) in files {
            let mut header = header(content.len() as u64, 0o644);
            tar.append_data(&mut header, format!("nix/store/{name}/{file}"), *content)
                .expect("a file in a tar");
        }
        Self { name: name.to_owned(), tar: tar.into_inner().expect("a tar in memory") }
    }

    /// A layer whose file is `len` bytes that no compressor makes smaller; equal seeds are equal
    /// bytes.
    pub fn random(name: &str, seed: u64, len: usize) -> Self {
        Self::file(name, &random_bytes(seed, len))
    }

    /// A layer whose file is `len` bytes of text that compresses well.
    pub fn text(name: &str, seed: u64, len: usize) -> Self {
        let mut content = String::with_capacity(len + 64);
        let mut line = seed;
        while content.len() < len {
            content.push_str(&format!("line {line} of a file that compresses well\n"));
            line += 1;
        }
        content.truncate(len);
        Self::file(name, content.as_bytes())
    }

    /// The `sha256:…` of the tar.
    pub fn diff_id(&self) -> String {
        sha256(&self.tar)
    }
}

/// An image to be written as an archive.
#[derive(Clone)]
pub struct ImageBuilder {
    pub layers: Vec<Layer>,
    pub repo_tags: Vec<String>,
    /// Set as `config.Env`, to make two images of the same layers differ.
    pub env: Vec<String>,
    /// The architecture in the config.
    pub architecture: String,
}

impl ImageBuilder {
    pub fn new(layers: Vec<Layer>) -> Self {
        Self {
            layers,
            repo_tags: vec!["localhost/lab:latest".to_owned()],
            env: vec!["PATH=/bin".to_owned()],
            architecture: "amd64".to_owned(),
        }
    }

    /// Sets the image's names in the archive; there may be none.
    pub fn repo_tags(mut self, tags: &[&str]) -> Self {
        self.repo_tags = tags.iter().map(|tag| (*tag).to_owned()).collect();
        self
    }

    /// The same image for another architecture.
    pub fn architecture(mut self, architecture: &str) -> Self {
        self.architecture = architecture.to_owned();
        self
    }

    /// The same image with one layer in another's place: the next version of it.
    pub fn with_layer(mut self, index: usize, layer: Layer) -> Self {
        self.layers[index] = layer;
        self
    }

    /// The config, in the order and indentation of Nix.
    pub fn config(&self) -> Vec<u8> {
        let history: Vec<_> = self
            .layers
            .iter()
            .map(|layer| {
                serde_json::json!({
                    "created": "1970-01-01T00:00:01+00:00",
                    "comment": format!("store paths: ['/nix/store/{}']", layer.name),
                })
            })
            .collect();
        let diff_ids: Vec<_> = self.layers.iter().map(Layer::diff_id).collect();
        serde_json::to_vec_pretty(&serde_json::json!({
            "created": "1970-01-01T00:00:01+00:00",
            "architecture": self.architecture,
            "os": "linux",
            "config": { "Env": self.env, "Cmd": ["/bin/app"] },
            "rootfs": { "diff_ids": diff_ids, "type": "layers" },
            "history": history,
        }))
        .expect("a config")
    }

    /// The archive's bytes, uncompressed.
    pub fn tar(&self) -> Vec<u8> {
        let mut tar = tar::Builder::new(Vec::new());
        let mut append = |name: &str, content: &[u8]| {
            let mut header = header(content.len() as u64, 0o644);
            tar.append_data(&mut header, name, content).expect("an entry in an archive");
        };
        let mut names: Vec<String> = Vec::new();
        for layer in &self.layers {
            let name = format!("{}/layer.tar", hex(&layer.diff_id()));
            if !names.contains(&name) {
                append(&name, &layer.tar);
            }
            names.push(name);
        }
        let config = self.config();
        let config_name = format!("{}.json", hex(&sha256(&config)));
        append(&config_name, &config);
        let manifest = serde_json::json!([{
            "Config": config_name,
            "RepoTags": self.repo_tags,
            "Layers": names,
        }]);
        append("manifest.json", manifest.to_string().as_bytes());
        tar.into_inner().expect("an archive in memory")
    }

    /// The archive's bytes in gzip, as `pigz -nTR` would give them: no name, no time.
    pub fn tar_gz(&self) -> Vec<u8> {
        gzip(&self.tar())
    }

    /// Writes the plain archive into `dir` and returns its path.
    pub fn write(&self, dir: &Path, file: &str) -> PathBuf {
        write(dir, file, &self.tar())
    }

    /// Writes the archive in gzip into `dir` and returns its path.
    pub fn write_gz(&self, dir: &Path, file: &str) -> PathBuf {
        write(dir, file, &self.tar_gz())
    }
}

/// A file of `testdata/`.
pub fn testdata(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata").join(name)
}

/// A path as an argument of a program.
pub fn text(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}

/// A tar of these files, whatever they are.
pub fn tar_of(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (name, content) in files {
        let mut header = header(content.len() as u64, 0o644);
        tar.append_data(&mut header, name, *content).expect("an entry in a tar");
    }
    tar.into_inner().expect("a tar in memory")
}

/// The bytes in gzip.
pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(bytes).expect("gzip in memory");
    gzip.finish().expect("gzip in memory")
}

/// Writes bytes as a file and returns its path.
pub fn write(dir: &Path, file: &str, bytes: &[u8]) -> PathBuf {
    let path = dir.join(file);
    std::fs::write(&path, bytes)
        .unwrap_or_else(|error| panic!("cannot write {}: {error}", path.display()));
    path
}

/// The first `keep` bytes only, as a download that broke off leaves them.
pub fn truncated(bytes: &[u8], keep: usize) -> Vec<u8> {
    bytes[..keep.min(bytes.len())].to_vec()
}

/// The same bytes with the one at `at` flipped.
pub fn corrupted(bytes: &[u8], at: usize) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes[at] ^= 0xff;
    bytes
}

/// Bytes that no compressor makes smaller; equal seeds give equal bytes.
///
/// A cipher of `ring` makes them: it is assembly, and so fast in a test that is not optimised.
pub fn random_bytes(seed: u64, len: usize) -> Vec<u8> {
    let mut key = [0; 16];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    let key = UnboundKey::new(&AES_128_GCM, &key).expect("a key of 16 bytes");
    let mut bytes = vec![0; len];
    let _tag = LessSafeKey::new(key)
        .seal_in_place_separate_tag(Nonce::assume_unique_for_key([0; 12]), Aad::empty(), &mut bytes)
        .expect("no more than 64 GiB");
    bytes
}

/// `sha256:<hex>` of the bytes.
pub fn sha256(bytes: &[u8]) -> String {
    digest_of(Sha256::new_with_prefix(bytes))
}

/// `sha256:<hex>` of what the hasher has seen.
pub fn digest_of(hasher: Sha256) -> String {
    let mut text = String::from("sha256:");
    for byte in hasher.finalize() {
        text.push_str(&format!("{byte:02x}"));
    }
    text
}

fn hex(digest: &str) -> &str {
    digest.trim_start_matches("sha256:")
}

fn header(size: u64, mode: u32) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_size(size);
    header.set_mode(mode);
    header.set_mtime(1);
    header.set_uid(0);
    header.set_gid(0);
    header
}
