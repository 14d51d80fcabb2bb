//! The connection to the registry: trusted certificates, client certificates, proxies from the
//! environment, IPv6 addresses, and no credential over plain HTTP.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::support::archive::{ImageBuilder, Layer};
use crate::support::proxy::*;
use crate::support::registry::{self, DevRegistry};
use crate::support::run::{Output, Pushimg};
use crate::support::tls::Authority;
use crate::support::*;
use tempfile::TempDir;

fn image(dir: &TempDir) -> PathBuf {
    ImageBuilder::new(vec![Layer::random("a", 1, 300_000), Layer::file("b", b"b")])
        .write(dir.path(), "image.tar")
}

fn push(machine: &Pushimg, image: &Path, host: &str, more: &[&str]) -> Output {
    machine.push(image, &format!("{host}/app:v1"), more)
}

/// An HTTP proxy for CONNECT and absolute URLs. Names below `.invalid` lead to this machine.
struct WebProxy {
    addr: SocketAddr,
    seen: Arc<Mutex<Vec<String>>>,
}

impl WebProxy {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let addr = listener.local_addr().expect("its address");
        let seen: Arc<Mutex<Vec<String>>> = Arc::default();
        let log = seen.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let log = log.clone();
                std::thread::spawn(move || Self::serve(stream, &log));
            }
        });
        Self { addr, seen }
    }

    fn serve(mut client: TcpStream, log: &Mutex<Vec<String>>) -> Option<()> {
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") {
            client.read_exact(&mut byte).ok()?;
            head.push(byte[0]);
        }
        let text = String::from_utf8_lossy(&head).into_owned();
        log.lock().expect("no holder panics").push(text.clone());
        let mut words = text.split_whitespace();
        let (method, target) = (words.next()?, words.next()?);
        let place = target.trim_start_matches("http://");
        let (place, path) = match place.split_once('/') {
            Some((place, path)) => (place, format!("/{path}")),
            None => (place, "/".to_owned()),
        };
        let (_, port) = place.rsplit_once(':')?;
        let mut server = TcpStream::connect(format!("127.0.0.1:{port}")).ok()?;
        if method == "CONNECT" {
            client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").ok()?;
        } else {
            // One request for each connection, so that each is seen.
            let rest =
                text.split_once("\r\n")?.1.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n");
            write!(server, "{method} {path} HTTP/1.1\r\n{rest}").ok()?;
        }
        let (mut from, mut to) = (client.try_clone().ok()?, server.try_clone().ok()?);
        let up = std::thread::spawn(move || {
            let _ = std::io::copy(&mut from, &mut to);
            let _ = to.shutdown(std::net::Shutdown::Write);
        });
        let _ = std::io::copy(&mut server, &mut client);
        let _ = client.shutdown(std::net::Shutdown::Both);
        let _ = up.join();
        Some(())
    }

    fn seen(&self) -> Vec<String> {
        self.seen.lock().expect("no holder panics").clone()
    }
}

#[test]
fn a_registry_is_trusted_by_an_authority_and_not_without() {
    let (dir, authority) = (TempDir::new().expect("a folder"), Authority::new());
    let registry = DockerRegistry::tls(&authority);
    let image = image(&dir);
    // A loopback address is tried in the open first, and found to want TLS.
    let machine = Pushimg::new();
    let output = push(&machine, &image, &registry.host(), &[]).exits(5);
    assert!(output.took < Duration::from_secs(8), "{output}");
    output.says("certificate").says("--ca-file");
    assert_eq!(registry.tag("app", "v1"), None);

    let ca = format!("--ca-file={}", authority.ca_file().display());
    push(&machine, &image, &registry.host(), &[&ca]).success();
    assert!(registry.tag("app", "v1").is_some());

    push(&machine, &image, &registry.host(), &["--insecure-skip-tls-verify"])
        .success()
        .says("warning: --insecure-skip-tls-verify");

    let missing = dir.path().join("none.pem").display().to_string();
    push(&machine, &image, &registry.host(), &["--ca-file", &missing]).exits(2).says(&missing);
    let wrong = format!("--ca-file={}", image.display());
    push(&machine, &image, &registry.host(), &[&wrong]).exits(2).says("image.tar");
}

#[test]
fn certificates_in_the_folders_of_docker_and_containers_are_used() {
    let (dir, authority) = (TempDir::new().expect("a folder"), Authority::new());
    let registry = DockerRegistry::start(&DockerRegistryOptions {
        tls: Some(&authority),
        client_certificates: true,
        ..Default::default()
    });
    let image = image(&dir);
    let client = authority.client();
    for parent in [".docker/certs.d", ".config/containers/certs.d", "config/containers/certs.d"] {
        let machine = Pushimg::new();
        let folder = machine.home().join(parent).join(registry.host());
        std::fs::create_dir_all(&folder).expect("certs.d");
        std::fs::copy(authority.ca_file(), folder.join("ca.crt")).expect("ca.crt");
        // pushimg trusts the registry, but has no client certificate.
        push(&machine, &image, &registry.host(), &[]).exits(5).says("client certificate");
        std::fs::copy(&client.cert, folder.join("client.cert")).expect("client.cert");
        // A client certificate without its key is an error.
        push(&machine, &image, &registry.host(), &[]).exits(2).says("client.key");
        std::fs::copy(&client.key, folder.join("client.key")).expect("client.key");
        push(&machine, &image, &registry.host(), &[]).success();
    }
    assert!(registry.tag("app", "v1").is_some());
}

#[test]
fn https_goes_through_the_proxy_of_the_environment_by_connect() {
    let (dir, authority) = (TempDir::new().expect("a folder"), Authority::new());
    let registry = DockerRegistry::tls(&authority);
    let web = WebProxy::start();
    let image = image(&dir);
    let host = format!("registry.invalid:{}", registry.addr().port());
    let through = format!("http://user:hunter2@{}", web.addr);
    for variable in ["HTTPS_PROXY", "https_proxy", "ALL_PROXY"] {
        let machine = Pushimg::new().env(variable, &through);
        let before = web.seen().len();
        push(&machine, &image, &host, &["--insecure-skip-tls-verify", "-vv"])
            .success()
            .never_says("hunter2");
        let seen = web.seen()[before..].to_vec();
        assert!(!seen.is_empty(), "{variable}");
        for head in &seen {
            assert!(head.starts_with(&format!("CONNECT {host} ")), "{head}");
            let login = head.to_lowercase().contains("proxy-authorization: basic dxnlcjpodw50zxiy");
            assert!(login, "{head}");
        }
    }
    // A host in NO_PROXY and a host on this machine are reached without the proxy.
    let before = web.seen().len();
    let machine =
        Pushimg::new().env("HTTPS_PROXY", &through).env("NO_PROXY", "other.invalid,.invalid");
    push(&machine, &image, &host, &["--insecure-skip-tls-verify", "--retry-for=1s"]).exits(5);
    let machine = Pushimg::new().env("HTTPS_PROXY", &through).env("HTTP_PROXY", &through);
    push(&machine, &image, &registry.host(), &["--insecure-skip-tls-verify"]).success();
    assert_eq!(web.seen().len(), before, "{:?}", web.seen());
}

#[test]
fn plain_http_goes_through_the_proxy_too() {
    let dir = TempDir::new().expect("a folder");
    let registry = DevRegistry::start(registry::Options::default());
    let web = WebProxy::start();
    let host = format!("registry.invalid:{}", registry.addr().port());
    let machine = Pushimg::new().env("HTTP_PROXY", format!("http://{}", web.addr));
    push(&machine, &image(&dir), &host, &["--plain-http"]).success();
    assert!(registry.tag("app", "v1").is_some());
    assert!(web.seen().iter().all(|head| head.contains(&format!(" http://{host}/v2/"))));
}

/// A server that gives every connection this answer.
fn answering(answer: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let addr = listener.local_addr().expect("its address");
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut head = Vec::new();
            let mut byte = [0];
            while !head.ends_with(b"\r\n\r\n") && stream.read_exact(&mut byte).is_ok() {
                head.push(byte[0]);
            }
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    addr
}

#[test]
fn a_proxy_that_does_not_let_us_through_is_named_at_once_with_its_variable() {
    let dir = TempDir::new().expect("a folder");
    let image = image(&dir);
    let (_, nobody) = crate::support::served::bind(0);
    // Answers every request like a proxy that wants a login.
    let refusing =
        answering("HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n");
    let forbidding = answering("HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n");
    let failing = answering("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n");
    let plain: &[&str] = &["--plain-http"];
    let tls: &[&str] = &["--retry-for=1s"];
    for (variable, value, options, said) in [
        ("HTTPS_PROXY", format!("http://user:hunter2@{nobody}"), &[][..], "refused"),
        ("https_proxy", format!("socks5://user:hunter2@{nobody}"), &[], "refused"),
        ("HTTP_PROXY", format!("user:hunter2@{nobody}"), plain, "refused"),
        ("HTTPS_PROXY", "http://user:hunter2@proxy.invalid:3128".into(), &[], "name"),
        ("HTTPS_PROXY", format!("http://user:hunter2@{refusing}"), &[], "the user or the password"),
        ("ALL_PROXY", format!("http://{refusing}"), &[], "http://USER:PASSWORD@HOST:PORT"),
        ("HTTP_PROXY", format!("http://{refusing}"), plain, "http://USER:PASSWORD@HOST:PORT"),
        ("HTTPS_PROXY", format!("http://me:hunter2@{forbidding}"), &[], "403 Forbidden"),
        ("HTTPS_PROXY", format!("http://me:hunter2@{failing}"), tls, "503 Service Unavailable"),
    ] {
        let address = value.rsplit_once('@').map_or(value.as_str(), |(_, address)| address);
        let address = address.trim_start_matches("http://");
        let output =
            push(&Pushimg::new().env(variable, &value), &image, "registry.invalid", options)
                .exits(5)
                .says(said)
                .says(address)
                .says(&format!("({variable})"))
                .says("registry.invalid")
                .never_says("hunter2");
        assert!(output.took < Duration::from_secs(5), "{output}");
    }
    // The URL says that the proxy speaks TLS, but the proxy does not.
    let plain = DockerRegistry::plain();
    let proxy = format!("https://{}", plain.host());
    push(&Pushimg::new().env("HTTPS_PROXY", &proxy), &image, "registry.invalid", &[])
        .exits(5)
        .says(&format!("the proxy {proxy} (HTTPS_PROXY)"))
        .never_says("--plain-http");
}

#[test]
fn a_proxy_that_is_silent_or_answers_itself_is_named() {
    let dir = TempDir::new().expect("a folder");
    let image = image(&dir);
    // Takes connections, and never answers.
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let silent_addr = silent.local_addr().expect("its address");
    let page = "HTTP/1.1 403 Forbidden\r\nContent-Length: 7\r\n\r\nblocked";
    let portal =
        "HTTP/1.1 302 Found\r\nLocation: http://portal.invalid/\r\nContent-Length: 0\r\n\r\n";
    for addr in [silent_addr, answering(page), answering(portal), answering("SSH-2.0-x\r\n\r\n")] {
        let proxy = format!("http://me:hunter2@{addr}");
        let options = ["--plain-http", "--idle-timeout=1s", "--retry-for=1s"];
        let output = push(&Pushimg::new().env("HTTP_PROXY", proxy), &image, "r.invalid", &options);
        assert!(matches!(output.code(), Some(4 | 5)), "{output}");
        assert!(output.took < Duration::from_secs(15), "{output}");
        output.says(&format!("the proxy http://{addr} (HTTP_PROXY)")).never_says("hunter2");
    }
}

#[test]
fn a_variable_that_names_no_proxy_is_an_error_and_not_passed_over() {
    let dir = TempDir::new().expect("a folder");
    let image = image(&dir);
    for (variable, value) in
        [("HTTPS_PROXY", "htp://me:hunter2@proxy.test:1"), ("https_proxy", "http//proxy.test")]
    {
        push(&Pushimg::new().env(variable, value), &image, "registry.invalid", &[])
            .exits(2)
            .says(variable)
            .says("proxy.test")
            .never_says("hunter2");
    }
    // For a registry on this machine, pushimg does not use the invalid proxies.
    let registry = DevRegistry::start(registry::Options::default());
    let machine = Pushimg::new().env("HTTP_PROXY", "htp://").env("HTTPS_PROXY", "htp://");
    push(&machine, &image, &registry.addr().to_string(), &[]).success();
}

#[test]
fn a_socks_proxy_carries_a_push_and_looks_up_names() {
    let (dir, authority) = (TempDir::new().expect("a folder"), Authority::new());
    let registry = DockerRegistry::tls(&authority);
    let image = image(&dir);
    // 0.0.0.0 leads to this machine, but pushimg still uses a proxy for it.
    let host = format!("0.0.0.0:{}", registry.addr().port());
    for socks in [SocksProxy::open(), SocksProxy::with_login("user", "hunter2")] {
        for url in [socks.url(), socks.url().replace("socks5", "socks5h")] {
            let before = socks.connections().len();
            let machine = Pushimg::new().env("HTTPS_PROXY", &url);
            push(&machine, &image, &host, &["--insecure-skip-tls-verify", "-vv"])
                .success()
                .never_says("hunter2");
            assert!(socks.connections().len() > before);
            push(&machine, &image, "registry.invalid", &["--retry-for=1s"])
                .exits(5)
                .says("(HTTPS_PROXY)")
                .never_says("hunter2");
        }
    }
    let socks = SocksProxy::with_login("user", "hunter2");
    let wrong = socks.url().replace("hunter2", "hunter3");
    push(&Pushimg::new().env("ALL_PROXY", wrong), &image, &host, &["--retry-for=1s"])
        .exits(5)
        .says("(ALL_PROXY)")
        .never_says("hunter3");
}

#[test]
fn hosts_in_no_proxy_are_reached_without_it() {
    let dir = TempDir::new().expect("a folder");
    let registry = DevRegistry::start(registry::Options::default());
    let image = image(&dir);
    let (_, nobody) = crate::support::served::bind(0);
    let port = registry.addr().port();
    let host = format!("0.0.0.0:{port}");
    for list in ["*", "0.0.0.0", &format!("x.test, {host}"), "0.0.0.0/8", "::/0,0.0.0.0/0"] {
        let machine = Pushimg::new().env("HTTP_PROXY", nobody.to_string()).env("NO_PROXY", list);
        push(&machine, &image, &host, &["--plain-http"]).success();
    }
    let machine = Pushimg::new().env("HTTP_PROXY", nobody.to_string()).env("no_proxy", "0.0.0.0:1");
    push(&machine, &image, &host, &["--plain-http"]).exits(5).says("(HTTP_PROXY)");
}

#[test]
fn an_address_in_brackets_is_an_address() {
    let dir = TempDir::new().expect("a folder");
    // The laboratory listens on 127.0.0.1; this carries the other loopback there.
    let registry = DevRegistry::start(registry::Options::default());
    let Ok(listener) = TcpListener::bind("[::1]:0") else {
        eprintln!("this machine has no IPv6");
        return;
    };
    let port = listener.local_addr().expect("its address").port();
    let upstream = registry.addr();
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let Ok(server) = TcpStream::connect(upstream) else { continue };
            let pairs = [(client.try_clone(), server.try_clone()), (Ok(server), Ok(client))];
            for (from, to) in pairs {
                let (Ok(mut from), Ok(mut to)) = (from, to) else { continue };
                std::thread::spawn(move || {
                    let _ = std::io::copy(&mut from, &mut to);
                    let _ = to.shutdown(std::net::Shutdown::Write);
                });
            }
        }
    });
    let output = push(&Pushimg::new(), &image(&dir), &format!("[::1]:{port}"), &[]).success();
    assert!(output.stdout.starts_with(&format!("[::1]:{port}/app@sha256:")), "{output}");
    assert!(registry.tag("app", "v1").is_some());
}

#[test]
fn a_password_goes_to_a_far_host_in_the_open_only_when_told_so() {
    let dir = TempDir::new().expect("a folder");
    let registry = DevRegistry::start(registry::Options {
        auth: registry::basic("user", "hunter2"),
        ..Default::default()
    });
    let web = WebProxy::start();
    let host = format!("registry.invalid:{}", registry.addr().port());
    let through = format!("http://{}", web.addr);
    let machine = Pushimg::new()
        .env("HTTP_PROXY", &through)
        .env("HTTPS_PROXY", &through)
        .login(&host, "user", "hunter2");
    let image = image(&dir);
    push(&machine, &image, &host, &["--retry-for=1s"]).exits(5).says("--plain-http");
    assert!(web.seen().iter().all(|head| head.starts_with("CONNECT ")), "{:?}", web.seen());
    push(&machine, &image, &host, &["--plain-http"]).success();
}

#[test]
fn a_token_server_in_the_open_gets_nothing_of_a_registry_over_tls() {
    let (dir, authority) = (TempDir::new().expect("a folder"), Authority::new());
    let tokens = TokenServer::start(TokenOptions::default());
    let registry = DockerRegistry::start(&DockerRegistryOptions {
        tls: Some(&authority),
        token: Some(&tokens),
        ..Default::default()
    });
    let options = TokenOptions::default();
    let machine = Pushimg::new().login(&registry.host(), &options.user, &options.password);
    let ca = format!("--ca-file={}", authority.ca_file().display());
    push(&machine, &image(&dir), &registry.host(), &[&ca]).exits(4).says("unencrypted");
    assert!(tokens.requests().is_empty());
}

#[test]
fn a_registry_over_http_2_and_tls_is_pushed_to_through_faults() {
    let (dir, authority) = (TempDir::new().expect("a folder"), Authority::new());
    let registry = DevRegistry::start(registry::Options::default());
    let proxy = FaultProxy::start(
        registry.addr(),
        &ProxyOptions { tls: Some(&authority), ..Default::default() },
    );
    let ca = format!("--ca-file={}", authority.ca_file().display());
    proxy.set_rules(vec![
        Rule::at(Step::BlobHead, Fault::Reset).first(2),
        Rule::at(Step::UploadPut, Fault::CutRequest { at: At::Percent(50), delivered: true })
            .first(1),
        Rule::at(Step::ManifestPut, Fault::Reset).first(1),
    ]);
    push(&Pushimg::new(), &image(&dir), &proxy.host(), &[&ca]).success();
    assert!(registry.tag("app", "v1").is_some());
    let version = |step| {
        let records = proxy.records();
        records.iter().filter(|r| r.step == step).map(|r| r.version.clone()).next_back()
    };
    assert_eq!(version(Step::ManifestPut).as_deref(), Some("HTTP/2.0"));
    assert_eq!(version(Step::UploadPut).as_deref(), Some("HTTP/1.1"));
}
