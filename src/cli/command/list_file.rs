//! `--file`: a JSON list of images and where they go.

use std::ffi::OsStr;
use std::io::Read;
use std::path::Path;

use serde::Deserialize;

use super::image_name;
use crate::cli::name;
use crate::image::Bounded;
use crate::push::Item;

/// Longer lists are refused.
const MAX_BYTES: u64 = 1 << 20;

/// A list with more images is refused.
const MAX_IMAGES: usize = 1024;

/// One image of the list.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ListedImage {
    image: String,
    #[serde(default)]
    destination: Option<String>,
    #[serde(default)]
    tags: Vec<String>,
}

/// Reads a list. Relative paths in it start from `folder`. The error says what is wrong with it.
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
    // Each element is read on its own, so that an error can say which element is wrong.
    let Bounded(elements): Bounded<serde_json::Value, MAX_IMAGES> =
        serde_json::from_slice(bytes).map_err(|error| format!("is not a JSON list: {error}"))?;
    if elements.is_empty() {
        return Err("lists no image".to_owned());
    }
    let numbered = (1..).zip(elements);
    numbered
        .map(|(number, element)| {
            item(element, folder).map_err(|wrong| format!("has a wrong element {number}: {wrong}"))
        })
        .collect()
}

fn item(element: serde_json::Value, folder: &Path) -> Result<Item, String> {
    let ListedImage { image, destination, tags } =
        serde_json::from_value(element).map_err(|error| error.to_string())?;
    if image.is_empty() {
        return Err("\"image\" is empty".to_owned());
    }
    let destination = destination
        .map(|text| {
            let shown = || name::mask_login(&text).unwrap_or_else(|| text.clone());
            name::destination(&text).map_err(|why| format!("{:?}: {why}", shown()))
        })
        .transpose()?;
    let tags = tags
        .iter()
        .map(|tag| name::tag(tag).map_err(|why| format!("{tag:?}: {why}")))
        .collect::<Result<Vec<_>, _>>()?;
    let (image, selection) = image_name::parse(OsStr::new(&image), folder);
    let tags = name::other_tags(tags, destination.as_ref());
    Ok(Item { image, selection, destination, tags })
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
            ("", "is not a JSON list: EOF"),
            ("{}", "is not a JSON list: invalid type: map"),
            ("[]", "lists no image"),
            (
                r#"[{"image": "a"}, {"image": "b", "dest": "r.io/b"}]"#,
                "element 2: unknown field `dest`, expected one of `image`, `destination`, `tags`",
            ),
            (r#"[{"destination": "r.io/b"}]"#, "element 1: missing field `image`"),
            (r#"[{"image": ""}]"#, "element 1: \"image\" is empty"),
            (r#"["a"]"#, "element 1: invalid type: string"),
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
        assert!(wrong(&"[".repeat(100_000)).contains("recursion limit"));
    }
}
