//! The distribution API over HTTP (OCI distribution-spec 1.1, "Endpoints"): one handler for each
//! resource and method.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::io::AsyncReadExt;

use super::error::Refusal;
use super::path::{Resource, is_digest, is_repository_name, is_tag};
use super::store::{Manifest, Session, digest_text};
use super::{Shared, add};

/// The largest manifest taken, in bytes; the specification asks for at least this.
const MANIFEST_LIMIT: usize = 4 * 1024 * 1024;

/// How much of a body that is refused is read all the same, in bytes.
const DRAINED: usize = 64 * 1024 * 1024;

type Answer = Result<Response, Refusal>;
type Query = Vec<(String, String)>;

pub(super) fn router(shared: Arc<Shared>) -> Router {
    Router::new().fallback(handle).with_state(shared)
}

async fn handle(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    add(&shared.tally.requests, 1);
    match answer(&shared, request).await {
        Ok(response) => response,
        Err(refusal) => refusal.into_response(),
    }
}

async fn answer(shared: &Shared, request: Request) -> Answer {
    let (parts, body) = request.into_parts();
    let query = pairs(parts.uri.query().unwrap_or_default().as_bytes());
    if parts.uri.path() == "/token" {
        return token(shared, &parts.method, &parts.headers, query, body).await;
    }
    let Some(resource) = Resource::parse(parts.uri.path()) else {
        return Err(Refusal::new(StatusCode::NOT_FOUND, "UNSUPPORTED", "no such endpoint"));
    };
    let actions: &[&str] = match parts.method {
        Method::GET | Method::HEAD if !matches!(resource, Resource::Upload { .. }) => &["pull"],
        Method::DELETE if !matches!(resource, Resource::Upload { .. }) => &["delete"],
        _ => &["pull", "push"],
    };
    let need = resource.name().map(|name| (name, actions));
    shared.gate.admit(&parts.headers, need)?;
    if let Some(name) = resource.name() {
        if !is_repository_name(name) {
            return Err(Refusal::name_invalid(name));
        }
        if let Some(known) = &shared.repositories
            && !known.iter().any(|known| known == name)
        {
            return Err(Refusal::name_unknown(name));
        }
    }
    let call = Call { shared, headers: &parts.headers, query: &query };
    match (resource, parts.method) {
        (Resource::Base, Method::GET | Method::HEAD) => Ok((StatusCode::OK, "{}").into_response()),
        (Resource::Manifest { name, reference }, Method::GET) => {
            add(&shared.tally.manifest_gets, 1);
            call.get_manifest(&name, &reference)
        }
        (Resource::Manifest { name, reference }, Method::HEAD) => {
            call.get_manifest(&name, &reference)
        }
        (Resource::Manifest { name, reference }, Method::PUT) => {
            add(&shared.tally.manifest_puts, 1);
            call.put_manifest(&name, &reference, body).await
        }
        (Resource::Manifest { name, reference }, Method::DELETE) => {
            if shared.store.delete_manifest(&name, &reference) {
                Ok(StatusCode::ACCEPTED.into_response())
            } else {
                Err(Refusal::manifest_unknown(&reference))
            }
        }
        (Resource::Blob { name, digest }, Method::HEAD) => {
            add(&shared.tally.blob_heads, 1);
            call.get_blob(&name, &digest, false)
        }
        (Resource::Blob { name, digest }, Method::GET) => {
            add(&shared.tally.blob_gets, 1);
            call.get_blob(&name, &digest, true)
        }
        (Resource::Blob { name, digest }, Method::DELETE) => {
            if shared.store.unlink_blob(&name, &digest) {
                Ok(StatusCode::ACCEPTED.into_response())
            } else {
                Err(Refusal::blob_unknown(&digest))
            }
        }
        (Resource::Uploads { name }, Method::POST) => call.open_upload(&name, body).await,
        (Resource::Upload { name, session }, Method::PATCH) => {
            call.patch_upload(&name, &session, body).await
        }
        (Resource::Upload { name, session }, Method::PUT) => {
            call.put_upload(&name, &session, body).await
        }
        (Resource::Upload { name, session }, Method::GET | Method::HEAD) => {
            call.upload_status(&name, &session).await
        }
        (Resource::Upload { name, session }, Method::DELETE) => {
            if shared.store.cancel_upload(&name, &session) {
                Ok(StatusCode::NO_CONTENT.into_response())
            } else {
                Err(Refusal::upload_unknown())
            }
        }
        (Resource::Tags { name }, Method::GET) => call.tags(&name),
        (Resource::Referrers { name, digest }, Method::GET) if shared.referrers => {
            call.referrers(&name, &digest)
        }
        (_, method) => Err(Refusal::unsupported(format!("{method} is not for this"))),
    }
}

async fn token(
    shared: &Shared,
    method: &Method,
    headers: &HeaderMap,
    query: Query,
    body: Body,
) -> Answer {
    add(&shared.tally.tokens, 1);
    let form = match *method {
        Method::GET => query,
        Method::POST => pairs(&collect(body, 64 * 1024).await?),
        _ => return Err(Refusal::unsupported("GET or POST")),
    };
    let token = shared.gate.issue(headers, &form)?;
    Ok(([(header::CONTENT_TYPE, "application/json")], token.to_string()).into_response())
}

/// A request that has passed the gate.
struct Call<'a> {
    shared: &'a Shared,
    headers: &'a HeaderMap,
    query: &'a Query,
}

impl Call<'_> {
    fn param(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    fn get_manifest(&self, name: &str, reference: &str) -> Answer {
        let Some(manifest) = self.shared.store.manifest(name, reference) else {
            return Err(Refusal::manifest_unknown(reference));
        };
        Ok((
            [
                (header::CONTENT_TYPE, manifest.media_type),
                (header::ETAG, format!("\"{}\"", manifest.digest)),
                (DIGEST, manifest.digest),
            ],
            manifest.bytes,
        )
            .into_response())
    }

    async fn put_manifest(&self, name: &str, reference: &str, body: Body) -> Answer {
        let store = &self.shared.store;
        let bytes = collect(body, MANIFEST_LIMIT).await?;
        let digest = digest_text(Sha256::new_with_prefix(&bytes));
        if reference.contains(':') {
            if reference != digest {
                return Err(Refusal::digest_invalid(format!(
                    "the manifest is {digest}, not {reference}"
                )));
            }
        } else if !is_tag(reference) {
            return Err(Refusal::manifest_invalid(format!("invalid tag {reference:?}")));
        } else if store.resolve(name, reference).is_some() {
            self.shared.tags.overwrite(name, reference)?;
        }
        let json: Value = serde_json::from_slice(&bytes)
            .map_err(|error| Refusal::manifest_invalid(format!("not JSON: {error}")))?;
        let media_type = self
            .headers
            .get(header::CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
            .or(json["mediaType"].as_str())
            .ok_or_else(|| Refusal::manifest_invalid("no media type"))?;
        if let Some(inner) = json["mediaType"].as_str()
            && inner != media_type
        {
            return Err(Refusal::manifest_invalid(format!(
                "the header says {media_type}, the manifest {inner}"
            )));
        }
        self.check_parts(name, &json)?;
        let subject = json["subject"]["digest"].as_str().map(str::to_owned);
        store.put_manifest(
            name,
            reference,
            Manifest {
                bytes,
                media_type: media_type.to_owned(),
                digest: digest.clone(),
                subject: subject.clone(),
            },
        );
        let location = format!("/v2/{name}/manifests/{digest}");
        let mut response =
            (StatusCode::CREATED, [(header::LOCATION, location), (DIGEST, digest)]).into_response();
        if let Some(subject) = subject.filter(|_| self.shared.referrers)
            && let Ok(value) = HeaderValue::from_str(&subject)
        {
            response.headers_mut().insert("oci-subject", value);
        }
        Ok(response)
    }

    /// Every blob and manifest that a manifest names must be there already.
    fn check_parts(&self, name: &str, json: &Value) -> Result<(), Refusal> {
        let store = &self.shared.store;
        let digest_in = |descriptor: &Value| -> Result<String, Refusal> {
            descriptor["digest"]
                .as_str()
                .filter(|digest| is_digest(digest))
                .map(str::to_owned)
                .ok_or_else(|| Refusal::manifest_invalid("a descriptor without a valid digest"))
        };
        if json["schemaVersion"] != 2 {
            return Err(Refusal::manifest_invalid("schemaVersion is not 2"));
        }
        if let Some(manifests) = json["manifests"].as_array() {
            for descriptor in manifests {
                let digest = digest_in(descriptor)?;
                if store.manifest(name, &digest).is_none() {
                    return Err(Refusal::manifest_blob_unknown(&digest));
                }
            }
            return Ok(());
        }
        let Some(layers) = json["layers"].as_array() else {
            return Err(Refusal::manifest_invalid("neither layers nor manifests"));
        };
        // A layer with `urls` is foreign: it lives elsewhere.
        let own = layers.iter().filter(|layer| layer["urls"].is_null());
        for descriptor in std::iter::once(&json["config"]).chain(own) {
            let digest = digest_in(descriptor)?;
            let Some((_, size)) = store.blob(name, &digest) else {
                return Err(Refusal::manifest_blob_unknown(&digest));
            };
            if descriptor["size"].as_u64() != Some(size) {
                return Err(Refusal::manifest_invalid(format!(
                    "{digest} has {size} bytes, not {}",
                    descriptor["size"]
                )));
            }
        }
        Ok(())
    }

    fn get_blob(&self, name: &str, digest: &str, with_body: bool) -> Answer {
        if !is_digest(digest) {
            return Err(Refusal::digest_invalid(format!("invalid digest {digest:?}")));
        }
        let Some((file, size)) = self.shared.store.blob(name, digest) else {
            return Err(Refusal::blob_unknown(digest));
        };
        let headers = [
            (header::CONTENT_TYPE, "application/octet-stream".to_owned()),
            (header::CONTENT_LENGTH, size.to_string()),
            (DIGEST, digest.to_owned()),
        ];
        let body = if with_body {
            let file = tokio::fs::File::from_std(file);
            Body::from_stream(futures::stream::try_unfold(file, |mut file| async move {
                let mut chunk = bytes::BytesMut::with_capacity(64 * 1024);
                let read = file.read_buf(&mut chunk).await?;
                Ok::<_, std::io::Error>((read > 0).then(|| (chunk.freeze(), file)))
            }))
        } else {
            Body::empty()
        };
        Ok((headers, body).into_response())
    }

    async fn open_upload(&self, name: &str, body: Body) -> Answer {
        let store = &self.shared.store;
        if let (Some(digest), Some(from)) = (self.param("mount"), self.param("from")) {
            // Only who may pull there may take from there.
            let may_pull = self.shared.gate.admit(self.headers, Some((from, &["pull"]))).is_ok();
            if self.shared.mounts && may_pull && store.mount(name, digest, from) {
                add(&self.shared.tally.mounts, 1);
                return Ok(created_blob(name, digest));
            }
        }
        add(&self.shared.tally.uploads, 1);
        let (id, session) = store.open_upload(name)?;
        if let Some(digest) = self.param("digest") {
            let mut session = session.lock().await;
            self.receive(&mut session, body).await?;
            return self.finish(name, &id, &mut session, digest);
        }
        Ok(upload_state(StatusCode::ACCEPTED, name, &id, 0))
    }

    async fn patch_upload(&self, name: &str, id: &str, body: Body) -> Answer {
        let Some(session) = self.shared.store.upload(name, id) else {
            return Err(Refusal::upload_unknown());
        };
        let mut session = session.lock().await;
        if let Err(refusal) = self.check_range(name, id, &session) {
            // Read the body first. An early answer would reset the connection, and the client might
            // not see the error.
            let _ = Limited::new(body, DRAINED).collect().await;
            return Err(refusal);
        }
        self.receive(&mut session, body).await?;
        Ok(upload_state(StatusCode::ACCEPTED, name, id, session.size()))
    }

    async fn put_upload(&self, name: &str, id: &str, body: Body) -> Answer {
        let Some(digest) = self.param("digest") else {
            return Err(Refusal::digest_invalid("no digest parameter"));
        };
        let Some(session) = self.shared.store.upload(name, id) else {
            return Err(Refusal::upload_unknown());
        };
        let mut session = session.lock().await;
        self.check_range(name, id, &session)?;
        self.receive(&mut session, body).await?;
        self.finish(name, id, &mut session, digest)
    }

    /// A chunk that says where it belongs must begin where the session ends.
    fn check_range(&self, name: &str, id: &str, session: &Session) -> Result<(), Refusal> {
        let Some(range) = self.headers.get(header::CONTENT_RANGE) else {
            return Ok(());
        };
        let start = range
            .to_str()
            .ok()
            .map(|range| range.trim_start_matches("bytes "))
            .and_then(|range| range.split_once('-')?.0.parse::<u64>().ok());
        if start == Some(session.size()) {
            return Ok(());
        }
        Err(Refusal::new(
            StatusCode::RANGE_NOT_SATISFIABLE,
            "BLOB_UPLOAD_INVALID",
            format!("the session stands at {}", session.size()),
        )
        .with(header::LOCATION, &format!("/v2/{name}/blobs/uploads/{id}"))
        .with(header::RANGE, &range_text(session.size())))
    }

    /// Appends a body to a session as it arrives; what arrived stays if the client breaks off.
    async fn receive(&self, session: &mut Session, body: Body) -> Result<(), Refusal> {
        let mut body = body;
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| {
                Refusal::new(
                    StatusCode::BAD_REQUEST,
                    "BLOB_UPLOAD_INVALID",
                    format!("the body broke off: {error}"),
                )
            })?;
            if let Some(data) = frame.data_ref() {
                session.append(data)?;
                self.shared.tally.blob_bytes.fetch_add(data.len() as u64, Ordering::Relaxed);
            }
        }
        Ok(())
    }

    fn finish(&self, name: &str, id: &str, session: &mut Session, digest: &str) -> Answer {
        if !is_digest(digest) {
            return Err(Refusal::digest_invalid(format!("invalid digest {digest:?}")));
        }
        match self.shared.store.finish_upload(name, id, session, digest)? {
            Ok(()) => Ok(created_blob(name, digest)),
            Err(found) => {
                Err(Refusal::digest_invalid(format!("the bytes are {found}, not {digest}")))
            }
        }
    }

    async fn upload_status(&self, name: &str, id: &str) -> Answer {
        let Some(session) = self.shared.store.upload(name, id) else {
            return Err(Refusal::upload_unknown());
        };
        let size = session.lock().await.size();
        Ok(upload_state(StatusCode::NO_CONTENT, name, id, size))
    }

    fn tags(&self, name: &str) -> Answer {
        let Some(mut tags) = self.shared.store.tags(name) else {
            return Err(Refusal::name_unknown(name));
        };
        if let Some(last) = self.param("last") {
            tags.retain(|tag| tag.as_str() > last);
        }
        let mut link = None;
        if let Some(n) = self.param("n").and_then(|n| n.parse::<usize>().ok())
            && n < tags.len()
        {
            tags.truncate(n);
            if let Some(last) = tags.last() {
                link = Some(format!("</v2/{name}/tags/list?n={n}&last={last}>; rel=\"next\""));
            }
        }
        let mut response = axum::Json(json!({ "name": name, "tags": tags })).into_response();
        if let Some(value) = link.and_then(|link| HeaderValue::from_str(&link).ok()) {
            response.headers_mut().insert(header::LINK, value);
        }
        Ok(response)
    }

    fn referrers(&self, name: &str, digest: &str) -> Answer {
        if !is_digest(digest) {
            return Err(Refusal::digest_invalid(format!("invalid digest {digest:?}")));
        }
        let descriptors: Vec<Value> = self
            .shared
            .store
            .referrers(name, digest)
            .iter()
            .map(|manifest| {
                let json: Value = serde_json::from_slice(&manifest.bytes).unwrap_or_default();
                let artifact_type = match &json["artifactType"] {
                    Value::Null => json["config"]["mediaType"].clone(),
                    named => named.clone(),
                };
                json!({
                    "mediaType": manifest.media_type,
                    "digest": manifest.digest,
                    "size": manifest.bytes.len(),
                    "artifactType": artifact_type,
                    "annotations": json["annotations"],
                })
            })
            .collect();
        let index = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": descriptors,
        });
        Ok(([(header::CONTENT_TYPE, "application/vnd.oci.image.index.v1+json")], index.to_string())
            .into_response())
    }
}

const DIGEST: header::HeaderName = header::HeaderName::from_static("docker-content-digest");

fn created_blob(name: &str, digest: &str) -> Response {
    (
        StatusCode::CREATED,
        [(header::LOCATION, format!("/v2/{name}/blobs/{digest}")), (DIGEST, digest.to_owned())],
    )
        .into_response()
}

fn upload_state(status: StatusCode, name: &str, id: &str, size: u64) -> Response {
    let mut response = (
        status,
        [
            (header::LOCATION, format!("/v2/{name}/blobs/uploads/{id}")),
            (header::RANGE, range_text(size)),
        ],
    )
        .into_response();
    if let Ok(value) = HeaderValue::from_str(id) {
        response.headers_mut().insert("docker-upload-uuid", value);
    }
    response
}

/// `0-<last byte>`; an empty session says `0-0`, as distribution does.
fn range_text(size: u64) -> String {
    format!("0-{}", size.saturating_sub(1))
}

fn pairs(text: &[u8]) -> Query {
    url::form_urlencoded::parse(text).into_owned().collect()
}

async fn collect(body: Body, limit: usize) -> Result<bytes::Bytes, Refusal> {
    match Limited::new(body, limit).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(Refusal::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "SIZE_INVALID",
            format!("more than {limit} bytes"),
        )),
        Err(error) => Err(Refusal::manifest_invalid(format!("the body broke off: {error}"))),
    }
}
