//! Parses platforms: `amd64`, `linux/arm64`, `linux/arm/v7`.

use super::name::InvalidValue;
use crate::image::Platform;

/// The operating system if none is given.
const OS: &str = "linux";

/// The names of architectures in `uname -m` and Nix, with the names in images.
const ALIASES: &[(&str, &str)] =
    &[("x86_64", "amd64"), ("aarch64", "arm64"), ("i686", "386"), ("armv7l", "arm/v7")];

/// Parses `[os/]arch[/variant]`.
pub fn parse(text: &str) -> Result<Platform, InvalidValue> {
    let is_word = |word: &str| {
        let is_letter = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
        !word.is_empty() && word.bytes().all(is_letter)
    };
    let words: Vec<&str> = text.split('/').collect();
    let (os, rest) = match words.as_slice() {
        [architecture] => (OS, vec![*architecture]),
        [architecture, variant] if is_variant(variant) => (OS, vec![*architecture, *variant]),
        [os, architecture] => (*os, vec![*architecture]),
        [os, architecture, variant] => (*os, vec![*architecture, *variant]),
        _ => (OS, vec![]),
    };
    let is_wrong = rest.first().is_none_or(|architecture| is_variant(architecture));
    if is_wrong || !words.iter().all(|word| is_word(word)) {
        return Err(InvalidValue::new("expected os/arch[/variant], such as linux/arm64"));
    }
    let known = ALIASES.iter().find(|(alias, _)| *alias == rest[0]).map(|(_, known)| *known);
    let (architecture, variant) = match known.unwrap_or(rest[0]).split_once('/') {
        Some((architecture, variant)) => (architecture, Some(variant)),
        None => (known.unwrap_or(rest[0]), None),
    };
    Ok(Platform {
        os: os.to_owned(),
        architecture: architecture.to_owned(),
        variant: rest.get(1).copied().or(variant).map(str::to_owned),
    })
}

/// Whether a word is a variant such as `v7` or `v8.1`. Then `arm/v7` is an architecture with its
/// variant, and not an operating system.
fn is_variant(word: &str) -> bool {
    let digits = word.strip_prefix('v').unwrap_or_default();
    digits.starts_with(|c: char| c.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_platform_is_linux_unless_it_says_otherwise() {
        for (text, whole) in [
            ("amd64", "linux/amd64"),
            ("linux/arm64", "linux/arm64"),
            ("arm/v7", "linux/arm/v7"),
            ("linux/arm64/v8", "linux/arm64/v8"),
            ("windows/amd64", "windows/amd64"),
            ("x86_64", "linux/amd64"),
            ("linux/aarch64", "linux/arm64"),
            ("armv7l", "linux/arm/v7"),
        ] {
            assert_eq!(parse(text).unwrap().to_string(), whole, "{text}");
        }
        for wrong in ["", "/", "linux/", "/amd64", "a/b/c/d", "linux amd64", "linux/amd64/", "v7"] {
            let said = parse(wrong).unwrap_err().to_string();
            assert!(said.starts_with("expected os/arch[/variant]"), "{wrong}");
        }
    }
}
