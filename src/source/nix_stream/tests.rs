//! What the tests of this folder share: Python, which is who they compare with.

use std::io::Write;
use std::process::{Command, Stdio};

/// A stream script of the tests' own, which writes what nixpkgs' writes.
pub const SCRIPT: &str = include_str!("../../../tests/support/stream_image.py");

/// What a Python program makes of `stdin`.
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
