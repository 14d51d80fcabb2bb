//! Computes from events how far a push is: layers, bytes, speed and remaining time.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::pace::Pace;
use crate::event::Event;
use crate::image::LayerId;
use crate::report::Outcome;

/// There is no estimate before the images were read for this long.
const TOO_SHORT: Duration = Duration::from_secs(1);

/// After this time without a byte, the reading counts as waiting, for example for the registry.
const LULL: Duration = Duration::from_secs(5);

/// Measures the time spent reading, without waiting times.
#[derive(Clone, Copy, Debug)]
struct WorkTime {
    /// The reading time up to `last`.
    until_last: Duration,
    /// When the last byte was read.
    last: Instant,
}

impl WorkTime {
    fn begin(now: Instant) -> Self {
        Self { until_last: Duration::ZERO, last: now }
    }

    fn went_on(&mut self, now: Instant) {
        *self = Self { until_last: self.took(now), last: now };
    }

    fn took(&self, now: Instant) -> Duration {
        self.until_last + now.duration_since(self.last).min(LULL)
    }
}

/// The sum of all events so far.
#[derive(Debug)]
pub struct PushProgress {
    /// The number of images.
    count: usize,
    /// The images that had an event, by their positions.
    images: BTreeMap<usize, ImageProgress>,
    /// Layers that were not sent, because the registry already had them.
    there: usize,
    /// Blobs that are being uploaded, or will be.
    uploads: BTreeMap<(usize, LayerId), UploadLine>,
    /// Bytes of the blobs whose upload has finished.
    uploaded: u64,
    /// The time spent reading.
    reading: Option<WorkTime>,
    /// How fast bytes are sent, including those of uploads that were started again.
    sending: Option<Pace>,
}

/// The progress of one image.
#[derive(Debug, Default)]
struct ImageProgress {
    /// The number of its layers, once known.
    layers: Option<usize>,
    /// Layers that are finished: uploaded, mounted or found.
    settled: usize,
    /// Bytes of the image's file that were read so far, and its length.
    reading: Option<(u64, Option<u64>)>,
}

/// An upload.
#[derive(Debug)]
pub struct UploadLine {
    /// The layer's name, not escaped.
    pub name: String,
    /// Bytes sent.
    pub position: u64,
    /// The blob's length, once known.
    pub total: Option<u64>,
    /// Bytes of the blob that exist so far.
    ready: u64,
    stage: UploadStage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum UploadStage {
    Queued,
    Running,
}

impl UploadLine {
    /// The bytes of this upload that are known so far: its length, or what exists of it.
    fn known(&self) -> u64 {
        self.total.unwrap_or(self.ready).max(self.position)
    }
}

/// Bytes that must be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ToSend {
    Exactly(u64),
    /// At least this many; more may follow.
    AtLeast(u64),
}

impl PushProgress {
    /// The progress of this many images, before the first event.
    pub fn new(count: usize) -> Self {
        Self {
            count,
            images: BTreeMap::new(),
            there: 0,
            uploads: BTreeMap::new(),
            uploaded: 0,
            reading: None,
            sending: None,
        }
    }

    /// Adds an event of the image at this position, at the time `now`.
    pub fn apply(&mut self, image: usize, event: &Event, now: Instant) {
        if self.is_idle()
            && let Some(pace) = &mut self.sending
        {
            pace.rested(now);
        }
        match event {
            Event::LayerCount(count) => self.image(image).layers = Some(*count),
            Event::Reading { position, total } => {
                self.reading.get_or_insert(WorkTime::begin(now)).went_on(now);
                self.image(image).reading = Some((*position, *total));
            }
            Event::UploadQueued { layer, name, total } => {
                self.add_upload((image, *layer), name, Some(*total), UploadStage::Queued);
            }
            Event::UploadStarted { layer, name, total } => {
                self.sending.get_or_insert(Pace::begin(now));
                self.add_upload((image, *layer), name, *total, UploadStage::Running);
            }
            Event::UploadProgress { layer, position, ready, total } => {
                if let Some(upload) = self.uploads.get_mut(&(image, *layer)) {
                    let more = position.saturating_sub(upload.position);
                    upload.position = *position;
                    upload.ready = *ready;
                    upload.total = total.or(upload.total);
                    self.add_sent(more, now);
                }
            }
            Event::LayerDone { layer, report } => {
                self.image(image).settled += 1;
                let upload = self.uploads.remove(&(image, *layer));
                match report.outcome {
                    Outcome::Uploaded => {
                        let counted = upload.map_or(0, |upload| upload.position);
                        self.add_sent(report.size.saturating_sub(counted), now);
                        self.uploaded += report.size;
                    }
                    Outcome::Reused { .. } | Outcome::Mounted { .. } => self.there += 1,
                    Outcome::WouldUpload | Outcome::WouldMount { .. } => {}
                }
            }
            Event::Destination { .. }
            | Event::Retry { .. }
            | Event::Warning(_)
            | Event::Note(_)
            | Event::Tagging
            | Event::BlobAsked { .. }
            | Event::BlobProgress { .. }
            | Event::BlobSent { .. }
            | Event::Request { .. } => {}
        }
    }

    fn image(&mut self, image: usize) -> &mut ImageProgress {
        self.images.entry(image).or_default()
    }

    fn add_upload(
        &mut self,
        layer: (usize, LayerId),
        name: &str,
        total: Option<u64>,
        stage: UploadStage,
    ) {
        let upload = UploadLine { name: name.to_owned(), position: 0, total, ready: 0, stage };
        self.uploads.insert(layer, upload);
    }

    fn add_sent(&mut self, bytes: u64, now: Instant) {
        if let Some(pace) = &mut self.sending
            && bytes > 0
        {
            pace.moved(bytes, now);
        }
    }

    /// The running uploads, in the order of their layers.
    pub fn active(&self) -> impl Iterator<Item = &UploadLine> {
        self.uploads.values().filter(|upload| upload.stage == UploadStage::Running)
    }

    /// Bytes of blobs sent. If an upload starts again, its bytes count again from zero.
    pub fn sent(&self) -> u64 {
        self.uploaded + self.uploads.values().map(|upload| upload.position).sum::<u64>()
    }

    /// Bytes of blobs that were sent, or are known to be needed.
    fn known(&self) -> u64 {
        self.uploaded + self.uploads.values().map(UploadLine::known).sum::<u64>()
    }

    /// Whether there is nothing to send at the moment.
    fn is_idle(&self) -> bool {
        self.known() == self.sent()
    }

    /// The number of layers of all images, once known.
    fn layers(&self) -> Option<usize> {
        let counted = self.images.values().filter_map(|image| image.layers);
        (counted.clone().count() >= self.count).then(|| counted.sum())
    }

    /// Layers that are finished: uploaded, mounted or found.
    fn settled(&self) -> usize {
        self.images.values().map(|image| image.settled).sum()
    }

    /// Bytes to send that are known so far. `None` if all of them are sent and more may follow.
    pub fn to_send(&self) -> Option<ToSend> {
        let known = self.known();
        match self.is_all_known() {
            true => Some(ToSend::Exactly(known)),
            false => (!self.is_idle()).then_some(ToSend::AtLeast(known)),
        }
    }

    /// Whether it is known which layers must be sent, and how long each is.
    fn is_all_known(&self) -> bool {
        self.layers().is_some_and(|layers| layers <= self.settled() + self.uploads.len())
            && self.uploads.values().all(|upload| upload.total.is_some())
    }

    /// The current speed in bytes per second.
    pub fn pace(&self, now: Instant) -> Option<f64> {
        let mut pace = self.sending?;
        if self.is_idle() {
            pace.rested(now);
        }
        pace.per_second(now)
    }

    /// How much of the push is done, from 0 to 1: the bytes sent, compared with the bytes that are
    /// expected in total.
    pub fn fraction(&self) -> f64 {
        let known = self.known();
        let sent = if known == 0 { 1.0 } else { self.sent() as f64 / known as f64 };
        self.found_out().unwrap_or(0.0) * sent
    }

    /// The estimated remaining time for reading or for sending, whichever is longer; `None` without
    /// an estimate. It assumes that the unread part of the images needs as many bytes as the part
    /// that was read.
    pub fn time_left(&self, now: Instant) -> Option<Duration> {
        let (mut reading, mut to_send) = (0.0, self.known() as f64);
        if !self.is_all_known() {
            let is_measured = |image: &ImageProgress| matches!(image.reading, Some((_, Some(_))));
            let took = self.reading?.took(now);
            let read = self.found_out()?;
            if !self.images.values().all(is_measured) || took < TOO_SHORT || read == 0.0 {
                return None;
            }
            reading = took.as_secs_f64() * (1.0 - read) / read;
            to_send /= read;
        }
        let missing = to_send - self.sent() as f64;
        let sending = match self.pace(now) {
            Some(pace) => missing / pace,
            None if self.is_idle() => 0.0,
            None => return None,
        };
        // If the speed is almost zero, the seconds may not fit in a Duration.
        Duration::try_from_secs_f64(f64::max(reading, sending)).ok()
    }

    /// `12 of 43 layers`. If the number of layers is not known yet: `12 layers done`, or how much
    /// was read.
    pub fn heading(&self) -> String {
        let counted: Vec<(usize, usize)> = self
            .images
            .values()
            .filter_map(|image| Some((image.settled.min(image.layers?), image.layers?)))
            .collect();
        let read = self.images.values().filter_map(|image| image.reading);
        let uncounted = |image: &ImageProgress| image.layers.is_none() && image.settled > 0;
        if self.images.values().any(uncounted) {
            format!("{} done", super::text::layers(self.settled()))
        } else if !counted.is_empty() {
            let settled: usize = counted.iter().map(|(settled, _)| settled).sum();
            match counted.iter().map(|(_, layers)| layers).sum() {
                0 => "no layers".to_owned(),
                all => format!("{settled} of {}", super::text::layers(all)),
            }
        } else if read.clone().next().is_some() {
            format!("{} read", super::text::size(read.map(|(position, _)| position).sum()))
        } else {
            "looking at the image".into()
        }
    }

    /// How many layers the registry had already.
    pub fn there(&self) -> usize {
        self.there
    }

    /// Whether something is left to do before the manifest can be put.
    pub fn is_under_way(&self) -> bool {
        !self.uploads.is_empty() || self.found_out().is_none_or(|part| part < 1.0)
    }

    /// The part of the images, from 0 to 1, for which it is known what must be uploaded.
    fn found_out(&self) -> Option<f64> {
        let parts = (0..self.count).filter_map(|image| self.found_out_of(image));
        let known = parts.clone().next().is_some();
        known.then(|| parts.sum::<f64>() / self.count as f64)
    }

    fn found_out_of(&self, place: usize) -> Option<f64> {
        let image = self.images.get(&place)?;
        match (image.reading, image.layers) {
            (Some((position, Some(total))), _) if total > 0 => {
                Some((position as f64 / total as f64).min(1.0))
            }
            (_, Some(layers)) if layers > 0 => {
                let uploads = self.uploads.keys().filter(|(image, _)| *image == place).count();
                Some(((image.settled + uploads) as f64 / layers as f64).min(1.0))
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{layer, sent, started};
    use super::*;
    use crate::report::Known;

    fn after(events: impl IntoIterator<Item = Event>) -> (PushProgress, Instant) {
        let (mut progress, begin) = (PushProgress::new(1), Instant::now());
        for event in events {
            progress.apply(0, &event, begin);
        }
        (progress, begin)
    }

    fn queued(id: usize, name: &str, total: u64) -> Event {
        Event::UploadQueued { layer: LayerId(id), name: name.into(), total }
    }

    #[test]
    fn it_is_told_whether_what_is_to_be_sent_is_certain() {
        let (mut progress, begin) =
            after([Event::LayerCount(2), started(0, "a", Some(1000)), sent(0, 400, None)]);
        assert_eq!(progress.to_send(), Some(ToSend::AtLeast(1000)));
        assert_eq!(progress.time_left(begin + Duration::from_secs(2)), None);
        progress.apply(0, &layer(1, "b", 50, Outcome::Reused { why: Known::Cache }), begin);
        assert_eq!(progress.to_send(), Some(ToSend::Exactly(1000)));
        assert_eq!(progress.sent(), 400);
        assert_eq!(progress.there(), 1);
        let left = progress.time_left(begin + Duration::from_secs(2)).unwrap();
        assert!((3..5).contains(&left.as_secs()), "{left:?}");
        assert_eq!(progress.fraction(), 0.4);
    }

    #[test]
    fn a_wait_for_a_retry_is_no_measure_of_the_time_left() {
        let (mut progress, begin) =
            after([Event::LayerCount(2), started(0, "a", Some(1000)), started(1, "b", Some(100))]);
        let at = |seconds| begin + Duration::from_secs(seconds);
        progress.apply(0, &sent(0, 200, None), at(2));
        let left = progress.time_left(at(2)).unwrap();
        assert!((7..10).contains(&left.as_secs()), "{left:?}");
        // The connection breaks, and no bytes move for minutes.
        progress.apply(0, &sent(0, 0, None), at(3));
        assert_eq!(progress.time_left(at(100)), None);
        progress.apply(0, &layer(1, "b", 100, Outcome::Uploaded), at(200));
        // The wait counts as 5 seconds in which 100 bytes were sent. Earlier bytes have less
        // weight.
        let left = progress.time_left(at(200)).unwrap();
        assert!((20..32).contains(&left.as_secs()), "{left:?}");
    }

    #[test]
    fn blobs_that_wait_for_their_upload_are_still_to_be_sent() {
        let reading = |position| Event::Reading { position, total: Some(100) };
        let (mut progress, begin) = after([
            reading(0),
            started(0, "a", Some(6_000_000)),
            queued(1, "b", 15_000_000),
            queued(2, "c", 10_000_000),
        ]);
        for second in 1..=5 {
            let now = begin + Duration::from_secs(second);
            progress.apply(0, &reading(second * 20), now);
            progress.apply(0, &sent(0, second * 1_000_000, None), now);
        }
        progress.apply(0, &Event::LayerCount(3), begin);
        assert_eq!(progress.active().count(), 1);
        assert_eq!(progress.to_send(), Some(ToSend::Exactly(31_000_000)));
        let left = progress.time_left(begin + Duration::from_secs(5)).unwrap();
        assert_eq!(left.as_secs_f64().round(), 26.0);
        assert!((progress.fraction() - 5.0 / 31.0).abs() < 0.01);
    }

    #[test]
    fn while_the_image_is_read_more_is_expected_of_the_rest() {
        let grown = |position, ready| Event::UploadProgress {
            layer: LayerId(0),
            position,
            ready,
            total: None,
        };
        let (mut progress, begin) = after([
            Event::LayerCount(10),
            Event::Reading { position: 0, total: Some(100) },
            started(0, "a", None),
            grown(0, 500),
        ]);
        let now = begin + Duration::from_secs(4);
        progress.apply(0, &Event::Reading { position: 50, total: Some(100) }, now);
        progress.apply(0, &grown(400, 1000), now);
        assert_eq!(progress.to_send(), Some(ToSend::AtLeast(1000)));
        // 2000 bytes are expected, and 1600 of them are left, at 100 bytes per second.
        assert_eq!(progress.time_left(now).map(|left| left.as_secs_f64().round()), Some(16.0));
        // Sending is fast, and reading the rest of the image takes 4 seconds.
        progress.apply(0, &sent(0, 1_000_000, None), now);
        assert_eq!(progress.time_left(now).map(|left| left.as_secs()), Some(4));
    }

    #[test]
    fn a_blob_of_unknown_length_leaves_the_time_open() {
        let (progress, begin) =
            after([Event::LayerCount(1), started(0, "a", None), sent(0, 400, None)]);
        assert_eq!(progress.to_send(), None);
        assert_eq!(progress.time_left(begin + Duration::from_secs(9)), None);
        assert!(progress.is_under_way());
    }

    #[test]
    fn the_whole_is_as_far_as_the_slower_of_reading_and_sending() {
        let reading = |position| Event::Reading { position, total: Some(100) };
        let (progress, begin) = after([reading(25), started(0, "a", Some(10)), sent(0, 10, None)]);
        assert_eq!(progress.fraction(), 0.25);
        let left = progress.time_left(begin + Duration::from_secs(2)).unwrap();
        assert_eq!(left, Duration::from_secs(6));
        let (progress, _) = after([reading(100), started(0, "a", Some(10)), sent(0, 1, None)]);
        assert_eq!(progress.fraction(), 0.1);
    }

    #[test]
    fn an_upload_begun_again_goes_back() {
        let (progress, _) = after([started(0, "a", Some(10)), sent(0, 9, None), sent(0, 0, None)]);
        assert_eq!(progress.sent(), 0);
        assert_eq!(progress.fraction(), 0.0);
    }

    #[test]
    fn a_settled_push_is_not_under_way() {
        let (progress, begin) = after([
            Event::LayerCount(1),
            started(0, "a", Some(10)),
            layer(0, "a", 10, Outcome::Uploaded),
        ]);
        assert!(!progress.is_under_way());
        assert_eq!(progress.sent(), 10);
        assert_eq!(progress.fraction(), 1.0);
        assert_eq!(progress.time_left(begin), Some(Duration::ZERO));
    }

    #[test]
    fn layers_of_several_images_are_kept_apart_and_added_up() {
        let (mut progress, begin) = (PushProgress::new(2), Instant::now());
        progress.apply(0, &Event::LayerCount(2), begin);
        progress.apply(0, &started(0, "a", Some(1000)), begin);
        progress.apply(0, &sent(0, 400, None), begin);
        progress.apply(1, &started(0, "b", Some(500)), begin);
        progress.apply(1, &sent(0, 100, None), begin);
        assert_eq!(progress.active().count(), 2);
        assert_eq!((progress.sent(), progress.to_send()), (500, Some(ToSend::AtLeast(1500))));
        assert_eq!(progress.heading(), "0 of 2 layers");
        progress.apply(1, &Event::LayerCount(1), begin);
        progress.apply(0, &layer(1, "c", 50, Outcome::Reused { why: Known::Cache }), begin);
        assert_eq!(progress.heading(), "1 of 3 layers");
        assert_eq!(progress.to_send(), Some(ToSend::Exactly(1500)));
        let left = progress.time_left(begin + Duration::from_secs(1)).unwrap();
        assert_eq!(left.as_secs(), 2);
        progress.apply(0, &layer(0, "a", 1000, Outcome::Uploaded), begin);
        assert!(progress.is_under_way());
        progress.apply(1, &layer(0, "b", 500, Outcome::Uploaded), begin);
        assert!(!progress.is_under_way());
        assert_eq!((progress.sent(), progress.fraction()), (1500, 1.0));
    }

    #[test]
    fn of_layers_that_nobody_has_counted_no_sum_is_told() {
        let (mut progress, begin) = (PushProgress::new(2), Instant::now());
        progress.apply(0, &Event::LayerCount(1), begin);
        let there = || Outcome::Reused { why: Known::Cache };
        progress.apply(0, &layer(0, "a", 5, there()), begin);
        assert_eq!(progress.heading(), "1 of 1 layer");
        for id in [0, 1] {
            progress.apply(1, &layer(id, "b", 5, there()), begin);
        }
        assert_eq!((progress.heading().as_str(), progress.there()), ("3 layers done", 3));
    }

    #[test]
    fn an_image_that_was_not_heard_of_is_still_to_come() {
        let (mut progress, begin) = (PushProgress::new(2), Instant::now());
        progress.apply(0, &Event::LayerCount(1), begin);
        let why = Known::Cache;
        progress.apply(0, &layer(0, "a", 5, Outcome::Reused { why }), begin);
        assert_eq!((progress.fraction(), progress.to_send()), (0.5, None));
        assert!(progress.is_under_way());
        assert_eq!(progress.time_left(begin), None);
    }
}
