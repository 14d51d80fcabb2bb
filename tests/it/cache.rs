//! The local cache makes pushes faster and changes nothing else, even when it is damaged or
//! missing.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::support::archive::{ImageBuilder, Layer, testdata};
use crate::support::proxy::{Fault, Record, Rule, Step};
use crate::support::pull;
use crate::support::registry::{DevRegistry, Options};
use crate::support::run::Pushimg;
use crate::support::{DockerRegistry, FaultProxy};
use serde_json::Value;
use tempfile::TempDir;

fn count(report: &Value, action: &str) -> usize {
    let layers = report["layers"].as_array().expect("layers");
    layers.iter().filter(|layer| layer["action"] == action || layer["why"] == action).count()
}

/// The cache's database on a machine.
fn database(machine: &Pushimg) -> PathBuf {
    let folder = machine.home().join("cache/pushimg");
    let files: Vec<_> = std::fs::read_dir(&folder).expect("the cache's folder").flatten().collect();
    files
        .into_iter()
        .map(|file| file.path())
        .find(|path| std::fs::read(path).is_ok_and(|bytes| bytes.starts_with(b"SQLite format 3\0")))
        .expect("a database")
}

#[test]
fn what_was_pushed_to_one_repository_is_mounted_into_the_next() {
    let registry = DockerRegistry::plain();
    let proxy = FaultProxy::before(registry.addr());
    let machine = Pushimg::new();
    machine.pushed_json(testdata("layered-v1.tar"), &format!("{}/one:v1", proxy.host()), &[]);
    for (repository, name) in [("two", "layered-v1.tar"), ("three", "layered-v1.tar.gz")] {
        proxy.clear();
        let destination = format!("{}/{repository}:v1", proxy.host());
        let report = machine.pushed_json(testdata(name), &destination, &[]).json();
        assert_eq!(count(&report, "mounted"), 6, "{report}");
        let layers = report["layers"].as_array().expect("layers");
        let body = proxy.body_bytes(Record::carries_blob);
        let config = pull::expected(&testdata(name), 0).config.len() as u64;
        assert!(body <= config, "{body} bytes\n{}", proxy.transcript());
        assert!(layers.iter().all(|layer| layer["from"].is_string()));
        let mounts = proxy.count(|r| r.is(Step::MountPost) && r.status == Some(201));
        assert!(mounts >= 6, "{}", proxy.transcript());
        pull::assert_same_image(&testdata(name), registry.host(), repository, "v1");
        assert_eq!(registry.open_uploads(repository), 0);
    }
}

#[test]
fn a_mount_from_where_the_blob_is_no_more_becomes_an_upload() {
    let registry = DevRegistry::start(Options::default());
    let machine = Pushimg::new();
    let archive = testdata("layered-v1.tar");
    machine.pushed_json(&archive, &format!("{}/one:v1", registry.host()), &[]);
    for layer in pull::oci(registry.host(), "one", "v1").layers {
        registry.remove_blob("one", &layer.digest);
    }
    let report = machine.pushed_json(&archive, &format!("{}/two:v1", registry.host()), &[]).json();
    assert_eq!(count(&report, "uploaded"), 6);
    pull::assert_same_image(&archive, registry.host(), "two", "v1");
    assert_eq!(registry.open_uploads(), 0);
}

#[test]
fn where_the_registry_tells_nothing_the_cache_does() {
    let registry = DockerRegistry::plain();
    let proxy = FaultProxy::before(registry.addr());
    let machine = Pushimg::new();
    let archive = testdata("layered-v1.tar.gz");
    let first = machine.pushed_json(&archive, &format!("{}/app:v1", proxy.host()), &[]).json();
    proxy.clear();
    // Neither `v2` nor `latest` exists, so there is no previous image; only the cache knows the
    // layers.
    let second = machine.pushed_json(&archive, &format!("{}/app:v2", proxy.host()), &[]).json();
    assert_eq!(count(&second, "cache"), 6, "{second}");
    assert_eq!(second["digest"], first["digest"]);
    assert_eq!(proxy.body_bytes(Record::carries_blob), 0);
    assert_eq!(proxy.count_step(Step::ConfigGet), 0, "{}", proxy.transcript());
    // The cached blobs have another compression level. pushimg does not reuse them, because the
    // cache must not change the result.
    let options = ["--compression-level", "1", "--json"];
    let destination = format!("{}/app:v3", proxy.host());
    let arguments = [&[archive.to_str().unwrap(), &destination], &options[..]].concat();
    let with = machine.run(&arguments).success().json();
    assert_eq!(count(&with, "cache"), 0);
    let destination = format!("{}/fresh:v3", proxy.host());
    let arguments = [&[archive.to_str().unwrap(), &destination], &options[..]].concat();
    assert_eq!(Pushimg::new().run(&arguments).success().json()["digest"], with["digest"]);
}

#[test]
fn of_an_image_that_this_machine_left_under_the_tag_nothing_is_fetched() {
    let registry = DockerRegistry::plain();
    let proxy = FaultProxy::before(registry.addr());
    let machine = Pushimg::new();
    let archive = testdata("layered-v1.tar");
    let destination = format!("{}/same:v1", proxy.host());
    let first = machine.pushed_json(&archive, &destination, &[]).json();
    proxy.clear();
    let second = machine.pushed_json(&archive, &destination, &[]).json();
    assert_eq!(second["digest"], first["digest"]);
    assert_eq!(count(&second, "previous-image"), 6, "{second}");
    let steps: Vec<Step> = proxy.records().iter().map(|record| record.step).collect();
    assert_eq!(steps, [Step::ManifestGet], "{}", proxy.transcript());

    // Another machine moves the tag, so this machine's record of the tag is out of date.
    let other = Pushimg::new().pushed_json(testdata("layered-v2.tar"), &destination, &[]).json();
    assert_ne!(other["digest"], first["digest"]);
    proxy.clear();
    let third = machine.pushed_json(&archive, &destination, &[]).json();
    let fetched = [Step::ManifestGet, Step::ConfigGet].map(|step| proxy.count_step(step));
    assert_eq!(fetched, [1, 1], "{}", proxy.transcript());
    // The current image lists all layers but one; the cache knows that one.
    assert_eq!(count(&third, "previous-image"), 5, "{third}");
    assert_eq!(third["layers"][4]["why"], "cache", "{third}");
    assert_eq!(third["digest"], first["digest"]);
    assert_eq!(registry.tag("same", "v1").as_deref(), first["digest"].as_str());
    pull::assert_same_image(&archive, registry.host(), "same", "v1");
}

#[test]
fn with_the_cache_or_without_the_manifest_is_the_same() {
    let registry = DockerRegistry::plain();
    for (number, name) in
        ["layered-v1.tar", "layered-v1.tar.gz", "docker-save-v24.tar", "bazel-gzip-layers.tar"]
            .into_iter()
            .enumerate()
    {
        let machine = Pushimg::new();
        let archive = testdata(name);
        let digest = |place: &str, options: &[&str]| {
            let destination = format!("{}/{place}{number}:v1", registry.host());
            let arguments = [&[archive.to_str().unwrap(), &destination], options].concat();
            machine.run(arguments).success().digest()
        };
        let without = digest("without", &["--no-cache"]);
        assert!(!machine.home().join("cache/pushimg").exists(), "--no-cache writes none");
        let cold = digest("cold", &[]);
        let warm = digest("warm", &[]);
        let folder = machine.home().join("elsewhere");
        let elsewhere = digest("elsewhere", &["--cache-dir", folder.to_str().unwrap()]);
        assert!(folder.is_dir());
        assert_eq!([&cold, &warm, &elsewhere], [&without; 3], "{name}");
    }
}

#[test]
fn a_cache_that_cannot_be_used_fails_no_push() {
    let registry = DockerRegistry::plain();
    let archive = testdata("layered-v1.tar");
    let path = archive.to_str().expect("UTF-8");
    let expected = Pushimg::new()
        .run([path, &format!("{}/expected:v1", registry.host()), "--no-cache"])
        .success()
        .digest();
    type Spoil<'a> = (&'a str, &'a dyn Fn(&Path));
    let spoil: [Spoil; 5] = [
        ("random bytes", &|file| {
            std::fs::write(file, crate::support::archive::random_bytes(1, 100_000)).expect("write");
        }),
        ("cut in half", &|file| {
            let bytes = std::fs::read(file).expect("read");
            std::fs::write(file, &bytes[..bytes.len() / 2]).expect("write");
        }),
        ("damaged pages", &|file| {
            let mut bytes = std::fs::read(file).expect("read");
            for byte in bytes.iter_mut().skip(200) {
                *byte ^= 0x5a;
            }
            std::fs::write(file, bytes).expect("write");
        }),
        ("of a newer version", &|file| {
            let database = rusqlite::Connection::open(file).expect("a database");
            database.pragma_update(None, "user_version", 1_000_000).expect("a pragma");
        }),
        ("a folder", &|file| {
            std::fs::remove_file(file).expect("remove");
            std::fs::create_dir(file).expect("a folder");
        }),
    ];
    for (number, (name, spoil)) in spoil.into_iter().enumerate() {
        let machine = Pushimg::new();
        machine.pushed_json(&archive, &format!("{}/first{number}:v1", registry.host()), &[]);
        let file = database(&machine);
        for extra in ["-wal", "-shm"] {
            let mut beside = file.clone().into_os_string();
            beside.push(extra);
            // SQLite has already removed this file if the last process closed the database cleanly.
            let _ = std::fs::remove_file(beside);
        }
        spoil(&file);
        let kept = std::fs::read(&file).ok();
        for (place, expect_cache) in [("second", false), ("third", true)] {
            let repository = format!("{place}{number}");
            let output =
                machine.pushed_json(&archive, &format!("{}/{repository}:v1", registry.host()), &[]);
            assert_eq!(output.json()["digest"], expected, "{name}");
            let mounted = count(&output.json(), "mounted");
            assert!(expect_cache || mounted == 0, "{name}: {mounted} mounted");
            pull::assert_same_image(&archive, registry.host(), &repository, "v1");
        }
        if name == "of a newer version" {
            assert_eq!(std::fs::read(&file).ok(), kept, "a newer pushimg's file is left alone");
        }
    }
    // Cache folders that cannot be created: a file, a path below a file, and a path in /proc.
    let dir = TempDir::new().expect("a folder");
    let file = crate::support::archive::write(dir.path(), "file", b"");
    for folder in [file.as_path(), &file.join("below"), Path::new("/proc/self/none")] {
        let destination = format!("{}/nowhere:v1", registry.host());
        let arguments = [path, &destination, "--cache-dir", folder.to_str().unwrap(), "-v"];
        let output = Pushimg::new().run(arguments).success();
        assert_eq!(output.digest(), expected);
        output.says("cache");
    }
    // A machine without a home.
    let homeless = Pushimg::new().env("HOME", "/dev/null/home").env("XDG_CACHE_HOME", "");
    let destination = format!("{}/homeless:v1", registry.host());
    assert_eq!(homeless.run([path, &destination]).success().digest(), expected);
}

#[test]
fn processes_that_share_the_cache_do_not_disturb_each_other() {
    let registry = DockerRegistry::plain();
    let machine = Pushimg::new();
    let dir = TempDir::new().expect("a folder");
    let expected = Pushimg::new()
        .run([
            testdata("layered-v1.tar").to_str().unwrap(),
            &format!("{}/expected:v1", registry.host()),
            "--no-cache",
        ])
        .success()
        .digest();
    std::thread::scope(|scope| {
        for number in 0..6 {
            let (machine, registry, dir, expected) = (&machine, &registry, &dir, &expected);
            scope.spawn(move || {
                let own = ImageBuilder::new(vec![Layer::text("own", number * 1000, 20_000)]);
                let own = own.write(dir.path(), &format!("own{number}.tar"));
                for (archive, repository) in [
                    (testdata("layered-v1.tar"), format!("shared{}", number % 2)),
                    (own, format!("own{number}")),
                ] {
                    let destination = format!("{}/{repository}:v{number}", registry.host());
                    let output = machine.pushed_json(&archive, &destination, &[]);
                    if repository.starts_with("shared") {
                        assert_eq!(output.json()["digest"], **expected, "{output}");
                    }
                    let tag = format!("v{number}");
                    pull::assert_same_image(&archive, registry.host(), &repository, &tag);
                }
            });
        }
    });
    // The cache holds what all the processes learnt.
    let report = machine.pushed_json(
        testdata("layered-v1.tar.gz"),
        &format!("{}/later:v1", registry.host()),
        &[],
    );
    assert_eq!(count(&report.json(), "mounted"), 6, "{report}");
}

#[test]
fn a_process_that_was_killed_leaves_a_cache_that_works() {
    let registry = DevRegistry::start(Options::default());
    let proxy = FaultProxy::before(registry.addr());
    let machine = Pushimg::new();
    let archive = testdata("layered-v1.tar");
    for (number, step) in
        [Step::UploadPut, Step::ManifestPut, Step::BlobHead].into_iter().enumerate()
    {
        let hold = crate::support::proxy::Hold::Forever;
        let place = crate::support::proxy::Place::BeforeResponse;
        proxy.set_rules(vec![Rule::at(step, Fault::Stall { place, hold })]);
        proxy.clear();
        let destination = format!("{}/killed:v{number}", proxy.host());
        let mut child = machine.spawn([archive.to_str().unwrap(), &destination]);
        let began = std::time::Instant::now();
        while proxy.count_step(step) == 0 {
            assert!(began.elapsed() < Duration::from_secs(20), "{}", proxy.transcript());
            std::thread::sleep(Duration::from_millis(5));
        }
        child.kill().expect("kill -9");
        child.wait().expect("the end of it");
        proxy.heal();
    }
    let report =
        machine.pushed_json(&archive, &format!("{}/after:v1", registry.host()), &[]).json();
    assert_eq!(report["layers"].as_array().map(Vec::len), Some(6));
    pull::assert_same_image(&archive, registry.host(), "after", "v1");
    let report =
        machine.pushed_json(&archive, &format!("{}/later:v1", registry.host()), &[]).json();
    assert_eq!(count(&report, "mounted"), 6);
}

/// A file in the Nix store of this machine, removed at the end.
struct StorePath(PathBuf);

impl StorePath {
    fn of(archive: &Path) -> Option<Self> {
        let store = Path::new("/nix/store");
        std::fs::create_dir_all(store).ok()?;
        let id: String = (0..32).map(|_| char::from(b'a' + rand::random::<u8>() % 26)).collect();
        let path = store.join(format!("{id}-pushimg-test.tar.gz"));
        std::fs::copy(archive, &path).ok()?;
        Some(Self(path))
    }
}

impl Drop for StorePath {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
        // This fails, as it should, if the store holds anything else.
        let _ = std::fs::remove_dir("/nix/store");
    }
}

#[test]
fn an_image_in_the_nix_store_that_was_pushed_is_not_read_again() {
    let Some(image) = StorePath::of(&testdata("layered-v1.tar.gz")) else {
        eprintln!("not run: /nix/store cannot be written to by this user");
        return;
    };
    let registry = DockerRegistry::plain();
    let proxy = FaultProxy::before(registry.addr());
    let machine = Pushimg::new();
    let result = machine.home().join("result");
    std::os::unix::fs::symlink(&image.0, &result).expect("a link");
    let destination = format!("{}/store:v1", proxy.host());
    let first = machine.pushed_json(&result, &destination, &[]).json();
    proxy.clear();
    // Runs the push under strace; returns its output and strace's log of the files that it opened.
    let trace = |pushimg: &Pushimg| {
        let log = pushimg.home().join("opened");
        let program = env!("CARGO_BIN_EXE_pushimg");
        let script = format!(
            "exec strace -f -qq -e trace=openat,open -o {} {program} {} {destination} --json",
            log.display(),
            result.display()
        );
        let mut command = pushimg.command([""; 0]);
        let env: Vec<_> = command
            .get_envs()
            .filter_map(|(key, value)| Some((key.to_owned(), value?.to_owned())))
            .collect();
        command = std::process::Command::new("sh");
        command.args(["-c", &script]).env_clear().envs(env);
        let output = crate::support::run::finish(command, None, Duration::from_secs(60));
        (output, std::fs::read_to_string(log).unwrap_or_default())
    };
    let has_strace = std::process::Command::new("strace").arg("-V").output().is_ok();
    let second = if has_strace {
        let (output, opened) = trace(&machine);
        let output = output.success();
        let name = image.0.file_name().unwrap().to_str().unwrap();
        assert!(!opened.contains(name), "the image was opened:\n{opened}");
        output.json()
    } else {
        machine.pushed_json(&result, &destination, &[]).json()
    };
    assert_eq!(second["digest"], first["digest"]);
    assert_eq!(second["bytes_sent"], 0);
    assert_eq!(proxy.body_bytes(|_| true), 0);
    // Blobs that the registry has lost since then are read and sent again.
    let dev = DevRegistry::start(Options::default());
    let destination = format!("{}/store:v1", dev.host());
    machine.pushed_json(&result, &destination, &[]);
    let pulled = pull::oci(dev.host(), "store", "v1");
    dev.remove_blob("store", &pulled.layers[2].digest);
    let report = machine.pushed_json(&result, &format!("{}/store:v2", dev.host()), &[]).json();
    assert_eq!(count(&report, "uploaded"), 1, "{report}");
    pull::assert_same_image(&image.0, dev.host(), "store", "v2");
}
