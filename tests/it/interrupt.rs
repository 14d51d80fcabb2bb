//! Ctrl-C and SIGTERM stop a push at once, and it leaves nothing behind.

use std::io::Write;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::support::FaultProxy;
use crate::support::archive::{ImageBuilder, Layer, testdata};
use crate::support::proxy::{Fault, Hold, Line, Place, ProxyOptions, Rule, Step};
use crate::support::registry::{DevRegistry, Options};
use crate::support::run::Pushimg;
use bytes::Bytes;
use futures::FutureExt;
use futures::future::{BoxFuture, pending};
use pushimg::image::Digest;
use pushimg::registry::upload::{UploadSource, UploadSourceError};
use pushimg::registry::{self, Registry};
use tempfile::TempDir;

/// How long a push that was stopped may take to end.
const SOON: Duration = Duration::from_millis(3500);

fn signal(child: &Child, name: &str) {
    let status = Command::new("kill").args(["-s", name, &child.id().to_string()]).status();
    assert!(status.expect("start kill").success());
}

/// Waits at most `within` until a process ends. Returns its exit code, its stderr and the time that
/// it took.
#[track_caller]
fn end(mut child: Child, within: Duration) -> (Option<i32>, String, Duration) {
    let began = Instant::now();
    while child.try_wait().expect("wait for pushimg").is_none() {
        if began.elapsed() > within {
            child.kill().expect("kill pushimg");
            panic!("still there after {within:?}");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let took = began.elapsed();
    let output = child.wait_with_output().expect("what pushimg said");
    assert!(output.stdout.is_empty(), "a result on stdout: {:?}", output.stdout);
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned(), took)
}

#[track_caller]
fn wait_for(proxy: &FaultProxy, what: &str, ready: impl Fn() -> bool) {
    let began = Instant::now();
    while !ready() {
        assert!(began.elapsed() < Duration::from_secs(20), "{what}\n{}", proxy.transcript());
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[track_caller]
fn assert_no_spool(machine: &Pushimg) {
    let left: Vec<_> = std::fs::read_dir(machine.home().join("tmp")).expect("TMPDIR").collect();
    assert!(left.is_empty(), "left in TMPDIR: {left:?}");
}

#[test]
fn a_signal_in_the_middle_of_uploads_stops_at_once_and_cancels_them() {
    let registry = DevRegistry::start(Options::default());
    // 8 MB take eight seconds.
    let proxy = FaultProxy::start(
        registry.addr(),
        &ProxyOptions { line: Line::new(5, 8), ..Default::default() },
    );
    let dir = TempDir::new().expect("a folder");
    let first = testdata("layered-v1.tar");
    Pushimg::new().run([first.to_str().unwrap(), &format!("{}/app:v1", registry.host())]).success();
    let before = registry.tag("app", "v1");
    let layers = (0..4).map(|n| Layer::random(&format!("p-{n}"), n, 2_000_000)).collect();
    let many = ImageBuilder::new(layers).write(dir.path(), "many.tar");
    // Streamed by PATCH, while it is compressed.
    let big = ImageBuilder::new(vec![Layer::random("big", 9, 66 << 20)]).write(dir.path(), "b.tar");
    for (archive, name) in [(&many, "INT"), (&big, "TERM")] {
        proxy.clear();
        let machine = Pushimg::new();
        let destination = format!("{}/app:v1", proxy.host());
        let child = machine.spawn([archive.to_str().unwrap(), &destination, "-j", "4"]);
        let bodies = || proxy.body_bytes(|r| matches!(r.step, Step::UploadPut | Step::UploadPatch));
        wait_for(&proxy, "an upload under way", || bodies() > 300_000);
        assert!(registry.open_uploads() > 0);
        signal(&child, name);
        let (code, stderr, took) = end(child, SOON);
        assert_eq!(code, Some(130), "{stderr}");
        assert!(stderr.contains("interrupted"), "{stderr}");
        assert!(!stderr.contains("panicked"), "{stderr}");
        let open = registry.open_uploads();
        assert_eq!(open, 0, "after {took:?}\n{}", proxy.transcript());
        assert!(proxy.count_step(Step::UploadDelete) > 0);
        assert_eq!(proxy.count_step(Step::ManifestPut), 0);
        assert_eq!(registry.tag("app", "v1"), before);
        assert_no_spool(&machine);
    }
}

#[test]
fn a_signal_is_heeded_whatever_the_push_is_waiting_for() {
    let archive = testdata("layered-v1.tar.gz");
    let hold = Hold::Forever;
    for step in
        [Step::ManifestGet, Step::BlobHead, Step::UploadPost, Step::UploadPut, Step::ManifestPut]
    {
        let registry = DevRegistry::start(Options::default());
        let proxy = FaultProxy::before(registry.addr());
        let destination = format!("{}/app:v1", proxy.host());
        let place = Place::BeforeResponse;
        proxy.set_rules(vec![Rule::at(step, Fault::Stall { place, hold })]);
        let machine = Pushimg::new();
        let child = machine.spawn([archive.to_str().unwrap(), &destination]);
        // Wait for all uploads, so that every session is known: pushimg cannot close a session
        // whose POST was not answered yet.
        let count = if step == Step::UploadPut { 7 } else { 1 };
        wait_for(&proxy, "the request", || proxy.count_step(step) >= count);
        signal(&child, "INT");
        let (code, stderr, took) = end(child, SOON);
        assert_eq!(code, Some(130), "{step:?}: {stderr}");
        assert!(took < SOON, "{step:?}: {took:?}");
        assert_no_spool(&machine);
        if matches!(step, Step::UploadPut | Step::ManifestPut) {
            assert_eq!(registry.open_uploads(), 0, "{step:?}\n{}", proxy.transcript());
        }
    }
}

#[test]
fn while_it_waits_to_try_again_a_signal_ends_the_waiting() {
    let registry = DevRegistry::start(Options::default());
    let proxy = FaultProxy::before(registry.addr());
    let busy = crate::support::proxy::Answer::status(503).retry_after(60);
    proxy.set_rules(vec![Rule::at(Step::UploadPost, Fault::Answer(busy))]);
    let machine = Pushimg::new();
    let archive = testdata("layered-v1.tar.gz");
    let destination = format!("{}/app:v1", proxy.host());
    let child = machine.spawn([archive.to_str().unwrap(), &destination]);
    wait_for(&proxy, "an attempt", || proxy.count_step(Step::UploadPost) > 0);
    signal(&child, "TERM");
    assert_eq!(end(child, SOON).0, Some(130));
}

#[test]
fn a_pipe_that_never_ends_can_be_left() {
    let registry = DevRegistry::start(Options::default());
    let image = ImageBuilder::new(vec![Layer::random("big", 1, 2 << 20)]).tar();
    let half = crate::support::archive::truncated(&image, 1 << 20);
    for destination in [Some(format!("{}/app:v1", registry.host())), None] {
        let machine = Pushimg::new();
        let mut arguments = vec!["-".to_owned()];
        arguments.extend(destination);
        let mut child = machine
            .command(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("start pushimg");
        let mut stdin = child.stdin.take().expect("stdin is piped");
        // This is more than a pipe holds, so pushimg is reading when the write returns.
        stdin.write_all(&half).expect("the first half of an archive");
        signal(&child, "INT");
        let (code, stderr, _) = end(child, SOON);
        assert_eq!(code, Some(130), "{stderr}");
        drop(stdin);
    }
}

#[test]
fn a_registry_that_does_not_let_go_is_left_soon() {
    let registry = DevRegistry::start(Options::default());
    let proxy = FaultProxy::before(registry.addr());
    let stall = |step| {
        let hold = Hold::Forever;
        Rule::at(step, Fault::Stall { place: Place::BeforeResponse, hold })
    };
    proxy.set_rules(vec![stall(Step::UploadPut), stall(Step::UploadDelete)]);
    let archive = testdata("layered-v1.tar.gz");
    let destination = format!("{}/app:v1", proxy.host());
    let machine = Pushimg::new();
    // After one signal, pushimg gives the registry some time; a second signal ends it at once.
    let child = machine.spawn([archive.to_str().unwrap(), &destination]);
    wait_for(&proxy, "an upload", || proxy.count_step(Step::UploadPut) > 0);
    signal(&child, "INT");
    assert_eq!(end(child, SOON).0, Some(130));
    proxy.clear();
    let child = machine.spawn([archive.to_str().unwrap(), &destination]);
    wait_for(&proxy, "an upload", || proxy.count_step(Step::UploadPut) > 0);
    signal(&child, "INT");
    wait_for(&proxy, "a DELETE", || proxy.count_step(Step::UploadDelete) > 0);
    signal(&child, "INT");
    let (code, _, took) = end(child, SOON);
    assert_eq!(code, Some(130));
    assert!(took < Duration::from_millis(1000), "{took:?}");
}

/// A blob whose bytes never come.
struct Endless;

impl UploadSource for Endless {
    fn whole(&self) -> Option<(Digest, u64)> {
        Some((Digest::of(b""), 1 << 20))
    }

    fn ready(&self) -> u64 {
        0
    }

    fn finished(&self) -> BoxFuture<'_, Result<(Digest, u64), UploadSourceError>> {
        pending().boxed()
    }

    fn chunk(&self, _: u64, _: usize) -> BoxFuture<'_, Result<Option<Bytes>, UploadSourceError>> {
        pending().boxed()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn uploads_that_are_given_up_at_any_moment_leave_no_session_open() {
    let server = DevRegistry::start(Options::default());
    let settings = Arc::new(registry::Options::default());
    let registry = Registry::new(&server.host(), settings.clone(), pushimg::event::ignore());
    let repository = registry.repository("app");
    for round in 0..200 {
        let uploads = (0..4).map(|_| repository.upload(Arc::new(Endless), None, Arc::new(|_| {})));
        // At this moment the registry has answered some POSTs, and others have not reached it yet.
        let moment = Duration::from_micros(40 * round);
        let uploads = futures::future::join_all(uploads);
        assert!(tokio::time::timeout(moment, uploads).await.is_err(), "nothing can be uploaded");
        settings.sessions.cancel_abandoned(Duration::from_secs(10)).await;
        assert_eq!(server.open_uploads(), 0, "given up after {moment:?}");
    }
}
