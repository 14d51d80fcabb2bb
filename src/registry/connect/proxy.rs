//! Proxies from the environment, chosen as Go programs such as docker, skopeo and crane choose them
//! (golang.org/x/net/http/httpproxy).
//!
//! In addition `ALL_PROXY` is used, as in curl. With `socks5://` the proxy resolves names; curl
//! calls this `socks5h://`. An invalid value is an error only if it would be used.

use std::env;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ipnet::IpNet;
use reqwest::StatusCode;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use url::{Url, form_urlencoded};
use zeroize::Zeroizing;

use crate::registry::Error;
use crate::registry::send::mask::host_and_port;

/// How long to ask a proxy why it refused a tunnel.
const REFUSAL_TIME: Duration = Duration::from_secs(3);

/// The proxies for both schemes, and the hosts that are reached without a proxy.
#[derive(Debug)]
pub struct Proxies {
    http: Setting,
    https: Setting,
    exempt: Exempt,
}

/// The proxy for one scheme; `None` if no variable is set. The error says why a value is invalid.
type Setting = Option<Result<Proxy, String>>;

/// A proxy, and the variable that names it.
#[derive(Clone)]
pub struct Proxy {
    pub variable: &'static str,
    url: Url,
}

impl Proxies {
    /// The proxies in the environment of this process.
    pub fn from_env() -> Self {
        Self::new(|name| env::var_os(name).map(|value| value.to_string_lossy().into_owned()))
    }

    fn new(variable: impl Fn(&str) -> Option<String>) -> Self {
        let first = |names: &[&'static str]| {
            names.iter().find_map(|name| {
                let value = variable(name)?;
                (!value.trim().is_empty()).then_some((*name, value))
            })
        };
        // In a CGI program, any client can set HTTP_PROXY by a header named Proxy.
        let is_cgi = variable("REQUEST_METHOD").is_some();
        let http: &[_] = match is_cgi {
            true => &["http_proxy", "ALL_PROXY", "all_proxy"],
            false => &["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"],
        };
        let setting = |names| first(names).map(|(name, value)| Proxy::parse(name, value.trim()));
        Self {
            http: setting(http),
            https: setting(&["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"]),
            exempt: Exempt::parse(&first(&["NO_PROXY", "no_proxy"]).unwrap_or_default().1),
        }
    }

    /// The proxy for a URL; `None` if requests go there directly.
    ///
    /// # Errors
    ///
    /// The variable that names the proxy has an invalid value.
    pub fn of(&self, url: &Url) -> Result<Option<&Proxy>, Error> {
        let setting = match url.scheme() {
            "https" => &self.https,
            _ => &self.http,
        };
        match setting {
            Some(_) if self.exempt.has(url) => Ok(None),
            Some(Err(problem)) => Err(Error::Settings(problem.clone())),
            Some(Ok(proxy)) => Ok(Some(proxy)),
            None => Ok(None),
        }
    }

    /// The same rules for an HTTP client.
    pub fn rule(self: &Arc<Self>) -> reqwest::Proxy {
        let proxies = self.clone();
        // If the proxy's value is invalid, the request is not sent, so `None` is safe here.
        reqwest::Proxy::custom(move |url| proxies.of(url).ok().flatten().map(|it| it.url.clone()))
    }
}

impl Proxy {
    /// Whether the proxy itself is reached over TLS.
    pub fn speaks_tls(&self) -> bool {
        self.url.scheme() == "https"
    }

    fn parse(variable: &'static str, value: &str) -> Result<Self, String> {
        let unusable = |problem: &str| {
            let shown = match value.rsplit_once('@') {
                Some((_, host)) => format!("***@{host}"),
                None => value.to_owned(),
            };
            format!(
                "the environment variable {variable} names no proxy ({shown}): {problem}; it must \
                 be http://HOST:PORT, https://HOST:PORT or socks5://HOST:PORT"
            )
        };
        let with_scheme = match value.contains("://") {
            true => value.to_owned(),
            false => format!("http://{value}"),
        };
        let mut url: Url =
            with_scheme.parse().map_err(|error: url::ParseError| unusable(&error.to_string()))?;
        match url.scheme() {
            "http" | "https" | "socks4" | "socks4a" | "socks5h" => {}
            // Cannot fail: neither scheme is special.
            "socks5" => url.set_scheme("socks5h").unwrap_or_default(),
            scheme => return Err(unusable(&format!("the scheme {scheme} is unknown"))),
        }
        if url.host_str().unwrap_or_default().is_empty() {
            return Err(unusable("the host is missing"));
        }
        if with_scheme != value && !matches!(url.path(), "" | "/") {
            return Err(unusable("it is not an address"));
        }
        Ok(Self { variable, url })
    }

    /// Whether the variable contains a login.
    pub fn has_login(&self) -> bool {
        !self.url.username().is_empty()
    }

    /// The status with which the proxy refuses a tunnel to a URL. The HTTP client does not return
    /// it, so this asks again. `None` if it is not an HTTP proxy, or does not answer.
    pub async fn refusal(&self, url: &Url) -> Option<StatusCode> {
        timeout(REFUSAL_TIME, self.ask_for_tunnel(url)).await.ok()?
    }

    async fn ask_for_tunnel(&self, url: &Url) -> Option<StatusCode> {
        if self.url.scheme() != "http" {
            return None;
        }
        let host = self.url.host_str()?.trim_matches(['[', ']']);
        let mut stream =
            TcpStream::connect((host, self.url.port_or_known_default()?)).await.ok()?;
        let target = format!("{}:{}", url.host_str()?, url.port_or_known_default()?);
        let login = match self.has_login() {
            true => {
                let (user, password) = (self.url.username(), self.url.password());
                let (user, password) = (decoded(user), decoded(password.unwrap_or_default()));
                let pair = Zeroizing::new(format!("{}:{}", *user, *password));
                let pair = STANDARD.encode(pair.as_bytes());
                format!("Proxy-Authorization: Basic {pair}\r\n")
            }
            false => String::new(),
        };
        let request = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n{login}\r\n");
        stream.write_all(request.as_bytes()).await.ok()?;
        // `HTTP/1.1 403 `
        let mut start = [0; 13];
        stream.read_exact(&mut start).await.ok()?;
        let status = std::str::from_utf8(start.strip_prefix(b"HTTP/1.")?.get(2..5)?).ok()?;
        status.parse().ok().filter(|status: &StatusCode| !status.is_success())
    }
}

/// A part of a URL with percent-encoding such as `%40` decoded.
fn decoded(part: &str) -> Zeroizing<String> {
    let value = part.replace('+', "%2B").replace('&', "%26").replace('=', "%3D");
    let decoded = form_urlencoded::parse(value.as_bytes()).next();
    Zeroizing::new(decoded.map(|(name, _)| name.into_owned()).unwrap_or_default())
}

/// The proxy without its login: `http://127.0.0.1:3128 (HTTPS_PROXY)`.
impl std::fmt::Display for Proxy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let scheme = self.url.scheme().trim_end_matches('h');
        write!(f, "{scheme}://{} ({})", host_and_port(&self.url), self.variable)
    }
}

impl std::fmt::Debug for Proxy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

/// The hosts that are reached without a proxy: those of this machine, and those in `NO_PROXY`.
#[derive(Debug, Default)]
struct Exempt {
    all: bool,
    networks: Vec<IpNet>,
    addresses: Vec<(IpAddr, Port)>,
    domains: Vec<Domain>,
}

/// The port of an entry; `None` for all ports.
type Port = Option<u16>;

#[derive(Debug)]
struct Domain {
    /// `.example.com`.
    end: String,
    /// Whether `example.com` itself is included.
    itself: bool,
    port: Port,
}

impl Exempt {
    fn parse(list: &str) -> Self {
        let mut exempt = Self::default();
        for entry in list.split(',').map(str::trim).filter(|entry| !entry.is_empty()) {
            let entry = entry.to_ascii_lowercase();
            if entry == "*" {
                exempt.all = true;
            } else if let Ok(network) = entry.parse() {
                exempt.networks.push(network);
            } else {
                exempt.add_host(&entry);
            }
        }
        exempt
    }

    fn add_host(&mut self, entry: &str) {
        let (host, port) = match entry.rsplit_once(':') {
            Some((host, port)) if !host.contains(':') || host.ends_with(']') => {
                let Ok(port) = port.parse() else { return };
                (host, Some(port))
            }
            _ => (entry, None),
        };
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        if let Ok(address) = host.parse::<IpAddr>() {
            self.addresses.push((address.to_canonical(), port));
            return;
        }
        let host = host.strip_prefix('*').filter(|rest| rest.starts_with('.')).unwrap_or(host);
        match host.strip_prefix('.') {
            _ if host.is_empty() => {}
            Some(_) => self.domains.push(Domain { end: host.to_owned(), itself: false, port }),
            None => self.domains.push(Domain { end: format!(".{host}"), itself: true, port }),
        }
    }

    fn has(&self, url: &Url) -> bool {
        let port = url.port_or_known_default();
        let is_port = |wanted: Port| wanted.is_none() || wanted == port;
        let host = url.host_str().unwrap_or_default();
        let host = host.trim_start_matches('[').trim_end_matches(']');
        if self.all || crate::registry::is_loopback(host) {
            return true;
        }
        if let Ok(address) = host.parse::<IpAddr>() {
            let address = address.to_canonical();
            if address.is_loopback()
                || self.networks.iter().any(|network| network.contains(&address))
                || self.addresses.iter().any(|(it, port)| *it == address && is_port(*port))
            {
                return true;
            }
        }
        self.domains.iter().any(|domain| {
            let fits = host.ends_with(&domain.end) || (domain.itself && host == &domain.end[1..]);
            fits && is_port(domain.port)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether `NO_PROXY` with this value excludes a URL from the proxy.
    fn is_exempt(list: &str, url: &str) -> bool {
        Exempt::parse(list).has(&url.parse().unwrap())
    }

    #[test]
    fn no_proxy_is_read_as_go_reads_it() {
        for (list, url) in [
            ("*", "https://r.example"),
            ("a.example, *", "https://r.example"),
            ("r.example", "https://r.example"),
            ("r.example", "https://sub.r.example"),
            ("R.Example", "https://r.example"),
            (" x.example , r.example ", "https://r.example:5000"),
            ("r.example:5000", "https://r.example:5000"),
            ("r.example:443", "https://r.example"),
            ("r.example:80", "http://r.example"),
            (".example", "https://r.example"),
            (".r.example", "https://a.r.example"),
            ("*.example", "https://r.example"),
            ("*.example:5000", "https://r.example:5000"),
            ("10.0.0.0/8", "https://10.1.2.3:5000"),
            ("fd00::/8", "https://[fd00::1]:5000"),
            ("10.1.2.3", "https://10.1.2.3:5000"),
            // Go compares domain suffixes with IP addresses too.
            (".2.3", "https://10.1.2.3:5000"),
            ("10.1.2.3:5000", "https://10.1.2.3:5000"),
            ("fd00::1", "https://[fd00::1]"),
            ("[fd00::1]:5000", "https://[fd00::1]:5000"),
            ("[fd00::1]", "https://[fd00::1]:5000"),
            ("10.1.2.3", "https://[::ffff:10.1.2.3]"),
            ("", "https://localhost:5000"),
            ("", "http://127.8.9.1:5000"),
            ("", "http://[::1]:5000"),
            ("", "http://[::ffff:127.0.0.1]:5000"),
        ] {
            assert!(is_exempt(list, url), "{list:?} {url}");
        }
        for (list, url) in [
            ("", "https://r.example"),
            ("r.example", "https://notr.example"),
            ("r.example", "https://r.example.org"),
            ("r.example:5000", "https://r.example"),
            (".r.example", "https://r.example"),
            ("*.r.example", "https://r.example"),
            ("*r.example", "https://r.example"),
            ("*.example:5000", "https://r.example"),
            ("10.0.0.0/8", "https://11.1.2.3"),
            ("10.1.2.3:443", "https://10.1.2.3:5000"),
            (":5000", "https://r.example:5000"),
            ("r.example:port", "https://r.example"),
            ("r.example other.example", "https://r.example"),
            ("localhost.example", "https://r.example"),
        ] {
            assert!(!is_exempt(list, url), "{list:?} {url}");
        }
    }

    fn proxies(variables: &[(&str, &str)]) -> Proxies {
        Proxies::new(|name| {
            let found = variables.iter().find(|(variable, _)| *variable == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    fn shown(proxies: &Proxies, url: &str) -> String {
        match proxies.of(&url.parse().unwrap()) {
            Ok(None) => "none".to_owned(),
            Ok(Some(proxy)) => proxy.to_string(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn the_first_variable_that_is_set_counts() {
        for (variables, https, http) in [
            (&[][..], "none", "none"),
            (&[("HTTPS_PROXY", "a:1"), ("https_proxy", "b:2")], "http://a:1 (HTTPS_PROXY)", "none"),
            (&[("HTTPS_PROXY", ""), ("https_proxy", "b:2")], "http://b:2 (https_proxy)", "none"),
            (&[("http_proxy", "http://u:p@b")], "none", "http://b (http_proxy)"),
            (&[("HTTP_PROXY", "b"), ("REQUEST_METHOD", "GET")], "none", "none"),
            (
                &[("HTTPS_PROXY", "socks5://a"), ("all_proxy", "https://b:2/")],
                "socks5://a (HTTPS_PROXY)",
                "https://b:2 (all_proxy)",
            ),
            (&[("ALL_PROXY", "a"), ("NO_PROXY", "r.example")], "none", "none"),
        ] {
            let proxies = proxies(variables);
            assert_eq!(shown(&proxies, "https://r.example"), https, "{variables:?}");
            assert_eq!(shown(&proxies, "http://r.example"), http, "{variables:?}");
        }
    }

    #[test]
    fn a_value_that_names_no_proxy_is_an_error_where_it_would_be_used() {
        for value in [
            "htp://a:1",
            "http//",
            "http//a:1",
            "http:/a:1",
            "http://",
            "http://:3128",
            "socks://a",
            "a:99999",
            "a b",
            "http://me:hunter2@a:port",
            "ftp://me:hunter2@a",
        ] {
            let proxies = proxies(&[("HTTPS_PROXY", value)]);
            let error = shown(&proxies, "https://r.example");
            assert!(error.contains("HTTPS_PROXY names no proxy"), "{value}: {error}");
            assert!(!error.contains("hunter2"), "{error}");
            assert_eq!(shown(&proxies, "http://r.example"), "none");
            assert_eq!(shown(&proxies, "https://localhost"), "none");
        }
        let shown = format!("{:?}", proxies(&[("ALL_PROXY", "http://me:hunter2@a:1")]));
        assert!(!shown.contains("hunter2"), "{shown}");
    }
}
