//! An image of Nix's streamLayeredImage is pushed without running its script, byte for byte as the
//! script would write it. A script that pushimg does not recognise is run.

use std::collections::HashMap;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::support::archive::testdata;
use crate::support::pull;
use crate::support::registry::{self, DevRegistry};
use crate::support::run::Pushimg;
use pushimg::image::{DiffId, Digest};
use pushimg::source::{self, Claim, Contents, Error, ImagesKnown, Location, Options, Source};
use serde_json::{Value, json};
use tempfile::TempDir;

/// A folder with a streamed image.
struct Made {
    folder: TempDir,
}

impl Made {
    fn new(options: &Value) -> Self {
        let folder = TempDir::new().expect("a folder");
        let maker = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/make_stream.py");
        let status = Command::new("python3")
            .arg(maker)
            .arg(folder.path())
            .arg(options.to_string())
            .env("PYTHONUTF8", "1")
            .status()
            .expect("start python3");
        assert!(status.success(), "{options}");
        Self { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Runs the script, and returns the image that it writes.
    fn streamed(&self) -> Image {
        let output = Command::new(self.path("result"))
            .env("PYTHONUTF8", "1")
            .output()
            .expect("run the wrapper");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Image::of_archive(&output.stdout)
    }

    /// Takes away the permission to run the image.
    fn forbid(&self) {
        fs::set_permissions(self.path("result"), fs::Permissions::from_mode(0o444))
            .expect("change the mode");
    }

    fn open(&self) -> Result<Box<dyn Source>, Error> {
        open(&self.path("result"), false).0
    }

    /// The image that pushimg makes when it can only read the wrapper.
    fn made(&self) -> Image {
        self.forbid();
        let mut source = self.open().expect("a source");
        Image::of_source(&mut *source, Reading::All)
    }

    fn error(&self) -> String {
        match self.open() {
            Err(error) => error.to_string(),
            Ok(_) => panic!("it was read"),
        }
    }
}

/// The notes that pushimg gives while it reads an image.
type Notes = Arc<Mutex<Vec<String>>>;

/// Opens an image, and keeps what is noted meanwhile.
fn open(path: &Path, may_run: bool) -> (Result<Box<dyn Source>, Error>, Notes) {
    let notes = Notes::default();
    let kept = notes.clone();
    let note = Arc::new(move |note| kept.lock().expect("no panic").push(note));
    let options =
        Options { images: ImagesKnown::WhenTold, may_run, progress: Box::new(|_, _| {}), note };
    let source = source::open(&Location::Path(path.to_owned()), options);
    let source = source.map(|contents| match contents {
        Contents::Layers(source) => source,
        Contents::Layout(_) => panic!("a layout"),
    });
    (source, notes)
}

/// An image's names, config and layers.
#[derive(PartialEq, Eq)]
struct Image {
    names: Vec<String>,
    config: String,
    layers: Vec<Vec<u8>>,
}

/// How much of a source is read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reading {
    /// Each layer is read, and the source learns its diff ID.
    All,
    /// No layer is read, and the source learns no diff ID.
    Nothing,
}

impl Image {
    fn of_archive(bytes: &[u8]) -> Self {
        let mut files = HashMap::new();
        for entry in tar::Archive::new(bytes).entries().expect("a tar") {
            let mut entry = entry.expect("an entry");
            let name = entry.path().expect("a name").to_str().expect("UTF-8").to_owned();
            let mut content = Vec::new();
            entry.read_to_end(&mut content).expect("the content");
            files.insert(name, content);
        }
        let manifest: Value = serde_json::from_slice(&files["manifest.json"]).expect("JSON");
        let texts = |value: &Value| -> Vec<String> {
            let texts = value.as_array().expect("a list").iter();
            texts.map(|text| text.as_str().expect("a text").to_owned()).collect()
        };
        let config = &files[manifest[0]["Config"].as_str().expect("a name")];
        Self {
            names: texts(&manifest[0]["RepoTags"]),
            config: String::from_utf8(config.clone()).expect("UTF-8"),
            layers: texts(&manifest[0]["Layers"]).iter().map(|name| files[name].clone()).collect(),
        }
    }

    fn of_source(source: &mut dyn Source, reading: Reading) -> Self {
        let mut layers = Vec::new();
        while let Some(layer) = source.next_layer().expect("a layer") {
            if reading == Reading::Nothing {
                continue;
            }
            let mut bytes = Vec::new();
            layer.content.read_to_end(&mut bytes).expect("the content");
            assert_eq!(layer.size, bytes.len() as u64, "{}", layer.entry);
            let diff_id: DiffId = Digest::of(&bytes).into();
            if let Claim::DiffId(claimed) = &layer.claim {
                assert_eq!(claimed, &diff_id, "{}", layer.entry);
            }
            assert_eq!(layer.id.0, layers.len());
            layers.push(bytes);
            source.learn(&diff_id);
        }
        let [image] = source.images().expect("the images") else { panic!("one image") };
        if reading == Reading::All {
            let ids = image.layers.iter().map(|id| Digest::of(&layers[id.0]).into());
            assert_eq!(image.config.diff_ids(), ids.collect::<Vec<DiffId>>());
            layers = image.layers.iter().map(|id| layers[id.0].clone()).collect();
        }
        let config = String::from_utf8(image.config.bytes().to_vec()).expect("UTF-8");
        Self { names: image.names.clone(), config, layers }
    }
}

#[track_caller]
fn assert_same(ours: &Image, theirs: &Image) {
    assert_eq!(ours.names, theirs.names);
    assert_eq!(ours.layers.len(), theirs.layers.len());
    for (index, (ours, theirs)) in ours.layers.iter().zip(&theirs.layers).enumerate() {
        if ours != theirs {
            let place = ours.iter().zip(theirs).position(|(a, b)| a != b);
            panic!("layer {index}: {} and {} bytes, {place:?}", ours.len(), theirs.len());
        }
    }
    assert_eq!(ours.config, theirs.config);
}

#[test]
fn layers_and_config_are_to_the_byte_what_the_script_writes() {
    let long = "u".repeat(40);
    for options in [
        json!({}),
        json!({"wrapper": "binary"}),
        json!({"base": "plain"}),
        json!({"base": "gzip", "wrapper": "binary"}),
        json!({"base": "plain", "conf": {"config": {"Cmd": ["/bin/app"]}}}),
        json!({"flags": "--repo_tag other/name:tag"}),
        json!({"conf": {"uid": "1000", "gid": 3000000, "uname": long, "gname": "é"}}),
        json!({"conf": {"created": "2300-01-01T00:00:00-05:30", "mtime": "2300-01-01T00:00:00+01:00"}}),
        json!({"conf": {"store_layers": []}}),
        json!({"conf": {"config": {}, "os": null, "new": [1.5]}}),
        json!({"replace": [
            ["0o0755  # rwxr-xr-x", "0o0555  # r-xr-xr-x"],
            ["ti.uid = uid", "ti.uid = 0"],
            ["ti.gid = gid", "ti.gid = 0"],
            ["ti.uname = uname", "ti.uname = \"root\""],
            ["ti.gname = gname", "ti.gname = \"root\""],
            ["parse_time(conf[\"mtime\"]).timestamp()", "created.timestamp()"],
        ], "conf": {"uname": "nobody"}}),
    ] {
        println!("{options}");
        let made = Made::new(&options);
        let theirs = made.streamed();
        assert_same(&made.made(), &theirs);
    }
}

#[test]
fn a_layer_of_which_nothing_was_told_is_known_all_the_same() {
    let made = Made::new(&json!({"base": "plain"}));
    let mut source = made.open().expect("a source");
    assert_eq!(source.early_names(), Some(vec!["registry.example/app:v1".to_owned()]));
    assert!(source.images().is_none());
    let unread = Image::of_source(&mut *source, Reading::Nothing);
    assert_eq!(unread.config, made.streamed().config);
}

#[test]
fn an_image_made_now_has_the_time_of_its_push() {
    let made = Made::new(&json!({"conf": {"created": "now", "mtime": "now"}}));
    let (theirs, ours) = (made.streamed(), made.made());
    let created = |image: &Image| {
        let config: Value = serde_json::from_str(&image.config).expect("JSON");
        assert_eq!(config["history"][0]["created"], config["created"]);
        config["created"].as_str().expect("a time").to_owned()
    };
    let (theirs, ours) = (created(&theirs), created(&ours));
    assert!(theirs < ours && ours.ends_with("+00:00"), "{theirs} {ours}");
    let apart = |a: &str, b: &str| a.split(':').next() == b.split(':').next();
    assert!(apart(&theirs, &ours) || ours.contains(":00:0"), "{theirs} {ours}");
}

#[test]
fn a_pushed_image_has_the_id_and_the_layers_of_the_script() {
    let made = Made::new(&json!({"base": "gzip"}));
    let theirs = made.streamed();
    made.forbid();
    let registry = DevRegistry::start(registry::Options::default());
    let destination = format!("{}/app:v1", registry.host());
    let path = made.path("result");
    Pushimg::new().run([path.to_str().expect("UTF-8"), &destination]).success();
    let pulled = pull::oci(registry.host(), "app", "v1");
    assert_eq!(pulled.config, theirs.config.as_bytes());
    let pulled = pulled.diff_ids();
    let diff_ids = theirs.layers.iter().map(|layer| Digest::of(layer).to_string());
    assert_eq!(pulled, diff_ids.collect::<Vec<_>>());
}

#[test]
fn what_is_missing_or_broken_is_named() {
    let made = Made::new(&json!({}));
    let gone = made.path("store").join(format!("{:032}-empty", 3));
    fs::remove_dir(&gone).expect("remove a store path");
    let (gone, result) = (gone.display(), made.path("result"));
    let error = made.error();
    let needs = format!("{} needs {gone}, which is not there", result.display());
    assert!(error.starts_with(&needs), "{error}");
    assert!(error.contains(&format!("`nix-store --realise {gone}`")), "{error}");

    let conf = |conf: Value| Made::new(&json!({"conf": conf}));
    for (field, value) in [("repo_tag", Value::Null), ("store_layers", json!("x"))] {
        let made = conf(json!({field: value}));
        let error = made.error();
        let said =
            format!("{}: {} does", made.path("result").display(), made.path("conf.json").display());
        assert!(error.starts_with(&said) && error.contains(&format!("{field:?} is ")), "{error}");
    }
    for name in ["conf.json", "stream"] {
        let made = conf(json!({}));
        fs::remove_file(made.path(name)).expect("remove a file");
        let error = made.error();
        assert!(error.contains(&format!("needs {}", made.path(name).display())), "{error}");
    }
    let made = conf(json!({}));
    let customisation = made.path("store").join(format!("{:032}-customisation-layer", 9));
    fs::write(customisation.join("checksum"), "none\n").expect("write a checksum");
    assert!(made.error().contains("checksum does not hold the SHA-256 digest"));

    let made = conf(json!({"from_image": testdata("README.md")}));
    assert!(made.error().contains("README.md is not an image"), "{}", made.error());
    let made = Made::new(&json!({}));
    let text = fs::read_to_string(made.path("conf.json")).expect("the conf");
    let result = made.path("result").display().to_string();
    let itself = text.replace("\"from_image\": null", &format!("\"from_image\": {result:?}"));
    assert_ne!(text, itself);
    fs::write(made.path("conf.json"), itself).expect("write the conf");
    assert!(made.error().contains("is not an image"), "an image on itself: {}", made.error());
}

#[test]
fn a_pipe_in_place_of_a_file_is_named_and_not_waited_for() {
    let customisation = format!("store/{:032}-customisation-layer", 9);
    let [checksum, tar] = ["checksum", "layer.tar"].map(|name| format!("{customisation}/{name}"));
    let piped = |made: &Made, name: &str| {
        let path = made.path(name);
        let _ = fs::remove_file(&path);
        let status = Command::new("mkfifo").arg(&path).status().expect("run mkfifo");
        assert!(status.success(), "{name}");
        let (result, limit) = (made.path("result"), Duration::from_secs(20));
        let output = Pushimg::new()
            .limit(limit)
            .run([result.to_str().expect("UTF-8"), "localhost:1/app:v1"])
            .exits(3);
        output.says(path.to_str().expect("UTF-8")).says("regular file");
    };
    for name in ["stream", "conf.json", &checksum, &tar] {
        piped(&Made::new(&json!({})), name);
    }
    piped(&Made::new(&json!({"base": "plain"})), "base.tar");
    let made = Made::new(&json!({}));
    let inside = format!("store/{:032}-empty/pipe", 3);
    let path = made.path(&inside);
    assert!(Command::new("mkfifo").arg(&path).status().expect("run mkfifo").success());
    let mut source = made.open().expect("a source");
    let error = loop {
        match source.next_layer() {
            Ok(Some(_)) => {}
            Ok(None) => panic!("a layer of a pipe"),
            Err(error) => break error.to_string(),
        }
    };
    let named = format!("{} is neither a file nor a folder nor a symlink", path.display());
    assert!(error.starts_with(&named), "{error}");
}

#[test]
fn a_checksum_that_is_another_layers_fails_the_push() {
    let made = Made::new(&json!({}));
    let customisation = made.path("store").join(format!("{:032}-customisation-layer", 9));
    fs::write(customisation.join("checksum"), "0".repeat(64)).expect("write a checksum");
    let registry = DevRegistry::start(registry::Options::default());
    let destination = format!("{}/app:v1", registry.host());
    let path = made.path("result");
    let output = Pushimg::new().run([path.to_str().expect("UTF-8"), &destination]).exits(3);
    output.says("sha256:0000").says("nothing was tagged");
    assert_eq!(registry.tag("app", "v1"), None);
}

#[test]
fn an_image_that_is_not_understood_is_run() {
    // Changed scripts: each puts other layers or another config into the image.
    let base_layers = json!({"replace": [[
        "for paths in conf[\"store_layers\"]:",
        "for paths in conf[\"store_layers\"] + conf[\"base_layers\"]:",
    ]], "conf": {"base_layers": [[]]}});
    let reversed = json!({"replace": [[
        "for paths in conf[\"store_layers\"]:",
        "for paths in reversed(conf[\"store_layers\"]):",
    ]]});
    let one_more = json!({"replace": [[
        "        layers.append(ready_layer(out, conf[\"customisation_layer\"], mtime))",
        "        layers.append(ready_layer(out, conf[\"customisation_layer\"], mtime))\n        \
         layers.append(layers[0])",
    ]]});
    let os =
        json!({"replace": [["\"os\": \"linux\"", "\"os\": conf[\"os\"]"]], "conf": {"os": "wasi"}});
    let strange =
        json!({"replace": [["json.dumps(image_json, indent=4)", "json.dumps(image_json)"]]});
    let float = json!({"conf": {"config": {"Cmd": [1.5]}}});
    let flags = json!({"flags": "--repo_ta other:v1"});
    for options in [base_layers, reversed, one_more, os, strange, float, flags] {
        let made = Made::new(&options);
        let theirs = made.streamed();
        let path = made.path("result");
        let error = open(&path, false).0.err().expect("an error").to_string();
        assert!(error.contains("would have to be run") && error.contains("--no-exec"), "{error}");

        let (source, notes) = open(&path, true);
        let ours = Image::of_source(&mut *source.expect("a source"), Reading::All);
        assert_same(&ours, &theirs);
        let started = format!("{} is run to have its image: ", path.display());
        let notes = notes.lock().expect("no panic");
        assert!(notes[0].starts_with(&started), "{notes:?}");
        assert!(notes.iter().any(|note| note.contains("layer 1 of [")), "{notes:?}");

        made.forbid();
        let error = open(&path, true).0.err().expect("an error").to_string();
        assert!(error.contains("may not be executed"), "{error}");
    }
}

/// Writes an executable script.
fn program(text: &str) -> (TempDir, PathBuf) {
    let folder = TempDir::new().expect("a folder");
    let path = folder.path().join("result");
    // Another process writes the file. While this process forks for another test, a file that it
    // has open for writing cannot be run.
    let mut install = Command::new("install")
        .args(["-m", "755", "/dev/stdin"])
        .arg(&path)
        .stdin(std::process::Stdio::piped())
        .spawn()
        .expect("start install");
    let mut stdin = install.stdin.take().expect("stdin is piped");
    stdin.write_all(text.as_bytes()).expect("write the program");
    drop(stdin);
    assert!(install.wait().expect("wait for install").success());
    (folder, path)
}

#[test]
fn a_program_that_fails_says_so_and_nothing_is_tagged() {
    let archive = testdata("layered-v1.tar");
    let archive = archive.display();
    let registry = DevRegistry::start(registry::Options::default());
    let destination = format!("{}/app:v1", registry.host());
    let push = |path: &Path| {
        let limited = Pushimg::new().limit(Duration::from_secs(30));
        limited.run([path.to_str().expect("UTF-8"), &destination])
    };
    for (text, said) in [
        // The archive is complete, but the script fails.
        (
            format!(
                "#!/bin/sh\ncat {archive}\nexec >&-\nfor i in 1 2 3 4 5 6 7; do echo line $i >&2; done\nexit 7"
            ),
            &["failed (exit status: 7)", "\n  line 2\n", "\n  line 7"][..],
        ),
        (
            format!("#!/bin/sh\nhead -c 5000 {archive}\necho '\x1b[31moh' >&2\nexit 1"),
            &["exit status: 1", "\\u{1b}[31moh"],
        ),
        (format!("#!/bin/sh\ncat {archive}\nkill -9 $$"), &["signal: 9"]),
        ("#!/bin/sh\nexit 1".into(), &["exit status: 1", "without a word"]),
        ("#!/bin/sh\nexit 0".into(), &["wrote nothing to its standard output"]),
        ("#!/bin/sh\necho hello".into(), &["wrote something else to its standard output"]),
        (format!("#!/bin/sh\nhead -c 5000 {archive}"), &["truncated"]),
        ("#!/no/such/interpreter\n".into(), &["cannot be run", "interpreter"]),
        ("\x7fELF, but no program".into(), &["cannot be run"]),
    ] {
        let (_folder, path) = program(&text);
        let mut output = push(&path).exits(3).says(path.to_str().expect("UTF-8"));
        for said in said {
            output = output.says(said);
        }
        output.never_says("line 1\n");
        assert_eq!(registry.tag("app", "v1"), None, "{text}");
    }
    // The archive is complete, and the script succeeds after a short pause.
    let (_folder, path) = program(&format!("#!/bin/sh\ncat {archive}\nexec >&-\nsleep 0.2"));
    push(&path).success();
    assert!(registry.tag("app", "v1").is_some());
}

#[test]
fn a_program_is_named_by_its_path_wherever_one_stands() {
    let (folder, _) = program(&format!("#!/bin/sh\ncat {}", testdata("layered-v1.tar").display()));
    let registry = DevRegistry::start(registry::Options::default());
    let destination = format!("{}/app:v1", registry.host());
    let machine = Pushimg::new();
    let mut command = machine.command(["result", &destination]);
    command.current_dir(folder.path());
    crate::support::run::finish(command, None, Duration::from_secs(30)).success();
}

#[test]
fn a_program_ends_when_its_image_is_given_up() {
    let archive = testdata("layered-v1.tar");
    let text = format!(
        "#!/bin/sh\necho $$ > \"$0.pid\"\nhead -c 50000 {}\nhead -c 1000000 /dev/zero\nexec sleep \
         1000",
        archive.display()
    );
    let (folder, path) = program(&text);
    let mut source = open(&path, true).0.expect("a source");
    source.next_layer().expect("a layer").expect("a layer");
    let pid = fs::read_to_string(folder.path().join("result.pid")).expect("its id");
    let process = PathBuf::from(format!("/proc/{}", pid.trim()));
    assert!(process.exists());
    let started = Instant::now();
    drop(source);
    assert!(!process.exists(), "it runs on, or is a zombie");
    assert!(started.elapsed() < Duration::from_secs(5));
}

/// A path in the store of this machine, until the test ends.
struct StorePath(String);

impl StorePath {
    fn add(path: &Path) -> Self {
        let output = Command::new("nix-store").arg("--add").arg(path).output();
        let output = output.expect("start nix-store");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Self(String::from_utf8(output.stdout).expect("UTF-8").trim().to_owned())
    }
}

impl Drop for StorePath {
    fn drop(&mut self) {
        let _ = Command::new("nix-store").args(["--delete", &self.0]).output();
    }
}

#[test]
fn only_what_lies_untouched_in_the_store_is_known_by_its_key() {
    let keys = |made: &Made| {
        let mut source = made.open().expect("a source");
        let mut keys = Vec::new();
        while let Some(layer) = source.next_layer().expect("a layer") {
            keys.push(match layer.claim {
                Claim::Key(key) => Some(key),
                _ => None,
            });
        }
        keys
    };
    let elsewhere = Made::new(&json!({}));
    assert!(keys(&elsewhere).iter().all(Option::is_none), "anybody may write there");

    if !fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0) {
        eprintln!("only root has the store of a machine to itself");
        return;
    }
    let folder = TempDir::new().expect("a folder");
    let app = folder.path().join("pushimg-test-app");
    fs::create_dir(&app).expect("a folder");
    let unique = format!("{:?}", Instant::now());
    fs::write(app.join("file"), &unique).expect("a file");
    std::os::unix::fs::symlink("file", app.join("link")).expect("a link");
    let path = StorePath::add(&app);
    let with = |conf: Value| {
        let mut conf = conf;
        conf["store_dir"] = json!("/");
        Made::new(&json!({"conf": conf}))
    };
    let inside = with(json!({"store_layers": [[path.0], [path.0, elsewhere.folder.path()], []]}));
    let all = keys(&inside);
    assert!(all[0].is_some() && all[1].is_none() && all[2].is_some());
    assert_eq!(all[..3], keys(&inside)[..3], "the same again");
    let other = with(json!({"store_layers": [[path.0]], "uid": "1"}));
    assert_ne!(keys(&other)[0], all[0]);
    let theirs = inside.streamed();
    assert_same(&inside.made(), &theirs);

    // As root may do.
    let file = Path::new(&path.0).join("file");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).expect("change the mode");
    assert_eq!(keys(&inside)[0], None);
    fs::set_permissions(&file, fs::Permissions::from_mode(0o444)).expect("change the mode");
    assert_eq!(keys(&inside)[0], all[0]);
    fs::write(&file, &unique).expect("write");
    assert_eq!(keys(&inside)[0], None, "its time is another");
}
