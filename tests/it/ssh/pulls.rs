//! `ssh://`: a runtime with a containerd store pulls through a forwarded port.

use tempfile::TempDir;

use super::{answers, image, sent, small, two_images, unique, wait_for};
use crate::support::archive::{ImageBuilder, sha256, text};
use crate::support::run::program;
use crate::support::sshd::Sshd;

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
