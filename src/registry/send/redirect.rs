//! Follows the `Location` of an answer: redirects, and the locations of upload sessions.

use futures::future::join_all;
use reqwest::Method;
use reqwest::header::{HeaderMap, HeaderValue, LOCATION};
use url::Url;

use super::super::error::Error;
use super::super::scheme::Speaks;
use super::door::Door;
use super::failure::FailedRequest;
use super::mask::{SafeUrl, Secrets};
use super::request::{Answer, Payload, Redirects, Request, RequestTarget};

/// How many redirects are followed; storage behind a registry needs one or two.
const MAX_REDIRECTS: usize = 5;

impl Door {
    /// Opens connections for the bodies of later blobs, once the registry has answered and is
    /// distant. Over plain HTTP this is not needed, because a body reuses the connection of its
    /// POST.
    pub async fn open_connections(&self, count: usize) {
        self.first.heard().await;
        if self.is_far() && self.scheme.get() == Speaks::Tls {
            join_all((0..count).map(|_| self.open_connection())).await;
        }
    }

    /// A failure is ignored here; it shows when a body is sent.
    async fn open_connection(&self) {
        let to = RequestTarget::Path("/v2/".to_owned());
        let mut request = Request::new("open a connection".to_owned(), Method::GET, to);
        request.payload = Payload::OpenConnection;
        request.redirects = Redirects::Return;
        let _ = self.follow(&request, None, &Secrets::default()).await;
    }

    /// Sends a request once and follows redirects. The authorization is sent only while they stay
    /// at the registry.
    pub async fn follow(
        &self,
        request: &Request,
        authorization: Option<&HeaderValue>,
        secrets: &Secrets,
    ) -> Result<Answer, FailedRequest> {
        let url = match &request.to {
            RequestTarget::Url(url) => url.clone(),
            RequestTarget::Path(path) => self.url(path)?,
        };
        let protocol = |problem| {
            FailedRequest::from(Error::Protocol { doing: request.doing.clone(), problem })
        };
        let mut answer = self.exchange(request, url, authorization, secrets).await?;
        for _ in 0..MAX_REDIRECTS {
            match answer.status.as_u16() {
                _ if request.redirects == Redirects::Return => return Ok(answer),
                307 | 308 => {}
                301..=303 if matches!(request.method, Method::GET | Method::HEAD) => {}
                301 | 302 => return self.check_upgrade(answer).map_err(protocol),
                _ => return Ok(answer),
            }
            let url = redirected(&answer.url, &answer.headers).map_err(protocol)?;
            let is_elsewhere = !self.is_registry_url(&url);
            let next = self.exchange(request, url, authorization, secrets).await;
            answer = match next {
                Err(failure) if is_elsewhere => return Err(failure.elsewhere()),
                next => next?,
            };
        }
        let last = SafeUrl::from(answer.url);
        Err(protocol(format!("more than {MAX_REDIRECTS} redirects, the last to {last}")))
    }

    /// A POST or PUT must not be repeated at another address automatically. If the redirect only
    /// leads from plain HTTP to HTTPS, tell the user which address to use.
    fn check_upgrade(&self, answer: Answer) -> Result<Answer, String> {
        match redirected(&answer.url, &answer.headers) {
            Ok(to)
                if answer.url.scheme() == "http"
                    && to.scheme() == "https"
                    && to.host() == answer.url.host() =>
            {
                let advice = match self.options.plain_http {
                    true => "leave out --plain-http, and name the port that speaks HTTPS",
                    false => "name the port that speaks HTTPS",
                };
                let (host, to) = (self.host(), SafeUrl::from(to));
                Err(format!("{host} redirects plain HTTP to HTTPS ({to})\nhint: {advice}"))
            }
            _ => Ok(answer),
        }
    }
}

/// The URL in an answer's `Location`.
///
/// A registry may be behind a proxy that does not pass on the original host. Then it writes
/// locations with the scheme `http`, or without the port. If only these differ, the original scheme
/// and port are used.
pub fn location(from: &Url, headers: &HeaderMap) -> Result<Url, String> {
    let mut url = target(from, headers)?;
    if is_same_host(from, &url) {
        // Cannot fail with an HTTP URL.
        let _ = url.set_scheme(from.scheme());
        let _ = url.set_port(from.port());
    }
    check(from, url)
}

/// The URL of a redirect. Unlike a location, it may lead from plain HTTP to HTTPS.
fn redirected(from: &Url, headers: &HeaderMap) -> Result<Url, String> {
    let url = target(from, headers)?;
    match is_same_host(from, &url) && url.scheme() == "http" {
        true => location(from, headers),
        false => check(from, url),
    }
}

/// The `Location`, relative to the URL of the answer. A user name and a password in it are removed,
/// because they would be sent in addition to the authorization.
fn target(from: &Url, headers: &HeaderMap) -> Result<Url, String> {
    let value = headers
        .get(LOCATION)
        .filter(|value| !value.is_empty())
        .ok_or_else(|| format!("{} gave no Location", SafeUrl::from(from.clone())))?;
    let text = String::from_utf8_lossy(value.as_bytes());
    let mut url =
        from.join(&text).map_err(|error| format!("its Location is not a URL: {error}"))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(format!("its Location is not an HTTP URL but {}:…", url.scheme()));
    }
    // Cannot fail with an HTTP URL.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    Ok(url)
}

/// Whether two URLs name the same server, even if only the first one names the port.
fn is_same_host(from: &Url, url: &Url) -> bool {
    url.host_str() == from.host_str() && url.port().is_none_or(|port| Some(port) == from.port())
}

fn check(from: &Url, url: Url) -> Result<Url, String> {
    if from.scheme() == "https" && url.scheme() == "http" {
        return Err(format!("its Location leads from HTTPS to plain HTTP: {}", SafeUrl::from(url)));
    }
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(from: &str, to: &str) -> Result<String, String> {
        let mut headers = HeaderMap::new();
        headers.insert(LOCATION, to.parse().unwrap());
        location(&from.parse().unwrap(), &headers).map(|url| url.to_string())
    }

    #[test]
    fn the_same_host_behind_tls_means_its_real_address() {
        for (from, to, meant) in [
            ("https://h:8443/v2/", "http://h:8443/up", "https://h:8443/up"),
            ("https://h:8443/v2/", "http://h/up", "https://h:8443/up"),
            ("https://h:8443/v2/", "https://h/up", "https://h:8443/up"),
            ("https://h/v2/", "http://h/up", "https://h/up"),
            ("http://h:5000/v2/", "http://h/up", "http://h:5000/up"),
            ("http://h/v2/", "https://h/up", "http://h/up"),
            ("https://h/v2/", "/up?a=b", "https://h/up?a=b"),
            ("https://h/v2/", "https://me:pw@h/up", "https://h/up"),
            ("https://h/v2/", "https://me:pw@s3.example/up", "https://s3.example/up"),
        ] {
            assert_eq!(at(from, to).as_deref(), Ok(meant), "{from} {to}");
        }
        let mut headers = HeaderMap::new();
        headers.insert(LOCATION, HeaderValue::from_bytes("/é?a=ü".as_bytes()).unwrap());
        let url = location(&"https://h/v2/".parse().unwrap(), &headers).unwrap();
        assert_eq!(url.as_str(), "https://h/%C3%A9?a=%C3%BC");
        for to in ["http://h:5000/up", "http://other/up", "ftp://h/up"] {
            assert!(at("https://h/v2/", to).is_err(), "{to}");
        }
        let told = at("https://h/v2/", "http://me:pw@other/up?sig=abc").unwrap_err();
        assert!(!told.contains("pw") && !told.contains("abc"), "{told}");
    }
}
