//! HAProxy before a registry. [`GatewayOptions`] sets what it does, as for
//! [`Nginx`](super::nginx::Nginx).

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::gateway::GatewayOptions;
use super::server_program::ServerProgram;

/// A running HAProxy; it is killed when this is dropped.
pub struct HaProxy {
    program: ServerProgram,
}

impl HaProxy {
    /// Starts HAProxy before a registry that listens at `upstream` without TLS.
    ///
    /// # Panics
    /// Where HAProxy is not installed or does not start.
    pub fn before(upstream: SocketAddr, options: &GatewayOptions<'_>) -> Self {
        let command = |dir: &Path, addr: SocketAddr| {
            let file = dir.join("haproxy.cfg");
            std::fs::write(&file, config(dir, addr, upstream, options)).expect("write haproxy.cfg");
            let mut command = Command::new("haproxy");
            command.arg("-db").arg("-f").arg(file);
            command
        };
        Self { program: ServerProgram::start(command, answers) }
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
        let log = self.program.log();
        let requests = log.lines().filter_map(|line| Some(line.split_once("request: ")?.1));
        // ServerProgram connects without a request to see whether HAProxy listens. Leave that out.
        requests.filter(|request| !request.starts_with("<BADREQ>")).map(str::to_owned).collect()
    }
}

/// Whether HAProxy answers at its control socket, which it does only once its port is bound.
fn answers(program: &ServerProgram) -> bool {
    let ask = || -> std::io::Result<String> {
        let mut socket = UnixStream::connect(program.dir().join("control"))?;
        socket.set_read_timeout(Some(Duration::from_secs(5)))?;
        socket.write_all(b"show info\n")?;
        let mut answer = String::new();
        socket.read_to_string(&mut answer)?;
        Ok(answer)
    };
    ask().is_ok_and(|answer| answer.contains(&format!("Pid: {}\n", program.pid())))
}

fn config(
    dir: &Path,
    addr: SocketAddr,
    upstream: SocketAddr,
    options: &GatewayOptions<'_>,
) -> String {
    let mut frontend = match options.tls {
        Some(authority) => {
            let identity = authority.server();
            // HAProxy wants the certificate and its key in one file.
            let parts = [identity.cert, identity.key]
                .map(|path| std::fs::read_to_string(path).expect("a PEM file of the authority"));
            let file = dir.join("server.pem");
            std::fs::write(&file, parts.concat()).expect("write server.pem");
            format!("bind {addr} ssl crt {} alpn h2,http/1.1\n", file.display())
        }
        None => format!("bind {addr}\n"),
    };
    if let Some(method) = options.refused_method {
        frontend.push_str(&format!("http-request deny deny_status 405 if {{ method {method} }}\n"));
    }
    if let Some(limit) = options.body_limit {
        frontend.push_str(&format!(
            "http-request deny deny_status 413 if {{ req.body_size gt {limit} }}\n"
        ));
    }
    if let Some(rate) = options.requests_per_second {
        frontend.push_str(&format!(
            "stick-table type ip size 1k expire 10s store http_req_rate(1s)\n\
             http-request track-sc0 src\n\
             http-request return status 429 hdr retry-after 1 if {{ sc_http_req_rate(0) gt {rate} }}\n"
        ));
    }
    if options.forwarded_proto {
        let scheme = if options.tls.is_some() { "https" } else { "http" };
        frontend.push_str(&format!("http-request set-header X-Forwarded-Proto {scheme}\n"));
    }
    format!(
        "global\n\
         stats socket {control}\n\
         log stdout format raw local0 info\n\
         defaults\n\
         mode http\n\
         log global\n\
         log-format \"request: %HM %HPO%HQ %ST\"\n\
         timeout connect 5s\n\
         timeout client 60s\n\
         timeout server 60s\n\
         frontend gateway\n\
         {frontend}\
         default_backend registry\n\
         backend registry\n\
         server registry {upstream}\n",
        control = dir.join("control").display()
    )
}
