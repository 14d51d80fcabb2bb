//! Pushes to registries of other makers. They fail if pushimg relies on what only docker-registry
//! does.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::support::archive::testdata;
use crate::support::pull;
use crate::support::run::Pushimg;
use container_registry::ContainerRegistry;
use container_registry::auth::{Anonymous, Permissions};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use tempfile::TempDir;

/// Serves the crate's registry until the runtime ends.
async fn serve(storage: &TempDir) -> SocketAddr {
    let everything = Anonymous::new(Permissions::ReadWrite, Permissions::ReadWrite);
    let registry = ContainerRegistry::builder()
        .storage(storage.path())
        .auth_provider(Arc::new(everything))
        .build()
        .expect("a storage");
    let service = TowerToHyperService::new(registry.make_router());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let service = service.clone();
            tokio::spawn(async move {
                let builder = Builder::new(TokioExecutor::new());
                let _ = builder.serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
    address
}

/// The crate `container-registry`: takes bytes by PATCH only, has no upload status, and wants
/// repositories of two parts.
#[tokio::test(flavor = "multi_thread")]
async fn container_registry_takes_an_image_and_its_next_version() {
    let storage = tempfile::tempdir().expect("a folder");
    let host = serve(&storage).await.to_string();
    let pushing = tokio::task::spawn_blocking(move || {
        let destination = format!("{host}/team/app:v1");
        for (name, uploaded) in [("layered-v1.tar.gz", 6), ("layered-v2.tar.gz", 1)] {
            let archive = testdata(name);
            let path = archive.to_str().expect("a path in UTF-8");
            Pushimg::new()
                .run([path, &destination, "--no-cache"])
                .success()
                .says(&format!("{uploaded} of 6 layers uploaded"));
            pull::assert_same_image(&archive, host.as_str(), "team/app", "v1");
        }
    });
    pushing.await.expect("both pushes");
}
