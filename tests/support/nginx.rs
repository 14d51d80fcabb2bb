//! nginx before a registry.
//!
//! ```ignore
//! let registry = DockerRegistry::plain();
//! let authority = Authority::new();
//! // TLS, and the registry does not learn of it: its upload locations begin with http://.
//! let gateway = Nginx::before(registry.addr(), &GatewayOptions {
//!     tls: Some(&authority),
//!     ..Default::default()
//! });
//! Pushimg::new().run([archive, &format!("{}/app:v1", gateway.host()), "--ca-file", ca]);
//! gateway.requests(); // "PATCH /v2/app/blobs/uploads/… 202", one for each request
//! ```

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use super::gateway::GatewayOptions;
use super::server_program::ServerProgram;

/// A running nginx; it is killed when this is dropped.
pub struct Nginx {
    program: ServerProgram,
}

impl Nginx {
    /// Starts nginx before a registry that listens at `upstream` without TLS.
    ///
    /// # Panics
    /// Where nginx is not installed or does not start.
    pub fn before(upstream: SocketAddr, options: &GatewayOptions<'_>) -> Self {
        let command = |dir: &Path, addr: SocketAddr| {
            let file = dir.join("nginx.conf");
            std::fs::write(&file, config(dir, addr, upstream, options)).expect("write nginx.conf");
            let mut command = Command::new("nginx");
            command.arg("-p").arg(dir).arg("-e").arg(dir.join("log")).arg("-c").arg(file);
            command
        };
        // nginx logs the event method after it has bound its port.
        let program = ServerProgram::start(command, |nginx| nginx.log().contains("event method"));
        Self { program }
    }

    pub fn addr(&self) -> SocketAddr {
        self.program.addr()
    }

    /// `127.0.0.1:<port>`, as it stands in a reference.
    pub fn host(&self) -> String {
        self.addr().to_string()
    }

    /// Method, path and status of each request that is done, in order of their ends.
    pub fn requests(&self) -> Vec<String> {
        let log = std::fs::read_to_string(self.program.dir().join("access")).unwrap_or_default();
        log.lines().map(str::to_owned).collect()
    }
}

fn config(
    dir: &Path,
    addr: SocketAddr,
    upstream: SocketAddr,
    options: &GatewayOptions<'_>,
) -> String {
    let dir = dir.display();
    let mut server = String::new();
    match options.tls {
        Some(authority) => {
            let identity = authority.server();
            server.push_str(&format!(
                "listen {addr} ssl http2;\nssl_certificate {};\nssl_certificate_key {};\n",
                identity.cert.display(),
                identity.key.display()
            ));
        }
        None => server.push_str(&format!("listen {addr};\n")),
    }
    // 0 is no limit.
    server.push_str(&format!("client_max_body_size {};\n", options.body_limit.unwrap_or(0)));
    if let Some(method) = options.refused_method {
        server.push_str(&format!("if ($request_method = {method}) {{ return 405; }}\n"));
    }
    let mut limit = String::new();
    if let Some(rate) = options.requests_per_second {
        limit = format!("limit_req_zone $server_port zone=all:1m rate={rate}r/s;\n");
        server.push_str(&format!(
            "limit_req zone=all burst={rate} nodelay;\nlimit_req_status 429;\n\
             error_page 429 @too_many;\n\
             location @too_many {{ add_header Retry-After 1 always; return 429 'slow down'; }}\n"
        ));
    }
    let forwarded_proto = match options.forwarded_proto {
        true => "proxy_set_header X-Forwarded-Proto $scheme;\n",
        false => "",
    };
    format!(
        "daemon off;\n\
         master_process off;\n\
         pid {dir}/pid;\n\
         error_log {dir}/log notice;\n\
         events {{}}\n\
         http {{\n\
         log_format short '$request_method $request_uri $status';\n\
         access_log {dir}/access short;\n\
         client_body_temp_path {dir}/body;\n\
         proxy_temp_path {dir}/proxy;\n\
         fastcgi_temp_path {dir}/fastcgi;\n\
         uwsgi_temp_path {dir}/uwsgi;\n\
         scgi_temp_path {dir}/scgi;\n\
         {limit}\
         server {{\n\
         {server}\
         location / {{\n\
         proxy_pass http://{upstream};\n\
         proxy_http_version 1.1;\n\
         proxy_request_buffering off;\n\
         proxy_buffering off;\n\
         proxy_set_header Host $http_host;\n\
         {forwarded_proto}\
         }}\n\
         }}\n\
         }}\n"
    )
}
