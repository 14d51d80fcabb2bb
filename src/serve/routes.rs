//! Answers requests: from path, method and headers to a response (OCI distribution-spec 1.1, the
//! pull side).

use std::sync::Arc;

use http_body_util::BodyExt;
use hyper::body::Body;
use hyper::header::CONTENT_LENGTH;
use hyper::http::response::Builder;
use hyper::{Method, Request, Response, StatusCode};
use serde_json::json;

use super::answer::{self, AnswerBody};
use super::catalog::ServedRepository;
use super::counted::Counted;
use super::range::Asked;
use super::sending::BlobBody;
use super::shared::Shared;
use super::stall::{BlobOnItsWay, StallTimer};
use crate::image::Digest;

/// The media type of a list of referrers, which is an index.
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

type Answered = Response<AnswerBody>;

/// Answers a request. The body of the request is not read.
pub fn answer<B>(
    shared: &Arc<Shared>,
    request: &Request<B>,
    progress: &Arc<StallTimer>,
) -> Answered {
    let counted = Counted::new(shared);
    let is_head = request.method() == Method::HEAD;
    let answered = match *request.method() {
        Method::GET | Method::HEAD => route(shared, request, progress),
        _ => {
            let what = "this registry is read-only: images can only be pulled from it";
            answer::error(StatusCode::METHOD_NOT_ALLOWED, "UNSUPPORTED", what)
        }
    };
    let (mut parts, body) = answered.into_parts();
    if let Some(length) = body.size_hint().exact().filter(|_| is_head) {
        // The length that a GET would have, unless the header is already set.
        parts.headers.entry(CONTENT_LENGTH).or_insert(length.into());
    }
    match is_head {
        true => Response::from_parts(parts, answer::text("")),
        false => Response::from_parts(parts, counted.body(body).boxed_unsync()),
    }
}

fn route<B>(shared: &Arc<Shared>, request: &Request<B>, progress: &Arc<StallTimer>) -> Answered {
    let path = request.uri().path();
    let query = request.uri().query().unwrap_or_default();
    let Some(rest) = path.strip_prefix("/v2") else { return not_found() };
    let rest = match rest {
        "" | "/" => return answer::json(&json!({})),
        "/_catalog" => {
            let names = shared.catalog.repositories.keys().map(String::as_str);
            return page("repositories", None, names, path, query);
        }
        rest => match rest.strip_prefix('/') {
            Some(rest) => rest,
            None => return not_found(),
        },
    };
    // A repository name may have several parts, so read the path from its end.
    if let Some(name) = rest.strip_suffix("/tags/list") {
        return with(shared, name, |repository| {
            let tags = repository.tags.keys().map(String::as_str);
            page("tags", Some(name), tags, path, query)
        });
    }
    let mut parts = rest.rsplitn(3, '/');
    let (Some(reference), Some(kind), Some(name)) = (parts.next(), parts.next(), parts.next())
    else {
        return not_found();
    };
    match kind {
        "manifests" => {
            with(shared, name, |repository| manifest(shared, request, repository, reference))
        }
        "blobs" => with(shared, name, |repository| {
            blob(shared, request, (name, repository), reference, progress)
        }),
        "referrers" => with(shared, name, |repository| referrers(repository, reference, query)),
        _ => not_found(),
    }
}

fn not_found() -> Answered {
    answer::error(StatusCode::NOT_FOUND, "NAME_UNKNOWN", "there is nothing at this path")
}

fn bad_digest() -> Answered {
    answer::error(StatusCode::BAD_REQUEST, "DIGEST_INVALID", "this is not a digest")
}

fn with(
    shared: &Shared,
    name: &str,
    answer: impl FnOnce(&ServedRepository) -> Answered,
) -> Answered {
    match shared.catalog.repositories.get(name) {
        Some(repository) => answer(repository),
        None => answer::error(
            StatusCode::NOT_FOUND,
            "NAME_UNKNOWN",
            "no image is served under this name",
        ),
    }
}

/// The headers that identify the content, or a "not modified" answer if the client has it already.
fn content<B>(request: &Request<B>, digest: &Digest) -> Result<Builder, Box<Answered>> {
    let tag = format!("\"{digest}\"");
    let known = request.headers().get("if-none-match").and_then(|value| value.to_str().ok());
    let is_known = known.is_some_and(|known| {
        let mut tags = known.split(',').map(|one| one.trim().trim_start_matches("W/"));
        tags.any(|one| one == "*" || one == tag)
    });
    let status = if is_known { StatusCode::NOT_MODIFIED } else { StatusCode::OK };
    let builder =
        answer::begin(status).header("docker-content-digest", digest.as_str()).header("etag", &tag);
    match is_known {
        true => Err(Box::new(answer::end(builder, answer::text("")))),
        false => Ok(builder),
    }
}

fn manifest<B>(
    shared: &Shared,
    request: &Request<B>,
    repository: &ServedRepository,
    reference: &str,
) -> Answered {
    let Some((digest, manifest)) = repository.manifest(reference) else {
        if reference.contains(':') && reference.parse::<Digest>().is_err() {
            return bad_digest();
        }
        let what = "no manifest of this tag or digest is served";
        return answer::error(StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN", what);
    };
    // Count it even if the client already has the manifest and only asks whether it is current.
    if !manifest.blobs.is_empty() {
        shared.pulls.manifest(&manifest.blobs);
    }
    let builder = match content(request, digest) {
        Ok(builder) => builder,
        Err(known) => return *known,
    };
    let builder = builder
        .header("content-type", &manifest.media_type)
        .header("content-length", manifest.bytes.len());
    answer::end(builder, answer::text(manifest.bytes.clone()))
}

fn blob<B>(
    shared: &Arc<Shared>,
    request: &Request<B>,
    (name, repository): (&str, &ServedRepository),
    digest: &str,
    progress: &Arc<StallTimer>,
) -> Answered {
    let Ok(digest) = digest.parse::<Digest>() else { return bad_digest() };
    let Some(blob) = repository.blobs.get(&digest) else {
        let what = "no blob of this digest is served under this name";
        return answer::error(StatusCode::NOT_FOUND, "BLOB_UNKNOWN", what);
    };
    let mut builder = match content(request, &digest) {
        Ok(builder) => builder,
        Err(known) => return *known,
    };
    let header = |name| request.headers().get(name).and_then(|value| value.to_str().ok());
    // `If-Range` must name this digest, which is the only version of the blob.
    let is_same = header("if-range").is_none_or(|tag| tag == format!("\"{digest}\""));
    let asked = match header("range") {
        Some(range) if is_same => Asked::parse(range, blob.size),
        _ => Asked::Whole,
    };
    let (first, end) = match asked {
        Asked::Whole => (0, blob.size),
        Asked::Part(first, end) => {
            let range = format!("bytes {first}-{}/{}", end - 1, blob.size);
            builder = builder.status(StatusCode::PARTIAL_CONTENT).header("content-range", range);
            (first, end)
        }
        Asked::Beyond => {
            let what = "the blob has no such range";
            let mut answered =
                answer::error(StatusCode::RANGE_NOT_SATISFIABLE, "SIZE_INVALID", what);
            if let Ok(range) = format!("bytes */{}", blob.size).parse() {
                answered.headers_mut().insert("content-range", range);
            }
            return answered;
        }
    };
    builder = builder
        .header("content-type", "application/octet-stream")
        .header("accept-ranges", "bytes")
        .header("content-length", end - first);
    if request.method() == Method::HEAD {
        return answer::end(builder, answer::text(""));
    }
    match BlobBody::new(shared, name, blob, (first, end), BlobOnItsWay::new(progress)) {
        Ok(body) => answer::end(builder, body.boxed_unsync()),
        Err(error) => {
            (shared.events)(crate::event::Event::Warning(error.to_string()));
            let what = "the layer cannot be packed; the server says why";
            answer::error(StatusCode::INTERNAL_SERVER_ERROR, "UNKNOWN", what)
        }
    }
}

/// The manifests that refer to this one ("Listing Referrers").
fn referrers(repository: &ServedRepository, subject: &str, query: &str) -> Answered {
    let Ok(subject) = subject.parse::<Digest>() else { return bad_digest() };
    let wanted = parameter(query, "artifactType");
    let referring = repository.manifests.iter().filter(|(_, manifest)| {
        manifest.subject.as_ref() == Some(&subject)
            && wanted.as_ref().is_none_or(|wanted| manifest.artifact_type.as_ref() == Some(wanted))
    });
    let descriptors: Vec<_> = referring
        .map(|(digest, manifest)| {
            json!({
                "mediaType": manifest.media_type,
                "digest": digest,
                "size": manifest.bytes.len(),
                "artifactType": manifest.artifact_type,
                "annotations": manifest.annotations,
            })
        })
        .collect();
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": descriptors});
    let mut builder = answer::begin(StatusCode::OK).header("content-type", INDEX);
    if wanted.is_some() {
        builder = builder.header("oci-filters-applied", "artifactType");
    }
    answer::end(builder, answer::text(index.to_string()))
}

/// A part of a sorted list: `n` entries after `last`, with a link to the next part.
fn page<'a>(
    title: &str,
    name: Option<&str>,
    entries: impl Iterator<Item = &'a str>,
    path: &str,
    query: &str,
) -> Answered {
    let count = match parameter(query, "n").map(|n| n.parse::<usize>()) {
        None => usize::MAX,
        Some(Ok(count)) => count,
        Some(Err(_)) => {
            let what = "n is not a number";
            return answer::error(StatusCode::BAD_REQUEST, "PAGINATION_NUMBER_INVALID", what);
        }
    };
    let last = parameter(query, "last");
    let after = entries.filter(|entry| last.as_deref().is_none_or(|last| *entry > last));
    let mut listed: Vec<&str> = after.take(count.saturating_add(1)).collect();
    let has_more = listed.len() > count;
    listed.truncate(count);
    let mut document = json!({ title: listed });
    if let Some(name) = name {
        document["name"] = name.into();
    }
    let mut answered = answer::json(&document);
    if let (true, Some(last)) = (has_more, listed.last())
        && let Ok(link) = format!("<{path}?n={count}&last={last}>; rel=\"next\"").parse()
    {
        answered.headers_mut().insert("link", link);
    }
    answered
}

/// The first query parameter with this name.
fn parameter(query: &str, name: &str) -> Option<String> {
    let mut pairs = url::form_urlencoded::parse(query.as_bytes());
    pairs.find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
}
