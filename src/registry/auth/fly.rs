//! Fly tokens: makes the password for registry.fly.io from what Fly's tools call a token.
//!
//! A token may begin with a scheme word (`FlyV1 fm2_…`), and may be a list of macaroons and other
//! tokens. The registry accepts only the macaroons.

use zeroize::Zeroizing;

use super::secret::Secret;
const SCHEMES: [&str; 2] = ["FlyV1", "Bearer"];
const MACAROONS: [&str; 3] = ["fm1r_", "fm1a_", "fm2_"];

/// The password in a token; `None` if it contains none.
pub fn password(token: &Secret) -> Option<Secret> {
    let text = token.expose().trim();
    let bare = match text.split_once(char::is_whitespace) {
        Some((scheme, rest)) if SCHEMES.iter().any(|s| s.eq_ignore_ascii_case(scheme)) => rest,
        _ if SCHEMES.iter().any(|s| s.eq_ignore_ascii_case(text)) => "",
        _ => text,
    };
    let parts: Vec<&str> = bare.split(',').map(str::trim).filter(|part| !part.is_empty()).collect();
    let macaroons: Vec<&str> = parts
        .iter()
        .copied()
        .filter(|part| MACAROONS.iter().any(|prefix| part.starts_with(prefix)))
        .collect();
    let sent = if macaroons.is_empty() { parts } else { macaroons };
    let joined = Zeroizing::new(sent.join(","));
    (!joined.is_empty()).then(|| Secret::new(joined.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_macaroons_are_what_is_sent() {
        for (token, expected) in [
            ("fm2_abc", Some("fm2_abc")),
            ("FlyV1 fm2_abc,fm2_def", Some("fm2_abc,fm2_def")),
            ("  flyv1   fm2_abc \n", Some("fm2_abc")),
            ("Bearer fm1r_a", Some("fm1r_a")),
            ("FlyV1 fm1r_a, oauth-token ,fm1a_b,,fm2_c", Some("fm1r_a,fm1a_b,fm2_c")),
            ("oauth-token\n", Some("oauth-token")),
            ("one,two", Some("one,two")),
            ("", None),
            (" \t\n", None),
            ("FlyV1", None),
            ("FlyV1  ", None),
            ("Bearer ,", None),
        ] {
            let password = password(&Secret::new(token));
            assert_eq!(password.as_ref().map(Secret::expose), expected, "{token:?}");
        }
    }
}
