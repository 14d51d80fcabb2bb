//! Why an image could not be sent to a machine.

use std::io;

/// An image could not be sent to a machine.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The ssh program cannot be started.
    #[error(
        "cannot start {program}: {source}\nhint: install OpenSSH's client (Debian: apt-get install \
         openssh-client), or name another one with --ssh"
    )]
    NoSsh {
        /// The program.
        program: String,
        /// Why.
        source: io::Error,
    },
    /// The machine could not be reached, or the connection was lost.
    #[error("{host}: {what}: {said}\nhint: {hint}")]
    Connection {
        /// The machine.
        host: String,
        /// What failed.
        what: &'static str,
        /// What ssh printed.
        said: String,
        /// What to do about it.
        hint: &'static str,
    },
    /// The machine refused the login, or its host key changed.
    #[error("{host}: {what}: {said}\nhint: {hint}")]
    Refused {
        /// The machine.
        host: String,
        /// What failed.
        what: &'static str,
        /// What ssh, or the runtime on the machine, printed.
        said: String,
        /// What to do about it.
        hint: &'static str,
    },
    /// The machine has no runtime for images.
    #[error(
        "{host}: found no {wanted}\nhint: install one there (docker, podman, containerd), or choose \
         another one with --runtime; a program outside of the PATH of non-interactive logins is not found (try: ssh HOST 'command \
         -v docker')"
    )]
    NoRuntime {
        /// The machine.
        host: String,
        /// What was looked for.
        wanted: String,
    },
    /// The runtime did not load the image.
    #[error("{host}: {runtime} did not take the image: {said}{hint}")]
    Load {
        /// The machine.
        host: String,
        /// The runtime.
        runtime: &'static str,
        /// What it printed.
        said: String,
        /// What to do about it, beginning with a line break.
        hint: String,
    },
    /// The runtime could not pull from this program.
    #[error("{host}: the runtime there cannot pull from this machine: {said}")]
    Pull {
        /// The machine.
        host: String,
        /// Why.
        said: String,
    },
    /// The machine could not store the archive for the runtime.
    #[error("{host}: the archive cannot be written to a file there: {said}\nhint: {hint}")]
    Unkept {
        /// The machine.
        host: String,
        /// What the programs on the machine printed.
        said: String,
        /// What to do about it.
        hint: &'static str,
    },
}

/// The hint for a full disk on a machine.
const MAKE_ROOM: &str =
    "the disk there is full; free some space, for example with docker system prune";

/// A text that ssh prints, what it means, and what to do about it.
struct HintRow {
    says: &'static str,
    what: &'static str,
    hint: &'static str,
    /// Whether a later attempt may succeed.
    is_passing: bool,
}

const REFUSALS: [HintRow; 10] = [
    HintRow {
        says: "usage: ssh",
        what: "ssh does not take its options",
        hint: "check --ssh and $PUSHIMG_SSH",
        is_passing: false,
    },
    HintRow {
        says: "REMOTE HOST IDENTIFICATION HAS CHANGED",
        what: "the host's key is not the one that is known",
        hint: "if the machine was set up anew, forget the old key with ssh-keygen -R HOST; \
               otherwise somebody may be listening in",
        is_passing: false,
    },
    HintRow {
        says: "Host key verification failed",
        what: "the host's key is not known",
        hint: "connect once with ssh HOST, compare the fingerprint and accept the key",
        is_passing: false,
    },
    HintRow {
        says: "Permission denied (",
        what: "the login was refused",
        hint: "check the user and the key: ssh HOST true must work; keys and users for a host go \
               into ~/.ssh/config",
        is_passing: false,
    },
    HintRow {
        says: "Too many authentication failures",
        what: "the login was refused",
        hint: "the agent offers too many keys: set IdentityFile and IdentitiesOnly for the host in \
               ~/.ssh/config",
        is_passing: false,
    },
    HintRow {
        says: "Could not resolve hostname",
        what: "the host has no address",
        hint: "check the name; aliases come from ~/.ssh/config",
        is_passing: false,
    },
    HintRow {
        says: "Connection refused",
        what: "the host does not answer",
        hint: "check the port, and whether the SSH server runs",
        is_passing: true,
    },
    HintRow {
        says: "timed out",
        what: "the host does not answer",
        hint: "check the address, firewalls and VPN",
        is_passing: true,
    },
    HintRow {
        says: "Bad configuration option",
        what: "ssh does not read its configuration",
        hint: "mend the file that it names",
        is_passing: false,
    },
    HintRow {
        says: "Can't open user config file",
        what: "ssh does not read its configuration",
        hint: "check the file after -F in --ssh",
        is_passing: false,
    },
];

impl Error {
    /// What the end of a connection means that had got so far. `code` is ssh's exit code; 255 stands
    /// for a failure of ssh itself.
    pub(super) fn ended(host: String, said: &str, reached: Reached, code: Option<i32>) -> Self {
        let row = REFUSALS.iter().find(|row| said.contains(row.says));
        let said = last_lines(said);
        match (row, reached) {
            (Some(row), Reached::Nothing) if !row.is_passing => {
                Self::Refused { host, what: row.what, said, hint: row.hint }
            }
            (Some(row), _) => Self::Connection { host, what: row.what, said, hint: row.hint },
            (None, Reached::Nothing) if code.is_some_and(|code| code != 255) => Self::Refused {
                host,
                what: "the login shell there did not run the script",
                said,
                hint: "check that ssh HOST true works; the machine needs sh",
            },
            (None, Reached::Nothing) => Self::Connection {
                host,
                what: "the connection failed",
                said,
                hint: "check that ssh HOST true works and prints nothing",
            },
            (None, Reached::Machine) => Self::Connection {
                host,
                what: "the connection was lost",
                said,
                hint: "the image was not changed there; push it again",
            },
            (None, Reached::Image) => Self::Connection {
                host,
                what: "the connection was lost",
                said,
                hint: "the image may be there by now; push it again",
            },
        }
    }

    /// The machine's `dd` cannot receive an archive.
    pub(super) fn no_dd(host: String) -> Self {
        let what = "the machine cannot receive an archive";
        let said = "its dd does not know iflag=fullblock".to_owned();
        let hint = "install GNU coreutils or busybox there";
        Self::Refused { host, what, said, hint }
    }

    /// Why a runtime that was found does not answer.
    pub(super) fn silent(host: String, said: &str) -> Self {
        let said = last_lines(said);
        let is_permission = ["permission denied", "Permission denied", "a password is required"]
            .iter()
            .any(|words| said.contains(words));
        let hint = match is_permission {
            _ if said.contains("sudo: not found") => {
                "sudo is not there: leave out --remote-sudo, and log in as a user who may use the \
                 runtime"
            }
            true if said.contains("sudo") => {
                "allow sudo for this user without a password there, or log in as root"
            }
            true => "use --remote-sudo, or add the user to the group of the runtime (docker) there",
            false => {
                "start it there; --remote-sudo calls it through sudo, --runtime chooses another"
            }
        };
        Self::Refused { host, what: "the runtime does not answer", said, hint }
    }

    /// Why a runtime did not load an archive.
    pub(super) fn load(host: String, runtime: &'static str, said: &str) -> Self {
        let said = last_lines(said);
        let hint = match said.contains("no space left") {
            true => format!("\nhint: {MAKE_ROOM}"),
            false => String::new(),
        };
        Self::Load { host, runtime, said, hint }
    }

    /// Why an archive could not be stored.
    pub(super) fn unkept(host: String, said: &str) -> Self {
        // dd also prints how many bytes and blocks it copied; leave these lines out.
        let counts = |line: &&str| line.contains(" records ") || line.contains(" copied");
        let lines: Vec<&str> = said.lines().filter(|line| !counts(line)).collect();
        let said = last_lines(&lines.join("\n"));
        let is_full =
            ["No space left", "quota", "File too large"].iter().any(|it| said.contains(it));
        let hint = match is_full {
            true => MAKE_ROOM,
            false => {
                "check the folder ~/.cache/pushimg-incoming there, and the programs dd and head"
            }
        };
        Self::Unkept { host, said, hint }
    }

    /// Whether the connection failed in a way that may be temporary.
    pub(super) fn may_pass(&self) -> bool {
        matches!(self, Self::Connection { .. })
    }

    /// Whether it is a refusal, and not a failure of a network or a disk.
    pub(crate) fn is_refusal(&self) -> bool {
        matches!(self, Self::Refused { .. } | Self::NoRuntime { .. })
    }
}

/// How far a connection got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reached {
    /// The machine has not answered.
    Nothing,
    /// The machine has answered.
    Machine,
    /// The machine has all that it needs to load the image.
    Image,
}

/// The most lines of foreign text in a message.
const MAX_LINES: usize = 12;

/// The most characters of a line of it.
const MAX_LINE: usize = 500;

fn last_lines(text: &str) -> String {
    let mut lines: Vec<&str> =
        text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    lines.dedup();
    let last = &lines[lines.len().saturating_sub(MAX_LINES)..];
    match last.is_empty() {
        true => "it said nothing".to_owned(),
        false => {
            let cut = |line: &&str| line.chars().take(MAX_LINE).collect::<String>();
            let last: Vec<String> = last.iter().map(cut).collect();
            crate::source::printable(&last.join("; "))
        }
    }
}
