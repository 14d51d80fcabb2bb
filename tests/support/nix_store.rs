//! Streamed images over store paths of this machine. pushimg knows a path by its name only if it is
//! in `/nix/store` itself and as Nix left it, so the tests need a real store.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::archive::{Layer, sha256};
use super::run::program;

const STORE: &str = "/nix/store";

/// What the digits of a store path's hash are.
const DIGITS: &[u8] = b"0123456789abcdfghijklmnpqrsvwxyz";

/// Store paths made by this process.
static COUNT: AtomicU32 = AtomicU32::new(0);

/// A store path; it is removed when this is dropped.
pub struct StorePath(PathBuf);

impl StorePath {
    /// Creates these files below the path. If the store cannot be written to, it prints that and
    /// returns `None`.
    pub fn new(name: &str, files: &[(&str, &[u8])]) -> Option<Self> {
        // The hash is unique to this process and to this path.
        let seed = (std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let hash = sha256(format!("{seed:?} {name}").as_bytes());
        let digits = hash.bytes().skip("sha256:".len()).collect::<Vec<_>>();
        let digit = |pair: &[u8]| {
            let value = pair.iter().fold(0, |sum, hex| {
                16 * sum + char::from(*hex).to_digit(16).expect("a digit") as usize
            });
            char::from(DIGITS[value % DIGITS.len()])
        };
        let digits: String = digits.chunks(2).map(digit).collect();
        let path = Path::new(STORE).join(format!("{digits}-{name}"));
        // Another test may take the empty store away at the same time.
        if !(0..20).any(|_| fs::create_dir_all(&path).is_ok()) {
            eprintln!("not run: {STORE} cannot be written to by this user");
            return None;
        }
        let path = Self(path);
        for (file, content) in files {
            let file = path.0.join(file);
            fs::create_dir_all(file.parent().expect("a folder")).expect("a folder in the store");
            fs::write(&file, content).expect("a file in the store");
        }
        path.settle();
        Some(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The path as it stands in a conf.
    pub fn text(&self) -> &str {
        self.0.to_str().expect("a path in UTF-8")
    }

    /// Sets modes and times as Nix does: read-only, and one second after the epoch.
    fn settle(&self) {
        program("chmod", ["-R", "a-w,a+rX", self.text()]);
        program("find", [self.text(), "-exec", "touch", "-hd", "@1", "{}", "+"]);
    }

    /// Replaces the content of each file by other bytes, with the same length, mode and time. A push
    /// that reads the files makes another layer; one that only looks at them sees no difference.
    pub fn garble(&self) {
        let files = program("find", [self.text(), "-type", "f"]);
        for file in files.lines() {
            let length = fs::metadata(file).expect("a file").len() as usize;
            fs::set_permissions(file, Permissions::from_mode(0o644)).expect("set a mode");
            fs::write(file, vec![b'?'; length]).expect("write a file");
        }
        self.settle();
    }
}

impl Drop for StorePath {
    fn drop(&mut self) {
        // Only root can remove a read-only folder's files.
        let _ = Command::new("chmod").args(["-R", "u+w"]).arg(&self.0).status();
        let _ = fs::remove_dir_all(&self.0);
        // Stays where it holds anything else.
        let _ = fs::remove_dir(STORE);
    }
}

/// The files that `dockerTools.streamLayeredImage` makes, in a temporary folder.
pub struct Streamed(TempDir);

impl Streamed {
    /// An image of these layers and one prebuilt layer.
    pub fn new(layers: &[&[&StorePath]]) -> Self {
        Self::with(layers, &json!({}))
    }

    /// The same, with fields of the conf laid over the usual ones.
    pub fn with(layers: &[&[&StorePath]], fields: &Value) -> Self {
        let folder = TempDir::new().expect("a folder");
        let at = |name: &str| folder.path().join(name).to_str().expect("UTF-8").to_owned();
        fs::create_dir(at("customisation")).expect("a folder");
        let ready = Layer::file("ready", b"ready");
        fs::write(at("customisation/layer.tar"), &ready.tar).expect("a layer");
        let checksum = ready.diff_id().replace("sha256:", "");
        fs::write(at("customisation/checksum"), checksum).expect("a checksum");
        let layers = layers.iter().map(|paths| paths.iter().map(|path| path.text()).collect());
        let layers: Vec<Vec<&str>> = layers.collect();
        let mut conf = json!({
            "architecture": "amd64",
            "os": "linux",
            "config": { "Cmd": ["/bin/app"] },
            "store_dir": STORE,
            "from_image": null,
            "store_layers": layers,
            "customisation_layer": at("customisation"),
            "repo_tag": "registry.example/app:v1",
            "created": "1970-01-01T00:00:01+00:00",
            "mtime": "1970-01-01T00:00:01+00:00",
            "uid": "0",
            "gid": "0",
            "uname": "root",
            "gname": "root",
        });
        for (key, value) in fields.as_object().expect("fields") {
            conf[key] = value.clone();
        }
        fs::write(at("conf.json"), conf.to_string()).expect("write a conf");
        let text = "import os, sys; print(os.path.realpath(sys.executable), end='')";
        let python = program("python3", ["-c", text]);
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/stream_image.py");
        let script = fs::read_to_string(script).expect("the script");
        executable(Path::new(&at("stream")), &script.replace("@PYTHON@", &python));
        let wrapper =
            format!("#! /bin/sh -e\nexec \"{}\"  {} \"$@\" \n", at("stream"), at("conf.json"));
        executable(Path::new(&at("result")), &wrapper);
        Self(folder)
    }

    /// A file of it: `result`, `stream`, `conf.json`.
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// The path that a user gives to pushimg.
    pub fn result(&self) -> String {
        self.path("result").to_str().expect("UTF-8").to_owned()
    }

    /// Runs the script, and stores its output in a file.
    pub fn archive(&self) -> PathBuf {
        let path = self.path("archive.tar");
        let status = Command::new(self.path("result"))
            .stdout(fs::File::create(&path).expect("a file"))
            .stderr(Stdio::null())
            .status();
        assert!(status.expect("run the script").success());
        path
    }
}

/// Writes an executable file. Another process writes it: while this process forks for other tests,
/// a file that it has open for writing cannot be run.
pub fn executable(path: &Path, text: &str) {
    use std::io::Write;
    let mut install = Command::new("install")
        .args(["-m", "755", "/dev/stdin"])
        .arg(path)
        .stdin(Stdio::piped())
        .spawn()
        .expect("start install");
    let mut stdin = install.stdin.take().expect("stdin is piped");
    stdin.write_all(text.as_bytes()).expect("write the program");
    drop(stdin);
    assert!(install.wait().expect("wait for install").success());
}
