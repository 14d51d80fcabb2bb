//! One line about what a push changes: `openssl 3.0.13 → 3.0.14, +zlib-1.3.1, -curl-8.5.0`.

use super::text::{counted, escape};
use crate::changes::Changes;

/// The longest line in a log, in characters.
pub const LOG_COLUMNS: usize = 120;

/// As many different packages as fit into `columns`. If the image lists no packages, the number of
/// different layers.
pub fn line(changes: &Changes, columns: usize) -> String {
    let all: Vec<String> = items(changes).collect();
    for shown in (1..=all.len()).rev() {
        let mut line = all[..shown].join(", ");
        if shown < all.len() {
            line += &format!(" and {} more", all.len() - shown);
        }
        if line.chars().count() <= columns || shown == 1 {
            return line;
        }
    }
    layers(changes)
}

/// Each package that differs. Empty if the image lists no packages.
pub fn items(changes: &Changes) -> impl Iterator<Item = String> {
    changes.packages.iter().map(|package| escape(&package.to_string()).into_owned())
}

/// `2 new layers, 1 layer gone`.
fn layers(changes: &Changes) -> String {
    let new = (changes.layers_added > 0).then(|| counted(changes.layers_added, "new layer"));
    let gone = (changes.layers_removed > 0).then(|| match changes.layers_removed {
        1 => "1 layer gone".to_owned(),
        count => format!("{count} layers gone"),
    });
    new.into_iter().chain(gone).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::changes::{PackageChange, PackageChangeKind};

    #[test]
    fn changes_are_told_in_a_line_that_has_an_end() {
        let package = |name: &str, kind| PackageChange { name: name.to_owned(), kind };
        let version = |text: &str| vec![text.to_owned()];
        let changes = Changes {
            layers_added: 3,
            layers_removed: 1,
            packages: vec![
                package(
                    "openssl",
                    PackageChangeKind::Version { from: version("3.0.13"), to: version("3.0.14") },
                ),
                package("zlib", PackageChangeKind::Added { version: "1.3.1".to_owned() }),
                package("glibc\u{1b}", PackageChangeKind::Rebuilt),
            ],
        };
        let whole = "openssl 3.0.13 → 3.0.14, +zlib-1.3.1, glibc\\u{1b} rebuilt";
        assert_eq!(line(&changes, 80), whole);
        assert_eq!(line(&changes, 50), "openssl 3.0.13 → 3.0.14, +zlib-1.3.1 and 1 more");
        assert_eq!(line(&changes, 1), "openssl 3.0.13 → 3.0.14 and 2 more");
        let others = Changes { packages: Vec::new(), ..changes };
        assert_eq!(line(&others, 80), "3 new layers, 1 layer gone");
    }
}
