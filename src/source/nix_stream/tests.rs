//! Shared parts of the tests of this folder, which compare with Python.

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::UNIX_EPOCH;

use proptest::prelude::*;

use super::{conf, json, script, time, words, wrapper};

/// A stream script of the tests' own, which writes what nixpkgs' writes.
pub const SCRIPT: &str = include_str!("../../../tests/support/stream_image.py");

/// The output of a Python program that reads `stdin`.
pub fn python(program: &str, stdin: &[u8]) -> Vec<u8> {
    let mut child = Command::new("python3")
        .args(["-c", program])
        .env("PYTHONUTF8", "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("start python3");
    let mut pipe = child.stdin.take().expect("stdin is piped");
    let stdin = stdin.to_owned();
    let writer = std::thread::spawn(move || pipe.write_all(&stdin));
    let output = child.wait_with_output().expect("wait for python3");
    writer.join().expect("no panic").expect("write to python3");
    assert!(output.status.success(), "{program}");
    output.stdout
}

/// The text with one part replaced by something else.
fn spoilt(whole: &'static str) -> impl Strategy<Value = String> {
    (any::<prop::sample::Index>(), 0usize..40, "[ -~\\n\u{e9}]{0,6}").prop_map(
        move |(at, length, instead)| {
            let mut text: Vec<char> = whole.chars().collect();
            let at = at.index(text.len());
            let end = (at + length).min(text.len());
            text.splice(at..end, instead.chars());
            text.into_iter().collect()
        },
    )
}

proptest! {
    #[test]
    fn spoilt_texts_are_understood_or_not_and_never_a_panic(
        wrapper in spoilt("#! /s/bash -e\nexec -a \"$0\" \"/s/a-stream\" \\\n '/s/b-c' -t a:b \"$@\""),
        compiled in spoilt("\x7fELF makeCWrapper '/s/a' \\\n --argv0 'x' --add-flags '/b'\n\n"),
        text in spoilt(SCRIPT),
        json in spoilt(r#"{"config": {"Env": ["A=\u00e9"]}, "created": "1970-01-01T00:00:01+00:00",
            "uid": "0", "store_layers": [["/s/a"], []], "repo_tag": null, "from_image": "/s/b"}"#),
        moment in spoilt("2024-02-29T12:30:00+01:00"),
    ) {
        for wrapper in [wrapper, compiled] {
            let _ = wrapper::parse(wrapper.as_bytes());
            let _ = words::words(&wrapper);
        }
        let known = |_: &str| Some("/usr/bin/python3.11".to_owned());
        let _ = script::version(&text, known);
        let _ = conf::parse(json.as_bytes(), script::Version::RepoTag, UNIX_EPOCH);
        if let Ok(value) = json::Value::parse(json.as_bytes()) {
            let written = value.dumps().expect("no such numbers");
            prop_assert_eq!(json::Value::parse(written.as_bytes()).expect("JSON"), value);
        }
        let _ = time::parse(&moment);
    }
}
