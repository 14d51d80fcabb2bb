//! Which version of nixpkgs' `stream_layered_image.py` a stream script is.
//!
//! Input: the script's text. Output: its [`Version`], which determines what the script does. The
//! whole text must be known, except for the path of Python, empty lines, and blanks at the ends of
//! lines. Any other script is run.

use super::refusal::Refusal;
use crate::image::Digest;

/// The longest script that is read. The known ones have some 14 KB.
pub const MAX_SCRIPT_BYTES: u64 = 256 << 10;

/// Versions of Python 3 whose `tarfile` writes the same bytes: older ones fill the device fields of
/// every header, newer ones are not known.
const PYTHONS: std::ops::RangeInclusive<u32> = 9..=14;

/// What a script does. Each version does the same as the one before it, with one change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// `from_image` is the base image; the store is `/nix/store`; all files belong to root and have
    /// the time `created`.
    FromImage,
    /// `store_dir` says where the store is.
    StoreDir,
    /// Root may write to the folders of the store: mode 0755 in place of 0555.
    WritableStore,
    /// `uid`, `gid`, `uname` and `gname` are the owner of the files.
    Owner,
    /// `mtime` is the time of the files.
    Mtime,
    /// An argument may give the image another name.
    RepoTag,
}

/// The SHA-256 of each known text, in the form that [`digest`] gives it.
///
/// Older versions of nixpkgs follow links to folders, or have no prebuilt layer, so they are run.
const KNOWN: &[(&str, Version)] = &[
    // nixpkgs, 2025.
    ("adcdc562032349d5c77319f0386d9882d152ffc69e6eed677004a2e877c1a4a1", Version::RepoTag),
    ("fc2bc685827892014d47240e5e42b9a444f1aaf688b6e4c6b1159602fe810095", Version::RepoTag),
    // The same two with a comment corrected.
    ("060090cd5e697bf1fcf9fab217341ecaf71a286f194709d709f4ef25610dbff7", Version::RepoTag),
    ("d2b25a173860637990901f131050f2b183b6e57e09b28c02c1559db3724a26a6", Version::RepoTag),
    // nixpkgs, 2021 to 2024. These texts were put together from newer ones, and from forks that
    // changed a few lines.
    ("9ea4380ec304b9c9ef8eafe86e29185dc8501ffbb493330ad289d7adc80e1e5c", Version::Mtime),
    ("1627bec0df1fe30b9e38e7fc9f672ec0e9b790f44d2bcf10c9da3557fd866c86", Version::Owner),
    ("aaea105bc592c7bacd8aaac44c1dde91c8f3bc51bc2cfc55f86b5d7373f64f47", Version::WritableStore),
    ("9c6f42f48cba2b0dbbf8348ac73154372173e21644684f47413c41a0e5695a3c", Version::StoreDir),
    ("34b35718f011448535c8e82f8bab55df9c3f482aa35e560eefed98def97d8406", Version::FromImage),
    // pushimg's own tests/support/stream_image.py: unchanged, and as the tests turn it into an
    // older version.
    ("b0cb2511da28b1d077028e660103be8896f69685f935af5b6b8f7252abc9f6a9", Version::RepoTag),
    ("9db9c787a677947f08a68edf39ff42f19fa29bb7a366f07a43b92ada2436dc02", Version::StoreDir),
];

/// The version of a script. `real_path` returns a path with all symlinks resolved.
pub fn version(text: &str, real_path: impl Fn(&str) -> Option<String>) -> Result<Version, Refusal> {
    let (first, body) = text.split_once('\n').unwrap_or_default();
    let interpreter = first.strip_prefix("#!").unwrap_or_default().trim();
    python_version(interpreter)
        .or_else(|| python_version(&real_path(interpreter)?))
        .filter(|version| PYTHONS.contains(version))
        .ok_or_else(|| {
            Refusal::unknown(format!(
                "the interpreter {interpreter:?} of its stream script is not a known Python"
            ))
        })?;
    let digest = digest(body);
    let known = KNOWN.iter().find(|(known, _)| *known == digest.hex());
    known.map(|(_, version)| *version).ok_or_else(|| {
        Refusal::unknown("its stream script is not one of the versions of nixpkgs that are known")
    })
}

/// The digest of a script without its first line, without blanks at the ends of lines, and without
/// empty lines.
fn digest(body: &str) -> Digest {
    let lines = body.lines().map(str::trim_end).filter(|line| !line.is_empty());
    let text: String = lines.flat_map(|line| [line, "\n"]).collect();
    Digest::of(text.as_bytes())
}

/// The minor version in the path of a Python: 11 for `…-python3-3.11.6/bin/python3` or
/// `…/python3.11`.
fn python_version(path: &str) -> Option<u32> {
    let number = |text: &str| -> Option<u32> {
        let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        text[..end].parse().ok()
    };
    let (_, name) = path.rsplit_once('/')?;
    if let Some(version) = name.strip_prefix("python3.") {
        return number(version);
    }
    let (_, version) = path.split_once("-python3-3.").filter(|_| name.starts_with("python"))?;
    number(version)
}

#[cfg(test)]
mod tests {
    use super::super::tests::SCRIPT;
    use super::*;

    fn read(text: &str) -> Option<Version> {
        version(text, |_| None).ok()
    }

    /// The script with an interpreter whose name tells its version.
    fn script() -> String {
        SCRIPT.replace("@PYTHON@", "/nix/store/x-python3-3.11.6/bin/python3")
    }

    #[test]
    fn a_script_is_known_by_its_whole_text() {
        let (_, body) = SCRIPT.split_once('\n').unwrap();
        assert_eq!(read(&script()), Some(Version::RepoTag), "{}", digest(body));
        let blanks = script().replace('\n', " \t\r\n\n");
        assert_eq!(read(&blanks), Some(Version::RepoTag));
        let mut aged = script();
        for (newer, older) in [
            ("0o0755  # rwxr-xr-x", "0o0555  # r-xr-xr-x"),
            ("ti.uid = uid", "ti.uid = 0"),
            ("ti.gid = gid", "ti.gid = 0"),
            ("ti.uname = uname", "ti.uname = \"root\""),
            ("ti.gname = gname", "ti.gname = \"root\""),
            ("parse_time(conf[\"mtime\"]).timestamp()", "created.timestamp()"),
        ] {
            assert!(aged.contains(newer), "{newer}");
            aged = aged.replace(newer, older);
        }
        let (_, body) = aged.split_once('\n').unwrap();
        assert_eq!(read(&aged), Some(Version::StoreDir), "{}", digest(body));
    }

    #[test]
    fn a_script_with_any_other_character_is_not_believed() {
        let script = script();
        let (first, _) = script.split_once('\n').unwrap();
        for (at, character) in script.char_indices().skip(first.len() + 1) {
            if !character.is_whitespace() {
                let (before, after) = (&script[..at], &script[at + character.len_utf8()..]);
                assert_eq!(read(&format!("{before}~{after}")), None, "{at}");
            }
        }
        // With another indentation it is another program.
        let indented =
            script.replace("        layers.append(ready", "            layers.append(ready");
        assert_ne!(indented, script);
        assert_eq!(read(&indented), None);
        assert_eq!(read(&script.replace('\n', "\n# A comment.\n")), None);
        assert_eq!(read(""), None);
        assert_eq!(read("#!/bin/sh\necho"), None);
    }

    #[test]
    fn every_known_digest_is_there_once() {
        for (index, (digest, _)) in KNOWN.iter().enumerate() {
            assert!(Digest::from_sha256_hex(digest).is_ok(), "{digest}");
            assert!(KNOWN[..index].iter().all(|(other, _)| other != digest), "{digest}");
        }
    }

    #[test]
    fn only_pythons_that_write_the_same_bytes_are_believed() {
        let with = |python: &str| read(&SCRIPT.replace("@PYTHON@", python)).is_some();
        for python in [
            "/nix/store/x-python3-3.9.18/bin/python3",
            "/nix/store/x-python3-3.12.1-env/bin/python",
            "/usr/bin/python3.13",
            " /nix/store/x-python3-3.11.6/bin/python3.11",
        ] {
            assert!(with(python), "{python}");
        }
        for python in [
            "/nix/store/x-python3-3.8.18/bin/python3",
            "/nix/store/x-python3-3.99.0/bin/python3",
            "/usr/bin/python3.8",
            "/usr/bin/python3",
            "/usr/bin/env python3.11",
            "/nix/store/x-python3-3.11.6/bin/pypy",
            "/usr/bin/python2.7",
            "",
        ] {
            assert!(!with(python), "{python}");
        }
        let linked = SCRIPT.replace("@PYTHON@", "/usr/bin/python3");
        let real = |path: &str| (path == "/usr/bin/python3").then(|| "/usr/bin/python3.11".into());
        assert!(version(&linked, real).is_ok());
    }
}
