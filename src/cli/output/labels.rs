//! Labels for the images of a run, at the beginning of their log lines. They are as short as
//! possible, but different.

use std::collections::HashSet;

use crate::image::Reference;

use super::text::{escape, fit};
use crate::push::{IndexItem, Item};
use crate::source::Location;
use crate::ssh::Host;

/// The most columns of a label.
const MAX_COLUMNS: usize = 32;

/// A label for each image, padded to the same width. Empty if there is only one image.
pub fn of_items(items: &[Item]) -> Vec<String> {
    // The forms are tried from short to long until all labels are different.
    type LabelForm = fn(&Reference, Option<&Host>) -> String;
    let forms: [LabelForm; 4] = [
        |to, _| last(to.repository()).to_owned(),
        |to, _| format!("{}{}", last(to.repository()), suffix(to)),
        |to, _| format!("{}{}", to.repository(), suffix(to)),
        |to, host| match host {
            Some(host) => host.reference(to, to.tag().unwrap_or_default()),
            None => format!("{}/{}{}", to.registry(), to.repository(), suffix(to)),
        },
    ];
    let by = |form: &LabelForm| -> Vec<String> {
        let label = |item: &Item| match &item.destination {
            Some(destination) => form(destination, item.host.as_ref()),
            None => file(&item.image),
        };
        items.iter().map(label).collect()
    };
    let labels = forms.iter().map(by).find(|labels| {
        let mut seen = HashSet::new();
        labels.iter().all(|label| seen.insert(label))
    });
    aligned(labels.unwrap_or_else(|| by(&forms[3])))
}

/// Labels for the images of an index: their platforms, or else their files.
pub fn of_index(images: &[IndexItem]) -> Vec<String> {
    let label = |image: &IndexItem| match &image.platform {
        Some(platform) => platform.to_string(),
        None => file(&image.image),
    };
    aligned(images.iter().map(label).collect())
}

fn aligned(labels: Vec<String>) -> Vec<String> {
    if labels.len() < 2 {
        return Vec::new();
    }
    let labels: Vec<_> = labels.iter().map(|label| escape(label)).collect();
    let widths = labels.iter().map(|label| console::measure_text_width(label));
    let columns = widths.max().unwrap_or_default().min(MAX_COLUMNS);
    labels.iter().map(|label| fit(label, columns)).collect()
}

fn last(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

fn suffix(to: &Reference) -> String {
    match (to.tag(), to.digest()) {
        (Some(""), _) => String::new(),
        (Some(tag), _) => format!(":{tag}"),
        (None, Some(digest)) => format!("@{digest}"),
        (None, None) => String::new(),
    }
}

fn file(location: &Location) -> String {
    match location {
        Location::Path(path) => last(&path.to_string_lossy()).to_owned(),
        Location::Stdin => "-".to_owned(),
        Location::Registry(reference) => last(&reference.to_string()).to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::{Platform, parse_reference};
    use crate::source::Selection;

    fn labels(destinations: &[&str]) -> Vec<String> {
        let item = |destination: &&str| Item {
            image: Location::Path("images/result".into()),
            selection: Selection::default(),
            destination: parse_reference(destination),
            tags: vec![],
            host: None,
        };
        of_items(&destinations.iter().map(item).collect::<Vec<_>>())
    }

    #[test]
    fn labels_are_as_short_as_tells_images_apart() {
        assert_eq!(labels(&["r.io/team/api:v1", "r.io/team/worker:v1"]), ["api   ", "worker"]);
        assert_eq!(labels(&["r.io/api:v1", "r.io/api:v2"]), ["api:v1", "api:v2"]);
        assert_eq!(labels(&["r.io/a/api:v1", "r.io/b/api:v1"]), ["a/api:v1", "b/api:v1"]);
        assert_eq!(labels(&["r.io/api:v1", "q.io/api:v1"]), ["r.io/api:v1", "q.io/api:v1"]);
        assert_eq!(labels(&["r.io/api:v1", ""]), ["api   ", "result"]);
        assert_eq!(labels(&["", ""]), ["result", "result"]);
        assert!(labels(&["r.io/api:v1"]).is_empty());
    }

    #[test]
    fn images_of_an_index_are_called_by_their_platforms() {
        let image = |architecture: &str| IndexItem {
            image: Location::Stdin,
            selection: Selection::default(),
            platform: Some(Platform {
                os: "linux".into(),
                architecture: architecture.into(),
                variant: None,
            }),
        };
        assert_eq!(of_index(&[image("amd64"), image("arm")]), ["linux/amd64", "linux/arm  "]);
    }
}
