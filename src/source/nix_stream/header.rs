//! Headers of a tar, as Python's `tarfile` writes them in its default format, PAX.
//!
//! Comes in: what a header says. Goes out: a block in POSIX's `ustar` format, and before it, where
//! a field does not fit or is not ASCII, an extended header with that field's record.

use std::borrow::Cow;

use super::super::tar::BLOCK;
use super::code_points::{code_points, is_utf8};

/// Who owns the files of a layer, and since when they are as they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// Seconds since 1970.
    pub mtime: i64,
    pub uid: i64,
    pub gid: i64,
    pub uname: String,
    pub gname: String,
}

/// What sort of file a header is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    File,
    Folder,
    Symlink,
}

/// What a header says besides whose the file is.
#[derive(Clone, Copy, Debug)]
pub struct Member<'a> {
    /// Its name. A folder's gets a slash at its end.
    pub name: &'a [u8],
    pub kind: Kind,
    /// The permissions; the other bits of a file's mode do not matter.
    pub mode: u32,
    /// The length of a file's content.
    pub size: u64,
    /// What a symlink leads to.
    pub target: &'a [u8],
}

/// The header, one or three blocks or more.
pub fn header(member: &Member<'_>, owner: &Owner) -> Vec<u8> {
    let mut name = Cow::Borrowed(member.name);
    if member.kind == Kind::Folder && !name.ends_with(b"/") {
        name.to_mut().push(b'/');
    }
    let mut fields = Fields {
        name: &name,
        mode: u64::from(member.mode & 0o7777),
        kind: match member.kind {
            Kind::File => b'0',
            Kind::Folder => b'5',
            Kind::Symlink => b'2',
        },
        target: member.target,
        uname: owner.uname.as_bytes(),
        gname: owner.gname.as_bytes(),
        ..Fields::default()
    };
    let mut records = Records::default();
    // The order is that of Python's, as is the length up to which a text fits.
    for (key, text, most) in [
        ("path", fields.name, 100),
        ("linkpath", fields.target, 100),
        ("uname", fields.uname, 32),
        ("gname", fields.gname, 32),
    ] {
        if !text.is_ascii() || text.len() > most {
            records.add(key, text);
        }
    }
    for (key, number, field, digits) in [
        ("uid", i128::from(owner.uid), &mut fields.uid, 7),
        ("gid", i128::from(owner.gid), &mut fields.gid, 7),
        ("size", i128::from(member.size), &mut fields.size, 11),
        ("mtime", i128::from(owner.mtime), &mut fields.mtime, 11),
    ] {
        match u64::try_from(number) {
            Ok(fitting) if fitting < 1 << (3 * digits) => *field = fitting,
            _ => records.add(key, number.to_string().as_bytes()),
        }
    }
    let mut header = records.header();
    header.extend(fields.block());
    header
}

/// The extended header's records.
#[derive(Default)]
struct Records {
    bytes: Vec<u8>,
    /// Whether one of them is not UTF-8.
    is_binary: bool,
}

impl Records {
    /// `21 path=a/b/c\n`, where the number is the length of the whole, itself included.
    fn add(&mut self, key: &str, value: &[u8]) {
        let rest = key.len() + value.len() + 3;
        let mut length = rest;
        while length != rest + length.to_string().len() {
            length = rest + length.to_string().len();
        }
        self.bytes.extend(format!("{length} {key}=").bytes());
        self.bytes.extend(value);
        self.bytes.push(b'\n');
        self.is_binary |= !is_utf8(value);
    }

    /// The extended header, if there is any record.
    fn header(self) -> Vec<u8> {
        if self.bytes.is_empty() {
            return Vec::new();
        }
        let charset: &[u8] = if self.is_binary { b"21 hdrcharset=BINARY\n" } else { b"" };
        let size = charset.len() + self.bytes.len();
        let fields =
            Fields { name: b"././@PaxHeader", kind: b'x', size: size as u64, ..Fields::default() };
        let mut header = fields.block().to_vec();
        header.extend(charset);
        header.extend(self.bytes);
        header.resize(BLOCK + size.next_multiple_of(BLOCK), 0);
        header
    }
}

/// The fields of a block. Numbers fit.
#[derive(Default)]
struct Fields<'a> {
    name: &'a [u8],
    mode: u64,
    uid: u64,
    gid: u64,
    size: u64,
    mtime: u64,
    kind: u8,
    target: &'a [u8],
    uname: &'a [u8],
    gname: &'a [u8],
}

impl Fields<'_> {
    fn block(&self) -> [u8; BLOCK] {
        let mut block = [0; BLOCK];
        text(&mut block[0..100], self.name);
        number(&mut block[100..108], self.mode);
        number(&mut block[108..116], self.uid);
        number(&mut block[116..124], self.gid);
        number(&mut block[124..136], self.size);
        number(&mut block[136..148], self.mtime);
        // The checksum is that of a block with spaces in its place, of which one stays.
        block[148..156].fill(b' ');
        block[156] = self.kind;
        text(&mut block[157..257], self.target);
        block[257..265].copy_from_slice(b"ustar\x0000");
        text(&mut block[265..297], self.uname);
        text(&mut block[297..329], self.gname);
        let sum: u64 = block.iter().map(|byte| u64::from(*byte)).sum();
        number(&mut block[148..155], sum);
        block
    }
}

/// Cut off where it does not fit, with a question mark for each character that is not ASCII.
fn text(field: &mut [u8], text: &[u8]) {
    if text.is_ascii() {
        let length = text.len().min(field.len());
        field[..length].copy_from_slice(&text[..length]);
        return;
    }
    for (byte, point) in field.iter_mut().zip(code_points(text)) {
        *byte = u8::try_from(point).ok().filter(u8::is_ascii).unwrap_or(b'?');
    }
}

/// Octal digits that fill the field, and a zero byte at its end.
fn number(field: &mut [u8], number: u64) {
    let mut rest = number;
    let digits = field.len() - 1;
    for digit in field[..digits].iter_mut().rev() {
        *digit = b'0' + (rest & 7) as u8;
        rest >>= 3;
    }
    field[digits] = 0;
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::tests::python;
    use super::*;

    /// Reads lines of hex fields, writes what tarfile makes of them.
    const HEADERS: &str = "import sys, tarfile
for line in sys.stdin:
    kind, name, mode, size, target, mtime, uid, gid, uname, gname = line.rstrip('\\n').split(' ')
    text = lambda hex: bytes.fromhex(hex).decode('utf-8', 'surrogateescape')
    info = tarfile.TarInfo(text(name))
    info.type = kind.encode()
    info.mode, info.size, info.linkname = int(mode), int(size), text(target)
    info.mtime, info.uid, info.gid = int(mtime), int(uid), int(gid)
    info.uname, info.gname = text(uname), text(gname)
    sys.stdout.buffer.write(info.tobuf(tarfile.PAX_FORMAT, 'utf-8', 'surrogateescape'))
";

    type Made = (u8, Vec<u8>, u32, u64, Vec<u8>, Owner);

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn compare(all: &[Made]) {
        let (mut ours, mut lines) = (Vec::new(), String::new());
        for (kind, name, mode, size, target, owner) in all {
            let kind = [Kind::File, Kind::Folder, Kind::Symlink][usize::from(kind % 3)];
            let member = Member { name, kind, mode: *mode, size: *size, target };
            ours.extend(header(&member, owner));
            let Owner { mtime, uid, gid, uname, gname } = owner;
            lines.push_str(&format!(
                "{} {} {mode} {size} {} {mtime} {uid} {gid} {} {}\n",
                match kind {
                    Kind::File => 0,
                    Kind::Folder => 5,
                    Kind::Symlink => 2,
                },
                hex(name),
                hex(target),
                hex(uname.as_bytes()),
                hex(gname.as_bytes()),
            ));
        }
        assert!(ours == python(HEADERS, lines.as_bytes()), "{all:?}");
    }

    fn root() -> Owner {
        Owner { mtime: 1, uid: 0, gid: 0, uname: "root".into(), gname: "root".into() }
    }

    #[test]
    fn headers_at_every_limit_are_those_of_python() {
        let mut all = Vec::new();
        for length in [1, 98, 99, 100, 101, 102, 200, 255, 480, 500, 990, 1000, 4090] {
            for letter in ["n", "é", "€", "😀"] {
                let name = letter.repeat(length).into_bytes();
                all.push((0, name.clone(), 0o444, 5, Vec::new(), root()));
                all.push((1, name.clone(), 0o40755, 0, Vec::new(), root()));
                all.push((2, b"/l".to_vec(), 0o120777, 0, name, root()));
            }
        }
        for name in [&b"/a\xff"[..], b"\xed\xa0\x80", b"\xc3", b"a\xe2\x82b", b"\xf0\x9f\x98"] {
            all.push((0, name.to_vec(), 0o444, 0, Vec::new(), root()));
            all.push((2, "é".into(), 0o777, 0, name.to_vec(), root()));
        }
        for size in [0, 511, 512, (8 << 30) - 1, 8 << 30, 1 << 40, u64::MAX] {
            all.push((0, b"/big".to_vec(), 0o104555, size, Vec::new(), root()));
        }
        for number in [-1, 0o7777777, 0o10000000, 0o77777777777, 0o100000000000, i64::MIN] {
            let owner = Owner { mtime: number, uid: number, gid: number, ..root() };
            all.push((0, b"/x".to_vec(), 0o444, 1, Vec::new(), owner));
        }
        for name in ["", "u", &"u".repeat(31), &"u".repeat(32), &"u".repeat(33), "ü"] {
            let owner = Owner { uname: name.into(), gname: name.into(), ..root() };
            all.push((0, b"/x".to_vec(), 0o444, 1, Vec::new(), owner));
        }
        compare(&all);
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

        /// Many at a time: it is Python's start that takes long.
        #[test]
        fn any_header_is_that_of_python(
            all in prop::collection::vec(
                (
                    any::<u8>(),
                    prop::collection::vec(1u8.., 1..220),
                    0u32..0o200000,
                    any::<u64>(),
                    prop::collection::vec(1u8.., 0..220),
                    (any::<i64>(), any::<i64>(), any::<i64>(), "\\PC{0,40}", "[a-z]{0,40}"),
                ),
                40,
            )
        ) {
            let made: Vec<Made> = all
                .into_iter()
                .map(|(kind, name, mode, size, target, (mtime, uid, gid, uname, gname))| {
                    let owner = Owner { mtime, uid, gid, uname, gname };
                    (kind, name, mode, size, target, owner)
                })
                .collect();
            compare(&made);
        }
    }
}
