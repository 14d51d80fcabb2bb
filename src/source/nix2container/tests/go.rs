//! The same bytes as Go's: headers, and rewritten names.
//!
//! Each line of `headers.jsonl` is a header, and the length and the digest of what Go's
//! `archive/tar` wrote for it (`Writer.WriteHeader`, no format given); each line of
//! `replaced.jsonl` an expression, a replacement and a text, and what Go's `Regexp.ReplaceAll`
//! made of them. Go 1.19 wrote both.

use serde::de::DeserializeOwned;

use crate::image::Digest;
use crate::source::nix2container::header::{EntryOwner, Header};
use crate::source::nix2container::regex;
use crate::source::ustar::FileKind;

fn rows<T: DeserializeOwned>(text: &str) -> impl Iterator<Item = T> {
    text.lines().map(|line| serde_json::from_str(line).unwrap())
}

#[test]
fn headers_are_those_of_go() {
    type Row = (char, String, String, u32, u64, i64, i64, String, String, usize, Digest);
    let mut count = 0;
    for row in rows::<Row>(include_str!("headers.jsonl")) {
        let (kind, name, link, mode, size, uid, gid, uname, gname, length, digest) = &row;
        let header = Header {
            name: name.as_bytes(),
            kind: match kind {
                '2' => FileKind::Symlink,
                '5' => FileKind::Folder,
                _ => FileKind::File,
            },
            mode: *mode,
            owner: EntryOwner { uid: *uid, gid: *gid, uname, gname },
            size: *size,
            link: link.as_bytes(),
        };
        let bytes = header.bytes();
        assert_eq!((bytes.len(), &Digest::of(&bytes)), (*length, digest), "{row:?}");
        count += 1;
    }
    assert_eq!(count, 58);
}

#[test]
fn a_path_is_rewritten_as_go_rewrites_it() {
    let mut count = 0;
    for row in rows::<[String; 4]>(include_str!("replaced.jsonl")) {
        let [pattern, replacement, text, expected] = row;
        let regex = regex::compile(&pattern).unwrap_or_else(|error| panic!("{pattern}: {error}"));
        let replaced = regex::replace_all(&regex, text.as_bytes(), &replacement);
        assert_eq!(String::from_utf8_lossy(&replaced), expected, "{pattern} {replacement} {text}");
        count += 1;
    }
    assert_eq!(count, 68);
}
