//! One connection to a machine: a script that finds the runtime there and then waits for an archive.

use std::collections::HashSet;
use std::fs::File;
use std::process::Stdio;

use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader, Take};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::task::JoinHandle;

use super::error::{Error, HasBegun};
use super::host::Host;
use super::options::Options;
use super::runtime::{Known, Runtime, script};
use super::transfer::Encoding;
use crate::image::{DiffId, Digest, Platform, Reference};

/// The most that is read of what a machine says.
const MAX_STDOUT: u64 = 64 << 20;
/// The most that is kept of its errors.
const MAX_STDERR: usize = 64 << 10;

/// What tells this program's lines from what login scripts and loaders print.
const MARK: &str = "pushimg:";

/// What a machine says, in lines. A login script may print what is no UTF-8.
struct Said(BufReader<Take<ChildStdout>>);

impl Said {
    async fn next(&mut self) -> Option<String> {
        let mut line = Vec::new();
        let read = self.0.read_until(b'\n', &mut line).await.ok()?;
        let line = line.strip_suffix(b"\n").unwrap_or(&line);
        (read > 0).then(|| String::from_utf8_lossy(line).into_owned())
    }
}

/// A machine that is ready to take an archive.
pub struct Session {
    host: String,
    child: Child,
    stdin: ChildStdin,
    lines: Said,
    stderr: JoinHandle<String>,
    pub there: There,
}

/// What was found on a machine.
pub struct There {
    pub runtime: &'static Runtime,
    pub platform: Option<Platform>,
    pub layers: LayersThere,
    /// The last line of a list that the runtime could not finish.
    pub unlisted: Option<String>,
    /// Whether the runtime takes only archives with all layers. Then its ids are not the configs'
    /// digests either.
    pub is_whole: bool,
    /// The best way to compress an archive that the machine can undo.
    pub encoding: Encoding,
    /// What earlier connections left of archives: names and lengths.
    pub kept: Vec<(String, u64)>,
}

impl There {
    pub fn new(runtime: &'static Runtime) -> Self {
        Self {
            runtime,
            platform: None,
            layers: LayersThere::None,
            unlisted: None,
            is_whole: false,
            encoding: Encoding::Plain,
            kept: Vec::new(),
        }
    }

    /// What is left of the archive with this key: the file's name, and how many bytes it has.
    pub fn kept(&self, key: &str) -> Option<(&str, u64)> {
        let is_of = |name: &str| name.split('.').next() == Some(key);
        let of_key = self.kept.iter().filter(|(name, _)| is_of(name));
        of_key.max_by_key(|(_, length)| *length).map(|(name, length)| (name.as_str(), *length))
    }
}

/// The layers that a runtime has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum LayersThere {
    /// None that could be left out.
    #[default]
    None,
    /// The layers of its images, lowest first. A layer counts only upon the same lower ones.
    Chains(Vec<Vec<DiffId>>),
    /// Layers that are found by their diff IDs.
    DiffIds(HashSet<DiffId>),
    /// Blobs that are found by their digests.
    Blobs(HashSet<Digest>),
}

/// How loading an archive ended.
pub struct Loaded {
    /// The image's id, where the runtime tells it.
    pub id: Option<Digest>,
}

impl Session {
    /// Connects, and finds out what is there.
    pub async fn open(
        host: &Host,
        options: &Options,
        image: &Reference,
        tag: &str,
    ) -> Result<Self, Error> {
        let mut words = options.command.iter();
        let program = words.next().map_or("ssh", String::as_str);
        let mut child = Command::new(program)
            .args(words)
            // No terminal, no agent and no forwards for the script; those of the configuration are
            // for people. A connection that is shared already may be used, but none is begun: it
            // would stay open.
            .args(["-T", "-a", "-x", "-o", "ControlMaster=no", "-o", "RemoteCommand=none"])
            .args(["-o", "ClearAllForwardings=yes", "-o", "ConnectTimeout=30"])
            .args(["-o", "ServerAliveInterval=15", "-o", "ServerAliveCountMax=4"])
            .args(host.arguments())
            .arg(script(options, image, tag))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|source| Error::NoSsh { program: program.to_owned(), source })?;
        let pipes = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let (Some(stdin), Some(stdout), Some(stderr)) = pipes else {
            let source = std::io::Error::other("it has no pipes");
            return Err(Error::NoSsh { program: program.to_owned(), source });
        };
        let lines = Said(BufReader::new(stdout.take(MAX_STDOUT)));
        let stderr = tokio::spawn(last_of(stderr));
        let there = There::new(&super::runtime::RUNTIMES[0]);
        let mut session = Self { host: host.to_string(), child, stdin, lines, stderr, there };
        match session.greet().await {
            Greeting::Ready(there) => Ok(Self { there, ..session }),
            Greeting::NoRuntime => {
                let wanted = options.runtime.and_then(word_of).unwrap_or("container runtime");
                Err(Error::NoRuntime { host: session.host, wanted: wanted.to_owned() })
            }
            Greeting::Silent(said) => Err(Error::silent(session.host, &said)),
            Greeting::Ended(begun) => Err(session.ended(begun).await),
        }
    }

    async fn greet(&mut self) -> Greeting {
        let mut begun = HasBegun::No;
        let mut failed: Option<String> = None;
        let (mut platform, mut runtime) = (None, None);
        let (mut encoding, mut kept) = (Encoding::Plain, Vec::new());
        let mut listed = Vec::new();
        let (mut is_whole, mut is_unlisted) = (false, false);
        while let Some(line) = self.lines.next().await {
            let Some(ours) = line.strip_prefix(MARK) else {
                match (&mut failed, runtime) {
                    (_, Some(_)) => listed.push(line),
                    (Some(said), None) => {
                        said.push_str(&line);
                        said.push('\n');
                    }
                    (None, None) => {}
                }
                continue;
            };
            match ours.split_once(' ').unwrap_or((ours, "")) {
                ("begin", _) => begun = HasBegun::Yes,
                ("machine", name) => platform = platform_of(name),
                ("failed", _) => {
                    failed.get_or_insert_default();
                }
                ("none", _) => {
                    return failed.map_or(Greeting::NoRuntime, Greeting::Silent);
                }
                ("runtime", word) => runtime = Runtime::by_word(word),
                ("whole", _) => is_whole = true,
                ("unlisted", _) => is_unlisted = true,
                // The best one comes last.
                ("encoding", word) => encoding = Encoding::by_word(word).unwrap_or(encoding),
                ("kept", file) => {
                    let file = file.split_once(' ');
                    let length = file.and_then(|(_, length)| length.trim().parse().ok());
                    kept.extend(file.zip(length).map(|((name, _), it)| (name.to_owned(), it)));
                }
                ("ready", _) => match runtime {
                    Some(runtime) => {
                        let layers = match is_whole {
                            true => LayersThere::None,
                            false => LayersThere::read(runtime.known, &listed),
                        };
                        let unlisted = is_unlisted.then(|| listed.pop().unwrap_or_default());
                        let there = There {
                            platform,
                            layers,
                            unlisted,
                            is_whole,
                            encoding,
                            kept,
                            ..There::new(runtime)
                        };
                        return Greeting::Ready(there);
                    }
                    None => return Greeting::Ended(begun),
                },
                _ => {}
            }
        }
        Greeting::Ended(begun)
    }

    /// What the end of the connection means.
    async fn ended(mut self, begun: HasBegun) -> Error {
        drop(self.stdin);
        drop(self.lines);
        let _ = self.child.wait().await;
        let said = self.stderr.await.unwrap_or_default();
        Error::ended(self.host, &said, begun)
    }

    /// Tells the machine to wait for the archive with this key, or for what is missing of it, and
    /// returns where to write it. `kept` is the file that has the beginning.
    pub fn begin(
        self,
        encoding: Encoding,
        key: &str,
        kept: Option<&(String, u64)>,
    ) -> std::io::Result<(File, Loading)> {
        let Self { host, child, stdin, lines, stderr, there } = self;
        let mut pipe = File::from(stdin.into_owned_fd()?);
        // Two connections may be processes of one number, one after the other or in containers.
        let number: u32 = rand::random();
        let kept = kept.map(|(name, length)| format!("{name} {length}")).unwrap_or_default();
        let line = format!("load {} {key} {number} {kept}\n", encoding.word());
        std::io::Write::write_all(&mut pipe, line.as_bytes())?;
        let runtime = there.runtime;
        Ok((pipe, Loading { host, child, lines, stderr, runtime }))
    }

    /// Ends without an archive.
    pub async fn leave(mut self) {
        drop(self.stdin);
        let _ = self.child.wait().await;
    }
}

/// A machine that is being sent an archive.
pub struct Loading {
    host: String,
    child: Child,
    lines: Said,
    stderr: JoinHandle<String>,
    runtime: &'static Runtime,
}

impl Loading {
    /// Waits for the runtime's word, after the archive was written or could not be.
    pub async fn finish(mut self) -> Result<Loaded, Error> {
        let (mut id, mut status, mut is_unkept) = (None, None, false);
        while let Some(line) = self.lines.next().await {
            let ours = line.strip_prefix(MARK).unwrap_or_default();
            match ours.split_once(' ').unwrap_or((ours, "")) {
                ("id", text) => id = text.trim().parse().ok(),
                ("status", code) => status = Some(code == "0"),
                ("unkept", _) => is_unkept = true,
                _ => {}
            }
        }
        let _ = self.child.wait().await;
        let said = self.stderr.await.unwrap_or_default();
        match status {
            _ if is_unkept => Err(Error::unkept(self.host, &said)),
            Some(true) => Ok(Loaded { id }),
            Some(false) => Err(Error::load(self.host, self.runtime.word, &said)),
            None => Err(Error::ended(self.host, &said, HasBegun::Yes)),
        }
    }
}

/// How a machine answered.
enum Greeting {
    Ready(There),
    NoRuntime,
    /// A runtime is there, and does not answer.
    Silent(String),
    Ended(HasBegun),
}

impl LayersThere {
    /// Reads a runtime's list. Lines that are none of it are left out: they are a login script's.
    fn read(known: Known, lines: &[String]) -> Self {
        let chains = || {
            lines.iter().filter_map(|line| serde_json::from_str::<Vec<DiffId>>(line.trim()).ok())
        };
        match known {
            Known::Chains => Self::Chains(chains().collect()),
            Known::DiffIds => Self::DiffIds(chains().flatten().collect()),
            Known::Blobs => {
                Self::Blobs(lines.iter().filter_map(|line| line.trim().parse().ok()).collect())
            }
        }
    }

    /// The digest of the list. The order does not count.
    pub fn digest(&self) -> Digest {
        let mut all: Vec<String> = match self {
            Self::None => Vec::new(),
            Self::Chains(chains) => chains.iter().map(|chain| format!("{chain:?}")).collect(),
            Self::DiffIds(ids) => ids.iter().map(ToString::to_string).collect(),
            Self::Blobs(blobs) => blobs.iter().map(ToString::to_string).collect(),
        };
        all.sort_unstable();
        Digest::of(all.join(" ").as_bytes())
    }

    /// How many of these layers, from the lowest, a graph driver has as a chain.
    pub fn prefix(&self, diff_ids: &[DiffId]) -> usize {
        let Self::Chains(chains) = self else { return 0 };
        let shared = |chain: &Vec<DiffId>| {
            chain.iter().zip(diff_ids).take_while(|(theirs, ours)| theirs == ours).count()
        };
        chains.iter().map(shared).max().unwrap_or(0)
    }
}

fn word_of(name: super::options::RuntimeName) -> Option<&'static str> {
    super::runtime::RUNTIMES.iter().find(|row| row.name == name).map(|row| row.word)
}

/// What `uname -m` means.
fn platform_of(machine: &str) -> Option<Platform> {
    let (architecture, variant) = match machine.trim() {
        "x86_64" | "amd64" => ("amd64", None),
        "aarch64" | "arm64" => ("arm64", None),
        "armv7l" => ("arm", Some("v7")),
        "armv6l" => ("arm", Some("v6")),
        "i386" | "i686" => ("386", None),
        "" => return None,
        other => (other, None),
    };
    Some(Platform {
        os: "linux".to_owned(),
        architecture: architecture.to_owned(),
        variant: variant.map(str::to_owned),
    })
}

/// The last that a program says, however much it is.
async fn last_of(mut from: impl AsyncRead + Unpin) -> String {
    let mut kept: Vec<u8> = Vec::new();
    let mut buffer = vec![0; 8 << 10];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        kept.extend_from_slice(&buffer[..read]);
        if kept.len() > MAX_STDERR {
            kept.drain(..kept.len() - MAX_STDERR / 2);
        }
    }
    String::from_utf8_lossy(&kept).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn docker_knows_a_layer_only_upon_those_below_it() {
        let id = |text: &str| DiffId::from(Digest::of(text.as_bytes()));
        let [a, b, c] = ["a", "b", "c"].map(id);
        let line = |ids: &[&DiffId]| serde_json::to_string(ids).unwrap();
        let lines = ["Welcome!".to_owned(), line(&[&a, &c]), line(&[&a, &b, &c])];
        let there = LayersThere::read(Known::Chains, &lines);
        assert_eq!(there.prefix(&[a.clone(), b.clone()]), 2);
        assert_eq!(there.prefix(&[a.clone(), c.clone(), b.clone()]), 2);
        assert_eq!(there.prefix(&[b.clone(), a.clone()]), 0);
        let LayersThere::DiffIds(ids) = LayersThere::read(Known::DiffIds, &lines) else { panic!() };
        assert!(ids.contains(&b) && ids.len() == 3);
    }

    #[test]
    fn a_machine_is_a_platform() {
        assert_eq!(platform_of("x86_64").unwrap().to_string(), "linux/amd64");
        assert_eq!(platform_of("armv7l").unwrap().to_string(), "linux/arm/v7");
        assert_eq!(platform_of(""), None);
    }
}
