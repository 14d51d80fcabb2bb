//! Headers of a tar, as Python's `tarfile` writes them in its default format, PAX.
//!
//! Input: the fields of a header. Output: a block in POSIX's `ustar` format. If a field does not
//! fit or is not ASCII, an extended header with a record for this field comes before it.

use std::borrow::Cow;

use super::super::tar::BLOCK;
use super::super::ustar::{FileKind, Ustar, record};
use super::code_points::{code_points, is_utf8};

/// The owner and the modification time of the files of a layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilesOwner {
    /// Seconds since 1970.
    pub mtime: i64,
    pub uid: i64,
    pub gid: i64,
    pub uname: String,
    pub gname: String,
}

/// The fields of a header, without owner and time.
#[derive(Clone, Copy, Debug)]
pub struct Member<'a> {
    /// Its name. A folder's gets a slash at its end.
    pub name: &'a [u8],
    pub kind: FileKind,
    /// The permissions; the other bits of a file's mode do not matter.
    pub mode: u32,
    /// The length of a file's content.
    pub size: u64,
    /// The target of a symlink.
    pub target: &'a [u8],
}

/// The header: one block, with an extended header before it if a field does not fit.
pub fn header(member: &Member<'_>, owner: &FilesOwner) -> Vec<u8> {
    let mut name = Cow::Borrowed(member.name);
    if member.kind == FileKind::Folder && !name.ends_with(b"/") {
        name.to_mut().push(b'/');
    }
    let mut fields = Ustar {
        mode: u64::from(member.mode & 0o7777),
        kind: member.kind.flag(),
        ..Ustar::default()
    };
    let mut records = Records::default();
    // The order of the records, and the lengths up to which texts fit, are the same as in Python.
    let mut text = |key, text, most| {
        let text: &[u8] = text;
        if !text.is_ascii() || text.len() > most {
            records.add(key, text);
        }
        ascii(text)
    };
    let name = text("path", &name, 100);
    let link = text("linkpath", member.target, 100);
    let uname = text("uname", owner.uname.as_bytes(), 32);
    let gname = text("gname", owner.gname.as_bytes(), 32);
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
    let block = Ustar { name: &name, link: &link, uname: &uname, gname: &gname, ..fields }.block();
    [records.header().as_slice(), &block].concat()
}

/// The text with a question mark for each character that is not ASCII.
fn ascii(text: &[u8]) -> Cow<'_, [u8]> {
    if text.is_ascii() {
        return Cow::Borrowed(text);
    }
    let character = |point| u8::try_from(point).ok().filter(u8::is_ascii).unwrap_or(b'?');
    code_points(text).map(character).collect()
}

/// The records of an extended header.
#[derive(Default)]
struct Records {
    bytes: Vec<u8>,
    /// Whether one of them is not UTF-8.
    is_binary: bool,
}

impl Records {
    fn add(&mut self, key: &str, value: &[u8]) {
        self.bytes.extend(record(key, value));
        self.is_binary |= !is_utf8(value);
    }

    /// The extended header; nothing where there is no record.
    fn header(self) -> Vec<u8> {
        if self.bytes.is_empty() {
            return Vec::new();
        }
        let charset = if self.is_binary { record("hdrcharset", b"BINARY") } else { Vec::new() };
        let content = [charset, self.bytes].concat();
        let size = content.len() as u64;
        let fields = Ustar { name: b"././@PaxHeader", kind: b'x', size, ..Ustar::default() };
        let mut header = [fields.block().as_slice(), &content].concat();
        header.resize(header.len().next_multiple_of(BLOCK), 0);
        header
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::tests::python;
    use super::*;

    /// Reads lines of hex fields, and writes the headers that tarfile makes of them.
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

    type Made = (u8, Vec<u8>, u32, u64, Vec<u8>, FilesOwner);

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn compare(all: &[Made]) {
        let (mut ours, mut lines) = (Vec::new(), String::new());
        for (kind, name, mode, size, target, owner) in all {
            let kind = [FileKind::File, FileKind::Folder, FileKind::Symlink][usize::from(kind % 3)];
            let member = Member { name, kind, mode: *mode, size: *size, target };
            ours.extend(header(&member, owner));
            let FilesOwner { mtime, uid, gid, uname, gname } = owner;
            lines.push_str(&format!(
                "{} {} {mode} {size} {} {mtime} {uid} {gid} {} {}\n",
                match kind {
                    FileKind::File => 0,
                    FileKind::Folder => 5,
                    FileKind::Symlink => 2,
                },
                hex(name),
                hex(target),
                hex(uname.as_bytes()),
                hex(gname.as_bytes()),
            ));
        }
        assert!(ours == python(HEADERS, lines.as_bytes()), "{all:?}");
    }

    fn root() -> FilesOwner {
        FilesOwner { mtime: 1, uid: 0, gid: 0, uname: "root".into(), gname: "root".into() }
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
            let owner = FilesOwner { mtime: number, uid: number, gid: number, ..root() };
            all.push((0, b"/x".to_vec(), 0o444, 1, Vec::new(), owner));
        }
        for name in ["", "u", &"u".repeat(31), &"u".repeat(32), &"u".repeat(33), "ü"] {
            let owner = FilesOwner { uname: name.into(), gname: name.into(), ..root() };
            all.push((0, b"/x".to_vec(), 0o444, 1, Vec::new(), owner));
        }
        compare(&all);
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

        /// Many at a time, because starting Python takes long.
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
                    let owner = FilesOwner { mtime, uid, gid, uname, gname };
                    (kind, name, mode, size, target, owner)
                })
                .collect();
            compare(&made);
        }
    }
}
