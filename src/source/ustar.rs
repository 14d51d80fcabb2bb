//! A header block of a tar in the `ustar` format, and the records of an extended header (POSIX.1-2017
//! `pax`). Python and Go fill them in different ways; that is up to the callers.

use super::tar::BLOCK;

/// The kind of an entry. The Nix store has no other kinds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    File,
    Folder,
    Symlink,
}

impl FileKind {
    /// The type flag of its header.
    pub fn flag(self) -> u8 {
        match self {
            Self::File => b'0',
            Self::Symlink => b'2',
            Self::Folder => b'5',
        }
    }
}

/// The fields of a block. Texts that are too long are cut off; numbers must fit.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ustar<'a> {
    pub name: &'a [u8],
    pub mode: u64,
    pub uid: u64,
    pub gid: u64,
    pub size: u64,
    pub mtime: u64,
    pub kind: u8,
    pub link: &'a [u8],
    pub uname: &'a [u8],
    pub gname: &'a [u8],
    /// The value of both fields for a device's numbers; `None` leaves them empty.
    pub device: Option<u64>,
    pub prefix: &'a [u8],
}

impl Ustar<'_> {
    /// The block, with its checksum.
    pub fn block(&self) -> [u8; BLOCK] {
        let mut block = [0; BLOCK];
        text(&mut block[0..100], self.name);
        octal(&mut block[100..108], self.mode);
        octal(&mut block[108..116], self.uid);
        octal(&mut block[116..124], self.gid);
        octal(&mut block[124..136], self.size);
        octal(&mut block[136..148], self.mtime);
        // The checksum is computed with spaces in its own field. The last of these spaces stays.
        block[148..156].fill(b' ');
        block[156] = self.kind;
        text(&mut block[157..257], self.link);
        block[257..265].copy_from_slice(b"ustar\x0000");
        text(&mut block[265..297], self.uname);
        text(&mut block[297..329], self.gname);
        if let Some(device) = self.device {
            octal(&mut block[329..337], device);
            octal(&mut block[337..345], device);
        }
        text(&mut block[345..500], self.prefix);
        let sum: u64 = block.iter().map(|byte| u64::from(*byte)).sum();
        octal(&mut block[148..155], sum);
        block
    }
}

fn text(field: &mut [u8], text: &[u8]) {
    let length = text.len().min(field.len());
    field[..length].copy_from_slice(&text[..length]);
}

/// Octal digits that fill the field, and a zero byte at its end.
fn octal(field: &mut [u8], number: u64) {
    let mut rest = number;
    let digits = field.len() - 1;
    for digit in field[..digits].iter_mut().rev() {
        *digit = b'0' + (rest & 7) as u8;
        rest >>= 3;
    }
    field[digits] = 0;
}

/// A record of an extended header: `21 path=a/b/c\n`, where the number is the length of the record,
/// its own digits included.
pub fn record(key: &str, value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + " =\n".len();
    let mut length = rest;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    [format!("{length} {key}=").as_bytes(), value, b"\n"].concat()
}
