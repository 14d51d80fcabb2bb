//! Tar headers as Go's `archive/tar` writes them where no format is asked for: ustar where every
//! field fits, else a PAX header before one whose fields hold what fits (POSIX.1-2017 `pax`).
//!
//! Comes in: what an entry is. Goes out: its headers' bytes, the same as Go's to the last one.

use super::path;
use crate::source::tar::BLOCK;

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

/// What an entry is. No text of it holds a zero byte.
#[derive(Clone, Copy, Debug)]
pub struct Header<'a> {
    /// The whole name, clean.
    pub name: &'a [u8],
    /// Regular file, symbolic link or directory.
    pub kind: Kind,
    /// The permissions, at most [`LARGEST_ID`].
    pub mode: u32,
    /// The owner and the group.
    pub owner: Owner<'a>,
    /// Length of the content; 0 where there is none.
    pub size: u64,
    /// Where a symbolic link points to; empty for others.
    pub link: &'a [u8],
}

/// Whom an entry belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner<'a> {
    pub uid: i64,
    pub gid: i64,
    pub uname: &'a str,
    pub gname: &'a str,
}

impl Owner<'_> {
    /// The owner of everything, unless told otherwise.
    pub const ROOT: Owner<'static> = Owner { uid: 0, gid: 0, uname: "root", gname: "root" };
}

/// The kinds of entries that there are in a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    File,
    Symlink,
    Folder,
}

impl Header<'_> {
    /// The header, and the PAX header before it where one is needed.
    pub fn bytes(&self) -> Vec<u8> {
        let records = self.records();
        let split = split(self.name);
        // A long name is the only record that may turn out not to be needed.
        let only_name = !fits(self.name, NAME) && records.len() == 1;
        match split {
            Some((prefix, name)) if only_name => self.ustar(prefix, name).into(),
            _ if records.is_empty() => self.ustar(b"", self.name).into(),
            _ => self.pax(&records),
        }
    }

    /// What does not fit into the fields, as PAX records, by their keys.
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
        let mut block = self.fields(name, |text| text.to_vec());
        block.text(345, PREFIX, prefix);
        block.finish()
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
        let mut header = Block::new(b'x');
        header.text(0, NAME, &name);
        for (at, length) in [(100, 8), (108, 8), (116, 8), (136, 12)] {
            header.octal(at, length, 0);
        }
        header.octal(124, 12, data.len() as u64);

        let mut bytes = header.finish().to_vec();
        bytes.extend(data);
        bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
        bytes.extend(self.fields(self.name, ascii).finish());
        bytes
    }

    /// All fields but the prefix. What does not fit is cut, or zero.
    fn fields(&self, name: &[u8], text: fn(&[u8]) -> Vec<u8>) -> Block {
        let id = |value: i64| u64::try_from(value).ok().filter(|_| value <= LARGEST_ID);
        let mut block = Block::new(match self.kind {
            Kind::File => b'0',
            Kind::Symlink => b'2',
            Kind::Folder => b'5',
        });
        block.text(0, NAME, &text(name));
        block.octal(100, 8, self.mode.into());
        block.octal(108, 8, id(self.owner.uid).unwrap_or(0));
        block.octal(116, 8, id(self.owner.gid).unwrap_or(0));
        block.octal(124, 12, Some(self.size).filter(|&size| size <= LARGEST_SIZE).unwrap_or(0));
        block.octal(136, 12, MTIME);
        block.text(157, NAME, &text(self.link));
        block.text(265, OWNER_NAME, &text(self.owner.uname.as_bytes()));
        block.text(297, OWNER_NAME, &text(self.owner.gname.as_bytes()));
        // The numbers of a device.
        block.octal(329, 8, 0);
        block.octal(337, 8, 0);
        block
    }
}

/// A header being filled.
struct Block([u8; BLOCK]);

impl Block {
    fn new(kind: u8) -> Self {
        let mut block = [0; BLOCK];
        block[156] = kind;
        block[257..265].copy_from_slice(b"ustar\x0000");
        Self(block)
    }

    /// As much of the text as fits; a slash at the end of what was cut off would make it a folder.
    fn text(&mut self, at: usize, length: usize, text: &[u8]) {
        let kept = &text[..text.len().min(length)];
        self.0[at..at + kept.len()].copy_from_slice(kept);
        if text.len() > length && kept.ends_with(b"/") {
            let slashes = kept.iter().rev().take_while(|&&byte| byte == b'/').count();
            // Only the first of them: so Go does it.
            self.0[at + length - slashes] = 0;
        }
    }

    /// Octal digits that fill the field but for a zero byte at its end. The number fits.
    fn octal(&mut self, at: usize, length: usize, number: u64) {
        let digits = format!("{number:0width$o}", width = length - 1);
        self.0[at..at + length - 1].copy_from_slice(digits.as_bytes());
    }

    /// The block with its checksum.
    fn finish(mut self) -> [u8; BLOCK] {
        let field = 148..156;
        self.0[field.clone()].fill(b' ');
        let sum: u64 = self.0.iter().map(|&byte| u64::from(byte)).sum();
        self.octal(field.start, 7, sum);
        self.0[field.start + 6] = 0;
        self.0
    }
}

/// `length key=value`, where the length counts its own digits (POSIX.1-2017 `pax`, "pax Extended
/// Header").
fn record(key: &str, value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + " =\n".len();
    let mut length = rest + rest.to_string().len();
    if length.to_string().len() > rest.to_string().len() {
        length += 1;
    }
    [format!("{length} {key}=").as_bytes(), value, b"\n"].concat()
}

fn fits(text: &[u8], length: usize) -> bool {
    text.len() <= length && text.is_ascii()
}

/// The text without all that is not ASCII.
fn ascii(text: &[u8]) -> Vec<u8> {
    text.iter().copied().filter(u8::is_ascii).collect()
}

/// A long name as the prefix and the name of a ustar header, if there is a slash in the right
/// place. The last such place is taken.
fn split(name: &[u8]) -> Option<(&[u8], &[u8])> {
    if name.len() <= NAME || !name.is_ascii() {
        return None;
    }
    let begin = &name[..name.len().min(PREFIX + 1)];
    let slash = begin.iter().rposition(|&byte| byte == b'/').filter(|&slash| slash > 0)?;
    let (prefix, last) = (&name[..slash], &name[slash + 1..]);
    (1..=NAME).contains(&last.len()).then_some((prefix, last))
}
