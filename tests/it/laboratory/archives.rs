//! Archives that tests make, and the time limit of the programs that they run.

use super::*;

#[test]
fn archives_are_the_same_plain_and_compressed_and_differ_where_told() {
    let dir = TempDir::new().expect("a folder");
    let one = ImageBuilder::new(vec![Layer::text("a", 1, 1000), Layer::random("b", 2, 1000)])
        .repo_tags(&["registry.example/app:v1"]);
    let two = one.clone().with_layer(1, Layer::random("b", 3, 1000));
    let plain = pull::expected(&one.write(dir.path(), "one.tar"), 0);
    let gzip = pull::expected(&one.write_gz(dir.path(), "one.tar.gz"), 0);
    let next = pull::expected(&two.write_gz(dir.path(), "two.tar.gz"), 0);
    assert_eq!(plain.config, gzip.config);
    assert_eq!(plain.diff_ids, gzip.diff_ids);
    assert_eq!(plain.repo_tags, ["registry.example/app:v1"]);
    assert_eq!(plain.diff_ids[0], next.diff_ids[0]);
    assert_ne!(plain.diff_ids[1], next.diff_ids[1]);
}

#[test]
fn a_program_past_its_time_limit_is_killed() {
    let mut command = std::process::Command::new("sleep");
    command.arg("30");
    let output = run::finish(command, None, Duration::from_millis(100));
    assert!(output.timed_out && output.code().is_none());
    assert!(output.took < Duration::from_secs(5));
}
