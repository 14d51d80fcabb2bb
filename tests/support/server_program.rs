//! A server program as a child process: it gets a free port on 127.0.0.1, a folder for its files
//! and its log, and is killed when its handle is dropped.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// How long a program may take until it listens.
const START_LIMIT: Duration = Duration::from_secs(20);

/// A running server program.
pub struct ServerProgram {
    child: Child,
    addr: SocketAddr,
    dir: TempDir,
}

impl ServerProgram {
    /// Starts a program and waits until it listens. `command` gets the program's folder and
    /// address; `ready` says whether the program itself, not another one, has this port.
    ///
    /// # Panics
    /// Where the program is not installed, or does not listen within 20 s.
    pub fn start(
        command: impl Fn(&Path, SocketAddr) -> Command,
        ready: impl Fn(&Self) -> bool,
    ) -> Self {
        // Another process may take the free port before the program does: then try another.
        for _ in 0..5 {
            if let Some(program) = Self::try_start(&command, &ready) {
                return program;
            }
        }
        panic!("the port of the server program was taken five times");
    }

    fn try_start(
        command: &impl Fn(&Path, SocketAddr) -> Command,
        ready: &impl Fn(&Self) -> bool,
    ) -> Option<Self> {
        let dir = TempDir::new().expect("a folder for a server program");
        let addr = TcpListener::bind("127.0.0.1:0")
            .and_then(|listener| listener.local_addr())
            .expect("a free port");
        let mut command = command(dir.path(), addr);
        let name = command.get_program().to_string_lossy().into_owned();
        let log = std::fs::File::create(dir.path().join("log")).expect("a log file");
        // Debian puts nginx and haproxy into /usr/sbin, which is not on everyone's PATH.
        let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin";
        let child = command
            .env("PATH", path)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("the log file twice"))
            .stderr(log)
            .spawn()
            .unwrap_or_else(|error| {
                panic!("cannot start {name} ({error}): run scripts/test, which installs it")
            });
        let mut program = Self { child, addr, dir };
        let began = Instant::now();
        loop {
            if let Some(status) = program.child.try_wait().expect("wait for a server program") {
                let log = program.log();
                if log.to_lowercase().contains("address already in use") {
                    return None;
                }
                panic!("{name} ended ({status}):\n{log}");
            }
            if TcpStream::connect(addr).is_ok() && ready(&program) {
                return Some(program);
            }
            assert!(began.elapsed() < START_LIMIT, "{name} does not listen:\n{}", program.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The folder that `command` got.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// What the program printed.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }
}

impl Drop for ServerProgram {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
