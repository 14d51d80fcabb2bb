//! Blobs that are there: asking for them, reading small ones, mounting those of a sibling
//! repository.

use bytes::Bytes;
use reqwest::header::{CONTENT_LENGTH, HeaderMap};
use reqwest::{Method, StatusCode};

use super::auth::Scopes;
use super::send::{Call, Payload, Persistence, Target, location};
use super::sessions::Session;
use super::{Error, Repository};
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

impl Repository {
    /// Whether a blob is there (OCI distribution-spec 1.1, "Checking if content exists in the
    /// registry").
    pub async fn head_blob(&self, digest: &Digest) -> Result<Option<Present>, Error> {
        let call = Call {
            doing: format!("ask {self} for blob {digest}"),
            also: &[StatusCode::NOT_FOUND],
            ..self.call(Method::HEAD, format!("/v2/{}/blobs/{digest}", self.name))
        };
        let answer = self.small(&call).await?;
        if answer.status == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        let size = answer.headers.get(CONTENT_LENGTH);
        let size = size.and_then(|value| value.to_str().ok()?.parse().ok());
        Ok(Some(Present { size }))
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
        let answer = self.registry.send(&call).await?;
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
        let scopes = self.scopes.clone().with_pull(from);
        let call = Call {
            doing: format!("mount blob {digest} from {from} in {self}"),
            scopes: &scopes,
            ..self.call(
                Method::POST,
                format!("/v2/{}/blobs/uploads/?mount={digest}&from={from}", self.name),
            )
        };
        let answer = match self.small(&call).await {
            Ok(answer) => answer,
            // No right to read over there, or no such request here: then it is an upload.
            Err(error) if error.is_refusal() => return Ok(Mount::Refused),
            Err(error) => return Err(error),
        };
        match answer.status {
            StatusCode::CREATED => Ok(Mount::Mounted),
            StatusCode::ACCEPTED => match location(&answer.url, &answer.headers) {
                Ok(url) => Ok(Mount::Opened(Session::opened(self, url))),
                Err(problem) => Err(Error::Protocol { doing: call.doing, problem }),
            },
            _ => Ok(Mount::Refused),
        }
    }

    /// Opens an upload session.
    pub(super) async fn open_session(&self, doing: &str) -> Result<(Session, HeaderMap), Error> {
        let call = Call {
            doing: doing.to_owned(),
            ..self.call(Method::POST, format!("/v2/{}/blobs/uploads/", self.name))
        };
        let answer = self.registry.send(&call).await?;
        let url = location(&answer.url, &answer.headers)
            .map_err(|problem| Error::Protocol { doing: call.doing, problem })?;
        Ok((Session::opened(self, url), answer.headers))
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
            also: &[],
            read: None,
            persistence: Persistence::UntilLimit,
        }
    }

    /// Sends a small request, when not too many others are under way.
    pub(super) async fn small(&self, call: &Call<'_>) -> Result<super::send::Answer, Error> {
        // Nobody closes the semaphore; without a permit the request would still be right.
        let _permit = self.registry.small_requests.acquire().await;
        self.registry.send(call).await
    }

    fn scopes(&self) -> &Scopes {
        &self.scopes
    }
}
