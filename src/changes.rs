//! What changed between two images: their layers, and for Nix images the packages that were added,
//! removed, rebuilt or have another version.
//!
//! This module compares two [`Inventory`] values. It reads nothing itself.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::Serialize;

use crate::image::{Config, DiffId};
use crate::source;

/// The layers and store paths of an image, as its config lists them.
#[derive(Clone, Debug, Default)]
pub struct Inventory {
    /// The layers' diff IDs.
    pub diff_ids: Vec<DiffId>,
    /// The store paths in the layers, as Nix lists them in the config's history.
    pub store_paths: Vec<String>,
}

/// The differences between two images.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Changes {
    /// How many layers only the new image has.
    pub layers_added: usize,
    /// How many layers only the old image has.
    pub layers_removed: usize,
    /// The packages that differ: first those with another version, then those that were added,
    /// removed and rebuilt. Each group is sorted by name. Empty if the images do not list store
    /// paths.
    pub packages: Vec<PackageChange>,
}

/// A package that differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PackageChange {
    /// Its name without the version: `openssl`.
    pub name: String,
    /// What happened to it.
    #[serde(flatten)]
    pub kind: PackageChangeKind,
}

/// What happened to a package.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(tag = "change", rename_all = "lowercase")]
pub enum PackageChangeKind {
    /// It has other versions. Usually each list has one.
    Version {
        /// Versions that only the old image has.
        from: Vec<String>,
        /// Versions that only the new image has.
        to: Vec<String>,
    },
    /// The new image has this version in addition to those that both images have.
    Added {
        /// Empty if the store path has no version.
        version: String,
    },
    /// Only the old image has this version.
    Removed {
        /// Empty if the store path has no version.
        version: String,
    },
    /// The version is the same, but the store path differs.
    Rebuilt,
}

/// The name of a store path, split as `nix store diff-closures` does it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackageName<'a> {
    /// `openssl`.
    pub name: &'a str,
    /// `3.0.13`; empty without a version.
    pub version: &'a str,
}

/// Names of outputs, which are not part of the version: `openssl-3.0.13-bin`.
const OUTPUTS: &[&str] = &[
    "bin", "data", "debug", "dev", "devdoc", "dist", "doc", "info", "lib", "lib32", "lib64", "man",
    "out", "static",
];

/// dockerTools puts the image's own files into a store path with this name. Every change rebuilds
/// this path, so it is not reported.
const CUSTOMISATION_LAYER: &str = "-customisation-layer";

impl<'a> PackageName<'a> {
    /// Splits `openssl-3.0.13-bin`: the version begins after the first `-` that is not followed by
    /// a letter (Nix manual, `builtins.parseDrvName`).
    pub fn parse(text: &'a str) -> Self {
        let text = match text.rsplit_once('-') {
            Some((rest, output)) if OUTPUTS.contains(&output) => rest,
            _ => text,
        };
        let mut dashes = text.match_indices('-').map(|(at, _)| at);
        let is_version = |at: &usize| {
            text[at + 1..].chars().next().is_some_and(|next| !next.is_ascii_alphabetic())
        };
        match dashes.find(is_version) {
            Some(at) => Self { name: &text[..at], version: &text[at + 1..] },
            None => Self { name: text, version: "" },
        }
    }
}

impl Inventory {
    /// The inventory that an image's config lists.
    pub(crate) fn of(config: &Config) -> Self {
        let steps = config.layer_history();
        let paths = steps.flat_map(|step| source::store_paths(step).map(str::to_owned));
        Self { diff_ids: config.diff_ids().to_vec(), store_paths: paths.collect() }
    }
}

/// The store paths of each version of each package.
type Packages<'a> = BTreeMap<&'a str, BTreeMap<&'a str, BTreeSet<&'a str>>>;

fn packages(store_paths: &[String]) -> Packages<'_> {
    let mut packages = Packages::new();
    for path in store_paths {
        let Some(name) = source::store_path_name(path) else { continue };
        if name.ends_with(CUSTOMISATION_LAYER) {
            continue;
        }
        let PackageName { name, version } = PackageName::parse(name);
        packages.entry(name).or_default().entry(version).or_default().insert(path);
    }
    packages
}

impl Changes {
    /// Compares `old` with `new`.
    pub fn between(old: &Inventory, new: &Inventory) -> Self {
        // An image may contain the same layer several times.
        let counted = |inventory: &Inventory| {
            let mut counts: HashMap<DiffId, usize> = HashMap::new();
            for diff_id in &inventory.diff_ids {
                *counts.entry(diff_id.clone()).or_default() += 1;
            }
            counts
        };
        let only_in = |one: &Inventory, other: &Inventory| -> usize {
            let (one, other) = (counted(one), counted(other));
            let theirs = |diff_id| other.get(diff_id).copied().unwrap_or_default();
            one.iter().map(|(diff_id, count)| count.saturating_sub(theirs(diff_id))).sum()
        };
        let (before, after) = (packages(&old.store_paths), packages(&new.store_paths));
        let none = BTreeMap::new();
        let names: BTreeSet<_> = before.keys().chain(after.keys()).collect();
        let mut packages: Vec<_> = names
            .into_iter()
            .flat_map(|name| {
                let before = before.get(name).unwrap_or(&none);
                let after = after.get(name).unwrap_or(&none);
                let kinds = package_changes(before, after).into_iter();
                kinds.map(|kind| PackageChange { name: (*name).to_owned(), kind })
            })
            .collect();
        packages.sort_by_key(|package| match package.kind {
            PackageChangeKind::Version { .. } => 0,
            PackageChangeKind::Added { .. } => 1,
            PackageChangeKind::Removed { .. } => 2,
            PackageChangeKind::Rebuilt => 3,
        });
        Self { layers_added: only_in(new, old), layers_removed: only_in(old, new), packages }
    }

    /// Whether there is no difference.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

fn package_changes(
    before: &BTreeMap<&str, BTreeSet<&str>>,
    after: &BTreeMap<&str, BTreeSet<&str>>,
) -> Vec<PackageChangeKind> {
    let only_in = |one: &BTreeMap<&str, _>, other: &BTreeMap<&str, _>| -> Vec<String> {
        let versions = one.keys().filter(|version| !other.contains_key(*version));
        versions.map(|version| (*version).to_owned()).collect()
    };
    let (from, to) = (only_in(before, after), only_in(after, before));
    match (from.is_empty(), to.is_empty()) {
        (false, false) => vec![PackageChangeKind::Version { from, to }],
        (true, false) => {
            to.into_iter().map(|version| PackageChangeKind::Added { version }).collect()
        }
        (false, true) => {
            from.into_iter().map(|version| PackageChangeKind::Removed { version }).collect()
        }
        (true, true) if before != after => vec![PackageChangeKind::Rebuilt],
        (true, true) => vec![],
    }
}

impl std::fmt::Display for PackageChange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { name, kind } = self;
        let suffix = |version: &str| match version {
            "" => String::new(),
            version => format!("-{version}"),
        };
        let versions = |versions: &[String]| {
            let shown = |version: &String| match version.as_str() {
                "" => "no version".to_owned(),
                version => version.to_owned(),
            };
            versions.iter().map(shown).collect::<Vec<_>>().join(", ")
        };
        match kind {
            PackageChangeKind::Version { from, to } => {
                write!(f, "{name} {} → {}", versions(from), versions(to))
            }
            PackageChangeKind::Added { version } => write!(f, "+{name}{}", suffix(version)),
            PackageChangeKind::Removed { version } => write!(f, "-{name}{}", suffix(version)),
            PackageChangeKind::Rebuilt => write!(f, "{name} rebuilt"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::Digest;

    fn inventory(names: &[&str]) -> Inventory {
        let path = |name: &&str| match name.split_once('!') {
            Some((hash, name)) => format!("/nix/store/{}-{name}", hash.repeat(32)),
            None => format!("/nix/store/{}-{name}", "0".repeat(32)),
        };
        let diff_id = |name: &&str| Digest::of(name.as_bytes()).into();
        Inventory {
            diff_ids: names.iter().map(diff_id).collect(),
            store_paths: names.iter().map(path).collect(),
        }
    }

    fn shown(old: &[&str], new: &[&str]) -> Vec<String> {
        let changes = Changes::between(&inventory(old), &inventory(new));
        changes.packages.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_layer_that_is_repeated_is_one_more() {
        let changes = Changes::between(&inventory(&["a-1", "b-1"]), &inventory(&["a-1", "a-1"]));
        assert_eq!((changes.layers_added, changes.layers_removed), (1, 1));
    }

    #[test]
    fn names_are_split_as_nix_splits_them() {
        for (text, name, version) in [
            ("openssl-3.0.13", "openssl", "3.0.13"),
            ("openssl-3.0.13-bin", "openssl", "3.0.13"),
            ("glibc-2.38-180", "glibc", "2.38-180"),
            ("bash-interactive-5.2-p26", "bash-interactive", "5.2-p26"),
            ("python3.11-requests-2.31.0", "python3.11-requests", "2.31.0"),
            ("hello-app", "hello-app", ""),
            ("foo-unstable-2024-01-01", "foo-unstable", "2024-01-01"),
            ("x-", "x-", ""),
            ("a-ü1", "a", "ü1"),
            ("nss-cacert-3.98-dev", "nss-cacert", "3.98"),
            ("lib", "lib", ""),
        ] {
            assert_eq!(PackageName::parse(text), PackageName { name, version }, "{text}");
        }
    }

    #[test]
    fn versions_additions_removals_and_rebuilds_are_told_in_this_order() {
        assert_eq!(
            shown(
                &[
                    "hello-app-1.0",
                    "openssl-3.0.13",
                    "openssl-3.0.13-bin",
                    "curl-8.5.0",
                    "a!glibc-2.38"
                ],
                &[
                    "hello-app-1.1",
                    "openssl-3.0.14",
                    "openssl-3.0.14-bin",
                    "zlib-1.3.1",
                    "b!glibc-2.38"
                ],
            ),
            [
                "hello-app 1.0 → 1.1",
                "openssl 3.0.13 → 3.0.14",
                "+zlib-1.3.1",
                "-curl-8.5.0",
                "glibc rebuilt"
            ]
        );
    }

    #[test]
    fn several_versions_of_a_package_are_kept_apart() {
        assert_eq!(shown(&["py-3.11"], &["py-3.11", "py-3.12"]), ["+py-3.12"]);
        assert_eq!(shown(&["py-3.11", "py-3.12"], &["py-3.12"]), ["-py-3.11"]);
        assert_eq!(shown(&["py-3.10", "py-3.11"], &["py-3.11", "py-3.12"]), ["py 3.10 → 3.12"]);
        assert_eq!(shown(&["src"], &["src-1"]), ["src no version → 1"]);
    }

    #[test]
    fn the_same_paths_are_no_change_and_dockertools_own_path_does_not_count() {
        assert!(shown(&["a-1", "b"], &["b", "a-1"]).is_empty());
        assert!(shown(&["0!x-customisation-layer"], &["1!x-customisation-layer"]).is_empty());
        let changes = Changes::between(&inventory(&["a"]), &inventory(&["a"]));
        assert!(changes.is_empty());
    }

    #[test]
    fn layers_are_counted_by_diff_id() {
        let changes = Changes::between(&inventory(&["a", "b", "c"]), &inventory(&["c", "d"]));
        assert_eq!((changes.layers_added, changes.layers_removed), (1, 2));
    }

    #[test]
    fn json_names_what_happened_to_each_package() {
        let changes = Changes::between(&inventory(&["a-1", "b-1"]), &inventory(&["a-2", "1!b-1"]));
        assert_eq!(
            serde_json::to_value(&changes.packages).unwrap(),
            serde_json::json!([
                {"name": "a", "change": "version", "from": ["1"], "to": ["2"]},
                {"name": "b", "change": "rebuilt"},
            ])
        );
    }
}
