//! The output of `pushimg diff`: the layers that only one image has, and the packages that differ.

use super::inspect::contents;
use super::text::{escape, layers, size};
use crate::inspect::{Comparison, LayerState};

/// The width of the columns before a layer's contents.
const BEFORE_CONTENTS: usize = 25;

/// The complete output. Each line ends with a newline.
pub fn text(comparison: &Comparison, columns: usize) -> String {
    let state = |wanted| comparison.layers.iter().filter(move |layer| layer.state == wanted);
    let same = state(LayerState::Same);
    let size_of_same = size(same.clone().map(|layer| layer.layer.size).sum());
    let mut lines = vec![format!("  {} in both, {size_of_same}", layers(same.count()))];
    for (sign, wanted) in [('-', LayerState::Removed), ('+', LayerState::Added)] {
        for compared in state(wanted) {
            let layer = &compared.layer;
            let digest = layer.diff_id.as_ref().map(|id| id.digest()).or(layer.digest.as_ref());
            let digest = digest.map_or("", |digest| digest.short());
            let contents = contents(layer, columns.saturating_sub(BEFORE_CONTENTS));
            lines.push(format!("{sign} {digest:12}  {:>7}  {contents}", size(layer.size)));
        }
    }
    if !comparison.changes.packages.is_empty() {
        lines.push(String::new());
        let packages = comparison.changes.packages.iter();
        lines.extend(packages.map(|package| escape(&package.to_string()).into_owned()));
    }
    lines.iter().map(|line| format!("{}\n", line.trim_end())).collect()
}
