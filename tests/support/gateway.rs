//! What a gateway before a registry does: the options of [`Nginx`](super::nginx::Nginx) and of
//! [`HaProxy`](super::haproxy::HaProxy).

use super::tls::Authority;

/// The default passes everything on over plain HTTP.
#[derive(Clone, Copy, Default)]
pub struct GatewayOptions<'a> {
    /// Serves HTTPS, with HTTP/2 and HTTP/1.1, with a certificate of this authority.
    pub tls: Option<&'a Authority>,
    /// Tells the registry the client's scheme in `X-Forwarded-Proto`. Without it, a registry behind
    /// a TLS gateway writes `http://` into the `Location` of each upload.
    pub forwarded_proto: bool,
    /// Answers 413 to request bodies of more bytes.
    pub body_limit: Option<u64>,
    /// Answers 405 to this method, such as `PATCH`.
    pub refused_method: Option<&'a str>,
    /// Answers 429, with `Retry-After: 1`, to more requests in a second.
    pub requests_per_second: Option<u32>,
}
