//! Counts a request as running until its answer was sent.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};

use super::answer::AnswerBody;
use super::shared::Shared;

/// A request that is being answered.
pub struct Counted(Arc<Shared>);

impl Counted {
    pub fn new(shared: &Arc<Shared>) -> Self {
        shared.pulls.begin();
        Self(shared.clone())
    }

    /// Makes the request count as running until the body was sent or dropped.
    pub fn body(self, body: AnswerBody) -> CountedBody {
        CountedBody { body, _counted: self }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.pulls.end();
    }
}

/// The body of an answer whose request counts as running.
pub struct CountedBody {
    body: AnswerBody,
    _counted: Counted,
}

impl Body for CountedBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
