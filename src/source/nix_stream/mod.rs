//! The output of `dockerTools.streamLayeredImage`: an executable that writes a docker archive. It
//! need not be run, because everything that it puts into the archive is in the Nix store.
//!
//! Input: an executable. Output: a source that makes the layers itself, with exactly the bytes that
//! the executable would write. [`wrapper`], [`script`] and [`conf`] find out what the image is made
//! of. [`walk`], [`header`] and [`layer`] make a layer, [`config`] and [`json`] the config. If one
//! of them finds something unknown, the executable is run instead ([`program`]).

mod ahead;
mod base;
mod code_points;
mod conf;
mod config;
mod error;
mod header;
mod json;
mod layer;
mod program;
mod refusal;
mod script;
mod source;
#[cfg(test)]
mod tests;
mod time;
mod walk;
mod words;
mod wrapper;

use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use self::base::Base;
use self::conf::Conf;
use self::error::NixStreamError;
use self::refusal::Refusal;
use self::script::Version;
use self::source::{Customisation, NixStream};
use super::archive::Contents;
use super::error::Error;
use super::file::FileError;
use super::location::{ImagesKnown, Options};
use super::open_file::OpenFile;
use super::printable::printable_path;
use super::regular_file::RegularFile;
use crate::image::Digest;

/// Opens an executable.
pub fn open(opened: OpenFile) -> Result<Contents, Error> {
    let what = if opened.head.starts_with(b"#!") { "a script" } else { "a program" };
    // Never empty: only a file with a path is opened here.
    let path = opened.path.clone().unwrap_or_default();
    let why = match understand(&opened) {
        Ok((conf, version, base, customisation)) => {
            let OpenFile { name, progress, .. } = opened;
            let store_mode = if version >= Version::WritableStore { 0o755 } else { 0o555 };
            let source = NixStream::new(name, conf, store_mode, base, customisation, progress);
            return Ok(Contents::Layers(Box::new(source)));
        }
        Err(Refusal::Broken(error)) => return Err(error),
        Err(Refusal::Unknown(why)) => why,
    };
    let OpenFile { name: file, metadata, images, may_run, progress, note, .. } = opened;
    if metadata.permissions().mode() & 0o111 == 0 {
        return Err(NixStreamError::NotExecutable { file, what }.into());
    }
    if !may_run {
        return Err(NixStreamError::MayNotRun { file, why }.into());
    }
    note(format!("{file} is run to have its image: {why}"));
    program::open(&path, file, images, progress, note)
}

/// Reads all files that describe the image.
fn understand(opened: &OpenFile) -> Result<(Conf, Version, Option<Base>, Customisation), Refusal> {
    let image = &opened.name;
    if opened.metadata.len() > wrapper::MAX_WRAPPER_BYTES {
        return Err(Refusal::unknown("it is longer than the wrappers that Nix makes"));
    }
    let mut bytes = opened.head.clone();
    (&opened.file).take(wrapper::MAX_WRAPPER_BYTES).read_to_end(&mut bytes).map_err(|source| {
        let (file, at) = (image.clone(), bytes.len() as u64);
        Error::from(FileError::Read { file, at, source })
    })?;
    let wrapper = wrapper::parse(&bytes)?;

    let script = read(image, &wrapper.script, script::MAX_SCRIPT_BYTES)?
        .and_then(|bytes| String::from_utf8(bytes).ok())
        .ok_or_else(|| Refusal::unknown("its stream script is no text, or a long one"))?;
    let version = script::version(&script, |path| {
        fs::canonicalize(path).ok()?.into_os_string().into_string().ok()
    })?;
    let broken = |what| {
        NixStreamError::BadConf { file: image.clone(), conf: printable_path(&wrapper.conf), what }
            .into()
    };
    let bytes = read(image, &wrapper.conf, conf::MAX_CONF_BYTES)?;
    let bytes = bytes.ok_or_else(|| broken("it is longer than any conf".into()))?;
    let mut conf =
        conf::parse(&bytes, version, SystemTime::now()).map_err(|fault| fault.or_error(broken))?;
    if let Some(tag) = wrapper.repo_tag.filter(|tag| !tag.is_empty()) {
        if version < Version::RepoTag {
            return Err(Refusal::unknown("its wrapper gives a name that its script does not take"));
        }
        conf.repo_tag = tag;
    }

    for path in conf.store_layers.iter().flatten().chain([&conf.customisation_layer]) {
        is_there(image, Path::new(path))?;
    }
    let customisation = customisation(image, &conf.customisation_layer)?;
    let base = match &conf.from_image {
        Some(path) => {
            // This fails if it is not a regular file. Opening a pipe could wait forever.
            RegularFile::open(path).map_err(|error| cannot_read(image, path, error))?;
            let progress = Box::new(|_, _| {});
            let images = ImagesKnown::WhenTold;
            let note = opened.note.clone();
            let options = Options { images, may_run: false, progress, note };
            Some(Base::open(path, options)?)
        }
        None => None,
    };
    Ok((conf, version, base, customisation))
}

/// The last layer, whose tar exists already.
fn customisation(image: &Arc<str>, path: &str) -> Result<Customisation, Error> {
    let below = |name| Path::new(path).join(name);
    let (sum, tar) = (below("checksum"), below("layer.tar"));
    let bad = || NixStreamError::BadChecksum { path: printable_path(&sum) };
    let text = read(image, &sum, 1000)?.and_then(|bytes| String::from_utf8(bytes).ok());
    let digest = text.and_then(|text| Digest::from_sha256_hex(text.trim()).ok()).ok_or_else(bad)?;
    let file = RegularFile::open(&tar).map_err(|error| cannot_read(image, &tar, error))?;
    let (path, size, diff_id) = (path.to_owned(), file.left(), digest.into());
    Ok(Customisation { path, tar, size, diff_id })
}

/// The content of a file; `None` if it is longer than `most`.
fn read(image: &Arc<str>, path: &Path, most: u64) -> Result<Option<Vec<u8>>, Error> {
    let mut bytes = Vec::new();
    RegularFile::open(path)
        .and_then(|file| file.take(most + 1).read_to_end(&mut bytes))
        .map_err(|error| cannot_read(image, path, error))?;
    Ok((bytes.len() as u64 <= most).then_some(bytes))
}

fn is_there(image: &Arc<str>, path: &Path) -> Result<(), Error> {
    fs::symlink_metadata(path).map(drop).map_err(|error| cannot_read(image, path, error))
}

fn cannot_read(image: &Arc<str>, path: &Path, source: io::Error) -> Error {
    let path = printable_path(path);
    match source.kind() {
        io::ErrorKind::NotFound => NixStreamError::NotInStore { file: image.clone(), path }.into(),
        _ => FileError::Store { path, source }.into(),
    }
}
