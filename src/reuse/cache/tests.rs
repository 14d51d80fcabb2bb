use std::fs;
use std::io::{Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use rusqlite::Connection;
use tempfile::TempDir;

use super::*;
use crate::image::Compression;

const RECIPE: &str = "gzip default";

fn open(folder: &Path) -> Cache {
    Cache::open(&CacheLocation::Folder(folder.to_owned()))
}

fn sqlite(folder: &Path) -> Connection {
    Connection::open(file::database(folder)).unwrap()
}

fn digest(name: &str) -> Digest {
    Digest::of(name.as_bytes())
}

fn diff_id(name: &str) -> DiffId {
    digest(name).into()
}

/// The blob that is remembered for the [`diff_id`] with the same name.
fn blob(name: &str) -> Blob {
    Blob {
        digest: digest(&format!("blob of {name}")),
        size: name.len() as u64,
        compression: Compression::Gzip,
    }
}

fn image(name: &str, padding: usize) -> CachedImage {
    let layers = [diff_id(name), diff_id("base"), diff_id(name)];
    let config = format!(
        r#"{{"os":"linux","rootfs":{{"diff_ids":{}}},"padding":"{}"}}"#,
        serde_json::to_string(&layers).unwrap(),
        "x".repeat(padding),
    );
    CachedImage {
        names: vec![format!("{name}:latest")],
        config: Config::parse(config).unwrap(),
        layers: vec![1, 0, 1],
    }
}

/// Closes the cache, even if this takes long on a busy machine.
fn finish(mut cache: Cache) {
    cache.requests = None;
    let _ = cache.finished.recv();
}

async fn knows(cache: &Cache, name: &str) -> bool {
    let known = cache.blobs_of(RECIPE, &[diff_id(name)]).await;
    match known.get(&diff_id(name)) {
        Some(blobs) => {
            assert_eq!(blobs, &[blob(name)]);
            true
        }
        None => false,
    }
}

/// A folder with a cache that knows the layer `old`.
async fn filled() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let cache = open(folder.path());
    cache.remember_layer(RECIPE, diff_id("old"), blob("old"));
    assert!(knows(&cache, "old").await);
    assert_eq!(cache.problem(), None);
    finish(cache);
    folder
}

/// Opens the cache, and expects that it was replaced by an empty one and works.
async fn expect_made_anew(folder: &Path) {
    let mut cache = open(folder);
    assert!(!knows(&cache, "old").await);
    // If another test is just starting a program, the new process holds the lock until it executes
    // that program.
    for _ in 0..50 {
        if !cache.problem().is_some_and(|it| it.contains("another process has it open")) {
            break;
        }
        finish(cache);
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        cache = open(folder);
        assert!(!knows(&cache, "old").await);
    }
    cache.remember_layer(RECIPE, diff_id("new"), blob("new"));
    assert!(knows(&cache, "new").await, "{:?}", cache.problem());
    finish(cache);
    let cache = open(folder);
    assert!(knows(&cache, "new").await);
    assert_eq!(cache.problem(), None);
}

/// Opens the cache, and expects that it knows nothing, keeps nothing, and reports the reason.
async fn expect_nothing(folder: &Path, why: &str) {
    let cache = open(folder);
    cache.remember_layer(RECIPE, diff_id("new"), blob("new"));
    cache.remember_blobs("r.example", "app", &[digest("new")]);
    cache.remember_image("key", vec![image("app", 0)]);
    assert!(!knows(&cache, "new").await);
    let repositories = cache.repositories_of("r.example", &[digest("new")]).await;
    assert!(repositories.is_empty());
    assert!(cache.image("key").await.is_none());
    let problem = cache.problem().unwrap();
    assert!(problem.contains(why), "{problem}");
    let before = Instant::now();
    cache.close().await;
    assert!(before.elapsed() < CLOSE_TIMEOUT * 3);
}

#[tokio::test]
async fn what_is_remembered_is_known_in_the_next_run() {
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("deep/pushimg");
    let zstd = Blob { compression: Compression::Zstd, ..blob("zstd form") };

    let cache = open(&folder);
    cache.remember_layer(RECIPE, diff_id("a"), blob("a"));
    cache.remember_layer(RECIPE, diff_id("a"), zstd.clone());
    cache.remember_layer(RECIPE, diff_id("b"), blob("b"));
    cache.remember_blobs("r.example", "team/app", &[digest("x"), digest("y")]);
    cache.remember_blobs("other.example", "elsewhere", &[digest("x")]);
    cache.forget_blob("r.example", "team/app", &digest("y"));
    cache.remember_image("key", vec![image("one", 10), image("two", 0)]);
    finish(cache);

    let cache = open(&folder);
    let asked = [diff_id("a"), diff_id("b"), diff_id("c"), diff_id("a")];
    let known = cache.blobs_of(RECIPE, &asked).await;
    assert_eq!(known.len(), 2);
    assert_eq!(known[&diff_id("a")].len(), 2);
    assert!(known[&diff_id("a")].contains(&blob("a")));
    assert!(known[&diff_id("a")].contains(&zstd));
    assert_eq!(known[&diff_id("b")], [blob("b")]);

    let known = cache.repositories_of("r.example", &[digest("x"), digest("y")]).await;
    assert_eq!(known.len(), 1);
    assert_eq!(known[&digest("x")], ["team/app"]);

    let images = cache.image("key").await.unwrap();
    assert_eq!(images.len(), 2);
    for (found, made) in images.iter().zip([image("one", 10), image("two", 0)]) {
        assert_eq!(found.names, made.names);
        assert_eq!(found.config.bytes(), made.config.bytes());
        assert_eq!(found.config.diff_ids(), made.config.diff_ids());
    }
    assert!(cache.image("another key").await.is_none());
    assert_eq!(cache.problem(), None);
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&folder), 0o700);
    assert_eq!(mode(&file::database(&folder)), 0o600);
}

#[tokio::test]
async fn what_layers_were_made_of_and_configs_are_known_in_the_next_run() {
    let folder = tempfile::tempdir().unwrap();
    let key = |name: &str| LayerKey(digest(name));
    let config = image("app", 100).config;
    let cache = open(folder.path());
    cache.remember_made(key("a"), diff_id("a"));
    cache.remember_made(key("b"), diff_id("b"));
    cache.remember_made(key("two"), diff_id("one"));
    cache.remember_made(key("two"), diff_id("other"));
    cache.remember_config(&config);
    finish(cache);

    let cache = open(folder.path());
    let known = cache.made(&[key("a"), key("b"), key("two"), key("none"), key("a")]).await;
    // Two diff IDs for one key: neither is used.
    let wanted = HashMap::from([(key("a"), diff_id("a")), (key("b"), diff_id("b"))]);
    assert_eq!(known, wanted);
    assert_eq!(cache.config(config.digest()).await.unwrap().bytes(), config.bytes());
    assert!(cache.config(&digest("none")).await.is_none());
    finish(cache);

    // Rows that a disk error has changed are ignored.
    for damage in [
        "UPDATE made SET diff_id = 'sha256:' || replace(substr(diff_id, 8), 'a', 'b')",
        "UPDATE config SET config = CAST(replace(config, 'linux', 'minix') AS BLOB)",
    ] {
        sqlite(folder.path()).execute_batch(damage).unwrap();
    }
    let cache = open(folder.path());
    assert!(cache.made(&[key("a"), key("b")]).await.is_empty());
    assert!(cache.config(config.digest()).await.is_none());
    assert!(cache.blobs_of("made", &[diff_id("a")]).await.is_empty());
    assert!(cache.image(&format!("config {}", config.digest())).await.is_none());
    assert_eq!(cache.problem(), None);
}

#[tokio::test]
async fn a_disabled_cache_knows_nothing_and_has_no_problem() {
    let cache = Cache::disabled();
    cache.remember_layer(RECIPE, diff_id("a"), blob("a"));
    assert!(!knows(&cache, "a").await);
    assert_eq!(cache.problem(), None);
    cache.close().await;
}

#[test]
fn a_relative_cache_home_counts_as_none() {
    let path = |text: &str| Some(PathBuf::from(text));
    assert_eq!(user_folder(path("/c"), path("/h")), path("/c/pushimg"));
    for cache in [None, path(""), path("relative")] {
        assert_eq!(user_folder(cache, path("/h")), path("/h/.cache/pushimg"));
    }
    assert_eq!(user_folder(None, None), None);
    assert_eq!(user_folder(None, path("")), None);
}

#[tokio::test]
async fn the_latest_eight_repositories_of_a_blob_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    let cache = open(folder.path());
    for number in 0..12 {
        let repository = format!("app{number}");
        cache.remember_blobs("r.example", &repository, &[digest("x")]);
        // Stamps are in milliseconds.
        tokio::time::sleep(Duration::from_millis(3)).await;
    }
    let known = cache.repositories_of("r.example", &[digest("x")]).await;
    let expected: Vec<_> = (4..12).rev().map(|number| format!("app{number}")).collect();
    assert_eq!(known[&digest("x")], expected);
}

#[tokio::test]
async fn an_image_summary_of_more_than_8_mib_is_not_kept() {
    let folder = tempfile::tempdir().unwrap();
    let cache = open(folder.path());
    let half = 4 << 20;
    cache.remember_image("small", vec![image("a", half), image("b", half - 4096)]);
    cache.remember_image("big", vec![image("a", half), image("b", half)]);
    assert!(cache.image("small").await.is_some());
    assert!(cache.image("big").await.is_none());
    assert_eq!(cache.problem(), None);
}

#[tokio::test]
async fn random_bytes_in_place_of_the_file_are_replaced() {
    for length in [1, 100, 5000, 100_000] {
        let folder = filled().await;
        let noise: Vec<u8> = (0..length).map(|_| rand::random()).collect();
        fs::write(file::database(folder.path()), noise).unwrap();
        expect_made_anew(folder.path()).await;
    }
}

#[tokio::test]
async fn an_empty_file_is_replaced() {
    let folder = filled().await;
    fs::write(file::database(folder.path()), "").unwrap();
    expect_made_anew(folder.path()).await;
}

#[tokio::test]
async fn a_truncated_file_is_replaced() {
    for kept in [50, 4096, 10_000] {
        let folder = filled().await;
        let file = fs::File::options().write(true).open(file::database(folder.path())).unwrap();
        assert!(file.metadata().unwrap().len() > kept);
        file.set_len(kept).unwrap();
        expect_made_anew(folder.path()).await;
    }
}

#[tokio::test]
async fn damage_found_while_reading_has_the_file_made_anew() {
    let folder = filled().await;
    let mut file = fs::File::options().write(true).open(file::database(folder.path())).unwrap();
    // The header stays valid, so opening the file does not find the damage.
    let length = file.metadata().unwrap().len() as usize;
    file.seek(SeekFrom::Start(4096)).unwrap();
    file.write_all(&vec![0xa5; length - 4096]).unwrap();
    drop(file);

    let cache = open(folder.path());
    assert!(!knows(&cache, "old").await);
    let problem = cache.problem().unwrap();
    assert!(problem.contains("malformed"), "{problem}");
    cache.remember_layer(RECIPE, diff_id("new"), blob("new"));
    assert!(knows(&cache, "new").await);
}

#[tokio::test]
async fn tables_that_are_not_ours_have_the_file_made_anew() {
    let folder = filled().await;
    sqlite(folder.path()).execute_batch("DROP TABLE layer").unwrap();
    expect_made_anew(folder.path()).await;
}

#[tokio::test]
async fn a_file_of_an_older_version_is_replaced() {
    let folder = filled().await;
    sqlite(folder.path()).execute_batch("PRAGMA user_version = 0").unwrap();
    expect_made_anew(folder.path()).await;
}

#[tokio::test]
async fn a_file_of_a_newer_version_is_left_alone() {
    let folder = filled().await;
    sqlite(folder.path()).execute_batch("PRAGMA user_version = 1000000").unwrap();
    let before = fs::read(file::database(folder.path())).unwrap();
    expect_nothing(folder.path(), "newer pushimg").await;
    assert_eq!(fs::read(file::database(folder.path())).unwrap(), before);
}

#[tokio::test]
async fn another_programs_database_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    sqlite(folder.path()).execute_batch("CREATE TABLE theirs (precious TEXT)").unwrap();
    let before = fs::read(file::database(folder.path())).unwrap();
    expect_nothing(folder.path(), "another program").await;
    assert_eq!(fs::read(file::database(folder.path())).unwrap(), before);
}

#[tokio::test]
async fn a_folder_that_cannot_be_made_means_no_cache() {
    let parent = tempfile::tempdir().unwrap();
    let file = parent.path().join("file");
    fs::write(&file, "").unwrap();
    expect_nothing(&file, "no local cache").await;
    expect_nothing(&file.join("below"), "no local cache").await;

    let folder = parent.path().join("folder");
    fs::create_dir_all(file::database(&folder)).unwrap();
    expect_nothing(&folder, "not a file").await;
}

#[tokio::test]
async fn rows_that_a_disk_has_changed_are_not_believed() {
    let folder = filled().await;
    let cache = open(folder.path());
    cache.remember_image("key", vec![image("app", 0)]);
    cache.remember_blobs("r.example", "app", &[digest("x")]);
    assert!(cache.image("key").await.is_some());
    finish(cache);

    for damage in [
        "UPDATE layer SET size = size + 1",
        "UPDATE layer SET compression = 'zstd'",
        "UPDATE layer SET digest = 'sha256:' || replace(substr(digest, 8), 'a', 'b')",
        "UPDATE layer SET digest = 'nonsense', sum = NULL WHERE sum IS NOT NULL",
    ] {
        let _ = sqlite(folder.path()).execute_batch(damage);
        let cache = open(folder.path());
        let repaired = blob("old");
        assert!(cache.blobs_of(RECIPE, &[diff_id("old")]).await.is_empty(), "{damage}");
        cache.remember_layer(RECIPE, diff_id("old"), repaired.clone());
        let known = cache.blobs_of(RECIPE, &[diff_id("old")]).await;
        assert_eq!(known[&diff_id("old")], [repaired], "{damage}");
        finish(cache);
        if damage.contains("digest") {
            break;
        }
    }

    sqlite(folder.path())
        .execute_batch(
            "UPDATE image SET configs = CAST(replace(configs, 'linux', 'minix') AS BLOB);
             UPDATE blob_in SET repository = '../../' || repository;",
        )
        .unwrap();
    let cache = open(folder.path());
    assert!(cache.image("key").await.is_none());
    let known = cache.repositories_of("r.example", &[digest("x")]).await;
    assert!(known.is_empty());
    assert_eq!(cache.problem(), None);
}

#[tokio::test]
async fn values_of_any_type_in_any_column_are_survived() {
    let folder = filled().await;
    let cache = open(folder.path());
    cache.remember_image("key", vec![image("app", 0)]);
    cache.remember_blobs("r.example", "app", &[digest("x")]);
    finish(cache);
    for column in ["digest", "size", "compression", "sum", "used"] {
        for value in ["x'ff00ff'", "'text'", "-1", "1.5", "CAST(x'c328' AS TEXT)"] {
            sqlite(folder.path())
                .execute_batch(&format!(
                    "UPDATE layer SET {column} = {value};
                     UPDATE image SET sum = {value}, used = {value};
                     UPDATE blob_in SET repository = {value}, used = {value};"
                ))
                .unwrap();
            let cache = open(folder.path());
            let known = cache.blobs_of(RECIPE, &[diff_id("old")]).await;
            assert!(known.is_empty() || (column == "used" && known.len() == 1));
            assert!(cache.image("key").await.is_none());
            let known = cache.repositories_of("r.example", &[digest("x")]).await;
            // Two of these values could be the name of a repository.
            for repository in known.get(&digest("x")).into_iter().flatten() {
                assert!(["text", "1.5"].contains(&repository.as_str()), "{repository}");
            }
            assert_eq!(cache.problem(), None, "{column} {value}");
            finish(cache);
        }
    }
}

#[tokio::test]
async fn deleting_the_folder_of_an_open_cache_harms_neither_this_run_nor_the_next() {
    let folder = filled().await;
    let cache = open(folder.path());
    assert!(knows(&cache, "old").await);
    fs::remove_dir_all(folder.path()).unwrap();
    cache.remember_layer(RECIPE, diff_id("lost"), blob("lost"));
    let _ = knows(&cache, "lost").await;
    // The next run begins before this one ends.
    let next = open(folder.path());
    assert!(!knows(&next, "old").await);
    next.remember_layer(RECIPE, diff_id("new"), blob("new"));
    finish(cache);
    assert!(knows(&next, "new").await);
    finish(next);

    let cache = open(folder.path());
    assert!(knows(&cache, "new").await);
    assert_eq!(cache.problem(), None);
}

#[tokio::test]
async fn a_deleted_file_is_not_made_anew_while_another_process_uses_its_log() {
    let folder = filled().await;
    let cache = open(folder.path());
    cache.remember_layer(RECIPE, diff_id("lost"), blob("lost"));
    assert!(knows(&cache, "lost").await);
    fs::remove_file(file::database(folder.path())).unwrap();
    expect_nothing(folder.path(), "another process").await;
    finish(cache);
    expect_made_anew(folder.path()).await;
}

#[tokio::test]
async fn what_was_not_used_for_longest_is_forgotten_beyond_the_limits() {
    let folder = tempfile::tempdir().unwrap();
    let limits = || Limits { layers: 20, blobs: 30, images: 5, bytes: 300_000 };
    let limited = || Cache::open_folder(folder.path().to_owned(), limits());
    let cache = open(folder.path());
    for number in 0..1000 {
        let name = number.to_string();
        cache.remember_layer(RECIPE, diff_id(&name), blob(&name));
        cache.remember_blobs("r.example", "app", &[digest(&name)]);
        cache.remember_made(LayerKey(digest(&name)), diff_id(&name));
    }
    for number in 0..40 {
        let key = format!("key {number}");
        cache.remember_image(&key, vec![image("app", 100_000)]);
        cache.remember_config(&image(&key, 100_000).config);
    }
    finish(cache);
    let length = || fs::metadata(file::database(folder.path())).unwrap().len();
    let before = length();

    let count =
        |sql: &str| sqlite(folder.path()).query_row(sql, [], |row| row.get::<_, u64>(0)).unwrap();
    assert_eq!(count("PRAGMA auto_vacuum"), 2);

    // All rows get the same age. Then only the rows that are used below become newer.
    sqlite(folder.path())
        .execute_batch("UPDATE layer SET used = 1; UPDATE image SET used = 1")
        .unwrap();
    // On a busy machine, one run does not finish the deletion.
    for _ in 0..20 {
        let cache = limited();
        assert!(knows(&cache, "500").await);
        assert!(cache.image("key 20").await.is_some());
        finish(cache);
    }
    assert_eq!(count("SELECT count(*) FROM layer"), 20);
    assert_eq!(count("SELECT count(*) FROM blob_in"), 30);
    assert_eq!(count("SELECT count(*) FROM image"), 2);
    assert_eq!(count("SELECT count(*) FROM made"), 20);
    assert_eq!(count("SELECT count(*) FROM config"), 2);
    for table in ["layer", "made", "blob_in", "image", "config"] {
        assert_eq!(
            count(&format!("SELECT count(*) FROM {table}")),
            count(&format!("SELECT rows FROM tally WHERE name = '{table}'")),
        );
    }
    assert_eq!(
        count("SELECT sum(length(contents) + length(configs)) FROM image"),
        count("SELECT bytes FROM tally WHERE name = 'image'"),
    );
    assert_eq!(
        count("SELECT sum(length(config)) FROM config"),
        count("SELECT bytes FROM tally WHERE name = 'config'"),
    );
    assert!(length() < before / 4, "{before} -> {}", length());

    let cache = limited();
    assert!(knows(&cache, "500").await);
    assert!(cache.image("key 20").await.is_some());
    assert_eq!(cache.problem(), None);
}

#[tokio::test]
async fn a_run_that_learns_nothing_writes_nothing() {
    let folder = filled().await;
    let run = async || {
        let cache = open(folder.path());
        assert!(knows(&cache, "old").await);
        cache.remember_layer(RECIPE, diff_id("old"), blob("old"));
        cache.remember_blobs("r.example", "app", &[digest("x")]);
        cache.remember_image("key", vec![image("app", 0)]);
        finish(cache);
        fs::read(file::database(folder.path())).unwrap()
    };
    let first = run().await;
    assert_eq!(run().await, first);

    // A day later, the stamps are renewed.
    let stamps = "SELECT (SELECT min(used) FROM layer), (SELECT min(used) FROM image),
                         (SELECT min(used) FROM blob_in)";
    let read = |row: &rusqlite::Row<'_>| Ok([row.get(0)?, row.get(1)?, row.get(2)?]);
    let before: [i64; 3] = sqlite(folder.path()).query_row(stamps, [], read).unwrap();
    let day = 25 * 60 * 60 * 1000;
    sqlite(folder.path())
        .execute_batch(&format!(
            "UPDATE layer SET used = used - {day}; UPDATE image SET used = used - {day};
             UPDATE blob_in SET used = used - {day}"
        ))
        .unwrap();
    run().await;
    let after: [i64; 3] = sqlite(folder.path()).query_row(stamps, [], read).unwrap();
    assert!(after.iter().zip(before).all(|(after, before)| *after >= before));
}

/// Another process that runs a task of `child_process`.
fn child(task: &str, folder: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "reuse::cache::tests::child_process", "--ignored"])
        .env("CACHE_TEST_TASK", task)
        .env("CACHE_TEST_FOLDER", folder)
        .stdout(Stdio::null());
    command
}

fn integrity(folder: &Path) -> String {
    sqlite(folder).query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap()
}

/// Not a test: the tests below run it in separate processes.
#[tokio::test]
#[ignore = "run by other tests, in a process of its own"]
async fn child_process() {
    let (Ok(task), Some(folder)) = (
        std::env::var("CACHE_TEST_TASK"),
        std::env::var_os("CACHE_TEST_FOLDER").map(PathBuf::from),
    ) else {
        return;
    };
    let cache = open(&folder);
    let pid = std::process::id();
    match task.as_str() {
        "a run" => {
            for number in 0..50 {
                let name = format!("{pid} {number}");
                cache.remember_layer(RECIPE, diff_id(&name), blob(&name));
                cache.remember_layer(RECIPE, diff_id("shared"), blob("shared"));
                cache.remember_blobs("r.example", "app", &[digest(&name), digest("shared")]);
                cache.remember_image("shared", vec![image("shared", 1000)]);
                let _ = knows(&cache, &name).await;
                cache.forget_blob("r.example", "app", &digest("shared"));
            }
            let shared = cache.image("shared").await;
            assert!(shared.is_none_or(|images| images[0].names == ["shared:latest"]));
        }
        "write until killed" => {
            for number in 0.. {
                let name = format!("{pid} {number}");
                cache.remember_layer(RECIPE, diff_id(&name), blob(&name));
                cache.remember_image(&name, vec![image(&name, 20_000)]);
                let _ = knows(&cache, &name).await;
            }
        }
        "read only" => {
            assert!(knows(&cache, "old").await, "{:?}", cache.problem());
            cache.remember_layer(RECIPE, diff_id("new"), blob("new"));
            assert!(!knows(&cache, "new").await);
            assert!(knows(&cache, "old").await);
            assert!(cache.problem().unwrap().contains("read-only"));
        }
        "nothing to read" => {
            assert!(!knows(&cache, "old").await);
            assert!(cache.problem().is_some());
        }
        _ => panic!("unknown task {task}"),
    }
    cache.close().await;
}

#[tokio::test]
async fn eight_processes_at_once_lose_no_file_and_fail_no_run() {
    for round in 0..3 {
        let folder = tempfile::tempdir().unwrap();
        if round == 2 {
            // All processes find the file damaged.
            fs::write(file::database(folder.path()), [7; 9000]).unwrap();
        }
        let children: Vec<Child> =
            (0..8).map(|_| child("a run", folder.path()).spawn().unwrap()).collect();
        for mut child in children {
            assert!(child.wait().unwrap().success());
        }
        assert_eq!(integrity(folder.path()), "ok");
        let cache = open(folder.path());
        assert!(knows(&cache, "shared").await);
        assert_eq!(cache.problem(), None);
    }
}

#[tokio::test]
async fn being_killed_while_writing_costs_nothing_that_was_there() {
    let folder = filled().await;
    for round in 0..12 {
        let mut writers: Vec<Child> =
            (0..2).map(|_| child("write until killed", folder.path()).spawn().unwrap()).collect();
        tokio::time::sleep(Duration::from_millis(40 + 13 * round)).await;
        for writer in &mut writers {
            writer.kill().unwrap();
            writer.wait().unwrap();
        }
        let cache = open(folder.path());
        assert!(knows(&cache, "old").await, "{:?}", cache.problem());
        assert_eq!(cache.problem(), None);
        finish(cache);
        assert_eq!(integrity(folder.path()), "ok");
    }
    let layers: u32 = sqlite(folder.path())
        .query_row("SELECT count(*) FROM layer", [], |row| row.get(0))
        .unwrap();
    assert!(layers > 1, "the writers were killed before they wrote");
}

#[tokio::test]
async fn being_killed_while_the_file_is_made_costs_nothing() {
    for microseconds in (0..20).map(|step| step * 700) {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = child("write until killed", folder.path()).spawn().unwrap();
        let began = Instant::now();
        while !folder.path().join("cache.lock").exists() {
            assert!(began.elapsed() < Duration::from_secs(10));
            std::thread::yield_now();
        }
        std::thread::sleep(Duration::from_micros(microseconds));
        writer.kill().unwrap();
        writer.wait().unwrap();
        let cache = open(folder.path());
        cache.remember_layer(RECIPE, diff_id("new"), blob("new"));
        assert!(knows(&cache, "new").await, "{:?}", cache.problem());
        assert_eq!(cache.problem(), None);
    }
}

#[tokio::test]
async fn a_read_only_folder_is_read_and_not_written() {
    let parent = tempfile::tempdir().unwrap();
    // Copy the test program to a place where another user can run it, because root may write
    // everywhere.
    let program = parent.path().join("test");
    fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    let chmod = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode));
    chmod(parent.path(), 0o755).unwrap();
    chmod(&program, 0o755).unwrap();
    let is_root = std::os::unix::fs::MetadataExt::uid(&fs::metadata("/proc/self").unwrap()) == 0;
    let run = |task: &str, folder: &Path| {
        let template = child(task, folder);
        let mut command = Command::new(&program);
        command.args(template.get_args()).stdout(Stdio::null());
        for (name, value) in template.get_envs() {
            command.env(name, value.unwrap());
        }
        if is_root {
            command.uid(65534).gid(65534);
        }
        assert!(command.status().unwrap().success(), "{task}");
    };

    let folder = parent.path().join("cache");
    let cache = open(&folder);
    cache.remember_layer(RECIPE, diff_id("old"), blob("old"));
    finish(cache);
    for entry in fs::read_dir(&folder).unwrap() {
        chmod(&entry.unwrap().path(), 0o444).unwrap();
    }
    chmod(&folder, 0o555).unwrap();
    run("read only", &folder);
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 2);

    chmod(&folder, 0o755).unwrap();
    fs::remove_file(folder.join("cache.lock")).unwrap();
    chmod(&folder, 0o555).unwrap();
    run("read only", &folder);

    chmod(&file::database(&folder), 0o000).unwrap();
    run("nothing to read", &folder);

    chmod(&folder, 0o755).unwrap();
    fs::write(file::database(&folder), [7; 5000]).unwrap();
    chmod(&folder, 0o555).unwrap();
    run("nothing to read", &folder);
    chmod(&folder, 0o755).unwrap();
    assert_eq!(fs::read(file::database(&folder)).unwrap(), [7; 5000]);
}
