use std::collections::BTreeMap;
use std::process::{Command, Stdio};

use proptest::prelude::*;
use serde::Deserialize;

use super::*;

#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Sample {
    os: String,
    creds_store: Option<String>,
    size: u64,
    offset: i64,
    is_empty: bool,
    list: Option<Vec<String>>,
    inner: Inner,
    map: BTreeMap<String, String>,
}

#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
struct Inner {
    r#type: String,
    diff_ids: Vec<String>,
}

fn read(json: impl AsRef<[u8]>) -> Sample {
    from_slice(json.as_ref()).unwrap()
}

fn error(json: impl AsRef<[u8]>) -> String {
    from_slice::<Sample>(json.as_ref()).unwrap_err().to_string()
}

#[test]
fn field_names_count_in_any_case() {
    for key in ["credsStore", "CREDSSTORE", "credsstore", "credSstore", "cred\u{17f}\u{17f}tore"] {
        let json = format!(r#"{{"{key}": "x"}}"#);
        assert_eq!(read(json).creds_store.as_deref(), Some("x"), "{key}");
    }
    assert_eq!(read(r#"{"O\u0053": "linux", "so": "", "ös": ""}"#).os, "linux");
    // The keys of a map are data, so they keep their case.
    let map = read(r#"{"map": {"a": "1", "A": "2"}}"#).map;
    assert_eq!(map.into_iter().collect::<Vec<_>>(), [("A", "2"), ("a", "1")].map(owned));
}

fn owned((key, value): (&str, &str)) -> (String, String) {
    (key.to_owned(), value.to_owned())
}

#[test]
fn the_last_of_duplicate_fields_wins_whatever_its_case() {
    assert_eq!(read(r#"{"os": "a", "OS": "b"}"#).os, "b");
    assert_eq!(read(r#"{"OS": "b", "os": "a", "oS": null}"#).os, "a");
    assert_eq!(read(r#"{"list": ["a"], "list": ["b"]}"#).list.unwrap(), ["b"]);
    assert_eq!(read(r#"{"list": ["a"], "list": null}"#).list, None);
    assert_eq!(read(r#"{"map": {"a": "1", "a": "2"}}"#).map["a"], "2");
    let merged = read(r#"{"inner": {"type": "x"}, "inner": {"diff_ids": ["y"], "Type": "z"}}"#);
    assert_eq!(merged.inner, Inner { r#type: "z".into(), diff_ids: vec!["y".into()] });
    let many = format!(r#"{{{}"inner": {{}}}}"#, r#""inner": {},"#.repeat(200));
    assert_eq!(error(many), "`inner` is there more than 100 times");
}

#[test]
fn null_is_the_empty_value() {
    let nulls = ["os", "credsStore", "size", "offset", "isEmpty", "list", "inner", "map"]
        .map(|key| format!("\"{key}\": null"))
        .join(", ");
    assert_eq!(read(format!("{{{nulls}}}")), Sample::default());
    assert_eq!(read("null"), Sample::default());
    assert_eq!(read(r#"{"list": [null, "a"]}"#).list.unwrap(), ["", "a"]);
    assert_eq!(read(r#"{"inner": {"diff_ids": null}}"#).inner, Inner::default());
    assert_eq!(from_slice::<Vec<Inner>>(b"[null]"), Ok(vec![Inner::default()]));
}

#[test]
fn what_is_no_character_is_replaced() {
    let (json, text) =
        (b"{\"os\": \"caf\xe9 \xe2\x82\", \"list\": [\"\xc3\xa9\"]}", "caf\u{fffd} ");
    let read = read(json);
    assert_eq!((read.os, read.list), (format!("{text}\u{fffd}\u{fffd}"), Some(vec!["é".into()])));
    for (escaped, text) in [
        (r"\ud83d\ude00", "😀"),
        (r"\ud83d", "\u{fffd}"),
        (r"\ud83d\ud83d\ude00x", "\u{fffd}😀x"),
        (r"\ude00\ud83d", "\u{fffd}\u{fffd}"),
        (r"\uD83D\n", "\u{fffd}\n"),
        (r"\\ud83d\\", r"\ud83d\"),
        (r"\\\ud83dé", "\\\u{fffd}é"),
        (r"\ud7ff\ue000", "\u{d7ff}\u{e000}"),
    ] {
        assert_eq!(from_slice::<String>(format!("\"{escaped}\"").as_bytes()).unwrap(), text);
    }
}

#[test]
fn unknown_fields_are_skipped_at_any_depth() {
    let deep = "[".repeat(100_000) + &"]".repeat(100_000);
    assert_eq!(read(format!(r#"{{"x": {deep}, "os": "linux"}}"#)).os, "linux");
    assert_eq!(error(&deep), "it must be an object, and is a list");
    let error = from_slice::<serde_json::Value>(deep.as_bytes()).unwrap_err().to_string();
    assert!(error.ends_with("is nested deeper than 100 levels"), "{error}");
}

#[test]
fn an_error_names_the_field_and_what_was_expected() {
    for (json, expected) in [
        (
            r#"{"inner": {"diff_ids": ["", "", 1]}}"#,
            "`inner.diff_ids[2]` must be a string, and is a number",
        ),
        (r#"{"inner": []}"#, "`inner` must be an object, and is a list"),
        (r#"{"list": {}}"#, "`list` must be a list, and is an object"),
        (r#"{"OS": true}"#, "`os` must be a string, and is true or false"),
        (r#"{"isEmpty": "x"}"#, "`isEmpty` must be true or false, and is a string"),
        (r#"{"map": {"a\nb": 1}}"#, r#"`map["a\nb"]` must be a string, and is a number"#),
        (
            r#"{"size": "1"}"#,
            "`size` must be a whole number from 0 to 18446744073709551615, and is a string",
        ),
        ("1", "it must be an object, and is a number"),
        ("", "it is not JSON: it ends too early at line 1, column 0"),
        ("{\"os\":\n", "it is not JSON: it ends too early at line 2, column 0"),
        ("{\"os\": 01}", "it is not JSON: there is something unexpected at line 1, column 9"),
        ("{} {}", "it is not JSON: there is something unexpected at line 1, column 4"),
        ("\u{feff}{}", "it is not JSON: there is something unexpected at line 1, column 1"),
        ("{\"os\": \"\n\"}", "it is not JSON: there is something unexpected at line 1, column 8"),
    ] {
        assert_eq!(error(json), expected, "{json}");
    }
    for number in ["-1", "1.0", "1e3", "18446744073709551616"] {
        assert!(error(format!(r#"{{"size": {number}}}"#)).starts_with("`size` must be a whole"));
    }
    #[derive(Debug, Deserialize)]
    struct Needs {
        #[expect(dead_code, reason = "only its absence matters")]
        digest: crate::image::Digest,
    }
    let error = |json: &str| from_slice::<Vec<Needs>>(json.as_bytes()).unwrap_err().to_string();
    assert_eq!(error("[{}]"), "`[0].digest` is missing");
    for (value, text) in [("\"x\"", "x"), ("null", "")] {
        let wrong = error(&format!(r#"[{{"DIGEST": {value}}}]"#));
        let expected = format!("`[0].digest` is wrong: {text:?} is not a digest");
        assert!(wrong.starts_with(&expected), "{wrong}");
    }
}

#[test]
fn numbers_are_read_to_their_ends() {
    let numbers = r#"{"size": 18446744073709551615, "offset": -9223372036854775808}"#;
    assert_eq!(read(numbers).size, u64::MAX);
    assert_eq!(read(numbers).offset, i64::MIN);
    let any = r#"[1, -1, 1.5, true, null, "é", {"a": []}]"#;
    let value: serde_json::Value = serde_json::from_str(any).unwrap();
    assert_eq!(from_slice::<serde_json::Value>(any.as_bytes()).unwrap(), value);
}

/// Writes each given value in another way: names in mixed case, each field twice, strings with
/// escapes, blanks, unknown fields.
const VARIED: &str = r#"import json, random, sys
random.seed(int(sys.argv[1]))
def text(value):
    if random.random() < .5:
        return json.dumps(value, ensure_ascii=random.random() < .5)
    units = value.encode('utf-16-be').hex()
    return '"' + ''.join('\\u' + units[i:i + 4] for i in range(0, len(units), 4)) + '"'
def blank():
    return random.choice(['', ' ', '\n\t', '\r'])
def write(value):
    if isinstance(value, dict):
        parts = []
        for key, inner in value.items():
            name = ''.join(random.choice([c.lower(), c.upper()]) for c in key)
            if random.random() < .5:
                parts.append(text(key.upper()) + ':' + write(inner if isinstance(inner, dict) else None))
            if inner is not None and not isinstance(inner, dict) and random.random() < .3:
                parts.append(text(key) + ':' + write(inner))
            parts.append(text(name) + blank() + ':' + blank() + write(inner))
            if random.random() < .5:
                parts.append(text(key + '_') + ': [{"a": [1.5e3, null]}]')
        return '{' + blank() + (blank() + ',').join(parts) + '}'
    if isinstance(value, list):
        return '[' + (',' + blank()).join(map(write, value)) + blank() + ']'
    return text(value) if isinstance(value, str) else json.dumps(value)
for line in sys.stdin:
    print(write(json.loads(line)).encode().hex())
"#;

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]

    #[test]
    fn whatever_python_writes_is_read_back(
        seed: u32,
        texts in prop::collection::vec("\\PC{0,4}", 3..30),
        size: u64,
        offset: i64,
        is_empty: bool,
    ) {
        let wanted = Sample {
            os: texts[0].clone(),
            creds_store: Some(texts[1].clone()),
            size,
            offset,
            is_empty,
            list: Some(texts.clone()),
            inner: Inner { r#type: texts[2].clone(), diff_ids: texts.clone() },
            map: BTreeMap::new(),
        };
        let plain = serde_json::json!({
            "os": wanted.os, "credsStore": wanted.creds_store, "size": size, "offset": offset,
            "isEmpty": is_empty, "list": texts, "map": {},
            "inner": {"type": wanted.inner.r#type, "diff_ids": texts},
        });
        let mut python = Command::new("python3")
            .args(["-c", VARIED, &seed.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = python.stdin.take().unwrap();
        std::io::Write::write_all(&mut stdin, format!("{plain}\n").as_bytes()).unwrap();
        drop(stdin);
        let hex = python.wait_with_output().unwrap().stdout;
        let json: Vec<u8> = hex.trim_ascii().chunks(2)
            .map(|two| u8::from_str_radix(std::str::from_utf8(two).unwrap(), 16).unwrap())
            .collect();
        prop_assert_eq!(from_slice::<Sample>(&json).unwrap(), wanted);
    }

    #[test]
    fn no_bytes_are_a_crash(bytes in prop::collection::vec(prop_oneof![
        Just(b'{'), Just(b'}'), Just(b'['), Just(b']'), Just(b'"'), Just(b'\\'), Just(b'u'),
        Just(b'd'), Just(b'8'), Just(b','), Just(b':'), any::<u8>(),
    ], 0..40)) {
        let _ = from_slice::<Sample>(&bytes);
        let _ = from_slice::<serde_json::Value>(&bytes);
        let strict = serde_json::from_slice::<serde_json::Value>(&bytes);
        if let Ok(value) = strict {
            prop_assert_eq!(from_slice::<serde_json::Value>(&bytes).unwrap(), value);
        }
    }
}
