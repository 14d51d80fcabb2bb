//! Stops work at Ctrl-C, SIGTERM or SIGHUP.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// The signals that ask the program to stop.
pub struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hang_up: Signal,
}

impl Signals {
    /// Starts to receive the signals. From now on they do not end the process.
    pub fn listen() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    /// Waits for the next signal.
    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hang_up.recv() => {}
        }
    }

    /// Runs `work`. A signal drops it and starts `clean_up`, which a second signal stops. Returns
    /// `None` if there was a signal.
    pub async fn stop<T>(
        &mut self,
        work: impl Future<Output = T>,
        clean_up: impl AsyncFnOnce(),
    ) -> Option<T> {
        tokio::select! {
            done = work => return Some(done),
            () = self.next() => {}
        }
        tokio::select! {
            () = clean_up() => {}
            () = self.next() => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Duration;

    use super::*;

    /// Records whether it was dropped.
    struct Dropped<'a>(&'a AtomicBool);

    impl Drop for Dropped<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::SeqCst);
        }
    }

    fn kill(name: &str) {
        let pid = std::process::id().to_string();
        let status = std::process::Command::new("sh")
            .args(["-c", "kill -s $1 $2", "sh", name, &pid])
            .status();
        assert!(status.unwrap().success());
    }

    // A single test, because a signal goes to the whole process.
    #[tokio::test]
    async fn a_signal_drops_the_work_then_cleans_up_and_a_second_one_stops_that() {
        let mut signals = Signals::listen().unwrap();
        assert_eq!(signals.stop(async { 7 }, async || ()).await, Some(7));

        for name in ["INT", "TERM"] {
            let dropped = AtomicBool::new(false);
            let work = async {
                let _guard = Dropped(&dropped);
                kill(name);
                std::future::pending::<()>().await;
            };
            let mut cleaned = false;
            let clean_up = async || {
                assert!(dropped.load(Ordering::SeqCst));
                cleaned = true;
            };
            assert_eq!(signals.stop(work, clean_up).await, None);
            assert!(cleaned);
        }

        let work = async {
            kill("INT");
            std::future::pending::<()>().await;
        };
        let endless = async || {
            kill("INT");
            std::future::pending::<()>().await;
        };
        let stopped = signals.stop(work, endless);
        let stopped = tokio::time::timeout(Duration::from_secs(10), stopped).await;
        assert_eq!(stopped, Ok(None));
    }
}
