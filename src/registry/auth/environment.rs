//! The environment variables that contain credentials or say where they are.

use std::ffi::OsString;
use std::path::PathBuf;

use super::secret::Secret;

/// The environment variables that matter for credentials.
#[derive(Clone, Debug, Default)]
pub struct Environment {
    /// `REGISTRY_AUTH_FILE`: a file.
    pub registry_auth_file: Option<PathBuf>,
    /// `DOCKER_CONFIG`: the folder of `config.json`.
    pub docker_config: Option<PathBuf>,
    /// `DOCKER_AUTH_CONFIG`: the content of such a file.
    pub docker_auth_config: Option<Secret>,
    /// The folder of `auth.json`, where podman and skopeo log in: `$XDG_RUNTIME_DIR/containers`, or
    /// `/run/containers/<user ID>` where that variable is not set.
    pub containers_runtime: Option<PathBuf>,
    /// The folder of `auth.json` that outlives a restart: `$XDG_CONFIG_HOME/containers`, or
    /// `$HOME/.config/containers`.
    pub containers_config: Option<PathBuf>,
    /// `HOME`: the folder that contains `.docker/config.json`.
    pub home: Option<PathBuf>,
    /// `FLY_ACCESS_TOKEN`.
    pub fly_access_token: Option<Secret>,
    /// `FLY_API_TOKEN`.
    pub fly_api_token: Option<Secret>,
    /// `PATH`: where credential programs are.
    pub path: Option<OsString>,
}

impl Environment {
    /// The variables of this process. An empty variable counts as not set.
    pub fn capture() -> Self {
        Self::of(|name| std::env::var_os(name), rustix::process::getuid().as_raw())
    }

    pub(super) fn of(variable: impl Fn(&str) -> Option<OsString>, user_id: u32) -> Self {
        let text = |name| variable(name).filter(|value| !value.is_empty());
        let file = |name| text(name).map(PathBuf::from);
        // Go's programs also replace invalid UTF-8.
        let secret = |name| Some(Secret::new(text(name)?.to_string_lossy().into_owned()));
        let runtime = file("XDG_RUNTIME_DIR").map(|folder| folder.join("containers"));
        let config = file("XDG_CONFIG_HOME").or_else(|| Some(file("HOME")?.join(".config")));
        Self {
            registry_auth_file: file("REGISTRY_AUTH_FILE"),
            docker_config: file("DOCKER_CONFIG"),
            docker_auth_config: secret("DOCKER_AUTH_CONFIG"),
            containers_runtime: runtime
                .or_else(|| Some(format!("/run/containers/{user_id}").into())),
            containers_config: config.map(|folder| folder.join("containers")),
            home: file("HOME"),
            fly_access_token: secret("FLY_ACCESS_TOKEN"),
            fly_api_token: secret("FLY_API_TOKEN"),
            path: text("PATH"),
        }
    }
}
