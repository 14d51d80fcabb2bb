//! What to serve, under which name, and how.

use std::fmt;

use crate::image::{Compression, Format, Reference, is_tag, parse_reference, short_repository};
use crate::{reuse, source};

/// Images to serve.
#[derive(Clone, Debug)]
pub struct Offer {
    /// Where they are.
    pub image: source::Location,
    /// Which images, if there are several. The default is all.
    pub selection: source::Selection,
    /// The name of the only image. `None`: the images have their own names, or else the name of the
    /// file.
    pub name: Option<PullName>,
}

/// The name under which an image can be pulled: a repository and a tag.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PullName {
    /// The repository.
    pub repository: String,
    /// The tag.
    pub tag: String,
}

/// How to serve.
#[derive(Clone, Debug)]
pub struct ServeOptions {
    /// The format of manifests that are made here. `None` (the default): OCI's if a layer is not
    /// compressed or is compressed with zstd, else Docker's. Manifests in a layout are served
    /// unchanged.
    pub format: Option<Format>,
    /// How layers are compressed. Default: not at all, so that a blob is the layer itself.
    pub compression: Compression,
    /// The compressor's level, as for a push.
    pub level: Option<i32>,
    /// Whether an image that is a program may be run. Default: yes.
    pub may_run: bool,
    /// Where the local cache is. Default: `None`, no cache is used.
    pub cache: Option<reuse::CacheLocation>,
}

impl Default for ServeOptions {
    fn default() -> Self {
        Self {
            format: None,
            compression: Compression::None,
            level: None,
            may_run: true,
            cache: None,
        }
    }
}

impl PullName {
    /// The pull name of an image with this name: the repository without the registry's host, and
    /// the tag. `None` if the text is not a valid image name.
    pub fn of(text: &str) -> Option<Self> {
        let reference: Reference = parse_reference(text)?;
        let repository = short_repository(&reference).unwrap_or(reference.repository());
        let tag = reference.tag().unwrap_or("latest").to_owned();
        Some(Self { repository: repository.to_owned(), tag })
    }

    /// A pull name made from a file name. Characters that a repository name cannot contain are left
    /// out.
    pub fn of_file(location: &source::Location) -> Self {
        let file = match location {
            source::Location::Path(path) => path.file_name().unwrap_or_default().to_string_lossy(),
            source::Location::Stdin => "image".into(),
            source::Location::Registry(reference) => reference.repository().into(),
        };
        let stem = file.split(".tar").next().unwrap_or_default();
        let stem = stem.strip_suffix(".json").unwrap_or(stem).to_lowercase();
        let words =
            stem.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
        let repository = words.collect::<Vec<_>>().join("-");
        let fits = (1..=128).contains(&repository.len());
        let repository = if fits { repository } else { "image".to_owned() };
        Self { repository, tag: "latest".to_owned() }
    }

    /// The pull name for a name in a layout, which may be only a tag.
    pub(super) fn of_layout(name: &str, location: &source::Location) -> Option<Self> {
        match !name.contains(['/', ':']) && is_tag(name) {
            true => Some(Self { tag: name.to_owned(), ..Self::of_file(location) }),
            false => Self::of(name),
        }
    }
}

impl fmt::Display for PullName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.repository, self.tag)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pulled(text: &str) -> Option<String> {
        PullName::of(text).map(|name| name.to_string())
    }

    #[test]
    fn an_image_is_pulled_by_its_own_name_without_the_host() {
        assert_eq!(pulled("app").unwrap(), "app:latest");
        assert_eq!(pulled("docker.io/library/app:v1").unwrap(), "app:v1");
        assert_eq!(pulled("ghcr.io/library/app:v1").unwrap(), "library/app:v1");
        assert_eq!(pulled("localhost:5000/team/app:v1").unwrap(), "team/app:v1");
        assert_eq!(pulled("App"), None);
        assert_eq!(pulled("../etc"), None);
    }

    #[test]
    fn an_image_without_a_name_is_called_like_its_file() {
        for (path, name) in [
            ("/x/result", "result:latest"),
            ("docker-image-App_1.tar.gz", "docker-image-app-1:latest"),
            ("é.tar", "image:latest"),
            ("..", "image:latest"),
            ("image.json", "image:latest"),
        ] {
            let location = source::Location::Path(path.into());
            assert_eq!(PullName::of_file(&location).to_string(), name, "{path}");
        }
    }

    #[test]
    fn a_name_in_a_layout_may_be_a_tag_alone() {
        let location = source::Location::Path("layouts/app".into());
        let named = |name: &str| PullName::of_layout(name, &location).unwrap().to_string();
        assert_eq!(named("v1"), "app:v1");
        assert_eq!(named("r.io/other:v1"), "other:v1");
    }
}
