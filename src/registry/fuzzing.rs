//! Fuzz targets for what a registry answers: headers and error bodies.

use reqwest::header::{HeaderMap, HeaderName, HeaderValue, LOCATION, RANGE, RETRY_AFTER};
use url::Url;

use super::message::ErrorMessage;
use super::send::mask::{SafeUrl, Secrets, header_lines};
use super::send::redirect::location;
use super::send::retry::retry_after;
use super::upload::arrived;

/// Uses `data` as the value of `Location`, `Range` and `Retry-After`.
pub fn headers(data: &[u8]) {
    const NAMES: [HeaderName; 3] = [LOCATION, RANGE, RETRY_AFTER];
    let Ok(value) = HeaderValue::from_bytes(data) else {
        return;
    };
    let headers: HeaderMap = NAMES.into_iter().map(|name| (name, value.clone())).collect();
    for from in ["https://r.example/v2/a/blobs/uploads/", "http://127.0.0.1:5000/v2/a/b?_state=s"] {
        let from: Url = from.parse().expect("it is a URL");
        if let Ok(to) = location(&from, &headers) {
            assert!(to.scheme() == "https" || from.scheme() == "http", "{from} leads to {to}");
            let shown = SafeUrl::from(to).to_string();
            let again: Url = shown.parse().expect("what is shown of a URL is one");
            assert!(again.username().is_empty() && again.password().is_none(), "{shown}");
            assert!(!shown.contains(char::is_control), "{shown:?}");
        }
    }
    if let Some(count) = arrived(&headers) {
        assert!(count > 1);
    }
    if let Some(wait) = retry_after(&headers) {
        assert!(wait.as_secs() <= 86_400);
    }
    for line in header_lines('<', &headers, &Secrets::default()) {
        assert!(!line.contains('\n'), "{line:?}");
    }
}

/// The body of an answer that is an error.
pub fn error_body(data: &[u8]) {
    let said = ErrorMessage::parse(data);
    let shown = said.to_string();
    for digest in said.digests() {
        assert!(shown.contains(digest.as_str()));
    }
    said.has_code("DENIED");
}
