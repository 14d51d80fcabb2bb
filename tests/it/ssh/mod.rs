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

mod failures;
mod pulls;

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
