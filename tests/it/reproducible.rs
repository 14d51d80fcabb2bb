//! The same image gives the same manifest digest, from any kind of archive and on any machine.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::support::archive::{self, ImageBuilder, Layer, testdata};
use crate::support::registry::{DevRegistry, Options};
use crate::support::run::{Pushimg, finish};
use tempfile::TempDir;

/// Layers of several blocks of 1 MiB, so that the cores have to share them.
fn image() -> ImageBuilder {
    ImageBuilder::new(vec![
        Layer::text("text-1.0", 1, 5_300_000),
        Layer::random("noise-1.0", 2, 2_100_000),
        Layer::file("small-1.0", b"small"),
    ])
}

/// Pushes from a fresh machine into a repository of its own, on these cores.
fn digest(
    registry: &DevRegistry,
    repository: &str,
    archive: &Path,
    cores: Option<&str>,
    options: &[&str],
) -> String {
    let destination = format!("{}/{repository}:v1", registry.host());
    let machine = Pushimg::new();
    let arguments = [&[archive.to_str().expect("UTF-8"), &destination], options].concat();
    let Some(cores) = cores else {
        return machine.run(arguments).success().digest();
    };
    let plain = machine.command(&arguments);
    let mut pinned = Command::new("taskset");
    pinned.args(["-c", cores]).arg(plain.get_program()).args(plain.get_args()).env_clear();
    pinned.envs(plain.get_envs().filter_map(|(key, value)| Some((key, value?))));
    finish(pinned, None, Duration::from_secs(60)).success().digest()
}

#[test]
fn the_digest_does_not_depend_on_cores_or_jobs() {
    let registry = DevRegistry::start(Options::default());
    let dir = TempDir::new().expect("a folder");
    let archive = image().write(dir.path(), "image.tar");
    for compression in ["gzip", "zstd", "none"] {
        let options = ["--compression", compression];
        let repository = |what: &str| format!("{compression}/{what}");
        let all = digest(&registry, &repository("all"), &archive, None, &options);
        let one = digest(&registry, &repository("one"), &archive, Some("0"), &options);
        let serial = [&options[..], &["-j", "1"]].concat();
        let serial = digest(&registry, &repository("serial"), &archive, None, &serial);
        let wide = [&options[..], &["-j", "32", "--no-cache"]].concat();
        let wide = digest(&registry, &repository("wide"), &archive, None, &wide);
        assert_eq!([&one, &serial, &wide], [&all; 3], "{compression}");
    }
}

#[test]
fn the_digest_does_not_depend_on_what_the_archive_is_wrapped_in() {
    let registry = DevRegistry::start(Options::default());
    let dir = TempDir::new().expect("a folder");
    let image = image();
    let plain = image.write(dir.path(), "image.tar");
    let expected = digest(&registry, "plain", &plain, None, &[]);
    let gzip = image.write_gz(dir.path(), "image.tar.gz");
    assert_eq!(digest(&registry, "gzip", &gzip, None, &[]), expected);
    for (number, bytes) in [image.tar(), image.tar_gz()].into_iter().enumerate() {
        let destination = format!("{}/piped{number}:v1", registry.host());
        let output = Pushimg::new().stdin(bytes).run(["-", &destination]).success();
        assert_eq!(output.digest(), expected);
    }
}

#[test]
fn one_image_has_one_digest_whichever_program_saved_it() {
    let registry = DevRegistry::start(Options::default());
    let digests: Vec<String> = [
        "layered-v1.tar",
        "layered-v1.tar.gz",
        "layered-v1.tar.zst",
        "layered-v1.tar.xz",
        "layered-v1.tar.bz2",
        "docker-save-v24.tar",
        "docker-save-v25.tar",
        "podman-save.tar",
        "no-tag.tar",
    ]
    .iter()
    .enumerate()
    .map(|(number, name)| digest(&registry, &format!("n{number}"), &testdata(name), None, &[]))
    .collect();
    assert!(digests.iter().all(|digest| *digest == digests[0]), "{digests:#?}");
}

#[test]
fn the_digest_does_not_depend_on_the_day_or_the_place() {
    let registry = DevRegistry::start(Options::default());
    let dir = TempDir::new().expect("a folder");
    let archive = image().write(dir.path(), "image.tar");
    let first = digest(&registry, "day/one", &archive, None, &[]);
    let moved = archive::write(dir.path(), "other name", &std::fs::read(&archive).expect("read"));
    let old = Command::new("touch").args(["-d", "2001-01-01"]).arg(&moved).status();
    assert!(old.expect("start touch").success());
    let machine = Pushimg::new().env("TZ", "Asia/Kathmandu").env("LC_ALL", "tr_TR.UTF-8");
    let destination = format!("{}/day/two:v1", registry.host());
    let second = machine.run([moved.to_str().expect("UTF-8"), &destination]).success();
    assert_eq!(second.digest(), first);
}
