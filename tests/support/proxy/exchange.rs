//! One request through the proxy: chooses the fault, asks the registry and answers the client.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Method, Request, Response, StatusCode, Uri};
use tokio::sync::mpsc;

use super::Proxy;
use super::body::{
    Break, Carried, End, ProxyBody, ResponseBody, carry_request, drain, full, request_body,
};
use super::fault::{Answer, Change, Fault, Hold, LocationForm, Place, RangeLie, Unread};
use super::line::ResetSwitch;
use super::record::{Entry, Record};
use super::rule::Asked;
use super::step::{Origin, Step};

/// Headers that are between two neighbours only (RFC 9110, section 7.6.1).
const HOP_BY_HOP: [HeaderName; 6] = [
    header::CONNECTION,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// One request and all that belongs to it.
pub struct Exchange {
    pub proxy: Arc<Proxy>,
    pub origin: Origin,
    pub connection: u64,
    pub switch: Arc<ResetSwitch>,
}

/// What came back from the registry.
enum Outcome {
    Response(Response<Incoming>),
    /// The request was cut on the way.
    Cut,
    /// The registry could not be asked.
    Failed,
}

impl Exchange {
    pub async fn run(self, request: Request<Incoming>) -> Result<Response<ProxyBody>, Infallible> {
        let (parts, body) = request.into_parts();
        let target = parts.uri.path_and_query().map_or_else(|| "/".to_owned(), ToString::to_string);
        let method = parts.method.as_str();
        let step = Step::of(self.origin, method, &target);
        let length = parts.headers.get("content-length").and_then(|it| it.to_str().ok());
        let asked = Asked {
            origin: self.origin,
            step,
            method,
            target: &target,
            length: length.and_then(|it| it.parse().ok()).unwrap_or(0),
        };
        let fault = self.proxy.script.lock().expect("no holder panics").choose(asked);
        let headers = parts
            .headers
            .iter()
            .map(|(name, value)| {
                (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned())
            })
            .collect();
        let entry = self.proxy.log.open(Record {
            connection: self.connection,
            origin: self.origin,
            step,
            method: method.to_owned(),
            target,
            version: format!("{:?}", parts.version),
            headers,
            request_body: 0,
            response_body: 0,
            status: None,
            upstream_status: None,
            fault: fault.as_ref().map(|fault| format!("{fault:?}")),
            trouble: None,
            arrived: Duration::ZERO,
            answered: None,
        });
        let response = match fault {
            None => self.pass(parts, body, &entry, None, None, &[]).await,
            Some(fault) => self.strike(fault, parts, body, &entry).await,
        };
        entry.answered(response.status().as_u16());
        Ok(response)
    }

    async fn strike(
        &self,
        fault: Fault,
        parts: Parts,
        body: Incoming,
        entry: &Entry,
    ) -> Response<ProxyBody> {
        let length = content_length(&parts.headers);
        match fault {
            Fault::Reset => self.reset().await,
            Fault::CutRequest { at, delivered } => {
                let offset = at.offset(length);
                if body.is_end_stream() {
                    if delivered {
                        self.forward(parts, body, entry, None).await;
                    }
                    return self.reset().await;
                }
                let cut = Some((offset, Break::Cut { delivered }));
                self.forward(parts, body, entry, cut).await;
                self.reset().await
            }
            Fault::Stall { place, hold } => match place {
                Place::BeforeResponse => {
                    let outcome = self.forward(parts, body, entry, None).await;
                    match hold {
                        Hold::Forever => std::future::pending().await,
                        Hold::For(time) => tokio::time::sleep(time).await,
                    }
                    self.respond(outcome, entry, None, &[])
                }
                Place::RequestBody(at) => {
                    let cut = (at.offset(length), Break::Hold(hold));
                    self.pass(parts, body, entry, Some(cut), None, &[]).await
                }
                Place::ResponseBody(at) => {
                    let outcome = self.forward(parts, body, entry, None).await;
                    let offset = at.offset(outcome.length());
                    self.respond(outcome, entry, Some((offset, End::Hold(hold))), &[])
                }
            },
            Fault::CutResponse { at, reset } => {
                let outcome = self.forward(parts, body, entry, None).await;
                let offset = at.offset(outcome.length());
                let end = if reset { End::Reset(self.switch.clone()) } else { End::Close };
                // An answer without a body is cut before its head.
                if outcome.length() == Some(0) || parts_without_body(&outcome) {
                    return self.reset().await;
                }
                self.respond(outcome, entry, Some((offset, end)), &[])
            }
            Fault::Answer(answer) => self.answer(&answer, body, entry).await,
            Fault::LostResponse(instead) => {
                let outcome = self.forward(parts, body, entry, None).await;
                if let Outcome::Response(response) = outcome {
                    // Read whole, so that the registry has done all it does.
                    let _ = response.into_body().collect().await;
                }
                match instead {
                    None => self.reset().await,
                    Some(answer) => answer_response(&answer),
                }
            }
            Fault::ExpiredToken => {
                let challenge = self.challenge(&parts).await;
                let answer = Answer::status(401)
                    .header("www-authenticate", &challenge)
                    .error("UNAUTHORIZED", "the token has expired");
                self.answer(&answer, body, entry).await
            }
            Fault::LostSession => {
                self.delete_session(&parts).await;
                let answer = Answer::status(404)
                    .error("BLOB_UPLOAD_UNKNOWN", "blob upload unknown to registry");
                self.answer(&answer, body, entry).await
            }
            Fault::BodyCap { bytes, unread } => {
                let too_large = Answer::status(413).html().unread(unread);
                match length {
                    Some(length) if length <= bytes => {
                        self.pass(parts, body, entry, None, None, &[]).await
                    }
                    Some(_) => self.answer(&too_large, body, entry).await,
                    None if body.is_end_stream() => {
                        self.pass(parts, body, entry, None, None, &[]).await
                    }
                    None => self.pass_up_to(parts, body, entry, bytes, &too_large).await,
                }
            }
            Fault::RefuseMount => {
                let mut parts = parts;
                parts.uri = Uri::try_from(parts.uri.path().to_owned()).unwrap_or(parts.uri);
                self.pass(parts, body, entry, None, None, &[]).await
            }
            Fault::Redirect { status, unread } => {
                let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
                let location = format!("{}{path}", self.proxy.base(Origin::Foreign));
                let answer = Answer::status(status).header("location", &location).unread(unread);
                self.answer(&answer, body, entry).await
            }
            Fault::Rewrite(changes) => self.pass(parts, body, entry, None, None, &changes).await,
        }
    }

    /// Resets the connection; never returns, since the connection takes this task with it.
    async fn reset(&self) -> Response<ProxyBody> {
        self.switch.pull();
        std::future::pending().await
    }

    async fn answer(&self, answer: &Answer, body: Incoming, entry: &Entry) -> Response<ProxyBody> {
        let mut response = answer_response(answer);
        match answer.unread {
            Unread::ReadFirst => drain(body, entry.clone()).await,
            Unread::KeepReading => {
                tokio::spawn(drain(body, entry.clone()));
            }
            Unread::Close => {
                response
                    .headers_mut()
                    .insert(header::CONNECTION, HeaderValue::from_static("close"));
                drop(body);
            }
        }
        response
    }

    /// Forwards, and answers with what came back.
    async fn pass(
        &self,
        parts: Parts,
        body: Incoming,
        entry: &Entry,
        request_cut: Option<(u64, Break)>,
        response_cut: Option<(u64, End)>,
        changes: &[Change],
    ) -> Response<ProxyBody> {
        let outcome = self.forward(parts, body, entry, request_cut).await;
        self.respond(outcome, entry, response_cut, changes)
    }

    /// Forwards a body without a length until it is too long.
    async fn pass_up_to(
        &self,
        parts: Parts,
        body: Incoming,
        entry: &Entry,
        bytes: u64,
        too_large: &Answer,
    ) -> Response<ProxyBody> {
        let cut = Some((bytes + 1, Break::TooLong(too_large.unread)));
        match self.forward(parts, body, entry, cut).await {
            Outcome::Cut => answer_response(too_large),
            outcome => self.respond(outcome, entry, None, &[]),
        }
    }

    fn upstream(&self) -> String {
        match self.origin {
            Origin::Token => self.proxy.token_upstream(),
            Origin::Registry | Origin::Foreign => self.proxy.registry_upstream(),
        }
    }

    async fn forward(
        &self,
        parts: Parts,
        body: Incoming,
        entry: &Entry,
        cut: Option<(u64, Break)>,
    ) -> Outcome {
        let upstream = self.upstream();
        let target = parts.uri.path_and_query().map_or("/", |path| path.as_str());
        let mut headers = parts.headers.clone();
        for name in HOP_BY_HOP {
            headers.remove(name);
        }
        headers.remove(header::EXPECT);
        // The address to go to is in the URI; the client puts it there as Host.
        headers.remove(header::HOST);
        if self.origin == Origin::Foreign {
            headers.remove(header::AUTHORIZATION);
            if let Some(own) = self.proxy.foreign_authorization(target)
                && let Ok(value) = HeaderValue::from_str(&own)
            {
                headers.insert(header::AUTHORIZATION, value);
            }
        }
        let (pieces, received) = mpsc::channel(8);
        let outgoing = if body.is_end_stream() { full("") } else { request_body(received) };
        let has_body = !body.is_end_stream();
        let mut request = Request::new(outgoing);
        *request.method_mut() = parts.method.clone();
        match format!("http://{upstream}{target}").parse() {
            Ok(uri) => *request.uri_mut() = uri,
            Err(error) => {
                entry.trouble(error);
                return Outcome::Failed;
            }
        }
        *request.headers_mut() = headers;
        let send = self.proxy.client.request(request);
        let result = if has_body {
            let mut carry = Box::pin(carry_request(body, pieces, entry.clone(), cut));
            let mut send = Box::pin(send);
            tokio::select! {
                result = &mut send => {
                    // The registry answered early. The rest of the client's body is read and
                    // dropped.
                    tokio::spawn(carry);
                    result
                }
                carried = &mut carry => match carried {
                    Carried::Cut => {
                        // Close the connection to the registry, and give the registry time to
                        // notice.
                        drop(carry);
                        drop(send);
                        tokio::time::sleep(Duration::from_millis(30)).await;
                        return Outcome::Cut;
                    }
                    Carried::Whole | Carried::ClientGone => {
                        drop(carry);
                        send.await
                    }
                }
            }
        } else {
            send.await
        };
        match result {
            Ok(response) => {
                let status = response.status().as_u16();
                entry.update(|record| record.upstream_status = Some(status));
                Outcome::Response(response)
            }
            Err(error) => {
                let mut text = error.to_string();
                let mut source = std::error::Error::source(&error);
                while let Some(error) = source {
                    text.push_str(&format!(": {error}"));
                    source = error.source();
                }
                entry.trouble(text);
                Outcome::Failed
            }
        }
    }

    fn respond(
        &self,
        outcome: Outcome,
        entry: &Entry,
        cut: Option<(u64, End)>,
        changes: &[Change],
    ) -> Response<ProxyBody> {
        let response = match outcome {
            Outcome::Response(response) => response,
            Outcome::Cut | Outcome::Failed => {
                return answer_response(&Answer::status(502).html());
            }
        };
        let (mut parts, body) = response.into_parts();
        for name in HOP_BY_HOP {
            parts.headers.remove(name);
        }
        self.point_here(&mut parts.headers);
        self.relocate(&mut parts.headers, self.proxy.locations());
        for change in changes {
            match change {
                Change::Status(status) => {
                    parts.status = StatusCode::from_u16(*status).unwrap_or(parts.status);
                }
                Change::Remove(name) => {
                    parts.headers.remove(name.as_str());
                }
                Change::Set(name, value) => set(&mut parts.headers, name, value),
                Change::Location(form) => self.relocate(&mut parts.headers, *form),
                Change::Range(lie) => lie_about(&mut parts.headers, *lie),
            }
        }
        let mut body = ResponseBody::new(body, entry.clone(), cut).boxed_unsync();
        if parts.status == StatusCode::NO_CONTENT {
            // A 204 that a change made has no body.
            parts.headers.remove(header::CONTENT_LENGTH);
            body = full("");
        }
        Response::from_parts(parts, body)
    }

    /// Rewrites URLs of the registry and of its token server, so that they lead to the proxy.
    fn point_here(&self, headers: &mut HeaderMap) {
        let realm = format!("http://{}/", self.proxy.token_upstream());
        let here = format!("{}/", self.proxy.base(Origin::Token));
        let own_realm = format!("http://{}/", self.proxy.registry_upstream());
        let own_here = format!("{}/", self.proxy.base(Origin::Registry));
        if let Some(value) = text(headers, "www-authenticate") {
            let value = value.replace(&realm, &here).replace(&own_realm, &own_here);
            set(headers, "www-authenticate", &value);
        }
        if let Some(value) = text(headers, "location")
            && let Some(path) = value.strip_prefix(own_realm.trim_end_matches('/'))
        {
            let base = self.proxy.base(self.origin);
            set(headers, "location", &format!("{base}{path}"));
        }
    }

    /// Writes a location that points at the proxy in another form.
    fn relocate(&self, headers: &mut HeaderMap, form: LocationForm) {
        let Some(value) = text(headers, "location") else {
            return;
        };
        let base = self.proxy.base(self.origin);
        let path = match value.strip_prefix(&base) {
            Some(path) => path.to_owned(),
            None if value.starts_with('/') => value,
            None => return,
        };
        let location = match form {
            LocationForm::Absolute => format!("{base}{path}"),
            LocationForm::Relative => path,
            LocationForm::Foreign => format!("{}{path}", self.proxy.base(Origin::Foreign)),
            LocationForm::Portless => {
                let host = base.rsplit_once(':').map_or(base.as_str(), |(host, _)| host);
                format!("{host}{path}")
            }
        };
        set(headers, "location", &location);
    }

    /// The registry's challenge for this request, as if it had brought no token.
    async fn challenge(&self, parts: &Parts) -> String {
        // The scope comes from the request's own method and path. A registry without auth must not
        // see that request without its token, because it would act on it.
        let mut challenge = None;
        let base = self.ask_without_token(&Method::GET, "/v2/").await;
        if base.is_some() {
            let target = parts.uri.path_and_query().map_or("/", |path| path.as_str());
            challenge = self.ask_without_token(&parts.method, target).await;
        }
        let mut challenge = challenge
            .or(base)
            .unwrap_or_else(|| "Bearer realm=\"http://127.0.0.1:1/token\"".to_owned());
        if challenge.starts_with("Bearer") && !challenge.contains("error=") {
            challenge.push_str(",error=\"invalid_token\"");
        }
        challenge
    }

    /// The challenge, if the registry answers with a 401.
    async fn ask_without_token(&self, method: &Method, target: &str) -> Option<String> {
        let response = self.proxy.client.request(self.bare_request(method, target)).await.ok()?;
        if response.status() != StatusCode::UNAUTHORIZED {
            return None;
        }
        let mut headers = response.headers().clone();
        self.point_here(&mut headers);
        text(&headers, "www-authenticate")
    }

    /// Ends the session that a request names, with the request's own credentials.
    async fn delete_session(&self, parts: &Parts) {
        let target = parts.uri.path_and_query().map_or("/", |path| path.as_str());
        let mut request = self.bare_request(&Method::DELETE, target);
        if let Some(value) = parts.headers.get(header::AUTHORIZATION) {
            request.headers_mut().insert(header::AUTHORIZATION, value.clone());
        }
        // The session may be gone already.
        let _ = self.proxy.client.request(request).await;
    }

    /// A request to the registry without body and credentials.
    fn bare_request(&self, method: &Method, target: &str) -> Request<ProxyBody> {
        let mut request = Request::new(full(""));
        *request.method_mut() = method.clone();
        // The target came over HTTP, so it is a valid URI.
        if let Ok(uri) = format!("http://{}{target}", self.upstream()).parse() {
            *request.uri_mut() = uri;
        }
        request
    }
}

impl Outcome {
    fn length(&self) -> Option<u64> {
        match self {
            Self::Response(response) => content_length(response.headers()),
            Self::Cut | Self::Failed => None,
        }
    }
}

/// Whether an answer has no body at all: to a HEAD, or by its status.
fn parts_without_body(outcome: &Outcome) -> bool {
    match outcome {
        Outcome::Response(response) => response.body().is_end_stream(),
        Outcome::Cut | Outcome::Failed => true,
    }
}

fn answer_response(answer: &Answer) -> Response<ProxyBody> {
    let mut response = Response::new(full(answer.body.clone()));
    *response.status_mut() =
        StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    for (name, value) in &answer.headers {
        set(response.headers_mut(), name, value);
    }
    response
}

fn content_length(headers: &HeaderMap) -> Option<u64> {
    text(headers, "content-length")?.parse().ok()
}

fn text(headers: &HeaderMap, name: &str) -> Option<String> {
    Some(headers.get(name)?.to_str().ok()?.to_owned())
}

fn set(headers: &mut HeaderMap, name: &str, value: &str) {
    if let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), HeaderValue::from_str(value)) {
        headers.insert(name, value);
    }
}

fn lie_about(headers: &mut HeaderMap, lie: RangeLie) {
    let Some(last) = text(headers, "range").and_then(|range| {
        range.trim_start_matches("bytes=").split_once('-')?.1.parse::<u64>().ok()
    }) else {
        return;
    };
    let last = match lie {
        RangeLie::Last(last) => last,
        RangeLie::Fewer(bytes) => last.saturating_sub(bytes),
        RangeLie::More(bytes) => last + bytes,
    };
    set(headers, "range", &format!("0-{last}"));
}
