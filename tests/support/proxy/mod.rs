//! A proxy between a client and a registry that counts every request, slows the line down, and
//! makes requests fail.
//!
//! It has three addresses, its [`Origin`]s: the registry's, the token server's (challenges are
//! rewritten to name it), and a second, foreign one of the same registry for redirects and upload
//! locations. Faults are data: a [`Rule`] strikes the requests that it matches, [`Random`] strikes
//! by chance from a seed.

pub mod body;
pub mod exchange;
pub mod fault;
pub mod line;
pub mod record;
pub mod rule;
pub mod step;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

pub use fault::{Answer, At, Change, Fault, Hold, LocationForm, Place, RangeLie, Unread};
pub use line::Line;
pub use record::Record;
pub use rule::{Random, Rule, Times};
pub use step::{Origin, Step};

use super::served::{self, Served};
use super::tls::Authority;
use body::ProxyBody;
use exchange::Exchange;
use line::{Bandwidth, ResetSwitch, Socket};
use record::Log;
use rule::Script;

/// Gives the `Authorization` of the foreign origin's own requests, from their path.
pub type ForeignAuthorization = Arc<dyn Fn(&str) -> String + Send + Sync>;

/// A proxy's settings; the default is a fast line without TLS.
#[derive(Clone, Default)]
pub struct ProxyOptions<'a> {
    /// Serves HTTPS with HTTP/2 and HTTP/1.1, by a certificate of this authority.
    pub tls: Option<&'a Authority>,
    /// With `tls`: takes only clients with a certificate of the authority.
    pub client_certificates: bool,
    pub line: Line,
    /// How every upload location is written.
    pub locations: LocationForm,
    /// The token server that the registry's challenges name.
    pub token_upstream: Option<SocketAddr>,
    /// How the foreign origin signs in at the registry, where that asks; the client's own header
    /// is recorded there and never passed on.
    pub foreign_authorization: Option<ForeignAuthorization>,
}

struct Listeners {
    registry: SocketAddr,
    token: SocketAddr,
    foreign: SocketAddr,
}

/// What all connections share.
pub struct Proxy {
    scheme: &'static str,
    listeners: Listeners,
    upstream: RwLock<SocketAddr>,
    token_upstream: RwLock<Option<SocketAddr>>,
    locations: RwLock<LocationForm>,
    foreign_authorization: Option<ForeignAuthorization>,
    client: Client<HttpConnector, ProxyBody>,
    script: Mutex<Script>,
    log: Log,
    connections: AtomicU64,
    acceptor: Option<TlsAcceptor>,
    line: Line,
    up: Bandwidth,
    down: Bandwidth,
}

impl Proxy {
    fn registry_upstream(&self) -> String {
        self.upstream.read().expect("no holder panics").to_string()
    }

    fn token_upstream(&self) -> String {
        let token = *self.token_upstream.read().expect("no holder panics");
        token.map_or_else(|| self.registry_upstream(), |addr| addr.to_string())
    }

    fn locations(&self) -> LocationForm {
        *self.locations.read().expect("no holder panics")
    }

    fn foreign_authorization(&self, target: &str) -> Option<String> {
        self.foreign_authorization.as_ref().map(|own| own(target))
    }

    fn addr(&self, origin: Origin) -> SocketAddr {
        match origin {
            Origin::Registry => self.listeners.registry,
            Origin::Token => self.listeners.token,
            Origin::Foreign => self.listeners.foreign,
        }
    }

    /// `scheme://host:port` of an origin.
    fn base(&self, origin: Origin) -> String {
        format!("{}://{}", self.scheme, self.addr(origin))
    }
}

/// A running proxy; it ends, and closes its connections, when this is dropped.
pub struct FaultProxy {
    proxy: Arc<Proxy>,
    _served: Served,
}

impl FaultProxy {
    /// Starts a proxy without faults before a registry without TLS.
    pub fn before(upstream: SocketAddr) -> Self {
        Self::start(upstream, &ProxyOptions::default())
    }

    /// Stands before a registry that listens at `upstream` without TLS.
    pub fn start(upstream: SocketAddr, options: &ProxyOptions<'_>) -> Self {
        let origins = [Origin::Registry, Origin::Token, Origin::Foreign];
        let bound = origins.map(|_| served::bind(0));
        let [registry, token, foreign] = [bound[0].1, bound[1].1, bound[2].1];
        let acceptor = options.tls.map(|authority| {
            TlsAcceptor::from(authority.server_config(options.client_certificates))
        });
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        let proxy = Arc::new(Proxy {
            scheme: if acceptor.is_some() { "https" } else { "http" },
            listeners: Listeners { registry, token, foreign },
            upstream: RwLock::new(upstream),
            token_upstream: RwLock::new(options.token_upstream),
            locations: RwLock::new(options.locations),
            foreign_authorization: options.foreign_authorization.clone(),
            // A connection for each request: a kept one that the registry just closed would be
            // trouble that no fault explains.
            client: Client::builder(TokioExecutor::new())
                .pool_max_idle_per_host(0)
                .build(connector),
            script: Mutex::default(),
            log: Log::new(),
            connections: AtomicU64::new(0),
            acceptor,
            line: options.line,
            up: Bandwidth::new(options.line.bits_per_second),
            down: Bandwidth::new(options.line.bits_per_second),
        });
        let shared = proxy.clone();
        let served = Served::start("fault-proxy", move || async move {
            let mut accepting = tokio::task::JoinSet::new();
            for (origin, (listener, _)) in origins.into_iter().zip(bound) {
                accepting.spawn(accept(shared.clone(), origin, served::adopt(listener)));
            }
            while accepting.join_next().await.is_some() {}
        });
        Self { proxy, _served: served }
    }

    /// The registry's address to clients.
    pub fn addr(&self) -> SocketAddr {
        self.proxy.addr(Origin::Registry)
    }

    pub fn addr_of(&self, origin: Origin) -> SocketAddr {
        self.proxy.addr(origin)
    }

    /// `127.0.0.1:<port>`, as it stands in a reference.
    pub fn host(&self) -> String {
        self.addr().to_string()
    }

    /// Uses another registry from now on, such as the same one after a restart.
    pub fn set_upstream(&self, upstream: SocketAddr) {
        *self.proxy.upstream.write().expect("no holder panics") = upstream;
    }

    /// Writes upload locations in another form from now on.
    pub fn set_locations(&self, form: LocationForm) {
        *self.proxy.locations.write().expect("no holder panics") = form;
    }

    /// Replaces all rules.
    pub fn set_rules(&self, rules: Vec<Rule>) {
        self.script().set_rules(rules);
    }

    /// Adds a rule after the others.
    pub fn add_rule(&self, rule: Rule) {
        self.script().add_rule(rule);
    }

    /// Strikes by chance, after the rules; `None` ends it.
    pub fn set_random(&self, random: Option<Random>) {
        self.script().set_random(random);
    }

    /// No more faults.
    pub fn heal(&self) {
        let mut script = self.script();
        script.set_rules(Vec::new());
        script.set_random(None);
    }

    fn script(&self) -> std::sync::MutexGuard<'_, Script> {
        self.proxy.script.lock().expect("no holder panics")
    }

    /// Every request since the start or the last [`clear`](Self::clear), in order of arrival.
    pub fn records(&self) -> Vec<Record> {
        self.proxy.log.all()
    }

    /// Forgets the records.
    pub fn clear(&self) {
        self.proxy.log.clear();
    }

    /// The number of requests that match.
    pub fn count(&self, is: impl Fn(&Record) -> bool) -> usize {
        self.records().iter().filter(|record| is(record)).count()
    }

    /// How many requests of a step.
    pub fn count_step(&self, step: Step) -> usize {
        self.count(|record| record.step == step)
    }

    /// Bytes of request bodies of such requests.
    pub fn body_bytes(&self, is: impl Fn(&Record) -> bool) -> u64 {
        let records = self.records();
        let such = records.iter().filter(|record| is(record));
        such.map(|record| record.request_body).sum()
    }

    /// How many requests a fault struck.
    pub fn struck(&self) -> usize {
        self.count(|record| record.fault.is_some())
    }

    /// How many connections were opened so far.
    pub fn connections(&self) -> u64 {
        self.proxy.connections.load(Ordering::Relaxed)
    }

    /// The records as text, a line each, for a failed test's output.
    pub fn transcript(&self) -> String {
        self.records().iter().map(|record| format!("{record}\n")).collect()
    }
}

async fn accept(proxy: Arc<Proxy>, origin: Origin, listener: TcpListener) {
    loop {
        match listener.accept().await {
            Ok((tcp, _)) => {
                tokio::spawn(serve(proxy.clone(), origin, tcp));
            }
            // The process may be out of file descriptors; the next accept may succeed.
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}

async fn serve(proxy: Arc<Proxy>, origin: Origin, tcp: tokio::net::TcpStream) {
    let connection = proxy.connections.fetch_add(1, Ordering::Relaxed);
    // Without it small answers wait for acknowledgements; failing is no harm.
    let _ = tcp.set_nodelay(true);
    let switch = Arc::new(ResetSwitch::default());
    let socket = Socket { tcp, switch: switch.clone() };
    let serving = async {
        if proxy.line.is_slow() {
            tokio::time::sleep(proxy.line.rtt).await;
            let (outer, inner) = tokio::io::duplex(64 * 1024);
            let carry = line::carry(socket, inner, proxy.line.rtt, &proxy.up, &proxy.down);
            tokio::join!(carry, speak(&proxy, origin, connection, &switch, outer));
        } else {
            speak(&proxy, origin, connection, &switch, socket).await;
        }
    };
    tokio::select! {
        () = serving => {}
        () = switch.pulled() => {}
    }
}

/// Speaks TLS, if wanted, and HTTP over a connection until it ends.
async fn speak(
    proxy: &Arc<Proxy>,
    origin: Origin,
    connection: u64,
    switch: &Arc<ResetSwitch>,
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
) {
    match &proxy.acceptor {
        // If the handshake fails, the client reports it.
        Some(acceptor) => {
            if let Ok(stream) = acceptor.accept(stream).await {
                speak_http(proxy, origin, connection, switch, stream).await;
            }
        }
        None => speak_http(proxy, origin, connection, switch, stream).await,
    }
}

async fn speak_http(
    proxy: &Arc<Proxy>,
    origin: Origin,
    connection: u64,
    switch: &Arc<ResetSwitch>,
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
) {
    let service = hyper::service::service_fn(|request| {
        Exchange { proxy: proxy.clone(), origin, connection, switch: switch.clone() }.run(request)
    });
    // An error here is a client that went away or a fault that was asked for.
    let _ = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new())
        .serve_connection(TokioIo::new(stream), service)
        .await;
}
