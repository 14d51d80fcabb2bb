//! microsocks, a SOCKS5 proxy.
//!
//! ```ignore
//! let proxy = SocksProxy::open();
//! Pushimg::new().env("ALL_PROXY", proxy.url()).run([archive, "registry.invalid/app:v1"]);
//! assert!(proxy.connections().iter().any(|to| to.starts_with("127.0.0.1:")));
//! ```

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::server_program::ServerProgram;

/// A running SOCKS5 proxy; it is killed when this is dropped.
pub struct SocksProxy {
    program: ServerProgram,
    login: Option<(String, String)>,
}

impl SocksProxy {
    /// A proxy for everyone.
    pub fn open() -> Self {
        Self::start(None)
    }

    /// A proxy that asks for a user and a password.
    pub fn with_login(user: &str, password: &str) -> Self {
        Self::start(Some((user.to_owned(), password.to_owned())))
    }

    fn start(login: Option<(String, String)>) -> Self {
        let command = |_: &Path, addr: SocketAddr| {
            let mut command = Command::new("microsocks");
            command.args(["-i", &addr.ip().to_string(), "-p", &addr.port().to_string()]);
            if let Some((user, password)) = &login {
                command.args(["-u", user, "-P", password]);
            }
            command
        };
        let program = ServerProgram::start(command, |program| speaks_socks(program.addr()));
        Self { program, login }
    }

    pub fn addr(&self) -> SocketAddr {
        self.program.addr()
    }

    /// `socks5://127.0.0.1:<port>`, with the login where the proxy asks for one.
    pub fn url(&self) -> String {
        match &self.login {
            Some((user, password)) => format!("socks5://{user}:{password}@{}", self.addr()),
            None => format!("socks5://{}", self.addr()),
        }
    }

    /// The `host:port` of each connection that the proxy has opened.
    pub fn connections(&self) -> Vec<String> {
        let log = self.program.log();
        let target = |line: &str| Some(line.split_once(": connected to ")?.1.trim().to_owned());
        log.lines().filter_map(target).collect()
    }
}

/// Whether the program at this address answers the greeting of RFC 1928.
fn speaks_socks(addr: SocketAddr) -> bool {
    let greet = || -> std::io::Result<[u8; 2]> {
        let mut stream = TcpStream::connect(addr)?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        // Version 5, two methods: none, and user with password.
        stream.write_all(&[5, 2, 0, 2])?;
        let mut answer = [0; 2];
        stream.read_exact(&mut answer)?;
        Ok(answer)
    };
    greet().is_ok_and(|answer| answer[0] == 5)
}
