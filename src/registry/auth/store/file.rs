//! A credentials file that is being changed: it is locked, read, and replaced.

use std::fs::File;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use zeroize::Zeroizing;

use super::super::error::CredentialError;

/// How long to wait for another process's lock: its credential program may ask for a passphrase.
const LONGEST_WAIT: Duration = Duration::from_secs(40);
/// The pause between two attempts to get the lock.
const PAUSE: Duration = Duration::from_millis(20);

/// A file that is locked, so that no other pushimg process changes it.
pub struct LockedConfig {
    /// The path as the user knows it.
    named: PathBuf,
    /// The path after symlinks were followed.
    path: PathBuf,
    bytes: Zeroizing<Vec<u8>>,
    /// The locked folder. The lock ends when this value is dropped.
    _lock: File,
}

/// The fields of a JSON object in their order, with the values as they are written.
pub type FileFields = Vec<(String, Box<RawValue>)>;

impl LockedConfig {
    /// Creates the folder if it is missing, locks it, and reads the file; a missing file is empty.
    pub async fn lock(named: &Path) -> Result<Self, CredentialError> {
        let failed = |source| write_error(named, source);
        let path = target(named).map_err(failed)?;
        let folder = path.parent().unwrap_or(Path::new("/")).to_owned();
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder).map_err(failed)?;
        let lock = File::open(&folder).map_err(failed)?;
        let began = tokio::time::Instant::now();
        // On a file system without locks, go on without a lock.
        while flock(&lock, FlockOperation::NonBlockingLockExclusive)
            == Err(rustix::io::Errno::WOULDBLOCK)
        {
            if began.elapsed() > LONGEST_WAIT {
                return Err(failed(std::io::Error::other("another process changes it")));
            }
            tokio::time::sleep(PAUSE).await;
        }
        let bytes = match std::fs::metadata(&path) {
            Ok(meta) if !meta.is_file() => {
                return Err(failed(std::io::Error::other("it is not a regular file")));
            }
            Ok(_) => std::fs::read(&path).map_err(failed)?,
            Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(failed(error)),
        };
        let named = named.to_owned();
        Ok(Self { named, path, bytes: Zeroizing::new(bytes), _lock: lock })
    }

    /// The path as the user knows it.
    pub fn named(&self) -> &Path {
        &self.named
    }

    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Replaces the file by one with changed `auths`. If `change` returns `None`, nothing is
    /// written.
    pub fn change_auths(
        &self,
        change: impl FnOnce(&mut FileFields) -> Option<()>,
    ) -> Result<(), CredentialError> {
        let failed = |problem| write_error(&self.named, std::io::Error::other(problem));
        let not_object = |error: serde_json::Error| {
            let (line, column) = (error.line(), error.column());
            failed(format!(
                "it is not a JSON object, or its \"auths\" is not one: see line {line}, column {column}"
            ))
        };
        let bytes = self.bytes.trim_ascii();
        let text = text_of(bytes).ok_or_else(|| failed("it is not text".to_owned()))?;
        let mut fields = match text.as_str() {
            "" => FileFields::new(),
            text => serde_json::from_str::<Object>(text).map_err(not_object)?.0,
        };
        // As in Go's decoder, the case of the name does not matter, and the last field wins.
        let index = fields.iter().rposition(|(name, _)| name.eq_ignore_ascii_case("auths"));
        let mut auths = match index.map(|index| fields[index].1.get()) {
            None | Some("null") => FileFields::new(),
            Some(text) => serde_json::from_str::<Object>(text).map_err(not_object)?.0,
        };
        if change(&mut auths).is_none() {
            return Ok(());
        }
        let text = written(&auths, 2);
        // Cannot fail, because it is made of valid JSON.
        let value = RawValue::from_string(text.to_string()).map_err(not_object)?;
        match index {
            Some(index) => fields[index].1 = value,
            None => fields.push(("auths".to_owned(), value)),
        }
        self.replace(&written(&fields, 1)).map_err(|error| write_error(&self.named, error))
    }

    fn replace(&self, text: &str) -> std::io::Result<()> {
        let folder = self.path.parent().unwrap_or(Path::new("/"));
        // The temporary file has mode 0600.
        let mut file = tempfile::Builder::new().prefix(".config.json.").tempfile_in(folder)?;
        file.write_all(&bytes_of(text))?;
        file.write_all(b"\n")?;
        file.as_file().sync_all()?;
        file.persist(&self.path).map_err(|error| error.error)?;
        Ok(())
    }
}

/// The first of 256 private-use characters. In memory each one represents a byte that is not valid
/// UTF-8. Other programs read such a file, so its bytes must not change.
const STANDS_FOR_BYTE: u32 = 0x10_FE00;

/// The bytes as text. `None` if the text itself contains such a character.
fn text_of(bytes: &[u8]) -> Option<Zeroizing<String>> {
    let mut text = Zeroizing::new(String::with_capacity(bytes.len()));
    for chunk in bytes.utf8_chunks() {
        if chunk.valid().chars().any(|c| byte_of(c).is_some()) {
            return None;
        }
        text.push_str(chunk.valid());
        text.extend(
            chunk
                .invalid()
                .iter()
                .filter_map(|byte| char::from_u32(STANDS_FOR_BYTE + u32::from(*byte))),
        );
    }
    Some(text)
}

/// The byte that a character represents, if it is such a character.
fn byte_of(c: char) -> Option<u8> {
    u32::from(c).checked_sub(STANDS_FOR_BYTE).and_then(|byte| u8::try_from(byte).ok())
}

/// The bytes of a text made by [`text_of`].
fn bytes_of(text: &str) -> Zeroizing<Vec<u8>> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(text.len()));
    for c in text.chars() {
        match byte_of(c) {
            Some(byte) => bytes.push(byte),
            None => bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    bytes
}

/// The object as text, indented with tabs as docker does it.
fn written(fields: &FileFields, depth: usize) -> Zeroizing<String> {
    let mut text = Zeroizing::new(String::from("{"));
    for (i, (name, value)) in fields.iter().enumerate() {
        let comma = if i == 0 { "\n" } else { ",\n" };
        let name = serde_json::Value::from(name.as_str());
        text.push_str(&format!("{comma}{}{name}: ", "\t".repeat(depth)));
        text.push_str(value.get());
    }
    if !fields.is_empty() {
        text.push('\n');
        text.push_str(&"\t".repeat(depth - 1));
    }
    text.push('}');
    text
}

/// Follows symlinks. The target of the last one need not exist.
fn target(path: &Path) -> std::io::Result<PathBuf> {
    let mut path = std::path::absolute(path)?;
    // Linux follows at most 40 links.
    for _ in 0..40 {
        match std::fs::read_link(&path) {
            Ok(link) => path = path.parent().unwrap_or(Path::new("/")).join(link),
            Err(_) => return Ok(path),
        }
    }
    Err(std::io::Error::other("too many symlinks lead on from it"))
}

fn write_error(path: &Path, source: std::io::Error) -> CredentialError {
    CredentialError::Write { path: path.to_owned(), source: Arc::new(source) }
}

struct Object(FileFields);

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;

        impl<'de> Visitor<'de> for InOrder {
            type Value = Object;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object, A::Error> {
                let mut fields = FileFields::new();
                while let Some(field) = map.next_entry()? {
                    fields.push(field);
                }
                Ok(Object(fields))
            }
        }

        deserializer.deserialize_map(InOrder)
    }
}
