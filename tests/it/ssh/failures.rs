//! `ssh://`: what is refused, lost, damaged or full is named, leaves nothing behind, and is resumed.

use std::path::PathBuf;
use std::process::Command;

use tempfile::TempDir;

use super::{docker_that, executable, image, small, wait_for};
use crate::support::archive::{ImageBuilder, Layer, sha256, text};
use crate::support::run::program;
use crate::support::sshd::Sshd;

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
