//! What ssh says on standard error: why it failed, and which port it forwards.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Child;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// The most that is kept.
const MAX_KEPT: usize = 64 << 10;
/// How long ssh may take to end after the script has, and to say why.
const END_WITHIN: Duration = Duration::from_secs(2);

/// The last that ssh says on standard error, however much it is.
pub struct SshErrors {
    said: Arc<Mutex<Vec<u8>>>,
    reading: JoinHandle<()>,
}

impl SshErrors {
    /// Begins to read. ssh's word on the port that it forwards is passed on.
    pub fn of(mut from: impl AsyncRead + Unpin + Send + 'static, port: PortSender) -> Self {
        let said = Arc::<Mutex<Vec<u8>>>::default();
        let kept = said.clone();
        let reading = tokio::spawn(async move {
            let mut buffer = vec![0; 8 << 10];
            let mut port = Some(port);
            while let Ok(read @ 1..) = from.read(&mut buffer).await {
                let mut kept = kept.lock();
                kept.extend_from_slice(&buffer[..read]);
                if port.is_some()
                    && let Some(told) = forwarded(&String::from_utf8_lossy(&kept))
                    && let Some(port) = port.take()
                {
                    // The session may be over by now.
                    let _ = port.send(told);
                }
                if kept.len() > MAX_KEPT {
                    let excess = kept.len() - MAX_KEPT / 2;
                    kept.drain(..excess);
                }
            }
        });
        Self { said, reading }
    }

    /// All of it, when ssh ends. If it was called by another program, that may end before it.
    pub async fn last(self, mut child: Child) -> String {
        if tokio::time::timeout(END_WITHIN, child.wait()).await.is_err() {
            let _ = child.kill().await;
        }
        let reading = self.reading.abort_handle();
        if tokio::time::timeout(END_WITHIN, self.reading).await.is_err() {
            reading.abort();
        }
        let said = String::from_utf8_lossy(&self.said.lock()).into_owned();
        let of_port = |line: &&str| line.contains("Allocated port ");
        said.lines().filter(|line| !of_port(line)).collect::<Vec<_>>().join("\n")
    }
}

/// Gets the port that ssh forwards, or `None` if the machine's server lets none be forwarded.
pub type PortSender = oneshot::Sender<Option<u16>>;

/// What OpenSSH says of a port that it was to choose and to forward: the port, or that there is none.
fn forwarded(said: &str) -> Option<Option<u16>> {
    let (complete, _) = said.rsplit_once('\n')?;
    complete.lines().find_map(|line| {
        if line.contains("remote port forwarding failed for listen port 0") {
            return Some(None);
        }
        let (_, after) = line.split_once("Allocated port ")?;
        let (port, _) = after.split_once(" for remote forward")?;
        Some(port.parse().ok())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_is_what_ssh_says_in_a_whole_line() {
        let ours = "Allocated port 43210 for remote forward to /tmp/x/registry:-2\r\n";
        assert_eq!(forwarded("Allocated port 432"), None);
        assert_eq!(forwarded(&format!("Welcome\n{ours}")), Some(Some(43210)));
        let refused = "Warning: remote port forwarding failed for listen port 0\n";
        assert_eq!(forwarded(refused), Some(None));
        assert_eq!(forwarded(&refused.replace("port 0", "port 8080")), None);
    }
}
