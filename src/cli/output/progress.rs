//! How far a push is: events in, figures out.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::event::Event;
use crate::image::LayerId;
use crate::report::Outcome;

/// A longer time without a byte is a wait, for a retry or for somebody else, and not work.
const LULL: Duration = Duration::from_secs(5);

/// How long there was work at something, waits left out.
#[derive(Clone, Copy, Debug)]
struct Work {
    /// Up to `last`.
    until_last: Duration,
    /// When it last went on.
    last: Instant,
}

impl Work {
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

/// What the events so far add up to.
#[derive(Debug)]
pub struct Progress {
    /// How many images there are.
    count: usize,
    /// What is known of those that were heard of, by their places.
    images: BTreeMap<usize, ImageProgress>,
    /// Layers that did not have to be sent.
    there: usize,
    /// Uploads under way.
    active: BTreeMap<(usize, LayerId), Upload>,
    /// Bytes of the blobs that were uploaded to their end.
    uploaded: u64,
    /// When the first upload began.
    uploading_since: Option<Instant>,
    /// Bytes that went over the line, those of uploads begun again included, and the work at it.
    sending: Option<(u64, Work)>,
}

/// How far one image is.
#[derive(Debug, Default)]
struct ImageProgress {
    /// How many layers there are, once known.
    layers: Option<usize>,
    /// Layers whose fate is sealed.
    settled: usize,
    /// Bytes of the source read, of how many, and the work at it.
    reading: Option<(u64, Option<u64>, Work)>,
}

/// An upload under way.
#[derive(Debug)]
pub struct Upload {
    /// The layer's name, as it came.
    pub name: String,
    /// Bytes sent.
    pub position: u64,
    /// Bytes in all, once known.
    pub total: Option<u64>,
}

impl Progress {
    /// Of so many images, nothing was heard yet.
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

    /// Takes an event of the image at this place, that happened at `now`, into account.
    pub fn apply(&mut self, image: usize, event: &Event, now: Instant) {
        match event {
            Event::LayerCount(count) => self.image(image).layers = Some(*count),
            Event::Reading { position, total } => {
                let image = self.image(image);
                let mut work = image.reading.map_or(Work::begin(now), |(_, _, work)| work);
                work.went_on(now);
                image.reading = Some((*position, *total, work));
            }
            Event::UploadStarted { layer, name, total } => {
                self.uploading_since.get_or_insert(now);
                self.sending.get_or_insert((0, Work::begin(now)));
                let upload = Upload { name: name.clone(), position: 0, total: *total };
                self.active.insert((image, *layer), upload);
            }
            Event::UploadProgress { layer, position, total } => {
                if let Some(upload) = self.active.get_mut(&(image, *layer)) {
                    let more = position.saturating_sub(upload.position);
                    upload.position = *position;
                    upload.total = total.or(upload.total);
                    self.went_over_the_line(more, now);
                }
            }
            Event::LayerSettled { layer, report } => {
                self.image(image).settled += 1;
                let upload = self.active.remove(&(image, *layer));
                match report.outcome {
                    Outcome::Uploaded => {
                        let counted = upload.map_or(0, |upload| upload.position);
                        self.went_over_the_line(report.size.saturating_sub(counted), now);
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

    fn went_over_the_line(&mut self, bytes: u64, now: Instant) {
        if let Some((sent, work)) = &mut self.sending
            && bytes > 0
        {
            *sent += bytes;
            work.went_on(now);
        }
    }

    /// The uploads under way, in the order of their layers.
    pub fn active(&self) -> impl Iterator<Item = &Upload> {
        self.active.values()
    }

    /// Bytes of blobs sent, of the uploads that stand.
    pub fn sent(&self) -> u64 {
        self.uploaded + self.active().map(|upload| upload.position).sum::<u64>()
    }

    /// Bytes of all blobs whose upload has begun; of one whose length is unknown, what was sent.
    fn begun(&self) -> u64 {
        let length = |upload: &Upload| upload.total.unwrap_or(0).max(upload.position);
        self.uploaded + self.active().map(length).sum::<u64>()
    }

    /// Layers of all images, once all are counted.
    fn layers(&self) -> Option<usize> {
        let counted = self.images.values().filter_map(|image| image.layers);
        (counted.clone().count() >= self.count).then(|| counted.sum())
    }

    /// Layers whose fate is sealed.
    fn settled(&self) -> usize {
        self.images.values().map(|image| image.settled).sum()
    }

    /// Bytes to be sent in all, once that is certain.
    pub fn to_send(&self) -> Option<u64> {
        let certain = self.layers()? <= self.settled() + self.active.len()
            && self.active().all(|upload| upload.total.is_some());
        certain.then(|| self.begun())
    }

    /// Bytes a second since the first upload began; `None` before anything was sent.
    pub fn speed(&self, now: Instant) -> Option<f64> {
        let seconds = now.duration_since(self.uploading_since?).as_secs_f64();
        (seconds >= 0.5 && self.sent() > 0).then(|| self.sent() as f64 / seconds)
    }

    /// Bytes a second while any go over the line; `None` before that can be told.
    fn pace(&self, now: Instant) -> Option<f64> {
        let (sent, work) = self.sending?;
        let seconds = work.took(now).as_secs_f64();
        (seconds >= 0.5 && sent > 0).then(|| sent as f64 / seconds)
    }

    /// What is done of the whole, 0 to 1: of finding out what to upload, or of uploading it,
    /// whichever is further behind.
    pub fn fraction(&self) -> f64 {
        let begun = self.begun();
        let uploads = if begun == 0 { 1.0 } else { self.sent() as f64 / begun as f64 };
        self.found_out().unwrap_or(0.0).min(uploads)
    }

    /// How much longer it takes, if that can be told.
    pub fn time_left(&self, now: Instant) -> Option<Duration> {
        // Whoever has got nowhere yet and waits knows nothing of how fast it will go.
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
                // Nobody knows what is to come.
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
        // A line that stands still would take longer than there is a duration for.
        Duration::try_from_secs_f64(reading.max(sending)).ok()
    }

    /// `12 of 43 layers`, or how much was read while no layers are counted yet. Where an image goes
    /// on whose layers nobody has counted, `12 layers done`.
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
            let layers = counted.iter().map(|(_, layers)| layers).sum();
            format!("{settled} of {}", super::text::layers(layers))
        } else if read.clone().next().is_some() {
            format!("{} read", super::text::size(read.map(|(position, _, _)| position).sum()))
        } else {
            "looking at the image".into()
        }
    }

    /// How many layers were there already.
    pub fn there(&self) -> usize {
        self.there
    }

    /// Whether there is anything to wait for.
    pub fn is_under_way(&self) -> bool {
        !self.active.is_empty() || self.found_out().is_none_or(|part| part < 1.0)
    }

    /// The part of the images for which it is known what is to be uploaded, 0 to 1.
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
