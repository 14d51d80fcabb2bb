//! Images that would get into each other's way: two that move the same tag, or that are both
//! standard input.

use std::collections::HashMap;

use clap::error::ErrorKind;

use crate::cli::usage::Usage;
use crate::push::Item;
use crate::source::Location;

/// What is done about two images of the same destination.
pub const SAME_DESTINATION: &str = "give each a repository or a tag of its own";

/// Two of the items that would move the same tag, in words; `None` where there are none.
///
/// The destination of an item that goes where its image's name says is not known here.
pub fn same_destination(items: &[Item]) -> Option<String> {
    let mut taken = HashMap::new();
    for item in items {
        let Some(destination) = &item.destination else {
            continue;
        };
        let digest = destination.digest().filter(|_| destination.tag().is_none());
        let tags = destination.tag().into_iter().chain(item.tags.iter().map(String::as_str));
        for (separator, reference) in tags.map(|tag| (':', tag)).chain(digest.map(|d| ('@', d))) {
            let (host, repository) = (destination.registry(), destination.repository());
            if let Some(other) = taken.insert((host, repository, reference), &item.image) {
                return Some(format!(
                    "'{other}' and '{}' both go to {host}/{repository}{separator}{reference}",
                    item.image
                ));
            }
        }
    }
    None
}

/// Demands that standard input is one image at most.
pub fn check_stdin<'a>(images: impl Iterator<Item = &'a Location>) -> Result<(), Usage> {
    match images.filter(|image| **image == Location::Stdin).count() {
        0 | 1 => Ok(()),
        _ => Err(stdin_twice("an image", "another one")),
    }
}

/// The mistake of giving standard input two meanings.
pub fn stdin_twice(one: &str, other: &str) -> Usage {
    Usage::new(
        ErrorKind::ArgumentConflict,
        &format!("{one} and {other} are both standard input"),
        "put one of them into a file",
    )
}
