//! What can go wrong with one request, as data.

use std::time::{Duration, SystemTime};

/// A place in a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    /// After this many bytes.
    Bytes(u64),
    /// After this share of the announced length, or of 64 KiB if no length was announced.
    Percent(u8),
}

impl At {
    /// The offset in bytes for a body of this length.
    pub fn offset(self, length: Option<u64>) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Percent(percent) => length.unwrap_or(64 * 1024) * u64::from(percent) / 100,
        }
    }
}

/// How long a stall holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hold {
    /// For this time; after that, everything goes on.
    For(Duration),
    /// Until the client gives up.
    Forever,
}

/// Where a stall happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The registry has answered, but the client does not get the answer.
    BeforeResponse,
    /// The client can send no more.
    RequestBody(At),
    ResponseBody(At),
}

/// What happens to a request's body that a fault does not need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unread {
    /// It is read to its end before the answer goes out.
    ReadFirst,
    /// The answer goes out at once and the body is read meanwhile, as good servers do.
    KeepReading,
    /// The answer goes out at once and the connection closes, as hasty servers do; the client may
    /// see a reset in place of the answer.
    Close,
}

/// An answer in place of the registry's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: String,
    pub unread: Unread,
}

impl Answer {
    /// A bare status.
    pub fn status(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: String::new(), unread: Unread::KeepReading }
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn unread(mut self, unread: Unread) -> Self {
        self.unread = unread;
        self
    }

    /// With a registry's `errors[]`.
    pub fn error(self, code: &str, message: &str) -> Self {
        let body = serde_json::json!({ "errors": [{ "code": code, "message": message }] });
        let mut answer = self.header("content-type", "application/json");
        answer.body = body.to_string();
        answer
    }

    /// With the HTML page of a load balancer.
    pub fn html(self) -> Self {
        let status = self.status;
        let mut answer = self.header("content-type", "text/html");
        answer.body = format!(
            "<html>\r\n<head><title>{status} Gateway trouble</title></head>\r\n<body>\r\n\
             <center><h1>{status} Gateway trouble</h1></center>\r\n</body>\r\n</html>\r\n"
        );
        answer
    }

    pub fn retry_after(self, seconds: u64) -> Self {
        self.header("retry-after", &seconds.to_string())
    }

    /// `Retry-After` as a date this far from now. Dates have whole seconds; it is rounded up.
    pub fn retry_after_date(self, from_now: Duration) -> Self {
        let date = SystemTime::now() + from_now + Duration::from_millis(999);
        self.header("retry-after", &httpdate::fmt_http_date(date))
    }
}

/// How an upload `Location` is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LocationForm {
    /// With the host the request came to.
    #[default]
    Absolute,
    /// A path alone.
    Relative,
    /// With the foreign origin's host.
    Foreign,
    /// With the host but not its port, as a registry answers that does not know about the proxy.
    Portless,
}

/// How a `Range` is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RangeLie {
    /// This last byte, whatever happened: 0 is the stuck `0-0`.
    Last(u64),
    /// This many bytes fewer than the registry has.
    Fewer(u64),
    /// This many bytes more than the registry has.
    More(u64),
}

/// A change to the registry's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    Status(u16),
    Remove(String),
    Set(String, String),
    Location(LocationForm),
    Range(RangeLie),
}

/// What goes wrong with a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The connection is reset (RST) once the head is read; the registry never sees the request.
    Reset,
    /// The connection is reset at this place in the request's body. `delivered` says whether the
    /// registry gets the bytes before it. A request without a body is reset before its answer.
    CutRequest { at: At, delivered: bool },
    /// The exchange stops at this place for as long as `hold` says.
    Stall { place: Place, hold: Hold },
    /// The answer's body ends too early, by an ordinary close or by a reset.
    CutResponse { at: At, reset: bool },
    /// The request is not forwarded; the client gets this answer.
    Answer(Answer),
    /// Forwarded, but the registry's answer is lost: the client gets this, or a reset.
    LostResponse(Option<Answer>),
    /// 401 with the registry's own challenge and `error="invalid_token"`.
    ExpiredToken,
    /// The upload session is deleted at the registry; 404 BLOB_UPLOAD_UNKNOWN.
    LostSession,
    /// Bodies of more than so many bytes get a 413; others pass.
    BodyCap { bytes: u64, unread: Unread },
    /// A mount is made an ordinary upload: 202.
    RefuseMount,
    /// A redirect with this status to the same path at the foreign origin.
    Redirect { status: u16, unread: Unread },
    /// Forwarded, and the answer changed.
    Rewrite(Vec<Change>),
}

impl Fault {
    /// A status alone.
    pub fn status(status: u16) -> Self {
        Self::Answer(Answer::status(status))
    }

    /// 405 UNSUPPORTED, for methods that a registry does not take.
    pub fn refused_method() -> Self {
        Self::Answer(
            Answer::status(405)
                .header("allow", "GET, HEAD")
                .error("UNSUPPORTED", "The operation is unsupported."),
        )
    }

    /// A temporary redirect to the foreign origin.
    pub fn redirect() -> Self {
        Self::Redirect { status: 307, unread: Unread::KeepReading }
    }

    pub fn stall(place: Place) -> Self {
        Self::Stall { place, hold: Hold::Forever }
    }

    /// Faults a client can overcome by trying again, as a network and load balancers make them; a
    /// random run draws from these.
    pub fn transient() -> Vec<Self> {
        let html = |status| Self::Answer(Answer::status(status).html());
        vec![
            Self::Reset,
            Self::CutRequest { at: At::Percent(50), delivered: true },
            Self::CutRequest { at: At::Percent(50), delivered: false },
            Self::CutResponse { at: At::Percent(50), reset: false },
            Self::CutResponse { at: At::Percent(50), reset: true },
            Self::LostResponse(None),
            Self::LostResponse(Some(Answer::status(502).html())),
            Self::Stall {
                place: Place::BeforeResponse,
                hold: Hold::For(Duration::from_millis(50)),
            },
            html(500),
            html(502),
            html(503),
            html(504),
            Self::Answer(Answer::status(429).error("TOOMANYREQUESTS", "slow down")),
            Self::Answer(Answer::status(503).retry_after(0)),
        ]
    }

    /// Every kind of fault, each by a name that does for a test's output: what a matrix goes
    /// through. Waits are short (`Retry-After: 1`), stalls last until the client gives up.
    pub fn catalogue() -> Vec<(&'static str, Self)> {
        let half = At::Percent(50);
        let answer = |status| Answer::status(status);
        let rewrite = |change| Self::Rewrite(vec![change]);
        let remove = |name: &str| rewrite(Change::Remove(name.to_owned()));
        vec![
            ("reset", Self::Reset),
            ("cut-request-delivered", Self::CutRequest { at: half, delivered: true }),
            ("cut-request-undelivered", Self::CutRequest { at: half, delivered: false }),
            ("stall-before-response", Self::stall(Place::BeforeResponse)),
            ("stall-request-body", Self::stall(Place::RequestBody(half))),
            ("stall-response-body", Self::stall(Place::ResponseBody(half))),
            ("half-response", Self::CutResponse { at: half, reset: false }),
            ("half-response-reset", Self::CutResponse { at: half, reset: true }),
            ("400", Self::Answer(answer(400).error("UNKNOWN", "bad request"))),
            (
                "401-no-token-helps",
                Self::Answer(
                    answer(401)
                        .header("www-authenticate", "Basic realm=\"laboratory\"")
                        .error("UNAUTHORIZED", "authentication required"),
                ),
            ),
            ("403", Self::Answer(answer(403).error("DENIED", "access denied"))),
            ("404", Self::Answer(answer(404).error("NAME_UNKNOWN", "no such repository"))),
            ("405", Self::refused_method()),
            ("408", Self::status(408)),
            ("413", Self::Answer(answer(413).html())),
            ("416", Self::status(416)),
            ("425", Self::status(425)),
            (
                "429-retry-after",
                Self::Answer(answer(429).retry_after(1).error("TOOMANYREQUESTS", "slow down")),
            ),
            (
                "503-retry-after-date",
                Self::Answer(answer(503).retry_after_date(Duration::from_secs(1))),
            ),
            ("500-html", Self::Answer(answer(500).html())),
            ("502-html", Self::Answer(answer(502).html())),
            ("503-html", Self::Answer(answer(503).html())),
            ("504-html", Self::Answer(answer(504).html())),
            ("200-html", Self::Answer(answer(200).html())),
            ("503-closing-early", Self::Answer(answer(503).html().unread(Unread::Close))),
            ("lost-response-reset", Self::LostResponse(None)),
            ("lost-response-502", Self::LostResponse(Some(answer(502).html()))),
            ("expired-token", Self::ExpiredToken),
            ("lost-session", Self::LostSession),
            ("body-cap", Self::BodyCap { bytes: 64 * 1024, unread: Unread::KeepReading }),
            ("mount-202", Self::RefuseMount),
            ("redirect", Self::redirect()),
            ("location-relative", rewrite(Change::Location(LocationForm::Relative))),
            ("location-foreign", rewrite(Change::Location(LocationForm::Foreign))),
            ("location-portless", rewrite(Change::Location(LocationForm::Portless))),
            ("no-location", remove("location")),
            ("no-digest-header", remove("docker-content-digest")),
            ("no-range", remove("range")),
            ("no-content-type", remove("content-type")),
            ("range-stuck", rewrite(Change::Range(RangeLie::Last(0)))),
            ("range-fewer", rewrite(Change::Range(RangeLie::Fewer(1000)))),
            ("range-more", rewrite(Change::Range(RangeLie::More(1000)))),
            (
                "chunk-min-length",
                rewrite(Change::Set("oci-chunk-min-length".to_owned(), "65536".to_owned())),
            ),
            ("answers-204", rewrite(Change::Status(204))),
            ("answers-201", rewrite(Change::Status(201))),
        ]
    }
}
