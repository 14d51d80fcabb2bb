//! Images of stream scripts over a real Nix store. If pushimg knows for certain that the registry
//! has a layer, it neither makes nor reads the layer. If it is not certain, it makes the layer.

use crate::support::archive::{self, Layer, gzip, text};
use crate::support::layout::{CONFIG, LAYER, MANIFEST};
use crate::support::nix_store::{StorePath, Streamed, executable};
use crate::support::proxy::Record;
use crate::support::pull::{self, Pulled};
use crate::support::put;
use crate::support::registry::{DevRegistry, Options};
use crate::support::run::{Output, Pushimg, finish};
use crate::support::{DockerRegistry, FaultProxy};
use serde_json::{Value, json};

/// The annotation in a manifest that says what a layer is made of.
const KEY: &str = "io.github.pushimg.layer-key";

/// The store paths of an image: three layers, of which one has two paths.
struct Paths {
    glibc: StorePath,
    bash: StorePath,
    readline: StorePath,
    app: StorePath,
}

impl Paths {
    /// `None` where there can be no store.
    fn new() -> Option<Self> {
        Some(Self {
            glibc: StorePath::new(
                "glibc-2.38",
                &[("lib/libc.so.6", &archive::random_bytes(1, 50_000)), ("share/doc", b"doc\n")],
            )?,
            bash: StorePath::new("bash-5.2", &[("bin/bash", b"#!bash")])?,
            readline: StorePath::new("readline-8.2", &[("lib/libreadline.so", b"lib")])?,
            app: app(b"an app")?,
        })
    }

    /// An image of these three layers and one prebuilt layer.
    fn image(&self) -> Streamed {
        self.with_app(&self.app)
    }

    fn with_app(&self, app: &StorePath) -> Streamed {
        Streamed::new(&[&[&self.glibc], &[&self.bash, &self.readline], &[app]])
    }
}

fn app(content: &[u8]) -> Option<StorePath> {
    StorePath::new("app-1.0", &[("bin/app", content), ("etc/empty", b"")])
}

/// The number of layers in a report with this action.
fn count(report: &Value, action: &str) -> usize {
    let layers = report["layers"].as_array().expect("layers");
    layers.iter().filter(|layer| layer["action"] == action).count()
}

/// The keys that a manifest gives for its layers.
fn keys(pulled: &Pulled) -> Vec<Option<String>> {
    let manifest: Value = serde_json::from_slice(&pulled.manifest_bytes).expect("JSON");
    let layers = manifest["layers"].as_array().expect("layers").iter();
    layers.map(|layer| layer["annotations"][KEY].as_str().map(str::to_owned)).collect()
}

/// The files below these store paths that pushimg opened, according to strace; `None` if strace is
/// not installed. Folders do not count, because pushimg lists them.
fn opened(machine: &Pushimg, arguments: &[&str], paths: &[&StorePath]) -> Option<Vec<String>> {
    std::process::Command::new("strace").arg("-V").output().ok()?;
    let inner = machine.command(arguments);
    let log = machine.home().join("opened");
    let mut command = std::process::Command::new("strace");
    command.args(["-f", "-qq", "-e", "trace=open,openat,openat2", "-o"]).arg(&log);
    command.arg(inner.get_program()).args(inner.get_args()).env_clear();
    command.envs(inner.get_envs().filter_map(|(key, value)| Some((key, value?))));
    finish(command, None, std::time::Duration::from_secs(60)).success();
    let log = std::fs::read_to_string(log).expect("strace's log");
    let is_below = |line: &&str| {
        paths.iter().any(|path| line.contains(path.text())) && !line.contains("O_DIRECTORY")
    };
    Some(log.lines().filter(is_below).map(str::to_owned).collect())
}

#[test]
fn the_second_push_from_a_machine_makes_no_layer_and_reads_no_file() {
    let Some(paths) = Paths::new() else { return };
    let image = paths.image();
    let archive = image.archive();
    let registry = DockerRegistry::plain();
    let proxy = FaultProxy::before(registry.addr());
    let destination = format!("{}/app:v1", proxy.host());
    let machine = Pushimg::new();
    let first = machine.pushed_json(image.result(), &destination, &[]).json();
    assert_eq!(count(&first, "uploaded"), 4);
    pull::assert_same_image(&archive, registry.host(), "app", "v1");
    pull::skopeo(registry.host(), "app", "v1");

    let all = [&paths.glibc, &paths.bash, &paths.readline, &paths.app];
    if let Some(opened) = opened(&machine, &[&image.result(), &destination], &all) {
        assert!(opened.is_empty(), "{opened:#?}");
    }
    // With other content in the files, a push that read them would make other layers.
    all.iter().for_each(|path| path.garble());
    proxy.clear();
    let second = machine.pushed_json(image.result(), &destination, &[]).json();
    assert_eq!((count(&second, "reused"), &second["digest"]), (4, &first["digest"]));
    assert_eq!(proxy.body_bytes(Record::carries_blob), 0, "{}", proxy.transcript());
    pull::assert_same_image(&archive, registry.host(), "app", "v1");
}

#[test]
fn of_an_image_with_one_store_path_changed_only_that_is_read_and_sent() {
    let Some(paths) = Paths::new() else { return };
    let registry = DockerRegistry::plain();
    let proxy = FaultProxy::before(registry.addr());
    let destination = format!("{}/app:v1", proxy.host());
    let machine = Pushimg::new();
    machine.pushed_json(paths.image().result(), &destination, &[]);

    let Some(changed) = app(b"the next app") else { return };
    let image = paths.with_app(&changed);
    let archive = image.archive();
    let others = [&paths.glibc, &paths.bash, &paths.readline];
    others.iter().for_each(|path| path.garble());
    proxy.clear();
    let report = machine.pushed_json(image.result(), &destination, &[]).json();
    assert_eq!((count(&report, "uploaded"), count(&report, "reused")), (1, 3), "{report:#}");
    // The layer and the config.
    let uploads = proxy.count(|record| record.carries_blob() && record.status == Some(201));
    assert_eq!(uploads, 2, "{}", proxy.transcript());
    pull::assert_same_image(&archive, registry.host(), "app", "v1");

    // Push a third version under strace.
    let Some(changed) = app(b"the one after that") else { return };
    let image = paths.with_app(&changed);
    let all = [&paths.glibc, &paths.bash, &paths.readline, &changed];
    if let Some(opened) = opened(&machine, &[&image.result(), &destination], &all) {
        assert!(!opened.is_empty(), "strace sees nothing");
        let is_other = |line: &&String| !line.contains(changed.text());
        assert_eq!(opened.iter().find(is_other), None);
    }
}

#[test]
fn without_a_cache_every_layer_is_made_and_none_is_sent() {
    let Some(paths) = Paths::new() else { return };
    let image = paths.image();
    let registry = DockerRegistry::plain();
    let proxy = FaultProxy::before(registry.addr());
    let destination = format!("{}/app:v1", proxy.host());
    let machine = Pushimg::new();
    let first = machine.pushed_json(image.result(), &destination, &[]).json();
    for (machine, options) in [(&Pushimg::new(), &[][..]), (&machine, &["--no-cache"])] {
        proxy.clear();
        let report = machine.pushed_json(image.result(), &destination, options).json();
        assert_eq!((count(&report, "reused"), &report["digest"]), (4, &first["digest"]));
        assert_eq!(proxy.body_bytes(Record::carries_blob), 0, "{}", proxy.transcript());
    }
    // This shows that the layer was made: other files give another layer.
    paths.glibc.garble();
    let report = Pushimg::new().pushed_json(image.result(), &destination, &[]).json();
    assert_eq!(count(&report, "uploaded"), 1);
    pull::assert_same_image(&image.archive(), registry.host(), "app", "v1");
}

#[test]
fn without_a_cache_but_with_trust_no_layer_is_made() {
    let Some(paths) = Paths::new() else { return };
    let image = paths.image();
    let archive = image.archive();
    let registry = DockerRegistry::plain();
    let proxy = FaultProxy::before(registry.addr());
    let destination = format!("{}/app:v1", proxy.host());
    let trust = ["--trust-annotations"];
    let first = Pushimg::new().pushed_json(image.result(), &destination, &trust).json();
    let all = [&paths.glibc, &paths.bash, &paths.readline, &paths.app];
    all.iter().for_each(|path| path.garble());
    proxy.clear();
    let trust = ["--trust-annotations", "--no-cache"];
    let report = Pushimg::new().pushed_json(image.result(), &destination, &trust).json();
    assert_eq!((count(&report, "reused"), &report["digest"]), (4, &first["digest"]));
    assert_eq!(proxy.body_bytes(Record::carries_blob), 0, "{}", proxy.transcript());
    if let Some(opened) =
        opened(&Pushimg::new(), &[&image.result(), &destination, "--trust-annotations"], &all)
    {
        assert!(opened.is_empty(), "{opened:#?}");
    }
    // The same with layers from another repository.
    let other = format!("{}/other:v1", proxy.host());
    let trust = ["--trust-annotations", "--reuse-from", &destination];
    let report = Pushimg::new().pushed_json(image.result(), &other, &trust).json();
    assert_eq!(count(&report, "mounted"), 4, "{report:#}");
    pull::assert_same_image(&archive, registry.host(), "other", "v1");
}

#[test]
fn the_manifest_is_the_same_whether_the_script_was_read_run_or_piped() {
    let Some(paths) = Paths::new() else { return };
    let image = paths.image();
    let archive = image.archive();
    let bytes = std::fs::read(&archive).expect("an archive");
    let registry = DockerRegistry::plain();
    let host = registry.host();
    let script = std::fs::read_to_string(image.path("stream")).expect("the script");
    let digest = |output: Output| output.json()["digest"].clone();
    for options in [&[][..], &["--format", "oci"], &["--compression", "zstd"]] {
        let name = format!("app{}", options.len() + options.concat().len());
        let destination = format!("{host}/{name}:v1");
        let read = Pushimg::new().pushed_json(image.result(), &destination, options).json();
        let format = if options.is_empty() { "docker" } else { "oci" };
        assert_eq!(read["format"], format);
        let pulled = pull::assert_same_image(&archive, &host, &name, "v1");
        assert!(keys(&pulled).iter().all(Option::is_none));
        // A script that writes the same image, but that pushimg does not recognise.
        executable(&image.path("stream"), &format!("{script}\n# Nobody knows this comment.\n"));
        let run = Pushimg::new().pushed_json(image.result(), &destination, options);
        assert_eq!(digest(run), read["digest"], "{options:?}");
        executable(&image.path("stream"), &script);
        let file = Pushimg::new().pushed_json(text(&archive), &destination, options);
        assert_eq!(digest(file), read["digest"], "{options:?}");
        let piped = Pushimg::new().stdin(bytes.clone()).pushed_json("-", &destination, options);
        assert_eq!(digest(piped), read["digest"], "{options:?}");
    }
}

#[test]
fn the_manifest_says_what_layers_are_made_of_and_is_the_same_however_that_was_known() {
    let Some(paths) = Paths::new() else { return };
    let image = paths.image();
    let registry = DockerRegistry::plain();
    let destination = |name: &str| format!("{}/{name}:v1", registry.host());
    let machine = Pushimg::new();
    let trust = "--trust-annotations";
    let first = machine.pushed_json(image.result(), &destination("app"), &[trust]).json();
    let pulled = pull::oci(registry.host(), "app", "v1");
    assert_eq!(first["media_type"], MANIFEST);
    let written = keys(&pulled);
    assert!(written[..3].iter().flatten().all(|key| key.starts_with("sha256:")), "{written:?}");
    assert!(written[..3].iter().all(Option::is_some) && written[3].is_none(), "{written:?}");
    let distinct: std::collections::HashSet<_> = written.iter().collect();
    assert_eq!(distinct.len(), 4);
    for (number, (machine, options)) in [
        (&machine, &[trust][..]),
        (&machine, &[trust, "--no-cache"]),
        (&machine, &[trust, "--format", "oci"]),
        (&Pushimg::new(), &[trust]),
        (&Pushimg::new(), &[trust, "--no-cache"]),
        (&Pushimg::new(), &[trust, "-j", "1", "--dry-run"]),
    ]
    .into_iter()
    .enumerate()
    {
        for name in ["app".to_owned(), format!("app-{number}")] {
            let report = machine.pushed_json(image.result(), &destination(&name), options).json();
            assert_eq!(report["digest"], first["digest"], "{name} {options:?}");
        }
    }
    // Docker's format has no annotations for layers.
    let options = [trust, "--format", "docker"];
    let docker = machine.pushed_json(image.result(), &destination("docker"), &options);
    assert_eq!(docker.json()["format"], "docker");
    let pulled = pull::assert_same_image(&image.archive(), registry.host(), "docker", "v1");
    assert!(keys(&pulled).iter().all(Option::is_none));
}

/// Puts an image under `app:v1` whose forged layer has the key of another layer.
fn deceive(host: &str, key: &str, evil: &Layer) {
    let (blob, config) = (gzip(&evil.tar), put::config(&[evil.diff_id()]));
    put::blob(host, "app", &blob);
    put::blob(host, "app", &config);
    let mut layer = put::descriptor(LAYER, &blob);
    layer["annotations"] = json!({ KEY: key });
    let manifest = json!({ "schemaVersion": 2, "mediaType": MANIFEST,
        "config": put::descriptor(CONFIG, &config), "layers": [layer] });
    put::tag(host, "app", "v1", &manifest);
}

#[test]
fn a_wrong_annotation_is_believed_by_those_alone_who_say_so() {
    let Some(paths) = Paths::new() else { return };
    let image = paths.image();
    let archive = image.archive();
    let registry = DockerRegistry::plain();
    let host = registry.host();
    let trust = ["--trust-annotations"];
    Pushimg::new().pushed_json(image.result(), &format!("{host}/honest:v1"), &trust);
    let honest = pull::oci(&host, "honest", "v1");
    let plain = Pushimg::new().pushed_json(image.result(), &format!("{host}/plain:v1"), &[]).json();
    let key = keys(&honest)[0].clone().expect("a key");
    let evil = Layer::file("evil", b"evil");
    deceive(&host, &key, &evil);

    let destination = format!("{host}/app:v1");
    let report = Pushimg::new().pushed_json(image.result(), &destination, &[]).json();
    assert_eq!(report["digest"], plain["digest"]);
    pull::assert_same_image(&archive, &host, "app", "v1");

    // The attack that the README warns of: the image gets the forged layer, and its config lists
    // that layer.
    deceive(&host, &key, &evil);
    let machine = Pushimg::new();
    machine.pushed_json(image.result(), &destination, &["--trust-annotations"]);
    let deceived = pull::oci(&host, "app", "v1");
    let wanted = [&[evil.diff_id()], &honest.diff_ids()[1..]].concat();
    assert_eq!(deceived.diff_ids(), wanted);
    let config: Value = serde_json::from_slice(&deceived.config).expect("JSON");
    assert_eq!(config["rootfs"]["diff_ids"], json!(wanted));
    // The cache did not learn the forged layer. Without the flag, this machine pushes the right
    // image.
    machine.pushed_json(image.result(), &destination, &[]);
    pull::assert_same_image(&archive, &host, "app", "v1");
}

#[test]
fn a_store_path_that_somebody_wrote_to_is_made_again() {
    let Some(paths) = Paths::new() else { return };
    let image = paths.image();
    let registry = DockerRegistry::plain();
    let destination = format!("{}/app:v1", registry.host());
    let machine = Pushimg::new();
    machine.pushed_json(image.result(), &destination, &[]);
    let file = paths.bash.path().join("bin/bash");
    std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o644))
        .expect("set a mode");
    std::fs::write(&file, b"#!fish").expect("write a file");
    for options in [&[][..], &["--trust-annotations"]] {
        machine.pushed_json(image.result(), &destination, options);
        pull::assert_same_image(&image.archive(), registry.host(), "app", "v1");
    }
}

#[test]
fn layers_that_an_archive_brought_are_found_by_diff_id_and_the_other_way_round() {
    let Some(paths) = Paths::new() else { return };
    let image = paths.image();
    let archive = image.archive();
    let compressed = archive::write(
        archive.parent().expect("a folder"),
        "archive.tar.gz",
        &gzip(&std::fs::read(&archive).expect("an archive")),
    );
    let registry = DockerRegistry::plain();
    let proxy = FaultProxy::before(registry.addr());
    let result = image.result();
    let forms = [text(&archive), text(&compressed), &result];
    for (number, (first, second)) in [(0, 2), (1, 2), (2, 0), (2, 1)].into_iter().enumerate() {
        let repository = format!("app-{number}");
        let destination = format!("{}/{repository}:v1", proxy.host());
        Pushimg::new().pushed_json(forms[first], &destination, &[]);
        proxy.clear();
        let report = Pushimg::new().pushed_json(forms[second], &destination, &[]).json();
        assert_eq!(count(&report, "reused"), 4, "{report:#}");
        for layer in report["layers"].as_array().expect("layers") {
            assert_eq!(layer["why"], "previous-image", "{layer}");
        }
        assert_eq!(proxy.body_bytes(Record::carries_blob), 0, "{}", proxy.transcript());
        pull::assert_same_image(&archive, registry.host(), &repository, "v1");
    }
}

#[test]
fn two_images_in_one_command_have_what_they_share_made_once() {
    let Some(paths) = Paths::new() else { return };
    let Some(other) = app(b"another app") else { return };
    let (one, two) = (paths.image(), paths.with_app(&other));
    let registry = DockerRegistry::plain();
    let proxy = FaultProxy::before(registry.addr());
    let pair =
        |image: &Streamed, name: &str| format!("{}={}/{name}:v1", image.result(), proxy.host());
    Pushimg::new().run([pair(&one, "one"), pair(&two, "two")]).success();
    let uploads = proxy.count(|record| record.carries_blob() && record.status == Some(201));
    // Five layers (glibc, bash, two apps and the prebuilt one) and two configs.
    assert_eq!(uploads, 5 + 2, "{}", proxy.transcript());
    pull::assert_same_image(&one.archive(), registry.host(), "one", "v1");
    pull::assert_same_image(&two.archive(), registry.host(), "two", "v1");
}

#[test]
fn the_script_is_not_run_where_it_is_understood() {
    let Some(paths) = Paths::new() else { return };
    let image = paths.image();
    let archive = image.archive();
    // A Python that writes a file when it is started.
    let witness = image.path("witness");
    let python = image.path("python3.11");
    executable(&python, &format!("#!/bin/sh\ntouch {}\nexit 1\n", text(&witness)));
    let script = std::fs::read_to_string(image.path("stream")).expect("the script");
    let (_, rest) = script.split_once('\n').expect("lines");
    executable(&image.path("stream"), &format!("#!{}\n{rest}", text(&python)));
    let registry = DockerRegistry::plain();
    let destination = format!("{}/app:v1", registry.host());
    Pushimg::new().pushed_json(image.result(), &destination, &["--no-exec"]);
    Pushimg::new().pushed_json(image.result(), &destination, &[]);
    pull::assert_same_image(&archive, registry.host(), "app", "v1");
    assert!(!witness.exists(), "it was run");
}

#[test]
fn a_script_of_another_version_is_run_unless_that_is_forbidden() {
    let Some(paths) = Paths::new() else { return };
    let image = paths.image();
    let script = std::fs::read_to_string(image.path("stream")).expect("the script");
    let other = script.replace("json.dumps(image_json, indent=4)", "json.dumps(image_json)");
    assert_ne!(script, other);
    executable(&image.path("stream"), &other);
    let archive = image.archive();
    let registry = DevRegistry::start(Options::default());
    let destination = format!("{}/app:v1", registry.host());
    let forbidden = Pushimg::new().run([&image.result(), &destination, "--no-exec"]).exits(3);
    forbidden.says("would have to be run").says("--no-exec forbids").says(&image.result());
    assert_eq!(registry.counters().manifest_puts, 0);

    let output = Pushimg::new().run([&image.result(), &destination]).success();
    pull::assert_same_image(&archive, registry.host(), "app", "v1");
    // What it says is shown to those who ask.
    output.never_says("layer 1 of");
    let output = Pushimg::new().run([&image.result(), &destination, "-v"]).success();
    output.says("is run to have its image").says("layer 1 of [");
}

#[test]
fn a_dry_run_of_a_stream_script_foretells_what_is_sent() {
    let Some(paths) = Paths::new() else { return };
    let registry = DockerRegistry::plain();
    let proxy = FaultProxy::before(registry.addr());
    let destination = format!("{}/app:v1", proxy.host());
    let Some(changed) = app(b"the next app") else { return };
    for image in [paths.image(), paths.with_app(&changed), paths.with_app(&changed)] {
        proxy.clear();
        let dry = Pushimg::new().pushed_json(image.result(), &destination, &["--dry-run"]).json();
        let changing = |r: &Record| !matches!(r.method.as_str(), "GET" | "HEAD");
        assert_eq!(proxy.count(changing), 0, "{}", proxy.transcript());
        let real = Pushimg::new().pushed_json(image.result(), &destination, &[]).json();
        for key in ["digest", "size", "bytes_sent", "bytes_reused", "media_type"] {
            assert_eq!(dry[key], real[key], "{key}");
        }
        assert_eq!(count(&dry, "would-upload"), count(&real, "uploaded"));
    }
}
