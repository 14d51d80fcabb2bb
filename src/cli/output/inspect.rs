//! The output of `pushimg inspect`: an image's properties, and a table of its layers.

use std::io::IsTerminal;

use console::{measure_text_width, truncate_str};

use super::text::{counted, escape, fit, layers, size};
use crate::inspect::{InspectedImage, InspectedLayer, Inspection};
use crate::report::{Known, Outcome};
use crate::source::store_path_name;

/// The width of a line if standard output is not a terminal.
const COLUMNS: usize = 120;
/// The minimum width of the column with a layer's contents.
const FEWEST: usize = 24;
/// The width of the column with the names of properties.
const WORDS: usize = 12;
/// The heading of the column with the registry's state.
const REGISTRY: &str = "registry";

/// The width of standard output.
pub fn columns() -> usize {
    match std::io::stdout().is_terminal() {
        true => usize::from(console::Term::stdout().size().1),
        false => COLUMNS,
    }
}

/// The complete output. Each line ends with a newline.
pub fn text(inspection: &Inspection, columns: usize) -> String {
    let mut lines = Vec::new();
    for image in &inspection.images {
        if !lines.is_empty() {
            lines.push(String::new());
        }
        properties(image, &mut lines);
        lines.push(String::new());
        table(image, columns, &mut lines);
    }
    if let Some(against) = &inspection.against {
        lines.push(String::new());
        lines.push(format!(
            "a push to {} would send {}: {} to upload",
            escape(&against.reference),
            size(against.bytes_to_send),
            layers(against.layers_to_upload),
        ));
    }
    lines.iter().map(|line| format!("{}\n", line.trim_end())).collect()
}

fn properties(image: &InspectedImage, lines: &mut Vec<String>) {
    let mut property = |word: &str, value: &str| {
        if !value.is_empty() {
            lines.push(format!("{word:WORDS$}{}", escape(value)));
        }
    };
    for name in &image.names {
        property("name", name);
    }
    property("id", image.id.as_str());
    if let Some(manifest) = &image.manifest {
        property("manifest", manifest.as_str());
    }
    property("platform", &image.platform.to_string());
    property("created", image.created.as_deref().unwrap_or_default());
    property("user", image.user.as_deref().unwrap_or_default());
    property("workdir", image.working_dir.as_deref().unwrap_or_default());
    property("entrypoint", &command(&image.entrypoint));
    property("cmd", &command(&image.cmd));
    property("ports", &image.exposed_ports.join(", "));
    for variable in &image.env {
        property("env", variable);
    }
}

/// A command with the quotes that a shell needs.
fn command(words: &[String]) -> String {
    let is_plain = |c: char| c.is_alphanumeric() || "-_./:=@%+,".contains(c);
    let quoted = |word: &String| match !word.is_empty() && word.chars().all(is_plain) {
        true => word.clone(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    };
    words.iter().map(quoted).collect::<Vec<_>>().join(" ")
}

/// A row for each layer: number, size, diff ID, the registry's state, and the contents.
fn table(image: &InspectedImage, columns: usize, lines: &mut Vec<String>) {
    let number = image.layers.len().to_string().len();
    let states: Vec<String> = image.layers.iter().map(state).collect();
    let widths = states.iter().map(|state| measure_text_width(state));
    let heading = if states.iter().all(String::is_empty) { "" } else { REGISTRY };
    let state_columns = widths.max().unwrap_or_default().max(heading.len());
    let row = |numbered: &str, sized: &str, diff_id: &str, state: &str, contents: &str| {
        let gap = if state_columns == 0 { "" } else { "  " };
        let state = fit(state, state_columns);
        format!("{numbered:>number$}  {sized:>7}  {diff_id:<12}{gap}{state}  {contents}")
    };
    let used = measure_text_width(&row("", "", "", "", ""));
    let room = columns.saturating_sub(used).max(FEWEST);
    lines.push(row("#", "size", "diff ID", heading, "contents"));
    for (place, (layer, state)) in image.layers.iter().zip(&states).enumerate() {
        let diff_id = layer.diff_id.as_ref().map_or("", |diff_id| diff_id.digest().short());
        let contents = contents(layer, room);
        lines.push(row(&(place + 1).to_string(), &size(layer.size), diff_id, state, &contents));
    }
    lines.push(format!("{}, {}", counted(image.layers.len(), "layer"), size(image.size)));
}

/// The registry's state of a layer, in a few words.
fn state(layer: &InspectedLayer) -> String {
    let Some(registry) = &layer.registry else {
        return String::new();
    };
    let state = match &registry.outcome {
        Outcome::Reused { why: Known::PreviousImage(_) } => "there, in previous image".to_owned(),
        Outcome::Reused { why: Known::Cache } => "there, in cache".to_owned(),
        Outcome::Reused { why: Known::AnsweredHead | Known::OnHost } => "there".to_owned(),
        Outcome::Reused { why: Known::Elsewhere } => "elsewhere".to_owned(),
        Outcome::Reused { why: Known::SameAsLayer } => "same as another layer".to_owned(),
        Outcome::Mounted { from } | Outcome::WouldMount { from } => format!("mount from {from}"),
        Outcome::Uploaded | Outcome::WouldUpload => format!("upload {}", size(registry.size)),
    };
    escape(&state).into_owned()
}

/// The names of as many store paths as fit, or else the command that made the layer.
pub fn contents(layer: &InspectedLayer, room: usize) -> String {
    if layer.store_paths.is_empty() {
        let command = layer.created_by.as_deref().unwrap_or_default();
        return truncate_str(&escape(command), room, "…").into_owned();
    }
    let names: Vec<_> = layer
        .store_paths
        .iter()
        .map(|path| escape(store_path_name(path).unwrap_or(path)))
        .collect();
    let mut text = String::new();
    for (place, name) in names.iter().enumerate() {
        let separator = if text.is_empty() { "" } else { ", " };
        let longer = format!("{text}{separator}{name}");
        let rest = match names.len() - place - 1 {
            0 => String::new(),
            more => format!(" +{more}"),
        };
        if !text.is_empty() && measure_text_width(&longer) + rest.len() > room {
            return format!("{text} +{}", names.len() - place);
        }
        text = longer;
    }
    // A single name may be too long, so it is shortened.
    truncate_str(&text, room, "…").into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::{Digest, Platform};
    use crate::inspect::{Against, AtRegistry};

    fn layer(store_paths: &[&str], created_by: Option<&str>) -> InspectedLayer {
        let path = |name: &&str| format!("/nix/store/{}-{name}", "0".repeat(32));
        InspectedLayer {
            diff_id: Some(Digest::of(b"layer").into()),
            digest: None,
            size: 12_345_678,
            store_paths: store_paths.iter().map(path).collect(),
            created_by: created_by.map(str::to_owned),
            registry: None,
        }
    }

    fn inspection(layers: Vec<InspectedLayer>) -> Inspection {
        let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        let image = InspectedImage {
            names: texts(&["r.io/app:v1", "r.io/app:v2"]),
            id: Digest::of(b"config"),
            manifest: None,
            platform: Platform { os: "linux".into(), architecture: "arm64".into(), variant: None },
            created: Some("1970-01-01T00:00:01Z".into()),
            entrypoint: texts(&["/bin/sh", "-c", "echo 'hi' \u{1b}[2J"]),
            cmd: vec![],
            env: texts(&["A=b"]),
            exposed_ports: texts(&["80/tcp", "443/tcp"]),
            working_dir: None,
            user: None,
            size: 24_691_356,
            layers,
        };
        Inspection { images: vec![image], against: None }
    }

    #[test]
    fn an_image_is_its_properties_and_a_table() {
        let shown = text(
            &inspection(vec![
                layer(&["glibc-2.38", "bash-5.2"], None),
                layer(&[], Some("COPY a b\u{7}")),
            ]),
            80,
        );
        let id = Digest::of(b"config");
        let short = Digest::of(b"layer").short().to_owned();
        assert_eq!(
            shown,
            format!(
                "name        r.io/app:v1\n\
                 name        r.io/app:v2\n\
                 id          {id}\n\
                 platform    linux/arm64\n\
                 created     1970-01-01T00:00:01Z\n\
                 entrypoint  /bin/sh -c 'echo '\\''hi'\\'' \\u{{1b}}[2J'\n\
                 ports       80/tcp, 443/tcp\n\
                 env         A=b\n\
                 \n\
                 #     size  diff ID       contents\n\
                 1  12.3 MB  {short}  glibc-2.38, bash-5.2\n\
                 2  12.3 MB  {short}  COPY a b\\u{{7}}\n\
                 2 layers, 24.7 MB\n"
            )
        );
    }

    #[test]
    fn what_a_registry_has_is_a_column_of_its_own() {
        let mut inspection = inspection(vec![layer(&["glibc-2.38"], None), layer(&["app"], None)]);
        let outcomes = [Outcome::Reused { why: Known::Cache }, Outcome::WouldUpload];
        for (layer, outcome) in inspection.images[0].layers.iter_mut().zip(outcomes) {
            let digest = Digest::of(b"blob");
            layer.registry = Some(AtRegistry { digest, size: 1_200_000, outcome });
        }
        let reference = "r.io/app:v1".to_owned();
        inspection.against =
            Some(Against { reference, bytes_to_send: 1_201_000, layers_to_upload: 1 });
        let shown = text(&inspection, 80);
        let short = Digest::of(b"layer").short().to_owned();
        let table = format!(
            "#     size  diff ID       registry         contents\n\
             1  12.3 MB  {short}  there, in cache  glibc-2.38\n\
             2  12.3 MB  {short}  upload 1.2 MB    app\n\
             2 layers, 24.7 MB\n\
             \n\
             a push to r.io/app:v1 would send 1.2 MB: 1 layer to upload\n"
        );
        assert!(shown.ends_with(&table), "{shown}");

        let there = Outcome::Reused { why: Known::AnsweredHead };
        for layer in &mut inspection.images[0].layers {
            let digest = Digest::of(b"blob");
            layer.registry = Some(AtRegistry { digest, size: 1, outcome: there.clone() });
        }
        let shown = text(&inspection, 80);
        assert!(shown.contains("diff ID       registry  contents\n"), "{shown}");
        assert!(shown.contains(&format!("{short}  there     glibc-2.38\n")), "{shown}");
    }

    #[test]
    fn as_many_store_paths_are_named_as_there_is_room_for() {
        let names = ["glibc-2.38", "bash-5.2", "zlib-1.3"];
        let of = |names: &[&str], room| contents(&layer(names, None), room);
        assert_eq!(of(&names, 30), "glibc-2.38, bash-5.2, zlib-1.3");
        assert_eq!(of(&names, 29), "glibc-2.38, bash-5.2 +1");
        assert_eq!(of(&names, 22), "glibc-2.38 +2");
        assert_eq!(of(&["a-very-long-name-of-a-package"], 24), "a-very-long-name-of-a-p…");
        assert_eq!(contents(&layer(&[], Some("RUN make")), 5), "RUN …");
        assert_eq!(contents(&layer(&[], None), 5), "");
    }
}
