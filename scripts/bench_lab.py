"""The registry that scripts/bench pushes to: Debian's docker-registry on loopback, behind
slow_proxy.py where a case wants a slow line or its bytes counted."""

import hashlib
import json
import os
import random
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

HERE = Path(__file__).resolve().parent
REPOSITORY = "app"
MANIFEST_TYPES = ", ".join(
    (
        "application/vnd.docker.distribution.manifest.v2+json",
        "application/vnd.oci.image.manifest.v1+json",
    )
)


class LabError(Exception):
    """The registry did not come up; the text says why."""


class Registry:
    """docker-registry at one port, behind the proxy where a run asks for it."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.storage = folder / "storage"
        self.log = folder / "access.log"
        self.config = folder / "config.json"
        (self.port,) = free_ports(1)  # what clients see, with and without the proxy
        self.own_port = self.port  # where the server itself listens
        self.server = None
        self.proxy = None

    def start(self, proxied: bool = False, rtt: float = 0, mbit: float = 0) -> None:
        self.own_port = free_ports(1)[0] if proxied else self.port
        # JSON is YAML.
        self.config.write_text(json.dumps(registry_config(self.storage, self.own_port)))
        self.server = spawn(["docker-registry", "serve", str(self.config)], self.log)
        self._wait_until(lambda: urllib.request.urlopen(self._url("")).close())
        if proxied:
            self.proxy = slow_proxy(self.port, self.own_port, rtt, mbit)
            self._wait_until(lambda: connect(self.port))
        self.before = self._requests()

    def stop(self) -> dict:
        """Ends both; returns what the proxy counted, if there was one."""
        counts = stop_proxy(self.proxy) if self.proxy else {}
        if self.server:
            end(self.server)
        self.server, self.proxy = None, None
        return counts

    def destination(self, repository: str = REPOSITORY) -> str:
        return f"127.0.0.1:{self.port}/{repository}:latest"

    def environment(self, home: Path) -> dict:
        """What a tool needs besides a home of its own."""
        return {}

    def within(self, command: list) -> list:
        """The command, run where it can reach the registry."""
        return command

    def requests(self) -> dict:
        """Requests since the start, by method, as the access log has them."""
        now = self._requests()
        return {m: n - self.before.get(m, 0) for m, n in now.items() if n > self.before.get(m, 0)}

    def upload_url(self, blob: Path) -> str:
        """Opens an upload session; returns the URL that takes the blob by one PUT."""
        begin = urllib.request.Request(self._url(f"{REPOSITORY}/blobs/uploads/"), method="POST")
        with urllib.request.urlopen(begin, timeout=10) as response:
            location = response.headers["Location"]
        with blob.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        return f"{location}&digest=sha256:{digest}"

    def processor_seconds(self) -> float:
        """The processor time that the server has used, proc(5)."""
        fields = Path(f"/proc/{self.server.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def reset(self, seed: Path = None) -> None:
        """Empties the storage, or fills it with what a seed holds."""
        shutil.rmtree(self.storage, ignore_errors=True)
        if seed is None:
            self.storage.mkdir(parents=True)
        else:
            shutil.copytree(seed, self.storage, copy_function=self._copy)

    def manifest(self, repository: str) -> bytes:
        """What the repository's tag points to."""
        request = urllib.request.Request(
            self._url(f"{repository}/manifests/latest"), headers={"Accept": MANIFEST_TYPES}
        )
        with urllib.request.urlopen(request, timeout=10) as response:
            return response.read()

    @staticmethod
    def _copy(source: str, target: str) -> None:
        # Blobs are only ever moved into place, so a second link to one is
        # safe; the small files beside them are written where they stand.
        if os.path.basename(source) == "data":
            os.link(source, target)
        else:
            shutil.copyfile(source, target)

    def _requests(self) -> dict:
        time.sleep(0.1)  # the log's last lines
        counts = {}
        for method in re.findall(r'"([A-Z]+) /v2/', self.log.read_text(errors="replace")):
            counts[method] = counts.get(method, 0) + 1
        return counts

    def _url(self, path: str) -> str:
        # Around the proxy, whose counts are the tools' alone.
        return f"http://127.0.0.1:{self.own_port}/v2/{path}"

    def _wait_until(self, answered) -> None:
        for _ in range(200):
            if self.server.poll() is not None:
                break
            try:
                return answered()
            except OSError:
                time.sleep(0.05)
        log = self.log.read_text(errors="replace")
        raise LabError(f"{self.server.args[0]} did not start:\n{log}")


def registry_config(storage: Path, port: int) -> dict:
    return {
        "version": "0.1",
        "log": {"level": "error", "accesslog": {"disabled": False}},
        # No cache of blobs: the storage is exchanged between runs.
        "storage": {
            "filesystem": {"rootdirectory": str(storage)},
            "maintenance": {"uploadpurging": {"enabled": False}},
        },
        "http": {"addr": f"127.0.0.1:{port}", "secret": "bench"},
    }


def spawn(command: list, log: Path) -> subprocess.Popen:
    with open(log, "wb") as out:
        return subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT)


def end(server: subprocess.Popen) -> None:
    server.terminate()
    try:
        server.wait(5)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()


def slow_proxy(port: int, to: int, rtt: float, mbit: float) -> subprocess.Popen:
    command = [sys.executable, str(HERE / "slow_proxy.py")]
    command += ["--listen", str(port), "--to", str(to), "--rtt", str(rtt), "--mbit", str(mbit)]
    return subprocess.Popen(command, stdout=subprocess.PIPE)


def stop_proxy(proxy: subprocess.Popen) -> dict:
    """Ends the proxy, and returns what it counted."""
    proxy.terminate()
    out = proxy.communicate()[0]
    return json.loads(out) if out.strip() else {}


def connect(port: int) -> None:
    socket.create_connection(("127.0.0.1", port)).close()


def free_ports(count: int) -> list:
    """Ports of loopback that nothing listens on, each another.

    They are below those that the kernel gives to outgoing connections: one of these could take a
    port before it is listened on.
    """
    ports = []
    while len(ports) < count:
        port = random.randrange(15_000, 32_000)
        try:
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", port))
        except OSError:
            continue
        if port not in ports:
            ports.append(port)
    return ports
