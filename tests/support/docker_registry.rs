//! Debian's `docker-registry` (the distribution project's own) as a child process on loopback.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::tls::Authority;
use super::token_server::TokenServer;

/// [`BASIC_USER`] and [`BASIC_PASSWORD`], as `htpasswd -Bbn -C 5` wrote them.
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
    /// Asks for tokens of this server.
    pub token: Option<&'a TokenServer>,
    /// The realm to name in place of the token server's own URL: a proxy before it.
    pub realm: Option<String>,
    /// Serves HTTPS with a certificate of this authority.
    pub tls: Option<&'a Authority>,
    /// With `tls`: takes only clients with a certificate of the authority.
    pub client_certificates: bool,
    /// Answers with relative upload locations.
    pub relative_urls: bool,
    /// Refuses DELETE.
    pub no_delete: bool,
}

/// A running `docker-registry`; it is killed when this is dropped.
pub struct DockerRegistry {
    child: Child,
    addr: SocketAddr,
    dir: TempDir,
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
        // Another process may take the free port before the registry does: then try another.
        for _ in 0..5 {
            if let Some(registry) = Self::try_start(options) {
                return registry;
            }
        }
        panic!("docker-registry found its port taken five times");
    }

    fn try_start(options: &DockerRegistryOptions<'_>) -> Option<Self> {
        let dir = TempDir::new().expect("a folder for docker-registry");
        let addr = TcpListener::bind("127.0.0.1:0")
            .and_then(|listener| listener.local_addr())
            .expect("a free port");
        let config = dir.path().join("config.yml");
        std::fs::write(&config, Self::config(options, dir.path(), addr)).expect("write config.yml");
        let log = std::fs::File::create(dir.path().join("log")).expect("a log file");
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(&config)
            .env("OTEL_TRACES_EXPORTER", "none")
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("the log file twice"))
            .stderr(log)
            .spawn()
            .unwrap_or_else(|error| {
                panic!(
                    "cannot start docker-registry ({error}): run scripts/test, which installs it"
                )
            });
        let mut registry = Self { child, addr, dir, ca_file: options.tls.map(Authority::ca_file) };
        let began = Instant::now();
        loop {
            if let Some(status) = registry.child.try_wait().expect("wait for docker-registry") {
                let log = registry.log();
                if log.contains("address already in use") {
                    return None;
                }
                panic!("docker-registry ended ({status}):\n{log}");
            }
            // Its own log line, since another program could be answering on this port.
            if registry.log().contains("listening on") && TcpStream::connect(addr).is_ok() {
                return Some(registry);
            }
            assert!(
                began.elapsed() < Duration::from_secs(20),
                "docker-registry does not listen:\n{}",
                registry.log()
            );
            std::thread::sleep(Duration::from_millis(10));
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
        if let Some(authority) = options.tls {
            let identity = authority.server();
            yaml.push_str(&format!(
                "  tls:\n    certificate: {}\n    key: {}\n",
                identity.cert.display(),
                identity.key.display()
            ));
            if options.client_certificates {
                let ca = authority.ca_file();
                yaml.push_str(&format!("    clientcas:\n      - {}\n", ca.display()));
            }
        }
        if options.basic {
            let path = dir.join("htpasswd");
            std::fs::write(&path, HTPASSWD).expect("write htpasswd");
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
        self.addr
    }

    /// `127.0.0.1:<port>`, as it stands in a reference.
    pub fn host(&self) -> String {
        self.addr.to_string()
    }

    /// The authority's certificate, where it serves HTTPS.
    pub fn ca_file(&self) -> Option<&Path> {
        self.ca_file.as_deref()
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// The folder with its blobs and uploads, `docker/registry/v2` below it.
    pub fn storage(&self) -> PathBuf {
        self.dir.path().join("storage")
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

impl Drop for DockerRegistry {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
