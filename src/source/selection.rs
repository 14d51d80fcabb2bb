//! Selects one of several images.

use std::fmt;
use std::sync::Arc;

use super::error::Error;
use super::interface::Image;
use super::printable::printable;
use crate::image::{Digest, Platform, parse_reference};

/// How many names a message lists.
const MAX_LISTED: usize = 10;
/// The fewest digits of an id by which an image may be chosen.
const SHORTEST_ID: usize = 6;

/// The user must choose among several images, or has chosen one that is not there.
#[derive(Debug, thiserror::Error)]
pub enum ChoiceError {
    /// There are several images, and the user must choose one.
    #[error(
        "{file} holds {count} images: {listed}; choose one with `{file}:TAG`, `{file}@sha256:…`, \
         `--image NAME` or, where they differ by it, `--platform OS/ARCHITECTURE`"
    )]
    SeveralImages { file: Arc<str>, count: usize, listed: String },
    /// There is no image of the name or digest asked for.
    #[error("{file} holds no image {wanted:?}; it holds {listed}")]
    NoSuchImage { file: Arc<str>, wanted: String, listed: String },
    /// There is no image for the platform asked for.
    #[error("{file} holds no image for {wanted:?}; it holds those for {listed}")]
    NoSuchPlatform { file: Arc<str>, wanted: String, listed: String },
}

impl From<ChoiceError> for Error {
    fn from(error: ChoiceError) -> Self {
        Self::Choice(Box::new(error))
    }
}

/// Selects one of several images of a source. The default selects the only image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// The name of the image in the source (`RepoTags`, `org.opencontainers.image.ref.name`), or
    /// the beginning of its id, which is the digest of its config.
    pub name: Option<String>,
    /// The digest of the image's manifest; in a docker archive, the digest of its config.
    pub digest: Option<Digest>,
    /// The platform of the image, which selects one image of an index.
    pub platform: Option<Platform>,
}

impl Selection {
    /// The images that match the selection. If some have exactly the selected name, only these are
    /// returned.
    pub fn among<'a>(&self, images: &'a [Image]) -> Vec<&'a Image> {
        let mut meant: Vec<&Image> = images.iter().filter(|image| self.fits(image)).collect();
        if meant.is_empty()
            && let Some(id) = self.name.as_deref().and_then(id_prefix)
        {
            let nameless = Self { name: None, ..self.clone() };
            let has_id = |image: &&Image| image.config.digest().hex().starts_with(id);
            meant = images.iter().filter(|image| nameless.fits(image)).filter(has_id).collect();
        }
        if let Some(name) = &self.name
            && meant.iter().any(|image| image.names.contains(name))
        {
            meant.retain(|image| image.names.contains(name));
        }
        meant
    }

    fn fits(&self, image: &Image) -> bool {
        let Self { name, digest, platform } = self;
        name.as_ref().is_none_or(|name| image.names.iter().any(|own| is_called(own, name)))
            && digest.as_ref().is_none_or(|digest| digest == image.config.digest())
            && platform.as_ref().is_none_or(|ours| ours.matches(image.config.platform()))
    }
}

/// Whether `name` means the image that is named `own`: it is the same name, another form of it by
/// Docker's rules, or its tag.
fn is_called(own: &str, name: &str) -> bool {
    let reference = parse_reference(own);
    own == name
        || (reference.is_some() && reference == parse_reference(name))
        || reference.as_ref().and_then(|own| own.tag()) == Some(name)
}

/// The digits of an image's id, or of the beginning of one: `sha256:1a2b3c…`, `1a2b3c`.
fn id_prefix(text: &str) -> Option<&str> {
    let digits = text.strip_prefix("sha256:").unwrap_or(text);
    let is_hex = digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    (is_hex && digits.len() >= SHORTEST_ID).then_some(digits)
}

impl fmt::Display for Selection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, digest, platform } = self;
        let name = name.as_ref().map(|name| format!("{name:?}"));
        let digest = digest.as_ref().map(ToString::to_string);
        let platform = platform.as_ref().map(|platform| format!("for {platform}"));
        let said: Vec<String> = [name, digest, platform].into_iter().flatten().collect();
        f.write_str(&said.join(" "))
    }
}

/// The names of images, with their platforms, and with their ids if several images have the same
/// name. Only the first names of a long list are shown.
pub fn list<'a>(images: impl IntoIterator<Item = &'a Image>) -> String {
    let images: Vec<&Image> = images.into_iter().collect();
    let names = images.iter().flat_map(|image| {
        let platform = printable(&image.config.platform().to_string());
        let id = image.config.digest();
        let called = match image.names.as_slice() {
            [] => vec![format!("(unnamed, {id})")],
            names => names.iter().map(|name| printable(name)).collect(),
        };
        let is_alone =
            |name: &String| images.iter().filter(|other| other.names.contains(name)).count() == 1;
        let id = match image.names.iter().all(is_alone) {
            true => String::new(),
            false => format!(", {id}"),
        };
        called.into_iter().map(move |name| format!("{name} ({platform}{id})"))
    });
    let names: Vec<String> = names.collect();
    match names.split_at_checked(MAX_LISTED) {
        Some((shown, more)) if !more.is_empty() => {
            format!("{} and {} more", shown.join(", "), more.len())
        }
        _ => names.join(", "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::Config;

    fn images() -> Vec<Image> {
        let image = |names: &[&str], architecture: &str| {
            Image {
            names: names.iter().map(|name| (*name).to_owned()).collect(),
            config: Config::parse(format!(
                r#"{{"os":"linux","architecture":"{architecture}","rootfs":{{}},"n":"{names:?}"}}"#,
            ).replace("\"[", "[").replace("]\"", "]"))
            .unwrap(),
            layers: vec![],
        }
        };
        vec![
            image(&["r.io/app:v1", "r.io/app:latest"], "amd64"),
            image(&["v1"], "arm64"),
            image(&[], "amd64"),
        ]
    }

    fn places(selection: &Selection) -> Vec<usize> {
        let images = images();
        let meant = selection.among(&images);
        let place =
            |image: &&Image| images.iter().position(|other| std::ptr::eq(other, *image)).unwrap();
        meant.iter().map(place).collect()
    }

    #[test]
    fn an_image_is_chosen_by_what_it_is_called() {
        let named = |name: &str| Selection { name: Some(name.into()), ..Selection::default() };
        assert_eq!(places(&Selection::default()), [0, 1, 2]);
        assert_eq!(places(&named("r.io/app")), [0]);
        assert_eq!(places(&named("latest")), [0, 1], "v1 is docker.io/library/v1:latest");
        assert_eq!(places(&named("v1")), [1], "the very name goes first");
        assert!(places(&named("v2")).is_empty());
        let id = images()[2].config.digest().clone();
        assert_eq!(places(&Selection { digest: Some(id), ..Selection::default() }), [2]);
        let named_by_id = named(&images()[2].config.digest().hex()[..8]);
        assert_eq!(places(&named_by_id), [2]);
        assert_eq!(places(&named(images()[2].config.digest().as_str())), [2]);
        assert!(places(&named(&images()[2].config.digest().hex()[..5])).is_empty());
        let arm64 = Platform { os: "linux".into(), architecture: "arm64".into(), variant: None };
        let selection = Selection { platform: Some(arm64), ..named("v1") };
        assert_eq!(
            (places(&selection), selection.to_string()),
            (vec![1], "\"v1\" for linux/arm64".into())
        );
    }

    #[test]
    fn a_list_tells_names_or_ids_and_platforms_and_has_an_end() {
        let listed = list(&images());
        assert!(
            listed.starts_with("r.io/app:v1 (linux/amd64), r.io/app:latest (linux/amd64), v1 (")
        );
        assert!(listed.contains("(unnamed, sha256:"));
        let same = [images(), images()].concat();
        let id = same[1].config.digest();
        assert!(list(&same).contains(&format!("v1 (linux/arm64, {id})")), "{}", list(&same));
        let many = vec![images().remove(1); 30];
        assert!(list(&many).ends_with(" and 20 more"));
    }
}
