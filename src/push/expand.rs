//! Turns a location into items: each image goes to its own names.

use super::input::Input;
use super::options::{Item, PushOptions};
use crate::error::Error;
use crate::image::{Digest, parse_reference};
use crate::source::{Location, Selection};

/// The images at `location` as items. Each goes to the destination that its own name gives. Further
/// names in the same repository become tags; names in other repositories become further items.
///
/// The whole image is read if it does not list its contents at the beginning.
pub async fn expand(location: &Location, options: &PushOptions) -> Result<Vec<Item>, Error> {
    let mut items = Vec::new();
    for (id, names) in Input::new(location, options.may_run).names().await? {
        items.append(&mut items_of(location, &id, &names)?);
    }
    Ok(items)
}

fn items_of(location: &Location, id: &Digest, names: &[String]) -> Result<Vec<Item>, Error> {
    if names.is_empty() {
        return Err(Error::Usage(format!(
            "{location}: the image {id} has no name to be pushed to; push it alone, with a \
             destination: pushimg {location}@{id} HOST/REPOSITORY:TAG"
        )));
    }
    let mut items: Vec<Item> = Vec::new();
    for name in names {
        let destination = parse_reference(name).ok_or_else(|| {
            Error::Usage(format!(
                "{location}: the image {} names itself {name:?}, which is no destination; push it \
                 alone, with one: pushimg {location}@{id} HOST/REPOSITORY:TAG",
                id.short(),
            ))
        })?;
        let same = items.iter_mut().find(|item| {
            item.destination.as_ref().is_some_and(|other| {
                other.registry() == destination.registry()
                    && other.repository() == destination.repository()
                    && other.digest() == destination.digest()
            })
        });
        match (same, destination.tag()) {
            (Some(item), Some(tag)) => item.tags.push(tag.to_owned()),
            _ => items.push(Item {
                image: location.clone(),
                selection: Selection { digest: Some(id.clone()), ..Selection::default() },
                destination: Some(destination),
                tags: Vec::new(),
                host: None,
            }),
        }
    }
    Ok(items)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn items(names: &[&str]) -> Result<Vec<(String, Vec<String>)>, String> {
        let id = Digest::of(b"id");
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let items = items_of(&Location::Path("x.tar".into()), &id, &names);
        let shown = |item: Item| {
            assert_eq!(item.selection.digest.as_ref(), Some(&id));
            (item.destination.map(|to| to.whole()).unwrap_or_default(), item.tags)
        };
        items.map(|items| items.into_iter().map(shown).collect()).map_err(|error| error.to_string())
    }

    #[test]
    fn names_of_one_repository_are_one_item() {
        assert_eq!(
            items(&["r.io/a:v1", "r.io/b:v1", "r.io/a:v2", "a"]).unwrap(),
            [
                ("r.io/a:v1".to_owned(), vec!["v2".to_owned()]),
                ("r.io/b:v1".to_owned(), vec![]),
                ("docker.io/library/a:latest".to_owned(), vec![]),
            ]
        );
    }

    #[test]
    fn an_image_that_names_no_destination_is_named() {
        let unnamed = items(&[]).unwrap_err();
        assert!(unnamed.starts_with("x.tar: the image sha256:"), "{unnamed}");
        assert!(unnamed.contains("has no name"), "{unnamed}");
        let odd = items(&["r.io/a:v1", "A b\u{1b}"]).unwrap_err();
        assert!(odd.contains("names itself \"A b"), "{odd}");
        assert!(!odd.contains('\u{1b}'), "{odd}");
    }
}
