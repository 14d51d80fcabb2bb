//! OpenSSH's server on a port of its own, with keys of its own, for the user who runs the tests.
//!
//! ```ignore
//! let sshd = Sshd::start(&[]);
//! sshd.pushimg().push(archive, "ssh://lab/app:v1", &[]);
//! ```

use std::path::{Path, PathBuf};
use std::process::Command;

use super::archive::write;
use super::run::{Pushimg, program};
use super::server_program::ServerProgram;

/// A running SSH server; it is killed when this is dropped.
pub struct Sshd {
    program: ServerProgram,
}

impl Sshd {
    /// A server that refuses remote forwarding and sets these variables (`NAME=VALUE`) in sessions.
    pub fn start(variables: &[&str]) -> Self {
        Self::configured("AllowTcpForwarding local", variables)
    }

    fn configured(forwarding: &str, variables: &[&str]) -> Self {
        // As root, sshd needs this folder. It must also be started by an absolute path.
        if program("id", ["-u"]).trim() == "0" {
            std::fs::create_dir_all("/run/sshd").expect("/run/sshd");
        }
        let command = |dir: &Path, addr: std::net::SocketAddr| {
            for key in ["host", "id"] {
                let path = dir.join(key);
                let path = path.to_str().expect("a path");
                if !dir.join(key).exists() {
                    program("ssh-keygen", ["-q", "-t", "ed25519", "-N", "", "-f", path]);
                }
            }
            let shown = dir.display();
            let config = format!(
                "ListenAddress {addr}\nHostKey {shown}/host\nAuthorizedKeysFile {shown}/id.pub\n\
                 PermitRootLogin yes\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n\
                 UsePAM no\nStrictModes no\nPidFile none\n{forwarding}\n\
                 SetEnv XDG_CACHE_HOME={shown}/cache {}\n",
                variables.join(" ")
            );
            let config = write(dir, "sshd_config", config.as_bytes());
            let host_key = std::fs::read_to_string(dir.join("host.pub")).expect("the host's key");
            let words: Vec<&str> = host_key.split(' ').collect();
            let known = format!("[127.0.0.1]:{} {} {}\n", addr.port(), words[0], words[1]);
            write(dir, "known_hosts", known.as_bytes());
            let client = format!(
                "Host lab\n HostName 127.0.0.1\n Port {}\n IdentityFile {shown}/id\n \
                 IdentitiesOnly yes\n UserKnownHostsFile {shown}/known_hosts\n \
                 GlobalKnownHostsFile /dev/null\n StrictHostKeyChecking yes\n",
                addr.port()
            );
            write(dir, "config", client.as_bytes());
            let mut command = Command::new("/usr/sbin/sshd");
            command.args(["-D", "-e", "-f"]).arg(config);
            command
        };
        Self { program: ServerProgram::start(command, |_| true) }
    }

    /// A server that finds these programs before all others: a name and a script for each.
    pub fn with_programs(dir: &Path, programs: &[(&str, &str)]) -> Self {
        Self::start(&[&path_with(dir, programs)])
    }

    /// The same, and ports can be forwarded.
    pub fn forwarding(dir: &Path, programs: &[(&str, &str)]) -> Self {
        Self::configured("AllowTcpForwarding yes", &[&path_with(dir, programs)])
    }

    /// A `pushimg` that reaches it as `ssh://lab`.
    pub fn pushimg(&self) -> Pushimg {
        Pushimg::new().env("PUSHIMG_SSH", self.ssh())
    }

    /// The command that reaches it.
    pub fn ssh(&self) -> String {
        format!("ssh -F {}", self.dir().join("config").display())
    }

    /// The partial archives that the machine keeps.
    pub fn kept(&self) -> Vec<PathBuf> {
        let files = std::fs::read_dir(self.dir().join("cache/pushimg-incoming"));
        files.into_iter().flatten().map(|file| file.expect("a file").path()).collect()
    }

    /// Its folder: `config` and `known_hosts` of the client, and the keys.
    pub fn dir(&self) -> PathBuf {
        self.program.dir().to_owned()
    }

    /// The server's log.
    pub fn log(&self) -> String {
        self.program.log()
    }

    pub fn port(&self) -> u16 {
        self.program.addr().port()
    }
}

/// Writes programs, and returns the `PATH` that has them first.
fn path_with(dir: &Path, programs: &[(&str, &str)]) -> String {
    use std::os::unix::fs::PermissionsExt as _;
    for (name, script) in programs {
        let path = write(dir, name, format!("#!/bin/sh\n{script}\n").as_bytes());
        let mode = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(path, mode).expect("an executable");
    }
    format!("PATH={}:/usr/local/bin:/usr/bin:/bin", dir.display())
}
