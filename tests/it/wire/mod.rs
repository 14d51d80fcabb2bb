//! Answers of registries and gateways that the specification does not describe. pushimg handles
//! them all in one place: its messages are clear and safe, and it never waits without a limit.

mod bodies;
mod codes;
mod first_request;
mod locations;
mod rights;
mod secrets;
mod waiting;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tempfile::TempDir;

use crate::support::archive::{ImageBuilder, Layer, gzip};
use crate::support::docker_registry::{BASIC_PASSWORD, BASIC_USER};
use crate::support::proxy::*;
use crate::support::pull::{self, Remote};
use crate::support::registry::{self, DevRegistry};
use crate::support::run::{Output, Pushimg};
use crate::support::tls::Authority;
use crate::support::*;

const MIB: usize = 1 << 20;

fn image(dir: &TempDir) -> PathBuf {
    ImageBuilder::new(vec![Layer::random("a", 1, 300_000), Layer::file("b", b"b")])
        .write(dir.path(), "image.tar")
}

fn push(machine: &Pushimg, image: &Path, host: &str, more: &[&str]) -> Output {
    let mut args = vec![image.display().to_string(), format!("{host}/app:v1")];
    args.extend(more.iter().map(|arg| (*arg).to_owned()));
    machine.run(args)
}

/// A registry with a proxy before it, and an image.
struct Scene {
    dir: TempDir,
    registry: DevRegistry,
    proxy: FaultProxy,
    image: PathBuf,
}

impl Scene {
    fn new() -> Self {
        Self::with(registry::Options::default())
    }

    fn with(options: registry::Options) -> Self {
        let (dir, registry) = (TempDir::new().expect("a folder"), DevRegistry::start(options));
        let (proxy, image) = (FaultProxy::before(registry.addr()), image(&dir));
        Self { dir, registry, proxy, image }
    }

    fn push(&self, more: &[&str]) -> Output {
        push(&Pushimg::new(), &self.image, &self.proxy.host(), more)
    }

    fn login(&self, user: &str, password: &str) -> Output {
        let machine = Pushimg::new().login(&self.proxy.host(), user, password);
        push(&machine, &self.image, &self.proxy.host(), &["-vv"])
    }

    fn rules(&self, rules: Vec<Rule>) {
        self.proxy.clear();
        self.proxy.set_rules(rules);
    }
}

fn set(name: &str, value: &str) -> Fault {
    Fault::Rewrite(vec![Change::Set(name.to_owned(), value.to_owned())])
}

fn bearer() -> registry::Options {
    let auth = registry::bearer(BASIC_USER, BASIC_PASSWORD, Duration::from_secs(300));
    registry::Options { auth, ..Default::default() }
}

fn basic() -> registry::Options {
    let auth = registry::basic(BASIC_USER, BASIC_PASSWORD);
    registry::Options { auth, ..Default::default() }
}

/// A plain tar with many layers, whose digests the cache of an earlier push knows.
fn many_layers(dir: &TempDir) -> PathBuf {
    let layers = (0..20).map(|n| Layer::random(&format!("p-{n}"), n, 2_000)).collect();
    ImageBuilder::new(layers).write(dir.path(), "many.tar")
}

/// A server that gives this answer to every connection, and closes it.
fn answering(answer: Vec<u8>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let addr = listener.local_addr().expect("its address");
    std::thread::spawn(move || {
        for mut client in listener.incoming().flatten() {
            let answer = answer.clone();
            std::thread::spawn(move || {
                let (mut head, mut byte) = (Vec::new(), [0]);
                while !head.ends_with(b"\r\n\r\n") && client.read_exact(&mut byte).is_ok() {
                    head.push(byte[0]);
                }
                let _ = client.write_all(&answer);
                // A body that was not read would make the close a reset.
                let _ = client.set_read_timeout(Some(Duration::from_millis(200)));
                let _ = std::io::copy(&mut client, &mut std::io::sink());
            });
        }
    });
    addr
}
