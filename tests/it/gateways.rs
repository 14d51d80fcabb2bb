//! Pushes through nginx and HAProxy before a registry.

use std::net::SocketAddr;
use std::path::PathBuf;

use crate::support::archive::{ImageBuilder, Layer};
use crate::support::pull;
use crate::support::run::{Output, Pushimg};
use crate::support::tls::Authority;
use crate::support::*;
use tempfile::TempDir;

/// The two programs, so that each test runs with both.
enum Gateway {
    Nginx(Nginx),
    HaProxy(HaProxy),
}

impl Gateway {
    fn both(upstream: SocketAddr, options: &GatewayOptions<'_>) -> [Self; 2] {
        [
            Self::Nginx(Nginx::before(upstream, options)),
            Self::HaProxy(HaProxy::before(upstream, options)),
        ]
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Nginx(_) => "nginx",
            Self::HaProxy(_) => "haproxy",
        }
    }

    fn host(&self) -> String {
        match self {
            Self::Nginx(gateway) => gateway.host(),
            Self::HaProxy(gateway) => gateway.host(),
        }
    }

    fn requests(&self) -> Vec<String> {
        match self {
            Self::Nginx(gateway) => gateway.requests(),
            Self::HaProxy(gateway) => gateway.requests(),
        }
    }

    /// How many requests ended with this status.
    fn answered(&self, status: u16) -> usize {
        let end = format!(" {status}");
        self.requests().iter().filter(|request| request.ends_with(&end)).count()
    }
}

/// An image with one layer of 3 MB that does not compress, and a small one.
fn image(dir: &TempDir) -> PathBuf {
    ImageBuilder::new(vec![Layer::random("big", 1, 3_000_000), Layer::file("small", b"small")])
        .write(dir.path(), "image.tar")
}

fn push(machine: &Pushimg, image: &std::path::Path, destination: &str, ca: &str) -> Output {
    let mut args = vec![image.to_str().expect("a path in UTF-8"), destination];
    if !ca.is_empty() {
        args.extend(["--ca-file", ca]);
    }
    machine.run(args)
}

#[test]
fn an_image_arrives_through_a_gateway_with_and_without_tls() {
    let (dir, authority) = (TempDir::new().expect("a folder"), Authority::new());
    let image = image(&dir);
    let ca = authority.ca_file().display().to_string();
    for tls in [None, Some(&authority)] {
        let registry = DockerRegistry::plain();
        let options = GatewayOptions { tls, forwarded_proto: true, ..Default::default() };
        for gateway in Gateway::both(registry.addr(), &options) {
            let name = gateway.name();
            let ca = if tls.is_some() { &ca } else { "" };
            push(&Pushimg::new(), &image, &format!("{}/{name}:v1", gateway.host()), ca).success();
            pull::assert_same_image(&image, registry.addr(), name, "v1");
            assert!(gateway.answered(201) >= 3, "{name}: {:#?}", gateway.requests());
            assert_eq!(registry.open_uploads(name), 0, "{name}");
        }
    }
}

#[test]
fn through_a_gateway_with_a_body_limit_layers_go_in_parts() {
    let dir = TempDir::new().expect("a folder");
    let image = image(&dir);
    let registry = DockerRegistry::plain();
    let limit = Some(1 << 20);
    let options = GatewayOptions { body_limit: limit, ..Default::default() };
    for gateway in Gateway::both(registry.addr(), &options) {
        let name = gateway.name();
        push(&Pushimg::new(), &image, &format!("{}/{name}:v1", gateway.host()), "").success();
        pull::assert_same_image(&image, registry.addr(), name, "v1");
        let requests = gateway.requests();
        assert!(gateway.answered(413) <= 4, "{name}: {requests:#?}");
        let patches = requests.iter().filter(|request| request.starts_with("PATCH ")).count();
        assert!(patches >= 3, "{name}: {requests:#?}");
        assert_eq!(registry.open_uploads(name), 0, "{name}");
    }
    // Without PATCH there is no way to send it in parts.
    let options =
        GatewayOptions { body_limit: limit, refused_method: Some("PATCH"), ..Default::default() };
    for gateway in Gateway::both(registry.addr(), &options) {
        let name = gateway.name();
        let destination = format!("{}/none-{name}:v1", gateway.host());
        let output = push(&Pushimg::new(), &image, &destination, "");
        output.exits(4).says("413");
        assert_eq!(registry.tag(&format!("none-{name}"), "v1"), None);
    }
}

#[test]
fn a_gateway_that_counts_requests_slows_a_push_down_and_does_not_end_it() {
    let dir = TempDir::new().expect("a folder");
    let layers = (0..8).map(|n| Layer::random(&format!("layer-{n}"), n, 2_000)).collect();
    let image = ImageBuilder::new(layers).write(dir.path(), "image.tar");
    let registry = DockerRegistry::plain();
    let options = GatewayOptions { requests_per_second: Some(10), ..Default::default() };
    for gateway in Gateway::both(registry.addr(), &options) {
        let name = gateway.name();
        push(&Pushimg::new(), &image, &format!("{}/{name}:v1", gateway.host()), "").success();
        pull::assert_same_image(&image, registry.addr(), name, "v1");
        assert!(gateway.answered(429) > 0, "{name}: {:#?}", gateway.requests());
    }
}
