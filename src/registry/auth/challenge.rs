//! Parses `WWW-Authenticate`, the header that a registry sends with a 401.
//!
//! A response may have several of these headers, with several challenges in each. The result is the
//! list of the challenges that a registry client can answer, in order. The text comes from the
//! network, so anything malformed, of an unknown scheme, or beyond the limits below is skipped.
//!
//! RFC 9110 section 11.6.1; distribution's "Token Authentication Specification".

use reqwest::header::{HeaderMap, WWW_AUTHENTICATE};
use url::Url;

use super::super::send::mask::Secrets;
use super::error::excerpt;

/// How many header lines are read.
const MAX_HEADERS: usize = 16;
/// The longest header line that is read, in bytes; a longer one is skipped.
const MAX_HEADER_BYTES: usize = 8 * 1024;
/// How many challenges of one header line are read.
const MAX_CHALLENGES: usize = 32;

/// One way in which the registry lets us log in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Challenge {
    /// User and password with each request.
    Basic {
        /// The registry's name for the protected area; may be empty.
        realm: String,
    },
    /// A token, to be fetched from a token server.
    Bearer {
        /// The token server's endpoint: an absolute `http` or `https` URL without user name.
        realm: Url,
        /// The token server's name for the registry.
        service: Option<String>,
        /// Scopes that the request needs, separated by spaces.
        scope: Option<String>,
        /// Why the token that was sent was not accepted: `invalid_token`, `insufficient_scope`.
        error: Option<String>,
    },
}

impl Challenge {
    /// All challenges in `headers` that can be answered.
    pub fn all(headers: &HeaderMap) -> Vec<Self> {
        headers
            .get_all(WWW_AUTHENTICATE)
            .iter()
            .take(MAX_HEADERS)
            .flat_map(|value| Self::parse(&String::from_utf8_lossy(value.as_bytes())))
            .collect()
    }

    /// The challenge to answer: the first with a token, else the first with a password.
    pub fn choose(headers: &HeaderMap) -> Option<Self> {
        let all = Self::all(headers);
        all.iter()
            .find(|challenge| matches!(challenge, Self::Bearer { .. }))
            .or(all.first())
            .cloned()
    }

    /// What `headers` ask for, for a message: the schemes with their realms. Empty if there is no
    /// challenge.
    pub fn offered(headers: &HeaderMap) -> String {
        let values = headers.get_all(WWW_AUTHENTICATE).iter().take(MAX_HEADERS);
        let texts = values.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
        let text = Secrets::default().mask(&texts.collect::<Vec<_>>().join(", "));
        excerpt(&text)
    }

    /// The challenges in one header line.
    pub fn parse(line: &str) -> Vec<Self> {
        if line.len() > MAX_HEADER_BYTES {
            return Vec::new();
        }
        let mut read: Vec<Unread> = Vec::new();
        for element in elements(line) {
            let (word, rest) = element.split_once([' ', '\t']).unwrap_or((element, ""));
            let rest = rest.trim_start();
            let is_scheme = !rest.starts_with('=') && !word.contains(['=', '"']);
            if is_scheme {
                read.push(Unread { scheme: word, parameters: Vec::new() });
            }
            let parameter = if is_scheme { rest } else { element };
            if let Some((name, value)) = parameter.split_once('=')
                && let Some(challenge) = read.last_mut()
            {
                challenge.parameters.push((name.trim_end(), unquoted(value.trim_start())));
            }
        }
        read.into_iter().take(MAX_CHALLENGES).filter_map(Unread::read).collect()
    }
}

/// A challenge of any scheme: its name, and its parameters.
struct Unread<'a> {
    scheme: &'a str,
    parameters: Vec<(&'a str, String)>,
}

impl Unread<'_> {
    fn read(self) -> Option<Challenge> {
        let parameter = |wanted: &str| {
            let mut all = self.parameters.iter();
            let (_, value) = all.find(|(name, _)| name.eq_ignore_ascii_case(wanted))?;
            Some(value.clone())
        };
        let not_empty = |wanted: &str| parameter(wanted).filter(|value| !value.is_empty());
        if self.scheme.eq_ignore_ascii_case("basic") {
            Some(Challenge::Basic { realm: parameter("realm").unwrap_or_default() })
        } else if self.scheme.eq_ignore_ascii_case("bearer") {
            Some(Challenge::Bearer {
                realm: token_endpoint(&parameter("realm")?)?,
                service: not_empty("service"),
                scope: not_empty("scope"),
                error: not_empty("error"),
            })
        } else {
            None
        }
    }
}

/// Splits a list at its commas, except at those within quotes. The text after a quote that is not
/// closed is left out.
fn elements(line: &str) -> Vec<&str> {
    let (mut all, mut start) = (Vec::new(), 0);
    let (mut quoted, mut escaped) = (false, false);
    for (at, c) in line.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            ',' if !quoted => {
                all.push(&line[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    if !quoted {
        all.push(&line[start..]);
    }
    all.into_iter()
        .map(|element| element.trim_matches([' ', '\t']))
        .filter(|e| !e.is_empty())
        .collect()
}

/// A parameter's value without quotes. Some registries leave out quotes that are required.
fn unquoted(value: &str) -> String {
    let Some(quoted) = value.strip_prefix('"') else {
        return value.to_owned();
    };
    let (mut text, mut escaped) = (String::new(), false);
    for c in quoted.chars() {
        match c {
            '"' if !escaped => break,
            '\\' if !escaped => escaped = true,
            c => {
                escaped = false;
                text.push(c);
            }
        }
    }
    text
}

fn token_endpoint(text: &str) -> Option<Url> {
    let mut url = Url::parse(text.trim()).ok()?;
    let usable = matches!(url.scheme(), "http" | "https")
        && url.has_host()
        && url.username().is_empty()
        && url.password().is_none();
    url.set_fragment(None);
    usable.then_some(url)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use reqwest::header::HeaderValue;

    use super::*;

    fn bearer(realm: &str, service: Option<&str>, scope: Option<&str>) -> Challenge {
        Challenge::Bearer {
            realm: Url::parse(realm).unwrap(),
            service: service.map(str::to_owned),
            scope: scope.map(str::to_owned),
            error: None,
        }
    }

    #[test]
    fn what_registries_send_is_understood() {
        assert_eq!(
            Challenge::parse(
                r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:library/nginx:pull,push""#
            ),
            [bearer(
                "https://auth.docker.io/token",
                Some("registry.docker.io"),
                Some("repository:library/nginx:pull,push")
            )]
        );
        assert_eq!(
            Challenge::parse(r#"Basic realm="Registry Realm""#),
            [Challenge::Basic { realm: "Registry Realm".into() }]
        );
        assert_eq!(
            Challenge::parse(
                r#"Bearer realm="https://a.example/t",error="insufficient_scope",scope="x:y:z""#
            ),
            [Challenge::Bearer {
                realm: Url::parse("https://a.example/t").unwrap(),
                service: None,
                scope: Some("x:y:z".into()),
                error: Some("insufficient_scope".into()),
            }]
        );
    }

    #[test]
    fn case_and_spacing_do_not_matter() {
        for line in [
            "bearer  REALM = \"https://a.example/t\" ,\t Service=reg",
            "BEARER realm=\"https://a.example/t\",service=\"reg\"   ",
            "  Bearer\trealm=\"https://a.example/t\"  ,  service=\"reg\"",
        ] {
            assert_eq!(
                Challenge::parse(line),
                [bearer("https://a.example/t", Some("reg"), None)],
                "{line}"
            );
        }
    }

    #[test]
    fn spaces_commas_and_escapes_within_quotes_belong_to_the_value() {
        assert_eq!(
            Challenge::parse(r#"Basic realm="a  \"b\", Bearer realm=\\c""#),
            [Challenge::Basic { realm: r#"a  "b", Bearer realm=\c"#.into() }]
        );
    }

    #[test]
    fn several_challenges_come_from_one_header_and_from_several() {
        let mut headers = HeaderMap::new();
        headers.append(
            WWW_AUTHENTICATE,
            HeaderValue::from_static(
                r#"Negotiate, Basic realm="b", Bearer realm="https://a.example/t""#,
            ),
        );
        headers.append(
            WWW_AUTHENTICATE,
            HeaderValue::from_static(r#"Bearer realm="https://second.example/t""#),
        );
        assert_eq!(Challenge::all(&headers).len(), 3);
        assert_eq!(Challenge::choose(&headers), Some(bearer("https://a.example/t", None, None)));
    }

    #[test]
    fn a_realm_may_be_in_any_language() {
        let mut headers = HeaderMap::new();
        let value = HeaderValue::from_bytes("Basic realm=\"Régistre\"".as_bytes()).unwrap();
        headers.append(WWW_AUTHENTICATE, value);
        let realm = "Régistre".to_owned();
        assert_eq!(Challenge::choose(&headers), Some(Challenge::Basic { realm }));
    }

    #[test]
    fn a_challenge_that_cannot_be_read_hides_no_other() {
        let bearer = bearer("https://a.example/t", Some("reg"), None);
        for line in [
            r#"Negotiate abcd==, NTLM, Bearer realm="https://a.example/t",service="reg""#,
            r#"Negotiate YII, Bearer realm="https://a.example/t",service="reg""#,
            r#"NTLM, Bearer realm="https://a.example/t", service="reg", Negotiate"#,
            r#"Bearer realm=https://a.example/t,service=reg"#,
            r#"Bearer realm=https://a.example/t, service = reg, Digest nonce="a, b""#,
            r#"Digest realm="Bearer realm=\"x\"", Bearer service="reg",realm="https://a.example/t""#,
        ] {
            assert_eq!(Challenge::parse(line), std::slice::from_ref(&bearer), "{line}");
        }
    }

    #[test]
    fn a_password_is_asked_for_where_there_is_no_token_server() {
        let mut headers = HeaderMap::new();
        headers.append(
            WWW_AUTHENTICATE,
            HeaderValue::from_static(r#"Digest realm="d", nonce="n", Basic realm="b""#),
        );
        assert_eq!(Challenge::choose(&headers), Some(Challenge::Basic { realm: "b".into() }));
    }

    #[test]
    fn malformed_challenges_are_passed_over() {
        for line in [
            "",
            ",,,",
            "Bearer",
            "Bearer service=\"x\"",
            "Bearer realm=\"not a url\"",
            "Bearer realm=\"ftp://a.example/t\"",
            "Bearer realm=\"data:,x\"",
            "Bearer realm=\"https://user:pw@a.example/t\"",
            "Bearer realm=\"https://a.example/t",
            "Bearer realm==",
        ] {
            assert_eq!(Challenge::parse(line), [], "{line}");
        }
        let long = format!("Basic realm=\"{}\"", "x".repeat(MAX_HEADER_BYTES));
        assert_eq!(Challenge::parse(&long), []);
    }

    proptest! {
        #[test]
        fn no_header_text_makes_it_panic(line in "\\PC*") {
            Challenge::parse(&line);
        }

        #[test]
        fn no_near_miss_makes_it_panic(
            line in r#"((Basic|Bearer|bEaReR|realm|scope|service|=|,|"|\\| |\t|https://a/|é|x){1,4}){0,20}"#
        ) {
            Challenge::parse(&line);
        }

        #[test]
        fn any_value_survives_quoting(value in "[ -~]{0,60}") {
            let quoted = value.replace('\\', "\\\\").replace('"', "\\\"");
            prop_assert_eq!(
                Challenge::parse(&format!("Basic  realm=\"{quoted}\"")),
                [Challenge::Basic { realm: value }]
            );
        }

        #[test]
        fn no_bytes_in_a_header_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(value) = HeaderValue::from_bytes(&bytes) {
                let mut headers = HeaderMap::new();
                headers.append(WWW_AUTHENTICATE, value);
                Challenge::choose(&headers);
            }
        }
    }
}
