//! Finds images that conflict: two with the same tag, or two from standard input.

use std::collections::HashMap;

use clap::error::ErrorKind;

use crate::cli::usage::Usage;
use crate::push::Item;
use crate::source::Location;

/// The tip for two images with the same destination.
pub const SAME_DESTINATION: &str = "give each a repository or a tag of its own";

/// Describes two items that would put the same tag; `None` if there are no such items.
///
/// Items without a destination are not compared, because the image's own name is not read yet.
pub fn same_destination(items: &[Item]) -> Option<String> {
    let mut taken = HashMap::new();
    for item in items {
        let Some(destination) = &item.destination else {
            continue;
        };
        let digest = destination.digest().filter(|_| destination.tag().is_none());
        let own = destination.tag().filter(|tag| !tag.is_empty());
        let tags = own.into_iter().chain(item.tags.iter().map(String::as_str));
        for (separator, reference) in tags.map(|tag| (':', tag)).chain(digest.map(|d| ('@', d))) {
            let (host, repository) = (destination.registry(), destination.repository());
            if let Some(other) =
                taken.insert((&item.host, host, repository, reference), &item.image)
            {
                let name = match &item.host {
                    Some(machine) => machine.reference(destination, reference),
                    None => format!("{host}/{repository}{separator}{reference}"),
                };
                return Some(format!("'{other}' and '{}' both go to {name}", item.image));
            }
        }
    }
    None
}

/// An error if more than one of the images comes from standard input.
pub fn check_stdin<'a>(images: impl Iterator<Item = &'a Location>) -> Result<(), Usage> {
    match images.filter(|image| **image == Location::Stdin).count() {
        0 | 1 => Ok(()),
        _ => Err(stdin_twice("an image", "another one")),
    }
}

/// The error if two inputs come from standard input.
pub fn stdin_twice(one: &str, other: &str) -> Usage {
    Usage::new(
        ErrorKind::ArgumentConflict,
        &format!("{one} and {other} are both standard input"),
        "put one of them into a file",
    )
}
