//! README and docs: their `pushimg` commands run as they are printed, against a registry on this
//! machine in place of the public ones, and their links lead somewhere.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::support::archive::{ImageBuilder, Layer, testdata};
use crate::support::registry::{DevRegistry, Options};
use crate::support::run::{Pushimg, finish};

/// Hosts in examples that the registry on this machine stands in for.
const HOSTS: &[&str] = &["registry.fly.io", "ghcr.io", "registry.example.com", "localhost:5000"];

/// The beginnings of commands that need the internet or build this repository.
const NOT_RUN: &[&str] = &[
    "cargo install",
    "cargo run",
    "cargo binstall",
    "cargo build",
    "PUSHIMG_WRITE_DOCS=1 cargo test",
    "nix build",
    "nix run",
    "nix profile",
    "scripts/",
    "curl ",
    "sudo ",
    "git ",
    // The module `ssh` runs these with a server of its own.
    "pushimg result ssh://",
    "pushimg result-amd64=ssh://",
    "pushimg --index ssh://",
    "PUSHIMG_SSH=",
    // These need the internet or a terminal; the module `login` runs the same forms.
    "pushimg login ghcr.io",
    "echo \"$TOKEN\" | pushimg login",
    "FLY_API_TOKEN=... pushimg login",
    // It serves until a signal comes.
    "pushimg serve",
];

fn documents() -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let docs = std::fs::read_dir(root.join("docs")).expect("docs/").flatten();
    let docs =
        docs.map(|entry| entry.path()).filter(|path| path.extension() == Some("md".as_ref()));
    let others = ["README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"];
    let others = others.map(|name| root.join(name)).into_iter().filter(|path| path.exists());
    let read = |path: PathBuf| {
        let text = std::fs::read_to_string(&path).expect("a document");
        (path, text)
    };
    docs.chain(others).map(read).collect()
}

/// The indented lines, the `$ ` lines of fenced blocks, and all lines of blocks marked `sh`.
fn commands(text: &str) -> Vec<String> {
    let mut commands = Vec::new();
    let mut fence: Option<&str> = None;
    for line in text.lines() {
        if let Some(language) = line.trim_start().strip_prefix("```") {
            fence = match fence {
                None => Some(language),
                Some(_) => None,
            };
            continue;
        }
        let command = match fence {
            None => line.strip_prefix("    ").filter(|line| !line.starts_with(['[', '{'])),
            Some("sh") => Some(line),
            Some("") => line.strip_prefix("$ "),
            Some(_) => None,
        };
        commands.extend(command.filter(|line| !line.trim().is_empty()).map(str::to_owned));
    }
    commands
}

/// A folder with what the examples name, and a registry that has the image that some of them read.
fn scene() -> (Pushimg, DevRegistry) {
    let registry = DevRegistry::start(Options::default());
    let pushimg = Pushimg::new();
    let home = pushimg.home().to_owned();
    let (old, new) = (testdata("layered-v1.tar"), testdata("layered-v2.tar"));
    for name in ["result", "result-a", "result-b", "result-api", "result-worker", "result-amd64"] {
        std::fs::copy(&old, home.join(name)).expect("a copy");
    }
    // One image of the samples, for another platform.
    let arm = ImageBuilder::new(vec![Layer::text("a", 1, 1000)]).architecture("arm64").tar();
    std::fs::write(home.join("result-arm64"), arm).expect("an archive");
    let several = std::fs::read(testdata("several-images.tar")).expect("an archive");
    std::fs::write(home.join("images.tar"), several).expect("an archive");
    let list = format!(
        r#"[{{"image": "result-api", "destination": "{0}/api:v1", "tags": ["latest"]}},
            {{"image": "result-worker", "destination": "{0}/worker:v1"}}]"#,
        registry.host()
    );
    std::fs::write(home.join("images.json"), list).expect("a list");
    for tag in ["app:latest", "app:v2", "app:1.0", "app:1.1", "app:build-7", "me/app:build-7"] {
        let image = if tag == "app:1.1" { &new } else { &old };
        let destination = format!("{}/{tag}", registry.host());
        pushimg.run([image.to_str().expect("UTF-8"), &destination]).success();
    }
    // Programs that examples call besides pushimg.
    let bin = home.join("bin");
    std::fs::create_dir(&bin).expect("a folder");
    for (name, script) in [
        ("fly", "test \"$1 $2\" = 'deploy --image' && test -n \"$3\""),
        ("docker", "cat result"),
        ("jq", "test -n \"$1\" && cat >/dev/null"),
    ] {
        let path = bin.join(name);
        std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).expect("a script");
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("a script");
    }
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_pushimg"), bin.join("pushimg")).expect("a link");
    for folder in [".local/share/bash-completion/completions", ".zfunc", ".config/fish/completions"]
    {
        std::fs::create_dir_all(home.join(folder)).expect("a folder");
    }
    (pushimg, registry)
}

/// A shell that runs a line in the folder of [`scene`].
fn shell(pushimg: &Pushimg, line: &str) -> Command {
    let mut shell = Command::new("bash");
    let path_variable = std::env::var("PATH").unwrap_or_default();
    let bin = pushimg.home().join("bin");
    shell
        .args(["-o", "pipefail", "-c", line])
        .env_clear()
        .env("PATH", format!("{}:{path_variable}", bin.display()))
        .env("HOME", pushimg.home())
        .current_dir(pushimg.home());
    shell
}

#[test]
fn the_pushes_for_woodpecker_and_buildkite_run_with_their_variables() {
    let (pushimg, registry) = scene();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/ci.md");
    let text = std::fs::read_to_string(path).expect("docs/ci.md");
    for (heading, repository) in [("Woodpecker", "me/app"), ("Buildkite", "app")] {
        let part = text.split(&format!("## {heading}\n")).nth(1).expect("a part");
        let line = part
            .lines()
            .find(|line| line.starts_with("  ") && line.contains("pushimg "))
            .expect("a push");
        let line = line.trim_start().trim_start_matches("- ");
        let line = line.replace("codeberg.org/", &format!("{}/", registry.host()));
        let line = line.replace("registry.example.com/", &format!("{}/", registry.host()));
        let mut shell = shell(&pushimg, &line);
        for (name, value) in [
            ("REGISTRY_PASSWORD", "secret"),
            ("CI_REPO_OWNER", "me"),
            ("CI_REPO", "me/app"),
            ("CI_COMMIT_SHA", "c0ffee"),
            ("BUILDKITE_COMMIT", "c0ffee"),
        ] {
            shell.env(name, value);
        }
        let output = finish(shell, None, Duration::from_secs(60)).success();
        let pinned = output.stdout.trim().rsplit_once('@').expect("a digest");
        assert_eq!(pinned.0, format!("{}/{repository}", registry.host()));
        let name = format!("{}/{repository}:c0ffee", registry.host());
        pushimg.run(["inspect", &name]).success();
    }
    let summary = std::fs::read_to_string(pushimg.home().join("summary.md")).expect("a summary");
    assert!(summary.starts_with("### Pushed "), "{summary}");
}

#[test]
fn every_command_in_the_documents_runs() {
    let (pushimg, registry) = scene();
    let mut done = HashSet::new();
    let mut failed = Vec::new();
    for (path, text) in documents() {
        for command in commands(&text) {
            let (mut line, mut run) = (command.clone(), true);
            // The image exists; the rest of the line is run.
            if let Some(rest) = line.strip_prefix("nix build .#docker && ") {
                line = rest.to_owned();
            }
            run &= !NOT_RUN.iter().any(|prefix| line.trim_start().starts_with(prefix));
            if !run || !done.insert(line.clone()) {
                continue;
            }
            for host in HOSTS {
                line = line.replace(&format!("{host}/"), &format!("{}/", registry.host()));
            }
            // The archives name public registries, which the test must not reach. The dry run goes
            // to a proxy that does not exist, so it ends with exit code 5.
            if line.contains("--all") || line.trim_start().starts_with("pushimg result  ") {
                line = line.replace("pushimg ", "pushimg --dry-run --retry-for 0 ");
                line = format!("export HTTPS_PROXY=http://127.0.0.1:9; {line}\ntest $? = 5");
            }
            let output = finish(shell(&pushimg, &line), None, Duration::from_secs(60));
            if output.code() != Some(0) {
                failed.push(format!("{}: {command}\n{line}\n{output}", path.display()));
            }
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
    assert!(done.len() > 20, "{done:?}");
}

/// The anchor that GitHub gives a heading.
fn anchor(heading: &str) -> String {
    let kept = heading.trim().to_lowercase();
    let kept = kept.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

#[test]
fn every_link_in_the_documents_leads_somewhere() {
    let mut checked = 0;
    for (path, text) in documents() {
        for link in text.split("](").skip(1) {
            let link = link.split(')').next().unwrap_or_default();
            if link.starts_with("https://") {
                continue;
            }
            let (file, fragment) = link.split_once('#').unwrap_or((link, ""));
            let target = match file {
                "" => path.clone(),
                file => path.parent().expect("a folder").join(file),
            };
            assert!(target.exists(), "{}: {link}", path.display());
            if !fragment.is_empty() {
                let text = std::fs::read_to_string(&target).expect("a document");
                let mut headings = text.lines().filter(|line| line.starts_with('#'));
                let found = headings.any(|line| anchor(line.trim_start_matches('#')) == fragment);
                assert!(found, "{}: {link}", path.display());
            }
            checked += 1;
        }
    }
    assert!(checked > 20, "{checked}");
}

#[test]
fn every_test_that_the_guarantees_name_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(root.join("docs/guarantees.md")).expect("guarantees.md");
    for name in text.split('`').skip(1).step_by(2) {
        if name.starts_with("tests/") || name.starts_with("src/") {
            assert!(root.join(name).exists(), "{name}");
        }
    }
}
