//! Runs the `pushimg` program as a person or a CI job would: with a clean environment, a home
//! folder of its own and a time limit.

use std::ffi::{OsStr, OsString};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::measure::PeakMemory;

/// A home folder and the settings for runs that share it, as one machine's runs do.
pub struct Pushimg {
    home: TempDir,
    env: Vec<(OsString, OsString)>,
    stdin: Option<Vec<u8>>,
    limit: Duration,
}

/// The result of a run.
#[derive(Debug)]
pub struct Output {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
    pub took: Duration,
    /// Whether the time limit ended it.
    pub timed_out: bool,
}

impl Default for Pushimg {
    fn default() -> Self {
        Self::new()
    }
}

impl Pushimg {
    /// A fresh machine: no cache, no credentials; a limit of 60 s for each run.
    pub fn new() -> Self {
        let home = TempDir::new().expect("a home folder");
        for folder in ["cache", "config", "docker", "run", "tmp"] {
            std::fs::create_dir(home.path().join(folder)).expect("a folder in the home");
        }
        Self { home, env: Vec::new(), stdin: None, limit: Duration::from_secs(60) }
    }

    /// The home folder; `docker/config.json` in it is Docker's config, `tmp` is `TMPDIR`.
    pub fn home(&self) -> &Path {
        self.home.path()
    }

    /// Ends a run, and marks it as timed out, after this long.
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Sets one more environment variable.
    pub fn env(mut self, key: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.env.push((key.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    /// What the program reads from stdin; nothing otherwise.
    pub fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.stdin = Some(bytes.into());
        self
    }

    /// Writes a login into Docker's config, as `docker login` would.
    pub fn login(self, registry: &str, user: &str, password: &str) -> Self {
        use base64::Engine as _;
        let auth = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
        self.docker_config(&serde_json::json!({ "auths": { registry: { "auth": auth } } }))
    }

    /// Writes Docker's `config.json`.
    pub fn docker_config(self, config: &serde_json::Value) -> Self {
        let path = self.home.path().join("docker/config.json");
        std::fs::write(path, config.to_string()).expect("write config.json");
        self
    }

    /// The command with its environment, not yet started.
    pub fn command<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Command {
        self.program(Path::new(env!("CARGO_BIN_EXE_pushimg")), args)
    }

    fn program<S: AsRef<OsStr>>(
        &self,
        program: &Path,
        args: impl IntoIterator<Item = S>,
    ) -> Command {
        let home = self.home.path();
        let mut command = Command::new(program);
        command
            .args(args)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", home)
            .env("XDG_CACHE_HOME", home.join("cache"))
            .env("XDG_CONFIG_HOME", home.join("config"))
            .env("XDG_RUNTIME_DIR", home.join("run"))
            .env("DOCKER_CONFIG", home.join("docker"))
            .env("TMPDIR", home.join("tmp"))
            .env("RUST_BACKTRACE", "1")
            .envs(self.env.iter().map(|(key, value)| (key, value)))
            .current_dir(home);
        command
    }

    /// Starts the program with its output piped, to be killed or signalled by the test.
    pub fn spawn<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Child {
        self.command(args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("start pushimg")
    }

    /// Runs the program to its end or to the time limit.
    pub fn run<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Output {
        finish(self.command(args), self.stdin.clone(), self.limit)
    }

    pub fn push(&self, image: impl AsRef<OsStr>, destination: &str, options: &[&str]) -> Output {
        let first = [image.as_ref(), OsStr::new(destination)];
        self.run(first.into_iter().chain(options.iter().map(OsStr::new)))
    }

    /// Pushes an image, and demands that it arrives.
    #[track_caller]
    pub fn pushed(&self, image: impl AsRef<OsStr>, destination: &str, options: &[&str]) -> Output {
        self.push(image, destination, options).success()
    }

    /// Pushes an image with `--json`, and demands that it arrives.
    #[track_caller]
    pub fn pushed_json(
        &self,
        image: impl AsRef<OsStr>,
        destination: &str,
        options: &[&str],
    ) -> Output {
        self.pushed(image, destination, &[options, &["--json"]].concat())
    }

    /// As [`run`](Self::run), with the bytes of memory that it took at most. A run that ends before its memory
    /// can be read is repeated.
    pub fn run_measured<S: AsRef<OsStr>>(
        &self,
        args: impl IntoIterator<Item = S>,
    ) -> (Output, u64) {
        let args: Vec<S> = args.into_iter().collect();
        for _ in 0..10 {
            let command = self.command(&args);
            let (output, memory) = watch(command, self.stdin.clone(), self.limit, PeakMemory::of);
            if let Some(bytes) = memory.bytes() {
                return (output, bytes);
            }
        }
        panic!("ten runs ended before their memory was read");
    }
}

/// Pushes an image from a machine that knows nothing.
pub fn push(image: impl AsRef<OsStr>, destination: &str, options: &[&str]) -> Output {
    Pushimg::new().push(image, destination, options)
}

/// Pushes an image from a machine that knows nothing, and demands that it arrives.
#[track_caller]
pub fn pushed(image: impl AsRef<OsStr>, destination: &str, options: &[&str]) -> Output {
    push(image, destination, options).success()
}

/// Runs another program, demands that it succeeds, and returns what it prints.
#[track_caller]
pub fn program<S: AsRef<OsStr>>(name: &str, args: impl IntoIterator<Item = S>) -> String {
    let mut command = Command::new(name);
    command.args(args);
    finish(command, None, Duration::from_secs(120)).success().stdout
}

/// Runs a command to its end, or kills it by its pid at the limit.
pub fn finish(command: Command, stdin: Option<Vec<u8>>, limit: Duration) -> Output {
    watch(command, stdin, limit, |_| ()).0
}

/// As [`finish`]; calls `started` once the process runs.
fn watch<T>(
    mut command: Command,
    stdin: Option<Vec<u8>>,
    limit: Duration,
    started: impl FnOnce(&Child) -> T,
) -> (Output, T) {
    let began = Instant::now();
    let mut child = command
        .stdin(if stdin.is_some() { Stdio::piped() } else { Stdio::null() })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("cannot start {:?}: {error}", command.get_program()));
    let watcher = started(&child);
    // Both pipes must be read while it runs, or it stops when they are full.
    let stdout = read_aside(child.stdout.take().expect("stdout is piped"));
    let stderr = read_aside(child.stderr.take().expect("stderr is piped"));
    if let Some(bytes) = stdin {
        let mut pipe = child.stdin.take().expect("stdin is piped");
        std::thread::spawn(move || {
            // The program may end without having read it all.
            let _ = pipe.write_all(&bytes);
        });
    }
    let mut timed_out = false;
    let mut pause = Duration::from_millis(1);
    let status = loop {
        if let Some(status) = child.try_wait().expect("wait for the program") {
            break status;
        }
        if began.elapsed() > limit {
            timed_out = true;
            child.kill().expect("kill the program");
            break child.wait().expect("wait for the program");
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    };
    let text = |reader: std::thread::JoinHandle<Vec<u8>>| {
        String::from_utf8_lossy(&reader.join().expect("read the output")).into_owned()
    };
    let took = began.elapsed();
    (Output { status, took, stdout: text(stdout), stderr: text(stderr), timed_out }, watcher)
}

fn read_aside(mut pipe: impl Read + Send + 'static) -> std::thread::JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = pipe.read_to_end(&mut bytes);
        bytes
    })
}

impl Output {
    /// The exit code; `None` where a signal ended it.
    pub fn code(&self) -> Option<i32> {
        self.status.code()
    }

    /// Demands exit code 0.
    #[track_caller]
    pub fn success(self) -> Self {
        self.exits(0)
    }

    /// Demands this exit code, no panic and no time-out.
    #[track_caller]
    pub fn exits(self, code: i32) -> Self {
        assert!(!self.timed_out, "ran into the time limit\n{self}");
        assert!(!self.stderr.contains("panicked at"), "panicked\n{self}");
        assert_eq!(self.code(), Some(code), "exit code\n{self}");
        self
    }

    /// Demands that stderr contains the text.
    #[track_caller]
    pub fn says(self, text: &str) -> Self {
        assert!(self.stderr.contains(text), "no {text:?} on stderr\n{self}");
        self
    }

    /// Demands that neither stdout nor stderr contains the text: a secret, for one.
    #[track_caller]
    pub fn never_says(self, text: &str) -> Self {
        let clean = !self.stderr.contains(text) && !self.stdout.contains(text);
        assert!(clean, "{text:?} in the output\n{self}");
        self
    }

    /// The `sha256:…` in the one line of stdout.
    #[track_caller]
    pub fn digest(&self) -> String {
        let line = self.stdout.trim_end();
        assert_eq!(line.lines().count(), 1, "one line on stdout\n{self}");
        match line.rsplit_once('@') {
            Some((_, digest)) => digest.to_owned(),
            None => panic!("no digest on stdout\n{self}"),
        }
    }
}

impl Output {
    /// The document on stdout, of `--json`.
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        match serde_json::from_str(&self.stdout) {
            Ok(document) => document,
            Err(error) => panic!("stdout is not one JSON document: {error}\n{self}"),
        }
    }

    /// Demands that stderr is for a log: no escape codes, no carriage returns.
    #[track_caller]
    pub fn plain(self) -> Self {
        let clean = !self.stderr.contains(['\u{1b}', '\r']);
        assert!(clean, "escape codes without a terminal\n{self}");
        self
    }
}

impl std::fmt::Display for Output {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} after {:?}\n--- stdout\n{}--- stderr\n{}",
            self.status, self.took, self.stdout, self.stderr
        )
    }
}
