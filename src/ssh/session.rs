//! One connection to a machine: a script that finds the runtime there, and then waits for an archive
//! or for a port to pull from.

use std::fs::File;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader, Take};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::error::{Error, HasBegun};
use super::host::Host;
use super::options::Options;
use super::runtime::{Runtime, Takes, script};
use super::there::{LayersThere, There, platform_of};
use super::transfer::Encoding;
use crate::image::{Digest, Platform, Reference};

/// The most that is read of what a machine says.
const MAX_STDOUT: u64 = 64 << 20;
/// The most that is kept of its errors.
const MAX_STDERR: usize = 64 << 10;
/// How long ssh's word on a forwarded port is waited for after the machine's greeting.
const PORT_WITHIN: Duration = Duration::from_secs(5);
/// How long ssh may take to end after a script that failed, and to say why.
const END_WITHIN: Duration = Duration::from_millis(500);

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

/// How a machine is connected to, and what the image will be called there.
#[derive(Clone, Copy)]
pub struct Connect<'a> {
    pub host: &'a Host,
    pub options: &'a Options,
    pub image: &'a Reference,
    pub tags: &'a [String],
}

/// A running ssh.
struct Connection {
    host: String,
    child: Child,
    stdin: ChildStdin,
    lines: Said,
    stderr: JoinHandle<String>,
    /// Gets the port that ssh forwards, or `None` if the machine's server lets none be forwarded.
    port: oneshot::Receiver<Option<u16>>,
}

/// A machine that is ready to take an image.
pub struct Session {
    connection: Connection,
    pub there: There,
}

/// How loading or pulling an image ended.
pub struct Loaded {
    /// The image's id, where the runtime tells it.
    pub id: Option<Digest>,
}

impl Connect<'_> {
    /// Connects, and finds out what is there.
    pub async fn open(self) -> Result<Session, Error> {
        // Forwards of the configuration are for people.
        self.start(&["-o", "ClearAllForwardings=yes"]).await
    }

    /// The same with a free port of the machine forwarded to a socket of this one. The port is gone
    /// with the connection, so that has to be one of its own.
    pub async fn forwarding(self, socket: &Path, compresses: bool) -> Result<Session, Error> {
        let forward = format!("127.0.0.1:0:{}", socket.display());
        let own = ["-o", "ControlPath=none", "-o", "ExitOnForwardFailure=no"];
        let compression = if compresses { "Compression=yes" } else { "Compression=no" };
        // ssh tells the port at this level.
        let told = ["-o", "LogLevel=INFO", "-o", compression, "-R", &forward];
        self.start(&[&own[..], &told].concat()).await
    }

    async fn start(self, forwarding: &[&str]) -> Result<Session, Error> {
        let Self { host, options, image, tags } = self;
        let mut words = options.command.iter();
        let program = words.next().map_or("ssh", String::as_str);
        let mut child = Command::new(program)
            .args(words)
            // No terminal and no agent for the script. A connection that is shared already may be
            // used, but none is begun: it would stay open.
            .args(["-T", "-a", "-x", "-o", "ControlMaster=no", "-o", "RemoteCommand=none"])
            .args(["-o", "ConnectTimeout=30"])
            .args(["-o", "ServerAliveInterval=15", "-o", "ServerAliveCountMax=4"])
            .args(forwarding)
            .args(host.arguments())
            .arg(script(options, image, tags))
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
        let (telling, port) = oneshot::channel();
        let stderr = tokio::spawn(last_of(stderr, telling));
        let host = host.to_string();
        let mut connection = Connection { host, child, stdin, lines, stderr, port };
        match connection.greet().await {
            Greeting::Ready(there) => Ok(Session { connection, there }),
            Greeting::NoRuntime => {
                let wanted = options.runtime.and_then(word_of).unwrap_or("container runtime");
                Err(Error::NoRuntime { host: connection.host, wanted: wanted.to_owned() })
            }
            Greeting::Silent(said) => Err(Error::silent(connection.host, &said)),
            Greeting::Ended(begun) => Err(connection.ended(begun).await),
        }
    }
}

impl Connection {
    async fn greet(&mut self) -> Greeting {
        let mut begun = HasBegun::No;
        let mut failed: Option<String> = None;
        let (mut platform, mut runtime) = (None, None);
        let (mut encoding, mut kept) = (Encoding::Plain, Vec::new());
        let mut listed = Vec::new();
        let mut is_unlisted = false;
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
                ("runtime", key) => runtime = Runtime::by_key(key),
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
                        let layers = match runtime.takes {
                            Takes::Pulled { .. } => LayersThere::None,
                            Takes::Missing { known, .. } => LayersThere::read(known, &listed),
                        };
                        let unlisted = is_unlisted.then(|| listed.pop().unwrap_or_default());
                        let there = There { runtime, platform, layers, unlisted, encoding, kept };
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
}

impl Session {
    /// The machine's port that is forwarded; `None` if its server forwards none.
    pub async fn port(&mut self) -> Option<u16> {
        let told = tokio::time::timeout(PORT_WITHIN, &mut self.connection.port).await;
        told.ok().and_then(Result::ok).flatten()
    }

    /// Tells the machine to wait for the archive with this key, or for what is missing of it, and
    /// returns where to write it. `kept` is the file that has the beginning.
    pub fn load(
        self,
        encoding: Encoding,
        key: &str,
        kept: Option<&(String, u64)>,
    ) -> std::io::Result<(File, Loading)> {
        let Connection { host, child, stdin, lines, stderr, .. } = self.connection;
        let mut pipe = File::from(stdin.into_owned_fd()?);
        // Two connections may be processes of one number, one after the other or in containers.
        let number: u32 = rand::random();
        let kept = kept.map(|(name, length)| format!("{name} {length}")).unwrap_or_default();
        let line = format!("load {} {key} {number} {kept}\n", encoding.word());
        std::io::Write::write_all(&mut pipe, line.as_bytes())?;
        let runtime = self.there.runtime;
        Ok((pipe, Loading { host, child, lines, stderr, runtime, _stdin: None }))
    }

    /// Tells the machine to pull from its port.
    pub async fn pull(mut self, port: u16, platform: &Platform) -> std::io::Result<Loading> {
        let platform = platform.to_string();
        // An image may say anything.
        let is_word = platform.chars().all(|c| c.is_ascii_alphanumeric() || "._/-".contains(c));
        let platform = if is_word { platform.as_str() } else { "" };
        let line = format!("pull {port} {platform}\n");
        self.connection.stdin.write_all(line.as_bytes()).await?;
        let Connection { host, child, stdin, lines, stderr, .. } = self.connection;
        let runtime = self.there.runtime;
        Ok(Loading { host, child, lines, stderr, runtime, _stdin: Some(stdin) })
    }

    /// Ends without an image.
    pub async fn leave(mut self) {
        drop(self.connection.stdin);
        let _ = self.connection.child.wait().await;
    }
}

/// A machine that is being sent an archive, or that pulls.
pub struct Loading {
    host: String,
    child: Child,
    lines: Said,
    stderr: JoinHandle<String>,
    runtime: &'static Runtime,
    /// While the machine pulls, it is sent nothing.
    _stdin: Option<ChildStdin>,
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
        // The script has ended. ssh ends with it, unless the runtime still has a connection open
        // through the forwarded port.
        let within = if status == Some(true) { Duration::ZERO } else { END_WITHIN };
        if tokio::time::timeout(within, self.child.wait()).await.is_err() {
            let _ = self.child.kill().await;
        }
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

fn word_of(name: super::options::RuntimeName) -> Option<&'static str> {
    super::runtime::RUNTIMES.iter().find(|row| row.name == name).map(|row| row.word)
}

/// The last that a program says, however much it is. On the way, ssh's word on the port that it
/// forwards is passed on.
async fn last_of(
    mut from: impl AsyncRead + Unpin,
    telling: oneshot::Sender<Option<u16>>,
) -> String {
    let mut kept: Vec<u8> = Vec::new();
    let mut buffer = vec![0; 8 << 10];
    let mut telling = Some(telling);
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        kept.extend_from_slice(&buffer[..read]);
        if telling.is_some()
            && let Some(port) = forwarded(&String::from_utf8_lossy(&kept))
            && let Some(telling) = telling.take()
        {
            // The session may be over by now.
            let _ = telling.send(port);
        }
        if kept.len() > MAX_STDERR {
            kept.drain(..kept.len() - MAX_STDERR / 2);
        }
    }
    String::from_utf8_lossy(&kept).into_owned()
}

/// What OpenSSH says of a port that it was to choose and to forward: the port, or that there is none.
fn forwarded(said: &str) -> Option<Option<u16>> {
    let (complete, _) = said.rsplit_once('\n')?;
    complete.lines().find_map(|line| {
        if line.contains("remote port forwarding failed for listen port 0") {
            return Some(None);
        }
        let (_, after) = line.split_once("Allocated port ")?;
        let (port, _) = after.split_once(" for remote forward")?;
        Some(port.parse().ok())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_is_what_ssh_says_in_a_whole_line() {
        let ours = "Allocated port 43210 for remote forward to /tmp/x/registry:-2\r\n";
        assert_eq!(forwarded("Allocated port 432"), None);
        assert_eq!(forwarded(&format!("Welcome\n{ours}")), Some(Some(43210)));
        let refused = "Warning: remote port forwarding failed for listen port 0\n";
        assert_eq!(forwarded(refused), Some(None));
        assert_eq!(forwarded(&refused.replace("port 0", "port 8080")), None);
    }
}
