//! `pushimg serve`: a read-only registry over local images, pulled from by programs that exist.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use crate::support::archive::{ImageBuilder, Layer, random_bytes, sha256};
use crate::support::containerd::Containerd;
use crate::support::layout::Layout;
use crate::support::measure::PeakMemory;
use crate::support::nix_store::{StorePath, Streamed};
use crate::support::pull;
use crate::support::run::{Pushimg, program};

/// A server, ended when it is dropped.
pub struct Serving {
    child: Child,
    pub host: String,
    /// The lines on standard output.
    names: Vec<String>,
}

impl Serving {
    pub fn start(pushimg: &Pushimg, images: &[&str], options: &[&str]) -> Self {
        let listen = ["--listen", "127.0.0.1:0"];
        let args = ["serve"].iter().chain(images).chain(&listen).chain(options);
        let mut command = pushimg.command(args.copied());
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("start pushimg serve");
        let stdout = BufReader::new(child.stdout.take().expect("a pipe"));
        // Each image in these tests has one name, so there is one line for each image.
        let names: Vec<String> =
            stdout.lines().take(images.len()).map(|line| line.expect("a line")).collect();
        let host = names.first().and_then(|name| name.split('/').next()).unwrap_or_default();
        assert!(!host.is_empty(), "the server says what it serves");
        Self { host: host.to_owned(), child, names }
    }

    /// Sends a request as it is, and returns the head and the body of the answer.
    fn raw(&self, request: &str) -> (String, Vec<u8>) {
        let mut stream = TcpStream::connect(&self.host).expect("connect");
        stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a time limit");
        stream.write_all(request.as_bytes()).expect("send a request");
        let mut answer = Vec::new();
        // A server that refuses may close before it has read everything.
        let _ = stream.read_to_end(&mut answer);
        let end = answer.windows(4).position(|four| four == b"\r\n\r\n").unwrap_or(answer.len());
        let body = answer.get(end + 4..).unwrap_or_default().to_vec();
        (String::from_utf8_lossy(&answer[..end]).into_owned(), body)
    }

    fn request(&self, method: &str, path: &str, headers: &str) -> (String, Vec<u8>) {
        self.raw(&format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n{headers}\r\n",
            self.host
        ))
    }

    fn json(&self, path: &str) -> Value {
        let (head, body) = self.request("GET", path, "");
        assert!(head.starts_with("HTTP/1.1 200"), "{path}: {head}");
        serde_json::from_slice(&body).expect("JSON")
    }

    /// Waits until it ends by itself.
    fn ends_well(&mut self) {
        let until = Instant::now() + Duration::from_secs(60);
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("a child") {
                break status;
            }
            assert!(Instant::now() < until, "it still serves");
            std::thread::sleep(Duration::from_millis(50));
        };
        assert!(status.success(), "{status}");
    }

    #[track_caller]
    fn refuses(&self, method: &str, path: &str, status: &str, code: &str) {
        let (head, body) = self.request(method, path, "");
        assert!(head.starts_with(&format!("HTTP/1.1 {status}")), "{method} {path}: {head}");
        let errors: Value = serde_json::from_slice(&body).expect("JSON");
        assert_eq!(errors["errors"][0]["code"], code, "{method} {path}");
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn image() -> ImageBuilder {
    let layers = vec![Layer::text("base", 1, 300_000), Layer::random("top", 2, 200_000)];
    ImageBuilder::new(layers).repo_tags(&["registry.test/team/app:v1"])
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

/// The value of a header in the head of an answer.
fn header<'a>(head: &'a str, name: &str) -> &'a str {
    let lines = head.lines().filter_map(|line| line.split_once(": "));
    let mut found = lines.filter(|(key, _)| key.eq_ignore_ascii_case(name));
    found.next().unwrap_or_else(|| panic!("no {name} in {head}")).1
}

#[test]
fn skopeo_and_podman_pull_from_plain_and_compressed_archives_in_every_compression() {
    let folder = TempDir::new().expect("a folder");
    let builder = image();
    let id = sha256(&builder.config());
    let id = id.trim_start_matches("sha256:").to_owned();
    let archives = [
        builder.write(folder.path(), "image.tar"),
        builder.write_gz(folder.path(), "image.tar.gz"),
    ];
    for archive in &archives {
        for compression in ["none", "gzip", "zstd"] {
            let pushimg = Pushimg::new();
            let options = ["--compression", compression];
            let serving = Serving::start(&pushimg, &[text(archive)], &options);
            // It also checks that layers, config and diff IDs are the archive's.
            pull::assert_same_image(archive, serving.host.clone(), "team/app", "v1");
            pull::skopeo(serving.host.clone(), "team/app", "v1");
            if compression == "none" {
                assert_eq!(pull::podman(serving.host.clone(), "team/app", "v1"), id);
            }
            let manifest = serving.json("/v2/team/app/manifests/v1");
            let layer = &manifest["layers"][0];
            let is_layer = layer["digest"] == builder.layers[0].diff_id();
            assert_eq!(is_layer, compression == "none", "an uncompressed blob is the layer");
            // The cache knows the digests now, so the second server packs the blobs only when a
            // client asks for them.
            let again = Serving::start(&pushimg, &[text(archive)], &options);
            assert_eq!(
                serving.names[0].split_once('/').expect("a name").1,
                again.names[0].split_once('/').expect("a name").1
            );
            pull::skopeo(again.host.clone(), "team/app", "v1");
        }
    }
}

#[test]
fn the_layers_of_a_stream_script_are_made_while_they_are_pulled() {
    let glibc = StorePath::new("glibc-2.38", &[("lib/libc.so.6", &random_bytes(1, 900_000))]);
    let app = StorePath::new("app-1.0", &[("bin/app", b"an app")]);
    // There may be no store here.
    let (Some(glibc), Some(app)) = (glibc, app) else { return };
    let image = Streamed::new(&[&[&glibc], &[&app]]);
    let archive = image.archive();
    for compression in ["none", "gzip"] {
        let options = ["--compression", compression];
        let serving = Serving::start(&Pushimg::new(), &[&image.result()], &options);
        let (_, name) = serving.names[0].split_once('/').expect("a name");
        let (name, _) = name.split_once('@').expect("a digest");
        let tags = serving.json(&format!("/v2/{name}/tags/list"));
        let tag = tags["tags"][0].as_str().expect("a tag");
        pull::assert_same_image(&archive, serving.host.clone(), name, tag);
        pull::skopeo(serving.host.clone(), name, tag);
    }
}

#[test]
fn docker_pulls_and_has_the_right_image_and_pulls_only_what_changed() {
    let docker = |arguments: &[&str]| {
        let output = Command::new("docker").args(arguments).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
    };
    if docker(&["info"]).is_none() {
        return; // no daemon here
    }
    let folder = TempDir::new().expect("a folder");
    let first = image();
    let second = first.clone().with_layer(1, Layer::random("top", 3, 200_000));
    let mut names = Vec::new();
    for (builder, told) in [(&first, "Pull complete"), (&second, "Already exists")] {
        let archive = builder.write(folder.path(), "image.tar");
        let serving = Serving::start(&Pushimg::new(), &[text(&archive)], &[]);
        let name = format!("{}/team/app:v1", serving.host);
        let pulled = docker(&["pull", &name]).expect("docker pull");
        assert!(pulled.contains(told), "{pulled}");
        let id = docker(&["image", "inspect", "--format", "{{.Id}}", &name]).expect("an image");
        assert_eq!(id.trim(), sha256(&builder.config()));
        names.push(name);
    }
    for name in names {
        docker(&["rmi", &name]);
    }
}

#[test]
fn containerd_pulls_and_has_the_digest() {
    if program("id", ["-u"]).trim() != "0" {
        eprintln!("note: containerd needs root, so this test ends");
        return;
    }
    let (containerd, folder) = (Containerd::start(), TempDir::new().expect("a folder"));
    let archive = image().write(folder.path(), "image.tar");
    for compression in ["none", "gzip", "zstd"] {
        let options = ["--compression", compression];
        let serving = Serving::start(&Pushimg::new(), &[text(&archive)], &options);
        let name = format!("{}/team/app:v1", serving.host);
        let ctr = |arguments: &[&str]| {
            program("ctr", [&["-a", &containerd.address(), "images"], arguments].concat())
        };
        ctr(&["pull", "--plain-http", "--snapshotter", "native", &name]);
        let digest = serving.names[0].rsplit_once('@').expect("a digest").1;
        let listed = ctr(&["ls"]);
        let line = listed.lines().find(|line| line.starts_with(&name)).expect("the image");
        assert!(line.contains(digest), "{listed}");
        ctr(&["rm", &name]);
    }
}

#[test]
fn a_layer_that_nobody_asks_for_is_never_read() {
    let folder = TempDir::new().expect("a folder");
    let archive = image().write(folder.path(), "image.tar");
    let layer = image().layers[1].diff_id();
    let bytes = std::fs::read(&archive).expect("the archive");
    let serving = Serving::start(&Pushimg::new(), &[text(&archive)], &["--no-cache"]);
    // The archive is damaged after the server has started. Only a client that pulls the layer
    // notices it.
    let middle = bytes.len() - 100_000;
    let damaged = crate::support::archive::corrupted(&bytes, middle);
    std::fs::write(&archive, damaged).expect("damage the archive");
    let (head, body) = serving.request("GET", &format!("/v2/team/app/blobs/{layer}"), "");
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    assert_ne!(sha256(&body), layer, "the bytes are those of the file at this moment");
    serving.json("/v2/team/app/manifests/v1");
}

#[test]
fn blobs_have_ranges_etags_and_digests() {
    let folder = TempDir::new().expect("a folder");
    let archive = image().write(folder.path(), "image.tar");
    let layer = &image().layers[0];
    let serving = Serving::start(&Pushimg::new(), &[text(&archive)], &["--no-cache"]);
    let path = format!("/v2/team/app/blobs/{}", layer.diff_id());
    let (head, whole) = serving.request("GET", &path, "");
    assert_eq!(sha256(&whole), layer.diff_id());
    assert_eq!(header(&head, "Docker-Content-Digest"), layer.diff_id());
    let tag = header(&head, "ETag").to_owned();
    let (head, body) = serving.request("HEAD", &path, "");
    assert_eq!(header(&head, "Content-Length"), whole.len().to_string());
    assert!(body.is_empty());
    for (range, part) in [
        ("bytes=5-9", &whole[5..10]),
        ("bytes=1000-", &whole[1000..]),
        ("bytes=-7", &whole[whole.len() - 7..]),
    ] {
        let (head, body) = serving.request("GET", &path, &format!("Range: {range}\r\n"));
        assert!(head.starts_with("HTTP/1.1 206"), "{range}: {head}");
        assert_eq!(body, part, "{range}");
    }
    let (head, _) = serving.request("GET", &path, "Range: bytes=99999999-\r\n");
    assert!(head.starts_with("HTTP/1.1 416"), "{head}");
    assert_eq!(header(&head, "Content-Range"), format!("bytes */{}", whole.len()));
    for odd in ["bytes=0-1,4-5", "bytes=9-1", "bytes=a-b", "x"] {
        let (head, body) = serving.request("GET", &path, &format!("Range: {odd}\r\n"));
        assert!(head.starts_with("HTTP/1.1 200"), "{odd}: {head}");
        assert_eq!(body.len(), whole.len(), "{odd}");
    }
    let (head, body) = serving.request("GET", &path, &format!("If-None-Match: {tag}\r\n"));
    assert!(head.starts_with("HTTP/1.1 304") && body.is_empty(), "{head}");
}

#[test]
fn what_is_not_there_and_what_would_write_gets_the_specifications_errors() {
    let folder = TempDir::new().expect("a folder");
    let archive = image().write(folder.path(), "image.tar");
    let mut serving = Serving::start(&Pushimg::new(), &[text(&archive)], &["--no-cache"]);
    let other = sha256(b"other");
    serving.refuses("GET", "/v2/other/manifests/v1", "404", "NAME_UNKNOWN");
    serving.refuses("GET", "/v2/team/app/manifests/v2", "404", "MANIFEST_UNKNOWN");
    serving.refuses("GET", &format!("/v2/team/app/manifests/{other}"), "404", "MANIFEST_UNKNOWN");
    serving.refuses("GET", &format!("/v2/team/app/blobs/{other}"), "404", "BLOB_UNKNOWN");
    serving.refuses("GET", "/v2/team/app/blobs/sha256:12", "400", "DIGEST_INVALID");
    serving.refuses("GET", "/v2/team/app/manifests/sha256:12", "400", "DIGEST_INVALID");
    serving.refuses("GET", "/v2/team/app/referrers/x", "400", "DIGEST_INVALID");
    serving.refuses("GET", "/v2/team/app/tags/list?n=x", "400", "PAGINATION_NUMBER_INVALID");
    for odd in ["/v2/../../etc/passwd", "/v2team/app/manifests/v1", "/v2//team/app/manifests/v1"] {
        serving.refuses("GET", odd, "404", "NAME_UNKNOWN");
    }
    let (head, _) = serving.request("HEAD", "/v2/team/app/tags/list", "");
    let (_, list) = serving.request("GET", "/v2/team/app/tags/list", "");
    assert_eq!(header(&head, "Content-Length"), list.len().to_string());
    serving.refuses("GET", "/v2/team/app/blobs/../../../etc/passwd", "404", "NAME_UNKNOWN");
    for method in ["POST", "PUT", "PATCH", "DELETE"] {
        serving.refuses(method, "/v2/team/app/blobs/uploads/", "405", "UNSUPPORTED");
    }
    // Not HTTP, headers without an end, half a request: the server goes on.
    serving.raw("\0\u{1}\r\n\r\n");
    let (head, _) = serving.request("GET", "/v2/", &format!("X: {}\r\n", "x".repeat(1 << 20)));
    assert!(head.is_empty() || head.starts_with("HTTP/1.1 431"), "{head}");
    let mut half = TcpStream::connect(&serving.host).expect("connect");
    half.write_all(b"GET /v2/ HTTP/1.1\r\n").expect("half a request");
    half.shutdown(std::net::Shutdown::Write).expect("half closed");
    serving.json("/v2/");
    assert!(serving.child.try_wait().expect("a child").is_none(), "it still runs");
}

#[test]
fn layouts_are_served_as_they_are_with_their_referrers() {
    let folder = TempDir::new().expect("a folder");
    let layout = Layout::new(folder.path().join("app"));
    let image = layout.image("amd64", &[Layer::text("base", 1, 3_000)]);
    let sbom = layout.artifact("application/x.sbom", b"parts", Some(&image));
    layout.list(&[(&image, Some("v1")), (&sbom, None)]);
    let serving = Serving::start(&Pushimg::new(), &[layout.text()], &["--no-cache"]);
    let digest = image["digest"].as_str().expect("a digest");
    assert!(serving.names[0].ends_with(&format!("/app@{digest}")), "{:?}", serving.names);
    pull::skopeo(serving.host.clone(), "app", "v1");
    let referrers = |query: &str| {
        let index = serving.json(&format!("/v2/app/referrers/{digest}{query}"));
        index["manifests"].as_array().expect("a list").len()
    };
    assert_eq!(referrers(""), 1);
    assert_eq!(referrers("?artifactType=application%2Fx.sbom"), 1);
    assert_eq!(referrers("?artifactType=other"), 0);
}

#[test]
fn tags_are_listed_in_parts() {
    let folder = TempDir::new().expect("a folder");
    let archive = image().write(folder.path(), "image.tar");
    let offers = ["c", "a", "b"].map(|tag| format!("{}=app:{tag}", text(&archive)));
    let offers: Vec<&str> = offers.iter().map(String::as_str).collect();
    let serving = Serving::start(&Pushimg::new(), &offers, &["--no-cache"]);
    assert_eq!(serving.json("/v2/app/tags/list")["tags"], serde_json::json!(["a", "b", "c"]));
    let (head, body) = serving.request("GET", "/v2/app/tags/list?n=2", "");
    let page: Value = serde_json::from_slice(&body).expect("JSON");
    assert_eq!(page["tags"], serde_json::json!(["a", "b"]));
    assert_eq!(header(&head, "Link"), "</v2/app/tags/list?n=2&last=b>; rel=\"next\"");
    let last = serving.json("/v2/app/tags/list?n=2&last=b");
    assert_eq!(last["tags"], serde_json::json!(["c"]));
    assert_eq!(serving.json("/v2/_catalog")["repositories"], serde_json::json!(["app"]));
}

#[test]
fn it_ends_when_a_pull_is_complete() {
    let folder = TempDir::new().expect("a folder");
    let archive = image().write(folder.path(), "image.tar");
    let options = ["--no-cache", "--until-pulled"];
    let mut serving = Serving::start(&Pushimg::new(), &[text(&archive)], &options);
    pull::skopeo(serving.host.clone(), "team/app", "v1");
    serving.ends_well();
}

#[test]
fn it_ends_when_a_client_has_everything_already() {
    let folder = TempDir::new().expect("a folder");
    let archive = image().write(folder.path(), "image.tar");
    let options = ["--no-cache", "--until-pulled"];
    let mut serving = Serving::start(&Pushimg::new(), &[text(&archive)], &options);
    let digest = serving.names[0].rsplit_once('@').expect("a digest").1.to_owned();
    let path = "/v2/team/app/manifests/v1";
    let (head, _) = serving.request("GET", path, &format!("If-None-Match: \"{digest}\"\r\n"));
    assert!(head.starts_with("HTTP/1.1 304"), "{head}");
    serving.ends_well();
}

#[test]
fn thirty_two_pulls_and_slow_readers_take_little_memory() {
    let folder = TempDir::new().expect("a folder");
    let layers = (0..4).map(|n| Layer::random(&format!("layer{n}"), n, 8 << 20)).collect();
    let builder = ImageBuilder::new(layers).repo_tags(&["app:v1"]);
    let archive = builder.write(folder.path(), "image.tar");
    let serving = Serving::start(&Pushimg::new(), &[text(&archive)], &["--no-cache"]);
    let peak = PeakMemory::of(&serving.child);
    let path = format!("/v2/app/blobs/{}", builder.layers[0].diff_id());
    let slow: Vec<TcpStream> = (0..100)
        .map(|_| {
            let mut stream = TcpStream::connect(&serving.host).expect("connect");
            write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").expect("send a request");
            stream
        })
        .collect();
    let pulls: Vec<_> = (0..32)
        .map(|_| {
            let mut command = Command::new("curl");
            command.args(["-f", "--no-progress-meter", "-o", "/dev/null", "--parallel"]);
            for layer in &builder.layers {
                command.arg(format!("http://{}/v2/app/blobs/{}", serving.host, layer.diff_id()));
                command.args(["-o", "/dev/null"]);
            }
            command.spawn().expect("start curl")
        })
        .collect();
    for mut pull in pulls {
        assert!(pull.wait().expect("curl").success());
    }
    drop(slow);
    drop(serving);
    // A debug build takes more than the 40 MiB of a release build.
    let peak = peak.bytes().expect("the server was measured");
    assert!(peak < 64 << 20, "{} MiB", peak >> 20);
}
