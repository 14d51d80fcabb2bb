//! Blobs that are there: asking for them, reading small ones, mounting those of a sibling
//! repository.

use std::sync::atomic::Ordering;

use bytes::Bytes;
use reqwest::header::{CONTENT_LENGTH, CONTENT_RANGE, HeaderMap, HeaderValue, RANGE};
use reqwest::{Method, StatusCode};

use super::auth::Scopes;
use super::retry::Patience;
use super::send::{Answer, AnswerTime, Call, Failure, Payload, Persistence, Target, location};
use super::sessions::Session;
use super::{Error, Repository};
use crate::event::Event;
use crate::image::Digest;

/// What came of asking for a mount.
#[derive(Debug)]
pub enum Mount {
    /// The blob is in this repository now.
    Mounted,
    /// The registry opened an upload session instead.
    Opened(Session),
    /// The registry did neither.
    Refused,
}

/// The answer to a HEAD for a blob that is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Present {
    /// Its length, where the registry tells it.
    pub size: Option<u64>,
}

/// A request that may open a session.
#[derive(Clone)]
struct Opening {
    doing: String,
    path: String,
    scopes: Scopes,
}

/// The answer to it, and the session, or why there is none.
struct Opened {
    answer: Answer,
    session: Result<Session, String>,
}

impl Repository {
    /// Whether a blob is there (OCI distribution-spec 1.1, "Checking if content exists in the
    /// registry").
    pub async fn head_blob(&self, digest: &Digest) -> Result<Option<Present>, Error> {
        let head = Call {
            doing: format!("ask {self} for blob {digest}"),
            also: &[
                StatusCode::NOT_FOUND,
                StatusCode::METHOD_NOT_ALLOWED,
                StatusCode::NOT_IMPLEMENTED,
            ],
            ..self.call(Method::HEAD, format!("/v2/{}/blobs/{digest}", self.name))
        };
        if !self.registry.refuses_head.load(Ordering::Relaxed) {
            let answer = self.small(&head).await?;
            match answer.status {
                StatusCode::NOT_FOUND => return Ok(None),
                StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_IMPLEMENTED => {
                    // Some gateways let nothing but GET, POST, PUT and PATCH through.
                    self.registry.refuses_head.store(true, Ordering::Relaxed);
                }
                _ => return Ok(Some(Present { size: length(&answer.headers) })),
            }
        }
        let mut get = Call {
            method: Method::GET,
            also: &[StatusCode::NOT_FOUND, StatusCode::RANGE_NOT_SATISFIABLE],
            ..head
        };
        get.headers.insert(RANGE, HeaderValue::from_static("bytes=0-0"));
        let answer = self.small(&get).await?;
        Ok(match answer.status {
            StatusCode::NOT_FOUND => None,
            StatusCode::PARTIAL_CONTENT => Some(Present { size: whole_length(&answer.headers) }),
            // An empty blob has no first byte.
            StatusCode::RANGE_NOT_SATISFIABLE => Some(Present { size: Some(0) }),
            _ => Some(Present { size: length(&answer.headers) }),
        })
    }

    /// Reads a blob of at most `limit` bytes, and checks that it is the one asked for.
    pub async fn blob(&self, digest: &Digest, limit: u64) -> Result<Option<Bytes>, Error> {
        let call = Call {
            doing: format!("get blob {digest} of {self}"),
            also: &[StatusCode::NOT_FOUND],
            read: Some(limit),
            ..self.call(Method::GET, format!("/v2/{}/blobs/{digest}", self.name))
        };
        // Not behind a hundred HEADs: others wait for what it says.
        let answer = self.registry.send_within(&call, &mut self.patience()).await?;
        if answer.status == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        if Digest::of(&answer.body) != *digest {
            return Err(Error::Protocol {
                doing: call.doing,
                problem: "the bytes that came are not those of the digest".to_owned(),
            });
        }
        Ok(Some(answer.body))
    }

    /// Asks the registry to take a blob over from another of its repositories (OCI
    /// distribution-spec 1.1, "Mounting a blob from another repository"). A refusal is no error;
    /// the blob is uploaded then.
    pub async fn mount(&self, digest: &Digest, from: &str) -> Result<Mount, Error> {
        let opening = Opening {
            doing: format!("mount blob {digest} from {from} in {self}"),
            path: format!("/v2/{}/blobs/uploads/?mount={digest}&from={from}", self.name),
            scopes: self.scopes.clone().with_pull(from),
        };
        // A mount saves an upload and is worth no long wait: whatever keeps it from being done, no
        // right to read over there or no such request here, the upload shows what matters.
        let mut patience = self.hastily().patience();
        // Nobody closes the semaphore; without a permit the request would still be right.
        let _permit = self.registry.small_requests.acquire().await;
        Ok(match self.post(&opening, &mut patience).await {
            Ok(Opened { answer, .. }) if answer.status == StatusCode::CREATED => Mount::Mounted,
            // Whatever else it says, with a place to send the bytes to it is an open session.
            Ok(Opened { session: Ok(session), .. }) => Mount::Opened(session),
            Ok(Opened { session: Err(why), .. }) => self.not_mounted(&why),
            Err(error) => self.not_mounted(&error.to_string()),
        })
    }

    fn not_mounted(&self, why: &str) -> Mount {
        (self.registry.events)(Event::Note(format!("not mounted: {why}")));
        Mount::Refused
    }

    /// Opens an upload session.
    pub(super) async fn open_session(
        &self,
        doing: &str,
        patience: &mut Patience,
    ) -> Result<(Session, HeaderMap), Error> {
        let opening = Opening {
            doing: doing.to_owned(),
            path: format!("/v2/{}/blobs/uploads/", self.name),
            scopes: self.scopes.clone(),
        };
        let Opened { answer, session } = self.post(&opening, patience).await?;
        match session {
            Ok(session) => Ok((session, answer.headers)),
            Err(problem) => Err(Error::Protocol { doing: opening.doing, problem }),
        }
    }

    /// Sends a POST that may open a session, until it is answered or there is no hope.
    async fn post(&self, opening: &Opening, patience: &mut Patience) -> Result<Opened, Error> {
        loop {
            let (repository, opening) = (self.clone(), opening.clone());
            let under_way = self.registry.settings.sessions.opening();
            // A task of its own: should nobody want the session any more while it is being opened,
            // it has to be known all the same, to be cancelled.
            let posting = tokio::spawn(async move {
                let opened = repository.post_once(opening).await;
                // Both as one: a session that nobody takes is given up, and only then is the
                // request no more under way.
                (opened, under_way)
            });
            let failure = match posting.await {
                Ok((Ok(opened), _)) => return Ok(opened),
                Ok((Err(failure), _)) => failure,
                Err(ended) => match ended.try_into_panic() {
                    Ok(panic) => std::panic::resume_unwind(panic),
                    // The runtime is shutting down, and this future with it.
                    Err(_) => std::future::pending().await,
                },
            };
            self.registry.wait_before_retry(failure, patience).await?;
        }
    }

    async fn post_once(&self, opening: Opening) -> Result<Opened, Failure> {
        let call = Call {
            doing: opening.doing,
            scopes: &opening.scopes,
            ..self.call(Method::POST, opening.path)
        };
        let answer = self.registry.attempt(&call).await?;
        let session = match answer.status {
            StatusCode::CREATED if matches!(&call.to, Target::Path(p) if p.contains("mount=")) => {
                Err("the blob is there already".to_owned())
            }
            _ => location(&answer.url, &answer.headers).map(|url| Session::opened(self, url)),
        };
        Ok(Opened { answer, session })
    }

    /// A call of this repository without a body, sent until it succeeds.
    pub(super) fn call(&self, method: Method, path: String) -> Call<'_> {
        Call {
            doing: String::new(),
            method,
            to: Target::Path(path),
            headers: HeaderMap::new(),
            payload: Payload::Empty,
            repository: &self.name,
            scopes: self.scopes(),
            sent: &self.sent,
            also: &[],
            read: None,
            persistence: Persistence::UntilLimit,
            answer: AnswerTime::Idle,
        }
    }

    /// Sends a small request, when not too many others are under way.
    pub(super) async fn small(&self, call: &Call<'_>) -> Result<Answer, Error> {
        self.small_within(call, &mut self.patience()).await
    }

    /// The same, with what is left of the patience for something greater.
    pub(super) async fn small_within(
        &self,
        call: &Call<'_>,
        patience: &mut Patience,
    ) -> Result<Answer, Error> {
        // Nobody closes the semaphore; without a permit the request would still be right.
        let _permit = self.registry.small_requests.acquire().await;
        self.registry.send_within(call, patience).await
    }

    fn scopes(&self) -> &Scopes {
        &self.scopes
    }
}

fn length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// The length behind the slash of `Content-Range: bytes 0-0/1234`.
fn whole_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_RANGE)?.to_str().ok()?.rsplit_once('/')?.1.trim().parse().ok()
}
