//! Progress without a terminal, as plain lines for a log.

use std::io::Write;
use std::time::{Duration, Instant};

use super::progress::{PushProgress, UploadLine};
use super::text::{escape, size, to_send, whole_time};

/// After this time without a line, a line reports the progress.
const SILENCE: Duration = Duration::from_secs(10);

/// Writes plain lines.
pub struct Lines<W> {
    out: W,
    /// When the last line was written.
    last: Instant,
}

impl<W: Write + Send> Lines<W> {
    pub fn new(out: W, now: Instant) -> Self {
        Self { out, last: now }
    }

    /// Writes one line.
    pub fn line(&mut self, text: &str, now: Instant) {
        // If standard error is closed, the push continues nevertheless. Each line is a single
        // write, so that lines of several processes are not mixed.
        let _ = self.out.write_all(format!("{text}\n").as_bytes());
        let _ = self.out.flush();
        self.last = now;
    }

    /// Writes the progress if nothing was written for [`SILENCE`].
    pub fn tick(&mut self, progress: &PushProgress, now: Instant) {
        if progress.is_under_way() && now.duration_since(self.last) >= SILENCE {
            self.line(&status(progress, now), now);
        }
    }
}

/// `12 of 43 layers, 130 MB of 440 MB sent at 12.3 MB/s, 25 s left; uploading glibc-2.38 (120 MB of
/// 400 MB)`.
fn status(progress: &PushProgress, now: Instant) -> String {
    let mut text = progress.heading();
    if progress.sent() > 0 {
        let of = progress.to_send().map_or_else(String::new, |of| format!(" of {}", to_send(of)));
        text += &format!(", {}{of} sent", size(progress.sent()));
        if let Some(pace) = progress.pace(now) {
            text += &format!(" at {}/s", size(pace as u64));
        }
    }
    if let Some(left) = progress.time_left(now).filter(|left| !left.is_zero()) {
        text += &format!(", {} left", whole_time(left.as_secs_f64().ceil()));
    }
    // Show the upload with the most bytes left, because the push lasts at least as long as this
    // one.
    let missing = |upload: &&UploadLine| {
        let total = upload.total.unwrap_or(u64::MAX);
        total.saturating_sub(upload.position)
    };
    if let Some(upload) = progress.active().max_by_key(missing) {
        let of = upload.total.map_or_else(String::new, |total| format!(" of {}", size(total)));
        text += &format!("; uploading {} ({}{of})", escape(&upload.name), size(upload.position));
        let others = progress.active().count() - 1;
        if others > 0 {
            text += &format!(" and {others} more");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::tests::{sent, started};
    use super::*;
    use crate::event::Event;

    #[test]
    fn a_long_upload_is_heard_of_every_ten_seconds_and_not_more_often() {
        let begin = Instant::now();
        let at = |seconds| begin + Duration::from_secs(seconds);
        let mut progress = PushProgress::new(1);
        for event in [
            Event::LayerCount(43),
            started(3, "gcc\u{1b}-13", Some(400_000_000)),
            started(4, "small", Some(2_000)),
        ] {
            progress.apply(0, &event, begin);
        }
        let mut written = Vec::new();
        let mut lines = Lines::new(&mut written, begin);
        for seconds in [1, 5, 9, 10, 15, 19, 20] {
            progress.apply(0, &sent(3, seconds * 12_000_000, None), at(seconds));
            lines.tick(&progress, at(seconds));
        }
        lines.line("glibc", at(29));
        lines.tick(&progress, at(30));
        assert_eq!(
            String::from_utf8(written).unwrap(),
            "0 of 43 layers, 120 MB of 400+ MB sent at 12.0 MB/s; \
             uploading gcc\\u{1b}-13 (120 MB of 400 MB) and 1 more\n\
             0 of 43 layers, 240 MB of 400+ MB sent at 12.0 MB/s; \
             uploading gcc\\u{1b}-13 (240 MB of 400 MB) and 1 more\n\
             glibc\n"
        );
    }

    #[test]
    fn reading_a_pipe_is_heard_of_too() {
        let begin = Instant::now();
        let mut progress = PushProgress::new(1);
        let reading = Event::Reading { position: 5_000_000, total: None };
        progress.apply(0, &reading, begin);
        let mut written = Vec::new();
        Lines::new(&mut written, begin).tick(&progress, begin + SILENCE);
        assert_eq!(written, b"5.0 MB read\n");
    }
}
