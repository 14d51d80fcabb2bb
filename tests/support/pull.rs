//! Reads an image back from a registry with independent programs, and compares it with the archive
//! it was pushed from.

use std::collections::HashMap;
use std::future::Future;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use oci_client::Reference;
use oci_client::client::{Certificate, CertificateEncoding, Client, ClientConfig, ClientProtocol};
use oci_client::manifest::{
    IMAGE_DOCKER_CONFIG_MEDIA_TYPE, IMAGE_MANIFEST_MEDIA_TYPE, OCI_IMAGE_MEDIA_TYPE, OciDescriptor,
    OciImageManifest,
};
use oci_client::secrets::RegistryAuth;
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use super::archive::{digest_of, sha256};
use super::run::{Output, finish};

/// A registry to read from, over plain HTTP.
#[derive(Clone, Debug)]
pub struct Remote {
    pub host: String,
    pub login: Option<(String, String)>,
}

impl Remote {
    pub fn new(host: impl ToString) -> Self {
        Self { host: host.to_string(), login: None }
    }

    pub fn login(mut self, user: &str, password: &str) -> Self {
        self.login = Some((user.to_owned(), password.to_owned()));
        self
    }

    fn auth(&self) -> RegistryAuth {
        match &self.login {
            Some((user, password)) => RegistryAuth::Basic(user.clone(), password.clone()),
            None => RegistryAuth::Anonymous,
        }
    }
}

impl<T: ToString> From<T> for Remote {
    fn from(host: T) -> Self {
        Self::new(host)
    }
}

/// An image as a registry holds it.
pub struct Pulled {
    /// Digest of the manifest.
    pub digest: String,
    pub manifest_bytes: Vec<u8>,
    pub manifest: OciImageManifest,
    pub config: Vec<u8>,
    pub layers: Vec<PulledLayer>,
    _dir: TempDir,
}

impl Pulled {
    /// The diff IDs of its layers, in order.
    pub fn diff_ids(&self) -> Vec<String> {
        self.layers.iter().map(PulledLayer::diff_id).collect()
    }
}

/// A layer's blob, in a file.
pub struct PulledLayer {
    pub digest: String,
    pub size: u64,
    pub media_type: String,
    pub path: PathBuf,
}

impl PulledLayer {
    /// The digest of the uncompressed bytes, decompressed by the real `gzip` or `zstd`.
    pub fn diff_id(&self) -> String {
        hash_decompressed(&self.path)
    }
}

/// Pulls manifest, config and layers with the oci-client crate, which checks each digest.
///
/// # Panics
/// Where anything is missing or is not what its digest says.
#[track_caller]
pub fn oci(remote: impl Into<Remote>, repository: &str, tag: &str) -> Pulled {
    let remote = remote.into();
    match try_oci(&remote, repository, tag) {
        Ok(pulled) => pulled,
        Err(error) => panic!("cannot pull {}/{repository}:{tag}: {error}", remote.host),
    }
}

/// As [`oci`], for images that may not be there.
pub fn try_oci(remote: &Remote, repository: &str, tag: &str) -> Result<Pulled, String> {
    on_runtime(async {
        let client = client();
        let reference =
            Reference::with_tag(remote.host.clone(), repository.to_owned(), tag.to_owned());
        let accepted = [IMAGE_MANIFEST_MEDIA_TYPE, OCI_IMAGE_MEDIA_TYPE];
        let (bytes, digest) = client
            .pull_manifest_raw(&reference, &remote.auth(), &accepted)
            .await
            .map_err(|error| error.to_string())?;
        let manifest: OciImageManifest =
            serde_json::from_slice(&bytes).map_err(|error| error.to_string())?;
        let dir = TempDir::new().map_err(|error| error.to_string())?;
        let mut config = Vec::new();
        client
            .pull_blob(&reference, &manifest.config, &mut config)
            .await
            .map_err(|error| format!("config: {error}"))?;
        let mut layers = Vec::new();
        let mut files: HashMap<String, PathBuf> = HashMap::new();
        for descriptor in &manifest.layers {
            let path = match files.get(&descriptor.digest) {
                Some(path) => path.clone(),
                None => download(&client, &reference, descriptor, dir.path()).await?,
            };
            files.insert(descriptor.digest.clone(), path.clone());
            layers.push(PulledLayer {
                digest: descriptor.digest.clone(),
                size: u64::try_from(descriptor.size).unwrap_or_default(),
                media_type: descriptor.media_type.clone(),
                path,
            });
        }
        Ok(Pulled { digest, manifest_bytes: bytes.to_vec(), manifest, config, layers, _dir: dir })
    })
}

async fn download(
    client: &Client,
    reference: &Reference,
    descriptor: &OciDescriptor,
    dir: &Path,
) -> Result<PathBuf, String> {
    let path = dir.join(descriptor.digest.replace(':', "-"));
    let fail = |error: &dyn std::fmt::Display| format!("layer {}: {error}", descriptor.digest);
    let mut file = tokio::fs::File::create(&path).await.map_err(|error| fail(&error))?;
    client.pull_blob(reference, descriptor, &mut file).await.map_err(|error| fail(&error))?;
    tokio::io::AsyncWriteExt::shutdown(&mut file).await.map_err(|error| fail(&error))?;
    Ok(path)
}

/// The digest a tag points to, as a registry tells it; `None` where there is no such image.
pub fn tag_digest(remote: impl Into<Remote>, repository: &str, tag: &str) -> Option<String> {
    let remote = remote.into();
    on_runtime(async {
        let reference =
            Reference::with_tag(remote.host.clone(), repository.to_owned(), tag.to_owned());
        client().fetch_manifest_digest(&reference, &remote.auth()).await.ok()
    })
}

fn client() -> Client {
    super::tls::install_provider();
    let root = Certificate { encoding: CertificateEncoding::Der, data: super::tls::unused_root() };
    Client::new(ClientConfig {
        protocol: ClientProtocol::Http,
        tls_certs_only: vec![root],
        ..ClientConfig::default()
    })
}

/// Runs a future on a thread and runtime of its own, so that a test may be async or not.
pub fn on_runtime<T: Send>(future: impl Future<Output = T> + Send) -> T {
    std::thread::scope(|scope| {
        scope
            .spawn(|| {
                tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()
                    .expect("a runtime")
                    .block_on(future)
            })
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// What an archive says it holds, read without any of the code under test.
#[derive(Debug)]
pub struct Expected {
    pub config: Vec<u8>,
    /// Of each layer in order, computed from its bytes.
    pub diff_ids: Vec<String>,
    pub repo_tags: Vec<String>,
}

/// Reads a docker archive, whatever it is compressed by; `image` counts from 0.
///
/// # Panics
/// Where it is no docker archive.
#[track_caller]
pub fn expected(archive: &Path, image: usize) -> Expected {
    let mut small: HashMap<String, Vec<u8>> = HashMap::new();
    let mut hashes: HashMap<String, String> = HashMap::new();
    let mut links: HashMap<String, String> = HashMap::new();
    decompressed(archive, |reader| {
        let mut tar = tar::Archive::new(reader);
        for entry in tar.entries().expect("a tar") {
            let mut entry = entry.expect("an entry of the archive");
            let name = entry.path().expect("a name").display().to_string();
            let name = name.trim_start_matches("./").to_owned();
            if let Some(target) = entry.link_name().expect("a link's name") {
                links.insert(name, target.display().to_string());
                continue;
            }
            if entry.size() <= 8 * 1024 * 1024 {
                let mut bytes = Vec::new();
                entry.read_to_end(&mut bytes).expect("an entry's bytes");
                hashes.insert(name.clone(), hash_bytes_decompressed(&bytes));
                small.insert(name, bytes);
            } else {
                let mut spool = tempfile::NamedTempFile::new().expect("a spool file");
                std::io::copy(&mut entry, &mut spool).expect("an entry's bytes");
                hashes.insert(name, hash_decompressed(spool.path()));
            }
        }
    });
    let manifest: serde_json::Value =
        serde_json::from_slice(small.get("manifest.json").expect("manifest.json in the archive"))
            .expect("manifest.json is JSON");
    let image = &manifest[image];
    let texts = |value: &serde_json::Value| -> Vec<String> {
        let list = value.as_array().cloned().unwrap_or_default();
        list.iter().map(|item| item.as_str().unwrap_or_default().to_owned()).collect()
    };
    let config_name = image["Config"].as_str().expect("a config's name");
    let diff_ids = texts(&image["Layers"])
        .iter()
        .map(|layer| {
            let mut name = layer.clone();
            // `<id>/layer.tar` may be a link to `../<other>/layer.tar` or `../<hex>.tar`.
            while let Some(target) = links.get(&name) {
                name = match target.strip_prefix("../") {
                    Some(target) => target.to_owned(),
                    None => target.clone(),
                };
            }
            hashes
                .get(&name)
                .unwrap_or_else(|| panic!("layer {name} is not in the archive"))
                .clone()
        })
        .collect();
    Expected {
        config: small.get(config_name).expect("the config").clone(),
        diff_ids,
        repo_tags: texts(&image["RepoTags"]),
    }
}

/// Demands that the registry holds the archive's image: the config byte for byte, and every
/// layer's uncompressed bytes by digest, in order.
#[track_caller]
pub fn assert_same_image(
    archive: &Path,
    remote: impl Into<Remote>,
    repository: &str,
    tag: &str,
) -> Pulled {
    let pulled = oci(remote, repository, tag);
    let expected = expected(archive, 0);
    assert_eq!(
        String::from_utf8_lossy(&pulled.config),
        String::from_utf8_lossy(&expected.config),
        "the config in the registry is not the archive's"
    );
    assert_eq!(pulled.manifest.config.digest, sha256(&expected.config));
    let found = pulled.diff_ids();
    assert_eq!(found, expected.diff_ids, "the layers in the registry are not the archive's");
    let named: Vec<String> = serde_json::from_slice::<serde_json::Value>(&pulled.config)
        .expect("a config in JSON")["rootfs"]["diff_ids"]
        .as_array()
        .expect("rootfs.diff_ids")
        .iter()
        .map(|diff_id| diff_id.as_str().unwrap_or_default().to_owned())
        .collect();
    assert_eq!(found, named, "the layers are not what the config says");
    for layer in &pulled.layers {
        let size = std::fs::metadata(&layer.path).expect("a pulled blob").len();
        assert_eq!(layer.size, size, "size of {} in the manifest", layer.digest);
    }
    pulled
}

/// Copies an image into a folder with skopeo, which checks digests and diff IDs on the way.
#[track_caller]
pub fn skopeo(remote: impl Into<Remote>, repository: &str, tag: &str) -> TempDir {
    let remote = remote.into();
    let dir = TempDir::new().expect("a folder for skopeo");
    let mut command = Command::new("skopeo");
    command.args(["copy", "--quiet", "--src-tls-verify=false"]);
    if let Some((user, password)) = &remote.login {
        command.args(["--src-creds", &format!("{user}:{password}")]);
    }
    command
        .arg(format!("docker://{}/{repository}:{tag}", remote.host))
        .arg(format!("dir:{}", dir.path().display()));
    program(command);
    dir
}

/// Pushes a plain docker archive with skopeo, for tests of the laboratory and as a peer.
#[track_caller]
pub fn skopeo_push(
    archive: &Path,
    remote: impl Into<Remote>,
    repository: &str,
    tag: &str,
) -> Output {
    let remote = remote.into();
    let mut command = Command::new("skopeo");
    command.args(["copy", "--quiet", "--dest-tls-verify=false"]);
    if let Some((user, password)) = &remote.login {
        command.args(["--dest-creds", &format!("{user}:{password}")]);
    }
    command
        .arg(format!("docker-archive:{}", archive.display()))
        .arg(format!("docker://{}/{repository}:{tag}", remote.host));
    program(command)
}

/// Pulls an image with podman into a store of its own and returns the image's id.
#[track_caller]
pub fn podman(remote: impl Into<Remote>, repository: &str, tag: &str) -> String {
    let remote = remote.into();
    let dir = TempDir::new().expect("a folder for podman");
    let mut command = Command::new("podman");
    command
        .arg("--root")
        .arg(dir.path().join("root"))
        .arg("--runroot")
        .arg(dir.path().join("run"))
        .args(["--storage-driver", "vfs", "pull", "--quiet", "--tls-verify=false"]);
    if let Some((user, password)) = &remote.login {
        command.args(["--creds", &format!("{user}:{password}")]);
    }
    command.arg(format!("{}/{repository}:{tag}", remote.host));
    program(command).stdout.trim().to_owned()
}

#[track_caller]
fn program(command: Command) -> Output {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = finish(command, None, Duration::from_secs(120));
    assert_eq!(output.code(), Some(0), "{name} failed\n{output}");
    output
}

/// The program that decompresses bytes that begin like this.
fn decompressor(head: &[u8]) -> Option<&'static str> {
    match head {
        [0x1f, 0x8b, ..] => Some("gzip"),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Some("zstd"),
        [0xfd, b'7', b'z', b'X', ..] => Some("xz"),
        [b'B', b'Z', b'h', ..] => Some("bzip2"),
        _ => None,
    }
}

/// Reads a file as the real decompressor gives it, or as it is where it is not compressed.
fn decompressed<T>(path: &Path, read: impl FnOnce(&mut dyn Read) -> T) -> T {
    let file = std::fs::File::open(path)
        .unwrap_or_else(|error| panic!("cannot open {}: {error}", path.display()));
    let mut reader = BufReader::new(file);
    let head = reader.fill_buf().expect("the first bytes").to_vec();
    let Some(name) = decompressor(&head) else {
        return read(&mut reader);
    };
    let mut child = Command::new(name)
        .arg("-dc")
        .arg(path)
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("cannot start {name}: {error}"));
    let mut stdout = child.stdout.take().expect("stdout is piped");
    let result = read(&mut stdout);
    // The reader may leave the padding after the tar. Read it, or the decompressor could not
    // finish.
    std::io::copy(&mut stdout, &mut std::io::sink()).expect("the rest of the output");
    let status = child.wait().expect("wait for the decompressor");
    assert!(status.success(), "{name} -dc {}: {status}", path.display());
    result
}

fn hash_decompressed(path: &Path) -> String {
    decompressed(path, |reader| {
        let mut hasher = Sha256::new();
        std::io::copy(reader, &mut HashWriter(&mut hasher)).expect("the bytes to hash");
        digest_of(hasher)
    })
}

fn hash_bytes_decompressed(bytes: &[u8]) -> String {
    if decompressor(bytes).is_none() {
        return sha256(bytes);
    }
    let mut spool = tempfile::NamedTempFile::new().expect("a spool file");
    std::io::Write::write_all(&mut spool, bytes).expect("write a spool file");
    hash_decompressed(spool.path())
}

struct HashWriter<'a>(&'a mut Sha256);

impl std::io::Write for HashWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
