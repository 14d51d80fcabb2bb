//! Bodies on their way through the proxy: they are counted, and cut or held if a fault says so.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, Bytes};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::sync::mpsc;

use super::fault::{Hold, Unread};
use super::line::ResetSwitch;
use super::record::Entry;

pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
pub type ProxyBody = UnsyncBoxBody<Bytes, BoxError>;

/// A body of these bytes.
pub fn full(bytes: impl Into<Bytes>) -> ProxyBody {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// What happens to an answer's body at an offset.
pub enum End {
    Close,
    Reset(Arc<ResetSwitch>),
    Hold(Hold),
}

/// An answer's body on its way to the client.
pub struct ResponseBody {
    inner: Incoming,
    entry: Entry,
    /// How many bytes pass before the end, and what happens then.
    cut: Option<(u64, End)>,
    /// The bytes after the cut, kept until a hold ends.
    rest: Bytes,
    hold: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl ResponseBody {
    pub fn new(inner: Incoming, entry: Entry, cut: Option<(u64, End)>) -> Self {
        Self { inner, entry, cut, rest: Bytes::new(), hold: None }
    }

    /// Does what must happen at the cut's offset.
    fn strike(&mut self, end: End) -> Option<BoxError> {
        match end {
            End::Close => Some("cut by a fault".into()),
            End::Reset(switch) => {
                self.hold = Some(Box::pin(async move {
                    // What was sent before shall arrive before the reset does.
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    switch.pull();
                    std::future::pending::<()>().await;
                }));
                None
            }
            End::Hold(Hold::Forever) => {
                self.hold = Some(Box::pin(std::future::pending()));
                None
            }
            End::Hold(Hold::For(time)) => {
                self.hold = Some(Box::pin(tokio::time::sleep(time)));
                None
            }
        }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        loop {
            if let Some(hold) = &mut self.hold {
                std::task::ready!(hold.as_mut().poll(cx));
                self.hold = None;
            }
            if matches!(&self.cut, Some((0, _))) {
                let (_, end) = self.cut.take().expect("matched just now");
                match self.strike(end) {
                    Some(error) => return Poll::Ready(Some(Err(error))),
                    None => continue,
                }
            }
            if !self.rest.is_empty() {
                let rest = std::mem::take(&mut self.rest);
                self.entry.sent(rest.len());
                return Poll::Ready(Some(Ok(Frame::data(rest))));
            }
            let frame = match std::task::ready!(Pin::new(&mut self.inner).poll_frame(cx)) {
                None => return Poll::Ready(None),
                Some(Err(error)) => return Poll::Ready(Some(Err(error.into()))),
                Some(Ok(frame)) => frame,
            };
            let mut data = match frame.into_data() {
                Ok(data) => data,
                Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
            };
            if let Some((left, _)) = &mut self.cut {
                let keep = (*left).min(data.len() as u64);
                *left -= keep;
                let head = data.split_to(keep as usize);
                self.rest = data;
                data = head;
            }
            if data.has_remaining() {
                self.entry.sent(data.len());
                return Poll::Ready(Some(Ok(Frame::data(data))));
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.cut.is_none()
            && self.hold.is_none()
            && self.rest.is_empty()
            && self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        if self.rest.is_empty() { self.inner.size_hint() } else { SizeHint::default() }
    }
}

/// A piece of a request's body on its way to the registry. If a body ends without `End`, the client
/// broke off, and the registry must notice it.
pub enum Piece {
    Data(Bytes),
    End,
}

/// The body that the registry receives.
pub fn request_body(pieces: mpsc::Receiver<Piece>) -> ProxyBody {
    let stream = futures::stream::try_unfold(Some(pieces), |pieces| async move {
        let Some(mut pieces) = pieces else {
            return Ok(None);
        };
        match pieces.recv().await {
            Some(Piece::Data(data)) => Ok(Some((Frame::data(data), Some(pieces)))),
            Some(Piece::End) => Ok(None),
            None => Err(BoxError::from("the client broke off")),
        }
    });
    BodyExt::boxed_unsync(StreamBody::new(stream))
}

/// What happens to a request's body at an offset.
#[derive(Clone, Copy, Debug)]
pub enum Break {
    /// No more is read. `delivered` says whether the registry gets the bytes before the cut.
    Cut {
        delivered: bool,
    },
    /// The body is too long: the request to the registry breaks off, and `Unread` says whether the
    /// rest is read.
    TooLong(Unread),
    Hold(Hold),
}

/// How the carrying of a request's body ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carried {
    /// The whole body went through.
    Whole,
    /// The cut was reached.
    Cut,
    /// The client broke off.
    ClientGone,
}

/// Carries a request's body from the client to the registry, and counts it. If the registry takes
/// no more, the rest is still read, so that the registry's answer reaches the client.
pub async fn carry_request(
    mut body: Incoming,
    pieces: mpsc::Sender<Piece>,
    entry: Entry,
    at: Option<(u64, Break)>,
) -> Carried {
    let mut seen = 0;
    let mut at = at;
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else {
            return Carried::ClientGone;
        };
        let Ok(mut data) = frame.into_data() else {
            continue;
        };
        let withheld = matches!(at, Some((_, Break::Cut { delivered: false })));
        if let Some((offset, what)) = at
            && seen + data.len() as u64 >= offset
        {
            let head = data.split_to((offset - seen) as usize);
            let rest = data.len();
            seen += head.len() as u64;
            entry.received(head.len());
            if !withheld && !head.is_empty() {
                let _ = pieces.send(Piece::Data(head)).await;
            }
            match what {
                Break::Cut { delivered } => {
                    if delivered {
                        flushed(&pieces).await;
                    }
                    return Carried::Cut;
                }
                Break::TooLong(unread) => {
                    entry.received(rest);
                    match unread {
                        Unread::ReadFirst => drain(body, entry).await,
                        Unread::KeepReading => {
                            tokio::spawn(drain(body, entry));
                        }
                        Unread::Close => {}
                    }
                    return Carried::Cut;
                }
                Break::Hold(Hold::Forever) => std::future::pending().await,
                Break::Hold(Hold::For(time)) => tokio::time::sleep(time).await,
            }
            at = None;
        }
        seen += data.len() as u64;
        entry.received(data.len());
        if !withheld && !data.is_empty() {
            let _ = pieces.send(Piece::Data(data)).await;
        }
    }
    if at.is_some_and(|(_, what)| matches!(what, Break::Cut { .. })) {
        // A body without a length announced that is shorter than the cut.
        flushed(&pieces).await;
        return Carried::Cut;
    }
    let _ = pieces.send(Piece::End).await;
    Carried::Whole
}

/// Waits until the registry has what was sent, as well as one can tell from here.
async fn flushed(pieces: &mpsc::Sender<Piece>) {
    while pieces.capacity() < pieces.max_capacity() && !pieces.is_closed() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    tokio::time::sleep(Duration::from_millis(30)).await;
}

/// Reads a body to its end for nothing but its length.
pub async fn drain(mut body: Incoming, entry: Entry) {
    while let Some(Ok(frame)) = body.frame().await {
        if let Some(data) = frame.data_ref() {
            entry.received(data.len());
        }
    }
}
