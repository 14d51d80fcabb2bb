//! Tests of the laboratory itself: its registries behave like registries, its faults arrive, its
//! counts are right.

mod archives;
mod development_registry;
mod docker_registry;
mod gateways;
mod proxy;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::support::archive::{ImageBuilder, Layer, random_bytes, sha256};
use crate::support::docker_registry::{BASIC_PASSWORD, BASIC_USER};
use crate::support::proxy::*;
use crate::support::pull::{self, Remote};
use crate::support::registry::{self, DevRegistry};
use crate::support::tls::{Authority, http_client as client};
use crate::support::token_server::{ExpiresIn, TokenForm};
use crate::support::*;
use reqwest::{Client, Method, StatusCode};
use tempfile::TempDir;

fn image(dir: &TempDir) -> PathBuf {
    ImageBuilder::new(vec![
        Layer::text("glibc-2.38", 1, 200_000),
        Layer::random("openssl-3.0", 2, 100_000),
        Layer::file("app-1.0", b"one"),
    ])
    .write(dir.path(), "image.tar")
}

/// Opens an upload session and returns its absolute location.
async fn open(client: &Client, base: &str) -> String {
    let response = client
        .post(format!("{base}/v2/lab/blobs/uploads/"))
        .send()
        .await
        .expect("an answer to POST");
    assert_eq!(response.status(), StatusCode::ACCEPTED);
    location(&response, base)
}

fn header(response: &reqwest::Response, name: &str) -> Option<String> {
    Some(response.headers().get(name)?.to_str().ok()?.to_owned())
}

fn location(response: &reqwest::Response, base: &str) -> String {
    let location = header(response, "location").expect("a location");
    match location.starts_with('/') {
        true => format!("{base}{location}"),
        false => location,
    }
}

fn with_digest(location: &str, digest: &str) -> String {
    let sign = if location.contains('?') { '&' } else { '?' };
    format!("{location}{sign}digest={digest}")
}

fn stream(bytes: Vec<u8>) -> reqwest::Body {
    let chunks: Vec<_> = bytes
        .chunks(16 * 1024)
        .map(|chunk| Ok::<_, std::io::Error>(bytes::Bytes::copy_from_slice(chunk)))
        .collect();
    reqwest::Body::wrap_stream(futures::stream::iter(chunks))
}
