//! Behaviours of real registries, one by one, made by the proxy: the push succeeds, or it says
//! clearly why it cannot.

mod authorization;
mod broken_uploads;
mod leftovers;
mod locations;
mod manifests;
mod mounts;
mod upload_methods;
mod waiting;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::support::archive::{ImageBuilder, Layer};
use crate::support::docker_registry::{BASIC_PASSWORD, BASIC_USER};
use crate::support::proxy::*;
use crate::support::pull::{self, Remote};
use crate::support::registry::{self, DevRegistry};
use crate::support::run::{Output, Pushimg};
use crate::support::token_server::{ExpiresIn, TokenForm};
use crate::support::*;
use tempfile::TempDir;

const MIB: usize = 1 << 20;

/// A registry behind a proxy, an image, and a machine to push it from.
struct Bench {
    dir: TempDir,
    registry: DevRegistry,
    proxy: FaultProxy,
    machine: Pushimg,
}

impl Bench {
    fn new() -> Self {
        Self::with(registry::Options::default())
    }

    fn with(options: registry::Options) -> Self {
        let registry = DevRegistry::start(options);
        let proxy = FaultProxy::before(registry.addr());
        Self { dir: TempDir::new().expect("a folder"), registry, proxy, machine: Pushimg::new() }
    }

    fn name(&self) -> String {
        format!("{}/app:v1", self.proxy.host())
    }

    /// Two small layers and one of so many bytes.
    fn image(&self, big: usize) -> PathBuf {
        ImageBuilder::new(vec![
            Layer::text("glibc-2.38", 1, 200_000),
            Layer::file("app-1.0", b"one"),
            Layer::random("openssl-3.0", 2, big),
        ])
        .write(self.dir.path(), "image.tar")
    }

    fn push(&self, image: &Path, more: &[&str]) -> Output {
        self.machine.push(image, &self.name(), more)
    }

    /// Pushes the image; asserts that the registry has it and that no upload is left open.
    fn pushed(&self, image: &Path, more: &[&str]) -> Output {
        let output = self.push(image, more).success();
        pull::assert_same_image(image, self.registry.addr(), "app", "v1");
        assert_eq!(self.registry.open_uploads(), 0, "{}", self.proxy.transcript());
        output
    }

    /// Bytes of blobs that the proxy received.
    fn blob_bytes(&self) -> u64 {
        self.proxy.body_bytes(Record::carries_blob)
    }

    /// Asserts that the proxy received at most `times` times `size` bytes of blobs, plus a small
    /// allowance.
    fn sent_at_most(&self, times: f64, size: usize) {
        let sent = self.blob_bytes();
        let most = (size as f64 * times) as u64 + 300_000;
        assert!(sent <= most, "{sent} bytes of {size}\n{}", self.proxy.transcript());
    }
}

fn answer(status: u16) -> Fault {
    Fault::Answer(Answer::status(status))
}

/// Strikes only the PUT of the big layer. The order of the other PUTs depends on timing.
fn big(fault: Fault) -> Rule {
    Rule::at(Step::UploadPut, fault).of_length(MIB as u64..=u64::MAX)
}

fn rewrite(change: Change) -> Fault {
    Fault::Rewrite(vec![change])
}

fn cut(percent: u8) -> Fault {
    Fault::CutRequest { at: At::Percent(percent), delivered: true }
}
