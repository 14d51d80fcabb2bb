//! Why an image cannot be read. Each message names the file, what is wrong with it, and what to do.

use std::io;
use std::sync::Arc;

use crate::image::{ConfigError, DiffId, Digest};

use super::decompress::Wrapping;
use super::nix2container::LayerFault;

/// An image that cannot be read.
///
/// `file` is the name of what was being read, safe to print. Names that come from inside it are
/// printed quoted and escaped. Offsets within a tar count the bytes of the tar, uncompressed.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the fields are what the messages say they are")]
pub enum Error {
    /// A layer's bytes are not those that the config was made for.
    #[error(
        "{file}: layer {layer}, entry {entry:?}, is {actual}, but the image's config lists \
         {listed}: the archive is damaged, the store has changed since, or it was put together \
         wrongly; make it again (nothing was tagged)"
    )]
    Mismatch { file: String, layer: usize, entry: String, listed: DiffId, actual: DiffId },
    /// There is no such file.
    #[error(
        "{file}: no such file; build the image first (`nix build` leaves ./result), or give `-` \
         to read it from standard input"
    )]
    Absent { file: Arc<str> },
    /// A symlink to what is not there any more.
    #[error(
        "{file} is a symlink to {target}, which is gone (did the Nix store collect its garbage?); \
         build the image again"
    )]
    Dangling { file: Arc<str>, target: Arc<str> },
    /// The file is there but cannot be opened.
    #[error("{file}: cannot be opened: {source}; check its permissions and those of its folders")]
    Open { file: Arc<str>, source: io::Error },
    /// Reading failed half-way.
    #[error("{file}: reading failed at byte {at}: {source}; check the disk, then try again")]
    Read { file: Arc<str>, at: u64, source: io::Error },
    /// A file that a layer is made of.
    #[error(
        "{path}: cannot be read for the layer that it belongs to: {source}; build the image again, \
         or check the store with `nix-store --verify --check-contents`"
    )]
    StoreFile { path: Arc<str>, source: io::Error },
    /// A layer was to be read again that can be read only once.
    #[error("a layer cannot be read twice; this is a fault in pushimg, please report it")]
    OnlyOnce,
    /// `-` was given but nothing is piped in.
    #[error(
        "standard input is a terminal; pipe an image into it: `docker save IMAGE | pushimg - DEST`"
    )]
    Terminal,
    /// A folder that holds no image.
    #[error(
        "{file} is a directory, but neither an OCI layout (it has no file oci-layout) nor what \
         skopeo's dir: writes (no file version); give the image itself, and with Nix build the \
         output that is the image (`nix build .#docker`, not the package)"
    )]
    Directory { file: Arc<str> },
    /// Neither an archive nor anything else that is known.
    #[error(
        "{file} is not an image: it is {what}; give a docker archive, as `nix build .#docker`, \
         `docker save` or `podman save` write it, plain or compressed"
    )]
    Unknown { file: Arc<str>, what: &'static str },
    /// Nothing in it.
    #[error(
        "{file} is empty (0 bytes); was the build, the download or the command before the pipe cut \
         off? Make the image again"
    )]
    Empty { file: Arc<str> },

    /// Compressed, but not a tar inside.
    #[error(
        "{file} is {wrapping} data, but what is inside is not a tar archive; give a docker archive, \
         plain or compressed once"
    )]
    NotTar { file: Arc<str>, wrapping: Wrapping },
    /// The tar stops before its end.
    #[error(
        "{file}: the tar archive is truncated: it ends at byte {at}, in {entry}; was the download \
         or the build cut off? Make or fetch it again"
    )]
    TruncatedTar { file: Arc<str>, at: u64, entry: Place },
    /// A header of the tar makes no sense.
    #[error(
        "{file}: the tar archive is damaged at byte {at}, in {entry}: {what}; make or fetch it again"
    )]
    CorruptTar { file: Arc<str>, at: u64, entry: Place, what: &'static str },
    /// The compressed data stops before its end.
    #[error(
        "{file}: truncated {wrapping} after {bytes} bytes; was the download or the build cut off? \
         Make or fetch it again"
    )]
    TruncatedWrapping { file: Arc<str>, wrapping: Wrapping, bytes: u64 },
    /// The compressed data is not what was compressed.
    #[error("{file}: corrupt {wrapping}, noticed at byte {bytes}: {what}; make or fetch it again")]
    CorruptWrapping { file: Arc<str>, wrapping: Wrapping, bytes: u64, what: String },
    /// Decompressing would take more memory than is allowed.
    #[error(
        "{file}: its {wrapping} compression needs more than {limit_mib} MiB of memory to read; \
         decompress it first: `{command} {file} | pushimg - DEST`"
    )]
    WindowTooLarge { file: Arc<str>, wrapping: Wrapping, limit_mib: u64, command: &'static str },
    /// The thread that reads and decompresses is gone without a word.
    #[error("{file}: reading stopped unexpectedly; this is a fault in pushimg, please report it")]
    ReaderGone { file: Arc<str> },

    /// A blob is not what its digest says.
    #[error(
        "{file}: blob {listed} is damaged: its bytes are {actual}; make the layout again (nothing was \
         tagged)"
    )]
    DamagedBlob { file: Arc<str>, listed: Digest, actual: Digest },
    /// A blob became shorter meanwhile.
    #[error("{file}: blob {digest} ended early; is the file being written? Push it again")]
    CutBlob { file: Arc<str>, digest: Digest },
    /// More entries than any image has.
    #[error(
        "{file} holds more than {limit} files or very long names, where the archive of an image holds \
         one file for each layer; is it a root file system? Import it first: `docker import`"
    )]
    TooManyEntries { file: Arc<str>, limit: usize },
    /// The tar of a root file system, or of a single layer.
    #[error(
        "{file} is a root file system (it holds {entry:?}), not a docker archive; make an image of \
         it first: `docker import {file} NAME`, then `docker save NAME`"
    )]
    RootFileSystem { file: Arc<str>, entry: String },
    /// A tar, but no docker archive.
    #[error(
        "{file} is a tar archive without manifest.json or oci-layout, so it is no docker archive and \
         no OCI layout; make one with `nix build .#docker`, `docker save` or `podman save`"
    )]
    NoManifest { file: Arc<str> },
    /// A JSON file of the archive is longer than what is read of it.
    #[error(
        "{file}: {entry:?} is {size} bytes long, more than the {limit} that are read of it; this is \
         not what an image builder writes"
    )]
    JsonTooLong { file: Arc<str>, entry: String, size: u64, limit: u64 },
    /// manifest.json is not what it should be.
    #[error(
        "{file}: manifest.json is not the one of a docker archive: {source}; make the archive again"
    )]
    MalformedManifest { file: Arc<str>, source: serde_json::Error },
    /// manifest.json is an empty list.
    #[error("{file}: manifest.json lists no image; name one when saving: `docker save IMAGE`")]
    NoImages { file: Arc<str> },
    /// manifest.json names something that is not in the archive.
    #[error(
        "{file}: manifest.json names the {role} {entry:?}, which is not in the archive{via}; it is \
         incomplete, make it again"
    )]
    Missing { file: Arc<str>, role: Role, entry: String, via: Via },
    /// Links that lead back to themselves, or through too many others.
    #[error("{file}: the link {entry:?} leads in a circle; the archive is broken, make it again")]
    LinkCircle { file: Arc<str>, entry: String },
    /// The image config cannot be used.
    #[error("{file}: config {entry:?}: {source}; the archive is broken, make it again")]
    BadConfig { file: Arc<str>, entry: String, source: ConfigError },
    /// manifest.json and config disagree.
    #[error(
        "{file}: config {entry:?} lists {diff_ids} diff IDs, but manifest.json lists {layers} \
         layers for it; the archive is broken, make it again"
    )]
    LayerCount { file: Arc<str>, entry: String, diff_ids: usize, layers: usize },
    /// One stored layer is said to be two different ones.
    #[error(
        "{file}: layer {entry:?} is listed under two diff IDs, {one} and {other}, and can only be \
         one of them; the archive is broken, make it again"
    )]
    TwoDiffIds { file: Arc<str>, entry: String, one: DiffId, other: DiffId },
    /// A layer that is neither a tar nor compressed in a way that images use.
    #[error(
        "{file}: layer {entry:?} is neither a tar nor gzip or zstd; the archive is broken, make it \
         again"
    )]
    NotALayer { file: Arc<str>, entry: String },
    /// A file with holes, where the bytes themselves are needed.
    #[error(
        "{file}: {role} {entry:?} is stored as a sparse file, which is not read; make the archive \
         without `tar --sparse`"
    )]
    Sparse { file: Arc<str>, role: Role, entry: String },
    /// The archive has so much JSON that not all was kept.
    #[error(
        "{file}: config {entry:?} was passed over, as the archive holds more JSON than the \
         {limit_mib} MiB kept while streaming; save it as a plain tar file and push that"
    )]
    TooMuchJson { file: Arc<str>, entry: String, limit_mib: u64 },
    /// What manifest.json calls a config does not look like one.
    #[error("{file}: config {entry:?} is not JSON; the archive is broken, make it again")]
    ConfigNotJson { file: Arc<str>, entry: String },

    /// A stream that cannot be put into a temporary file.
    #[error(
        "{file}: cannot spool it in {folder}, as an archive whose blobs come first is: {source}; set \
         TMPDIR to a directory with room, or give the archive as a plain tar file, and no copy is \
         needed"
    )]
    Spool { file: Arc<str>, folder: String, source: io::Error },
    /// A stream that proves to be a layout when its blobs have gone by.
    #[error(
        "{file} is an OCI layout behind other files, which shows too late while it streams by; make \
         a plain tar file of it: `{command} {file} > image.tar`, then push image.tar"
    )]
    LateLayout { file: Arc<str>, command: &'static str },
    /// A layout of a version that is not known.
    #[error(
        "{file}: {entry} says version {found:?}, and only {known} is known; convert it with the \
         program that made it, or with `skopeo copy`"
    )]
    LayoutVersion { file: Arc<str>, entry: &'static str, found: String, known: &'static str },
    /// A file that every layout has.
    #[error("{file}: {entry} is missing, so the layout is incomplete; make it again")]
    LayoutFileMissing { file: Arc<str>, entry: &'static str },
    /// JSON of a layout that is not what it should be.
    #[error("{file}: {of} is broken: {what}; make the layout again")]
    LayoutJson { file: Arc<str>, of: Listing, what: String },
    /// The layout lists no image.
    #[error("{file}: index.json lists no image; was anything copied into this layout?")]
    EmptyLayout { file: Arc<str> },
    /// A blob that a manifest lists is not there.
    #[error(
        "{file}: {by} lists {digest} ({role}), which is missing; the layout is incomplete, make it \
         again"
    )]
    BlobMissing { file: Arc<str>, by: Listing, role: Role, digest: Digest },
    /// A manifest that an index lists is not there, as where only one platform was exported.
    #[error(
        "{file}: {by} lists {digest}{platform}, which is missing; if only some platforms were \
         put into this layout, choose one with `--platform OS/ARCHITECTURE`, else make it again"
    )]
    ChildMissing { file: Arc<str>, by: Listing, digest: Digest, platform: String },
    /// A blob is longer or shorter than a manifest says.
    #[error(
        "{file}: {digest} ({role}) is {actual} bytes long, not {listed} as {by} says; the layout is \
         damaged, make it again"
    )]
    BlobSize { file: Arc<str>, by: Listing, role: Role, digest: Digest, listed: u64, actual: u64 },
    /// A manifest or config is not what its digest says.
    #[error(
        "{file}: what is stored as {listed} ({role}, listed by {by}) hashes to {actual}; the layout \
         is damaged, make it again"
    )]
    BlobDigest { file: Arc<str>, by: Listing, role: Role, listed: Digest, actual: Digest },
    /// A digest of an algorithm that is not computed here.
    #[error(
        "{file}: {by} lists {digest}, and of digests only SHA-256 is supported; copy the image with \
         a program that computes those"
    )]
    DigestAlgorithm { file: Arc<str>, by: Listing, digest: Digest },
    /// More, or deeper, than any image has.
    #[error("{file} holds more than {limit} {what}, which is not what an image builder writes")]
    LayoutTooLarge { file: Arc<str>, limit: u64, what: &'static str },
    /// The user has to say which.
    #[error(
        "{file} holds {count} images: {listed}; choose one with `{file}:TAG`, `{file}@sha256:…`, \
         `--image NAME` or, where they differ by it, `--platform OS/ARCHITECTURE`"
    )]
    SeveralImages { file: Arc<str>, count: usize, listed: String },
    /// There is no image of the name or digest asked for.
    #[error("{file} holds no image {wanted:?}; it holds {listed}")]
    NoSuchImage { file: Arc<str>, wanted: String, listed: String },
    /// There is no image for the platform asked for.
    #[error("{file} holds no image for {wanted:?}; it holds those for {listed}")]
    NoSuchPlatform { file: Arc<str>, wanted: String, listed: String },
    /// An executable without the permission to be one, and none of Nix's wrappers.
    #[error(
        "{file} is {what}, but may not be executed, and is not what Nix's streamLayeredImage makes; \
         if it writes an image, make it executable: `chmod +x {file}`"
    )]
    NotExecutable { file: Arc<str>, what: &'static str },
    /// An executable that would have to be run.
    #[error(
        "{file} is a program that would have to be run to have its image, which --no-exec forbids \
         ({why}); leave --no-exec out, or run it and pipe its output into `pushimg - DEST`"
    )]
    MayNotRun { file: Arc<str>, why: String },
    /// An executable that cannot be run.
    #[error(
        "{file} cannot be run: {source}; was it built for this machine, and is there the interpreter \
         that its first line names?"
    )]
    CannotRun { file: Arc<str>, source: io::Error },
    /// An executable that failed while it wrote its image.
    #[error("{file} was run to have its image, and failed ({status}){said}")]
    ProgramFailed { file: Arc<str>, status: String, said: Said },
    /// An executable that is no image's.
    #[error(
        "{file} was run to have its image, but wrote {what} to its standard output where a docker \
         archive should come; give what Nix's streamLayeredImage makes, or an archive"
    )]
    NoArchiveWritten { file: Arc<str>, what: &'static str },
    /// What a streamed image is made of cannot be read.
    #[error("{file}: {conf} does not say what the image is made of: {what}; build the image again")]
    BadConf { file: Arc<str>, conf: Arc<str>, what: String },
    /// Something that a streamed image is made of is gone.
    #[error(
        "{file} needs {path}, which is not there (did the Nix store collect its garbage?); fetch or \
         build it with `nix-store --realise {path}`, or build the image again"
    )]
    NotInStore { file: Arc<str>, path: Arc<str> },
    /// The checksum of the layer that lies ready is none.
    #[error("{path} does not hold the SHA-256 digest of a layer; build the image again")]
    BadChecksum { path: Arc<str> },
    /// A base image whose config is odd.
    #[error("{base}, on which the image is built, cannot be read: {what}; build it again")]
    BadBase { base: Arc<str>, what: String },
    /// A base image whose layers have names that only Python knows how to show.
    #[error(
        "{file}: its base image has layers with unusual names; run it and pipe its output into \
         `pushimg - DEST`"
    )]
    UnusualBase { file: Arc<str> },
    /// A device, a pipe or a socket, of which no layer is made.
    #[error("{path} is neither a file nor a folder nor a symlink; build what holds it without it")]
    NotStorable { path: Arc<str> },
    /// More files in one layer than are kept in mind.
    #[error(
        "a layer holds more than {limit} files; build the image with more layers (`maxLayers`), or \
         run it and pipe its output into `pushimg - DEST`"
    )]
    TooManyFiles { limit: usize },
    /// JSON, but not what nix2container writes.
    #[error(
        "{file} is {what}, not an image; of JSON files those are read that nix2container's \
         buildImage leaves: `nix build .#IMAGE`, then give ./result"
    )]
    NotNix2container { file: Arc<str>, what: &'static str },
    /// A file of nix2container that cannot be read.
    #[error(
        "{file}: not the JSON of a nix2container image: {source}; build the image again, with a \
         nix2container not older than 1.0"
    )]
    MalformedNix2container { file: Arc<str>, source: serde_json::Error },
    /// One of another version.
    #[error(
        "{file}: the nix2container image is of {found}, and version 1 is understood; write an \
         archive with `nix run .#IMAGE.copyTo -- docker-archive:image.tar` and push image.tar"
    )]
    Nix2containerVersion { file: Arc<str>, found: String },
    /// One longer than what is read.
    #[error(
        "{file} is a JSON file of more than {limit_mib} MiB, which no nix2container image has; \
         give the image itself"
    )]
    Nix2containerTooLong { file: Arc<str>, limit_mib: u64 },
    /// A layer that cannot be made of what the file says.
    #[error(
        "{file}: layer {layer}, of {entry:?}: {fault}; change the image's Nix expression and build \
         it again (nothing was tagged)"
    )]
    Nix2containerLayer { file: Arc<str>, layer: usize, entry: String, fault: Box<LayerFault> },
    /// What a layer is to be made of is not there.
    #[error(
        "{file}: layer {layer} needs {path}, which is not there; fetch or build it with \
         `nix-store --realise {realise}`, or build the image again (nothing was tagged)"
    )]
    StorePathGone { file: Arc<str>, layer: usize, path: String, realise: String },
    /// A layer of another length than it had.
    #[error(
        "{file}: layer {layer}, of {entry:?}, is {actual} bytes long, but the file says {listed}: \
         the store has changed since the image was built, or an older nix2container built it; \
         check with `nix-store --verify --check-contents`, build the image again (nothing was \
         tagged)"
    )]
    LayerLength { file: Arc<str>, layer: usize, entry: String, listed: u64, actual: u64 },
    /// A blob that is not the one it should be.
    #[error(
        "{file}: layer {layer}, of {entry:?}, has the digest {actual}, but the file says {listed}: \
         it is damaged, or was changed; build the image again (nothing was tagged)"
    )]
    OtherBlob { file: Arc<str>, layer: usize, entry: String, listed: Digest, actual: Digest },
}

impl Error {
    /// The error behind a failed read of a layer's content.
    ///
    /// Contents fail with an [`io::Error`] that holds one of these; `entry` is only used for one
    /// that came from elsewhere.
    pub fn from_read(error: io::Error, entry: &str) -> Self {
        match error.downcast::<Self>() {
            Ok(ours) => ours,
            Err(source) => Self::Read { file: entry.into(), at: 0, source },
        }
    }
}

/// Where in a tar something happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// Before or in the very first header.
    Start,
    /// In the content of this entry.
    Content(String),
    /// In the header that follows this entry.
    After(String),
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Start => f.write_str("the first header"),
            Self::Content(entry) => write!(f, "entry {entry:?}"),
            Self::After(entry) => write!(f, "the header after entry {entry:?}"),
        }
    }
}

/// The JSON of a layout that lists others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listing {
    /// A file of the layout.
    File(&'static str),
    /// A manifest or an index.
    Manifest(Digest),
}

impl std::fmt::Display for Listing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(name) => f.write_str(name),
            Self::Manifest(digest) => write!(f, "manifest {digest}"),
        }
    }
}

/// What manifest.json names an entry as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// An image config.
    Config,
    /// A layer.
    Layer,
    /// The list of images itself; of a layout, a manifest or an index.
    Manifest,
    /// A layout's file, of which no more is known.
    Blob,
}

impl std::fmt::Display for Role {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Config => "config",
            Self::Layer => "layer",
            Self::Manifest => "manifest",
            Self::Blob => "blob",
        })
    }
}

/// The link through which a missing entry was looked for, if any.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Via(pub Option<String>);

impl std::fmt::Display for Via {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.0 {
            Some(target) => write!(f, " (it is a link to {target:?}, which is missing)"),
            None => Ok(()),
        }
    }
}

/// The last lines that a program wrote to stderr.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said(pub Vec<String>);

impl std::fmt::Display for Said {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0.is_empty() {
            return f.write_str(" without a word on its standard error; run it by itself");
        }
        f.write_str("; the last that it said:")?;
        self.0.iter().try_for_each(|line| write!(f, "\n  {line}"))
    }
}
