//! Tests of what is printed for each event, and values that other tests use.

use super::*;
use crate::image::LayerId;
use crate::image::{Compression, Digest, Format};
use crate::report::{Known, LayerReport};

/// The event that an upload begins.
pub fn started(id: usize, name: &str, total: Option<u64>) -> Event {
    Event::UploadStarted { layer: LayerId(id), name: name.into(), total }
}

/// The event that this many bytes of an upload are sent, and that no more exist yet.
pub fn sent(id: usize, position: u64, total: Option<u64>) -> Event {
    Event::UploadProgress { layer: LayerId(id), position, ready: position, total }
}

/// The event that a layer is done.
pub fn layer(id: usize, name: &str, size: u64, outcome: Outcome) -> Event {
    Event::LayerDone { layer: LayerId(id), report: layer_report(name, size, outcome) }
}

/// The report of a layer.
pub fn layer_report(name: &str, size: u64, outcome: Outcome) -> LayerReport {
    LayerReport {
        name: name.into(),
        diff_id: Some(Digest::of(name.as_bytes()).into()),
        digest: Digest::of(b"compressed"),
        size,
        media_type: "application/vnd.docker.image.rootfs.diff.tar.gzip".into(),
        compression: Compression::Gzip,
        outcome,
    }
}

/// The report of a push with these layers.
pub fn report(layers: Vec<LayerReport>) -> Report {
    let digest = Digest::of(b"manifest");
    Report {
        reference: "registry.fly.io/app:latest".into(),
        pinned: format!("registry.fly.io/app@{digest}"),
        tags: vec!["latest".into()],
        digest,
        media_type: Format::Docker.manifest_media_type().into(),
        format: Some(Format::Docker),
        platform: Some("linux/amd64".into()),
        size: 419_600_000,
        config: Some(Digest::of(b"config")),
        config_sent: true,
        layers,
        manifests: vec![],
        changes: None,
        bytes_sent: 1_200_000,
        bytes_reused: 418_400_000,
        seconds: 0.92,
        dry_run: false,
        compression: Some(Compression::Gzip),
    }
}

/// A sink whose content can be read by the test.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The content of a log after one event of each kind.
fn log_of(verbosity: Verbosity, dry_run: bool) -> String {
    let log = Log::default();
    let begin = Instant::now();
    let screen = Screen::Lines(Lines::new(Box::new(log.clone()), begin));
    let output = Output::new(screen, verbosity, Paint { colours: false }, dry_run);
    let events = output.events_of(0);
    output.warn("beware\u{1b}[31m");
    let why = Known::AnsweredHead;
    let outcome = if dry_run { Outcome::WouldUpload } else { Outcome::Uploaded };
    for event in [
        Event::Destination { reference: "r.io/app:latest".into() },
        Event::LayerCount(2),
        Event::Note("the previous image has 2 layers".into()),
        Event::Request {
            line: "HEAD https://r.io/v2/app/blobs/sha256:00 200 12 ms".into(),
            headers: vec!["> accept: */*".into(), "< content-length: 7".into()],
        },
        layer(0, "glibc-2.38", 40_000_000, Outcome::Reused { why }),
        started(1, "app", None),
        sent(1, 5, Some(1_200_000)),
        Event::Retry { why: "PATCH r.io: 503".into(), wait: Duration::from_millis(2100) },
        layer(1, "app", 1_200_000, outcome.clone()),
    ] {
        events(event);
    }
    output.tick(begin + Duration::from_secs(100));
    output.finish();
    events(Event::Warning("too late".into()));
    let mut report = report(vec![
        layer_report("glibc-2.38", 40_000_000, Outcome::Reused { why: Known::AnsweredHead }),
        layer_report("app", 1_200_000, outcome),
    ]);
    report.dry_run = dry_run;
    output.report(&report);
    output.fail(&crate::Error::Failed("it went wrong".into()));
    let bytes = log.0.lock().clone();
    String::from_utf8(bytes).unwrap()
}

const SUMMARY: &str = "pushed registry.fly.io/app:latest  1 of 2 layers uploaded, 1.2 MB sent, \
                       418 MB already there, 0.9 s\nerror: it went wrong\n";

const LAYERS: [&str; 2] = [
    "glibc-2.38                        40.0 MB  already there (answered HEAD)\n",
    "app                                1.2 MB  uploaded\n",
];

const WARNING: &str = "warning: beware\\u{1b}[31m\n";
const RETRY: &str = "retry: PATCH r.io: 503; again in 2.1 s\n";

#[test]
fn a_log_has_one_plain_line_for_each_layer() {
    assert_eq!(
        log_of(Verbosity::Normal, false),
        format!("{WARNING}pushing r.io/app:latest\n{}{RETRY}{}{SUMMARY}", LAYERS[0], LAYERS[1])
    );
}

#[test]
fn verbose_adds_notes_and_requests_and_then_headers() {
    let request = "the previous image has 2 layers\n\
                   HEAD https://r.io/v2/app/blobs/sha256:00 200 12 ms\n";
    let log = |headers| {
        format!(
            "{WARNING}pushing r.io/app:latest\n{request}{headers}{}{RETRY}{}{SUMMARY}",
            LAYERS[0], LAYERS[1]
        )
    };
    assert_eq!(log_of(Verbosity::Requests, false), log(""));
    let headers = "  > accept: */*\n  < content-length: 7\n";
    assert_eq!(log_of(Verbosity::Headers, false), log(headers));
}

#[test]
fn the_lines_of_a_message_stay_lines() {
    let log = Log::default();
    let screen = Screen::Lines(Lines::new(Box::new(log.clone()), Instant::now()));
    let output = Output::new(screen, Verbosity::Requests, Paint { colours: false }, false);
    let events = output.events_of(0);
    let text = "GET r.io: 403 denied\nhint: log in\u{1b}\n";
    events(Event::Note(text.into()));
    events(Event::Warning(text.into()));
    events(Event::Retry { why: text.into(), wait: Duration::ZERO });
    assert_eq!(
        String::from_utf8(log.0.lock().clone()).unwrap(),
        "GET r.io: 403 denied\n  hint: log in\\u{1b}\n\
         warning: GET r.io: 403 denied\n  hint: log in\\u{1b}\n\
         retry: GET r.io: 403 denied; again at once\n  hint: log in\\u{1b}\n"
    );
}

#[test]
fn quiet_leaves_only_errors() {
    assert_eq!(log_of(Verbosity::Quiet, false), "error: it went wrong\n");
    assert_eq!(log_of(Verbosity::Quiet, true), "error: it went wrong\n");
}

#[test]
fn a_dry_run_tells_its_plan_in_order_at_the_end() {
    assert_eq!(
        log_of(Verbosity::Normal, true),
        format!(
            "{WARNING}checking r.io/app:latest\n{RETRY}{}{}{}{}",
            LAYERS[0],
            LAYERS[1].replace("uploaded", "would be uploaded"),
            "would upload 1 of 2 layers, 1.2 MB; 418 MB already there\n",
            "error: it went wrong\n"
        )
    );
}

/// The content of a log after two images, of which the second failed.
fn log_of_two(verbosity: Verbosity) -> String {
    let log = Log::default();
    let begin = Instant::now();
    let screen = Screen::Lines(Lines::new(Box::new(log.clone()), begin));
    let output = Output::new(screen, verbosity, Paint { colours: false }, false);
    output.warn("beware");
    output.set_labels(vec!["api   ".into(), "worker".into()]);
    let (first, second) = (output.events_of(0), output.events_of(1));
    let why = Known::Cache;
    first(Event::Destination { reference: "r.io/api:v1".into() });
    second(Event::Destination { reference: "r.io/worker:v1".into() });
    first(Event::LayerCount(2));
    first(started(0, "app", Some(100)));
    second(layer(0, "glibc", 7, Outcome::Reused { why }));
    first(layer(0, "app", 100, Outcome::Uploaded));
    second(Event::Warning("the image is read again".into()));
    second(Event::Retry { why: "PATCH r.io: 503".into(), wait: Duration::ZERO });
    output.tick(begin + Duration::from_secs(20));
    output.finish();
    let pushed = report(vec![layer_report("app", 100, Outcome::Uploaded)]);
    let error = crate::Error::Usage("it went wrong\nhint: mend it".into());
    let outcomes = [
        ImageOutcome::Pushed(Box::new(pushed)),
        ImageOutcome::Failed { name: "r.io/worker:v1".into(), error },
    ];
    output.report_all(&outcomes, Duration::from_millis(2500));
    let bytes = log.0.lock().clone();
    String::from_utf8(bytes).unwrap()
}

#[test]
fn of_several_images_each_line_says_whose_it_is() {
    assert_eq!(
        log_of_two(Verbosity::Normal),
        "warning: beware\n\
         pushing r.io/api:v1\n\
         pushing r.io/worker:v1\n\
         worker  glibc                                 7 B  already there (in cache)\n\
         api     app                                 100 B  uploaded\n\
         worker  warning: the image is read again\n\
         retry: PATCH r.io: 503; again at once\n\
         2 layers done, 100 B sent\n\
         pushed registry.fly.io/app:latest  1 of 1 layer uploaded, 1.2 MB sent, 418 MB already \
         there, 0.9 s\n\
         failed r.io/worker:v1: it went wrong\n\
         hint: mend it\n\
         pushed 1 image, 1 failed; 1 layer uploaded, 1.2 MB sent, 2.5 s\n"
    );
    let quiet = "failed r.io/worker:v1: it went wrong\nhint: mend it\n";
    assert_eq!(log_of_two(Verbosity::Quiet), quiet);
}

#[test]
fn at_a_terminal_layers_that_are_there_are_only_counted() {
    let term = indicatif::InMemoryTerm::new(20, 100);
    let shown = |verbosity| {
        term.reset();
        let target = ProgressDrawTarget::term_like(Box::new(term.clone()));
        let bars = Screen::Bars(Bars::new(target, 100));
        let output = Output::new(bars, verbosity, Paint { colours: false }, false);
        let why = Known::Cache;
        for event in [
            Event::LayerCount(2),
            layer(0, "glibc-2.38", 40_000_000, Outcome::Reused { why }),
            layer(1, "app", 7, Outcome::Mounted { from: "b".into() }),
        ] {
            output.show(0, &event, Instant::now());
        }
        output.tick(Instant::now());
        term.contents()
    };
    let normal = shown(Verbosity::Normal);
    assert!(!normal.contains("glibc"), "{normal}");
    assert!(normal.contains("mounted from b"), "{normal}");
    assert!(normal.contains("2 of 2 layers, 2 there"), "{normal}");
    assert!(shown(Verbosity::Requests).contains("already there (in cache)"));
}
