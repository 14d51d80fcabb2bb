//! How much memory a program takes at most, read from Linux's /proc.

use std::process::Child;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// Watches a process until it ends.
pub struct PeakMemory {
    peak: Arc<AtomicU64>,
    done: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl PeakMemory {
    /// Begins to watch.
    pub fn of(child: &Child) -> Self {
        let status = format!("/proc/{}/status", child.id());
        let peak = Arc::new(AtomicU64::new(0));
        let done = Arc::new(AtomicBool::new(false));
        let (highest, ended) = (peak.clone(), done.clone());
        let thread = std::thread::spawn(move || {
            while !ended.load(Ordering::Relaxed) {
                // The kernel's own high-water mark, so that no peak between two looks is missed.
                if let Some(bytes) = high_water(&status) {
                    highest.fetch_max(bytes, Ordering::Relaxed);
                }
                std::thread::sleep(Duration::from_millis(2));
            }
        });
        Self { peak, done, thread }
    }

    /// Bytes that were resident at most, once the process has ended; `None` where it ended before
    /// the first look.
    pub fn bytes(self) -> Option<u64> {
        self.done.store(true, Ordering::Relaxed);
        self.thread.join().expect("the watcher's thread");
        let peak = self.peak.load(Ordering::Relaxed);
        (peak > 0).then_some(peak)
    }
}

fn high_water(status: &str) -> Option<u64> {
    let text = std::fs::read_to_string(status).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}
