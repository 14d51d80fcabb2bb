//! A push is killed with SIGKILL at any moment, and a second push runs to its end. The registry
//! never shows half an image, the second push finds the blobs that the first one uploaded, and no
//! temporary file stays.
//!
//! Twenty kills by default, two hundred with `PUSHIMG_TEST_FULL=1`.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use crate::support::archive::{ImageBuilder, Layer};
use crate::support::proxy::*;
use crate::support::pull::{self, Remote};
use crate::support::registry::{self, DevRegistry};
use crate::support::run::Pushimg;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tempfile::TempDir;

const TAG: &str = "latest";

fn seed() -> u64 {
    match std::env::var("PUSHIMG_KILL_SEED") {
        Ok(seed) => seed.parse().expect("a number in PUSHIMG_KILL_SEED"),
        Err(_) => rand::random(),
    }
}

/// The layers of the n-th version. The first two layers are the same in every version.
fn version(n: u64) -> ImageBuilder {
    ImageBuilder::new(vec![
        Layer::text("base-1.0", 1, 400_000),
        Layer::random("lib-1.0", 2, 300_000),
        Layer::random("assets-1.0", 1000 + n, 700_000),
        Layer::random("app-1.0", 2000 + n, 400_000),
        Layer::text("etc-1.0", 3000 + n, 200_000),
    ])
}

/// Blobs whose PUT was answered with 201.
fn stored(proxy: &FaultProxy) -> HashSet<String> {
    let records = proxy.records();
    let puts = records.iter().filter(|r| r.step == Step::UploadPut && r.status == Some(201));
    puts.filter_map(|r| Some(r.target.split_once("digest=")?.1.replace("%3A", ":"))).collect()
}

#[test]
fn a_push_that_is_killed_leaves_nothing_half_made_and_the_next_goes_on_from_there() {
    let full = std::env::var_os("PUSHIMG_TEST_FULL").is_some_and(|value| value == "1");
    let rounds = if full { 200 } else { 20 };
    let seed = seed();
    println!("PUSHIMG_KILL_SEED={seed}");
    let mut chance = StdRng::seed_from_u64(seed);
    let dir = TempDir::new().expect("a folder");
    let registry = DevRegistry::start(registry::Options::default());
    // The line is so slow that a kill can hit every stage of a push.
    let line = Line { rtt: Duration::from_millis(4), bits_per_second: Some(120_000_000) };
    let proxy = FaultProxy::start(registry.addr(), &ProxyOptions { line, ..Default::default() });
    let name = format!("{}/app:{TAG}", proxy.host());
    let machine = Pushimg::new();

    let first = version(0).write(dir.path(), "0.tar");
    let began = Instant::now();
    machine.run([first.display().to_string(), name.clone()]).success();
    let usual = began.elapsed();

    let (mut killed, mut late, mut found) = (0, 0, 0);
    for round in 1..=rounds {
        let image = version(round);
        let archive = if chance.random_bool(0.5) {
            image.write(dir.path(), "next.tar")
        } else {
            image.write_gz(dir.path(), "next.tar")
        };
        let before = registry.tag("app", TAG);
        proxy.clear();
        let mut child = machine.spawn([archive.display().to_string(), name.clone()]);
        std::thread::sleep(usual.mul_f64(chance.random_range(0.0..1.1)));
        child.kill().expect("kill -9");
        let output = child.wait_with_output().expect("its end");
        if output.status.success() {
            late += 1
        } else {
            killed += 1
        }

        let after = registry.tag("app", TAG);
        let spool: Vec<_> =
            std::fs::read_dir(machine.home().join("tmp")).expect("TMPDIR").flatten().collect();
        assert!(spool.is_empty(), "seed {seed}, round {round}: left in TMPDIR: {spool:?}");
        if after != before {
            // It had put the manifest, so the image must be complete.
            pull::assert_same_image(&archive, registry.addr(), "app", TAG);
        }

        let known = stored(&proxy);
        proxy.clear();
        machine.run([archive.display().to_string(), name.clone()]).success();
        pull::assert_same_image(&archive, registry.addr(), "app", TAG);
        let again: Vec<_> = stored(&proxy).intersection(&known).cloned().collect();
        assert!(again.is_empty(), "seed {seed}, round {round}: sent again: {again:?}");
        found += known.len();
    }
    pull::skopeo(Remote::new(registry.addr()), "app", TAG);
    println!("{killed} killed, {late} ended before; {found} blobs were found again");
    assert!(killed >= rounds / 3, "seed {seed}: the moments are badly chosen: {killed} killed");
}
