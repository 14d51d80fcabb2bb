//! The image config of a nix2container image, with exactly the bytes that nix2container's patched
//! skopeo pushes.
//!
//! That skopeo reads `image-config` into the types of OCI's image-spec and writes them with Go's
//! `encoding/json`. So fields that are not part of the specification are lost, and the others are
//! in the order of the specification.

use std::collections::BTreeMap;
use std::io;

use serde::{Deserialize, Deserializer, Serialize};

use super::spec::Spec;
use crate::image::DiffId;

/// OCI image-spec 1.1, "Image Configuration", `config`.
#[derive(Deserialize, Serialize)]
#[serde(rename_all = "PascalCase", default)]
#[derive(Default)]
pub struct ImageConfig {
    #[serde(skip_serializing_if = "String::is_empty")]
    user: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    exposed_ports: BTreeMap<String, Set>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    env: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    entrypoint: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    cmd: Vec<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    volumes: BTreeMap<String, Set>,
    #[serde(skip_serializing_if = "String::is_empty")]
    working_dir: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    labels: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    stop_signal: String,
    #[serde(skip_serializing_if = "is_false")]
    args_escaped: bool,
}

/// The value `{}`, where only the key matters.
#[derive(Deserialize, Serialize)]
struct Set {}

/// OCI image-spec 1.1, "Image Configuration", `history`.
#[derive(Default, Deserialize, Serialize)]
#[serde(default)]
pub struct HistoryJson {
    #[serde(skip_serializing_if = "Option::is_none")]
    created: Option<GoTime>,
    #[serde(skip_serializing_if = "String::is_empty")]
    created_by: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    author: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    comment: String,
    #[serde(skip_serializing_if = "is_false")]
    empty_layer: bool,
}

/// A time in the format of RFC 3339, written as Go writes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct GoTime(String);

#[derive(Serialize)]
struct ConfigOut<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    created: Option<&'a GoTime>,
    architecture: &'a str,
    os: &'static str,
    config: &'a ImageConfig,
    rootfs: RootFsOut<'a>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    history: Vec<&'a HistoryJson>,
}

#[derive(Serialize)]
struct RootFsOut<'a> {
    r#type: &'static str,
    /// An empty list is `null` in Go.
    diff_ids: Option<Vec<&'a DiffId>>,
}

/// The config's bytes.
pub fn bytes(spec: &Spec) -> Vec<u8> {
    let diff_ids = spec.layers.iter().map(|layer| &layer.diff_id).collect::<Vec<_>>();
    let config = ConfigOut {
        created: spec.created.as_ref(),
        architecture: &spec.arch,
        os: "linux",
        config: &spec.config,
        rootfs: RootFsOut {
            r#type: if diff_ids.is_empty() { "" } else { "layers" },
            diff_ids: (!diff_ids.is_empty()).then_some(diff_ids),
        },
        history: spec.layers.iter().map(|layer| &layer.history).collect(),
    };
    let mut bytes = Vec::new();
    // Fails only for a map whose keys are not text, or if the writer fails. Neither occurs here.
    config
        .serialize(&mut serde_json::Serializer::with_formatter(&mut bytes, GoJson))
        .expect("text, lists and maps with text keys are JSON");
    bytes
}

/// Writes JSON as Go does: it escapes characters that are special in HTML or JavaScript.
struct GoJson;

impl serde_json::ser::Formatter for GoJson {
    fn write_string_fragment<W>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()>
    where
        W: ?Sized + io::Write,
    {
        let is_escaped = |c: char| matches!(c, '<' | '>' | '&' | '\u{2028}' | '\u{2029}');
        for piece in fragment.split_inclusive(is_escaped) {
            match piece.char_indices().next_back().filter(|(_, last)| is_escaped(*last)) {
                Some((at, last)) => {
                    writer.write_all(&piece.as_bytes()[..at])?;
                    write!(writer, "\\u{:04x}", u32::from(last))?;
                }
                None => writer.write_all(piece.as_bytes())?,
            }
        }
        Ok(())
    }
}

impl<'de> Deserialize<'de> for GoTime {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        go_time(&text).map(Self).ok_or_else(|| {
            serde::de::Error::custom(format_args!(
                "{text:?} is not a time such as 1970-01-01T00:00:01Z"
            ))
        })
    }
}

/// The time as Go writes it: at most nine digits of the fraction, without zeros at its end, and `Z`
/// for an offset of zero. `None` if it does not have the form of RFC 3339.
fn go_time(text: &str) -> Option<String> {
    let has_form = |text: &str, form: &str| {
        text.len() == form.len()
            && text.bytes().zip(form.bytes()).all(|(byte, form)| match form {
                b'0' => byte.is_ascii_digit(),
                form => byte == form,
            })
    };
    let (seconds, rest) = text.split_at_checked("0000-00-00T00:00:00".len())?;
    if !has_form(seconds, "0000-00-00T00:00:00") {
        return None;
    }
    let (fraction, offset) = rest.split_at(rest.find(['Z', '+', '-'])?);
    let fraction = match fraction.strip_prefix('.') {
        Some(digits) if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            digits[..digits.len().min(9)].trim_end_matches('0')
        }
        None if fraction.is_empty() => "",
        _ => return None,
    };
    let offset = match offset {
        "Z" | "+00:00" | "-00:00" => "Z",
        offset if has_form(&offset[1..], "00:00") => offset,
        _ => return None,
    };
    let point = if fraction.is_empty() { "" } else { "." };
    Some(format!("{seconds}{point}{fraction}{offset}"))
}

fn is_false(value: &bool) -> bool {
    !value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_written_as_go_writes_it() {
        for (text, written) in [
            ("1970-01-01T00:00:01Z", Some("1970-01-01T00:00:01Z")),
            ("0001-01-01T00:00:00Z", Some("0001-01-01T00:00:00Z")),
            ("2024-05-13T10:20:30.500Z", Some("2024-05-13T10:20:30.5Z")),
            ("2024-05-13T10:20:30.000Z", Some("2024-05-13T10:20:30Z")),
            ("2024-05-13T10:20:30.1234567891+02:00", Some("2024-05-13T10:20:30.123456789+02:00")),
            ("2024-05-13T10:20:30+00:00", Some("2024-05-13T10:20:30Z")),
            ("now", None),
            ("2024-05-13T10:20:30", None),
            ("2024-05-13T10:20:30é", None),
            ("2024-05-13T10:20:30.Z", None),
            ("2024-05-13T10:20:30.é0Z", None),
            ("2024-05-13T10:20:30+2:00", None),
            ("2024-05-13 10:20:30Z", None),
        ] {
            assert_eq!(go_time(text).as_deref(), written, "{text}");
        }
    }
}
