//! Docker's `config.json` and containers' `auth.json`: what such a file says about one registry.
//!
//! For a registry and a repository, this module returns the best matching entry and the credential
//! programs to ask. It reads the file as Go does. It runs nothing and shows no text of the file,
//! because that may be a password: an error only names a place or a field.
//!
//! containers-auth.json(5); docker/cli `cli/config`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde::Deserialize;
use zeroize::Zeroizing;

use super::credential::Credential;
use super::error::CredentialError;
use super::secret::Secret;
use crate::json;

/// The name of Docker Hub for `docker login` and for credential programs.
const HUB_SERVER: &str = "https://index.docker.io/v1/";
/// The name of Docker Hub in this module.
const HUB: &str = "docker.io";
const HUB_NAMES: [&str; 4] = [HUB, "index.docker.io", "registry-1.docker.io", "www.docker.io"];

const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// A file of credentials.
#[derive(Debug)]
pub(super) struct DockerConfig {
    path: PathBuf,
    content: ConfigFile,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ConfigFile {
    auths: Option<BTreeMap<String, Option<AuthEntry>>>,
    cred_helpers: Option<BTreeMap<String, String>>,
    creds_store: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
struct AuthEntry {
    auth: Option<Secret>,
    username: Option<String>,
    password: Option<Secret>,
    identitytoken: Option<Secret>,
    registrytoken: Option<Secret>,
}

/// What a file says about one registry and repository, in order of priority.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct HostLogins {
    /// The program for this registry alone (`credHelpers`).
    pub helper: Option<String>,
    /// The credential in the file itself (`auths`).
    pub credential: Option<Credential>,
    /// The program for all registries (`credsStore`).
    pub store: Option<String>,
    /// Whether the file has an entry without a credential. `docker login` writes such an entry if
    /// the store has the credential.
    pub in_store: bool,
    /// The server names under which to ask the programs for this registry.
    pub servers: Vec<String>,
}

impl DockerConfig {
    /// Reads a file's content. An empty file has no entries.
    pub fn parse(path: &Path, bytes: &[u8]) -> Result<Self, CredentialError> {
        let content = match bytes.trim_ascii() {
            [] => ConfigFile::default(),
            bytes => json::from_slice(bytes)
                .map_err(|source| CredentialError::Json { path: path.to_owned(), source })?,
        };
        Ok(Self { path: path.to_owned(), content })
    }

    /// What the file says about a registry, in the user's spelling, and a repository there.
    pub fn lookup(&self, registry: &str, repository: &str) -> Result<HostLogins, CredentialError> {
        let host = canonical_host(registry);
        let entry = self.entry(&host, registry, repository);
        let mut servers = vec![server_name(registry)];
        let credential = match entry {
            Some((key, entry)) => {
                if !servers.contains(key) {
                    servers.push(key.clone());
                }
                entry.credential().map_err(|problem| CredentialError::Entry {
                    path: self.path.clone(),
                    key: key.clone(),
                    problem,
                })?
            }
            None => None,
        };
        let helper = self.helper(&host, repository);
        Ok(HostLogins {
            in_store: entry.is_some() && credential.is_none(),
            helper: helper.filter(|name| !name.is_empty()),
            credential,
            store: self.content.creds_store.clone().filter(|name| !name.is_empty()),
            servers,
        })
    }

    /// The program that stores logins for a registry.
    pub fn program_for(&self, registry: &str) -> Option<String> {
        let helper = self.helper(&canonical_host(registry), "");
        helper.or_else(|| self.content.creds_store.clone()).filter(|name| !name.is_empty())
    }

    /// The program for this registry alone.
    fn helper(&self, host: &str, repository: &str) -> Option<String> {
        let mut all = self.content.cred_helpers.iter().flatten();
        let fits = |key: &str| Key::parse(key).matches(host, repository).is_some();
        all.find(|(key, _)| fits(key)).map(|(_, program)| program.clone())
    }

    /// The matching entry with the longest path. If there are several, prefer one that is not
    /// empty, and then the one in the user's spelling of the registry.
    fn entry(&self, host: &str, written: &str, repository: &str) -> Option<(&String, &AuthEntry)> {
        self.content
            .auths
            .iter()
            .flatten()
            .filter_map(|(key, entry)| {
                const EMPTY: &AuthEntry = &AuthEntry {
                    auth: None,
                    username: None,
                    password: None,
                    identitytoken: None,
                    registrytoken: None,
                };
                let entry = entry.as_ref().unwrap_or(EMPTY);
                let length = Key::parse(key).matches(host, repository)?;
                Some(((length, !entry.is_empty(), key == written), key, entry))
            })
            .max_by_key(|(rank, ..)| *rank)
            .map(|(_, key, entry)| (key, entry))
    }
}

impl AuthEntry {
    fn is_empty(&self) -> bool {
        let Self { auth, username, password, identitytoken, registrytoken } = self;
        username.as_deref().unwrap_or_default().is_empty()
            && [auth, password, identitytoken, registrytoken]
                .into_iter()
                .all(|secret| filled(secret).is_none())
    }

    /// The credential in the entry that docker would use first.
    fn credential(&self) -> Result<Option<Credential>, &'static str> {
        if let Some(token) = filled(&self.registrytoken) {
            return Ok(Some(Credential::RegistryToken(token.clone())));
        }
        if let Some(token) = filled(&self.identitytoken) {
            return Ok(Some(Credential::IdentityToken(token.clone())));
        }
        if let Some(auth) = filled(&self.auth) {
            return decode(auth).map(Some);
        }
        match (self.username.as_ref().filter(|name| !name.is_empty()), filled(&self.password)) {
            (Some(username), Some(password)) => {
                Ok(Some(Credential::from_login(username, password.clone())))
            }
            (Some(_), None) => Err("it has a username and no password"),
            (None, Some(_)) => Err("it has a password and no username"),
            (None, None) => Ok(None),
        }
    }
}

/// The name under which docker and credential programs know a registry.
pub(super) fn server_name(registry: &str) -> String {
    match canonical_host(registry).as_str() {
        HUB => HUB_SERVER.to_owned(),
        _ => registry.to_owned(),
    }
}

/// Whether a key of `auths` is for this whole registry, not for a single repository.
pub(super) fn is_key_of(key: &str, registry: &str) -> bool {
    let key = Key::parse(key);
    key.path.is_empty() && key.host == canonical_host(registry)
}

fn filled(secret: &Option<Secret>) -> Option<&Secret> {
    secret.as_ref().filter(|secret| !secret.is_empty())
}

fn decode(auth: &Secret) -> Result<Credential, &'static str> {
    const NOT_BASE64: &str = "its \"auth\" is not the base64 of user:password";
    let bytes = BASE64.decode(auth.expose().trim()).map(Zeroizing::new).map_err(|_| NOT_BASE64)?;
    let text = std::str::from_utf8(&bytes).map_err(|_| NOT_BASE64)?;
    let (username, password) = text.split_once(':').ok_or(NOT_BASE64)?;
    // Some versions of docker append NUL bytes.
    let password = password.trim_matches('\0');
    if username.is_empty() || password.is_empty() {
        return Err("its \"auth\" lacks the user or the password");
    }
    Ok(Credential::from_login(username, Secret::new(password)))
}

/// A key of `auths`: `host`, `host:port`, `https://host/v1/`, `host/namespace/repository`.
struct Key<'a> {
    host: String,
    path: &'a str,
}

impl<'a> Key<'a> {
    fn parse(text: &'a str) -> Self {
        let bare = strip_scheme(text);
        let (host, path) = bare.split_once('/').unwrap_or((bare, ""));
        let path = path.trim_matches('/');
        // A key with a scheme is the URL of an API, not the name of a repository.
        let is_api = bare.len() != text.len() || matches!(path, "v1" | "v2");
        Self { host: canonical_host(host), path: if is_api { "" } else { path } }
    }

    /// The length of the part of the repository's name that the key covers.
    fn matches(&self, host: &str, repository: &str) -> Option<usize> {
        let rest = repository.strip_prefix(self.path)?;
        let whole = self.path.is_empty() || rest.is_empty() || rest.starts_with('/');
        (self.host == host && whole).then_some(self.path.len())
    }
}

fn strip_scheme(text: &str) -> &str {
    ["https://", "http://"]
        .iter()
        .find_map(|scheme| {
            text.get(..scheme.len())
                .filter(|start| start.eq_ignore_ascii_case(scheme))
                .map(|_| &text[scheme.len()..])
        })
        .unwrap_or(text)
}

/// A single spelling for each registry: lower case, no default port, one name for Docker Hub.
fn canonical_host(text: &str) -> String {
    let host = text.to_ascii_lowercase();
    let host = host.strip_suffix(":443").unwrap_or(&host);
    if HUB_NAMES.contains(&host) { HUB.to_owned() } else { host.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lookup(json: &str, registry: &str, repository: &str) -> HostLogins {
        DockerConfig::parse(Path::new("/c.json"), json.as_bytes())
            .unwrap()
            .lookup(registry, repository)
            .unwrap()
    }

    fn user(json: &str, registry: &str, repository: &str) -> Option<String> {
        match lookup(json, registry, repository).credential {
            Some(Credential::Basic { username, .. }) => Some(username),
            Some(other) => panic!("{other:?}"),
            None => None,
        }
    }

    fn login(username: &str, password: &str) -> Option<Credential> {
        Some(Credential::from_login(username, Secret::new(password)))
    }

    #[test]
    fn a_registry_is_found_however_its_key_is_written() {
        for key in [
            "registry.example:5000",
            "https://registry.example:5000",
            "http://Registry.Example:5000/",
            "HTTPS://registry.example:5000/v1/",
            "https://registry.example:5000/v2/",
            "registry.example:5000/v2",
        ] {
            let json = format!(r#"{{"auths":{{"{key}":{{"auth":"dTpwOnE="}}}}}}"#);
            assert_eq!(
                lookup(&json, "registry.example:5000", "a/b").credential,
                login("u", "p:q"),
                "{key}"
            );
            assert_eq!(user(&json, "registry.example", "a/b"), None, "{key}");
            assert_eq!(user(&json, "registry.example:5001", "a/b"), None, "{key}");
            assert_eq!(user(&json, "example:5000", "a/b"), None, "{key}");
        }
        let json = r#"{"auths":{"registry.example:443":{"username":"u","password":"p"}}}"#;
        assert_eq!(user(json, "registry.example", "a").as_deref(), Some("u"));
    }

    #[test]
    fn docker_hub_is_one_registry_with_many_names() {
        for key in
            ["docker.io", "index.docker.io", "https://index.docker.io/v1/", "registry-1.docker.io"]
        {
            let json = format!(r#"{{"auths":{{"{key}":{{"username":"u","password":"p"}}}}}}"#);
            for name in ["docker.io", "index.docker.io", "registry-1.docker.io"] {
                let listed = lookup(&json, name, "library/nginx");
                assert_eq!(listed.credential, login("u", "p"), "{key} {name}");
                assert_eq!(listed.servers[0], "https://index.docker.io/v1/");
            }
        }
    }

    #[test]
    fn the_longest_path_wins() {
        let json = r#"{"auths":{
            "h.example":        {"username":"host","password":"p"},
            "h.example/ns":     {"username":"ns","password":"p"},
            "h.example/ns/app": {"username":"app","password":"p"},
            "other.example/ns/app": {"username":"other","password":"p"}
        }}"#;
        for (repository, expected) in [
            ("ns/app", "app"),
            ("ns/app/sub", "app"),
            ("ns/application", "ns"),
            ("ns", "ns"),
            ("nsx/app", "host"),
            ("v1", "host"),
        ] {
            assert_eq!(
                user(json, "h.example", repository).as_deref(),
                Some(expected),
                "{repository}"
            );
        }
        assert_eq!(user(json, "other.example", "elsewhere"), None);
    }

    #[test]
    fn of_two_keys_for_one_registry_the_filled_one_counts() {
        for json in [
            r#"{"auths":{"h.example":{},"https://h.example":{"username":"u","password":"p"}}}"#,
            r#"{"auths":{"https://h.example":{},"h.example":{"username":"u","password":"p"}}}"#,
        ] {
            assert_eq!(user(json, "h.example", "a").as_deref(), Some("u"));
        }
    }

    #[test]
    fn an_entry_without_credential_sends_us_to_the_store() {
        for entry in ["{}", "null", r#"{"auth":""}"#, r#"{"email":"a@b"}"#] {
            let json = format!(
                r#"{{"auths":{{"https://h.example/v1/":{entry}}},"credsStore":"desktop"}}"#
            );
            let listed = lookup(&json, "h.example", "a");
            assert_eq!(listed.credential, None);
            assert!(listed.in_store);
            assert_eq!(listed.store.as_deref(), Some("desktop"));
            assert_eq!(listed.servers, ["h.example", "https://h.example/v1/"]);
        }
        assert!(!lookup(r#"{"credsStore":"desktop"}"#, "h.example", "a").in_store);
    }

    #[test]
    fn a_program_may_be_named_for_one_registry() {
        let json = r#"{"credHelpers":{"h.example":"one","docker.io":"hub"},"credsStore":"all"}"#;
        assert_eq!(lookup(json, "h.example", "a").helper.as_deref(), Some("one"));
        assert_eq!(lookup(json, "index.docker.io", "library/a").helper.as_deref(), Some("hub"));
        assert_eq!(lookup(json, "other.example", "a").helper, None);
    }

    #[test]
    fn tokens_rank_above_passwords() {
        let json = r#"{"auths":{
            "a":{"auth":"dTpw","identitytoken":"id"},
            "b":{"auth":"dTpw","identitytoken":"id","registrytoken":"reg"},
            "c":{"username":"<token>","password":"id"}
        }}"#;
        assert_eq!(
            lookup(json, "a", "r").credential,
            Some(Credential::IdentityToken(Secret::new("id")))
        );
        assert_eq!(
            lookup(json, "b", "r").credential,
            Some(Credential::RegistryToken(Secret::new("reg")))
        );
        assert_eq!(
            lookup(json, "c", "r").credential,
            Some(Credential::IdentityToken(Secret::new("id")))
        );
    }

    #[test]
    fn base64_is_read_with_and_without_padding() {
        for auth in ["dXM6cA==", "dXM6cA", "dXM6cAA="] {
            let json = format!(r#"{{"auths":{{"h":{{"auth":"{auth}"}}}}}}"#);
            assert_eq!(lookup(&json, "h", "r").credential, login("us", "p"));
        }
    }

    #[test]
    fn a_broken_entry_matters_only_for_its_own_registry() {
        for entry in [
            r#"{"auth":"%%hunter2"}"#,
            r#"{"auth":"aHVudGVyMg=="}"#,
            r#"{"auth":"Omh1bnRlcjI="}"#,
            r#"{"password":"hunter2"}"#,
        ] {
            let json = format!(
                r#"{{"auths":{{"bad.example":{entry},"h":{{"username":"u","password":"p"}}}}}}"#
            );
            let config = DockerConfig::parse(Path::new("/c.json"), json.as_bytes()).unwrap();
            let error = config.lookup("bad.example", "r").unwrap_err().to_string();
            assert!(error.contains("/c.json") && error.contains("bad.example"), "{error}");
            assert!(!error.contains("hunter2") && !error.contains("aHVudGVyMg"), "{error}");
            assert_eq!(config.lookup("h", "r").unwrap().credential, login("u", "p"));
        }
    }

    #[test]
    fn a_syntax_error_names_file_and_place_but_shows_nothing() {
        for json in [
            r#"{"auths":{"h":"hunter2"}}"#,
            r#"{"auths":{"h":{"auth":"hunter2"}}"#,
            r#"{"auths":{"h":{"password":"hunter2" hunter2}}}"#,
            r#"["hunter2"]"#,
            "hunter2",
        ] {
            let error = DockerConfig::parse(Path::new("/c.json"), json.as_bytes()).unwrap_err();
            let text = format!("{error} {error:?}");
            assert!(text.contains("/c.json") && !text.contains("hunter2"), "{text}");
        }
    }

    #[test]
    fn a_file_is_read_as_go_reads_it() {
        for json in [
            r#"{"Auths":{"h":{"AUTH":"dTpw"}}}"#,
            r#"{"auths":{"h":{"auth":"eDp5","auth":"dTpw"}}}"#,
            r#"{"auths":{"h":{"auth":"dTpw","email":null,"identitytoken":null}},"credHelpers":null}"#,
            r#"{"auths":{"h":{"auth":"dTpw"}},"HttpHeaders":{"x":"\ud800"}}"#,
        ] {
            assert_eq!(lookup(json, "h", "r").credential, login("u", "p"), "{json}");
        }
        let bytes = b"{\"auths\":{\"h\":{\"auth\":\"dTpw\",\"email\":\"\xff\"}}}";
        let config = DockerConfig::parse(Path::new("/c"), bytes).unwrap();
        assert_eq!(config.lookup("h", "r").unwrap().credential, login("u", "p"));
        let listed = lookup(r#"{"credSstore":"desktop"}"#, "h", "r");
        assert_eq!(listed.store.as_deref(), Some("desktop"));
        let error = DockerConfig::parse(Path::new("/c"), br#"{"auths":{"h":{"auth":1}}}"#);
        let said = error.unwrap_err().to_string();
        assert!(
            said.contains("/c") && said.contains("auth") && said.contains("a string"),
            "{said}"
        );
    }

    #[test]
    fn an_empty_file_and_empty_sections_say_nothing() {
        for json in [
            "",
            " \n",
            "{}",
            r#"{"auths":null,"credHelpers":null,"credsStore":null}"#,
            r#"{"auths":{"":{"auth":"dTpw"}},"credsStore":"","HttpHeaders":{"a":"b"}}"#,
        ] {
            let listed = lookup(json, "h.example", "a");
            assert_eq!(
                listed,
                HostLogins { servers: vec!["h.example".into()], ..HostLogins::default() },
                "{json}"
            );
        }
    }
}
