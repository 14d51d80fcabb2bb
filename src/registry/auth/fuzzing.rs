//! Fuzz targets for authentication: challenges, answers of token servers, credentials files.

use std::path::Path;

use reqwest::header::{HeaderMap, HeaderValue, WWW_AUTHENTICATE};

use super::challenge::Challenge;
use super::docker_config::DockerConfig;
use super::secret::Secret;
use super::{fly, token};

/// `WWW-Authenticate`: each line of `data` is one header line.
pub fn challenge(data: &[u8]) {
    let headers: HeaderMap = data
        .split(|&byte| byte == b'\n')
        .filter_map(|line| Some((WWW_AUTHENTICATE, HeaderValue::from_bytes(line).ok()?)))
        .collect();
    let all = Challenge::all(&headers);
    assert_eq!(Challenge::choose(&headers).is_some(), !all.is_empty());
    for challenge in all {
        if let Challenge::Bearer { realm, .. } = challenge {
            assert!(matches!(realm.scheme(), "http" | "https") && realm.has_host());
            assert!(realm.username().is_empty() && realm.password().is_none());
        }
    }
}

/// A token server's answer.
pub fn token_answer(data: &[u8]) {
    if let Ok((token, life)) = token::parse(data) {
        assert!(!token.is_empty() && !life.is_zero());
    }
    token::words(data);
}

/// Docker's config.json, and a Fly token.
pub fn docker_config(data: &[u8]) {
    let path = Path::new("/config.json");
    match DockerConfig::parse(path, data) {
        Ok(config) => {
            for (registry, repository) in
                [("docker.io", "library/a"), ("r.example:5000", "a/b"), ("r.example", "a")]
            {
                if let Ok(listed) = config.lookup(registry, repository) {
                    assert!(!listed.servers.is_empty());
                    assert!(listed.helper.is_none_or(|name| !name.is_empty()));
                }
            }
        }
        Err(error) => assert!(error.to_string().contains("/config.json")),
    }
    if let Ok(text) = std::str::from_utf8(data)
        && let Some(password) = fly::password(&Secret::new(text))
    {
        assert!(!password.is_empty() && !password.expose().contains(",,"));
    }
}
