//! Answers with status, headers and body, as the specification defines them.

use std::convert::Infallible;
use std::io;

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::http::response::Builder;
use hyper::{Response, StatusCode};
use serde_json::json;

/// The body of an answer.
pub type AnswerBody = UnsyncBoxBody<Bytes, io::Error>;

/// Begins an answer. Its headers are always valid, because they contain only digests, numbers, and
/// checked media types.
pub fn begin(status: StatusCode) -> Builder {
    Response::builder().status(status).header("docker-distribution-api-version", "registry/2.0")
}

/// Ends an answer.
pub fn end(builder: Builder, body: AnswerBody) -> Response<AnswerBody> {
    builder.body(body).unwrap_or_else(|_| {
        // Only an invalid header value leads here, such as a media type with a line break.
        let mut answer = Response::new(text("this cannot be said in a header\n"));
        *answer.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
        answer
    })
}

/// A body whose bytes are in memory.
pub fn text(body: impl Into<Bytes>) -> AnswerBody {
    Full::new(body.into()).map_err(|never: Infallible| match never {}).boxed_unsync()
}

/// A JSON document.
pub fn json(document: &serde_json::Value) -> Response<AnswerBody> {
    let builder = begin(StatusCode::OK).header("content-type", "application/json");
    end(builder, text(document.to_string()))
}

/// An error of the specification ("Error Codes"). It does not repeat what the client sent.
pub fn error(status: StatusCode, code: &str, message: &str) -> Response<AnswerBody> {
    let mut builder = begin(status).header("content-type", "application/json");
    if status == StatusCode::METHOD_NOT_ALLOWED {
        builder = builder.header("allow", "GET, HEAD");
    }
    let document = json!({"errors": [{"code": code, "message": message, "detail": null}]});
    end(builder, text(document.to_string()))
}
