//! Blobs in a registry: checking that they exist, reading them, and mounting them from another
//! repository.

use std::sync::atomic::Ordering;

use bytes::Bytes;
use reqwest::header::{HeaderValue, RANGE};
use reqwest::{Method, StatusCode};

use super::error::Error;
use super::repository::Repository;
use super::send::request::{ReadBody, Request};
use super::upload::session::{Opening, Session};
use crate::image::Digest;

/// The result of a mount request.
#[derive(Debug)]
pub enum Mount {
    /// The blob is now in this repository.
    Mounted,
    /// The registry opened an upload session instead.
    Opened(Session),
    /// The registry did not mount the blob and opened no session.
    Refused,
}

/// The answer to a HEAD request for a blob that exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Present {
    /// Its length, if the registry gives it.
    pub size: Option<u64>,
}

impl Repository {
    /// Whether a blob exists (OCI distribution-spec 1.1, "Checking if content exists in the
    /// registry").
    pub async fn head_blob(&self, digest: &Digest) -> Result<Option<Present>, Error> {
        let doing = format!("ask {self} for blob {digest}");
        let path = format!("blobs/{digest}");
        let refuses_head = &self.registry().refuses_head;
        if !refuses_head.load(Ordering::Relaxed) {
            let head = Request {
                also: &[
                    StatusCode::NOT_FOUND,
                    StatusCode::METHOD_NOT_ALLOWED,
                    StatusCode::NOT_IMPLEMENTED,
                ],
                ..self.request(doing.clone(), Method::HEAD, &path)
            };
            let answer = self.small(head).await?;
            match answer.status {
                StatusCode::NOT_FOUND => return Ok(None),
                StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_IMPLEMENTED => {
                    // Some gateways allow only GET, POST, PUT and PATCH.
                    refuses_head.store(true, Ordering::Relaxed);
                }
                _ => return Ok(Some(Present { size: answer.number("content-length") })),
            }
        }
        let mut get = Request {
            also: &[StatusCode::NOT_FOUND, StatusCode::RANGE_NOT_SATISFIABLE],
            ..self.request(doing, Method::GET, &path)
        };
        get.headers.insert(RANGE, HeaderValue::from_static("bytes=0-0"));
        let answer = self.small(get).await?;
        let whole = |range: &str| range.rsplit_once('/')?.1.trim().parse().ok();
        let size = match answer.status {
            StatusCode::NOT_FOUND => return Ok(None),
            // `bytes 0-0/1234`
            StatusCode::PARTIAL_CONTENT => answer.header("content-range").and_then(whole),
            // An empty blob has no first byte.
            StatusCode::RANGE_NOT_SATISFIABLE => Some(0),
            _ => answer.number("content-length"),
        };
        Ok(Some(Present { size }))
    }

    /// Reads a blob of at most `limit` bytes, and checks its digest.
    pub async fn blob(&self, digest: &Digest, limit: u64) -> Result<Option<Bytes>, Error> {
        let doing = format!("get blob {digest} of {self}");
        let request = Request {
            also: &[StatusCode::NOT_FOUND],
            read: ReadBody::Success(limit),
            ..self.request(doing.clone(), Method::GET, &format!("blobs/{digest}"))
        };
        // Do not wait behind a hundred HEAD requests, because other work waits for this blob.
        let answer = self.registry().send(&self.call(request), &mut self.budget()).await?;
        if answer.status == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        if Digest::of(&answer.body) != *digest {
            let problem = "the bytes that came are not those of the digest".to_owned();
            return Err(Error::Protocol { doing, problem });
        }
        Ok(Some(answer.body))
    }

    /// Reads `length` bytes of a blob, starting at the offset `from`. The blob must have them.
    pub async fn blob_part(&self, digest: &Digest, from: u64, length: u64) -> Result<Bytes, Error> {
        let doing = format!("get a part of blob {digest} of {self}");
        let mut request = Request {
            read: ReadBody::Success(length),
            ..self.request(doing.clone(), Method::GET, &format!("blobs/{digest}"))
        };
        // Digits and a hyphen are a valid value.
        if let Ok(range) = HeaderValue::from_str(&format!("bytes={from}-{}", from + length - 1)) {
            request.headers.insert(RANGE, range);
        }
        let answer = self.small(request).await?;
        let is_all = from == 0 && answer.status == StatusCode::OK;
        if answer.body.len() as u64 != length
            || !(is_all || answer.status == StatusCode::PARTIAL_CONTENT)
        {
            let problem = format!(
                "it sent {} bytes, not the {length} that were asked for",
                answer.body.len()
            );
            return Err(Error::Protocol { doing, problem });
        }
        Ok(answer.body)
    }

    /// Asks the registry to mount a blob from another of its repositories (OCI distribution-spec
    /// 1.1, "Mounting a blob from another repository"). A refusal is not an error, because then the
    /// blob can be uploaded.
    pub async fn mount(&self, digest: &Digest, from: &str) -> Result<Mount, Error> {
        let opening = Opening {
            doing: format!("mount blob {digest} from {from} in {self}"),
            path: format!("blobs/uploads/?mount={digest}&from={from}"),
            scopes: self.scopes().clone().with_pull(from),
        };
        // Wait for the permit before the deadline is set: waiting for other mounts does not count
        // as lost time.
        let _permit = self.registry().small_permit().await;
        // A mount only saves an upload, so it is not worth a long wait. If it fails, for example
        // because reading from the other repository is not allowed, the upload shows the real
        // problems.
        let why = match self.for_mounts().post(opening).await {
            Ok(opened) if opened.status == StatusCode::CREATED => return Ok(Mount::Mounted),
            // With any other status, a valid location means that a session is open.
            Ok(opened) => match opened.session {
                Ok(session) => return Ok(Mount::Opened(session)),
                Err(why) => why,
            },
            Err(error) => error.summary(),
        };
        self.registry().door.note(format!("not mounted: {why}"));
        Ok(Mount::Refused)
    }
}
