//! One record for each request through the proxy, updated until the request ends.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::step::{Origin, Step};

/// A request and what became of it.
#[derive(Clone, Debug)]
pub struct Record {
    /// Counts connections from 0, over all origins.
    pub connection: u64,
    pub origin: Origin,
    pub step: Step,
    pub method: String,
    /// Path and query.
    pub target: String,
    /// `HTTP/1.1` or `HTTP/2.0`.
    pub version: String,
    /// The headers as they arrived, names in lower case, `authorization` included.
    pub headers: Vec<(String, String)>,
    /// Bytes of body that arrived from the client so far.
    pub request_body: u64,
    /// Bytes of body that went to the client so far.
    pub response_body: u64,
    /// What the client was answered; `None` before, and where it got no answer.
    pub status: Option<u16>,
    /// What the registry answered, if it was asked.
    pub upstream_status: Option<u16>,
    /// The fault that struck.
    pub fault: Option<String>,
    /// Trouble between proxy and registry that no fault explains.
    pub trouble: Option<String>,
    /// When the head arrived, since the proxy's start.
    pub arrived: Duration,
    /// When the answer's head went out.
    pub answered: Option<Duration>,
}

impl Record {
    /// The first header of this name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    /// Whether its body is a blob or a part of one.
    pub fn carries_blob(&self) -> bool {
        matches!(self.step, Step::UploadPatch | Step::UploadPut)
    }

    pub fn is(&self, step: Step) -> bool {
        self.step == step
    }
}

impl std::fmt::Display for Record {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{:>9.1?} #{} {:?} {} {} ({} B) -> {}",
            self.arrived,
            self.connection,
            self.origin,
            self.method,
            self.target,
            self.request_body,
            self.status.map_or_else(|| "no answer".to_owned(), |status| status.to_string()),
        )?;
        if let Some(fault) = &self.fault {
            write!(f, "  [{fault}]")?;
        }
        if let Some(trouble) = &self.trouble {
            write!(f, "  !! {trouble}")?;
        }
        Ok(())
    }
}

/// All records since the last `clear`.
pub struct Log {
    began: Instant,
    records: Mutex<Vec<Arc<Mutex<Record>>>>,
}

/// The record of a request under way.
#[derive(Clone)]
pub struct Entry {
    began: Instant,
    record: Arc<Mutex<Record>>,
}

impl Log {
    pub fn new() -> Self {
        Self { began: Instant::now(), records: Mutex::default() }
    }

    /// Adds a record; its `arrived` is set here.
    pub fn open(&self, mut record: Record) -> Entry {
        record.arrived = self.began.elapsed();
        let record = Arc::new(Mutex::new(record));
        self.records.lock().expect("no holder panics").push(record.clone());
        Entry { began: self.began, record }
    }

    pub fn all(&self) -> Vec<Record> {
        let records = self.records.lock().expect("no holder panics");
        records.iter().map(|record| record.lock().expect("no holder panics").clone()).collect()
    }

    pub fn clear(&self) {
        self.records.lock().expect("no holder panics").clear();
    }
}

impl Entry {
    pub fn update(&self, change: impl FnOnce(&mut Record)) {
        change(&mut self.record.lock().expect("no holder panics"));
    }

    pub fn received(&self, bytes: usize) {
        self.update(|record| record.request_body += bytes as u64);
    }

    pub fn sent(&self, bytes: usize) {
        self.update(|record| record.response_body += bytes as u64);
    }

    pub fn answered(&self, status: u16) {
        let now = self.began.elapsed();
        self.update(|record| {
            record.status = Some(status);
            record.answered = Some(now);
        });
    }

    pub fn trouble(&self, what: impl std::fmt::Display) {
        self.update(|record| record.trouble = Some(what.to_string()));
    }
}
