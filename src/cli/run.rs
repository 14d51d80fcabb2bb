//! Runs an invocation: the push on one side, the terminal and the signals on the other.

use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::digest_file;
use super::exit::Code;
use super::invocation::Invocation;
use super::output::{self, Output};
use super::signals::Signals;
use crate::Error;
use crate::event::{Event, Events};
use crate::push::push;
use crate::report::Report;

/// How long the registry has to take back its upload sessions when the push is stopped.
const GRACE: Duration = Duration::from_secs(2);

/// Pushes, prints, and says how the process ends.
pub async fn run(invocation: Invocation) -> ExitCode {
    let Invocation { item, push: options, json, digest_file, verbosity } = invocation;
    let mut signals = match Signals::listen() {
        Ok(signals) => signals,
        Err(error) => return cannot_start(&error),
    };
    let output = Output::stderr(verbosity, options.dry_run);
    if options.registry.tls.skip_verify {
        output.warn(
            "--insecure-skip-tls-verify: certificates are not checked; whoever is in between can \
             read the credentials and change the image",
        );
    }
    let sessions = options.registry.sessions.clone();
    let tagging = Arc::new(AtomicBool::new(false));
    let events = watch_for_tagging(output.events(), &tagging);
    let pushing = with_ticks(&output, push(&item, &options, &events));
    let outcome = signals
        .stop(pushing, async || {
            output.finish();
            let tagging = tagging.load(Ordering::Relaxed);
            output.print(&Error::Interrupted { tagging }.to_string());
            sessions.cancel_all(GRACE).await;
        })
        .await;
    output.finish();
    let report = match outcome {
        Some(Ok(report)) => report,
        Some(Err(error)) => {
            output.fail(&error);
            return error.exit_code().into();
        }
        None => return Code::Interrupted.into(),
    };
    output.report(&report);
    let written = digest_file.map_or(Ok(()), |path| {
        digest_file::write(&path, &report.digest)
            .map_err(|error| Unwritten("the digest file", error))
    });
    let printed = print_result(&report, json, &mut io::stdout().lock())
        .map_err(|error| Unwritten("the result to standard output", error));
    match written.and(printed) {
        Ok(()) => Code::Pushed.into(),
        Err(error) => {
            output.fail(&error);
            Code::Failed.into()
        }
    }
}

/// Takes note when the push comes to the point where a tag may change.
fn watch_for_tagging(events: Events, tagging: &Arc<AtomicBool>) -> Events {
    let tagging = tagging.clone();
    Arc::new(move |event| {
        if matches!(event, Event::Tagging) {
            tagging.store(true, Ordering::Relaxed);
        }
        events(event);
    })
}

/// The push is done, but what it gave could not be handed on.
#[derive(Debug, thiserror::Error)]
#[error("the image is pushed, but {0} could not be written: {1}")]
struct Unwritten(&'static str, #[source] io::Error);

/// Reports that the process could not be set up, and says how it ends.
pub fn cannot_start(error: &io::Error) -> ExitCode {
    // If standard error is closed there is nowhere to say so.
    let _ = writeln!(io::stderr(), "error: cannot start: {error}");
    Code::Failed.into()
}

/// Runs `work`, with a tick for the terminal now and then.
async fn with_ticks<T>(output: &Output, work: impl Future<Output = T>) -> T {
    let mut ticks = tokio::time::interval(output::TICK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    tokio::pin!(work);
    loop {
        tokio::select! {
            done = &mut work => return done,
            _ = ticks.tick() => output.tick(Instant::now()),
        }
    }
}

/// The result: the name the image can be pulled by for ever, or a JSON document. A dry run has no
/// such name, as nothing was pushed.
fn print_result(report: &Report, json: bool, stdout: &mut dyn Write) -> io::Result<()> {
    let printed = if json {
        serde_json::to_writer_pretty(&mut *stdout, report)
            .map_err(io::Error::from)
            .and_then(|()| writeln!(stdout))
    } else if report.dry_run {
        Ok(())
    } else {
        writeln!(stdout, "{}", report.pinned)
    };
    match printed.and_then(|()| stdout.flush()) {
        // Whoever closed the pipe has no more interest in it.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        printed => printed,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::output::tests::{layer_report, report};
    use super::*;
    use crate::report::{Known, Outcome};

    /// A sink that fails with one kind of error.
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
        print_result(report, json, &mut stdout).unwrap();
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
        let document: serde_json::Value = serde_json::from_str(&text).unwrap();
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
    fn a_closed_pipe_is_no_failure_and_a_full_disk_is() {
        let report = report(vec![]);
        for json in [false, true] {
            let closed = &mut Broken(io::ErrorKind::BrokenPipe);
            assert!(print_result(&report, json, closed).is_ok());
            let full = &mut Broken(io::ErrorKind::StorageFull);
            let error = print_result(&report, json, full).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        }
    }
}
