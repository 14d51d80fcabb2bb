//! containerd with a folder of its own.

use std::path::Path;
use std::process::Command;

use super::server_program::ServerProgram;

/// A running containerd; it is killed when this is dropped.
pub struct Containerd {
    program: ServerProgram,
}

impl Containerd {
    /// Starts it. It needs root.
    pub fn start() -> Self {
        let command = |dir: &Path, addr: std::net::SocketAddr| {
            let shown = dir.display();
            let config = format!(
                "version = 2\nroot = \"{shown}/root\"\nstate = \"{shown}/state\"\n\
                 disabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n\
                 [grpc]\n address = \"{shown}/sock\"\n[metrics]\n address = \"{addr}\"\n"
            );
            std::fs::write(dir.join("config.toml"), config).expect("a config");
            let mut command = Command::new("containerd");
            command.arg("--config").arg(dir.join("config.toml"));
            command
        };
        let is_ready = |program: &ServerProgram| program.dir().join("sock").exists();
        Self { program: ServerProgram::start(command, is_ready) }
    }

    /// Where it listens: for `ctr -a` and `$CONTAINERD_ADDRESS`.
    pub fn address(&self) -> String {
        self.program.dir().join("sock").display().to_string()
    }
}
