//! A push does with few open files, however many layers wait for their upload.

use std::process::Command;
use std::time::Duration;

use crate::support::archive::{ImageBuilder, Layer};
use crate::support::registry::{DevRegistry, Options};
use crate::support::run::{Output, Pushimg, finish};
use crate::support::{DockerRegistry, pull};
use tempfile::TempDir;

const IMAGES: u64 = 12;
const LAYERS: u64 = 120;

#[test]
fn twelve_images_of_120_layers_arrive_with_256_open_files() {
    let registry = DockerRegistry::plain();
    let dir = TempDir::new().unwrap();
    let archives: Vec<_> = (0..IMAGES)
        .map(|image| {
            let layer = |n| Layer::random(&format!("layer-{image}-{n}"), 1000 * image + n, 2_000);
            ImageBuilder::new((0..LAYERS).map(layer).collect())
                .write(dir.path(), &format!("{image}.tar"))
        })
        .collect();
    let host = registry.host();
    let pushimg = Pushimg::new();
    let pairs = archives.iter().enumerate().map(|(n, archive)| {
        format!("{}={host}/service-{n}:v1", archive.to_str().expect("a path in UTF-8"))
    });
    limited(&pushimg.command(pairs), 256).success();
    for (n, archive) in archives.iter().enumerate() {
        pull::assert_same_image(archive, registry.host(), &format!("service-{n}"), "v1");
    }
}

/// Runs a command with a limit of open files.
fn limited(command: &Command, files: u32) -> Output {
    let mut limited = Command::new("sh");
    limited.args(["-c", &format!("ulimit -n {files} && exec \"$0\" \"$@\"")]);
    limited.arg(command.get_program()).args(command.get_args()).env_clear();
    limited.envs(command.get_envs().filter_map(|(key, value)| Some((key, value?))));
    finish(limited, None, Duration::from_secs(120))
}

#[test]
fn a_limit_that_leaves_too_few_files_is_named_with_what_raises_it() {
    let registry = DevRegistry::start(Options::default());
    let pushimg = Pushimg::new();
    let image = format!("{}/app:v1", registry.host());
    let inspect = pushimg.command(["inspect", &image, "--retry-for=0"]);
    for files in 6..16 {
        limited(&inspect, files).exits(1).says("Too many open files").says("ulimit -n");
    }
    // 32 files are enough: the command asks the registry, which does not have the image.
    limited(&inspect, 32).exits(4);
}
