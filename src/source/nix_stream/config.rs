//! The image's config, with exactly the bytes that the stream script writes.

use std::collections::HashMap;

use super::conf::Conf;
use super::json::{self, Value};
use crate::image::DiffId;

/// A layer, as the config lists it.
pub struct ConfigLayer {
    pub diff_id: DiffId,
    /// The paths that it was made of, or the name that it has in the base image.
    pub paths: Vec<String>,
}

/// Why a config cannot be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unwritable {
    /// It cannot be written as JSON.
    Json(json::UnwritableJson),
    /// The name of a layer is not ASCII, and Python may show it in several ways.
    Name,
}

/// The config of an image of these layers; `environment` is that of the base image, if it has one.
pub fn config(
    conf: &Conf,
    environment: Option<Vec<String>>,
    layers: &[ConfigLayer],
) -> Result<Vec<u8>, Unwritable> {
    let text = |text: &str| Value::Text(text.to_owned());
    let map = |entries: Vec<(&str, Value)>| {
        Value::Map(entries.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
    };
    let created = || text(&conf.created.iso);
    let mut inner = conf.config.clone();
    if let Some(base) = environment {
        overlay(&mut inner, base);
    }
    let diff_ids = layers.iter().map(|layer| text(layer.diff_id.digest().as_str())).collect();
    let history = layers.iter().map(|layer| {
        let paths = layer.paths.iter().map(|path| repr(path)).collect::<Option<Vec<_>>>();
        let paths = paths.ok_or(Unwritable::Name)?.join(", ");
        let comment = text(&format!("store paths: [{paths}]"));
        Ok(map(vec![("created", created()), ("comment", comment)]))
    });
    let whole = map(vec![
        ("created", created()),
        ("architecture", text(&conf.architecture)),
        ("os", text("linux")),
        ("config", inner),
        ("rootfs", map(vec![("diff_ids", Value::List(diff_ids)), ("type", text("layers"))])),
        ("history", Value::List(history.collect::<Result<_, _>>()?)),
    ]);
    whole.dumps().map(String::into_bytes).map_err(Unwritable::Json)
}

/// Puts the base image's environment before the image's own. If a name occurs several times, its
/// last value is used, at the place of the first.
fn overlay(config: &mut Value, base: Vec<String>) {
    let own = super::base::environment(config).unwrap_or_default();
    let mut entries: Vec<String> = Vec::new();
    let mut places: HashMap<String, usize> = HashMap::new();
    for entry in base.into_iter().chain(own) {
        let name = entry.split('=').next().unwrap_or_default().to_owned();
        match places.get(&name) {
            Some(&place) => entries[place] = entry,
            None => {
                places.insert(name, entries.len());
                entries.push(entry);
            }
        }
    }
    let Value::Map(config) = config else {
        return;
    };
    if entries.is_empty() {
        return;
    }
    let environment = Value::List(entries.into_iter().map(Value::Text).collect());
    match config.iter_mut().find(|(key, _)| key == "Env") {
        Some((_, value)) => *value = environment,
        None => config.push(("Env".to_owned(), environment)),
    }
}

/// A string as Python prints it in a list; `None` if it is not ASCII.
pub fn repr(text: &str) -> Option<String> {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    let mut shown = String::from(quote);
    for character in text.chars() {
        match character {
            '\\' => shown.push_str("\\\\"),
            '\n' => shown.push_str("\\n"),
            '\r' => shown.push_str("\\r"),
            '\t' => shown.push_str("\\t"),
            _ if character == quote => shown.extend(['\\', quote]),
            ' '..='~' => shown.push(character),
            '\0'..='\x7f' => shown.push_str(&format!("\\x{:02x}", u32::from(character))),
            _ => return None,
        }
    }
    shown.push(quote);
    Some(shown)
}

#[cfg(test)]
mod tests {
    use super::super::tests::python;
    use super::*;

    #[test]
    fn strings_are_shown_as_python_shows_them() {
        let texts: Vec<String> = (0..128u8)
            .map(|byte| char::from(byte).to_string())
            .chain(["", "plain", "it's", "\"", "'\"", "a'b\"c\\'"].map(str::to_owned))
            .collect();
        let json = serde_json::to_vec(&texts).unwrap();
        let program = "import sys, json
sys.stdout.write(str(json.load(sys.stdin)))";
        let shown: Option<Vec<String>> = texts.iter().map(|text| repr(text)).collect();
        let ours = format!("[{}]", shown.unwrap().join(", "));
        assert_eq!(ours, String::from_utf8(python(program, &json)).unwrap());
        assert_eq!(repr("é"), None);
    }

    #[test]
    fn the_environment_of_the_base_comes_first_and_the_last_value_counts() {
        let overlaid = |config: &str, base: &[&str]| {
            let mut config = Value::parse(config.as_bytes()).unwrap();
            overlay(&mut config, base.iter().map(|entry| (*entry).to_owned()).collect());
            config
        };
        let parsed = |json: &str| Value::parse(json.as_bytes()).unwrap();
        for (config, base, expected) in [
            (r#"{"Cmd": []}"#, &[][..], r#"{"Cmd": []}"#),
            (r#"{"Env": [], "Cmd": []}"#, &[], r#"{"Env": [], "Cmd": []}"#),
            (r#"{"Cmd": []}"#, &["A=1", "B"], r#"{"Cmd": [], "Env": ["A=1", "B"]}"#),
            (
                r#"{"Env": ["A=2", "C=x=y", "B=3"], "Cmd": []}"#,
                &["A=1", "B", "B=2"],
                r#"{"Env": ["A=2", "B=3", "C=x=y"], "Cmd": []}"#,
            ),
        ] {
            assert_eq!(overlaid(config, base), parsed(expected));
        }
    }
}
