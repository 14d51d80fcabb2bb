//! One upload session, and the requests that it takes (OCI distribution-spec 1.1, "Pushing a blob
//! in chunks").

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use reqwest::header::{CONTENT_RANGE, CONTENT_TYPE, HeaderMap, HeaderValue, LOCATION, RANGE};
use reqwest::{Method, StatusCode};
use url::Url;

use super::super::auth::Scopes;
use super::super::error::Error;
use super::super::repository::Repository;
use super::super::send::attempt::Call;
use super::super::send::failure::FailedRequest;
use super::super::send::mask::SafeUrl;
use super::super::send::redirect::location;
use super::super::send::request::{Answer, AnswerTime, Payload, Request, RequestTarget};
use super::super::send::retry::RetryBudget;
use super::sessions::Sessions;
use crate::image::Digest;

/// How long the cancellation of a session may take.
const CANCEL_TIME: Duration = Duration::from_secs(2);

/// An open upload session.
///
/// If it is dropped unfinished, it stays in the open [`Sessions`] until
/// [`Sessions::cancel_abandoned`] cancels it.
#[derive(Debug)]
pub struct Session {
    repository: Box<Repository>,
    url: Url,
    id: u64,
    limits: ChunkLimits,
}

/// The limits on the length of chunks that a registry gives when it opens a session.
#[derive(Clone, Copy, Debug)]
pub struct ChunkLimits {
    /// `OCI-Chunk-Min-Length`.
    pub least: u64,
    /// `OCI-Chunk-Max-Length`.
    pub most: u64,
}

/// How many bytes of a session have arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionPosition {
    /// The registry has this many bytes.
    At(u64),
    /// The registry does not say.
    Unclear,
    /// The registry does not know the session any more.
    Gone,
}

/// A request that may open a session.
#[derive(Clone)]
pub struct Opening {
    /// What the request is for.
    pub doing: String,
    /// The path below the repository.
    pub path: String,
    /// What the token must allow.
    pub scopes: Scopes,
}

/// The answer to it: the session, or the reason why the registry did not open one.
pub struct Posted {
    pub status: StatusCode,
    pub session: Result<Session, String>,
}

impl Repository {
    /// Opens an upload session for a later [`upload`](Self::upload), for example while the blob is
    /// still being compressed.
    pub async fn open_upload(&self) -> Result<Session, Error> {
        let doing = format!("open an upload session in {self}");
        self.open_upload_for(doing, &mut self.budget()).await
    }

    pub(super) async fn open_upload_for(
        &self,
        doing: String,
        budget: &mut RetryBudget,
    ) -> Result<Session, Error> {
        let path = "blobs/uploads/".to_owned();
        let opening = Opening { doing: doing.clone(), path, scopes: self.scopes().clone() };
        let opened = self.post_within(opening, budget).await?;
        opened.session.map_err(|problem| Error::Protocol { doing, problem })
    }

    /// Sends a POST that may open a session, until there is an answer or a retry is pointless.
    pub(in crate::registry) async fn post(&self, opening: Opening) -> Result<Posted, Error> {
        self.post_within(opening, &mut self.budget()).await
    }

    async fn post_within(
        &self,
        opening: Opening,
        budget: &mut RetryBudget,
    ) -> Result<Posted, Error> {
        let (doing, deadline) = (opening.doing.clone(), budget.deadline());
        let posting = async {
            loop {
                let failure = match self.post_once(opening.clone()).await {
                    Ok(opened) => return Ok(opened),
                    Err(failure) => failure,
                };
                self.registry().door.wait_before_retry(failure, budget).await?;
            }
        };
        match deadline {
            Some(deadline) => deadline.limit(&doing, posting).await,
            None => posting.await,
        }
    }

    async fn post_once(&self, opening: Opening) -> Result<Posted, FailedRequest> {
        let repository = self.clone();
        let under_way = self.registry().door.options().sessions.opening();
        // A separate task: even if this future is dropped, the session must be recorded, so that it
        // can be cancelled.
        let posting = tokio::spawn(async move {
            let opened = repository.post_alone(opening).await;
            // Returned together: if the session is not taken, it is first marked as abandoned, and
            // only then does the request count as finished.
            (opened, under_way)
        });
        match posting.await {
            Ok((opened, _)) => opened,
            Err(ended) => match ended.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // The runtime is shutting down, and will drop this future too.
                Err(_) => std::future::pending().await,
            },
        }
    }

    async fn post_alone(&self, opening: Opening) -> Result<Posted, FailedRequest> {
        let is_mount = opening.path.contains("mount=");
        let request = self.request(opening.doing, Method::POST, &opening.path);
        let call = Call { request, repository: self.name(), scopes: &opening.scopes };
        let answer = self.registry().attempt(&call).await?;
        let session = match answer.status {
            StatusCode::CREATED if is_mount => Err("the blob is there already".to_owned()),
            status if answer.header("location").is_none_or(str::is_empty) => {
                let door = &self.registry().door;
                if !door.is_registry() {
                    return Err(door.not_a_registry(&answer).into());
                }
                let url = SafeUrl::from(answer.url);
                Err(format!("{url} answered {status} without a Location, so no upload can begin"))
            }
            _ => location(&answer.url, &answer.headers)
                .map(|url| Session::opened(self, url, ChunkLimits::of(&answer))),
        };
        Ok(Posted { status: answer.status, session })
    }
}

impl Session {
    fn opened(repository: &Repository, url: Url, limits: ChunkLimits) -> Self {
        let canceller = repository.clone();
        let cancel = move |url| delete(canceller.clone(), url).boxed();
        let sessions = &repository.registry().door.options().sessions;
        let id = sessions.add(url.clone(), Arc::new(cancel));
        Self { repository: Box::new(repository.clone()), url, id, limits }
    }

    /// The registry's limits on the length of chunks.
    pub(super) fn limits(&self) -> ChunkLimits {
        self.limits
    }

    /// Sends a part of the blob. `range` is its first and last byte, if the request must contain
    /// them.
    pub(super) async fn patch(
        &mut self,
        doing: &str,
        payload: Payload,
        range: Option<(u64, u64)>,
    ) -> Result<(), FailedRequest> {
        let mut request = self.request(doing, Method::PATCH, self.url.clone());
        request.payload = payload;
        request.headers.insert(CONTENT_TYPE, octets());
        if let Some((first, last)) = range
            // Cannot fail, because the value has only digits and a dash.
            && let Ok(value) = HeaderValue::from_str(&format!("{first}-{last}"))
        {
            request.headers.insert(CONTENT_RANGE, value);
        }
        let answer = self.repository.registry().attempt(&self.repository.call(request)).await?;
        // Any 2xx is accepted: Pulp sends 204 or 201 in place of 202. Without a Location, the
        // session keeps its URL.
        if answer.headers.contains_key(LOCATION) {
            let problem = |problem| Error::Protocol { doing: doing.to_owned(), problem };
            self.move_to(location(&answer.url, &answer.headers).map_err(problem)?);
        }
        Ok(())
    }

    /// Sends the rest of the blob, or all of it, and asks the registry to store the blob under its
    /// digest.
    pub(super) async fn put(
        &self,
        doing: &str,
        digest: &Digest,
        payload: Payload,
    ) -> Result<Answer, FailedRequest> {
        let mut url = self.url.clone();
        url.query_pairs_mut().append_pair("digest", digest.as_str());
        let mut request = self.request(doing, Method::PUT, url);
        request.payload = payload;
        request.headers.insert(CONTENT_TYPE, octets());
        self.repository.registry().attempt(&self.repository.call(request)).await
    }

    /// Asks the registry how many bytes it has.
    pub(super) async fn position(
        &mut self,
        doing: &str,
        budget: &mut RetryBudget,
    ) -> Result<SessionPosition, Error> {
        let request = Request {
            also: &[StatusCode::NOT_FOUND],
            ..self.request(doing, Method::GET, self.url.clone())
        };
        let registry = self.repository.registry().clone();
        let answer = registry.send(&self.repository.call(request), budget).await?;
        if answer.status == StatusCode::NOT_FOUND {
            return Ok(SessionPosition::Gone);
        }
        if answer.headers.contains_key(LOCATION)
            && let Ok(url) = location(&answer.url, &answer.headers)
        {
            self.move_to(url);
        }
        Ok(arrived(&answer.headers).map_or(SessionPosition::Unclear, SessionPosition::At))
    }

    /// Removes the session from the open ones, because it was finished or the registry has
    /// forgotten it.
    pub(super) fn closed(self) {
        self.sessions().remove(self.id);
    }

    /// Tells the registry that no more bytes will come. Until it answers, the session is one of the
    /// open ones.
    pub(super) async fn cancel(self) {
        delete((*self.repository).clone(), self.url.clone()).await;
        self.closed();
    }

    fn move_to(&mut self, url: Url) {
        self.sessions().moved(self.id, url.clone());
        self.url = url;
    }

    fn sessions(&self) -> &Sessions {
        &self.repository.registry().door.options().sessions
    }

    fn request(&self, doing: &str, method: Method, url: Url) -> Request {
        Request {
            answer_time: AnswerTime::Commit,
            sent: self.repository.sent.clone(),
            ..Request::new(doing.to_owned(), method, RequestTarget::Url(url))
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.sessions().abandon(self.id);
    }
}

impl ChunkLimits {
    fn of(answer: &Answer) -> Self {
        Self {
            least: answer.number("oci-chunk-min-length").unwrap_or(0),
            most: answer
                .number("oci-chunk-max-length")
                .filter(|most| *most > 0)
                .unwrap_or(u64::MAX),
        }
    }
}

async fn delete(repository: Repository, url: Url) {
    let doing = format!("cancel an upload to {repository}");
    let request = Request::new(doing, Method::DELETE, RequestTarget::Url(url));
    let call = repository.call(request);
    let _ = tokio::time::timeout(CANCEL_TIME, repository.registry().attempt(&call)).await;
}

fn octets() -> HeaderValue {
    HeaderValue::from_static("application/octet-stream")
}

/// How many bytes a session has, according to `Range: 0-N`. Depending on the registry, `0-0` means
/// zero bytes or one, so it is ignored.
pub fn arrived(headers: &HeaderMap) -> Option<u64> {
    let text = headers.get(RANGE)?.to_str().ok()?;
    let text = text.strip_prefix("bytes=").unwrap_or(text);
    let (first, last) = text.split_once('-')?;
    let last: u64 = last.trim().parse().ok()?;
    (first.trim() == "0" && last > 0).then(|| last.checked_add(1)).flatten()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::net::SocketAddr;

    use axum::Router;
    use axum::extract::ConnectInfo;
    use parking_lot::Mutex;
    use tokio::net::TcpListener;

    use super::super::super::options::Options;
    use super::super::super::repository::Registry;
    use super::*;

    /// The ports of the clients that have asked.
    type Clients = Arc<Mutex<HashSet<u16>>>;

    /// A registry that answers every request with a session.
    async fn registry() -> (Arc<Registry>, Clients) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let clients = Clients::default();
        let seen = clients.clone();
        let answer = |ConnectInfo(client): ConnectInfo<SocketAddr>| async move {
            seen.lock().insert(client.port());
            let headers = [
                ("location", "/v2/app/blobs/uploads/1"),
                ("oci-chunk-min-length", "5"),
                ("oci-chunk-max-length", "1000000"),
            ];
            (axum::http::StatusCode::ACCEPTED, headers)
        };
        let app = Router::new().fallback(answer);
        let service = app.into_make_service_with_connect_info::<SocketAddr>();
        tokio::spawn(async move { axum::serve(listener, service).await });
        let options = Arc::new(Options::default());
        (Registry::new(&host, options, crate::event::ignore()), clients)
    }

    #[tokio::test]
    async fn a_session_is_opened_ahead_and_given_up_if_it_is_not_used() {
        let (registry, _) = registry().await;
        let repository = registry.repository("app");
        let session = repository.open_upload().await.unwrap();
        assert_eq!((session.limits().least, session.limits().most), (5, 1_000_000));
        let sessions = &registry.door.options().sessions;
        assert_eq!(format!("{sessions:?}"), "1 open upload sessions");
        drop(session);
        sessions.cancel_abandoned(Duration::from_secs(5)).await;
        assert_eq!(format!("{sessions:?}"), "0 open upload sessions");
    }

    #[test]
    fn a_range_tells_how_much_arrived_unless_it_is_ambiguous() {
        let parse = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(RANGE, text.parse().unwrap());
            arrived(&headers)
        };
        assert_eq!(parse("0-1048575"), Some(1 << 20));
        assert_eq!(parse("bytes=0-9"), Some(10));
        for text in ["0-0", "5-9", "0", "-", "0--1", "0-18446744073709551615", "bytes 0-9/10"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
