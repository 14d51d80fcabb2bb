//! Connections: accepted, served with HTTP/1.1, and closed when they make no progress.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::{Shared, routes};

/// How many connections are served at once; others wait until they are accepted.
const CONNECTIONS: usize = 512;

/// How long a client may take to send the headers of a request, and how long it may stay connected
/// between two.
const HEADERS: Duration = Duration::from_secs(60);

/// How long a client that was sent a blob may take none of its bytes.
const STALLED: Duration = Duration::from_secs(300);

/// The longest header, and how many bytes wait to be written besides a piece of a blob.
const BUFFER: usize = 32 << 10;

/// How long to wait where no connection can be accepted, such as for want of open files.
const PAUSE: Duration = Duration::from_millis(100);

/// Where connections come in.
pub enum Listener {
    /// A TCP port.
    Tcp(TcpListener),
    /// A Unix socket, such as one that `ssh -R` forwards a port to.
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

/// Serves all connections that come. Dropping the future closes them.
pub async fn serve(shared: &Arc<Shared>, listener: &Listener) {
    let mut connections = JoinSet::new();
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        // The semaphore is never closed.
        let Ok(slot) = slots.clone().acquire_owned().await else { return };
        let shared = shared.clone();
        let accepted = match listener {
            Listener::Tcp(listener) => listener.accept().await.map(|(stream, _)| {
                // Without it, the last bytes of an answer may wait.
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
    let progress = Arc::new(Progress::default());
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
        // A client that breaks off, or sends what is not HTTP, is no error of ours.
        _ = serving => {}
        () = progress.stalled() => {}
    }
}

/// How far the blobs of one connection are.
pub struct Progress {
    blobs: AtomicUsize,
    last: Mutex<Instant>,
}

impl Default for Progress {
    fn default() -> Self {
        Self { blobs: AtomicUsize::new(0), last: Mutex::new(Instant::now()) }
    }
}

/// A blob that a connection sends.
pub struct Progressing(Arc<Progress>);

impl Progressing {
    pub fn new(progress: &Arc<Progress>) -> Self {
        progress.blobs.fetch_add(1, Ordering::Relaxed);
        let progressing = Self(progress.clone());
        progressing.touch();
        progressing
    }

    /// More of the blob is asked for.
    pub fn touch(&self) {
        *self.0.last.lock() = Instant::now();
    }
}

impl Drop for Progressing {
    fn drop(&mut self) {
        self.0.blobs.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Progress {
    /// Waits until a blob was not taken any further for too long.
    async fn stalled(&self) {
        let mut every = tokio::time::interval(STALLED / 10);
        loop {
            every.tick().await;
            let is_sending = self.blobs.load(Ordering::Relaxed) > 0;
            if is_sending && self.last.lock().elapsed() > STALLED {
                return;
            }
        }
    }
}
