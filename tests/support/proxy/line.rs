//! The connection to the client. It can be reset with RST, and made slow by a round trip time and a
//! bandwidth that all connections share.
//!
//! A connection waits one round trip before it is served, like TCP's handshake. Each byte travels
//! for half a round trip. TCP's slow start is not imitated.

use std::io;
use std::pin::Pin;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

/// How slow a line is; the default is as fast as loopback.
#[derive(Clone, Copy, Debug, Default)]
pub struct Line {
    /// Round trip time.
    pub rtt: Duration,
    /// Bits each second and direction, shared by all connections.
    pub bits_per_second: Option<u64>,
}

impl Line {
    /// A line with a round trip of `rtt_ms` milliseconds and `mbit_per_second` Mbit/s.
    pub fn new(rtt_ms: u64, mbit_per_second: u64) -> Self {
        Self {
            rtt: Duration::from_millis(rtt_ms),
            bits_per_second: Some(mbit_per_second * 1_000_000),
        }
    }

    pub fn is_slow(&self) -> bool {
        !self.rtt.is_zero() || self.bits_per_second.is_some()
    }
}

/// Resets a connection from within a request on it.
#[derive(Default)]
pub struct ResetSwitch {
    pulled: AtomicBool,
    notify: Notify,
}

impl ResetSwitch {
    pub fn pull(&self) {
        self.pulled.store(true, Ordering::Release);
        self.notify.notify_one();
    }

    /// Ends when the switch is pulled.
    pub async fn pulled(&self) {
        self.notify.notified().await;
    }

    pub fn is_pulled(&self) -> bool {
        self.pulled.load(Ordering::Acquire)
    }
}

/// A socket that ends in RST where its switch was pulled, else in FIN.
pub struct Socket {
    pub tcp: TcpStream,
    pub switch: std::sync::Arc<ResetSwitch>,
}

impl Drop for Socket {
    fn drop(&mut self) {
        if self.switch.is_pulled() {
            // A socket that is closed by the other side already cannot be reset.
            let _ = self.tcp.set_zero_linger();
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_read(cx, buf)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tcp).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tcp).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.tcp.is_write_vectored()
    }
}

/// Bytes read or written at a time on a slow line.
const CHUNK: usize = 16 * 1024;

/// Chunks under way on a connection and direction: a TCP window of 4 MiB.
const WINDOW: usize = 256;

/// One direction's bandwidth.
pub struct Bandwidth {
    bits_per_second: Option<u64>,
    free_at: Mutex<Instant>,
}

impl Bandwidth {
    pub fn new(bits_per_second: Option<u64>) -> Self {
        Self { bits_per_second, free_at: Mutex::new(Instant::now()) }
    }

    /// Reserves the line for bytes that are ready now. Returns the moment at which the last of them
    /// is sent.
    fn reserve(&self, bytes: usize, now: Instant) -> Instant {
        let Some(rate) = self.bits_per_second else {
            return now;
        };
        let takes = Duration::from_secs_f64(bytes as f64 * 8.0 / rate as f64);
        let mut free_at = self.free_at.lock().expect("no holder panics");
        // Timers wake up to a millisecond late; a small credit makes up for it.
        let credit = now.checked_sub(Duration::from_millis(4)).unwrap_or(now);
        *free_at = (*free_at).max(credit) + takes;
        *free_at
    }
}

/// Carries bytes between a client's socket and the server's end, at the speed of the line. Returns
/// when the server has closed and all its bytes have arrived.
pub async fn carry(
    socket: Socket,
    inner: DuplexStream,
    rtt: Duration,
    up: &Bandwidth,
    down: &Bandwidth,
) {
    let (client_read, client_write) = tokio::io::split(socket);
    let (server_read, server_write) = tokio::io::split(inner);
    let mut upward = std::pin::pin!(direction(client_read, server_write, rtt / 2, up));
    let mut downward = std::pin::pin!(direction(server_read, client_write, rtt / 2, down));
    let mut open = true;
    loop {
        tokio::select! {
            () = &mut downward => return,
            () = &mut upward, if open => open = false,
        }
    }
}

async fn direction(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    delay: Duration,
    bandwidth: &Bandwidth,
) {
    let (under_way, mut arriving) = mpsc::channel::<(Instant, Bytes)>(WINDOW);
    let send = async move {
        let mut chunk = BytesMut::with_capacity(CHUNK);
        while let Ok(read) = from.read_buf(&mut chunk).await
            && read > 0
        {
            let bytes = chunk.split().freeze();
            let now = Instant::now();
            // Because of the credit, this moment may be before the bytes came.
            let gone = bandwidth.reserve(bytes.len(), now).max(now);
            if gone > now {
                tokio::time::sleep_until(gone).await;
            }
            if under_way.send((gone + delay, bytes)).await.is_err() {
                break;
            }
            chunk.reserve(CHUNK);
        }
    };
    let receive = async move {
        while let Some((arrives, bytes)) = arriving.recv().await {
            tokio::time::sleep_until(arrives).await;
            if to.write_all(&bytes).await.is_err() || to.flush().await.is_err() {
                return;
            }
        }
        // The other side may be gone.
        let _ = to.shutdown().await;
    };
    tokio::join!(send, receive);
}
