//! A token server whose ES256 tokens `docker-registry` accepts (Docker Registry v2 "Token
//! Authentication Specification" and its OAuth2 form). It answers in the forms that other token
//! servers use.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyPair, KeyUsagePurpose};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use serde_json::{Map, Value, json};

use super::registry::auth::{Scope, basic_login};
use super::served::{self, Served};

/// `docker-registry` lets a token pass for this long after its `exp`.
const LEEWAY: Duration = Duration::from_secs(60);

/// Which key of the answer holds the token.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TokenForm {
    /// `token`, as Docker's specification has it.
    #[default]
    Token,
    /// `access_token` alone, as OAuth2 and ACR have it.
    AccessToken,
    Both,
}

/// What the answer says about the token's end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ExpiresIn {
    /// The truth.
    #[default]
    True,
    /// Nothing, which means 60 s.
    Missing,
    /// This many seconds, whatever the token's real lifetime.
    Claimed(u64),
}

/// How a token server behaves; the default knows one user and gives others tokens to pull.
#[derive(Clone, Debug)]
pub struct TokenOptions {
    pub user: String,
    pub password: String,
    /// The identity token that a POST may bring.
    pub refresh_token: String,
    /// How long the registry takes a token, from the moment it was issued. Default 300 s.
    pub lifetime: Duration,
    pub form: TokenForm,
    pub expires_in: ExpiresIn,
    /// What is allowed without credentials: `pull` by default.
    pub anonymous: Vec<String>,
    /// Whether POST is answered, or 405 as by servers that know only GET. Default true.
    pub post: bool,
    /// Repositories for which no pull is granted, so that a mount from them is denied.
    pub denied: Vec<String>,
}

impl Default for TokenOptions {
    fn default() -> Self {
        Self {
            user: "pushimg".to_owned(),
            password: "correct horse".to_owned(),
            refresh_token: "battery-staple".to_owned(),
            lifetime: Duration::from_secs(300),
            form: TokenForm::default(),
            expires_in: ExpiresIn::default(),
            anonymous: vec!["pull".to_owned()],
            post: true,
            denied: Vec::new(),
        }
    }
}

/// A request for a token as it arrived.
#[derive(Clone, Debug)]
pub struct TokenRequest {
    pub method: String,
    /// Each scope asked for, such as `repository:app:pull,push`.
    pub scopes: Vec<String>,
    pub service: Option<String>,
    /// Basic credentials, or `username` and `password` of a form.
    pub login: Option<(String, String)>,
    pub refresh_token: Option<String>,
    pub status: u16,
}

struct Shared {
    options: Mutex<TokenOptions>,
    requests: Mutex<Vec<TokenRequest>>,
    key: EcdsaKeyPair,
    /// DER, in the form the header's `x5c` wants it.
    certificate: String,
    addr: SocketAddr,
}

/// A running token server; it ends when this is dropped.
pub struct TokenServer {
    shared: Arc<Shared>,
    certificate_pem: String,
    _served: Served,
}

impl TokenServer {
    pub fn start(options: TokenOptions) -> Self {
        let key = KeyPair::generate().expect("a key for tokens");
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "pushimg test tokens");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyCertSign];
        let certificate = params.self_signed(&key).expect("a certificate for tokens");
        let signing = EcdsaKeyPair::from_pkcs8(
            &ECDSA_P256_SHA256_FIXED_SIGNING,
            &key.serialize_der(),
            &SystemRandom::new(),
        )
        .expect("the key in ring's hands");
        let (listener, addr) = served::bind(0);
        let shared = Arc::new(Shared {
            options: Mutex::new(options),
            requests: Mutex::default(),
            key: signing,
            certificate: STANDARD.encode(certificate.der()),
            addr,
        });
        let app = Router::new().fallback(answer).with_state(shared.clone());
        let served = Served::start("token-server", move || async move {
            if let Err(error) = axum::serve(served::adopt(listener), app).await {
                eprintln!("token server: {error}");
            }
        });
        Self { shared, certificate_pem: certificate.pem(), _served: served }
    }

    pub fn addr(&self) -> SocketAddr {
        self.shared.addr
    }

    /// The URL that challenges name.
    pub fn realm(&self) -> String {
        format!("http://{}/token", self.shared.addr)
    }

    pub fn service(&self) -> &'static str {
        SERVICE
    }

    pub fn issuer(&self) -> &'static str {
        ISSUER
    }

    /// The certificate for the registry's `rootcertbundle`.
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// Every request so far.
    pub fn requests(&self) -> Vec<TokenRequest> {
        self.shared.requests.lock().expect("no holder panics").clone()
    }

    /// Changes the behaviour from now on.
    pub fn configure(&self, change: impl FnOnce(&mut TokenOptions)) {
        change(&mut self.shared.options.lock().expect("no holder panics"));
    }

    /// A token for these scopes without a login, for the proxy's own requests.
    pub fn sign(&self, scopes: &str) -> String {
        let lifetime = self.shared.options.lock().expect("no holder panics").lifetime;
        self.shared.sign("laboratory", &Scope::parse_all(scopes), lifetime)
    }

    /// A function that signs tokens and can be moved into a closure.
    pub fn signer(&self) -> impl Fn(&str) -> String + Send + Sync + 'static {
        let shared = self.shared.clone();
        move |scopes| shared.sign("laboratory", &Scope::parse_all(scopes), Duration::from_secs(300))
    }
}

const SERVICE: &str = "laboratory registry";
const ISSUER: &str = "laboratory tokens";

impl Shared {
    /// A JSON Web Token (RFC 7519) signed by ES256, with the certificate in its header.
    fn sign(&self, subject: &str, scopes: &[Scope], lifetime: Duration) -> String {
        let header = json!({ "typ": "JWT", "alg": "ES256", "x5c": [self.certificate] });
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970");
        let access: Vec<Value> = scopes
            .iter()
            .map(|scope| {
                json!({ "type": "repository", "name": scope.name, "actions": scope.actions })
            })
            .collect();
        // Subtract the registry's leeway, so that it really refuses the token after this lifetime.
        let expires = (now + lifetime).saturating_sub(LEEWAY).as_secs();
        let claims = json!({
            "iss": ISSUER,
            "sub": subject,
            "aud": SERVICE,
            "exp": expires,
            "nbf": now.as_secs() - 600,
            "iat": now.as_secs() - 600,
            "jti": format!("{:032x}", rand::random::<u128>()),
            "access": access,
        });
        let encode = |part: &Value| URL_SAFE_NO_PAD.encode(part.to_string());
        let payload = format!("{}.{}", encode(&header), encode(&claims));
        let signature =
            self.key.sign(&SystemRandom::new(), payload.as_bytes()).expect("ES256 over a payload");
        format!("{payload}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

async fn answer(
    State(shared): State<Arc<Shared>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let options = shared.options.lock().expect("no holder panics").clone();
    let form: Vec<(String, String)> = match method {
        Method::POST => url::form_urlencoded::parse(&body).into_owned().collect(),
        _ => url::form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes())
            .into_owned()
            .collect(),
    };
    let field =
        |name: &str| form.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
    let login = basic_login(&headers).or_else(|| Some((field("username")?, field("password")?)));
    let refresh_token = field("refresh_token");
    let scopes: Vec<String> = form
        .iter()
        .filter(|(key, _)| key == "scope")
        .flat_map(|(_, value)| value.split_ascii_whitespace().map(str::to_owned))
        .collect();
    let response = decide(&shared, &options, &method, &scopes, &login, &refresh_token);
    let request = TokenRequest {
        method: method.to_string(),
        scopes,
        service: field("service"),
        login,
        refresh_token,
        status: response.status().as_u16(),
    };
    shared.requests.lock().expect("no holder panics").push(request);
    response
}

fn decide(
    shared: &Shared,
    options: &TokenOptions,
    method: &Method,
    scopes: &[String],
    login: &Option<(String, String)>,
    refresh_token: &Option<String>,
) -> Response {
    let refuse = |status: StatusCode, message: &str| {
        let body = json!({ "errors": [{ "code": "UNAUTHORIZED", "message": message }] });
        let kind = [(header::CONTENT_TYPE, "application/json")];
        (status, kind, body.to_string()).into_response()
    };
    if *method == Method::POST && !options.post || *method != Method::POST && *method != Method::GET
    {
        return refuse(StatusCode::METHOD_NOT_ALLOWED, "GET only");
    }
    let known = match (refresh_token, login) {
        (Some(token), _) if *token == options.refresh_token => true,
        (None, Some((user, password)))
            if *user == options.user && *password == options.password =>
        {
            true
        }
        (None, None) if *method == Method::GET => false,
        _ => return refuse(StatusCode::UNAUTHORIZED, "incorrect username or password"),
    };
    let mut granted: Vec<Scope> = scopes.iter().flat_map(|scope| Scope::parse_all(scope)).collect();
    for scope in &mut granted {
        if !known {
            scope.actions.retain(|action| options.anonymous.contains(action));
        }
        if options.denied.contains(&scope.name) {
            scope.actions.clear();
        }
    }
    granted.retain(|scope| !scope.actions.is_empty());
    let subject = if known { options.user.as_str() } else { "" };
    let token = shared.sign(subject, &granted, options.lifetime);
    let mut body = Map::new();
    if options.form != TokenForm::AccessToken {
        body.insert("token".to_owned(), json!(token));
    }
    if options.form != TokenForm::Token || *method == Method::POST {
        body.insert("access_token".to_owned(), json!(token));
    }
    let seconds = match options.expires_in {
        ExpiresIn::True => Some(options.lifetime.as_secs()),
        ExpiresIn::Missing => None,
        ExpiresIn::Claimed(seconds) => Some(seconds),
    };
    if let Some(seconds) = seconds {
        body.insert("expires_in".to_owned(), json!(seconds));
    }
    let kind = [(header::CONTENT_TYPE, "application/json")];
    (kind, Value::Object(body).to_string()).into_response()
}
