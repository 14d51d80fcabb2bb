//! Reads the list for `--file`: JSON with images and their destinations.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::io::Read;
use std::path::Path;

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::image_name;
use crate::cli::name;
use crate::image::Bounded;
use crate::json;
use crate::push::Item;
use crate::source::printable;

/// The longest list that is accepted.
const MAX_BYTES: u64 = 1 << 20;

/// The most images that a list may have.
const MAX_IMAGES: usize = 1024;

/// The fields of an element.
const FIELDS: [&str; 3] = ["image", "destination", "tags"];

/// One image of the list.
#[derive(Deserialize)]
struct ListedImage {
    image: String,
    #[serde(default)]
    destination: Option<String>,
    #[serde(default)]
    tags: Vec<String>,
}

/// Reads a list. Relative paths in it start from `folder`. The error says what is wrong.
pub fn read(list: impl Read, folder: &Path) -> Result<Vec<Item>, String> {
    let mut bytes = Vec::new();
    list.take(MAX_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| format!("cannot be read: {error}"))?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(format!("is longer than the {MAX_BYTES} bytes that are read"));
    }
    parse(&bytes, folder)
}

/// Reads a list from its bytes.
pub fn parse(bytes: &[u8], folder: &Path) -> Result<Vec<Item>, String> {
    let wrong = |error: json::Error| format!("is not a list of images: {error}");
    let Bounded(images): Bounded<ListedImage, MAX_IMAGES> =
        json::from_slice(bytes).map_err(wrong)?;
    let names: Vec<HashMap<String, IgnoredAny>> = json::from_slice(bytes).map_err(wrong)?;
    if images.is_empty() {
        return Err("lists no image".to_owned());
    }
    let numbered = (1..).zip(images.into_iter().zip(names));
    numbered
        .map(|(number, (image, names))| {
            check_names(&names)
                .and_then(|()| item(image, folder))
                .map_err(|wrong| format!("has a wrong element {number}: {wrong}"))
        })
        .collect()
}

/// Rejects unknown fields, because a misspelt field would otherwise be ignored.
fn check_names(names: &HashMap<String, IgnoredAny>) -> Result<(), String> {
    let is_known = |name: &str| FIELDS.iter().any(|field| field.eq_ignore_ascii_case(name));
    match names.keys().filter(|name| !is_known(name)).min() {
        Some(name) => Err(format!(
            "{:?} is not known; an element has \"image\", and may have \"destination\" and \"tags\"",
            printable(name)
        )),
        None => Ok(()),
    }
}

fn item(image: ListedImage, folder: &Path) -> Result<Item, String> {
    let ListedImage { image, destination, tags } = image;
    if image.is_empty() {
        return Err("\"image\" is empty".to_owned());
    }
    let destination = destination
        .map(|text| {
            let shown = || name::mask_login(&text).unwrap_or_else(|| text.clone());
            name::target(&text).map_err(|why| format!("{:?}: {why}", shown()))
        })
        .transpose()?;
    let (host, destination) = name::unzip(destination);
    let tags = tags
        .iter()
        .map(|tag| name::tag(tag).map_err(|why| format!("{tag:?}: {why}")))
        .collect::<Result<Vec<_>, _>>()?;
    let (image, selection) = image_name::parse(OsStr::new(&image), folder);
    let tags = name::other_tags(tags, destination.as_ref());
    Ok(Item { image, selection, destination, tags, host })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::Location;

    fn wrong(list: &str) -> String {
        parse(list.as_bytes(), Path::new("")).unwrap_err()
    }

    #[test]
    fn a_list_says_what_goes_where() {
        let list = r#"[
            {"image": "a", "destination": "r.io/a:v1", "tags": ["v2", "v1", "v2"]},
            {"image": "/b/c", "destination": null},
            {"image": "-"}
        ]"#;
        let items = parse(list.as_bytes(), Path::new("lists")).unwrap();
        assert_eq!(items[0].image, Location::Path("lists/a".into()));
        assert_eq!(items[0].destination.as_ref().unwrap().whole(), "r.io/a:v1");
        assert_eq!(items[0].tags, ["v2"]);
        assert_eq!(items[1].image, Location::Path("/b/c".into()));
        assert!(items[1].destination.is_none() && items[1].tags.is_empty());
        assert_eq!(items[2].image, Location::Stdin);
    }

    #[test]
    fn what_is_wrong_is_named_with_its_element() {
        for (list, said) in [
            ("", "is not a list of images: it is not JSON: it ends too early at line 1"),
            ("{}", "is not a list of images: it must be a list, and is an object"),
            ("[]", "lists no image"),
            (
                r#"[{"image": "a"}, {"image": "b", "dest": "r.io/b"}]"#,
                "element 2: \"dest\" is not known; an element has \"image\"",
            ),
            (r#"[{"destination": "r.io/b"}]"#, "`[0].image` is missing"),
            (r#"[{"image": ""}]"#, "element 1: \"image\" is empty"),
            (r#"["a"]"#, "`[0]` must be an object, and is a string"),
            (r#"[{"image": "a", "destination": "https://r.io/b"}]"#, "leave out the https://"),
            (
                r#"[{"image": "a", "tags": ["r.io/b:c"]}]"#,
                "element 1: \"r.io/b:c\": give the tag alone",
            ),
        ] {
            assert!(wrong(list).contains(said), "{list}: {}", wrong(list));
        }
    }

    #[test]
    fn a_list_has_an_end() {
        let list = |count| format!("[{}]", vec![r#"{"image":"a"}"#; count].join(","));
        assert_eq!(parse(list(MAX_IMAGES).as_bytes(), Path::new("")).unwrap().len(), MAX_IMAGES);
        assert!(wrong(&list(MAX_IMAGES + 1)).contains("more than 1024 elements"));
        let endless = std::io::repeat(b' ');
        assert!(read(endless, Path::new("")).unwrap_err().contains("is longer than"));
        assert!(wrong(&"[".repeat(100_000)).contains("it is not JSON"));
    }
}
