//! Prints the result of a push on standard output.

use std::error::Error as _;
use std::io::{self, Write};
use std::time::Duration;

use serde::Serialize;

use super::outcome::{ImageOutcome, bytes_sent};
use crate::Error;
use crate::report::Report;

/// Prints the pinned name of an image, or a JSON document. After a dry run there is no such name.
pub fn print_one(report: &Report, json: bool, stdout: &mut dyn Write) -> io::Result<()> {
    if json {
        return print_json(report, stdout);
    }
    let line = if report.dry_run { String::new() } else { format!("{}\n", report.pinned) };
    print(line.as_bytes(), stdout)
}

/// Prints the results of several images in their order: a line for each image that was pushed, or a
/// single JSON document.
pub fn print_all(
    outcomes: &[ImageOutcome],
    took: Duration,
    json: bool,
    stdout: &mut dyn Write,
) -> io::Result<()> {
    if json {
        return print_json(&JsonReport::of(outcomes, took), stdout);
    }
    let reports = outcomes.iter().filter_map(ImageOutcome::report);
    let pushed = reports.filter(|report| !report.dry_run);
    let lines: String = pushed.map(|report| format!("{}\n", report.pinned)).collect();
    print(lines.as_bytes(), stdout)
}

/// Prints an indented JSON document.
pub fn print_json(document: &impl Serialize, stdout: &mut dyn Write) -> io::Result<()> {
    let mut text = serde_json::to_vec_pretty(document)?;
    text.push(b'\n');
    print(&text, stdout)
}

/// Prints text unchanged.
pub fn print(text: &[u8], stdout: &mut dyn Write) -> io::Result<()> {
    match stdout.write_all(text).and_then(|()| stdout.flush()) {
        // The reader has closed the pipe and needs no more.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        printed => printed,
    }
}

/// The document of `--json` for several images.
#[derive(Serialize)]
struct JsonReport<'a> {
    images: Vec<JsonImage<'a>>,
    bytes_sent: u64,
    seconds: f64,
}

#[derive(Serialize)]
#[serde(untagged)]
enum JsonImage<'a> {
    Pushed(&'a Report),
    Failed { reference: &'a str, error: String, exit_code: u8 },
}

impl<'a> JsonReport<'a> {
    fn of(outcomes: &'a [ImageOutcome], took: Duration) -> Self {
        let images = outcomes.iter().map(|outcome| match outcome {
            ImageOutcome::Pushed(report) => JsonImage::Pushed(report),
            ImageOutcome::Failed { name, error } => JsonImage::Failed {
                reference: name,
                error: with_causes(error),
                exit_code: error.exit_code() as u8,
            },
        });
        Self {
            images: images.collect(),
            bytes_sent: bytes_sent(outcomes),
            seconds: took.as_secs_f64(),
        }
    }
}

/// An error's message, with the messages of its causes that it does not already contain.
fn with_causes(error: &Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let message = cause.to_string();
        if !text.contains(message.trim()) {
            text += &format!(": {message}");
        }
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::output::tests::{layer_report, report};
    use super::*;
    use crate::report::{Known, Outcome};

    /// A sink that always fails with this kind of error.
    struct Broken(io::ErrorKind);

    impl Write for Broken {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(self.0.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn printed(report: &Report, json: bool) -> String {
        let mut stdout = Vec::new();
        print_one(report, json, &mut stdout).unwrap();
        String::from_utf8(stdout).unwrap()
    }

    #[test]
    fn the_result_is_the_pinned_name_alone() {
        let mut report = report(vec![]);
        assert_eq!(printed(&report, false), format!("{}\n", report.pinned));
        report.dry_run = true;
        assert_eq!(printed(&report, false), "");
        assert!(printed(&report, true).contains("\"dry_run\": true"));
    }

    #[test]
    fn json_tells_of_every_layer_what_happened_and_why() {
        let why = Known::PreviousImage("registry.fly.io/app:latest".into());
        let report = report(vec![
            layer_report("glibc-2.38", 7, Outcome::Reused { why }),
            layer_report("app", 9, Outcome::Uploaded),
        ]);
        let text = printed(&report, true);
        assert!(text.ends_with("}\n") && text.contains("\n  \"digest\": \"sha256:"));
        let document: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(document["reference"], "registry.fly.io/app:latest");
        assert_eq!(document["tags"], json!(["latest"]));
        assert_eq!(document["bytes_sent"], 1_200_000);
        assert_eq!(document["seconds"], 0.92);
        let glibc = &document["layers"][0];
        assert_eq!(glibc["name"], "glibc-2.38");
        assert_eq!(glibc["action"], "reused");
        assert_eq!(glibc["why"], "previous-image");
        assert_eq!(glibc["where"], "registry.fly.io/app:latest");
        assert_eq!(document["layers"][1]["action"], "uploaded");
        assert_eq!(document["layers"][1]["size"], 9);
    }

    #[test]
    fn several_images_are_told_in_their_order_those_that_failed_with_their_errors() {
        let outcomes = [
            ImageOutcome::Pushed(Box::new(report(vec![]))),
            ImageOutcome::Failed {
                name: "r.io/b:v1".into(),
                error: Error::Usage("it went wrong".into()),
            },
            ImageOutcome::Pushed(Box::new(report(vec![]))),
        ];
        let printed = |json| {
            let mut stdout = Vec::new();
            print_all(&outcomes, Duration::from_millis(1500), json, &mut stdout).unwrap();
            String::from_utf8(stdout).unwrap()
        };
        let pinned = &report(vec![]).pinned;
        assert_eq!(printed(false), format!("{pinned}\n{pinned}\n"));
        let document: Value = serde_json::from_str(&printed(true)).unwrap();
        assert_eq!(document["images"][0]["pinned"], pinned.as_str());
        assert_eq!(
            document["images"][1],
            json!({"reference": "r.io/b:v1", "error": "it went wrong", "exit_code": 2})
        );
        assert_eq!(document["images"][2]["tags"], json!(["latest"]));
        assert_eq!(document["bytes_sent"], 2_400_000);
        assert_eq!(document["seconds"], 1.5);
    }

    #[test]
    fn a_closed_pipe_is_no_failure_and_a_full_disk_is() {
        let report = report(vec![]);
        for json in [false, true] {
            let closed = &mut Broken(io::ErrorKind::BrokenPipe);
            assert!(print_one(&report, json, closed).is_ok());
            let full = &mut Broken(io::ErrorKind::StorageFull);
            let error = print_one(&report, json, full).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        }
    }
}
