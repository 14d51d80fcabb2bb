//! Accepts connections, serves them with HTTP/1.1, and closes those without progress.

use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::routes;
use super::shared::Shared;
use super::stall::StallTimer;

/// How many connections are served at the same time. Further ones wait to be accepted.
const CONNECTIONS: usize = 512;

/// How long a client may take to send the headers of a request, and how long a connection may be
/// idle between two requests.
const HEADERS: Duration = Duration::from_secs(60);

/// The longest header, and how many bytes may wait to be written in addition to a piece of a blob.
const BUFFER: usize = 32 << 10;

/// How long to wait if no connection can be accepted, for example because too many files are open.
const PAUSE: Duration = Duration::from_millis(100);

/// A socket that accepts connections.
pub enum Listener {
    /// A TCP port.
    Tcp(TcpListener),
    /// A Unix socket, such as the one to which `ssh -R` forwards a port.
    Unix(UnixListener),
}

impl From<TcpListener> for Listener {
    fn from(listener: TcpListener) -> Self {
        Self::Tcp(listener)
    }
}

impl From<UnixListener> for Listener {
    fn from(listener: UnixListener) -> Self {
        Self::Unix(listener)
    }
}

/// Serves all connections. Dropping the future closes them.
pub async fn serve(shared: &Arc<Shared>, listener: &Listener) {
    let mut connections = JoinSet::new();
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        // The semaphore is never closed.
        let Ok(slot) = slots.clone().acquire_owned().await else { return };
        let shared = shared.clone();
        let accepted = match listener {
            Listener::Tcp(listener) => listener.accept().await.map(|(stream, _)| {
                // Otherwise the last bytes of an answer may be delayed.
                let _ = stream.set_nodelay(true);
                connections.spawn(async move {
                    serve_one(shared, stream).await;
                    drop(slot);
                });
            }),
            Listener::Unix(listener) => listener.accept().await.map(|(stream, _)| {
                connections.spawn(async move {
                    serve_one(shared, stream).await;
                    drop(slot);
                });
            }),
        };
        if accepted.is_err() {
            tokio::time::sleep(PAUSE).await;
        }
        while connections.try_join_next().is_some() {}
    }
}

async fn serve_one(
    shared: Arc<Shared>,
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
) {
    let progress = Arc::new(StallTimer::default());
    let theirs = progress.clone();
    let service = service_fn(move |request| {
        let (shared, progress) = (shared.clone(), theirs.clone());
        async move { Ok::<_, std::convert::Infallible>(routes::answer(&shared, &request, &progress)) }
    });
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADERS)
        .max_buf_size(BUFFER)
        .serve_connection(TokioIo::new(stream), service);
    tokio::select! {
        // A client that disconnects, or does not send HTTP, is not an error of the server.
        _ = serving => {}
        () = progress.stalled() => {}
    }
}
