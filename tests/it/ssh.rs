//! `ssh://`: an image goes into a runtime of another machine, here this one over a loopback port.
//!
//! Tests of a runtime that does not answer on this machine say so and end.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::support::archive::{ImageBuilder, Layer, sha256, text};
use crate::support::containerd::Containerd;
use crate::support::run::program;
use crate::support::sshd::Sshd;

/// A name that only one test of one run has.
fn unique(test: &str) -> String {
    format!("pushimg-test-{test}-{}", std::process::id())
}

/// Layers that no other run has: what a runtime once had, it may remember.
fn image(salt: &str, changed: &str) -> ImageBuilder {
    let layer = |place: u8, text: &str| Layer::file(&format!("f{place}"), text.as_bytes());
    let base = |place: u8| layer(place, &format!("{salt} {place} {}", "x".repeat(100_000)));
    ImageBuilder::new(vec![base(0), base(1), layer(2, &format!("{salt} {changed}")), base(3)])
}

/// The old image and the new one, in which the third of four layers has changed.
fn two_images(dir: &Path, salt: &str) -> (PathBuf, PathBuf, ImageBuilder) {
    let new = image(salt, "new");
    (image(salt, "old").write(dir, "old.tar"), new.write(dir, "new.tar"), new)
}

fn answers(program: &str) -> bool {
    let asked = Command::new(program).arg("info").output();
    let answers = asked.is_ok_and(|info| info.status.success());
    if !answers {
        eprintln!("note: {program} does not answer here, so this test ends");
    }
    answers
}

/// For each layer, whether it was sent.
fn sent(report: &serde_json::Value) -> Vec<bool> {
    let layers = report["layers"].as_array().expect("layers");
    layers.iter().map(|layer| layer["action"] == "uploaded").collect()
}

#[test]
fn docker_gets_the_changed_layer_and_those_above_it() {
    if !answers("docker") {
        return;
    }
    let sshd = Sshd::start(&[]);
    let dir = TempDir::new().expect("a folder");
    let name = unique("docker");
    let (old, new, built) = two_images(dir.path(), &name);
    let destination = format!("ssh://lab/{name}:v1");
    let pushimg = sshd.pushimg();
    let options = ["--runtime", "docker"];
    let first = pushimg.pushed_json(&old, &destination, &options).json();
    assert_eq!(sent(&first), [true; 4]);
    let second = pushimg.pushed_json(&new, &destination, &options).json();
    let id = program(
        "docker",
        ["image", "inspect", "--format", "{{.Id}}", &name.clone()]
            .map(|word| if word == name { format!("{name}:v1") } else { word.to_owned() }),
    );
    program(
        "docker",
        ["rmi", "-f", &format!("{name}:v1"), first["config"].as_str().expect("an id")],
    );
    assert_eq!(sent(&second), [false, false, true, true]);
    assert_eq!(id.trim(), sha256(&built.config()));
    // The two layers, and what an archive has besides.
    assert!(second["bytes_sent"].as_u64().expect("bytes") < 115_000, "{second}");
}

/// Carries a connection of ssh to a host and a port, and writes down how many bytes went out.
const COUNTING_PROXY: &str = r#"#!/usr/bin/env python3
import os, socket, sys, threading

line = socket.create_connection((sys.argv[1], int(sys.argv[2])))
sent = 0

def inwards():
    while part := line.recv(65536):
        os.write(1, part)
    os._exit(0)

threading.Thread(target=inwards, daemon=True).start()
while part := os.read(0, 65536):
    line.sendall(part)
    sent += len(part)
    with open(sys.argv[0] + ".new", "w") as count:
        count.write(str(sent))
    os.rename(sys.argv[0] + ".new", sys.argv[0] + ".sent")
"#;

#[test]
fn only_the_missing_layers_cross_the_line() {
    if !answers("docker") {
        return;
    }
    let sshd = Sshd::start(&[]);
    let dir = TempDir::new().expect("a folder");
    let name = unique("line");
    // Random layers: the archive is compressed on the way.
    let random = |seed: u32| Layer::random(&format!("{name}-{seed}"), seed.into(), 1_000_000);
    let old = ImageBuilder::new(vec![random(0), random(1), random(2), random(3)]);
    let new = ImageBuilder::new(vec![random(0), random(1), random(4), random(3)]);
    let proxy = executable(dir.path(), "proxy", COUNTING_PROXY);
    let script = format!("#!/bin/sh\nexec {} -o 'ProxyCommand={proxy} %h %p' \"$@\"\n", sshd.ssh());
    let ssh = executable(dir.path(), "counted-ssh", &script);
    let options = ["--runtime", "docker", "--ssh", &ssh];
    let destination = format!("ssh://lab/{name}:v1");
    let mut crossed = Vec::new();
    let mut ids = Vec::new();
    for (file, image) in [("old", &old), ("new", &new), ("new", &new)] {
        let image = image.write(dir.path(), file);
        let report = sshd.pushimg().pushed_json(image, &destination, &options).json();
        ids.push(report["config"].as_str().expect("an id").to_owned());
        let sent = std::fs::read_to_string(format!("{proxy}.sent")).expect("a count");
        crossed.push(sent.parse::<u64>().expect("a number"));
    }
    ids.dedup();
    program("docker", [&["rmi".to_owned(), "-f".to_owned()], &ids[..]].concat());
    let [first, second, third] = crossed[..] else { panic!("{crossed:?}") };
    assert!((4_000_000..4_200_000).contains(&first), "{crossed:?}");
    // The changed layer and the one above it.
    assert!((2_000_000..2_200_000).contains(&second), "{crossed:?}");
    assert!(third < 50_000, "{crossed:?}");
}

/// An image of one static program, which prints a line.
fn program_image(dir: &Path, salt: &str) -> PathBuf {
    let source =
        format!("int puts(const char *); int main(void) {{ return puts(\"{salt}\") < 0; }}");
    std::fs::write(dir.join("main.c"), source).expect("a source");
    let shown = |name: &str| dir.join(name).display().to_string();
    program("cc", ["-static", "-o", &shown("main"), &shown("main.c")]);
    program("tar", ["-C", &shown(""), "-cf", &shown("layer.tar"), "main"]);
    let layer = std::fs::read(dir.join("layer.tar")).expect("a layer");
    let config = serde_json::json!({
        "architecture": std::env::consts::ARCH.replace("x86_64", "amd64").replace("aarch64", "arm64"),
        "os": "linux",
        "config": {"Cmd": ["/main"]},
        "rootfs": {"type": "layers", "diff_ids": [sha256(&layer)]},
    });
    let list = r#"[{"Config": "config.json", "RepoTags": null, "Layers": ["layer.tar"]}]"#;
    let files = [("config.json", config.to_string()), ("manifest.json", list.to_owned())];
    for (name, text) in files {
        std::fs::write(dir.join(name), text).expect("a file");
    }
    let files = ["manifest.json", "config.json", "layer.tar"];
    let (folder, image) = (shown(""), shown("program.tar"));
    program("tar", [&["-C", &folder, "-cf", &image], &files[..]].concat());
    dir.join("program.tar")
}

#[test]
fn the_program_in_an_image_runs_on_the_machine() {
    let sshd = Sshd::start(&[]);
    for runtime in ["docker", "podman"].into_iter().filter(|runtime| answers(runtime)) {
        let dir = TempDir::new().expect("a folder");
        let name = unique(&format!("run-{runtime}"));
        let image = program_image(dir.path(), &name);
        let destination = format!("ssh://lab/{name}:v1");
        sshd.pushimg().pushed(image, &destination, &["--runtime", runtime]);
        let named = format!("{name}:v1");
        // podman asks for more files and processes than a machine like this one may allow.
        let limits = ["--ulimit=nofile=512:512", "--ulimit=nproc=512:512"];
        let options = [&["run", "--rm", "--network=none"][..], &limits, &[&named]].concat();
        let ran = Command::new(runtime).args(options).output();
        program(runtime, ["rmi", "-f", &named]);
        let ran = ran.expect("start the runtime");
        assert_eq!(String::from_utf8_lossy(&ran.stdout).trim(), name, "{ran:?}");
    }
}

#[test]
fn an_image_loaded_by_others_is_known_to_docker_by_its_layers() {
    if !answers("docker") {
        return;
    }
    let sshd = Sshd::start(&[]);
    let dir = TempDir::new().expect("a folder");
    let name = unique("loaded");
    let tag = format!("{name}:old");
    let old = image(&name, "old").repo_tags(&[&tag]).write(dir.path(), "old.tar");
    let new = image(&name, "new").write(dir.path(), "new.tar");
    program("docker", ["load", "-q", "-i", old.to_str().expect("a path")]);
    let destination = format!("ssh://lab/{name}:new");
    let report = sshd.pushimg().pushed_json(new, &destination, &["-t", "also"]).json();
    let names = program("docker", ["image", "ls", "--format", "{{.Tag}}", &name]);
    let all = ["rmi", "-f", &tag, &format!("{name}:new"), &format!("{name}:also")];
    program("docker", all);
    assert_eq!(sent(&report), [false, false, true, true]);
    for tag in ["old", "new", "also"] {
        assert!(names.lines().any(|line| line == tag), "{names}");
    }
}

#[test]
fn podman_gets_the_changed_layer_alone() {
    if !answers("podman") {
        return;
    }
    let sshd = Sshd::start(&[]);
    let dir = TempDir::new().expect("a folder");
    let name = unique("podman");
    let (old, new, built) = two_images(dir.path(), &name);
    let destination = format!("ssh://lab/{name}:v1");
    let pushimg = sshd.pushimg();
    let options = ["--runtime", "podman", "-t", "v2"];
    let first = pushimg.pushed_json(old, &destination, &options).json();
    let second = pushimg.pushed_json(new, &destination, &options).json();
    let id = |tag: &str| {
        let named = format!("localhost/{name}:{tag}");
        program("podman", ["image", "inspect", "--format", "sha256:{{.Id}}", &named])
    };
    let ids = [id("v1"), id("v2")];
    let old_id = &first["config"].as_str().expect("an id")[7..];
    let new_id = &second["config"].as_str().expect("an id")[7..];
    program("podman", ["rmi", "-f", old_id, new_id]);
    assert_eq!(sent(&first), [true; 4]);
    assert_eq!(sent(&second), [false, false, true, false]);
    for id in ids {
        assert_eq!(id.trim(), sha256(&built.config()));
    }
}

#[test]
fn containerd_gets_the_changed_layer_alone_in_the_namespace_asked_for() {
    if program("id", ["-u"]).trim() != "0" {
        eprintln!("note: containerd needs root, so this test ends");
        return;
    }
    let containerd = Containerd::start();
    let sshd = Sshd::start(&[&format!("CONTAINERD_ADDRESS={}", containerd.address())]);
    let dir = TempDir::new().expect("a folder");
    let (old, new, _) = two_images(dir.path(), "containerd");
    let pushimg = sshd.pushimg();
    // On a busy machine containerd may not list its blobs in time; then all layers are sent.
    let pushes = ["mine", "mine-2", "mine-3"].map(|namespace| {
        let options = ["--runtime", "ctr", "--remote-namespace", namespace];
        let first = pushimg.pushed_json(&old, "ssh://lab/app:v1", &options).json();
        let second = pushimg.pushed_json(&new, "ssh://lab/app:v1", &options).json();
        assert_eq!(sent(&first), [true; 4]);
        (namespace, second)
    });
    let is_short = |second: &serde_json::Value| sent(second) == [false, false, true, false];
    let found = pushes.iter().find(|(_, second)| is_short(second));
    let (namespace, second) = found.expect("the changed layer is sent alone");
    let listed = program("ctr", ["-a", &containerd.address(), "-n", namespace, "images", "ls"]);
    let line = listed.lines().find(|line| line.starts_with("docker.io/library/app:v1 "));
    let digest = second["digest"].as_str().expect("a digest");
    assert!(line.is_some_and(|line| line.contains(digest)), "{listed}");
}

/// A script that runs Docker, but claims to have a containerd store and replaces some commands
/// (`pull) …;;`).
fn docker_with_containerd_store(commands: &str) -> String {
    let docker = program("sh", ["-c", "command -v docker || echo false"]);
    format!(
        "case $1 in info) echo io.containerd.snapshotter.v1; exit;; {commands} esac\n\
         exec {} \"$@\"",
        docker.trim()
    )
}

/// What Docker says if it has the layers of this image.
fn that_lists(image: &ImageBuilder) -> String {
    let config: serde_json::Value = serde_json::from_slice(&image.config()).expect("a config");
    let ids = config["rootfs"]["diff_ids"].to_string();
    format!("image) case \"$2 $4\" in ls*) echo x; exit;; *json*) echo '{ids}'; exit;; esac;;")
}

/// The same, and every archive goes into the file `loaded`.
fn that_lists_and_loads(image: &ImageBuilder) -> String {
    let lists = that_lists(image).replace("esac;;", "*) exit;; esac;;");
    format!("{lists} load) cat > ${{0%/*}}/loaded; exit;;")
}

/// The images of Docker, each with its tags.
fn docker_images() -> String {
    program("docker", ["image", "ls", "--format", "{{.Repository}}:{{.Tag}} {{.Digest}}"])
}

#[test]
fn docker_with_a_containerd_store_pulls_what_it_lacks() {
    if !answers("docker") {
        return;
    }
    let dir = TempDir::new().expect("a folder");
    let name = unique("pull");
    let (old, new, built) = two_images(dir.path(), &name);
    let lists = that_lists(&built);
    let docker =
        docker_with_containerd_store(&format!("{lists} pull) echo \"$@\" >> ${{0%/*}}/pulled;;"));
    let sshd = Sshd::forwarding(dir.path(), &[("docker", &docker)]);
    let destination = format!("ssh://lab/{name}:v1");
    let options = ["--runtime", "docker", "-t", "v2"];
    let pushimg = sshd.pushimg();
    let first = pushimg.pushed_json(&old, &destination, &options).json();
    let second = pushimg.pushed_json(&new, &destination, &options).json();
    let third = pushimg.pushed_json(&new, &destination, &options).json();
    let id = |tag: &str| {
        let image = format!("{name}:{tag}");
        program("docker", ["image", "inspect", "--format", "{{.Id}}", &image])
    };
    let ids = [id("v1"), id("v2")];
    let images = docker_images();
    for image in [&format!("{name}:v1"), &format!("{name}:v2")] {
        program("docker", ["rmi", "-f", image]);
    }
    program("docker", ["rmi", "-f", first["config"].as_str().expect("an id")]);
    assert_eq!(sent(&first), [true; 4]);
    // Docker 20.10 also fetches the layers above a missing one, unless it has pulled them before.
    assert_eq!(sent(&second), [false, false, true, true]);
    assert_eq!(sent(&third), [false; 4]);
    assert!(third["bytes_sent"].as_u64().expect("bytes") < 2_000, "{third}");
    for id in ids {
        assert_eq!(id.trim(), sha256(&built.config()));
    }
    // The name that Docker used for the pull is removed, and the port is closed.
    assert!(!images.contains("127.0.0.1:"), "{images}");
    let pulled = std::fs::read_to_string(dir.path().join("pulled")).expect("pulls");
    assert_eq!(pulled.lines().count(), 3, "{pulled}");
    for line in pulled.lines() {
        let port = line.split(':').nth(1).and_then(|rest| rest.split('/').next()?.parse().ok());
        let port: u16 = port.expect("a port");
        assert!(std::net::TcpStream::connect(("127.0.0.1", port)).is_err(), "{port}");
    }
}

#[test]
fn where_nothing_can_be_pulled_the_whole_image_is_sent() {
    let dirs = [TempDir::new().expect("a folder"), TempDir::new().expect("a folder")];
    let [closed, open] = dirs.each_ref().map(TempDir::path);
    let load = that_lists_and_loads(&image("small", "x"));
    let docker = docker_with_containerd_store(&load);
    let unreached = format!("pull) echo 'connection refused' >&2; exit 1;; rmi) exit 1;; {load}");
    let unreached = docker_with_containerd_store(&unreached);
    let servers = [
        (closed, Sshd::with_programs(closed, &[("docker", &docker)]), "forwards no ports"),
        (open, Sshd::forwarding(open, &[("docker", &unreached)]), "connection refused"),
    ];
    for (dir, sshd, why) in servers {
        let image = small(dir);
        sshd.pushimg()
            .pushed(image, "ssh://lab/app:v1", &["--runtime", "docker"])
            .says("cannot pull from this machine")
            .says(why)
            .says("the whole image is sent");
        let listed = program("tar", ["-tf", text(&dir.join("loaded"))]);
        // Four layers, the config and the manifest.
        let blobs = listed.lines().filter(|line| line.starts_with("blobs/sha256/"));
        assert_eq!(blobs.count(), 6, "{listed}");
        // A containerd store finds only whole names.
        let index = program("tar", ["-xOf", text(&dir.join("loaded")), "index.json"]);
        assert!(index.contains("\"docker.io/library/app:v1\""), "{index}");
    }
}

#[test]
fn a_pull_that_breaks_off_goes_on() {
    if !answers("docker") {
        return;
    }
    let dir = TempDir::new().expect("a folder");
    // The connection is lost after the first pull has begun.
    let lost = "pull) test -e ${0%/*}/lost || { touch ${0%/*}/lost; sleep 1; kill -9 $(ps -o ppid= -p $PPID); sleep 5; exit 1; };;";
    let name = unique("again");
    let built = image(&name, "x");
    let docker = docker_with_containerd_store(&format!("{} {lost}", that_lists(&built)));
    let sshd = Sshd::forwarding(dir.path(), &[("docker", &docker)]);
    let image = built.write(dir.path(), "image.tar");
    let destination = format!("ssh://lab/{name}:v1");
    let output = sshd.pushimg().pushed(image, &destination, &["--runtime", "docker"]);
    let images = docker_images();
    program("docker", ["rmi", "-f", &format!("{name}:v1")]);
    output.says("the connection was lost").says("retry: ");
    assert!(!images.contains("127.0.0.1:"), "{images}");
}

#[test]
fn a_pull_that_is_killed_leaves_no_name_and_no_port() {
    if !answers("docker") {
        return;
    }
    let dir = TempDir::new().expect("a folder");
    // The pull begins only when pushimg has been killed.
    let slow = "pull) echo \"$@\" > ${0%/*}/pulled; sleep 2;; rmi) echo > ${0%/*}/removed;;";
    let lists = that_lists(&image("small", "x"));
    let docker = docker_with_containerd_store(&format!("{lists} {slow}"));
    let sshd = Sshd::forwarding(dir.path(), &[("docker", &docker)]);
    let image = small(dir.path());
    let arguments = [text(&image), "ssh://lab/killed:v1", "-q", "--runtime=docker"];
    let pushimg = sshd.pushimg();
    let mut push = pushimg.command(arguments).spawn().expect("start pushimg");
    let pulled = || std::fs::read_to_string(dir.path().join("pulled")).unwrap_or_default();
    wait_for("no pull has begun", || pulled().ends_with('\n'));
    push.kill().expect("kill -9");
    push.wait().expect("its end");
    wait_for("the name was not removed", || dir.path().join("removed").exists());
    assert!(!docker_images().contains("killed"), "{}", docker_images());
    let port = pulled().split(':').nth(1).and_then(|rest| rest.split('/').next()?.parse().ok());
    let port: u16 = port.expect("a port");
    wait_for("the port is open", || std::net::TcpStream::connect(("127.0.0.1", port)).is_err());
}

#[test]
fn pulls_that_are_lost_again_and_again_become_an_archive() {
    let dir = TempDir::new().expect("a folder");
    let lost = "pull) kill -9 $(ps -o ppid= -p $PPID); sleep 5; exit 1;; rmi) exit;;";
    let load = that_lists_and_loads(&image("small", "x"));
    let docker = docker_with_containerd_store(&format!("{lost} {load}"));
    let sshd = Sshd::forwarding(dir.path(), &[("docker", &docker)]);
    let image = small(dir.path());
    sshd.pushimg()
        .pushed(image, "ssh://lab/app:v1", &["--runtime", "docker"])
        .says("the connection was lost")
        .says("the pull was lost again; the whole image is sent");
    assert!(dir.path().join("loaded").exists());
}

#[test]
fn a_damaged_image_that_is_pulled_is_named() {
    if !answers("docker") {
        return;
    }
    let dir = TempDir::new().expect("a folder");
    let name = unique("pulled-damage");
    let built = image(&name, "x");
    let docker = docker_with_containerd_store(&that_lists(&built));
    let sshd = Sshd::forwarding(dir.path(), &[("docker", &docker)]);
    let mut bytes = built.tar();
    let at = bytes.windows(13).rposition(|part| part == b"pulled-damage").expect("a layer");
    bytes[at + 2000] ^= 1;
    let image = crate::support::archive::write(dir.path(), "image.tar", &bytes);
    sshd.pushimg()
        .push(image, &format!("ssh://lab/{name}:v1"), &["--runtime", "docker"])
        .exits(3)
        .says("but the image's config lists");
    assert!(!docker_images().contains(&name), "{}", docker_images());
}

/// A stand-in for Docker. It has no images, prints a byte that is not UTF-8, and runs `load` when
/// it gets an archive.
fn docker_that(load: &str) -> String {
    let image = "test $2 = ls && printf '\\366\\n' >&2 || echo sha256:00";
    format!("case $1 in load) {load};; image) {image};; esac")
}

fn small(dir: &Path) -> PathBuf {
    image("small", "x").write(dir, "image.tar")
}

#[test]
fn what_ssh_refuses_is_told_in_words() {
    let sshd = Sshd::start(&[]);
    let dir = TempDir::new().expect("a folder");
    let image = small(dir.path());
    let push = |ssh: &str| sshd.pushimg().push(&image, "ssh://lab/app:v1", &["--ssh", ssh]);
    sshd.pushimg().push(&image, "ssh://lab/app@", &[]).exits(2).says("write ssh://lab/name:tag");
    let config = sshd.dir().join("config");
    push("no-such-ssh").exits(1).says("cannot start no-such-ssh").says("--ssh");
    let other = sshd.dir().join("other");
    let text = std::fs::read_to_string(&config).expect("the config");
    let without_key = text.replace(&format!("{}/id\n", sshd.dir().display()), "/dev/null\n");
    std::fs::write(&other, without_key).expect("a config");
    push(&format!("ssh -o IdentityAgent=none -F {}", other.display()))
        .exits(4)
        .says("the login was refused")
        .says("~/.ssh/config");
    std::fs::write(&other, text.replace("known_hosts", "unknown_hosts")).expect("a config");
    push(&format!("ssh -F {}", other.display())).exits(4).says("the host's key is not known");
    let known = sshd.dir().join("known_hosts");
    let theirs = std::fs::read_to_string(sshd.dir().join("id.pub")).expect("a key");
    let key = theirs.split(' ').nth(1).expect("a key");
    let wrong = format!("[127.0.0.1]:{} ssh-ed25519 {key}\n", sshd.port());
    std::fs::write(known, wrong).expect("known hosts");
    push(&sshd.ssh()).exits(4).says("not the one that is known").says("ssh-keygen -R");
    sshd.pushimg()
        .push(&image, "ssh://pushimg.invalid/app:v1", &["--ssh", "ssh -F /dev/null"])
        .exits(4)
        .says("the host has no address");
}

#[test]
fn a_host_that_does_not_answer_is_a_failure_of_the_network() {
    let dir = TempDir::new().expect("a folder");
    let free = std::net::TcpListener::bind("127.0.0.1:0").and_then(|it| it.local_addr());
    let to = format!("ssh://127.0.0.1:{}/app:v1", free.expect("a port").port());
    let options = ["--ssh", "ssh -F /dev/null"];
    crate::support::run::push(small(dir.path()), &to, &options)
        .exits(5)
        .says("the host does not answer")
        .says("retry: ");
}

#[test]
fn what_the_runtime_refuses_is_told_in_words() {
    let dir = TempDir::new().expect("a folder");
    let image = small(dir.path());
    let denied =
        "echo 'permission denied while trying to connect to the Docker daemon socket' >&2; exit 1";
    let sshd = Sshd::with_programs(dir.path(), &[("docker", denied)]);
    let push =
        |sshd: &Sshd, options: &[&str]| sshd.pushimg().push(&image, "ssh://lab/app:v1", options);
    push(&sshd, &["--runtime", "docker"])
        .exits(4)
        .says("the runtime does not answer: permission denied")
        .says("--remote-sudo");
    push(&sshd, &["--runtime", "k3s"]).exits(4).says("found no k3s");
    let full = docker_that("cat >/dev/null; echo 'write /x: no space left on device' >&2; exit 1");
    let sshd = Sshd::with_programs(dir.path(), &[("docker", &full)]);
    push(&sshd, &["--runtime", "docker"])
        .exits(1)
        .says("docker did not take the image")
        .says("no space left on device")
        .says("the disk there is full");
    // It does not read the archive to its end.
    let early = docker_that("head -c 10 >/dev/null; echo 'it is broken' >&2; exit 1");
    let sshd = Sshd::with_programs(dir.path(), &[("docker", &early)]);
    push(&sshd, &["--runtime", "docker"]).exits(1).says("it is broken");
    let other = docker_that("cat >/dev/null").replace("sha256:00", &sha256(b"another"));
    let sshd = Sshd::with_programs(dir.path(), &[("docker", &other)]);
    push(&sshd, &["--runtime", "docker"]).exits(1).says("the image there is sha256:");
}

#[test]
fn sudo_is_used_where_it_is_asked_for() {
    let dir = TempDir::new().expect("a folder");
    let sudo = format!("shift; echo \"$@\" >> {0}/called; exec \"$@\"", dir.path().display());
    let docker = docker_that("cat >/dev/null");
    let sshd = Sshd::with_programs(dir.path(), &[("sudo", &sudo), ("docker", &docker)]);
    let image = small(dir.path());
    sshd.pushimg().pushed(image, "ssh://lab/app:v1", &["--runtime", "docker", "--remote-sudo"]);
    let called = std::fs::read_to_string(dir.path().join("called")).expect("calls of sudo");
    assert!(called.lines().any(|line| line == "docker load"), "{called}");
}

#[test]
fn an_archive_without_layers_that_is_refused_is_sent_whole() {
    let dir = TempDir::new().expect("a folder");
    let built = image("whole", "x");
    let image = built.write(dir.path(), "image.tar");
    let config: serde_json::Value = serde_json::from_slice(&built.config()).expect("a config");
    let ids = config["rootfs"]["diff_ids"].to_string();
    // This runtime claims to have all layers, but accepts only an archive that contains them all.
    let docker = format!(
        "case $1.$2 in load.) tar t > {0}/list; test $(grep -c layer.tar {0}/list) = 4 || \
         {{ echo 'a layer is missing' >&2; exit 1; }};; image.ls) echo x;; image.inspect) \
         case $4 in *json*) echo '{ids}';; esac;; esac",
        dir.path().display()
    );
    let sshd = Sshd::with_programs(dir.path(), &[("docker", &docker)]);
    let pushed = sshd.pushimg().pushed(image, "ssh://lab/app:v1", &["--runtime", "docker"]);
    pushed
        .says("a layer is missing")
        .says("the whole image is sent")
        .says("4 of 4 layers uploaded");
}

#[test]
fn a_lost_connection_is_begun_again_and_then_given_up() {
    let dir = TempDir::new().expect("a folder");
    let image = small(dir.path());
    // The server's process for this connection is the parent of the script's shell.
    let lost = "kill -9 $(ps -o ppid= -p $PPID); sleep 5";
    let once = format!(
        "test -e {0}/lost || {{ touch {0}/lost; {lost}; }}; cat >/dev/null",
        dir.path().display()
    );
    let sshd = Sshd::with_programs(dir.path(), &[("docker", &docker_that(&once))]);
    let options = ["--runtime", "docker"];
    sshd.pushimg().pushed(&image, "ssh://lab/app:v1", &options).says("the connection was lost");
    let sshd = Sshd::with_programs(dir.path(), &[("docker", &docker_that(lost))]);
    sshd.pushimg().push(&image, "ssh://lab/app:v1", &options).exits(5).says("push it again");
}

#[test]
fn a_push_that_is_killed_leaves_no_image_on_the_machine() {
    let dir = TempDir::new().expect("a folder");
    let load = format!("touch {}/loaded", dir.path().display());
    let sshd = Sshd::with_programs(dir.path(), &[("docker", &docker_that(&load))]);
    let slowly = "import sys, time\nwhile part := sys.stdin.buffer.read1(65536):\n    \
                  sys.stdout.buffer.write(part)\n    sys.stdout.buffer.flush()\n    time.sleep(.02)";
    let script = format!("#!/bin/sh\npython3 -c '{slowly}' | {} \"$@\"\n", sshd.ssh());
    let slow_ssh = executable(dir.path(), "slow-ssh", &script);
    let image =
        ImageBuilder::new(vec![Layer::random("big", 1, 20_000_000)]).write(dir.path(), "image.tar");
    let arguments =
        [text(&image), "ssh://lab/app:v1", "-q", "--runtime=docker", "--ssh", &slow_ssh];
    let pushimg = sshd.pushimg();
    let mut push = pushimg.command(arguments).spawn().expect("start pushimg");
    wait_for("nothing has arrived", || !sshd.kept().is_empty());
    push.kill().expect("kill -9");
    push.wait().expect("its end");
    wait_for("a part is left", || sshd.kept().is_empty());
    assert!(!dir.path().join("loaded").exists());
}

#[test]
fn what_has_arrived_is_not_sent_again() {
    let dir = TempDir::new().expect("a folder");
    let shown = dir.path().display();
    let docker = docker_that(&format!("cat > {shown}/loaded"));
    let built = ImageBuilder::new(vec![Layer::random("big", 1, 40_000_000)]);
    let image = built.write(dir.path(), "image.tar");
    let config: serde_json::Value = serde_json::from_slice(&built.config()).expect("a config");
    let diff_id = config["rootfs"]["diff_ids"][0].as_str().expect("a diff ID");
    for compression in ["gzip", "none"] {
        let sshd = Sshd::with_programs(dir.path(), &[("docker", &docker)]);
        // Parts that are older than a day are deleted, and nothing else: the machine may have a
        // cache of its own.
        let (own, part) =
            (sshd.dir().join("cache/pushimg"), sshd.dir().join("cache/pushimg-incoming"));
        for folder in [&own, &part] {
            std::fs::create_dir_all(folder).expect("a folder");
            let file = folder.join("cache.sqlite");
            std::fs::write(&file, "x").expect("a file");
            program("touch", ["-d", "3 days ago", text(&file)]);
        }
        // The first connection ends early. For the second one, `tee` records the bytes.
        let script = format!(
            "#!/bin/sh\nif mkdir {shown}/lost-{compression}; then head -c 25000000 | {0} \"$@\"\n\
             else tee {shown}/again | {0} \"$@\"; fi\n",
            sshd.ssh()
        );
        let lossy = executable(dir.path(), "lossy-ssh", &script);
        let ssh = ["--ssh", &lossy, "--runtime", "docker", "-v"];
        let options = [&ssh[..], &["--compression", compression]].concat();
        sshd.pushimg()
            .pushed(&image, "ssh://lab/app:v1", &options)
            .says("the connection was lost")
            .says("bytes of the archive are there already");
        let again = std::fs::metadata(dir.path().join("again")).expect("the second connection");
        assert!((15_000_000..16_500_000).contains(&again.len()), "{}", again.len());
        let loaded = dir.path().join("loaded");
        let layer = diff_id.replace("sha256:", "") + "/layer.tar";
        let listed = program("tar", ["-tf", text(&loaded)]);
        assert!(listed.lines().any(|line| line == layer), "{listed}");
        program("tar", ["-C", &shown.to_string(), "-xf", text(&loaded)]);
        let bytes = std::fs::read(dir.path().join(&layer)).expect("the layer");
        assert_eq!(sha256(&bytes), diff_id);
        assert_eq!(sshd.kept(), Vec::<PathBuf>::new());
        assert!(own.join("cache.sqlite").exists());
    }
}

#[test]
fn what_was_kept_is_not_used_if_it_is_damaged() {
    let dir = TempDir::new().expect("a folder");
    let shown = dir.path().display();
    let docker = docker_that(&format!("cat > {shown}/loaded"));
    let sshd = Sshd::with_programs(dir.path(), &[("docker", &docker)]);
    let image =
        ImageBuilder::new(vec![Layer::random("big", 1, 20_000_000)]).write(dir.path(), "image.tar");
    // The first connection ends early.
    let script = format!(
        "#!/bin/sh\nif mkdir {shown}/lost; then head -c 12000000 | {0} \"$@\"\nelse exec {0} \"$@\"; fi\n",
        sshd.ssh()
    );
    let lossy = executable(dir.path(), "lossy-ssh", &script);
    let push = |options: &[&str]| {
        let all = [&["--runtime", "docker", "--ssh", &lossy], options].concat();
        sshd.pushimg().push(&image, "ssh://lab/app:v1", &all)
    };
    push(&["--retry-for", "0s"]).exits(5).says("the connection was lost");
    let kept = sshd.kept();
    let [kept] = &kept[..] else { panic!("{kept:?}") };
    let mut bytes = std::fs::read(kept).expect("what is kept");
    bytes[5_000_000] ^= 1;
    std::fs::write(kept, bytes).expect("damage");
    push(&["-v"])
        .success()
        .says("bytes of the archive are there already")
        .says("what was kept of the archive there is damaged; it is sent from the start");
    let layer = program("tar", ["-tf", &format!("{shown}/loaded")]);
    assert!(layer.contains("layer.tar"), "{layer}");
    assert_eq!(sshd.kept(), Vec::<PathBuf>::new());
}

#[test]
fn a_runtime_that_hangs_or_is_another_one_is_passed_over() {
    let dir = TempDir::new().expect("a folder");
    let docker = "echo 'Emulate Docker CLI using podman.'; echo 'Client: Podman Engine'";
    let podman = docker_that("cat >/dev/null");
    let programs = [("docker", docker), ("podman", &podman)];
    let sshd = Sshd::with_programs(dir.path(), &programs);
    let image = small(dir.path());
    sshd.pushimg()
        .pushed(&image, "ssh://lab/app:v1", &["-v"])
        .says("podman there has 0 of the image's layers");
    sshd.pushimg()
        .push(&image, "ssh://lab/app:v1", &["--runtime", "docker"])
        .exits(4)
        .says("docker is podman there: use --runtime podman");
    // The limit of 20 seconds is shortened here.
    let limit = "shift; exec /usr/bin/timeout 1 \"$@\"";
    let programs = [("docker", "sleep 60"), ("podman", &podman), ("timeout", limit)];
    let sshd = Sshd::with_programs(dir.path(), &programs);
    sshd.pushimg()
        .pushed(&image, "ssh://lab/app:v1", &["-v"])
        .says("podman there has 0 of the image's layers");
}

#[test]
fn a_login_without_a_shell_is_refused_at_once() {
    let dir = TempDir::new().expect("a folder");
    let script = "#!/bin/sh\necho 'This account is currently not available.'; exit 1\n";
    let ssh = executable(dir.path(), "ssh", script);
    let sshd = Sshd::start(&[]);
    sshd.pushimg()
        .push(small(dir.path()), "ssh://lab/app:v1", &["--ssh", &ssh])
        .exits(4)
        .says("the login shell there did not run the script")
        .says("This account is currently not available.");
}

#[test]
fn a_disk_that_is_full_is_named_and_freed() {
    if program("id", ["-u"]).trim() != "0" {
        eprintln!("note: a small disk needs root, so this test ends");
        return;
    }
    let dir = TempDir::new().expect("a folder");
    let sshd = Sshd::with_programs(dir.path(), &[("docker", &docker_that("cat >/dev/null"))]);
    let cache = sshd.dir().join("cache");
    std::fs::create_dir_all(&cache).expect("a folder");
    let shown = cache.to_str().expect("a path");
    let small = ["-t", "tmpfs", "-o", "size=10m", "none", shown];
    if !Command::new("mount").args(small).status().is_ok_and(|status| status.success()) {
        eprintln!("note: nothing can be mounted here, so this test ends");
        return;
    }
    let image =
        ImageBuilder::new(vec![Layer::random("big", 1, 20_000_000)]).write(dir.path(), "image.tar");
    let output = sshd.pushimg().push(image, "ssh://lab/app:v1", &["--runtime", "docker"]);
    let kept = sshd.kept();
    program("umount", [shown]);
    output.exits(1).says("No space left on device").says("the disk there is full");
    assert_eq!(kept, Vec::<PathBuf>::new());
}

#[test]
fn a_jump_host_of_the_configuration_is_used() {
    let dir = TempDir::new().expect("a folder");
    let docker = docker_that("cat >/dev/null");
    let (jump, host) = (Sshd::start(&[]), Sshd::with_programs(dir.path(), &[("docker", &docker)]));
    let config = |sshd: &Sshd, name: &str| {
        let text = std::fs::read_to_string(sshd.dir().join("config")).expect("a config");
        text.replace("Host lab", &format!("Host {name}"))
    };
    let text = format!("{}\n{} ProxyJump jump\n", config(&jump, "jump"), config(&host, "inner"));
    let file = dir.path().join("config");
    std::fs::write(&file, text).expect("a config");
    let ssh = format!("ssh -F {}", file.display());
    let options = ["--runtime", "docker", "--ssh", &ssh];
    host.pushimg().pushed(small(dir.path()), "ssh://inner/app:v1", &options);
    assert!(jump.log().contains("127.0.0.1"), "{}", jump.log());
}

/// Writes a script.
fn executable(dir: &Path, name: &str, script: &str) -> String {
    let path = crate::support::archive::write(dir, name, script.as_bytes());
    program("chmod", ["755", text(&path)]);
    text(&path).to_owned()
}

fn wait_for(what: &str, is_so: impl Fn() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < Duration::from_secs(30), "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_damaged_image_is_not_taken() {
    let dir = TempDir::new().expect("a folder");
    let load = format!("tar t > {}/list", dir.path().display());
    let sshd = Sshd::with_programs(dir.path(), &[("docker", &docker_that(&load))]);
    let mut bytes = image("damaged", "x").tar();
    let at = bytes.windows(7).position(|part| part == b"damaged").expect("a layer");
    bytes[at + 2000] ^= 1;
    let image = crate::support::archive::write(dir.path(), "image.tar", &bytes);
    let options = ["--runtime", "docker"];
    sshd.pushimg()
        .push(image, "ssh://lab/app:v1", &options)
        .exits(3)
        .says("but the image's config lists");
    let list = std::fs::read_to_string(dir.path().join("list")).unwrap_or_default();
    assert!(!list.contains("manifest.json"), "{list}");
}

#[test]
fn a_dry_run_sends_nothing_and_says_what_it_would() {
    let dir = TempDir::new().expect("a folder");
    let load = format!("touch {}/loaded", dir.path().display());
    let sshd = Sshd::with_programs(dir.path(), &[("docker", &docker_that(&load))]);
    let image = small(dir.path());
    let options = ["--runtime", "docker", "--dry-run"];
    let output = sshd.pushimg().pushed(image, "ssh://lab/app:v1", &options);
    assert_eq!(output.stdout, "");
    output.says("would upload 4 of 4 layers");
    assert!(!dir.path().join("loaded").exists());
}

#[test]
fn of_an_index_the_image_for_the_machine_is_sent() {
    let dir = TempDir::new().expect("a folder");
    let docker = docker_that("cat >/dev/null");
    let machine = "echo aarch64";
    let sshd = Sshd::with_programs(dir.path(), &[("docker", &docker), ("uname", machine)]);
    let write = |architecture: &str| {
        image(architecture, "x").architecture(architecture).write(dir.path(), architecture)
    };
    let [amd64, arm64] = ["amd64", "arm64"].map(|name| format!("{name}={}", write(name).display()));
    let arguments =
        ["--runtime", "docker", "--json", "--index", "ssh://lab/app:v1", &amd64, &arm64];
    let report = sshd.pushimg().run(arguments).success().json();
    assert_eq!(report["platform"], "linux/arm64");
    // The platform that is given must be that of the image.
    let wrong = amd64.replace("amd64=", "arm64=");
    let arguments = ["--runtime", "docker", "--index", "ssh://lab/app:v1", &wrong];
    sshd.pushimg()
        .run(arguments)
        .exits(2)
        .says("is an image for linux/amd64, not for linux/arm64; was the wrong image given?");
    let alone = write("riscv64");
    let options = ["--runtime", "docker"];
    sshd.pushimg()
        .pushed(alone, "ssh://lab/app:v1", &options)
        .says("warning: the image is for linux/riscv64, and ssh://lab is linux/arm64");
}

#[test]
fn several_images_go_to_registries_and_machines_in_one_run() {
    let dir = TempDir::new().expect("a folder");
    let sshd = Sshd::with_programs(dir.path(), &[("docker", &docker_that("cat >/dev/null"))]);
    let registry = crate::support::DockerRegistry::plain();
    let image = small(dir.path());
    let pair = |to: &str| format!("{}={to}", image.display());
    let there = format!("{}/app:v1", registry.host());
    let arguments =
        [pair("ssh://lab/one:v1"), pair(&there), pair("ssh://lab/two"), "--runtime=docker".into()];
    let output = sshd.pushimg().run(arguments).success();
    let lines: Vec<&str> = output.stdout.lines().collect();
    assert_eq!(lines.len(), 3);
    assert!(
        lines[0].starts_with("one@sha256:") && lines[2].starts_with("two@sha256:"),
        "{lines:?}"
    );
}
