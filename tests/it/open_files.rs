//! A push does with few open files, however many layers wait for their upload.

use std::process::Command;

use crate::support::archive::{ImageBuilder, Layer};
use crate::support::run::Pushimg;
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
    let push = pushimg.command(pairs);
    let mut limited = Command::new("sh");
    limited.args(["-c", "ulimit -n 256 && exec \"$0\" \"$@\""]);
    limited.arg(push.get_program()).args(push.get_args()).env_clear();
    limited.envs(push.get_envs().filter_map(|(key, value)| Some((key, value?))));
    let output = limited.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    for (n, archive) in archives.iter().enumerate() {
        pull::assert_same_image(archive, registry.host(), &format!("service-{n}"), "v1");
    }
}
