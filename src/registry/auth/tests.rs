//! Tests of the authenticator with a token server on loopback: what it requests, how often, and
//! which errors it returns.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use futures::future::join_all;
use reqwest::StatusCode;
use reqwest::header::{HeaderMap, HeaderValue, WWW_AUTHENTICATE};
use tokio::net::TcpListener;
use url::form_urlencoded;

use super::super::options::Options;
use super::super::send::door::Door;
use super::*;
use crate::event::{self, Event, Events};

const REPOSITORY: &str = "ns/app";

/// A request as the token server saw it.
#[derive(Clone, Debug)]
struct Seen {
    method: String,
    authorization: Option<String>,
    query: Vec<(String, String)>,
    form: Vec<(String, String)>,
}

impl Seen {
    fn scopes(&self) -> Vec<&str> {
        let all = self.query.iter().chain(&self.form);
        all.filter(|(name, _)| name == "scope").map(|(_, value)| value.as_str()).collect()
    }

    fn field(&self, name: &str) -> Option<&str> {
        let mut all = self.query.iter().chain(&self.form);
        all.find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// It ends with the test's runtime.
struct TokenServer {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl TokenServer {
    /// `answer` is called with each request and its number, starting with 1.
    async fn start<R: IntoResponse>(
        answer: impl Fn(&Seen, usize) -> R + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let answer = Arc::new(answer);
        let log = Arc::clone(&seen);
        let app = Router::new().fallback(move |request: Request| {
            let (answer, log) = (Arc::clone(&answer), Arc::clone(&log));
            async move {
                let (parts, body) = request.into_parts();
                let body = axum::body::to_bytes(body, 65536).await.unwrap();
                // Long enough for other requests to arrive meanwhile.
                tokio::time::sleep(Duration::from_millis(20)).await;
                let pairs = |bytes: &[u8]| form_urlencoded::parse(bytes).into_owned().collect();
                let one = Seen {
                    method: parts.method.to_string(),
                    authorization: parts
                        .headers
                        .get("authorization")
                        .map(|value| value.to_str().unwrap().to_owned()),
                    query: pairs(parts.uri.query().unwrap_or_default().as_bytes()),
                    form: pairs(&body),
                };
                let number = {
                    let mut log = log.lock().unwrap();
                    log.push(one.clone());
                    log.len()
                };
                answer(&one, number).into_response()
            }
        });
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self { address, seen }
    }

    /// A server that gives `token-1`, `token-2` and so on, each valid for this many seconds.
    async fn generous(seconds: u64) -> Self {
        Self::start(move |_, number| {
            format!(r#"{{"token":"token-{number}","expires_in":{seconds}}}"#)
        })
        .await
    }

    fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    fn challenge(&self) -> HeaderMap {
        challenge(&format!(
            r#"Bearer realm="http://{}/token?keep=1",service="reg",scope="repository:{REPOSITORY}:pull""#,
            self.address
        ))
    }
}

fn challenge(text: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.append(WWW_AUTHENTICATE, HeaderValue::from_str(text).unwrap());
    headers
}

fn authenticator_at(host: &str, options: Options, events: Events) -> Authenticator {
    let sources = options.credentials.clone();
    Authenticator::new(Arc::new(Door::new(host, Arc::new(options), events)), sources)
}

fn authenticator(credentials: Sources) -> Authenticator {
    let options = Options { credentials, ..Options::default() };
    authenticator_at("localhost:5000", options, event::ignore())
}

fn user() -> Sources {
    Sources { explicit: Some(("me".into(), Secret::new("hunter2"))), ..Sources::default() }
}

/// Credentials from a file. The file exists as long as the returned folder.
fn file(json: &str) -> (tempfile::TempDir, Sources) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("auth.json");
    std::fs::write(&path, json).unwrap();
    let sources = Sources { auth_file: Some(path), ..Sources::default() };
    (folder, sources)
}

fn pull() -> Scopes {
    Scopes::pull(REPOSITORY)
}

fn push() -> Scopes {
    Scopes::push(REPOSITORY)
}

/// The header that answers a challenge.
async fn answer(auth: &Authenticator, headers: &HeaderMap, scopes: &Scopes) -> String {
    let header = auth.challenged(REPOSITORY, scopes, headers, None).await;
    text(&header.unwrap())
}

async fn refusal(auth: &Authenticator, headers: &HeaderMap) -> AuthError {
    auth.challenged(REPOSITORY, &push(), headers, None).await.unwrap_err()
}

async fn now(auth: &Authenticator, scopes: &Scopes) -> Option<String> {
    let header = auth.authorization(REPOSITORY, scopes).await.unwrap();
    header.as_ref().map(text)
}

fn text(header: &HeaderValue) -> String {
    assert!(header.is_sensitive());
    header.to_str().unwrap().to_owned()
}

#[tokio::test]
async fn nothing_is_sent_before_the_registry_asks() {
    let auth = authenticator(user());
    assert_eq!(now(&auth, &push()).await, None);
    assert!(auth.identity(REPOSITORY).to_string().contains("did not ask"));
}

#[tokio::test]
async fn a_password_is_given_where_it_is_asked_for() {
    let auth = authenticator(user());
    let headers = challenge(r#"Basic realm="r""#);
    assert_eq!(answer(&auth, &headers, &push()).await, "Basic bWU6aHVudGVyMg==");
    assert_eq!(now(&auth, &push()).await.as_deref(), Some("Basic bWU6aHVudGVyMg=="));
    assert_eq!(
        auth.identity(REPOSITORY).to_string(),
        "with the credentials of user me from --username"
    );
}

#[tokio::test]
async fn a_password_that_was_refused_is_not_given_again() {
    let auth = authenticator(user());
    let headers = challenge("Basic");
    let sent = auth.challenged(REPOSITORY, &push(), &headers, None).await.unwrap();
    let error =
        auth.challenged(REPOSITORY, &push(), &headers, Some(&sent)).await.unwrap_err().to_string();
    for part in ["localhost:5000", "user me from --username", "pushimg login"] {
        assert!(error.contains(part), "{error}");
    }
}

#[tokio::test]
async fn without_a_password_the_message_tells_where_one_was_looked_for() {
    let (folder, sources) = file("{}");
    let auth = authenticator(sources);
    let error = refusal(&auth, &challenge("Basic")).await;
    assert!(matches!(error, AuthError::NoCredentials { .. }), "{error:?}");
    let said = error.to_string();
    assert!(
        said.contains("anonymously; no credentials for localhost:5000 were found in")
            && said.contains(folder.path().to_str().unwrap()),
        "{said}"
    );
    assert_eq!(now(&auth, &push()).await, None);
}

#[tokio::test]
async fn a_401_without_a_challenge_is_told_as_such() {
    let auth = authenticator(user());
    let digest = r#"Digest realm="r?k=hunter2", nonce="n""#;
    for (headers, shown) in [
        (HeaderMap::new(), "without a WWW-Authenticate"),
        (challenge("Negotiate"), "WWW-Authenticate: Negotiate"),
        (challenge(digest), r#"WWW-Authenticate: Digest realm="r?k=***", nonce="n""#),
    ] {
        let error = refusal(&auth, &headers).await;
        assert!(matches!(error, AuthError::NoChallenge { .. }), "{error:?}");
        assert!(error.to_string().contains(shown), "{error}");
    }
}

#[tokio::test]
async fn a_token_is_asked_for_with_all_that_the_server_needs() {
    let server = TokenServer::generous(300).await;
    let auth = authenticator(user());
    let scopes = push().with_pull("ns/base");
    assert_eq!(answer(&auth, &server.challenge(), &scopes).await, "Bearer token-1");
    let seen = server.seen();
    assert_eq!(seen[0].method, "GET");
    assert_eq!(seen[0].authorization.as_deref(), Some("Basic bWU6aHVudGVyMg=="));
    assert_eq!(seen[0].scopes(), ["repository:ns/app:pull,push", "repository:ns/base:pull"]);
    for (name, value) in
        [("keep", "1"), ("service", "reg"), ("account", "me"), ("client_id", "pushimg")]
    {
        assert_eq!(seen[0].field(name), Some(value), "{name}");
    }
}

#[tokio::test]
async fn without_a_credential_the_token_is_asked_for_anonymously() {
    let server = TokenServer::generous(300).await;
    let auth = authenticator(Sources::default());
    assert_eq!(answer(&auth, &server.challenge(), &pull()).await, "Bearer token-1");
    assert_eq!(server.seen()[0].authorization, None);
    assert_eq!(server.seen()[0].field("account"), None);
    assert!(auth.identity(REPOSITORY).to_string().starts_with("anonymously; "));
}

#[tokio::test]
async fn an_identity_token_is_changed_into_a_token_by_post() {
    let server = TokenServer::start(|_, _| r#"{"access_token":"t"}"#).await;
    let (_folder, sources) =
        file(r#"{"auths":{"localhost:5000":{"auth":"MDow","identitytoken":"refresh me"}}}"#);
    let auth = authenticator(sources);
    let scopes = push().with_pull("ns/base");
    assert_eq!(answer(&auth, &server.challenge(), &scopes).await, "Bearer t");
    let seen = server.seen();
    assert_eq!((seen[0].method.as_str(), &seen[0].authorization), ("POST", &None));
    let mut form: Vec<(&str, &str)> =
        seen[0].form.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    form.sort_unstable();
    assert_eq!(
        form,
        [
            ("client_id", "pushimg"),
            ("grant_type", "refresh_token"),
            ("refresh_token", "refresh me"),
            ("scope", "repository:ns/app:pull,push repository:ns/base:pull"),
            ("service", "reg"),
        ]
    );
    assert!(!format!("{:?}", seen[0].query).contains("refresh"));
}

#[tokio::test]
async fn a_registry_token_needs_no_token_server() {
    let server = TokenServer::generous(300).await;
    let (_folder, sources) = file(r#"{"auths":{"localhost:5000":{"registrytoken":"as-is"}}}"#);
    let auth = authenticator(sources);
    let headers = server.challenge();
    let sent = auth.challenged(REPOSITORY, &push(), &headers, None).await.unwrap();
    assert_eq!(text(&sent), "Bearer as-is");
    assert_eq!(now(&auth, &push()).await.as_deref(), Some("Bearer as-is"));
    let error = auth.challenged(REPOSITORY, &push(), &headers, Some(&sent)).await.unwrap_err();
    assert!(matches!(error, AuthError::Refused { .. }), "{error:?}");
    assert!(server.seen().is_empty());
}

#[tokio::test]
async fn a_hundred_requests_fetch_one_token() {
    let server = TokenServer::generous(300).await;
    let auth = authenticator(user());
    let (headers, scopes) = (server.challenge(), push());
    let first = join_all((0..100).map(|_| answer(&auth, &headers, &scopes))).await;
    assert!(first.iter().all(|header| header == "Bearer token-1"));
    assert_eq!(server.seen().len(), 1);

    let refused = HeaderValue::from_static("Bearer token-1");
    let again = (0..100).map(|_| auth.challenged(REPOSITORY, &scopes, &headers, Some(&refused)));
    for header in join_all(again).await {
        assert_eq!(text(&header.unwrap()), "Bearer token-2");
    }
    assert_eq!(server.seen().len(), 2);
}

#[tokio::test]
async fn a_hundred_requests_share_one_failure() {
    let server = TokenServer::start(|_, _| StatusCode::SERVICE_UNAVAILABLE).await;
    let auth = authenticator(user());
    let headers = server.challenge();
    let errors = join_all((0..100).map(|_| refusal(&auth, &headers))).await;
    assert!(errors.iter().all(AuthError::is_transient));
    assert_eq!(server.seen().len(), 1);
    refusal(&auth, &headers).await;
    assert_eq!(server.seen().len(), 2);
}

#[tokio::test]
async fn a_fetch_goes_on_when_the_request_that_began_it_is_dropped() {
    let server = TokenServer::generous(300).await;
    let auth = authenticator(user());
    let (headers, scopes) = (server.challenge(), push());
    let mut first = Box::pin(answer(&auth, &headers, &scopes));
    assert!(futures::poll!(first.as_mut()).is_pending());
    let mut second = Box::pin(answer(&auth, &headers, &scopes));
    assert!(futures::poll!(second.as_mut()).is_pending());
    drop(first);
    assert_eq!(second.await, "Bearer token-1");
    assert_eq!(server.seen().len(), 1);
}

#[tokio::test]
async fn a_wide_token_serves_narrow_needs_and_not_the_other_way_round() {
    let server = TokenServer::generous(300).await;
    let auth = authenticator(user());
    answer(&auth, &server.challenge(), &pull()).await;
    assert_eq!(now(&auth, &push()).await.as_deref(), Some("Bearer token-2"));
    assert_eq!(now(&auth, &pull()).await.as_deref(), Some("Bearer token-2"));
    let wide = push().with_pull("ns/base");
    assert_eq!(now(&auth, &wide).await.as_deref(), Some("Bearer token-3"));
    assert_eq!(now(&auth, &push()).await.as_deref(), Some("Bearer token-3"));
    assert_eq!(server.seen().len(), 3);
}

#[tokio::test]
async fn a_token_is_replaced_before_it_ends() {
    let pass = async |seconds| {
        tokio::time::pause();
        tokio::time::advance(Duration::from_secs(seconds)).await;
        tokio::time::resume();
    };
    // A long lifetime is shortened by ten seconds, a short one by a quarter.
    for (life, served) in [(300, 285), (8, 5)] {
        let server = TokenServer::generous(life).await;
        let auth = authenticator(user());
        answer(&auth, &server.challenge(), &push()).await;
        pass(served).await;
        assert_eq!(now(&auth, &push()).await.as_deref(), Some("Bearer token-1"));
        pass(life - served - 2).await;
        assert_eq!(now(&auth, &push()).await.as_deref(), Some("Bearer token-2"));
    }
}

#[tokio::test]
async fn a_late_refusal_does_not_cost_the_token_that_replaced_the_refused_one() {
    let server = TokenServer::generous(300).await;
    let auth = authenticator(user());
    let headers = server.challenge();
    let old = auth.challenged(REPOSITORY, &push(), &headers, None).await.unwrap();
    for _ in 0..3 {
        let new = auth.challenged(REPOSITORY, &push(), &headers, Some(&old)).await;
        assert_eq!(text(&new.unwrap()), "Bearer token-2");
    }
    assert_eq!(server.seen().len(), 2);
}

#[tokio::test]
async fn a_refused_token_is_not_had_again_from_one_who_still_waits_for_it() {
    let server = TokenServer::generous(300).await;
    let auth = authenticator(user());
    let (headers, scopes) = (server.challenge(), push());
    let mut slow = Box::pin(answer(&auth, &headers, &scopes));
    assert!(futures::poll!(slow.as_mut()).is_pending());
    let first = auth.challenged(REPOSITORY, &scopes, &headers, None).await.unwrap();
    let second = auth.challenged(REPOSITORY, &scopes, &headers, Some(&first)).await;
    assert_eq!(text(&second.unwrap()), "Bearer token-2");
    assert_eq!(slow.await, "Bearer token-1");
}

#[tokio::test]
async fn what_the_challenge_asks_for_is_asked_for_too() {
    let server = TokenServer::generous(300).await;
    let auth = authenticator(user());
    let headers = challenge(&format!(
        r#"Bearer realm="http://{}/t",error="insufficient_scope",scope="repository:ns/app:delete registry:catalog:*""#,
        server.address
    ));
    answer(&auth, &headers, &pull()).await;
    assert_eq!(server.seen()[0].scopes(), ["registry:catalog:*", "repository:ns/app:delete,pull"]);
    assert_eq!(server.seen()[0].field("service"), None);
}

#[tokio::test]
async fn each_repository_goes_with_its_own_credential() {
    let server = TokenServer::generous(300).await;
    let (_folder, sources) = file(
        r#"{"auths":{"localhost:5000/one":{"username":"one","password":"1"},
                     "localhost:5000/two":{"username":"two","password":"2"}}}"#,
    );
    let auth = authenticator(sources);
    let headers = challenge(&format!(r#"Bearer realm="http://{}/t""#, server.address));
    for repository in ["one/app", "two/app"] {
        // The scopes are equal, so the tokens must be distinguished by the credential.
        auth.challenged(repository, &pull(), &headers, None).await.unwrap();
    }
    let accounts: Vec<_> =
        server.seen().iter().map(|seen| seen.field("account").unwrap().to_owned()).collect();
    assert_eq!(accounts, ["one", "two"]);
    assert!(auth.identity("one/app").to_string().contains("user one"));
    assert!(auth.identity("two/app").to_string().contains("user two"));
}

#[tokio::test]
async fn scopes_that_are_denied_leave_the_narrow_token_in_place() {
    let server = TokenServer::start(|seen, number| {
        if seen.scopes().iter().any(|scope| scope.contains("foreign")) {
            let body = r#"{"errors":[{"code":"DENIED","message":"not yours"}]}"#;
            (StatusCode::FORBIDDEN, body.to_owned())
        } else {
            (StatusCode::OK, format!(r#"{{"token":"token-{number}"}}"#))
        }
    })
    .await;
    let auth = authenticator(user());
    answer(&auth, &server.challenge(), &push()).await;
    let wide = push().with_pull("foreign/base");
    let error = auth.authorization(REPOSITORY, &wide).await.unwrap_err();
    assert!(matches!(error, AuthError::Denied { .. }), "{error:?}");
    assert!(!error.is_transient());
    let said = error.to_string();
    for part in [
        &*server.address.to_string(),
        "localhost:5000",
        "repository:foreign/base:pull",
        "403 Forbidden",
        "DENIED: not yours",
        "user me from --username",
        "pushimg login localhost:5000",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert_eq!(now(&auth, &push()).await.as_deref(), Some("Bearer token-1"));
}

#[tokio::test]
async fn a_failing_server_is_transient_and_says_when_to_come_back() {
    let date = httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(100));
    for (status, header, transient, wait) in [
        (503, "7", true, Some(7..=7)),
        (429, date.as_str(), true, Some(90..=100)),
        (500, "soon", true, None),
        (408, "", true, None),
        (404, "7", false, Some(7..=7)),
        (405, "", false, None),
    ] {
        let header = header.to_owned();
        let server = TokenServer::start(move |_, _| {
            let status = StatusCode::from_u16(status).unwrap();
            (status, [("retry-after", header.clone())])
        })
        .await;
        let (_folder, identity) = file(r#"{"auths":{"localhost:5000":{"identitytoken":"i"}}}"#);
        for sources in [user(), identity] {
            let error = refusal(&authenticator(sources), &server.challenge()).await;
            assert_eq!(error.is_transient(), transient, "{status}");
            let AuthError::TokenServer { status: came_back, retry_after, .. } = error else {
                panic!("{error:?}");
            };
            assert_eq!(came_back.unwrap().as_u16(), status);
            match (&wait, retry_after) {
                (Some(range), Some(after)) => assert!(range.contains(&after.as_secs())),
                (None, None) => {}
                other => panic!("{status}: {other:?}"),
            }
        }
    }
}

#[tokio::test]
async fn a_server_that_cannot_be_reached_is_transient() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let headers = challenge(&format!(r#"Bearer realm="http://{address}/t""#));
    let error = refusal(&authenticator(user()), &headers).await;
    assert!(error.is_transient());
    let said = error.to_string();
    assert!(said.contains(&address.to_string()) && said.contains("cannot connect"), "{said}");
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_transient() {
    let server = TokenServer::start(|_, _| {
        let chunks =
            [Ok(Bytes::from_static(br#"{"token":"#)), Err(std::io::Error::other("broken off"))];
        Response::new(Body::from_stream(futures::stream::iter(chunks)))
    })
    .await;
    let error = refusal(&authenticator(user()), &server.challenge()).await;
    assert!(error.is_transient(), "{error}");
}

#[tokio::test]
async fn an_untrusted_certificate_is_not_waited_out() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let key = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let config = rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(
            vec![key.cert.der().clone()],
            rustls::pki_types::PrivateKeyDer::Pkcs8(key.signing_key.serialize_der().into()),
        )
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let _ = acceptor.accept(stream).await;
        }
    });
    let headers = challenge(&format!(r#"Bearer realm="https://{address}/t""#));
    let auth = authenticator(user());
    let error = refusal(&auth, &headers).await;
    assert!(!error.is_transient(), "{error}");
    assert!(error.to_string().contains("certificate"), "{error}");
}

#[tokio::test]
async fn a_redirect_of_the_token_server_is_not_followed() {
    let other = TokenServer::generous(300).await;
    let to = format!("http://{}/token", other.address);
    let server = TokenServer::start(move |_, _| {
        (StatusCode::TEMPORARY_REDIRECT, [("location", to.clone())])
    })
    .await;
    let error = refusal(&authenticator(user()), &server.challenge()).await;
    assert!(!error.is_transient());
    let said = error.to_string();
    assert!(said.contains(&format!("redirect to http://{}", other.address)), "{said}");
    assert!(other.seen().is_empty());
}

#[tokio::test]
async fn an_https_registry_cannot_send_us_to_a_plain_token_server() {
    let server = TokenServer::generous(300).await;
    for sources in [user(), Sources::default()] {
        let options = Options { credentials: sources, ..Options::default() };
        let auth = authenticator_at("h.example", options, event::ignore());
        let error = refusal(&auth, &server.challenge()).await;
        assert!(matches!(error, AuthError::InsecureRealm { .. }), "{error:?}");
        assert!(error.to_string().contains(&server.address.to_string()));
        assert_eq!(now(&auth, &push()).await, None);
    }
    assert!(server.seen().is_empty());
}

#[tokio::test]
async fn a_registry_on_this_machine_cannot_send_us_elsewhere_in_the_open() {
    let headers = challenge(r#"Bearer realm="http://192.0.2.1:1/t""#);
    let error = refusal(&authenticator(user()), &headers).await;
    assert!(matches!(error, AuthError::InsecureRealm { .. }), "{error:?}");
    // It is also refused with `--plain-http` if a password would be sent there.
    let with = |credentials| {
        let options = Options { plain_http: true, credentials, ..Options::default() };
        authenticator_at("h.example", options, event::ignore())
    };
    let error = refusal(&with(user()), &headers).await;
    assert!(matches!(error, AuthError::InsecureRealm { .. }), "{error:?}");
    // Without a password it is tried, but nothing listens at this address.
    let (auth, scopes) = (with(Sources::default()), push());
    let attempt = auth.challenged(REPOSITORY, &scopes, &headers, None);
    let outcome = tokio::time::timeout(Duration::from_millis(300), attempt).await;
    assert!(!matches!(outcome, Ok(Err(AuthError::InsecureRealm { .. }))), "{outcome:?}");
}

#[tokio::test]
async fn a_far_registry_in_the_open_gives_no_password_to_this_machine_either() {
    let server = TokenServer::generous(300).await;
    let options = Options { plain_http: true, credentials: user(), ..Options::default() };
    let auth = authenticator_at("h.example", options, event::ignore());
    let error = refusal(&auth, &server.challenge()).await;
    assert!(matches!(error, AuthError::InsecureRealm { .. }), "{error:?}");
    assert!(server.seen().is_empty());
}

#[tokio::test]
async fn a_pause_without_end_is_a_day() {
    let server = TokenServer::start(|_, _| {
        (StatusCode::SERVICE_UNAVAILABLE, [("retry-after", "18446744073709551615")])
    })
    .await;
    let error = refusal(&authenticator(user()), &server.challenge()).await;
    assert_eq!(error.retry_after(), Some(Duration::from_secs(86_400)));
}

#[tokio::test]
async fn an_answer_without_end_is_not_read_to_its_end() {
    for status in [StatusCode::OK, StatusCode::FORBIDDEN] {
        let server = TokenServer::start(move |_, _| {
            let chunk = Ok::<_, std::io::Error>(Bytes::from_static(&[b' '; 65536]));
            let endless = Body::from_stream(futures::stream::repeat_with(move || {
                chunk.as_ref().map(Bytes::clone).map_err(|_| std::io::Error::other("never"))
            }));
            (status, endless)
        })
        .await;
        let error = refusal(&authenticator(user()), &server.challenge()).await;
        assert!(error.to_string().contains("longer than"), "{error}");
        assert!(!error.is_transient());
    }
}

#[tokio::test]
async fn nothing_secret_is_told_by_errors_events_or_debug_formats() {
    let told = Arc::new(Mutex::new(String::new()));
    let log = |told: &Arc<Mutex<String>>, text: String| told.lock().unwrap().push_str(&text);
    let events: Events = {
        let told = Arc::clone(&told);
        Arc::new(move |event: Event| log(&told, format!("{event:?}\n")))
    };
    // The server repeats everything that it received, in every form, and puts its token into wrong
    // fields.
    let server = TokenServer::start(|seen, number| {
        let status = match number % 3 {
            0 => StatusCode::FORBIDDEN,
            1 => StatusCode::OK,
            _ => StatusCode::BAD_GATEWAY,
        };
        let echo = format!("hunter2 {seen:?}").replace(['\\', '"'], "'");
        let body = if number == 1 {
            r#"{"token":"s3cr3t-token"}"#.to_owned()
        } else if status == StatusCode::OK {
            format!("s3cr3t-token {echo}")
        } else {
            format!(r#"{{"details":"{echo}","token":"s3cr3t-token"}}"#)
        };
        (status, [("set-cookie", "s3cr3t-cookie")], body)
    })
    .await;
    let (_folder, identity) = file(r#"{"auths":{"localhost:5000":{"identitytoken":"hunter2"}}}"#);
    for sources in [user(), identity] {
        let options = Options { credentials: sources, show_headers: true, ..Options::default() };
        let auth = authenticator_at("localhost:5000", options, Arc::clone(&events));
        let mut sent = None;
        for _ in 0..6 {
            let headers = server.challenge();
            let outcome = auth.challenged(REPOSITORY, &push(), &headers, sent.as_ref()).await;
            log(&told, format!("{outcome:?} {outcome:#?}\n"));
            match outcome {
                Ok(header) => sent = Some(header),
                Err(error) => log(&told, format!("{error}\n")),
            }
            log(&told, format!("{auth:?} {auth:#?} {}\n", auth.identity(REPOSITORY)));
        }
    }
    let told = told.lock().unwrap();
    assert_eq!(server.seen().len(), 12);
    for part in ["user me", "> authorization: ***", "< set-cookie: ***", "Sensitive"] {
        assert!(told.contains(part), "{part} is not in {told}");
    }
    for secret in ["hunter2", "bWU6aHVudGVyMg", "s3cr3t"] {
        assert!(!told.contains(secret), "{secret} is in {told}");
    }
}

#[tokio::test]
async fn a_secret_that_a_server_repeats_is_not_shown_even_in_part() {
    const PASSWORD: &str = "pass  word&more";
    // A message is cut after 300 bytes. Here that is within the password.
    for fill in 285..300 {
        for echo in [PASSWORD, "pass++word%26more", "bWU6cGFzcyAgd29yZCZtb3Jl"] {
            let body = format!("{}{echo}", "x".repeat(fill));
            let server =
                TokenServer::start(move |_, _| (StatusCode::UNAUTHORIZED, body.clone())).await;
            let auth = authenticator(Sources {
                explicit: Some(("me".into(), Secret::new(PASSWORD))),
                ..Sources::default()
            });
            let said = refusal(&auth, &server.challenge()).await.to_string();
            assert!(said.contains("xx*") && !said.contains("xp") && !said.contains("xb"), "{said}");
        }
    }
}

#[tokio::test]
async fn a_credential_program_is_run_once_for_all_requests() {
    let (folder, mut sources) = file(r#"{"credHelpers":{"localhost:5000":"fake"}}"#);
    helper::tests::install(
        folder.path(),
        "fake",
        r#"echo run >> "${0%/*}/runs"; echo no luck >&2; exit 1"#,
    );
    sources.environment.path = Some(folder.path().into());
    let auth = authenticator(sources);
    let headers = challenge("Basic");
    let errors = join_all((0..20).map(|_| refusal(&auth, &headers))).await;
    for error in errors {
        assert!(error.to_string().contains("no luck"), "{error}");
    }
    let runs = std::fs::read_to_string(folder.path().join("runs")).unwrap();
    assert_eq!(runs, "run\n");
}
