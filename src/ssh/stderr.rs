//! What ssh prints on standard error: why it failed, and which port it forwards.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Child;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// The most bytes that are kept.
const MAX_KEPT: usize = 64 << 10;
/// How long ssh may take to end, and to print its reason, after the script has ended.
const END_WITHIN: Duration = Duration::from_secs(2);

/// The last part of ssh's standard error.
pub struct SshErrors {
    said: Arc<Mutex<Vec<u8>>>,
    reading: JoinHandle<()>,
}

impl SshErrors {
    /// Begins to read. The port that ssh reports is sent to `port`.
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
                    // Fails if the session is already over.
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

    /// The kept output, after ssh has ended. If another program started ssh, that program may end
    /// before ssh does.
    ///
    /// The exit code is that of the program that was started.
    pub async fn last(self, mut child: Child) -> (String, Option<i32>) {
        let ended = tokio::time::timeout(END_WITHIN, child.wait()).await;
        if ended.is_err() {
            let _ = child.kill().await;
        }
        let code = ended.ok().and_then(Result::ok).and_then(|status| status.code());
        let reading = self.reading.abort_handle();
        if tokio::time::timeout(END_WITHIN, self.reading).await.is_err() {
            reading.abort();
        }
        let said = String::from_utf8_lossy(&self.said.lock()).into_owned();
        let of_port = |line: &&str| line.contains("Allocated port ");
        let lines: Vec<_> = said.lines().filter(|line| !of_port(line)).collect();
        (lines.join("\n"), code)
    }
}

/// Sends the port that ssh forwards, or `None` if the machine's SSH server does not allow
/// forwarding.
pub type PortSender = oneshot::Sender<Option<u16>>;

/// The port in OpenSSH's message about a forward to a free port: `Some(None)` if forwarding failed,
/// `None` if there is no such message yet.
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
