//! Pushes through random faults: each one succeeds and the image reads back whole, or it ends with
//! a documented exit code and the tag is as it was.
//!
//! Sixty pushes by default, a thousand with `PUSHIMG_TEST_FULL=1`. A failure prints the seed;
//! `PUSHIMG_SOAK_SEED` runs it again. The same faults strike if parallel requests come in the same
//! order.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::support::archive::{ImageBuilder, Layer};
use crate::support::proxy::*;
use crate::support::pull::{self, Remote};
use crate::support::registry::{self, DevRegistry};
use crate::support::run::Pushimg;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tempfile::TempDir;

const AT_ONCE: usize = 4;
const USER: &str = "pushimg";
const PASSWORD: &str = "correct horse";

fn seed() -> u64 {
    match std::env::var("PUSHIMG_SOAK_SEED") {
        Ok(seed) => seed.parse().expect("a number in PUSHIMG_SOAK_SEED"),
        Err(_) => rand::random::<u32>().into(),
    }
}

fn number_of_pushes() -> u64 {
    match std::env::var("PUSHIMG_TEST_FULL") {
        Ok(value) if value == "1" => 1000,
        _ => 60,
    }
}

/// An image of a few layers out of a stock that all images share.
fn image(chance: &mut StdRng) -> ImageBuilder {
    let layers = (0..chance.random_range(1..6))
        .map(|_| match chance.random_range(0..3) {
            0 => Layer::text("text", chance.random_range(0..8), 150_000),
            1 => Layer::random("random", chance.random_range(0..8), 80_000),
            // Long enough to be resumed.
            _ => Layer::random("big", chance.random_range(100..10_000), 1_300_000),
        })
        .collect();
    let mut image = ImageBuilder::new(layers);
    image.env.push(format!("N={}", chance.random_range(0..1_000_000)));
    image
}

/// One push; the error says what went wrong.
fn push(
    number: u64,
    seed: u64,
    proxy: &FaultProxy,
    registry: &DevRegistry,
    dir: &TempDir,
) -> Result<i32, String> {
    let mut chance = StdRng::seed_from_u64(seed.wrapping_mul(1_000_003).wrapping_add(number));
    let archive = image(&mut chance).write(dir.path(), &format!("{number}.tar"));
    let repository = format!("app{}", chance.random_range(0..3));
    let before = registry.tag(&repository, "latest");
    proxy.clear();
    // The line is bad or even hopeless.
    proxy.set_random(Some(Random::transient(chance.random(), chance.random_range(20..500))));
    let machine = Pushimg::new().login(&proxy.host(), USER, PASSWORD);
    let output = machine.run([
        archive.display().to_string(),
        format!("{}/{repository}:latest", proxy.host()),
        "--retry-for=3s".to_owned(),
        "--idle-timeout=2s".to_owned(),
    ]);
    proxy.heal();
    let after = registry.tag(&repository, "latest");
    let fail = |what: &str| Err(format!("push {number}: {what}\n{output}\n{}", proxy.transcript()));
    if output.timed_out || output.stderr.contains("panicked at") {
        return fail("it hung or panicked");
    }
    let code = output.code();
    match code {
        Some(0) => {
            let whole = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                let direct = Remote::new(registry.addr()).login(USER, PASSWORD);
                pull::assert_same_image(&archive, direct.clone(), &repository, "latest");
                if number.is_multiple_of(20) {
                    pull::skopeo(direct, &repository, "latest");
                }
            }));
            if whole.is_err() {
                return fail("the image is not whole");
            }
        }
        Some(4 | 5) if after == before => {}
        // The answer to the manifest PUT was lost, and so were the answers to all questions about
        // the tag.
        Some(5) if output.stderr.contains("it is not known whether the tag") => {}
        Some(4 | 5) => return fail("it failed, and the tag is not as it was"),
        _ => return fail("an exit code that is not documented for this"),
    }
    // The archive may be large in a thousand rounds.
    let _ = std::fs::remove_file(&archive);
    Ok(code.unwrap_or_default())
}

#[test]
fn pushes_through_random_faults_get_through_or_fail_cleanly() {
    let (seed, pushes) = (seed(), number_of_pushes());
    println!("PUSHIMG_SOAK_SEED={seed}");
    let began = Instant::now();
    let next = AtomicU64::new(0);
    let codes: Mutex<Vec<i32>> = Mutex::default();
    let failures: Mutex<Vec<String>> = Mutex::default();
    let struck = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                // One push at a time for each registry, because the test must know the tag before
                // the push.
                let auth = registry::bearer(USER, PASSWORD, Duration::from_secs(20));
                let registry = DevRegistry::start(registry::Options { auth, ..Default::default() });
                let proxy = FaultProxy::before(registry.addr());
                let dir = TempDir::new().expect("a folder");
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= pushes {
                        break;
                    }
                    let outcome = push(number, seed, &proxy, &registry, &dir);
                    struck.fetch_add(proxy.struck() as u64, Ordering::Relaxed);
                    match outcome {
                        Ok(code) => codes.lock().unwrap().push(code),
                        Err(what) => failures.lock().unwrap().push(what),
                    }
                }
            });
        }
    });
    let (codes, failures) = (codes.into_inner().unwrap(), failures.into_inner().unwrap());
    let with = |wanted: i32| codes.iter().filter(|code| **code == wanted).count();
    println!(
        "{pushes} pushes in {:.0} s through {} faults: {} pushed, {} refused (4), {} failed (5)",
        began.elapsed().as_secs_f64(),
        struck.into_inner(),
        with(0),
        with(4),
        with(5),
    );
    assert!(failures.is_empty(), "PUSHIMG_SOAK_SEED={seed}\n{}", failures.join("\n"));
    assert!(with(0) > 0, "PUSHIMG_SOAK_SEED={seed}: not one push got through");
}
