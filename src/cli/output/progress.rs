//! How far a push is: events come in; layers, bytes, speed and time left come out.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::event::Event;
use crate::image::LayerId;
use crate::report::Outcome;

/// A longer time without a byte is a wait, for a retry for example. It does not count as work.
const LULL: Duration = Duration::from_secs(5);

/// Time spent working, without the waits.
#[derive(Clone, Copy, Debug)]
struct WorkTime {
    /// The work up to `last`.
    until_last: Duration,
    /// When the last byte moved.
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

    fn is_resting(&self, now: Instant) -> bool {
        now.duration_since(self.last) > LULL
    }
}

/// The sum of all events so far.
#[derive(Debug)]
pub struct Progress {
    /// The number of images.
    count: usize,
    /// The images that had an event, by their positions.
    images: BTreeMap<usize, ImageProgress>,
    /// Layers that were not sent, because the registry had them.
    there: usize,
    /// Running uploads.
    active: BTreeMap<(usize, LayerId), Upload>,
    /// Bytes of the blobs whose upload has finished.
    uploaded: u64,
    /// When the first upload began.
    uploading_since: Option<Instant>,
    /// Bytes that were sent, including those of uploads that were started again, and the time.
    sending: Option<(u64, WorkTime)>,
}

/// The progress of one image.
#[derive(Debug, Default)]
struct ImageProgress {
    /// The number of its layers, once known.
    layers: Option<usize>,
    /// Layers that are finished: uploaded, mounted or found.
    settled: usize,
    /// Bytes of the image's file read so far, its length, and the time.
    reading: Option<(u64, Option<u64>, WorkTime)>,
}

/// A running upload.
#[derive(Debug)]
pub struct Upload {
    /// The layer's name, not escaped.
    pub name: String,
    /// Bytes sent.
    pub position: u64,
    /// The blob's length, once known.
    pub total: Option<u64>,
}

impl Progress {
    /// The progress of this many images before the first event.
    pub fn new(count: usize) -> Self {
        Self {
            count,
            images: BTreeMap::new(),
            there: 0,
            active: BTreeMap::new(),
            uploaded: 0,
            uploading_since: None,
            sending: None,
        }
    }

    /// Adds an event of the image at this position, at the time `now`.
    pub fn apply(&mut self, image: usize, event: &Event, now: Instant) {
        match event {
            Event::LayerCount(count) => self.image(image).layers = Some(*count),
            Event::Reading { position, total } => {
                let image = self.image(image);
                let mut work = image.reading.map_or(WorkTime::begin(now), |(_, _, work)| work);
                work.went_on(now);
                image.reading = Some((*position, *total, work));
            }
            Event::UploadStarted { layer, name, total } => {
                self.uploading_since.get_or_insert(now);
                self.sending.get_or_insert((0, WorkTime::begin(now)));
                let upload = Upload { name: name.clone(), position: 0, total: *total };
                self.active.insert((image, *layer), upload);
            }
            Event::UploadProgress { layer, position, total } => {
                if let Some(upload) = self.active.get_mut(&(image, *layer)) {
                    let more = position.saturating_sub(upload.position);
                    upload.position = *position;
                    upload.total = total.or(upload.total);
                    self.add_sent(more, now);
                }
            }
            Event::LayerSettled { layer, report } => {
                self.image(image).settled += 1;
                let upload = self.active.remove(&(image, *layer));
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
            | Event::Request { .. } => {}
        }
    }

    fn image(&mut self, image: usize) -> &mut ImageProgress {
        self.images.entry(image).or_default()
    }

    fn add_sent(&mut self, bytes: u64, now: Instant) {
        if let Some((sent, work)) = &mut self.sending
            && bytes > 0
        {
            *sent += bytes;
            work.went_on(now);
        }
    }

    /// The running uploads, in the order of their layers.
    pub fn active(&self) -> impl Iterator<Item = &Upload> {
        self.active.values()
    }

    /// Bytes of blobs sent. If an upload starts again, its bytes count again from zero.
    pub fn sent(&self) -> u64 {
        self.uploaded + self.active().map(|upload| upload.position).sum::<u64>()
    }

    /// Bytes of all blobs whose upload has begun. If a length is unknown, the bytes sent so far.
    fn begun(&self) -> u64 {
        let length = |upload: &Upload| upload.total.unwrap_or(0).max(upload.position);
        self.uploaded + self.active().map(length).sum::<u64>()
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

    /// All bytes to send, once certain.
    pub fn to_send(&self) -> Option<u64> {
        let certain = self.layers()? <= self.settled() + self.active.len()
            && self.active().all(|upload| upload.total.is_some());
        certain.then(|| self.begun())
    }

    /// Bytes per second since the first upload began; `None` before anything was sent.
    pub fn speed(&self, now: Instant) -> Option<f64> {
        let seconds = now.duration_since(self.uploading_since?).as_secs_f64();
        (seconds >= 0.5 && self.sent() > 0).then(|| self.sent() as f64 / seconds)
    }

    /// Bytes per second without the waits; `None` until half a second of work.
    fn pace(&self, now: Instant) -> Option<f64> {
        let (sent, work) = self.sending?;
        let seconds = work.took(now).as_secs_f64();
        (seconds >= 0.5 && sent > 0).then(|| sent as f64 / seconds)
    }

    /// How much of the push is done, 0 to 1: the smaller of what is known and what is uploaded.
    pub fn fraction(&self) -> f64 {
        let begun = self.begun();
        let uploads = if begun == 0 { 1.0 } else { self.sent() as f64 / begun as f64 };
        self.found_out().unwrap_or(0.0).min(uploads)
    }

    /// The estimated time left, if there is an estimate.
    pub fn time_left(&self, now: Instant) -> Option<Duration> {
        // Nothing is finished and nothing moves: there is no basis for an estimate.
        if self.settled() == 0 && self.sending.is_some_and(|(_, work)| work.is_resting(now)) {
            return None;
        }
        let mut reading: f64 = 0.0;
        for image in 0..self.count {
            match self.images.get(&image).and_then(|image| image.reading) {
                Some((position, Some(total), work)) if position < total => {
                    let seconds = work.took(now).as_secs_f64();
                    if seconds < 1.0 || position == 0 {
                        return None;
                    }
                    reading = reading.max(seconds * (total - position) as f64 / position as f64);
                }
                Some((_, Some(_), _)) => {}
                // It is not yet known how many bytes must be sent.
                _ if self.to_send().is_none() => return None,
                _ => {}
            }
        }
        let missing = self.begun() - self.sent();
        let sending = match self.pace(now) {
            Some(pace) => missing as f64 / pace,
            None if missing > 0 => return None,
            None => 0.0,
        };
        // At a speed near zero, the seconds do not fit in a Duration.
        Duration::try_from_secs_f64(reading.max(sending)).ok()
    }

    /// `12 of 43 layers`. If the number of layers is not yet known: how much was read, or
    /// `12 layers done`.
    pub fn heading(&self) -> String {
        let counted: Vec<(usize, usize)> = self
            .images
            .values()
            .filter_map(|image| Some((image.settled.min(image.layers?), image.layers?)))
            .collect();
        let read = self.images.values().filter_map(|image| image.reading);
        let uncounted = |image: &ImageProgress| image.layers.is_none() && image.settled > 0;
        if !counted.is_empty() && self.images.values().any(uncounted) {
            format!("{} done", super::text::layers(self.settled()))
        } else if !counted.is_empty() {
            let settled: usize = counted.iter().map(|(settled, _)| settled).sum();
            match counted.iter().map(|(_, layers)| layers).sum() {
                0 => "no layers".to_owned(),
                all => format!("{settled} of {}", super::text::layers(all)),
            }
        } else if read.clone().next().is_some() {
            format!("{} read", super::text::size(read.map(|(position, _, _)| position).sum()))
        } else {
            "looking at the image".into()
        }
    }

    /// How many layers the registry had already.
    pub fn there(&self) -> usize {
        self.there
    }

    /// Whether anything is left to do before the manifest.
    pub fn is_under_way(&self) -> bool {
        !self.active.is_empty() || self.found_out().is_none_or(|part| part < 1.0)
    }

    /// For which part of the images, 0 to 1, it is known what must be uploaded.
    fn found_out(&self) -> Option<f64> {
        let parts = (0..self.count).filter_map(|image| self.found_out_of(image));
        let known = parts.clone().next().is_some();
        known.then(|| parts.sum::<f64>() / self.count as f64)
    }

    fn found_out_of(&self, place: usize) -> Option<f64> {
        let image = self.images.get(&place)?;
        match (image.reading, image.layers) {
            (Some((position, Some(total), _)), _) if total > 0 => {
                Some((position as f64 / total as f64).min(1.0))
            }
            (_, Some(layers)) if layers > 0 => {
                let active = self.active.keys().filter(|(image, _)| *image == place).count();
                Some(((image.settled + active) as f64 / layers as f64).min(1.0))
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{layer, started};
    use super::*;
    use crate::report::Known;

    fn after(events: impl IntoIterator<Item = Event>) -> (Progress, Instant) {
        let (mut progress, begin) = (Progress::new(1), Instant::now());
        for event in events {
            progress.apply(0, &event, begin);
        }
        (progress, begin)
    }

    fn sent(id: usize, position: u64) -> Event {
        Event::UploadProgress { layer: LayerId(id), position, total: None }
    }

    #[test]
    fn what_is_to_be_sent_is_said_only_when_it_is_certain() {
        let (mut progress, begin) =
            after([Event::LayerCount(2), started(0, "a", Some(1000)), sent(0, 400)]);
        assert_eq!(progress.to_send(), None);
        assert_eq!(progress.time_left(begin + Duration::from_secs(2)), None);
        progress.apply(0, &layer(1, "b", 50, Outcome::Reused { why: Known::Cache }), begin);
        assert_eq!(progress.to_send(), Some(1000));
        assert_eq!(progress.sent(), 400);
        assert_eq!(progress.there(), 1);
        let left = progress.time_left(begin + Duration::from_secs(2)).unwrap();
        assert_eq!(left.as_secs_f64().round(), 3.0);
        assert_eq!(progress.fraction(), 0.4);
    }

    #[test]
    fn a_wait_for_a_retry_is_no_measure_of_the_time_left() {
        let (mut progress, begin) =
            after([Event::LayerCount(2), started(0, "a", Some(1000)), started(1, "b", Some(100))]);
        let at = |seconds| begin + Duration::from_secs(seconds);
        progress.apply(0, &sent(0, 200), at(2));
        assert_eq!(progress.time_left(at(2)), Some(Duration::from_secs(9)));
        // The connection breaks, and nothing moves for minutes.
        progress.apply(0, &sent(0, 0), at(3));
        assert_eq!(progress.time_left(at(100)), None);
        progress.apply(0, &layer(1, "b", 100, Outcome::Uploaded), at(200));
        // 300 bytes went over the line in 2 + 5 seconds.
        let left = progress.time_left(at(200)).unwrap();
        assert_eq!(left.as_secs_f64().round(), (1000.0_f64 / (300.0 / 7.0)).round());
    }

    #[test]
    fn a_blob_of_unknown_length_leaves_the_time_open() {
        let (progress, begin) = after([Event::LayerCount(1), started(0, "a", None), sent(0, 400)]);
        assert_eq!(progress.to_send(), None);
        assert_eq!(progress.time_left(begin + Duration::from_secs(9)), None);
        assert!(progress.is_under_way());
    }

    #[test]
    fn the_whole_is_as_far_as_the_slower_of_reading_and_sending() {
        let reading = |position| Event::Reading { position, total: Some(100) };
        let (progress, begin) = after([reading(25), started(0, "a", Some(10)), sent(0, 10)]);
        assert_eq!(progress.fraction(), 0.25);
        let left = progress.time_left(begin + Duration::from_secs(2)).unwrap();
        assert_eq!(left, Duration::from_secs(6));
        let (progress, _) = after([reading(100), started(0, "a", Some(10)), sent(0, 1)]);
        assert_eq!(progress.fraction(), 0.1);
    }

    #[test]
    fn an_upload_begun_again_goes_back() {
        let (progress, _) = after([started(0, "a", Some(10)), sent(0, 9), sent(0, 0)]);
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
        let (mut progress, begin) = (Progress::new(2), Instant::now());
        progress.apply(0, &Event::LayerCount(2), begin);
        progress.apply(0, &started(0, "a", Some(1000)), begin);
        progress.apply(0, &sent(0, 400), begin);
        progress.apply(1, &started(0, "b", Some(500)), begin);
        progress.apply(1, &sent(0, 100), begin);
        assert_eq!(progress.active().count(), 2);
        assert_eq!((progress.sent(), progress.to_send()), (500, None));
        assert_eq!(progress.heading(), "0 of 2 layers");
        progress.apply(1, &Event::LayerCount(1), begin);
        progress.apply(0, &layer(1, "c", 50, Outcome::Reused { why: Known::Cache }), begin);
        assert_eq!(progress.heading(), "1 of 3 layers");
        assert_eq!(progress.to_send(), Some(1500));
        let left = progress.time_left(begin + Duration::from_secs(1)).unwrap();
        assert_eq!(left, Duration::from_secs(2));
        progress.apply(0, &layer(0, "a", 1000, Outcome::Uploaded), begin);
        assert!(progress.is_under_way());
        progress.apply(1, &layer(0, "b", 500, Outcome::Uploaded), begin);
        assert!(!progress.is_under_way());
        assert_eq!((progress.sent(), progress.fraction()), (1500, 1.0));
    }

    #[test]
    fn of_layers_that_nobody_has_counted_no_sum_is_told() {
        let (mut progress, begin) = (Progress::new(2), Instant::now());
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
        let (mut progress, begin) = (Progress::new(2), Instant::now());
        progress.apply(0, &Event::LayerCount(1), begin);
        let why = Known::Cache;
        progress.apply(0, &layer(0, "a", 5, Outcome::Reused { why }), begin);
        assert_eq!((progress.fraction(), progress.to_send()), (0.5, None));
        assert!(progress.is_under_way());
        assert_eq!(progress.time_left(begin), None);
    }
}
