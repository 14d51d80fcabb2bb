//! Tar headers as Go's `archive/tar` writes them if no format is requested: ustar if every field
//! fits, otherwise a PAX header, and then a header whose fields hold as much as fits (POSIX.1-2017
//! `pax`).
//!
//! Input: the fields of an entry. Output: its headers, with exactly the bytes that Go writes.

use super::path;
use crate::source::tar::BLOCK;
use crate::source::ustar::{FileKind, Ustar, record};

/// The time of every entry, in seconds since 1970, as in the Nix store.
const MTIME: u64 = 1;

/// Lengths of fields (POSIX.1-2017 `pax`, "ustar Interchange Format").
const NAME: usize = 100;
const PREFIX: usize = 155;
const OWNER_NAME: usize = 32;

/// The largest number that fits into a mode, uid or gid: seven octal digits.
pub const LARGEST_ID: i64 = 0o7_777_777;

/// The largest size that fits: eleven octal digits.
const LARGEST_SIZE: u64 = 0o77_777_777_777;

/// The fields of an entry. Its texts must not contain a zero byte.
#[derive(Clone, Copy, Debug)]
pub struct Header<'a> {
    /// The whole name, clean.
    pub name: &'a [u8],
    /// Regular file, symbolic link or directory.
    pub kind: FileKind,
    /// The permissions, at most [`LARGEST_ID`].
    pub mode: u32,
    /// The owner and the group.
    pub owner: EntryOwner<'a>,
    /// Length of the content; 0 where there is none.
    pub size: u64,
    /// Where a symbolic link points to; empty for others.
    pub link: &'a [u8],
}

/// The owner of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntryOwner<'a> {
    pub uid: i64,
    pub gid: i64,
    pub uname: &'a str,
    pub gname: &'a str,
}

impl EntryOwner<'_> {
    /// The default owner.
    pub const ROOT: EntryOwner<'static> =
        EntryOwner { uid: 0, gid: 0, uname: "root", gname: "root" };
}

impl Header<'_> {
    /// The header, with a PAX header before it if one is needed.
    pub fn bytes(&self) -> Vec<u8> {
        let records = self.records();
        let split = split(self.name);
        // The record of a long name is not needed if the name can be split.
        let only_name = !fits(self.name, NAME) && records.len() == 1;
        match split {
            Some((prefix, name)) if only_name => self.ustar(prefix, name).into(),
            _ if records.is_empty() => self.ustar(b"", self.name).into(),
            _ => self.pax(&records),
        }
    }

    /// PAX records for the values that do not fit into the fields, sorted by key.
    fn records(&self) -> Vec<(&'static str, Vec<u8>)> {
        let text =
            |key, value: &[u8], length| (!fits(value, length)).then(|| (key, value.to_vec()));
        let id = |key, value: i64| {
            (!(0..=LARGEST_ID).contains(&value)).then(|| (key, value.to_string().into_bytes()))
        };
        let size = self.size;
        [
            id("gid", self.owner.gid),
            text("gname", self.owner.gname.as_bytes(), OWNER_NAME),
            text("linkpath", self.link, NAME),
            text("path", self.name, NAME),
            (size > LARGEST_SIZE).then(|| ("size", size.to_string().into_bytes())),
            id("uid", self.owner.uid),
            text("uname", self.owner.uname.as_bytes(), OWNER_NAME),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    fn ustar(&self, prefix: &[u8], name: &[u8]) -> [u8; BLOCK] {
        let EntryOwner { uname, gname, .. } = self.owner;
        let (name, link) = (cut(name, NAME), cut(self.link, NAME));
        let (uname, gname) = (uname.as_bytes(), gname.as_bytes());
        Ustar { name: &name, link: &link, uname, gname, prefix, ..self.numbers() }.block()
    }

    fn pax(&self, records: &[(&str, Vec<u8>)]) -> Vec<u8> {
        let data: Vec<u8> = records.iter().flat_map(|(key, value)| record(key, value)).collect();
        let (folder, last) = match self.name.iter().rposition(|&byte| byte == b'/') {
            Some(slash) => self.name.split_at(slash + 1),
            None => (&b""[..], self.name),
        };
        let mut name = ascii(&path::clean(&[folder, b"PaxHeaders.0/", last].concat()));
        name.truncate(NAME);
        while name.ends_with(b"/") {
            name.pop();
        }
        let size = data.len() as u64;
        let extended = Ustar { name: &name, kind: b'x', size, ..Ustar::default() };
        let mut bytes = [extended.block().as_slice(), &data].concat();
        bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);

        let EntryOwner { uname, gname, .. } = self.owner;
        let text = |text: &[u8], length| cut(&ascii(text), length);
        let fields = Ustar {
            name: &text(self.name, NAME),
            link: &text(self.link, NAME),
            uname: &text(uname.as_bytes(), OWNER_NAME),
            gname: &text(gname.as_bytes(), OWNER_NAME),
            ..self.numbers()
        };
        bytes.extend(fields.block());
        bytes
    }

    /// The fields that are numbers; 0 for one that does not fit.
    fn numbers(&self) -> Ustar<'static> {
        let id = |value: i64| u64::try_from(value).ok().filter(|_| value <= LARGEST_ID);
        Ustar {
            kind: self.kind.flag(),
            mode: self.mode.into(),
            uid: id(self.owner.uid).unwrap_or(0),
            gid: id(self.owner.gid).unwrap_or(0),
            size: Some(self.size).filter(|&size| size <= LARGEST_SIZE).unwrap_or(0),
            mtime: MTIME,
            device: Some(0),
            ..Ustar::default()
        }
    }
}

/// The beginning of the text that fits. A slash at its end would make the entry a folder, so the
/// first of the slashes at the end becomes a zero byte, as in Go.
fn cut(text: &[u8], length: usize) -> Vec<u8> {
    let mut kept = text[..text.len().min(length)].to_vec();
    if text.len() > length && kept.ends_with(b"/") {
        let slashes = kept.iter().rev().take_while(|&&byte| byte == b'/').count();
        kept[length - slashes] = 0;
    }
    kept
}

fn fits(text: &[u8], length: usize) -> bool {
    text.len() <= length && text.is_ascii()
}

/// The text without the bytes that are not ASCII.
fn ascii(text: &[u8]) -> Vec<u8> {
    text.iter().copied().filter(u8::is_ascii).collect()
}

/// Splits a long name at a slash into the prefix and the name of a ustar header, if both parts fit.
/// The last possible slash is used.
fn split(name: &[u8]) -> Option<(&[u8], &[u8])> {
    if name.len() <= NAME || !name.is_ascii() {
        return None;
    }
    let begin = &name[..name.len().min(PREFIX + 1)];
    let slash = begin.iter().rposition(|&byte| byte == b'/').filter(|&slash| slash > 0)?;
    let (prefix, last) = (&name[..slash], &name[slash + 1..]);
    (1..=NAME).contains(&last.len()).then_some((prefix, last))
}
