//! Debian's `docker-registry` (the distribution project's own registry) as a child process on
//! loopback.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::htpasswd;
use super::server_program::ServerProgram;
use super::tls::{Authority, Identity};
use super::token_server::TokenServer;

/// [`BASIC_USER`] and [`BASIC_PASSWORD`], as the `htpasswd` program wrote them.
const HTPASSWD: &str = "pushimg:$2y$05$NX3ErORv14Blg3x4Gv0exenUHDy3LkWn1PY4AOuOmkkr2cBmEmJQ2\n";

/// The user the Basic variant knows.
pub const BASIC_USER: &str = "pushimg";
/// That user's password.
pub const BASIC_PASSWORD: &str = "correct horse";

/// Which variant to start; the default is plain: no auth, no TLS, deletion allowed.
#[derive(Default)]
pub struct DockerRegistryOptions<'a> {
    /// Asks for Basic auth; see [`BASIC_USER`].
    pub basic: bool,
    /// Asks for Basic auth; a user and a password each, which the `htpasswd` program encodes.
    pub logins: &'a [(&'a str, &'a str)],
    /// Asks for tokens of this server.
    pub token: Option<&'a TokenServer>,
    /// The realm to name in place of the token server's own URL: a proxy before it.
    pub realm: Option<String>,
    /// Serves HTTPS with a certificate of this authority.
    pub tls: Option<&'a Authority>,
    /// Serves HTTPS with this certificate.
    pub certificate: Option<&'a Identity>,
    /// With `tls`: takes only clients with a certificate of the authority.
    pub client_certificates: bool,
    /// Answers with relative upload locations.
    pub relative_urls: bool,
    /// Refuses DELETE.
    pub no_delete: bool,
}

/// A running `docker-registry`; it is killed when this is dropped.
pub struct DockerRegistry {
    program: ServerProgram,
    ca_file: Option<PathBuf>,
}

impl DockerRegistry {
    /// Starts the plain variant.
    pub fn plain() -> Self {
        Self::start(&DockerRegistryOptions::default())
    }

    /// Starts the variant with Basic auth for [`BASIC_USER`].
    pub fn basic() -> Self {
        Self::start(&DockerRegistryOptions { basic: true, ..Default::default() })
    }

    /// Starts the variant that wants tokens of this server.
    pub fn token(server: &TokenServer) -> Self {
        Self::start(&DockerRegistryOptions { token: Some(server), ..Default::default() })
    }

    /// Starts the variant with HTTPS.
    pub fn tls(authority: &Authority) -> Self {
        Self::start(&DockerRegistryOptions { tls: Some(authority), ..Default::default() })
    }

    /// Starts any variant and waits until it listens.
    ///
    /// # Panics
    /// Where the program is not installed, or does not come up within 20 s.
    pub fn start(options: &DockerRegistryOptions<'_>) -> Self {
        let command = |dir: &Path, addr: SocketAddr| {
            let file = dir.join("config.yml");
            std::fs::write(&file, Self::config(options, dir, addr)).expect("write config.yml");
            let mut command = Command::new("docker-registry");
            command.arg("serve").arg(file).env("OTEL_TRACES_EXPORTER", "none");
            command
        };
        let listens = |registry: &ServerProgram| registry.log().contains("listening on");
        Self {
            program: ServerProgram::start(command, listens),
            ca_file: options.tls.map(Authority::ca_file),
        }
    }

    fn config(options: &DockerRegistryOptions<'_>, dir: &Path, addr: SocketAddr) -> String {
        let mut yaml = format!(
            "version: 0.1\n\
             log:\n  level: info\n  accesslog:\n    disabled: true\n\
             storage:\n  filesystem:\n    rootdirectory: {storage}\n  delete:\n    enabled: {delete}\n  \
             maintenance:\n    uploadpurging:\n      enabled: false\n\
             http:\n  addr: {addr}\n  secret: laboratory\n  relativeurls: {relative}\n",
            storage = dir.join("storage").display(),
            delete = !options.no_delete,
            relative = options.relative_urls,
        );
        let issued = options.tls.map(Authority::server);
        if let Some(identity) = issued.as_ref().or(options.certificate) {
            yaml.push_str(&format!(
                "  tls:\n    certificate: {}\n    key: {}\n",
                identity.cert.display(),
                identity.key.display()
            ));
            if let (true, Some(authority)) = (options.client_certificates, options.tls) {
                let ca = authority.ca_file();
                yaml.push_str(&format!("    clientcas:\n      - {}\n", ca.display()));
            }
        }
        if options.basic || !options.logins.is_empty() {
            let path = dir.join("htpasswd");
            let known = if options.basic { HTPASSWD } else { "" };
            let others =
                options.logins.iter().map(|(user, password)| htpasswd::line(user, password));
            std::fs::write(&path, known.to_owned() + &others.collect::<String>())
                .expect("write htpasswd");
            yaml.push_str(&format!(
                "auth:\n  htpasswd:\n    realm: laboratory\n    path: {}\n",
                path.display()
            ));
        } else if let Some(server) = options.token {
            let path = dir.join("token.crt");
            std::fs::write(&path, server.certificate_pem()).expect("write token.crt");
            yaml.push_str(&format!(
                "auth:\n  token:\n    realm: {}\n    service: {}\n    issuer: {}\n    \
                 rootcertbundle: {}\n",
                options.realm.clone().unwrap_or_else(|| server.realm()),
                server.service(),
                server.issuer(),
                path.display()
            ));
        }
        yaml
    }

    pub fn addr(&self) -> SocketAddr {
        self.program.addr()
    }

    /// `127.0.0.1:<port>`, as it stands in a reference.
    pub fn host(&self) -> String {
        self.addr().to_string()
    }

    /// The authority's certificate, where it serves HTTPS.
    pub fn ca_file(&self) -> Option<&Path> {
        self.ca_file.as_deref()
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        self.program.log()
    }

    /// The folder with its blobs and uploads, `docker/registry/v2` below it.
    pub fn storage(&self) -> PathBuf {
        self.program.dir().join("storage")
    }

    /// Upload sessions of a repository that were opened and neither finished nor cancelled.
    pub fn open_uploads(&self, repository: &str) -> usize {
        let path = self
            .storage()
            .join("docker/registry/v2/repositories")
            .join(repository)
            .join("_uploads");
        // A cancelled session's folder stays, but not the file that says when it began.
        std::fs::read_dir(path).map_or(0, |sessions| {
            sessions.flatten().filter(|session| session.path().join("startedat").exists()).count()
        })
    }

    /// The digest a tag points to, as it stands on disk.
    pub fn tag(&self, repository: &str, tag: &str) -> Option<String> {
        let path = self
            .storage()
            .join("docker/registry/v2/repositories")
            .join(repository)
            .join("_manifests/tags")
            .join(tag)
            .join("current/link");
        std::fs::read_to_string(path).ok()
    }
}
