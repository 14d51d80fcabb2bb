//! One connection to a machine. It runs a script that finds the runtime, and then waits for an
//! archive or for a port to pull from.

use std::fs::File;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Take};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::error::{Error, Reached};
use super::host::Host;
use super::options::Options;
use super::runtime::{Runtime, script};
use super::stderr::SshErrors;
use super::there::{LayersThere, There, platform_of};
use super::transfer::Encoding;
use crate::image::{Digest, Platform, Reference};

/// The most bytes that are read of a machine's output.
const MAX_STDOUT: u64 = 64 << 20;
/// How long to wait, after the machine's greeting, until ssh reports the forwarded port.
const PORT_WITHIN: Duration = Duration::from_secs(5);
/// How long a machine that has answered may take for its next line.
const ANSWER_WITHIN: Duration = Duration::from_secs(120);
/// How long a connection may take to end that is no longer needed.
const LEAVE_WITHIN: Duration = Duration::from_secs(5);
/// Marks the lines for this program, among the output of login scripts and loaders.
const MARK: &str = "pushimg:";

/// The output of a machine as lines. A login script may print invalid UTF-8.
struct Said(BufReader<Take<ChildStdout>>);

impl Said {
    async fn next(&mut self) -> Option<String> {
        let mut line = Vec::new();
        let read = self.0.read_until(b'\n', &mut line).await.ok()?;
        let line = line.strip_suffix(b"\n").unwrap_or(&line);
        (read > 0).then(|| String::from_utf8_lossy(line).into_owned())
    }
}

/// How to connect to a machine, and the image's name there.
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
    stderr: SshErrors,
    /// Receives the port that ssh forwards, or `None` if the machine's SSH server does not allow
    /// forwarding.
    port: oneshot::Receiver<Option<u16>>,
}

/// A machine that is ready to receive an image.
pub struct HostSession {
    connection: Connection,
    pub there: There,
}

impl Connect<'_> {
    /// Connects, and finds out what the machine has.
    pub async fn open(self) -> Result<HostSession, Error> {
        // Forwards in the user's SSH configuration are not needed here.
        self.start(&["-o", "ClearAllForwardings=yes"], None).await
    }

    /// Connects to a runtime that was found before, and forwards a free port of the machine to a
    /// socket of this machine. The port closes with the connection, so this is a separate
    /// connection.
    pub async fn forwarding(
        self,
        found: &'static Runtime,
        socket: &Path,
        compresses: bool,
    ) -> Result<HostSession, Error> {
        let forward = format!("127.0.0.1:0:{}", socket.display());
        let own = ["-S", "none", "-o", "ClearAllForwardings=no", "-o", "ExitOnForwardFailure=no"];
        let compression = if compresses { "Compression=yes" } else { "Compression=no" };
        // ssh reports the port at this log level.
        let told = ["-o", "LogLevel=INFO", "-o", compression, "-R", &forward];
        self.start(&[&own[..], &told].concat(), Some(found)).await
    }

    async fn start(
        self,
        forwarding: &[&str],
        found: Option<&Runtime>,
    ) -> Result<HostSession, Error> {
        let Self { host, options, image, tags } = self;
        let mut words = options.command.iter();
        let program = words.next().map_or("ssh", String::as_str);
        let mut child = Command::new(program)
            // The user's words may call ssh through another program, so our options come after
            // them.
            .args(words)
            // The script needs no terminal and no agent. An existing shared connection may be used,
            // but none is created, because it would stay open.
            .args(["-T", "-a", "-x", "-o", "ControlMaster=no", "-o", "RemoteCommand=none"])
            .args(["-o", "ConnectTimeout=30"])
            .args(["-o", "ServerAliveInterval=15", "-o", "ServerAliveCountMax=4"])
            .args(forwarding)
            .args(host.arguments())
            .arg(script(options, image, tags, found))
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
        let stderr = SshErrors::of(stderr, telling);
        let host = host.to_string();
        let mut connection = Connection { host, child, stdin, lines, stderr, port };
        match connection.greet().await {
            Greeting::Ready(there) => Ok(HostSession { connection, there }),
            Greeting::NoRuntime => {
                let wanted = options.runtime.and_then(word_of).unwrap_or("container runtime");
                Err(Error::NoRuntime { host: connection.host, wanted: wanted.to_owned() })
            }
            Greeting::Silent(said) => Err(Error::silent(connection.host, &said)),
            Greeting::Ended(begun, said) => Err(connection.ended(begun, &said).await),
        }
    }
}

impl Connection {
    async fn greet(&mut self) -> Greeting {
        let mut begun = Reached::Nothing;
        let mut failed: Option<String> = None;
        let (mut platform, mut runtime) = (None, None);
        let (mut encoding, mut kept) = (Encoding::Plain, Vec::new());
        let (mut listed, mut last) = (Vec::new(), String::new());
        let (mut is_unlisted, mut can_receive) = (false, true);
        loop {
            let next = match begun {
                // The user may be asked for a password.
                Reached::Nothing => Ok(self.lines.next().await),
                Reached::Machine | Reached::Image => {
                    timeout(ANSWER_WITHIN, self.lines.next()).await
                }
            };
            let line = match next {
                Ok(Some(line)) => line,
                Ok(None) => break,
                Err(_) => {
                    let said = format!("no answer within {} seconds", ANSWER_WITHIN.as_secs());
                    return Greeting::Silent(said);
                }
            };
            let Some(ours) = line.strip_prefix(MARK) else {
                match (&mut failed, runtime) {
                    (_, Some(_)) => listed.push(line),
                    (Some(said), None) => {
                        said.push_str(&line);
                        said.push('\n');
                    }
                    // The output of a login script, or the reason why there is no shell.
                    (None, None) => last = line,
                }
                continue;
            };
            match ours.split_once(' ').unwrap_or((ours, "")) {
                ("begin", _) => {
                    begun = Reached::Machine;
                    last.clear();
                }
                ("machine", name) => platform = platform_of(name),
                ("failed", _) => {
                    failed.get_or_insert_default();
                }
                ("none", _) => {
                    return failed.map_or(Greeting::NoRuntime, Greeting::Silent);
                }
                ("runtime", key) => runtime = Runtime::by_key(key),
                ("unlisted", _) => is_unlisted = true,
                ("nodd", _) => can_receive = false,
                // The script lists the best encoding last.
                ("encoding", word) => encoding = Encoding::by_word(word).unwrap_or(encoding),
                ("kept", file) => {
                    let file = file.split_once(' ');
                    let length = file.and_then(|(_, length)| length.trim().parse().ok());
                    kept.extend(file.zip(length).map(|((name, _), it)| (name.to_owned(), it)));
                }
                ("ready", _) => match runtime {
                    Some(runtime) => {
                        let layers = LayersThere::read(runtime.lists, &listed);
                        let unlisted = is_unlisted.then(|| listed.pop().unwrap_or_default());
                        let there = There {
                            runtime,
                            platform,
                            layers,
                            unlisted,
                            encoding,
                            kept,
                            can_receive,
                        };
                        return Greeting::Ready(there);
                    }
                    None => return Greeting::Ended(begun, last),
                },
                _ => {}
            }
        }
        Greeting::Ended(begun, last)
    }

    /// What the end of the connection means. `last` is the last line of standard output.
    async fn ended(self, begun: Reached, last: &str) -> Error {
        let Self { host, child, stderr, .. } = self;
        let (said, code) = stderr.last(child).await;
        Error::ended(host, &format!("{said}\n{last}"), begun, code)
    }
}

impl HostSession {
    /// The port of the machine that is forwarded.
    pub async fn port(mut self) -> Result<(Self, u16), Error> {
        let said = match timeout(PORT_WITHIN, &mut self.connection.port).await {
            Ok(Ok(Some(port))) => return Ok((self, port)),
            Ok(Ok(None)) => "its SSH server forwards no ports",
            // ssh has ended.
            Ok(Err(_)) => return Err(self.connection.ended(Reached::Machine, "").await),
            Err(_) => "ssh does not tell the port that it forwards; it must not be called with -q",
        };
        let host = self.connection.host.clone();
        self.leave().await;
        Err(Error::Pull { host, said: said.to_owned() })
    }

    /// Tells the machine to receive the archive with this key, or the rest of it, and returns where
    /// to write it. `kept` is the file on the machine with the beginning.
    pub async fn load(
        self,
        encoding: Encoding,
        key: &str,
        kept: Option<&(String, u64)>,
    ) -> Result<(File, Loading), Error> {
        // Two connections may have the same process ID on the machine, at different times or in
        // containers, so add a random number.
        let number: u32 = rand::random();
        let kept = kept.map(|(name, length)| format!("{name} {length}")).unwrap_or_default();
        let (pipe, loading) =
            self.tell(format!("load {} {key} {number} {kept}\n", encoding.word())).await?;
        match pipe.into_owned_fd() {
            Ok(pipe) => Ok((File::from(pipe), loading)),
            Err(_) => Err(Error::ended(loading.host, "its pipe is closed", Reached::Machine, None)),
        }
    }

    /// Tells the machine to pull the image with this digest from its port.
    pub async fn pull(
        self,
        port: u16,
        image: &Digest,
        platform: &Platform,
    ) -> Result<RunningPull, Error> {
        let is_named = !platform.os.is_empty() && !platform.architecture.is_empty();
        let platform = platform.to_string();
        // An image's config may contain any text as its platform.
        let is_word = platform.chars().all(|c| c.is_ascii_alphanumeric() || "._/-".contains(c));
        let platform = if is_word && is_named { platform.as_str() } else { "" };
        let (stdin, loading) = self.tell(format!("pull {port} {image} {platform}\n")).await?;
        Ok(RunningPull { loading, _stdin: stdin })
    }

    async fn tell(mut self, line: String) -> Result<(ChildStdin, Loading), Error> {
        if self.connection.stdin.write_all(line.as_bytes()).await.is_err() {
            return Err(self.connection.ended(Reached::Machine, "").await);
        }
        let Connection { host, child, stdin, lines, stderr, .. } = self.connection;
        let runtime = self.there.runtime;
        Ok((stdin, Loading { host, child, lines, stderr, runtime, heard: Heard::default() }))
    }

    /// Ends the connection without sending an image.
    pub async fn leave(mut self) {
        drop(self.connection.stdin);
        // Dropping it ends it, if it goes on.
        let _ = timeout(LEAVE_WITHIN, self.connection.child.wait()).await;
    }
}

/// A machine that is receiving an archive.
pub struct Loading {
    host: String,
    child: Child,
    lines: Said,
    stderr: SshErrors,
    runtime: &'static Runtime,
    heard: Heard,
}

/// A machine that is pulling.
pub struct RunningPull {
    loading: Loading,
    /// Kept open during the pull; nothing is written to it.
    _stdin: ChildStdin,
}

/// What the script has reported at its end.
#[derive(Default)]
struct Heard {
    id: Option<Digest>,
    is_loaded: Option<bool>,
    is_unkept: bool,
    is_damaged: bool,
}

impl Loading {
    /// Waits until the script reports its result.
    async fn hear(&mut self) {
        while let Some(line) = self.lines.next().await {
            let ours = line.strip_prefix(MARK).unwrap_or_default();
            match ours.split_once(' ').unwrap_or((ours, "")) {
                ("id", text) => self.heard.id = text.trim().parse().ok(),
                ("unkept", _) => self.heard.is_unkept = true,
                ("damaged", _) => self.heard.is_damaged = true,
                ("status", code) => {
                    self.heard.is_loaded = Some(code == "0");
                    return;
                }
                _ => {}
            }
        }
    }

    /// Waits for the image's ID, if the runtime reports it. `reached` says whether all of the archive was written.
    pub async fn finish(mut self, reached: Reached) -> Result<Option<Digest>, Error> {
        self.hear().await;
        self.end(reached).await
    }

    async fn end(self, reached: Reached) -> Result<Option<Digest>, Error> {
        let Self { host, child, stderr, runtime, heard, .. } = self;
        if let Heard { is_loaded: Some(true), id, .. } = heard {
            return Ok(id);
        }
        let (said, code) = stderr.last(child).await;
        Err(match heard {
            Heard { is_unkept: true, .. } => Error::unkept(host, &said),
            Heard { is_damaged: true, .. } => {
                Error::load(host, runtime.word, "what was kept of the archive there is damaged")
            }
            Heard { is_loaded: Some(_), .. } => Error::load(host, runtime.word, &said),
            Heard { is_loaded: None, .. } => Error::ended(host, &said, reached, code),
        })
    }
}

impl RunningPull {
    /// Waits for the end of the pull. Connections to the forwarded port may still be open then.
    pub async fn hear(&mut self) {
        self.loading.hear().await;
    }

    /// The result of the pull. The image was pulled by its digest, so its ID is not compared.
    pub async fn end(self) -> Result<(), Error> {
        self.loading.end(Reached::Image).await.map(drop)
    }
}

/// How a machine answered.
enum Greeting {
    Ready(There),
    NoRuntime,
    /// A runtime was found, but it does not answer.
    Silent(String),
    /// The connection ended. The text is the last line before that.
    Ended(Reached, String),
}

fn word_of(name: super::options::RuntimeName) -> Option<&'static str> {
    super::runtime::RUNTIMES.iter().find(|row| row.name == name).map(|row| row.word)
}
