//! Progress at a terminal: a bar for each upload, and one below them for the whole push.
//!
//! ```text
//! glibc-2.38                 ━━━━━╸──  31.2 MB of 40.0 MB     4.1 MB/s
//! 12 of 43 layers, 8 there   ━━╸─────  60.1 MB of 240+ MB     7.2 MB/s    25 s left
//! ```

use std::collections::HashMap;
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

use super::progress::PushProgress;
use super::text::{escape, fit, size, to_send, whole_time};
use crate::event::Event;
use crate::image::LayerId;

/// Redraws per second.
pub const DRAWS: u8 = 10;
/// How often a bar is redrawn without an event.
const TICK: Duration = Duration::from_millis(100);
/// The maximum of the bar for the whole push, which shows a fraction.
const WHOLE: u64 = 10_000;
/// With at least this many columns, totals and rates are shown.
const WIDE: usize = 80;
/// With at least this many columns, the remaining time is shown.
const MEDIUM: usize = 56;

/// The bars, and the lines above them.
pub struct Bars {
    multi: MultiProgress,
    whole: Option<ProgressBar>,
    /// The bars of uploads, by image and layer.
    uploads: HashMap<(usize, LayerId), ProgressBar>,
    columns: usize,
}

impl Bars {
    pub fn new(target: ProgressDrawTarget, columns: usize) -> Self {
        Self {
            multi: MultiProgress::with_draw_target(target),
            whole: None,
            uploads: HashMap::new(),
            columns,
        }
    }

    /// Prints a line above the bars.
    pub fn line(&self, text: &str) {
        // If standard error is closed, the push continues nevertheless.
        let _ = self.multi.println(text);
    }

    /// Updates the bars for an event of an image.
    pub fn update(&mut self, image: usize, event: &Event, progress: &PushProgress, now: Instant) {
        match event {
            Event::UploadStarted { layer, name, total } => {
                self.show_whole();
                self.begin((image, *layer), name, *total);
            }
            Event::UploadProgress { layer, position, total, .. } => {
                if let Some(bar) = self.uploads.get(&(image, *layer)) {
                    if bar.length().is_none()
                        && let Some(total) = total
                    {
                        bar.set_length(*total);
                        bar.set_style(self.upload_style(true));
                    }
                    bar.set_position(*position);
                }
            }
            Event::LayerDone { layer, .. } => {
                if let Some(bar) = self.uploads.remove(&(image, *layer)) {
                    self.remove(&bar);
                }
            }
            Event::Reading { .. } | Event::LayerCount(_) | Event::UploadQueued { .. } => {
                self.show_whole();
            }
            _ => return,
        }
        self.tick(progress, now);
    }

    /// Updates the bar for the whole push.
    pub fn tick(&self, progress: &PushProgress, now: Instant) {
        let Some(whole) = &self.whole else { return };
        whole.set_prefix(self.heading(progress));
        whole.set_message(self.figures(progress, now));
        whole.set_position((progress.fraction() * WHOLE as f64) as u64);
    }

    /// Removes all bars. Lines that were printed stay.
    pub fn clear(&mut self) {
        for (_, bar) in self.uploads.drain() {
            bar.finish_and_clear();
        }
        if let Some(whole) = self.whole.take() {
            whole.finish_and_clear();
        }
        let _ = self.multi.clear();
    }

    fn show_whole(&mut self) {
        if self.whole.is_none() {
            let bar = self.multi.add(ProgressBar::new(WHOLE));
            bar.set_style(style("{prefix} {wide_bar:.cyan/dim} {msg}"));
            bar.enable_steady_tick(TICK);
            self.whole = Some(bar);
        }
    }

    fn begin(&mut self, layer: (usize, LayerId), name: &str, total: Option<u64>) {
        let bar = match total {
            Some(total) => ProgressBar::new(total),
            None => ProgressBar::no_length(),
        };
        let bar = match &self.whole {
            Some(whole) => self.multi.insert_before(whole, bar),
            None => self.multi.add(bar),
        };
        bar.set_style(self.upload_style(total.is_some()));
        bar.set_prefix(fit(&escape(name), self.name_columns()));
        bar.enable_steady_tick(TICK);
        if let Some(replaced) = self.uploads.insert(layer, bar) {
            self.remove(&replaced);
        }
    }

    fn remove(&self, bar: &ProgressBar) {
        bar.finish_and_clear();
        self.multi.remove(bar);
    }

    /// The width of names: at most 32 columns, and about a third of a narrow terminal.
    pub fn name_columns(&self) -> usize {
        (self.columns / 3).clamp(8, 32)
    }

    /// Name, bar or spinner, and bytes. On a wide terminal also the total bytes and the rate.
    fn upload_style(&self, length_known: bool) -> ProgressStyle {
        let mut template = String::from("{prefix} ");
        template +=
            if length_known { "{wide_bar:.green/dim}" } else { "{spinner:.green} {wide_msg}" };
        template += " {sent:>8}";
        if self.columns >= WIDE {
            template += if length_known { " of {of:<8}" } else { "            " };
            template += " {rate:>11}";
        }
        if self.columns >= MEDIUM {
            // Leaves room for the remaining time, which only the bar of the whole push shows.
            template += "            ";
        }
        style(&template)
    }

    /// `12 of 43 layers, 8 there`, with the same width as the names above it.
    fn heading(&self, progress: &PushProgress) -> String {
        let columns = self.name_columns();
        let short = progress.heading();
        let long = match progress.there() {
            0 => short.clone(),
            there => format!("{short}, {there} there"),
        };
        let fits = |text: &str| console::measure_text_width(text) <= columns;
        if fits(&long) {
            fit(&long, columns)
        } else if fits(&short) {
            fit(&short, columns)
        } else {
            // `120/143 layers`
            fit(&short.replace(" of ", "/"), columns)
        }
    }

    /// Bytes, rate and remaining time, in the same columns as the uploads above.
    fn figures(&self, progress: &PushProgress, now: Instant) -> String {
        let sent = size(progress.sent());
        if self.columns < MEDIUM {
            return format!("{sent:>8}");
        }
        let left = progress
            .time_left(now)
            .filter(|left| !left.is_zero())
            .map(|left| format!("{} left", whole_time(left.as_secs_f64().ceil())))
            .unwrap_or_default();
        if self.columns < WIDE {
            return format!("{sent:>8} {left:>11}");
        }
        let of = progress.to_send().map(to_send).unwrap_or_default();
        let word = if of.is_empty() { "  " } else { "of" };
        let rate = progress.pace(now).map(|pace| format!("{}/s", size(pace as u64)));
        format!("{sent:>8} {word} {of:<8} {:>11} {left:>11}", rate.unwrap_or_default())
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template)
        // Fails only if the template is malformed, and a test draws every template.
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("━╸─")
        .with_key("sent", |state: &ProgressState, to: &mut dyn std::fmt::Write| {
            let _ = to.write_str(&size(state.pos()));
        })
        .with_key("of", |state: &ProgressState, to: &mut dyn std::fmt::Write| {
            let _ = to.write_str(&size(state.len().unwrap_or(0)));
        })
        .with_key("rate", |state: &ProgressState, to: &mut dyn std::fmt::Write| {
            let _ = write!(to, "{}/s", size(state.per_sec() as u64));
        })
}

#[cfg(test)]
mod tests {
    use indicatif::InMemoryTerm;

    use super::super::tests::{layer, sent, started};
    use super::*;
    use crate::report::Outcome;

    /// What a terminal with this width shows during a push and after it.
    fn shown(columns: u16) -> (String, String) {
        let term = InMemoryTerm::new(20, columns);
        let target = ProgressDrawTarget::term_like(Box::new(term.clone()));
        let mut bars = Bars::new(target, columns.into());
        let mut progress = PushProgress::new(1);
        let begin = Instant::now();
        let mut feed = |event: Event, after: u64| {
            let now = begin + Duration::from_secs(after);
            progress.apply(0, &event, now);
            bars.update(0, &event, &progress, now);
        };
        feed(Event::LayerCount(3), 0);
        feed(started(0, "a-package-with-a-long-name-1.2.3-bin", Some(200_000_000)), 0);
        feed(started(1, "gcc-13\u{1b}[2J", None), 0);
        feed(started(2, "glibc", Some(10)), 0);
        feed(layer(2, "glibc", 10, Outcome::Uploaded), 1);
        feed(sent(1, 5_000_000, None), 2);
        feed(sent(1, 10_000_000, Some(40_000_000)), 4);
        feed(sent(0, 50_000_000, None), 4);
        bars.line("glibc  10 B  uploaded");
        // Positions are drawn at the next tick.
        let patience = Instant::now() + Duration::from_secs(10);
        let is_drawn = |shown: &str| shown.contains("50.0 MB") && shown.contains("10.0 MB");
        while !is_drawn(&term.contents()) && Instant::now() < patience {
            std::thread::sleep(TICK);
        }
        let during = term.contents();
        bars.clear();
        (during, term.contents())
    }

    #[test]
    fn every_width_shows_name_bytes_and_the_whole_and_cleans_up() {
        for columns in [40, 60, 80, 120] {
            let (during, after) = shown(columns);
            let rows: Vec<&str> = during.lines().collect();
            assert_eq!(rows.len(), 4, "{columns}:\n{during}");
            assert!(rows[1].starts_with("a-package-wi"), "{during}");
            assert!(rows[1].contains("━━") && rows[1].contains("50.0 MB"), "{during}");
            assert!(rows[2].contains("gcc-13\\u{") && rows[2].contains("10.0 MB"), "{during}");
            assert!(rows[3].starts_with("1 of 3 layer"), "{during}");
            assert!(rows[3].contains("60.0 MB"), "{during}");
            assert_eq!(columns >= 60, rows[3].ends_with(" s left"), "{during}");
            if columns >= 80 {
                assert!(rows[1].contains("50.0 MB of 200 MB"), "{during}");
                assert!(rows[2].contains("10.0 MB of 40.0 MB"), "{during}");
                assert!(rows[3].contains("60.0 MB of 240 MB"), "{during}");
                assert!(rows[3].contains("MB/s"), "{during}");
            }
            assert_eq!(after, "glibc  10 B  uploaded");
        }
    }
}
