"""A registry as the field has it, for scripts/bench: three hosts, each a round trip away.

    registry.test   docker-registry over TLS; answers 401 until a token comes
    auth.test       gives the tokens
    storage.test    has the blobs' bytes, to which the registry redirects

Each is behind a slow_proxy.py of its own. The names stand in a hosts file that
only the measured command sees (a private mount of /etc/hosts), so this needs
root. The certificates are of an authority that only SSL_CERT_FILE names.
"""

import base64
import json
import os
import shutil
import ssl
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from pathlib import Path

import bench_lab

HERE = Path(__file__).resolve().parent
HOSTS = ("registry.test", "auth.test", "storage.test")
USER, PASSWORD = "bench", "secret"
ISSUER, SERVICE = "bench", "registry"


class NotHere(Exception):
    """The setting cannot be made here; the text says why."""


def requirements() -> None:
    """Raises NotHere if something is missing."""
    if os.geteuid() != 0:
        raise NotHere("only root may give the hosts names of their own")
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode != 0:
        raise NotHere("root may not unshare mounts here")
    for program in ("nginx", "openssl"):
        if not shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin"):
            raise NotHere(f"{program} is missing")


class FarRegistry(bench_lab.Registry):
    """docker-registry, a token server and a storage host, far away."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.certificates = folder / "tls"
        self.hosts = folder / "hosts"
        self.own_ports, self.servers, self.proxies = {}, [], []
        self.ports = dict(zip(HOSTS, bench_lab.free_ports(len(HOSTS))))
        self.port = self.ports["registry.test"]
        make_certificates(self.certificates)
        self.hosts.write_text("127.0.0.1 localhost\n" + "".join(f"127.0.0.1 {h}\n" for h in HOSTS))
        self.token = make_token(self.certificates)

    def start(self, proxied: bool = False, rtt: float = 0, mbit: float = 0) -> None:
        self.own_ports = dict(zip(HOSTS, bench_lab.free_ports(len(HOSTS))))
        self._start_registry()
        self._start_storage()
        self._start_token_server()
        for host, own_port in self.own_ports.items():
            self._wait_until(lambda own_port=own_port: bench_lab.connect(own_port))
            proxy = bench_lab.slow_proxy(self.ports[host], own_port, rtt, mbit)
            self.proxies.append(proxy)
            self._wait_until(lambda host=host: bench_lab.connect(self.ports[host]))
        self.before = self._requests()

    def stop(self) -> dict:
        counts = Counter()
        for proxy in self.proxies:
            counts.update(bench_lab.stop_proxy(proxy))
        for server in self.servers:
            bench_lab.end(server)
        self.proxies, self.servers = [], []
        return counts

    def destination(self, repository: str = bench_lab.REPOSITORY) -> str:
        return f"registry.test:{self.port}/{repository}:latest"

    def environment(self, home: Path) -> dict:
        """What the measured command needs besides: the authority, and the login."""
        login = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        docker = home / ".docker"
        docker.mkdir(exist_ok=True)
        auths = {"auths": {f"registry.test:{self.port}": {"auth": login}}}
        (docker / "config.json").write_text(json.dumps(auths))
        return {"SSL_CERT_FILE": str(self.certificates / "ca.pem")}

    def within(self, command: list) -> list:
        """The command, run where the hosts have their names."""
        bind = 'mount --bind "$0" /etc/hosts && exec "$@"'
        return ["unshare", "--mount", "sh", "-c", bind, str(self.hosts), *command]

    def manifest(self, repository: str) -> bytes:
        url = f"https://127.0.0.1:{self.own_ports['registry.test']}/v2/{repository}/manifests/latest"
        headers = {"Accept": bench_lab.MANIFEST_TYPES, "Authorization": f"Bearer {self.token}"}
        # Around the proxy, and so not by a name that the certificate has.
        trusting = ssl.create_default_context()
        trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
        request = urllib.request.Request(url, headers=headers)
        with urllib.request.urlopen(request, timeout=10, context=trusting) as response:
            return response.read()

    def _start_registry(self) -> None:
        storage = f"https://storage.test:{self.ports['storage.test']}/"
        config = bench_lab.registry_config(self.storage, self.own_ports["registry.test"])
        config["http"]["host"] = f"https://registry.test:{self.port}"
        config["http"]["tls"] = {
            "certificate": str(self.certificates / "server.pem"),
            "key": str(self.certificates / "server.key"),
        }
        config["auth"] = {
            "token": {
                "realm": f"https://auth.test:{self.ports['auth.test']}/token",
                "service": SERVICE,
                "issuer": ISSUER,
                "rootcertbundle": str(self.certificates / "token.pem"),
            }
        }
        config["middleware"] = {"storage": [{"name": "redirect", "options": {"baseurl": storage}}]}
        self.config.write_text(json.dumps(config))
        self._spawn(["docker-registry", "serve", str(self.config)], self.log)

    def _start_storage(self) -> None:
        folder = self.config.parent
        config = folder / "nginx.conf"
        config.write_text(
            f"""daemon off; pid {folder}/nginx.pid; error_log {folder}/nginx.log; user root;
worker_processes 1;
events {{ worker_connections 1024; }}
http {{
  access_log off;
  client_body_temp_path {folder}/nginx; proxy_temp_path {folder}/nginx;
  fastcgi_temp_path {folder}/nginx; uwsgi_temp_path {folder}/nginx; scgi_temp_path {folder}/nginx;
  server {{
    listen 127.0.0.1:{self.own_ports["storage.test"]} ssl http2;
    ssl_certificate {self.certificates}/server.pem;
    ssl_certificate_key {self.certificates}/server.key;
    ssl_protocols TLSv1.2 TLSv1.3;  # as storage services have it; nginx 1.22 leaves 1.3 out
    root {self.storage};
  }}
}}
"""
        )
        nginx = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
        self._spawn([nginx, "-c", str(config)], folder / "nginx.out")

    def _start_token_server(self) -> None:
        command = [sys.executable, str(HERE / "token_server.py")]
        command += ["--listen", str(self.own_ports["auth.test"]), "--user", f"{USER}:{PASSWORD}"]
        command += ["--certificate", str(self.certificates / "server.pem")]
        command += ["--key", str(self.certificates / "server.key")]
        token = self.config.parent / "token"
        token.write_text(self.token)
        self._spawn([*command, "--token", str(token)], self.config.parent / "token.log")

    def _spawn(self, command: list, log: Path) -> None:
        self.server = bench_lab.spawn(command, log)
        self.servers.append(self.server)


def openssl(*arguments: str, **options) -> bytes:
    return subprocess.run(["openssl", *arguments], capture_output=True, check=True, **options).stdout


def make_certificates(folder: Path) -> None:
    """An authority, a certificate of it for all three hosts, and the token server's own."""
    folder.mkdir(exist_ok=True)
    name = lambda file: str(folder / file)
    new = ("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "30")
    openssl(*new, "-subj", "/CN=bench authority", "-keyout", name("ca.key"), "-out", name("ca.pem"))
    openssl(*new, "-subj", "/CN=bench tokens", "-keyout", name("token.key"), "-out", name("token.pem"))
    request = ("req", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=registry.test")
    openssl(*request, "-keyout", name("server.key"), "-out", name("server.csr"))
    names = ",".join(f"DNS:{host}" for host in HOSTS)
    (folder / "names").write_text(f"subjectAltName={names}\nbasicConstraints=CA:FALSE\n")
    sign = ("x509", "-req", "-days", "30", "-CAcreateserial", "-extfile", name("names"))
    authority = ("-CA", name("ca.pem"), "-CAkey", name("ca.key"))
    openssl(*sign, *authority, "-in", name("server.csr"), "-out", name("server.pem"))


def make_token(folder: Path) -> str:
    """A JSON web token that allows all of one repository, signed with the token server's key."""

    def encoded(data: bytes) -> str:
        return base64.urlsafe_b64encode(data).rstrip(b"=").decode()

    certificate = openssl("x509", "-in", str(folder / "token.pem"), "-outform", "DER")
    header = {"typ": "JWT", "alg": "RS256", "x5c": [base64.b64encode(certificate).decode()]}
    now = int(time.time())
    access = {"type": "repository", "name": bench_lab.REPOSITORY, "actions": ["pull", "push"]}
    claims = {
        "iss": ISSUER,
        "sub": USER,
        "aud": SERVICE,
        "exp": now + 24 * 3600,
        "nbf": now - 60,
        "iat": now,
        "jti": "bench",
        "access": [access],
    }
    text = f"{encoded(json.dumps(header).encode())}.{encoded(json.dumps(claims).encode())}"
    signed = openssl("dgst", "-sha256", "-sign", str(folder / "token.key"), input=text.encode())
    return f"{text}.{encoded(signed)}"
