//! Names that people can read for layers: the package in the layer, or the command that made it.

use crate::image::History;

use super::printable::printable;
use super::tar::Tar;
use super::wrapping::Wrapping;

/// Longer names are cut off.
const MAX_CHARS: usize = 40;

/// The name of the first package in a layer, such as `glibc-2.38`, from the first bytes of its tar.
/// `None` if these have no store path of Nix.
pub fn package_name(first_block: &[u8]) -> Option<String> {
    let mut tar = Tar::new(first_block, "".into(), Wrapping::None);
    while let Ok(Some(entry)) = tar.next_entry() {
        let name = entry.name.trim_start_matches("./").trim_start_matches('/');
        if let Some(package) = name.strip_prefix("nix/store/").and_then(package_of) {
            return Some(shortened(package));
        }
    }
    None
}

/// The name of a layer by its entry in the config's history: `glibc-2.38 +1` for a layer of two store
/// paths, otherwise the command that made it. `None` if the entry has neither.
pub fn name_from_history(history: &History) -> Option<String> {
    let mut packages = store_paths(history).filter_map(store_path_name);
    if let Some(first) = packages.next() {
        let first = shortened(first);
        return Some(match packages.count() {
            0 => first,
            more => format!("{first} +{more}"),
        });
    }
    command(history).map(shortened)
}

/// The store paths in a layer, which Nix lists in the history. None if Nix did not make the layer.
pub fn store_paths(history: &History) -> impl Iterator<Item = &str> {
    let list = history.comment.strip_prefix("store paths: [").unwrap_or_default();
    // The paths stand between quotes, and have no quotes in them.
    list.split(['\'', '"']).skip(1).step_by(2)
}

/// The name in a store path: `/nix/store/…-glibc-2.38` is `glibc-2.38`.
pub fn store_path_name(path: &str) -> Option<&str> {
    package_of(path.strip_prefix("/nix/store/")?)
}

/// The command that made a layer, without the words that Docker puts around every command.
pub fn command(history: &History) -> Option<&str> {
    let mut command = history.created_by.trim();
    for prefix in ["|0", "RUN", "/bin/sh -c", "#(nop)"] {
        command = command.strip_prefix(prefix).unwrap_or(command).trim_start();
    }
    let command = command.strip_suffix("# buildkit").unwrap_or(command).trim_end();
    // nix2container writes this for every layer.
    (!command.is_empty() && command != "nix2container").then_some(command)
}

/// `<32 digits of base 32>-glibc-2.38/lib` is `glibc-2.38`.
fn package_of(path: &str) -> Option<&str> {
    let (hash, rest) = path.split_at_checked(32)?;
    let is_base32 = |byte: u8| byte.is_ascii_digit() || byte.is_ascii_lowercase();
    if !hash.bytes().all(is_base32) {
        return None;
    }
    let name = rest.strip_prefix('-')?.split('/').next()?;
    (!name.is_empty()).then_some(name)
}

fn shortened(name: &str) -> String {
    let name = printable(name);
    if name.chars().count() <= MAX_CHARS {
        return name;
    }
    name.chars().take(MAX_CHARS - 1).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "0123456789abcdfghijklmnpqrsvwxyz";

    fn layer(names: &[String]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for name in names {
            let mut header = tar::Header::new_gnu();
            header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
            header.set_size(3);
            header.set_cksum();
            builder.append(&header, &b"abc"[..]).unwrap();
        }
        builder.into_inner().unwrap()
    }

    fn history(comment: &str, created_by: &str) -> History {
        History { comment: comment.into(), created_by: created_by.into(), empty_layer: false }
    }

    #[test]
    fn a_layer_is_named_by_its_first_store_path() {
        for prefix in ["/", "./", ""] {
            let tar = layer(&[
                format!("{prefix}nix"),
                format!("{prefix}nix/store"),
                format!("{prefix}nix/store/{HASH}-glibc-2.38/lib"),
                format!("{prefix}nix/store/{HASH}-other-1"),
            ]);
            assert_eq!(package_name(&tar).as_deref(), Some("glibc-2.38"));
            // What is cut off does not matter, as only the beginning is looked at.
            assert_eq!(package_name(&tar[..2500]), None);
            assert_eq!(package_name(&tar[..2 * 1024 + 700]).as_deref(), Some("glibc-2.38"));
        }
        assert_eq!(package_name(&layer(&["bin/sh".into()])), None);
        assert_eq!(package_name(b"no tar at all"), None);
        assert_eq!(package_name(b""), None);
    }

    #[test]
    fn a_layer_of_nix_is_named_by_its_store_paths() {
        let one = format!("store paths: ['/nix/store/{HASH}-glibc-2.38']");
        let two = format!("store paths: ['/nix/store/{HASH}-glibc-2.38', '/nix/store/{HASH}-x']");
        let name = |comment: &str| name_from_history(&history(comment, ""));
        assert_eq!(name(&one).as_deref(), Some("glibc-2.38"));
        assert_eq!(name(&two).as_deref(), Some("glibc-2.38 +1"));
        assert_eq!(name("store paths: []"), None);
        assert_eq!(name("store paths: ['"), None);
    }

    #[test]
    fn other_layers_are_named_by_their_command() {
        for (created_by, name) in [
            ("/bin/sh -c #(nop) ADD file:1 in / ", "ADD file:1 in /"),
            ("/bin/sh -c apt-get update", "apt-get update"),
            ("RUN /bin/sh -c make # buildkit", "make"),
            ("COPY a b # buildkit", "COPY a b"),
            ("a\x1b[31m\u{202e}b\n", "a\\u{1b}[31m\\u{202e}b"),
        ] {
            assert_eq!(name_from_history(&history("", created_by)).as_deref(), Some(name));
        }
        assert_eq!(name_from_history(&history("buildkit", " ")), None);
        assert_eq!(name_from_history(&history("", "nix2container")), None);
        let long = name_from_history(&history("", &"é".repeat(100))).unwrap();
        assert_eq!(long, format!("{}…", "é".repeat(39)));
    }
}
