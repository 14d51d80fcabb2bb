//! Reading, packing and uploading run at the same time and within their limits, and the manifest
//! comes last.

use std::collections::HashSet;
use std::io::Write;
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::support::archive::{ImageBuilder, Layer, tar_of};
use crate::support::proxy::{Fault, Hold, Line, Place, ProxyOptions, Record, Rule, Step};
use crate::support::pull;
use crate::support::registry::{DevRegistry, Options};
use crate::support::run::Pushimg;
use crate::support::tls::Authority;
use crate::support::{DockerRegistry, FaultProxy};
use tempfile::TempDir;

fn image(layers: u64) -> ImageBuilder {
    ImageBuilder::new(
        (0..layers).map(|n| Layer::random(&format!("package-{n}.0"), n, 30_000)).collect(),
    )
}

/// Delays the answers of a step, so that requests overlap if pushimg lets them.
fn slow(step: Step, milliseconds: u64) -> Rule {
    let hold = Hold::For(Duration::from_millis(milliseconds));
    Rule::at(step, Fault::Stall { place: Place::BeforeResponse, hold })
}

/// How many such requests were under way at the same time, at most.
fn at_once(proxy: &FaultProxy, is: impl Fn(&Record) -> bool) -> usize {
    let mut changes: Vec<(Duration, i32)> = Vec::new();
    for record in proxy.records().iter().filter(|record| is(record)) {
        changes.push((record.arrived, 1));
        changes.push((record.answered.expect("an answer"), -1));
    }
    changes.sort();
    let mut now = 0;
    let counts = changes.iter().map(|(_, change)| {
        now += change;
        now
    });
    usize::try_from(counts.max().unwrap_or(0)).expect("not negative")
}

#[test]
fn blobs_go_up_in_parallel_and_no_more_at_once_than_jobs() {
    let registry = DevRegistry::start(Options::default());
    let proxy = FaultProxy::before(registry.addr());
    let dir = TempDir::new().expect("a folder");
    let image = image(12);
    let archives = [image.write(dir.path(), "image.tar"), image.write_gz(dir.path(), "image.tgz")];
    for (number, archive) in archives.iter().enumerate() {
        for jobs in [1, 3, 6] {
            proxy.clear();
            proxy.set_rules(vec![slow(Step::UploadPut, 100)]);
            let repository = format!("jobs/n{number}-{jobs}");
            let destination = format!("{}/{repository}:v1", proxy.host());
            let jobs_text = jobs.to_string();
            let arguments = [archive.to_str().unwrap(), &destination, "-j", &jobs_text];
            Pushimg::new().run(arguments).success();
            let config = crate::support::archive::sha256(&image.config());
            // Only layers count. The config is small and is uploaded in addition.
            let layers = |r: &Record| {
                r.is(Step::UploadPut)
                    && !r.target.contains(&config.replace(':', "%3A"))
                    && !r.target.contains(&config)
            };
            let most = at_once(&proxy, layers);
            // How near it comes to the limit depends on how busy the machine is.
            let expected = jobs.min(2)..=jobs;
            assert!(expected.contains(&most), "{most} with -j {jobs}\n{}", proxy.transcript());
            pull::assert_same_image(archive, registry.host(), &repository, "v1");
        }
    }
}

#[test]
fn the_manifest_is_put_when_every_blob_has_been_answered_for() {
    let registry = DevRegistry::start(Options::default());
    let proxy = FaultProxy::before(registry.addr());
    let dir = TempDir::new().expect("a folder");
    let archive = image(8).write(dir.path(), "image.tar");
    // The upload of the third blob is slow.
    let hold = Hold::For(Duration::from_millis(700));
    let stall = Fault::Stall { place: Place::BeforeResponse, hold };
    proxy.set_rules(vec![Rule::at(Step::UploadPut, stall).nth(3)]);
    let destination = format!("{}/last:v1", proxy.host());
    let arguments = [archive.to_str().unwrap(), &destination, "-t", "v2"];
    Pushimg::new().run(arguments).success();
    let records = proxy.records();
    let manifests: Vec<_> = records.iter().filter(|r| r.is(Step::ManifestPut)).collect();
    assert_eq!(manifests.len(), 2);
    let first = manifests.iter().map(|r| r.arrived).min().expect("a manifest");
    let puts: Vec<_> = records.iter().filter(|r| r.is(Step::UploadPut)).collect();
    assert_eq!(puts.len(), 9, "the layers and the config");
    for put in puts {
        assert!(put.answered.is_some_and(|at| at <= first), "{}", proxy.transcript());
        assert_eq!(put.status, Some(201));
    }
}

#[test]
fn a_blob_that_cannot_be_sent_leaves_the_tag_as_it_was() {
    let registry = DevRegistry::start(Options::default());
    let proxy = FaultProxy::before(registry.addr());
    let dir = TempDir::new().expect("a folder");
    let image = image(4);
    let destination = format!("{}/kept:v1", proxy.host());
    let first = image.write(dir.path(), "first.tar");
    Pushimg::new().run([first.to_str().unwrap(), &destination]).success();
    let before = registry.tag("kept", "v1");
    let second = image.with_layer(2, Layer::random("new", 99, 50_000)).write(dir.path(), "2.tar");
    let denied = crate::support::proxy::Answer::status(403).error("DENIED", "quota exceeded");
    proxy.set_rules(vec![Rule::at(Step::UploadPut, Fault::Answer(denied))]);
    proxy.clear();
    let output = Pushimg::new().run([second.to_str().unwrap(), &destination]).exits(4);
    output.says("quota exceeded");
    assert_eq!(proxy.count_step(Step::ManifestPut), 0, "{}", proxy.transcript());
    assert_eq!(registry.tag("kept", "v1"), before);
}

/// A registry over TLS that is a round trip of 60 ms away.
fn far(registry: &DevRegistry, authority: &Authority) -> FaultProxy {
    let line = Line { rtt: Duration::from_millis(60), bits_per_second: None };
    let tls = Some(authority);
    FaultProxy::start(registry.addr(), &ProxyOptions { line, tls, ..Default::default() })
}

#[test]
fn a_far_registry_opens_sessions_and_connections_while_layers_are_compressed_and_asked_for() {
    let (registry, authority) = (DevRegistry::start(Options::default()), Authority::new());
    let proxy = far(&registry, &authority);
    let dir = TempDir::new().expect("a folder");
    let ca_file = authority.ca_file();
    let options = ["--ca-file", ca_file.to_str().expect("UTF-8")];
    let destination = format!("{}/far:v1", proxy.host());
    for layers in [8, 9] {
        proxy.clear();
        let archive = image(layers).write(dir.path(), "image.tar");
        let arguments = [archive.to_str().unwrap(), &destination];
        Pushimg::new().run(arguments.into_iter().chain(options)).success();
        // Delays the HEADs of the second push, long enough for a busy machine.
        proxy.set_rules(vec![slow(Step::BlobHead, 1_500)]);
    }
    let records = proxy.records();
    let all = |step: Step| records.iter().filter(move |record| record.is(step));
    // The config's and the new layer's.
    assert_eq!(all(Step::UploadPut).count(), 2, "{}", proxy.transcript());
    assert_eq!(all(Step::UploadPost).count(), 2, "{}", proxy.transcript());
    let last_post = all(Step::UploadPost).map(|record| record.arrived).max();
    let last_head = all(Step::BlobHead).filter_map(|record| record.answered).max();
    assert!(last_post < last_head, "no session waits for a HEAD\n{}", proxy.transcript());
    let opened_ahead = |put: &&Record| {
        all(Step::Ping).any(|ping| ping.connection == put.connection && ping.arrived < put.arrived)
    };
    assert!(all(Step::UploadPut).any(|put| opened_ahead(&put)), "{}", proxy.transcript());
}

/// Pushes an image of eight layers and then one with a ninth to a far registry, which delays its
/// answer when the second push asks for the first image's config. Returns the requests of the
/// second push.
fn ninth_layer(first_push: &[&str]) -> (FaultProxy, Vec<Record>) {
    let (registry, authority) = (DevRegistry::start(Options::default()), Authority::new());
    let proxy = far(&registry, &authority);
    let dir = TempDir::new().expect("a folder");
    let ca_file = authority.ca_file();
    let ca_file = ["--ca-file", ca_file.to_str().expect("UTF-8"), "--no-cache"];
    let destination = format!("{}/ahead:v1", proxy.host());
    for (layers, options) in [(8, first_push), (9, &[][..])] {
        proxy.clear();
        proxy.set_rules(vec![slow(Step::ConfigGet, 2_000)]);
        let text = |n| Layer::text(&format!("package-{n}.0"), n, 30_000);
        let archive = ImageBuilder::new((0..layers).map(text).collect()).write(dir.path(), "i.tar");
        let arguments = [archive.to_str().unwrap(), &destination];
        Pushimg::new().run(arguments.iter().chain(&ca_file).chain(options)).success();
        pull::assert_same_image(&archive, registry.host(), "ahead", "v1");
    }
    let records = proxy.records();
    (proxy, records)
}

#[test]
fn a_new_last_layer_goes_to_a_far_registry_before_the_previous_config_is_there() {
    let (proxy, records) = ninth_layer(&[]);
    let all = |step: Step| records.iter().filter(move |record| record.is(step));
    assert_eq!(all(Step::UploadPut).count(), 2, "{}", proxy.transcript());
    let sent = all(Step::UploadPut).filter_map(|record| record.answered).max().expect("a PUT");
    let config = all(Step::ConfigGet).find_map(|record| record.answered).expect("a config");
    assert!(sent < config, "{}", proxy.transcript());
}

#[test]
fn nothing_is_sent_ahead_if_the_previous_image_may_have_it_in_another_form() {
    let (proxy, records) = ninth_layer(&["--compression-level", "1"]);
    let all = |step: Step| records.iter().filter(move |record| record.is(step));
    // The config's and the new layer's, and no other was even begun.
    assert_eq!(all(Step::UploadPut).count(), 2, "{}", proxy.transcript());
    assert_eq!(all(Step::UploadPatch).count(), 0, "{}", proxy.transcript());
    let blobs = all(Step::UploadPut).map(|record| record.arrived).max().expect("a PUT");
    let config = all(Step::ConfigGet).find_map(|record| record.answered).expect("a config");
    assert!(config < blobs, "{}", proxy.transcript());
}

#[test]
fn heads_are_sent_all_at_once() {
    let registry = DevRegistry::start(Options::default());
    let proxy = FaultProxy::start(
        registry.addr(),
        &ProxyOptions {
            line: Line { rtt: Duration::from_millis(60), bits_per_second: None },
            ..Default::default()
        },
    );
    let dir = TempDir::new().expect("a folder");
    let archive = image(60).write(dir.path(), "image.tar");
    let text = archive.to_str().unwrap();
    // pushimg sends HEADs for the layers that `latest` lists, but not for those that the
    // destination's own tag lists.
    Pushimg::new().run([text, &format!("{}/heads:latest", registry.host())]).success();
    // The machine may be busy with other tests: the best of three pushes counts.
    let pushes = ["v1", "v2", "v3"].map(|tag| {
        proxy.clear();
        let destination = format!("{}/heads:{tag}", proxy.host());
        let report = Pushimg::new().run([text, &destination, "--json"]).success().json();
        let mut heads: Vec<_> =
            proxy.records().into_iter().filter(|r| r.is(Step::BlobHead)).collect();
        let distinct: HashSet<_> = heads.iter().map(|r| r.target.clone()).collect();
        assert_eq!((heads.len(), distinct.len()), (61, 61), "{}", proxy.transcript());
        // The first is for the config, and goes out before `latest` has been read.
        heads.sort_by_key(|r| r.arrived);
        let first = heads[1].arrived;
        let last = heads.iter().filter_map(|r| r.answered).max().expect("an answer");
        (last - first, report["seconds"].as_f64().expect("seconds"), proxy.transcript())
    });
    // One after the other they would take 3.6 s.
    let fastest = pushes.iter().map(|(heads, ..)| *heads).min().expect("a push");
    assert!(fastest < Duration::from_millis(900), "{fastest:?}\n{}", pushes[0].2);
    // Manifests, config, HEADs and manifest PUT take about eight round trips, connections included.
    let seconds = pushes.iter().map(|(_, seconds, _)| *seconds).fold(f64::MAX, f64::min);
    assert!(seconds < 2.5, "{seconds} s\n{}", pushes[0].2);
}

#[test]
fn a_big_layer_is_on_its_way_before_it_has_been_read_to_its_end() {
    let registry = DockerRegistry::plain();
    let proxy = FaultProxy::before(registry.addr());
    let layer = Layer::random("big-1.0", 1, 72 << 20);
    let image = ImageBuilder::new(vec![layer]);
    let tar = image.tar();
    let dir = TempDir::new().expect("a folder");
    let machine = Pushimg::new();
    let destination = format!("{}/big:v1", proxy.host());
    let mut child = machine
        .command(["-", &destination, "--json"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .expect("start pushimg");
    let mut stdin = child.stdin.take().expect("stdin is piped");
    // Write only half of the layer; the rest has not reached pushimg yet.
    stdin.write_all(&tar[..40 << 20]).expect("half of the archive");
    let began = Instant::now();
    let sent = loop {
        let sent = proxy.body_bytes(|r| r.is(Step::UploadPatch));
        if sent > 16 << 20 {
            break sent;
        }
        assert!(began.elapsed() < Duration::from_secs(30), "{sent}\n{}", proxy.transcript());
        std::thread::sleep(Duration::from_millis(20));
    };
    assert!(sent <= 41 << 20);
    stdin.write_all(&tar[40 << 20..]).expect("the other half");
    drop(stdin);
    let output = child.wait_with_output().expect("the end of pushimg");
    assert!(output.status.success(), "{}", proxy.transcript());
    let archive = crate::support::archive::write(dir.path(), "image.tar", &tar);
    let pulled = pull::assert_same_image(&archive, registry.host(), "big", "v1");
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(report["digest"], pulled.digest);
    let patches = proxy.count_step(Step::UploadPatch);
    assert_eq!(patches, 1, "one PATCH carries it all\n{}", proxy.transcript());
    let patched = proxy.body_bytes(|r| r.is(Step::UploadPatch));
    assert_eq!(patched, pulled.layers[0].size);

    // A push from the file makes the same blob, which is already there.
    proxy.clear();
    let path = archive.to_str().unwrap();
    let (output, memory) = Pushimg::new().run_measured([path, &destination]);
    assert_eq!(output.success().digest(), pulled.digest);
    assert!(memory < 100 << 20, "{} MiB", memory >> 20);
    assert_eq!(proxy.body_bytes(|r| !r.is(Step::ManifestPut)), 0, "{}", proxy.transcript());

    // And into another repository, whole.
    let elsewhere = format!("{}/elsewhere:v1", proxy.host());
    let (output, memory) = Pushimg::new().run_measured([path, &elsewhere]);
    assert_eq!(output.success().digest(), pulled.digest);
    assert!(memory < 100 << 20, "{} MiB", memory >> 20);
    assert_eq!(registry.open_uploads("elsewhere"), 0);
}

#[test]
fn a_big_layer_that_occurs_twice_goes_once() {
    let registry = DockerRegistry::plain();
    let proxy = FaultProxy::before(registry.addr());
    let dir = TempDir::new().expect("a folder");
    let layer = Layer::random("big-1.0", 1, 66 << 20);
    let config = ImageBuilder::new(vec![layer.clone(), layer.clone()]).config();
    let manifest = serde_json::json!([{
        "Config": "config.json", "RepoTags": null, "Layers": ["one/layer.tar", "two/layer.tar"],
    }])
    .to_string();
    let tar = tar_of(&[
        ("one/layer.tar", &layer.tar),
        ("two/layer.tar", &layer.tar),
        ("config.json", &config),
        ("manifest.json", manifest.as_bytes()),
    ]);
    let archive = crate::support::archive::write(dir.path(), "twins.tar", &tar);
    let destination = format!("{}/twins:v1", proxy.host());
    let arguments = [archive.to_str().unwrap(), &destination, "--json"];
    let report = Pushimg::new().run(arguments).success().json();
    let pulled = pull::assert_same_image(&archive, registry.host(), "twins", "v1");
    assert_eq!(pulled.layers.len(), 2);
    let sent = proxy.body_bytes(|_| true);
    let blob = pulled.layers[0].size;
    assert!(sent < blob + blob / 5, "{sent} bytes for {blob}\n{}", proxy.transcript());
    assert_eq!(report["layers"][1]["why"], "same-as-layer", "{report}");
    assert_eq!(registry.open_uploads("twins"), 0, "{}", proxy.transcript());
}

#[test]
fn connections_are_kept_and_used_again() {
    let registry = DevRegistry::start(Options::default());
    let proxy = FaultProxy::before(registry.addr());
    let dir = TempDir::new().expect("a folder");
    let archive = image(40).write(dir.path(), "image.tar");
    let destination = format!("{}/kept:v1", proxy.host());
    Pushimg::new().run([archive.to_str().unwrap(), &destination, "-j", "4"]).success();
    let requests = proxy.records().len();
    assert!(requests > 120, "{requests}");
    let connections = proxy.connections();
    assert!(connections <= 60, "{connections} connections for {requests} requests");
}
