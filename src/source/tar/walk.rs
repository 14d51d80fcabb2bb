//! Reads the entries of a tar, in bounded memory.
//!
//! The bytes come from a file that can seek, or from a stream. [`Tar::next_entry`] returns one entry
//! after another, and [`Tar::read_content`] the content of the last one. Headers may have the ustar,
//! GNU and PAX forms (POSIX.1-2017 `pax`, "ustar Interchange Format"; GNU tar manual, "Basic Tar
//! Format"). The `tar` crate cannot be used: it allocates as much memory as a long name claims to
//! have.

use std::io;
use std::sync::Arc;

use ::tar::{EntryType, Header};

use super::bytes::Bytes;
use super::error::{TarError, TarPosition};
use super::header::{BLOCK, has_valid_checksum};
use super::pax::{self, Pax};
use crate::source::error::Error;
use crate::source::wrapping::Wrapping;

/// The longest PAX header, GNU long name or link name that is read.
const MAX_EXTENSION: u64 = 1 << 20;

/// How many bytes may follow the end of an archive. Programs pad it to a whole record, a few KiB.
const MAX_TRAILING: u64 = 64 << 20;

/// How many of these are read at a time.
const READ_AT_ONCE: u64 = 1 << 20;

/// A name longer than this is cut where it is only shown.
const MAX_SHOWN: usize = 200;

/// One entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its name as stored. A PAX header's comes before a GNU header's, and that before its own.
    pub name: String,
    /// The kind of entry.
    pub kind: EntryKind,
    /// Length of its content as stored.
    pub size: u64,
    /// Where in the tar its content begins.
    pub offset: u64,
}

/// The kind of an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// A regular file.
    File,
    /// A regular file whose holes are not stored.
    Sparse,
    /// A symbolic link, and its target.
    Symlink(String),
    /// A hard link, and the name of the entry with the content.
    HardLink(String),
    /// A directory, a device, or anything else whose content is not needed.
    Other,
}

/// A tar that is being read.
pub struct Tar<B> {
    bytes: B,
    file: Arc<str>,
    wrapping: Wrapping,
    /// How many bytes of the tar were read or skipped.
    position: u64,
    /// How many bytes of the current entry's content are left.
    remaining: u64,
    /// How many bytes of padding follow the content.
    padding: u64,
    current: Option<String>,
    end: End,
}

/// Whether the end of the archive was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    NotYet,
    /// There was the block of zeros that marks it.
    Marked,
    /// The file stops where another entry could begin.
    Unmarked,
}

/// What the extended headers before an entry say about it.
#[derive(Default)]
struct Extensions {
    gnu_name: Option<Vec<u8>>,
    gnu_link: Option<Vec<u8>>,
    pax: Pax,
}

impl<B: Bytes> Tar<B> {
    /// A reader before the first entry. Messages name `file` and `wrapping`.
    pub fn new(bytes: B, file: Arc<str>, wrapping: Wrapping) -> Self {
        Self {
            bytes,
            file,
            wrapping,
            position: 0,
            remaining: 0,
            padding: 0,
            current: None,
            end: End::NotYet,
        }
    }

    /// The rest of the bytes.
    pub fn into_bytes(self) -> B {
        self.bytes
    }

    /// How the tar is compressed.
    pub fn wrapping(&self) -> Wrapping {
        self.wrapping
    }

    /// Whether the end is not marked: the archive may have been cut off there.
    pub fn is_cut_off(&self) -> bool {
        self.end == End::Unmarked
    }

    /// The error for bytes that do not begin as a tar.
    fn no_tar(&self) -> Error {
        TarError::NotTar { file: self.file.clone(), wrapping: self.wrapping }.into()
    }

    /// The error for an archive that ends at the current position.
    pub fn truncated(&self) -> Error {
        let name = || self.current.as_deref().map(shown);
        TarError::Truncated {
            file: self.file.clone(),
            at: self.position,
            position: match name() {
                None => TarPosition::Start,
                Some(name) if self.remaining + self.padding > 0 => TarPosition::Content(name),
                Some(name) => TarPosition::After(name),
            },
        }
        .into()
    }

    /// Reads what follows the end of the archive: padding, and the last checksums of a stream.
    pub fn drain(&mut self) -> Result<(), Error> {
        let mut left = MAX_TRAILING;
        loop {
            let passed = self.bytes.skip(left.min(READ_AT_ONCE))?;
            left -= passed;
            match (passed, left) {
                (0, 1..) => return Ok(()),
                (_, 0) => {
                    let (file, limit_mib) = (self.file.clone(), MAX_TRAILING >> 20);
                    return Err(TarError::Endless { file, limit_mib }.into());
                }
                _ => {}
            }
        }
    }

    /// The next entry; `None` at the end. The rest of the entry before it is skipped.
    pub fn next_entry(&mut self) -> Result<Option<Entry>, Error> {
        if self.end != End::NotYet {
            return Ok(None);
        }
        self.skip_content()?;
        let mut before = Extensions::default();
        let mut has_extensions = false;
        loop {
            let Some(header) = self.read_header()? else {
                if has_extensions {
                    return Err(self.corrupt("a long name belongs to no entry"));
                }
                return Ok(None);
            };
            let entry_type = header.entry_type();
            let size = self.size_of(&header)?;
            match entry_type {
                EntryType::GNULongName => before.gnu_name = Some(self.read_name(size)?),
                EntryType::GNULongLink => before.gnu_link = Some(self.read_name(size)?),
                EntryType::XHeader => {
                    let records = self.read_extension(size)?;
                    before.pax = pax::parse(&records)
                        .ok_or_else(|| self.corrupt("a PAX header is malformed"))?;
                }
                EntryType::XGlobalHeader => {
                    // It only has defaults for fields that are not read here.
                    self.begin_content(size)?;
                    self.skip_content()?;
                    continue;
                }
                _ => return self.entry(&header, size, before).map(Some),
            }
            has_extensions = true;
        }
    }

    /// Reads the next bytes of the current entry's content; 0 at its end.
    pub fn read_content(&mut self, buffer: &mut [u8]) -> Result<usize, Error> {
        let want = usize::try_from(self.remaining).unwrap_or(usize::MAX).min(buffer.len());
        if want == 0 {
            return Ok(0);
        }
        let count = self.bytes.read(&mut buffer[..want])?;
        if count == 0 {
            return Err(self.truncated());
        }
        self.position += count as u64;
        self.remaining -= count as u64;
        Ok(count)
    }

    fn entry(
        &mut self,
        header: &Header,
        header_size: u64,
        before: Extensions,
    ) -> Result<Entry, Error> {
        let Extensions { gnu_name, gnu_link, pax } = before;
        let name = pax.name.or(gnu_name).unwrap_or_else(|| header.path_bytes().into_owned());
        let name = String::from_utf8_lossy(&name).into_owned();
        let link = || {
            let link = pax.link.or(gnu_link).unwrap_or_else(|| {
                header.link_name_bytes().map(std::borrow::Cow::into_owned).unwrap_or_default()
            });
            String::from_utf8_lossy(&link).into_owned()
        };
        let mut size = pax.size.unwrap_or(header_size);
        let entry_type = header.entry_type();
        let kind = match entry_type {
            // Before POSIX, a directory was a file whose name ends with a slash.
            EntryType::Regular if header.as_bytes()[156] == 0 && name.ends_with('/') => {
                EntryKind::Other
            }
            EntryType::Regular | EntryType::Continuous if pax.sparse => EntryKind::Sparse,
            EntryType::Regular | EntryType::Continuous => EntryKind::File,
            EntryType::GNUSparse => EntryKind::Sparse,
            EntryType::Symlink => EntryKind::Symlink(link()),
            EntryType::Link => EntryKind::HardLink(link()),
            _ => EntryKind::Other,
        };
        if matches!(
            entry_type,
            EntryType::Link
                | EntryType::Symlink
                | EntryType::Char
                | EntryType::Block
                | EntryType::Directory
                | EntryType::Fifo
        ) {
            // They have no content, although POSIX allows a size in the header.
            size = 0;
        }
        self.current = Some(shown(&name));
        if entry_type == EntryType::GNUSparse {
            self.skip_sparse_map(header)?;
        }
        let offset = self.position;
        self.begin_content(size)?;
        Ok(Entry { name, kind, size, offset })
    }

    /// The next header, its checksum verified; `None` at the end.
    fn read_header(&mut self) -> Result<Option<Header>, Error> {
        let at = self.position;
        let mut header = Header::new_old();
        match self.fill(header.as_mut_bytes())? {
            0 => {
                self.end = End::Unmarked;
                return Ok(None);
            }
            BLOCK => {}
            // With so few bytes, it is a tar only if it begins as one.
            _ if at == 0
                && self.wrapping != Wrapping::None
                && !header.as_bytes()[257..].starts_with(b"ustar") =>
            {
                return Err(self.no_tar());
            }
            _ => return Err(self.truncated()),
        }
        if header.as_bytes().iter().all(|&byte| byte == 0) {
            self.end = End::Marked;
            return Ok(None);
        }
        if !has_valid_checksum(header.as_bytes()) {
            return Err(if at == 0 && self.wrapping != Wrapping::None {
                self.no_tar()
            } else {
                self.position = at;
                self.corrupt("the header's checksum is wrong")
            });
        }
        Ok(Some(header))
    }

    fn size_of(&self, header: &Header) -> Result<u64, Error> {
        let field = &header.as_old().size;
        if field[0] & 0x80 != 0 {
            // GNU tar writes numbers that are too long for octal digits in base 256. The second
            // bit is the sign.
            if field[0] & 0x40 != 0 {
                return Err(self.corrupt("a size is negative"));
            }
            if field[0] != 0x80 || field[1..4].iter().any(|&byte| byte != 0) {
                return Err(self.corrupt("a size is too large for any file"));
            }
        } else if field.iter().all(|byte| matches!(byte, 0 | b' ')) {
            return Ok(0);
        }
        header.entry_size().map_err(|_| self.corrupt("a size is not a number"))
    }

    fn begin_content(&mut self, size: u64) -> Result<(), Error> {
        // The kernel's offsets are signed.
        let end = self.position.checked_add(size).filter(|&end| {
            i64::try_from(end).is_ok_and(|end| end.checked_add(BLOCK as i64).is_some())
        });
        if end.is_none() {
            return Err(self.corrupt("a size is too large for any file"));
        }
        self.remaining = size;
        self.padding = size.next_multiple_of(BLOCK as u64) - size;
        Ok(())
    }

    fn skip_content(&mut self) -> Result<(), Error> {
        let count = self.remaining + self.padding;
        if count > 0 {
            let passed = self.bytes.skip(count)?;
            self.position += passed;
            if passed < count {
                return Err(self.truncated());
            }
        }
        self.remaining = 0;
        self.padding = 0;
        Ok(())
    }

    /// Skips the map of a GNU sparse file. If it is too long for the header, it stands between the
    /// header and the content.
    fn skip_sparse_map(&mut self, header: &Header) -> Result<(), Error> {
        let mut goes_on = header.as_gnu().is_some_and(::tar::GnuHeader::is_extended);
        while goes_on {
            let mut map = [0; BLOCK];
            if self.fill(&mut map)? < BLOCK {
                return Err(self.truncated());
            }
            // 21 pairs of offset and length, 24 bytes each, then the flag.
            goes_on = map[504] == 1;
        }
        Ok(())
    }

    fn read_name(&mut self, size: u64) -> Result<Vec<u8>, Error> {
        let mut name = self.read_extension(size)?;
        if let Some(end) = name.iter().position(|&byte| byte == 0) {
            name.truncate(end);
        }
        Ok(name)
    }

    /// The content of a header's extension, which must be small.
    fn read_extension(&mut self, size: u64) -> Result<Vec<u8>, Error> {
        if size > MAX_EXTENSION {
            return Err(self.corrupt("a long name or PAX header is longer than 1 MiB"));
        }
        self.begin_content(size)?;
        let mut content = vec![0; size as usize];
        let mut filled = 0;
        while filled < content.len() {
            filled += self.read_content(&mut content[filled..])?;
        }
        self.skip_content()?;
        Ok(content)
    }

    /// Fills the buffer as far as there are bytes.
    fn fill(&mut self, buffer: &mut [u8]) -> Result<usize, Error> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.bytes.read(&mut buffer[filled..])? {
                0 => break,
                count => filled += count,
            }
        }
        self.position += filled as u64;
        Ok(filled)
    }

    fn corrupt(&self, what: &'static str) -> Error {
        TarError::Corrupt {
            file: self.file.clone(),
            at: self.position,
            position: match &self.current {
                None => TarPosition::Start,
                Some(name) => TarPosition::After(name.clone()),
            },
            what,
        }
        .into()
    }
}

impl<B: Bytes> io::Read for Tar<B> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.read_content(buffer).map_err(io::Error::other)
    }
}

fn shown(name: &str) -> String {
    if name.chars().count() <= MAX_SHOWN {
        return name.to_owned();
    }
    name.chars().take(MAX_SHOWN).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use proptest::prelude::*;

    use super::*;

    fn tar(bytes: &[u8]) -> Tar<&[u8]> {
        Tar::new(bytes, "x.tar".into(), Wrapping::None)
    }

    fn read_all(bytes: &[u8]) -> Result<Vec<(Entry, Vec<u8>)>, Error> {
        let mut tar = tar(bytes);
        let mut all = Vec::new();
        while let Some(entry) = tar.next_entry()? {
            let mut content = Vec::new();
            tar.read_to_end(&mut content).map_err(|error| Error::from_read(error, &entry.name))?;
            all.push((entry, content));
        }
        Ok(all)
    }

    fn error_of(bytes: &[u8]) -> String {
        read_all(bytes).unwrap_err().to_string()
    }

    fn header(name: &str, kind: EntryType, size: u64) -> Header {
        let mut header = Header::new_gnu();
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_entry_type(kind);
        header.set_size(size);
        header.set_cksum();
        header
    }

    fn block(header: &Header) -> Vec<u8> {
        header.as_bytes().to_vec()
    }

    fn padded(content: &[u8]) -> Vec<u8> {
        let mut content = content.to_vec();
        content.resize(content.len().next_multiple_of(BLOCK), 0);
        content
    }

    fn pax(records: &[(&str, &str)]) -> Vec<u8> {
        let mut content = String::new();
        for (key, value) in records {
            let rest = key.len() + value.len() + 3;
            let length = (1..)
                .map(|digits| rest + digits)
                .find(|length| rest + length.to_string().len() == *length)
                .unwrap();
            content += &format!("{length} {key}={value}\n");
        }
        let mut out = block(&header("pax", EntryType::XHeader, content.len() as u64));
        out.extend(padded(content.as_bytes()));
        out
    }

    fn file(name: &str, content: &[u8]) -> Vec<u8> {
        let mut out = block(&header(name, EntryType::Regular, content.len() as u64));
        out.extend(padded(content));
        out
    }

    #[test]
    fn pax_headers_have_the_last_word() {
        let mut bytes = pax(&[
            ("comment", "a value\nof two lines"),
            ("path", "long/name\nwith a line end"),
            ("size", "3"),
        ]);
        bytes.extend(block(&header("short", EntryType::Regular, 0)));
        bytes.extend(padded(b"abc"));
        bytes.extend(pax(&[("linkpath", "target")]));
        bytes.extend(block(&header("link", EntryType::Symlink, 0)));
        // A global header, whose content is ignored.
        bytes.extend(block(&header("global", EntryType::XGlobalHeader, 600)));
        bytes.extend(padded(&[b'x'; 600]));
        bytes.extend(file("last", b"z"));
        let all = read_all(&bytes).unwrap();
        assert_eq!(all[0].0.name, "long/name\nwith a line end");
        assert_eq!(all[0].1, b"abc");
        assert_eq!(all[1].0.kind, EntryKind::Symlink("target".into()));
        assert_eq!((all[2].0.name.as_str(), all.len()), ("last", 3));
    }

    #[test]
    fn sizes_in_base_256_are_read() {
        let mut header = header("big", EntryType::Regular, 0);
        header.as_old_mut().size = [0x80, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0];
        header.set_cksum();
        let bytes = block(&header);
        assert_eq!(tar(&bytes).next_entry().unwrap().unwrap().size, 3 << 32);
    }

    #[test]
    fn negative_huge_and_senseless_sizes_are_errors() {
        for (size, what) in [
            ([0xff; 12], "a size is negative"),
            ([0xc0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1], "a size is negative"),
            (
                [0x80, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
                "too large for any file",
            ),
            (
                [0x80, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
                "too large for any file",
            ),
            ([0x80, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0], "too large for any file"),
            (*b"-0000000001\0", "a size is not a number"),
            (*b"00000000008\0", "a size is not a number"),
        ] {
            let mut header = header("odd", EntryType::Regular, 0);
            header.as_old_mut().size = size;
            header.set_cksum();
            assert!(error_of(&block(&header)).contains(what), "{what}");
        }
    }

    #[test]
    fn long_names_are_read_but_not_without_bound() {
        let name = "n".repeat(5000);
        let mut bytes = block(&header("././@LongLink", EntryType::GNULongName, 5001));
        bytes.extend(padded(format!("{name}\0").as_bytes()));
        bytes.extend(block(&header("././@LongLink", EntryType::GNULongLink, 300)));
        bytes.extend(padded(&[b'l'; 300]));
        bytes.extend(block(&header("nnn", EntryType::Link, 0)));
        let all = read_all(&bytes).unwrap();
        assert_eq!(all[0].0.name, name);
        assert_eq!(all[0].0.kind, EntryKind::HardLink("l".repeat(300)));

        for kind in [EntryType::GNULongName, EntryType::XHeader] {
            let bytes = block(&header("x", kind, (1 << 20) + 1));
            assert_eq!(
                error_of(&bytes),
                "x.tar: the tar archive is damaged at byte 512, in the first header: a long name \
                 or PAX header is longer than 1 MiB; make or fetch it again"
            );
        }
    }

    #[test]
    fn sparse_files_are_told_and_passed_over() {
        let mut old = Header::new_gnu();
        old.as_old_mut().name[..6].copy_from_slice(b"sparse");
        old.set_entry_type(EntryType::GNUSparse);
        old.set_size(600);
        old.as_gnu_mut().unwrap().set_is_extended(true);
        old.set_cksum();
        let mut bytes = block(&old);
        let mut map = [0; BLOCK];
        map[504] = 1;
        bytes.extend(map);
        bytes.extend([0; BLOCK]);
        bytes.extend(padded(&[1; 600]));
        bytes.extend(pax(&[("GNU.sparse.major", "1"), ("GNU.sparse.name", "new")]));
        bytes.extend(file("GNUSparseFile.1/new", b"map"));
        bytes.extend(file("after", b""));
        let all = read_all(&bytes).unwrap();
        let seen: Vec<_> =
            all.iter().map(|(entry, _)| (entry.name.as_str(), entry.kind.clone())).collect();
        assert_eq!(
            seen,
            [("sparse", EntryKind::Sparse), ("new", EntryKind::Sparse), ("after", EntryKind::File)]
        );
        assert_eq!(all[0].1, [1; 600]);
    }

    #[test]
    fn links_and_directories_have_no_content_whatever_their_size() {
        let mut bytes = block(&header("link", EntryType::Link, 4096));
        bytes.extend(block(&header("dir/", EntryType::Directory, 512)));
        bytes.extend(file("file", b"x"));
        let names: Vec<_> =
            read_all(&bytes).unwrap().into_iter().map(|(entry, _)| entry.name).collect();
        assert_eq!(names, ["link", "dir/", "file"]);
    }

    #[test]
    fn the_end_is_a_block_of_zeros_or_the_end_of_the_file() {
        let mut bytes = file("a", b"1");
        let mut walk = tar(&bytes);
        while walk.next_entry().unwrap().is_some() {}
        assert!(walk.is_cut_off());
        bytes.extend([0; BLOCK]);
        bytes.extend(b"garbage that is no header");
        let mut walk = tar(&bytes);
        while walk.next_entry().unwrap().is_some() {}
        assert!(!walk.is_cut_off());
        assert!(walk.next_entry().unwrap().is_none());
    }

    #[test]
    fn a_damaged_header_is_named_by_its_place() {
        let mut bytes = file("first", b"content");
        bytes.extend(file("second", b""));
        bytes[1024] ^= 1;
        assert_eq!(
            error_of(&bytes),
            "x.tar: the tar archive is damaged at byte 1024, in the header after entry \"first\": \
             the header's checksum is wrong; make or fetch it again"
        );
    }

    #[test]
    fn a_truncated_archive_names_byte_and_entry() {
        let mut bytes = file("one\x1b", &[7; 600]);
        bytes.extend(file("two", b""));
        assert_eq!(
            error_of(&bytes[..700]),
            "x.tar: the tar archive is truncated: it ends at byte 700, in entry \"one\\u{1b}\"; was \
             the download or the build cut off? Make or fetch it again"
        );
        assert!(error_of(&bytes[..1600]).contains("byte 1600, in the header after entry \"one"));
        assert!(error_of(&bytes[..100]).contains("byte 100, in the first header"));
    }

    /// Entries as the `tar` crate writes them, in all its ways of storing a name.
    fn entries() -> impl Strategy<Value = Vec<(String, Vec<u8>)>> {
        let name = "[a-zé]{1,20}(/[a-z]{1,60}){0,5}";
        let content = prop::collection::vec(any::<u8>(), 0..1500);
        prop::collection::vec((name, content), 0..6)
    }

    fn written(entries: &[(String, Vec<u8>)]) -> Vec<u8> {
        let mut builder = ::tar::Builder::new(Vec::new());
        for (name, content) in entries {
            let mut header = Header::new_gnu();
            header.set_size(content.len() as u64);
            builder.append_data(&mut header, name, content.as_slice()).unwrap();
        }
        builder.into_inner().unwrap()
    }

    proptest! {
        #[test]
        fn what_the_tar_crate_writes_reads_back_the_same(entries in entries()) {
            let read: Vec<_> = read_all(&written(&entries))
                .unwrap()
                .into_iter()
                .map(|(entry, content)| (entry.name, content))
                .collect();
            prop_assert_eq!(read, entries);
        }

        #[test]
        fn a_cut_is_an_error_or_leaves_whole_entries(
            entries in entries(),
            cut in any::<prop::sample::Index>(),
        ) {
            let bytes = written(&entries);
            if let Ok(read) = read_all(&bytes[..cut.index(bytes.len())]) {
                for ((entry, content), (name, whole)) in read.iter().zip(&entries) {
                    prop_assert_eq!((&entry.name, content), (name, whole));
                }
            }
        }

        #[test]
        fn damage_is_never_a_panic(
            entries in entries(),
            damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..20),
            fix_checksums in any::<bool>(),
        ) {
            let mut bytes = written(&entries);
            for (index, byte) in damage {
                let index = index.index(bytes.len());
                bytes[index] = byte;
            }
            if fix_checksums {
                // So that the code after the check of the checksum is tested, too.
                for block in bytes.chunks_exact_mut(BLOCK) {
                    let mut header = Header::new_old();
                    header.as_mut_bytes().copy_from_slice(block);
                    if header.as_ustar().is_some() || header.as_gnu().is_some() {
                        header.set_cksum();
                        block.copy_from_slice(header.as_bytes());
                    }
                }
            }
            let _ = read_all(&bytes);
        }

        #[test]
        fn random_pax_records_are_never_a_panic(records in prop::collection::vec(any::<u8>(), 0..60)) {
            let _ = pax::parse(&records);
        }
    }
}
