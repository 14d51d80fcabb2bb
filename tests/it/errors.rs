//! Every failure has the right exit code and names what failed and what to do. It ends within a
//! time limit, and the tag stays as it was.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::support::archive::{self, ImageBuilder, Layer, gzip, tar_of, testdata, truncated};
use crate::support::docker_registry::DockerRegistryOptions;
use crate::support::proxy::{Answer, Fault, Rule, Step};
use crate::support::pull;
use crate::support::registry::{self, DevRegistry, Options};
use crate::support::run::{Output, Pushimg, finish};
use crate::support::tls::Authority;
use crate::support::{DockerRegistry, FaultProxy};
use serde_json::{Value, json};
use tempfile::TempDir;

/// A registry with one image under `app:v1`, which no failure may change.
struct Scene {
    registry: DevRegistry,
    before: Option<String>,
    dir: TempDir,
}

impl Scene {
    fn new() -> Self {
        let registry = DevRegistry::start(Options::default());
        let archive = testdata("layered-v1.tar");
        let destination = format!("{}/app:v1", registry.host());
        Pushimg::new().run([archive.to_str().unwrap(), &destination]).success();
        let before = registry.tag("app", "v1");
        Self { registry, before, dir: TempDir::new().expect("a folder") }
    }

    fn destination(&self) -> String {
        format!("{}/app:v1", self.registry.host())
    }

    fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        archive::write(self.dir.path(), name, bytes)
    }

    /// Pushes what cannot be read: exit code 3, an error of a line or two that names the file, and
    /// nothing changed.
    #[track_caller]
    fn unreadable(&self, image: &Path) -> Output {
        let path = image.to_str().expect("UTF-8");
        let output = Pushimg::new().limit(Duration::from_secs(30));
        let output = output.run([path, &self.destination()]).exits(3).plain();
        self.unchanged(&output);
        output.says("error: ")
    }

    #[track_caller]
    fn unchanged(&self, output: &Output) {
        assert_eq!(output.stdout, "", "a result on stdout\n{output}");
        assert!(output.stderr.lines().count() <= 16, "too long to read\n{output}");
        assert_eq!(self.registry.tag("app", "v1"), self.before, "the tag moved\n{output}");
    }
}

#[test]
fn what_is_no_archive_is_told_apart() {
    let scene = Scene::new();
    let absent = scene.dir.path().join("no-such-file");
    scene.unreadable(&absent).says("no-such-file").says("no such file").says("nix build");
    scene.unreadable(scene.dir.path()).says("is a directory").says("nix build");
    let text = scene.file("notes.txt", b"These are notes, not an image.\n");
    scene.unreadable(&text).says("notes.txt is not an image").says("docker save");
    scene.unreadable(&scene.file("empty.tar", b"")).says("empty.tar is empty");
    let noise = scene.file("noise", &archive::random_bytes(5, 70_000));
    scene.unreadable(&noise).says("noise is not an image");
    let script = scene.file("stream-app", b"#!/bin/sh\nexec python3 stream.py\n");
    scene.unreadable(&script).says("streamLayeredImage").says("chmod +x");
    let zipped = scene.file("notes.gz", &gzip(b"These are notes, not an image.\n"));
    scene.unreadable(&zipped).says("notes.gz").says("not a tar");
    let dangling = scene.dir.path().join("result");
    std::os::unix::fs::symlink("/nix/store/collected-garbage", &dangling).expect("a link");
    let said = scene.unreadable(&dangling).says("result is a symlink");
    said.says("/nix/store/collected-garbage");
    let circle = scene.dir.path().join("circle");
    std::os::unix::fs::symlink(&circle, &circle).expect("a link");
    scene.unreadable(&circle).says("circle");
    let nothing = Pushimg::new().stdin(b"").run(["-", &scene.destination()]).exits(3);
    nothing.says("standard input");
}

#[test]
fn a_broken_archive_is_said_to_be_one() {
    let scene = Scene::new();
    let bytes = |name: &str| std::fs::read(testdata(name)).expect("an archive");
    let gz = bytes("layered-v1.tar.gz");
    for keep in [gz.len() / 2, gz.len() - 9, gz.len() - 4] {
        let cut = scene.file("cut.tar.gz", &truncated(&gz, keep));
        scene.unreadable(&cut).says("cut.tar.gz").says("truncated gzip").says("again");
    }
    let flipped = scene.file("flipped.tar.gz", &archive::corrupted(&gz, gz.len() / 2));
    scene.unreadable(&flipped).says("flipped.tar.gz");
    for suffix in ["zst", "xz", "bz2"] {
        let whole = bytes(&format!("layered-v1.tar.{suffix}"));
        let name = format!("cut.tar.{suffix}");
        let cut = scene.file(&name, &truncated(&whole, whole.len() / 2));
        scene.unreadable(&cut).says(&name).says("truncated");
    }
    let tar = bytes("layered-v1.tar");
    for keep in [tar.len() / 2, 100_000, 70_000, 600, 512] {
        let cut = scene.file("half.tar", &truncated(&tar, keep));
        scene.unreadable(&cut).says("half.tar").says("truncated");
        // The same in a pipe.
        let piped = Pushimg::new().stdin(truncated(&tar, keep));
        piped.run(["-", &scene.destination()]).exits(3).says("truncated");
    }
    // A download that broke off and was padded, or whose start is gone.
    let mut holes = tar.clone();
    holes[20_000..40_000].fill(0);
    let holes = scene.file("holes.tar", &holes);
    let elsewhere = format!("{}/elsewhere:v1", scene.registry.host());
    Pushimg::new().run([holes.to_str().unwrap(), &elsewhere]).exits(3).says("layer 1");
    assert_eq!(scene.registry.tag("elsewhere", "v1"), None);
    scene.unreadable(&scene.file("tail.tar", &tar[1000..]));
}

#[test]
fn a_tar_that_is_no_image_is_said_to_be_none() {
    let scene = Scene::new();
    let source = tar_of(&[("src/main.rs", b"fn main() {}"), ("Cargo.toml", b"[package]")]);
    for (name, bytes) in [("source.tar", source.clone()), ("source.tar.gz", gzip(&source))] {
        scene.unreadable(&scene.file(name, &bytes)).says(name).says("manifest.json");
    }
    let root = tar_of(&[("etc/passwd", b"root"), ("usr/bin/env", b"ELF"), ("bin/sh", b"ELF")]);
    scene.unreadable(&scene.file("rootfs.tar", &root)).says("docker import");
}

/// An archive with these parts, plain and in gzip.
fn archives(scene: &Scene, files: &[(&str, &[u8])]) -> [PathBuf; 2] {
    let tar = tar_of(files);
    [scene.file("image.tar", &tar), scene.file("image.tar.gz", &gzip(&tar))]
}

fn manifest_json(config: &str, layers: &[&str]) -> String {
    json!([{ "Config": config, "RepoTags": ["lab:v1"], "Layers": layers }]).to_string()
}

#[test]
fn an_archive_whose_parts_do_not_fit_is_refused() {
    let scene = Scene::new();
    let layer = Layer::file("app-1.0", b"one");
    let other = Layer::file("app-1.0", b"two");
    let config = |layers: &[&Layer]| {
        ImageBuilder::new(layers.iter().map(|layer| (*layer).clone()).collect()).config()
    };
    let entry = format!("{}/layer.tar", layer.diff_id().replace("sha256:", ""));
    let one = config(&[&layer]);
    let two = config(&[&layer, &other]);
    let manifest = manifest_json("c.json", &[&entry]);
    let tar: &[u8] = &layer.tar;

    // More layers in the config than there are, and fewer.
    for path in
        archives(&scene, &[(&entry, tar), ("c.json", &two), ("manifest.json", manifest.as_bytes())])
    {
        let output = scene.unreadable(&path).says("c.json").says("lists 2 diff IDs");
        output.says("lists 1 layers");
    }
    let absent = manifest_json("c.json", &[&entry, "absent/layer.tar"]);
    for path in
        archives(&scene, &[(&entry, tar), ("c.json", &two), ("manifest.json", absent.as_bytes())])
    {
        scene.unreadable(&path).says("absent/layer.tar").says("not in the archive");
    }
    let no_config = manifest_json("d.json", &[&entry]);
    for path in archives(&scene, &[(&entry, tar), ("manifest.json", no_config.as_bytes())]) {
        scene.unreadable(&path).says("d.json").says("not in the archive");
    }
    for (name, body) in [
        ("broken JSON", &b"{ \"rootfs\": "[..]),
        ("no rootfs", b"{}"),
        ("a list", b"[]"),
        ("a bad diff ID", br#"{"rootfs":{"type":"layers","diff_ids":["sha256:xyz"]}}"#),
    ] {
        for path in archives(
            &scene,
            &[(&entry, tar), ("c.json", body), ("manifest.json", manifest.as_bytes())],
        ) {
            let output = scene.unreadable(&path);
            assert!(output.stderr.contains("c.json"), "{name}\n{output}");
        }
    }
    for body in [&b"[]"[..], b"{}", b"[{}]", b"not JSON", b"[", b"null", b"[null]"] {
        for path in archives(&scene, &[(&entry, tar), ("c.json", &one), ("manifest.json", body)]) {
            scene.unreadable(&path).says("manifest.json");
        }
    }
    let text: &[u8] = b"this is no tar";
    for path in archives(
        &scene,
        &[(&entry, text), ("c.json", &one), ("manifest.json", manifest.as_bytes())],
    ) {
        scene.unreadable(&path).says(&entry);
    }
}

#[test]
fn a_layer_that_is_not_what_the_config_says_is_named_and_nothing_is_tagged() {
    let scene = Scene::new();
    let layers: Vec<Layer> =
        (0..3).map(|n| Layer::random(&format!("package-{n}"), n, 20_000)).collect();
    let good = ImageBuilder::new(layers.clone());
    let entry = format!("{}/layer.tar", layers[1].diff_id().replace("sha256:", ""));
    let tar = good.tar();
    // A byte in the middle of the second layer.
    let at = tar
        .windows(64)
        .position(|window| window == &layers[1].tar[10_000..10_064])
        .expect("the layer in the archive");
    let bad = archive::corrupted(&tar, at);
    for (name, bytes) in [("bad.tar", bad.clone()), ("bad.tar.gz", gzip(&bad))] {
        let output = scene.unreadable(&scene.file(name, &bytes));
        let output = output.says("layer 2").says(&entry).says(&layers[1].diff_id());
        output.says("nothing was tagged");
        let output = Pushimg::new().stdin(bytes).run(["-", &scene.destination()]).exits(3);
        scene.unchanged(&output);
        output.says("layer 2");
    }
}

#[test]
fn a_registry_that_is_not_there_is_named() {
    let scene = Scene::new();
    let archive = testdata("layered-v1.tar.gz");
    let path = archive.to_str().unwrap();
    let free = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("a port");
    let began = std::time::Instant::now();
    let output = Pushimg::new().run([path, &format!("{free}/app:v1"), "--retry-for", "1s"]);
    let output = output.exits(5).says(&free.to_string()).says("refused");
    let output = output.says("is a registry running there?").never_says("result");
    let output = output.says(&format!("error: cannot reach {free}: ")).never_says("sha256:");
    // All requests share a pause, so there is one line for each pause, not one for each request.
    assert!(output.stderr.matches("retry: ").count() <= 4, "{output}");
    let output =
        Pushimg::new().run([path, "no-such-host.invalid/app:v1", "--retry-for", "1s"]).exits(5);
    output.says("error: cannot reach no-such-host.invalid: ");
    assert!(began.elapsed() < Duration::from_secs(25));
    // Something that answers, but is no registry.
    let proxy = FaultProxy::before(scene.registry.addr());
    proxy.set_rules(vec![Rule::any(Fault::Answer(Answer::status(200).html()))]);
    let output =
        Pushimg::new().run([path, &format!("{}/app:v1", proxy.host()), "--retry-for", "1s"]);
    assert!(matches!(output.code(), Some(4 | 5)), "{output}");
    output.says(&proxy.host());
}

#[test]
fn a_failing_registry_is_quoted_and_retried_no_longer_than_told() {
    let scene = Scene::new();
    let proxy = FaultProxy::before(scene.registry.addr());
    let archive = testdata("layered-v2.tar.gz");
    let destination = format!("{}/app:v1", proxy.host());
    for (step, fault, quote) in [
        (Step::UploadPost, Answer::status(503).html(), "503"),
        (Step::UploadPut, Answer::status(500).error("UNKNOWN", "disk on fire"), "disk on fire"),
        (Step::ManifestPut, Answer::status(502).html(), "502"),
    ] {
        proxy.set_rules(vec![Rule::at(step, Fault::Answer(fault))]);
        let arguments = [archive.to_str().unwrap(), &destination, "--retry-for", "1s"];
        let output = Pushimg::new().limit(Duration::from_secs(20)).run(arguments).exits(5);
        let output = output.says(quote).says(&proxy.host());
        proxy.heal();
        scene.unchanged(&output);
    }
}

#[test]
fn an_untrusted_certificate_is_refused_until_its_authority_is_named() {
    let authority = Authority::new();
    let registry = DockerRegistry::tls(&authority);
    let archive = testdata("layered-v1.tar.gz");
    let path = archive.to_str().unwrap();
    let destination = format!("{}/app:v1", registry.host());
    let began = std::time::Instant::now();
    let output = Pushimg::new().run([path, &destination]).exits(5);
    assert!(began.elapsed() < Duration::from_secs(10), "a certificate is not tried again");
    output.says(&registry.host()).says("certificate").says("--ca-file");
    assert_eq!(registry.tag("app", "v1"), None);

    let ca = authority.ca_file();
    let ca = ca.to_str().unwrap();
    let digest = Pushimg::new().run([path, &destination, "--ca-file", ca]).success().digest();
    assert_eq!(registry.tag("app", "v1"), Some(digest.clone()));
    let output = Pushimg::new().run([path, &destination, "--insecure-skip-tls-verify"]).success();
    output.says("certificates are not checked");

    // The CA certificate in `certs.d`, where docker and podman look for it.
    for below in [".config/containers/certs.d", ".docker/certs.d"] {
        let machine = Pushimg::new();
        let folder = machine.home().join(below).join(registry.host());
        std::fs::create_dir_all(&folder).expect("certs.d");
        std::fs::copy(ca, folder.join("ca.crt")).expect("ca.crt");
        let machine = machine.env("XDG_CONFIG_HOME", "");
        assert_eq!(machine.run([path, &destination]).success().digest(), digest, "{below}");
    }

    // A file that is no certificate, and one that is not there.
    for file in [path, "/nonexistent/ca.pem"] {
        let output = Pushimg::new().run([path, &destination, "--ca-file", file]);
        assert!(matches!(output.code(), Some(1 | 2 | 5)), "{output}");
        output.says(file);
    }
}

#[test]
fn a_client_certificate_is_taken_from_certs_d() {
    let authority = Authority::new();
    let registry = DockerRegistry::start(&DockerRegistryOptions {
        tls: Some(&authority),
        client_certificates: true,
        ..Default::default()
    });
    let archive = testdata("layered-v1.tar.gz");
    let destination = format!("{}/app:v1", registry.host());
    let ca = authority.ca_file();
    let arguments = [
        archive.to_str().unwrap(),
        &destination,
        "--ca-file",
        ca.to_str().unwrap(),
        "--retry-for",
        "1s",
    ];
    Pushimg::new().run(arguments).exits(5).says(&registry.host());
    let machine = Pushimg::new().env("XDG_CONFIG_HOME", "");
    let folder = machine.home().join(".config/containers/certs.d").join(registry.host());
    std::fs::create_dir_all(&folder).expect("certs.d");
    let identity = authority.client();
    for file in [&ca, &identity.cert, &identity.key] {
        std::fs::copy(file, folder.join(file.file_name().unwrap())).expect("a copy");
    }
    machine.run([archive.to_str().unwrap(), &destination]).success();
}

#[test]
fn plain_http_is_only_spoken_where_it_is_asked_for() {
    let registry = DevRegistry::start(Options::default());
    let archive = testdata("layered-v1.tar.gz");
    let path = archive.to_str().unwrap();
    // A name for this machine that does not look like loopback, where it has one.
    let name = String::from_utf8(Command::new("hostname").output().expect("start hostname").stdout)
        .expect("a host name");
    // pushimg tries plain HTTP for 127.0.0.1 and localhost without an option.
    for host in ["127.0.0.1", "localhost"] {
        let destination = format!("{host}:{}/app:{host}", registry.addr().port());
        Pushimg::new().run([path, &destination]).success();
    }
    let destination = format!("{}:{}/app:v1", name.trim(), registry.addr().port());
    let output = Pushimg::new().run([path, &destination, "--retry-for", "1s"]);
    assert_ne!(output.code(), Some(0), "{output}");
    assert_eq!(registry.tag("app", "v1"), None);
}

#[test]
fn a_refusal_says_who_we_were_and_how_to_log_in() {
    let basic = DockerRegistry::basic();
    let dev = DevRegistry::start(Options {
        auth: registry::bearer("user", "secret", Duration::from_secs(60)),
        ..Default::default()
    });
    let archive = testdata("layered-v1.tar.gz");
    let path = archive.to_str().unwrap();
    for host in [basic.host(), dev.host()] {
        let destination = format!("{host}/team/app:v1");
        let nobody = Pushimg::new().run([path, &destination]).exits(4);
        let nobody = nobody.says(&format!("error: cannot log in to {host}: "));
        let nobody = nobody.says("pushimg login").says("config.json");
        assert_eq!(nobody.stdout, "");
        let wrong = Pushimg::new().login(&host, "pushimg", "wr0ng-passw0rd");
        let wrong = wrong.run([path, &destination, "-vv"]).exits(4);
        let wrong = wrong.says(&format!("error: cannot log in to {host}: "));
        wrong.says("config.json").never_says("wr0ng-passw0rd");
        let wrong = Pushimg::new().stdin("wr0ng-passw0rd\n");
        let arguments = [path, &destination, "--username", "someone", "--password-stdin", "-vv"];
        let wrong = wrong.run(arguments).exits(4);
        wrong.says("--username").never_says("wr0ng-passw0rd");
    }
    assert_eq!(dev.counters().manifest_puts, 0);
}

#[test]
fn a_repository_that_does_not_exist_is_said_to_be_made_first() {
    let registry = DevRegistry::start(Options {
        repositories: Some(vec!["team/app".to_owned()]),
        ..Default::default()
    });
    let archive = testdata("layered-v1.tar.gz");
    let path = archive.to_str().unwrap();
    let output = Pushimg::new().run([path, &format!("{}/team/other:v1", registry.host())]).exits(4);
    output.says("team/other").says("NAME_UNKNOWN").says("create");
    Pushimg::new().run([path, &format!("{}/team/app:v1", registry.host())]).success();
    // The registry denies the upload, as with a quota or a missing role.
    let proxy = FaultProxy::before(registry.addr());
    let denied = Answer::status(403).error("DENIED", "you are only a reader here");
    proxy.set_rules(vec![Rule::at(Step::UploadPost, Fault::Answer(denied))]);
    let v2 = testdata("layered-v2.tar.gz");
    let destination = format!("{}/team/app:v1", proxy.host());
    let output = Pushimg::new().run([v2.to_str().unwrap(), &destination]).exits(4);
    output.says("you are only a reader here").says("team/app");
}

#[test]
fn a_spool_without_room_says_where_it_is_and_how_to_move_it() {
    let scene = Scene::new();
    let image = ImageBuilder::new(vec![Layer::random("noise", 1, 3_000_000)]);
    let plain = scene.file("new.tar", &image.tar());
    let gz = scene.file("new.tar.gz", &image.tar_gz());
    for archive in [&plain, &gz] {
        for folder in ["/nonexistent/tmp", plain.to_str().unwrap()] {
            let machine = Pushimg::new().env("TMPDIR", folder);
            let output = machine.run([archive.to_str().unwrap(), &scene.destination()]).exits(1);
            scene.unchanged(&output);
            output.says(folder).says("TMPDIR");
        }
        // As on a full disk: no file may grow beyond a megabyte.
        let machine = Pushimg::new();
        let inner = machine.command([archive.to_str().unwrap(), &scene.destination()]);
        let mut limited = Command::new("sh");
        limited.args(["-c", "trap '' XFSZ; ulimit -f 1024; exec \"$@\"", "sh"]);
        limited.arg(inner.get_program()).args(inner.get_args()).env_clear();
        limited.envs(inner.get_envs().filter_map(|(key, value)| Some((key, value?))));
        let output = finish(limited, None, Duration::from_secs(30)).exits(1);
        scene.unchanged(&output);
        output.says(machine.home().join("tmp").to_str().unwrap()).says("TMPDIR");
    }
    // A pipe that has to name its image is spooled whole.
    let machine = Pushimg::new().env("TMPDIR", "/nonexistent/tmp").stdin(image.tar());
    machine.run(["-"]).exits(1).says("/nonexistent/tmp").says("TMPDIR");
}

#[test]
fn wrong_usage_is_told_before_anything_is_done() {
    let dir = TempDir::new().expect("a folder");
    let archive = testdata("layered-v1.tar");
    let path = archive.to_str().unwrap();
    let to = "127.0.0.1:1/app:v1";
    let missing = dir.path().join("no/folder/digest");
    let cases: &[(&[&str], &str)] = &[
        (&[], "IMAGE"),
        (&[path, to, "--no-such-option"], "--no-such-option"),
        (&[path, "Not A Name"], "Not A Name"),
        (&[path, "127.0.0.1:1/UPPER"], "UPPER"),
        (&[path, to, "-t", "not a tag"], "not a tag"),
        (&[path, to, "third"], "third"),
        (&[path, to, "--compression", "lzma"], "lzma"),
        (&[path, to, "--compression-level", "0"], "--compression-level"),
        (&[path, to, "--compression-level", "13"], "--compression-level"),
        (&[path, to, "--compression", "zstd", "--compression-level", "23"], "22"),
        (&[path, to, "--compression", "zstd", "--format", "docker"], "--format oci"),
        (&[path, to, "-j", "0"], "--jobs"),
        (&[path, to, "-j", "many"], "--jobs"),
        (&[path, to, "--username", "me"], "--password-stdin"),
        (&[path, to, "--password-stdin"], "--username"),
        (&[path, to, "-q", "-v"], "--quiet"),
        (&[path, to, "--no-cache", "--cache-dir", "x"], "--cache-dir"),
        (&[path, to, "--dry-run", "--digest-file", "x"], "--digest-file"),
        (&[path, to, "--digest-file", missing.to_str().unwrap()], "--digest-file"),
        (&[path, to, "--reuse-from", "ghcr.io/other/app"], "ghcr.io/other/app"),
        (&[path, to, "--retry-for", "soon"], "--retry-for"),
        (&[path, to, "--auth-file", "/nonexistent/auth.json"], "/nonexistent/auth.json"),
        (&[path, to, "--auth-file", "/"], "is a directory"),
        (&["-", to, "--username", "me", "--password-stdin"], "--auth-file"),
    ];
    for (arguments, names) in cases {
        let output = Pushimg::new().run(*arguments).exits(2);
        assert!(output.stderr.contains(names), "{arguments:?}\n{output}");
        assert_eq!(output.stdout, "", "{arguments:?}");
    }
    let empty = Pushimg::new().stdin("\n").run([path, to, "--username", "me", "--password-stdin"]);
    empty.exits(2).says("password");
}

#[test]
fn a_result_that_cannot_be_written_is_no_success() {
    let registry = DevRegistry::start(Options::default());
    let archive = testdata("layered-v1.tar");
    let machine = Pushimg::new();
    let inner =
        machine.command([archive.to_str().unwrap(), &format!("{}/app:v1", registry.host())]);
    let mut full = Command::new("sh");
    full.args(["-c", "exec \"$@\" > /dev/full", "sh"]);
    full.arg(inner.get_program()).args(inner.get_args()).env_clear();
    full.envs(inner.get_envs().filter_map(|(key, value)| Some((key, value?))));
    let output = finish(full, None, Duration::from_secs(30)).exits(1);
    output.says("the image is pushed, but");
    assert!(registry.tag("app", "v1").is_some());
}

#[test]
fn credentials_files_that_are_broken_are_named() {
    let registry = DockerRegistry::basic();
    let archive = testdata("layered-v1.tar");
    let destination = format!("{}/app:v1", registry.host());
    let arguments = [archive.to_str().unwrap(), &destination];
    let machine = Pushimg::new();
    let config = machine.home().join("docker/config.json");
    std::fs::write(&config, "{ \"auths\": ").expect("write");
    machine.run(arguments).exits(4).says("docker/config.json").says("line 1");
    let helper: Value = json!({ "credHelpers": { registry.host(): "no-such-program" } });
    let machine = Pushimg::new().docker_config(&helper);
    machine.run(arguments).exits(4).says("docker-credential-no-such-program");
    let absent = [&arguments[..], &["--auth-file", "/nonexistent/auth.json"]].concat();
    Pushimg::new().run(absent).exits(2).says("/nonexistent/auth.json").says("--auth-file");
    assert_eq!(pull::tag_digest(registry.host(), "app", "v1"), None);
}
