//! The steps of the GitHub action and the job of the GitLab template, with the variables that
//! GitHub and GitLab set.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use crate::support::archive::{sha256, testdata};
use crate::support::registry::{self, DevRegistry, Options};
use crate::support::run::{Output, finish, program};

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A runner's folders and a release with the program under test.
struct Runner {
    folder: TempDir,
}

impl Runner {
    fn new() -> Self {
        let folder = TempDir::new().expect("a folder");
        let release = folder.path().join("releases/v1.2.3");
        std::fs::create_dir_all(&release).expect("a folder");
        let asset = format!("pushimg-1.2.3-{}-unknown-linux-musl.tar.gz", std::env::consts::ARCH);
        let bin = Path::new(env!("CARGO_BIN_EXE_pushimg"));
        let asset_path = release.join(&asset);
        let (asset_text, bin) =
            (asset_path.to_str().expect("UTF-8"), bin.parent().expect("a folder"));
        program("tar", ["-czf", asset_text, "-C", bin.to_str().expect("UTF-8"), "pushimg"]);
        let digest = sha256(&std::fs::read(&asset_path).expect("an asset"));
        let line = format!("{}  {asset}\n", digest.trim_start_matches("sha256:"));
        std::fs::write(release.join(format!("{asset}.sha256")), line).expect("a checksum");
        Self { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    fn run(&self, mut command: Command, variables: &[(&str, &str)]) -> Output {
        let path = std::env::var("PATH").unwrap_or_default();
        command
            .env_clear()
            .env("PATH", format!("{}:{path}", self.path("pushimg/bin").display()))
            .env("HOME", self.folder.path())
            .env("RUNNER_TEMP", self.folder.path())
            .env("GITHUB_ACTION_PATH", repository())
            .env("GITHUB_PATH", self.path("path"))
            .env("GITHUB_OUTPUT", self.path("output"))
            .env("GITHUB_STEP_SUMMARY", self.path("summary"))
            .env("PUSHIMG_RELEASES", format!("file://{}", self.path("releases").display()))
            .envs(variables.iter().copied())
            .current_dir(self.folder.path());
        finish(command, None, Duration::from_secs(60))
    }

    fn step(&self, name: &str, variables: &[(&str, &str)]) -> Output {
        self.run(Command::new(repository().join("scripts/action").join(name)), variables)
    }
}

#[test]
fn the_action_installs_a_release_and_pushes() {
    let auth = registry::basic("me", "se cret");
    let registry = DevRegistry::start(Options { auth, ..Options::default() });
    let runner = Runner::new();
    let output = runner.step("install", &[("PUSHIMG_VERSION", "v1.2.3")]).success();
    assert!(output.stdout.starts_with("pushimg "), "{output}");
    assert_eq!(runner.read("path"), format!("{}\n", runner.path("pushimg/bin").display()));

    let image = testdata("layered-v1.tar");
    let destination = format!("{}/app:v1", registry.host());
    let output = runner
        .step(
            "push",
            &[
                ("IMAGE", image.to_str().expect("UTF-8")),
                ("DESTINATION", &destination),
                ("TAGS", "latest, v1.0\nstable"),
                ("OPTIONS", "--format\noci\n"),
                ("USERNAME", "me"),
                ("PASSWORD", "se cret"),
            ],
        )
        .success();
    let digest = output.digest();
    let pinned = format!("{}/app@{digest}", registry.host());
    assert_eq!(runner.read("output"), format!("image={pinned}\ndigest={digest}\n"));
    for tag in ["v1", "latest", "v1.0", "stable"] {
        assert_eq!(registry.tag("app", tag).as_ref(), Some(&digest), "{tag}");
    }
    assert!(runner.read("summary").contains(&digest), "{}", runner.read("summary"));
}

#[test]
fn the_action_installs_what_the_package_script_makes() {
    let runner = Runner::new();
    let target = format!("{}-unknown-linux-musl", std::env::consts::ARCH);
    let script = repository().join("scripts/package");
    let bin = env!("CARGO_BIN_EXE_pushimg");
    let script = script.to_str().expect("UTF-8");
    program("bash", [script, "--no-deb", "--target", &target, "--binary", bin]);
    let version = env!("CARGO_PKG_VERSION");
    let release = runner.path(&format!("releases/v{version}"));
    std::fs::create_dir_all(&release).expect("a folder");
    for file in std::fs::read_dir(repository().join("target/package")).expect("files").flatten() {
        std::fs::copy(file.path(), release.join(file.file_name())).expect("a copy");
    }
    let asset = release.join(format!("pushimg-{version}-{target}.tar.gz"));
    let listed = program("tar", ["-tzf", asset.to_str().expect("UTF-8")]);
    let files = ["pushimg\n", "man/pushimg-tag.1\n", "completions/_pushimg\n", "LICENSE-MIT\n"];
    assert!(files.iter().all(|file| listed.contains(file)), "{listed}");
    let output = runner.step("install", &[("PUSHIMG_VERSION", version)]).success();
    assert_eq!(output.stdout, format!("pushimg {version}\n"));
}

#[test]
fn a_release_with_a_wrong_checksum_or_none_is_not_installed() {
    let runner = Runner::new();
    let absent = runner.step("install", &[("PUSHIMG_VERSION", "9.9.9")]).exits(1);
    assert!(absent.stdout.contains("::error::cannot download"), "{absent}");
    let release = std::fs::read_dir(runner.path("releases/v1.2.3")).expect("a folder").flatten();
    for file in
        release.map(|entry| entry.path()).filter(|path| path.extension() == Some("gz".as_ref()))
    {
        let mut bytes = std::fs::read(&file).expect("an asset");
        bytes.push(0);
        std::fs::write(&file, bytes).expect("an asset");
    }
    let wrong = runner.step("install", &[("PUSHIMG_VERSION", "1.2.3")]).exits(1);
    assert!(wrong.stdout.contains("::error::the checksum of pushimg-1.2.3"), "{wrong}");
    assert_eq!(runner.read("path"), "");
    assert!(!runner.path("pushimg/bin/pushimg").exists());
}

#[test]
fn a_failed_push_fails_the_step() {
    let runner = Runner::new();
    runner.step("install", &[("PUSHIMG_VERSION", "1.2.3")]).success();
    let failed = runner.step("push", &[("IMAGE", "/no/such"), ("DESTINATION", "127.0.0.1:9/a")]);
    failed.exits(3);
    assert_eq!(runner.read("output"), "");
    assert!(runner.read("summary").contains("### Push failed"));
    let empty = runner.step("push", &[]);
    assert_ne!(empty.code(), Some(0));
    assert!(empty.stderr.contains("the input image is empty"), "{empty}");
}

#[test]
fn the_job_of_the_gitlab_template_pushes_with_gitlabs_variables() {
    let auth = registry::basic("gitlab-ci-token", "job token");
    let registry = DevRegistry::start(Options { auth, ..Options::default() });
    let runner = Runner::new();
    runner.step("install", &[("PUSHIMG_VERSION", "1.2.3")]).success();
    std::fs::copy(testdata("layered-v1.tar"), runner.path("result")).expect("an image");
    let template =
        std::fs::read_to_string(repository().join("docs/gitlab-ci.yml")).expect("a file");
    // The script is one plain scalar: a list item whose lines YAML joins with blanks.
    let script = template.split_once("  script:\n    - ").expect("a script").1;
    let script: Vec<_> =
        script.lines().take_while(|line| !line.starts_with("  artifacts")).map(str::trim).collect();
    let mut shell = Command::new("bash");
    shell.args(["-o", "pipefail", "-c", &script.join(" ")]);
    let project = format!("{}/group/app", registry.host());
    let variables = [
        ("IMAGE", "result"),
        ("CI_REGISTRY_USER", "gitlab-ci-token"),
        ("CI_REGISTRY_PASSWORD", "job token"),
        ("CI_REGISTRY_IMAGE", project.as_str()),
        ("CI_COMMIT_SHORT_SHA", "1a2b3c4d"),
        ("CI_COMMIT_REF_SLUG", "main"),
    ];
    let digest = runner.run(shell, &variables).success().digest();
    for tag in ["1a2b3c4d", "main"] {
        assert_eq!(registry.tag("group/app", tag).as_ref(), Some(&digest), "{tag}");
    }
    assert_eq!(runner.read("digest.txt"), format!("{digest}\n"));
}
