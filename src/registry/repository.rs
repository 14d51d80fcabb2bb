//! A registry, and one repository of it.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use reqwest::Method;
use tokio::sync::{Mutex, Semaphore, SemaphorePermit};

use super::auth::{Authenticator, Scopes};
use super::error::Error;
use super::options::Options;
use super::send::attempt::Call;
use super::send::door::Door;
use super::send::optional::{Deadline, OptionalTime};
use super::send::request::{Answer, Request, RequestTarget};
use super::send::retry::RetryBudget;
use super::upload::method::UploadMethods;
use crate::event::Events;
use crate::open_files;

/// How many small requests to a registry may run at the same time, as long as it answers quickly.
/// More connections to a near registry would only cost time.
const SMALL_REQUESTS_NEAR: usize = 16;
/// The same limit once the answers were slow. Over HTTP/2 the requests share a connection. Over
/// HTTP/1.1 each needs its own, and a hundred layers need two round trips.
const SMALL_REQUESTS_FAR: usize = 128;

/// How long to try to find out the result of a request whose answer was lost.
const INQUIRY_TIME: Duration = Duration::from_secs(10);

/// One registry host: how to reach it, the login there, and what was learnt about it.
pub struct Registry {
    pub(super) door: Arc<Door>,
    pub(super) auth: Authenticator,
    small_requests: Semaphore,
    /// Whether the higher limit is used, because the registry is distant.
    is_far: AtomicBool,
    /// How the registry accepts the bytes of blobs.
    pub(super) upload_methods: UploadMethods,
    /// Whether the registry rejects HEAD for blobs.
    pub(super) refuses_head: AtomicBool,
    /// The time that was lost on reading previous images.
    looks: OptionalTime,
    /// The time that was lost on mounts.
    mounts: OptionalTime,
    /// Held while a list of referrers is changed, because one of two concurrent changes would be
    /// lost.
    pub(super) referrers: Mutex<()>,
}

/// One repository of a registry.
#[derive(Clone)]
pub struct Repository {
    registry: Arc<Registry>,
    name: Arc<str>,
    scopes: Scopes,
    /// How long a failing request is retried.
    retry_for: Duration,
    /// The time by which all requests must be finished, if they are optional.
    deadline: Option<Deadline>,
    /// Bytes of request bodies that were handed to the network.
    pub(super) sent: Arc<AtomicU64>,
}

impl Registry {
    /// A registry with the name that the user wrote. Nothing is sent yet.
    pub fn new(host: &str, options: Arc<Options>, events: Events) -> Arc<Self> {
        let credentials = options.credentials.clone();
        let door = Arc::new(Door::new(host, options, events));
        Arc::new(Self {
            auth: Authenticator::new(door.clone(), credentials),
            door,
            small_requests: Semaphore::new(SMALL_REQUESTS_NEAR),
            is_far: AtomicBool::new(false),
            upload_methods: UploadMethods::default(),
            refuses_head: AtomicBool::new(false),
            looks: OptionalTime::default(),
            mounts: OptionalTime::default(),
            referrers: Mutex::default(),
        })
    }

    /// The registry's name as the user wrote it.
    pub fn host(&self) -> &str {
        self.door.host()
    }

    /// Checks that the registry accepts the login in the options (OCI distribution-spec 1.1,
    /// "Determining Support"). A registry that asks for no login accepts any. Returns whether it
    /// asked for one.
    pub async fn check_login(&self) -> Result<bool, Error> {
        let to = RequestTarget::Path("/v2/".to_owned());
        let request = Request::new(format!("log in to {}", self.host()), Method::GET, to);
        let call = Call { request, repository: "", scopes: &Scopes::default() };
        let mut budget = RetryBudget::new(self.door.options().retry_for);
        self.send(&call, &mut budget).await?;
        Ok(self.auth.was_challenged())
    }

    /// Whether answers are so slow that it is useful to send requests early.
    pub fn is_far(&self) -> bool {
        self.door.is_far()
    }

    /// Waits until the registry has answered at all; the answer may be that it requires a login.
    pub async fn was_heard(&self) {
        self.door.first.heard().await;
    }

    /// Opens connections for the bodies of later blobs, while the registry's first answers are
    /// awaited. A failure is ignored, because an upload can open its own connection.
    pub async fn open_connections(&self, count: usize) {
        self.door.open_connections(count).await;
    }

    /// A repository here, for pulling and pushing.
    pub fn repository(self: &Arc<Self>, name: &str) -> Repository {
        self.repository_for(name, Scopes::push(name))
    }

    /// A repository here, for pulling only. It does not ask for permission to push.
    pub fn readable_repository(self: &Arc<Self>, name: &str) -> Repository {
        self.repository_for(name, Scopes::pull(name))
    }

    fn repository_for(self: &Arc<Self>, name: &str, scopes: Scopes) -> Repository {
        Repository {
            registry: self.clone(),
            name: name.into(),
            scopes,
            retry_for: self.door.options().retry_for,
            deadline: None,
            sent: Arc::default(),
        }
    }

    /// Sends a small request when few enough others are running.
    pub(super) async fn send_small(
        &self,
        call: &Call<'_>,
        budget: &mut RetryBudget,
    ) -> Result<Answer, Error> {
        let _permit = self.small_permit().await;
        self.send(call, budget).await
    }

    /// Waits until few enough small requests are running.
    pub(super) async fn small_permit(&self) -> Option<SemaphorePermit<'_>> {
        if self.door.is_far() && !self.is_far.swap(true, Ordering::Relaxed) {
            let most = open_files::connections(SMALL_REQUESTS_FAR);
            self.small_requests.add_permits(most.saturating_sub(SMALL_REQUESTS_NEAR));
        }
        // The semaphore is never closed; without a permit the request would still be right.
        self.small_requests.acquire().await.ok()
    }
}

impl Repository {
    /// Its name, without the registry's.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its name as a shared text.
    pub fn shared_name(&self) -> Arc<str> {
        self.name.clone()
    }

    /// The registry that it is in.
    pub fn registry(&self) -> &Arc<Registry> {
        &self.registry
    }

    /// The same repository, for reading previous images. All requests through this value and its
    /// clones share five seconds, starting now. It is less if such requests have already lost time
    /// in this run.
    #[must_use]
    pub fn hastily(&self) -> Self {
        self.until(self.registry.looks.deadline())
    }

    /// The same repository, for mounts, which have the same time limit as reading previous images.
    #[must_use]
    pub(super) fn for_mounts(&self) -> Self {
        self.until(self.registry.mounts.deadline())
    }

    /// The same repository, for requests that are optional and must be over by the deadline.
    fn until(&self, deadline: Deadline) -> Self {
        Self { deadline: Some(deadline.or(self.deadline.as_ref())), ..self.clone() }
    }

    /// The same repository, for finding out the result of a request whose answer was lost.
    pub(super) fn inquiring(&self) -> Self {
        Self { retry_for: self.retry_for.min(INQUIRY_TIME), ..self.clone() }
    }

    /// Bytes of request bodies that were handed to the network through this value and its clones,
    /// including repeated ones.
    pub fn bytes_sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    pub(super) fn budget(&self) -> RetryBudget {
        RetryBudget::new(self.retry_for).until(self.deadline.clone())
    }

    pub(super) fn scopes(&self) -> &Scopes {
        &self.scopes
    }

    /// A request without a body to a path below `/v2/NAME/`.
    pub(super) fn request(&self, doing: String, method: Method, path: &str) -> Request {
        let to = RequestTarget::Path(format!("/v2/{}/{path}", self.name));
        Request { sent: self.sent.clone(), ..Request::new(doing, method, to) }
    }

    /// A request with the scopes of this repository.
    pub(super) fn call(&self, request: Request) -> Call<'_> {
        Call { request, repository: &self.name, scopes: &self.scopes }
    }

    /// Sends a small request when few enough others are running.
    pub(super) async fn small(&self, request: Request) -> Result<Answer, Error> {
        self.registry.send_small(&self.call(request), &mut self.budget()).await
    }

    /// The name of a tag or a manifest here: `HOST/NAME:TAG`, `HOST/NAME@sha256:…`.
    pub(super) fn reference(&self, reference: &str) -> String {
        let mark = if reference.contains(':') { '@' } else { ':' };
        format!("{self}{mark}{reference}")
    }
}

impl fmt::Display for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry.host(), self.name)
    }
}

impl fmt::Debug for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_stands_behind_an_at_sign_and_a_tag_behind_a_colon() {
        let registry = Registry::new("h.example", Arc::default(), crate::event::ignore());
        let repository = registry.repository("lay");
        assert_eq!(repository.reference("v1"), "h.example/lay:v1");
        assert_eq!(repository.reference("sha256:0"), "h.example/lay@sha256:0");
    }

    #[test]
    fn a_request_that_waits_for_its_turn_takes_little_memory() {
        let registry = Registry::new("h.example", Arc::default(), crate::event::ignore());
        let repository = registry.repository("app");
        // A thousand layers of several images may wait at the same time.
        let digest = crate::image::Digest::of(b"");
        assert!(size_of_val(&repository.head_blob(&digest)) < 3 << 10);
        assert!(size_of_val(&repository.mount(&digest, "other")) < 3 << 10);
    }
}
