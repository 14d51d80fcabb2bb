//! Saves and removes logins where docker, podman and skopeo look for them: in Docker's
//! `config.json` or a file that the user names, or in the credential program that this file names.
//!
//! A file is replaced by a rename, by one process at a time, with mode 0600. If it is a symlink,
//! its target is replaced. All other content of the file stays the same, byte for byte.

mod file;

use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use serde_json::value::RawValue;
use zeroize::Zeroizing;

use self::file::LockedConfig;
use super::super::hosts;
use super::docker_config::{DockerConfig, is_key_of, server_name};
use super::error::CredentialError;
use super::helper::Program;
use super::secret::Secret;
use super::sources::Sources;
use crate::event::{Event, Events};
use crate::registry::{Error, Options, Registry};

/// A login could not be checked or saved.
#[derive(Debug, thiserror::Error)]
pub enum LoginError {
    /// The registry refused the login, or could not be asked. Nothing was saved.
    #[error(transparent)]
    Check(#[from] Error),
    /// The login could not be written.
    #[error(transparent)]
    Keep(#[from] CredentialError),
}

/// Checks a user and a password with a registry, and saves them if the registry accepts them.
/// Returns where they were saved: a file, or a credential program and the file that names it.
///
/// `options.credentials` determine the file: `--auth-file`, `$REGISTRY_AUTH_FILE`, or else Docker's
/// `config.json`. For registry.fly.io the password may be a Fly token in any form.
pub async fn login(
    registry: &str,
    username: &str,
    password: &Secret,
    options: Options,
    events: Events,
) -> Result<String, LoginError> {
    let token = hosts::token_login(registry).and_then(|login| (login.password)(password));
    let password = token.unwrap_or_else(|| password.clone());
    let sources = options.credentials.clone();
    let mut options = options;
    options.credentials.explicit = Some((username.to_owned(), password.clone()));
    if !Registry::new(registry, options.into(), events.clone()).check_login().await? {
        events(Event::Warning(format!("{registry} asks for no login: this one is not checked")));
    }
    Ok(keep(registry, username, &password, &sources).await?)
}

/// Saves a login without asking the registry.
async fn keep(
    registry: &str,
    username: &str,
    password: &Secret,
    sources: &Sources,
) -> Result<String, CredentialError> {
    let path = path(sources)?;
    let file = LockedConfig::lock(&path).await?;
    let server = server_name(registry);
    let program = program(&file, registry, sources)?;
    let (entry, place) = match &program {
        Some(program) => {
            program.store(&server, username, password).await?;
            // docker writes an empty entry too; it shows that the program has the login.
            let place = format!("{} (named in {})", program.name(), path.display());
            (Zeroizing::new("{}".to_owned()), place)
        }
        None => {
            let login = Zeroizing::new(format!("{username}:{}", password.expose()));
            let auth = Zeroizing::new(STANDARD.encode(login.as_bytes()));
            let entry = Zeroizing::new(json!({ "auth": auth.as_str() }).to_string());
            (entry, path.display().to_string())
        }
    };
    file.change_auths(|auths| {
        let entry = RawValue::from_string(entry.to_string()).ok()?;
        match auths.iter_mut().find(|(key, _)| *key == server) {
            Some((_, old)) => *old = entry,
            None => auths.push((server.clone(), entry)),
        }
        Some(())
    })?;
    Ok(place)
}

/// Removes the login for a registry. Returns where it was; `None` if there was none.
pub async fn logout(registry: &str, sources: &Sources) -> Result<Option<String>, CredentialError> {
    let path = path(sources)?;
    let file = LockedConfig::lock(&path).await?;
    let mut place = None;
    if let Some(program) = program(&file, registry, sources)?
        && program.erase(&server_name(registry)).await?
    {
        place = Some(format!("{} (named in {})", program.name(), path.display()));
    }
    let mut removed = false;
    file.change_auths(|auths| {
        let before = auths.len();
        auths.retain(|(key, _)| !is_key_of(key, registry));
        removed = auths.len() < before;
        removed.then_some(())
    })?;
    Ok(place.or_else(|| removed.then(|| path.display().to_string())))
}

/// The file in which logins are saved.
fn path(sources: &Sources) -> Result<PathBuf, CredentialError> {
    let environment = &sources.environment;
    let named = sources.auth_file.as_ref().or(environment.registry_auth_file.as_ref()).cloned();
    let usual = || {
        let docker = environment.docker_config.as_ref().map(|folder| folder.join("config.json"));
        docker.or_else(|| Some(environment.home.as_ref()?.join(".docker/config.json")))
    };
    named.or_else(usual).ok_or(CredentialError::NoFile)
}

/// The credential program that the file names for a registry.
fn program(
    file: &LockedConfig,
    registry: &str,
    sources: &Sources,
) -> Result<Option<Program>, CredentialError> {
    let path = file.named();
    let config = DockerConfig::parse(path, file.bytes())?;
    let Some(name) = config.program_for(registry) else {
        return Ok(None);
    };
    let found = Program::find(&name, sources.environment.path.as_deref(), path)?;
    found.map(Some).ok_or_else(|| missing(&name, path, registry))
}

fn missing(name: &str, config: &Path, registry: &str) -> CredentialError {
    CredentialError::ProgramMissing {
        program: format!("docker-credential-{name}"),
        config: config.to_owned(),
        registry: registry.to_owned(),
    }
}

#[cfg(test)]
mod tests;
