//! A token request as a line of the log, without its secrets.
//!
//! Headers that a debug format would hide, cookies and query strings of the answer are not shown;
//! the query of our own request holds names only.

use std::time::Duration;

use reqwest::header::{HeaderMap, SET_COOKIE};
use reqwest::{Request, Response};

use crate::event::Event;

/// A request that was sent, for the log.
pub(super) struct Line {
    request: String,
    headers: Vec<String>,
}

impl Line {
    /// Notes what there is to say of a request.
    pub fn of(request: &Request) -> Self {
        Self {
            request: format!("{} {}", request.method(), request.url()),
            headers: shown(request.headers(), '>').collect(),
        }
    }

    /// The whole, with what came back.
    pub fn answered(mut self, answer: &reqwest::Result<Response>, took: Duration) -> Event {
        let outcome = match answer {
            Ok(response) => {
                self.headers.extend(shown(response.headers(), '<'));
                response.status().to_string()
            }
            Err(error) if error.is_timeout() => "no answer in time".into(),
            Err(error) if error.is_connect() => "cannot connect".into(),
            Err(_) => "connection broke".into(),
        };
        Event::Request {
            line: format!("{} {outcome} {} ms", self.request, took.as_millis()),
            headers: self.headers,
        }
    }
}

fn shown(headers: &HeaderMap, direction: char) -> impl Iterator<Item = String> {
    headers.iter().map(move |(name, value)| {
        let value = if value.is_sensitive() || name == SET_COOKIE {
            "***".into()
        } else {
            let text = String::from_utf8_lossy(value.as_bytes());
            // A pre-signed address carries its secret in the query.
            match text.split_once('?') {
                Some((start, _)) if text.contains("://") => format!("{start}?***"),
                _ => text.into_owned(),
            }
        };
        format!("{direction} {name}: {value}")
    })
}
