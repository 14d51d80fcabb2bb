"""The image of bench as streamLayeredImage leaves it, in the Nix store.

In: what the image's store paths hold. Out: for each of its two versions a
wrapper which runs a stream script with a conf.json. All of it is put into
/nix/store, each file with the mode and time that Nix gives it, as only what is
there has a name that says what is in it. It is taken away again when the bench
ends; what a bench that was killed has left there, by the next one.
"""

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import bench_images
import nix_layered as nix

SUPPORT = Path(__file__).resolve().parent.parent / "tests" / "support"
sys.path.append(str(SUPPORT))

import make_stream

STORE = Path(nix.STORE)
NAME = bench_images.NAME


class NoStore(Exception):
    """There is no putting anything into the Nix store; the text says why."""


@dataclass(frozen=True)
class Streamed:
    """One version of the image: its wrapper, and the id that its script gives it."""

    result: Path
    image_id: str
    files: int
    folders: int


def streamed(work: Path, stack: ExitStack) -> tuple:
    """The two versions, in the store until the stack unwinds."""
    packages, app = bench_images.contents()
    packages = [(name, _flat(files)) for name, files in packages]
    app = _flat(app)
    files, folders = _count([*(files for _, files in packages), app])
    try:
        store = _Store(work / "store-paths", stack)
        layers = [store.tree(name, files) for name, files in packages]
        last = store.path("customisation-layer")
        make_stream.customisation_layer(last)
        _as_nix_leaves(last)
        script = (SUPPORT / "stream_image.py").read_text()
        python = os.path.realpath(sys.executable)
        stream = store.file("stream", script.replace("@PYTHON@", python), 0o755)
        versions = []
        for number in (1, 2):
            name = f"app-{number}.0"
            own = store.tree(name, bench_images.app_version(app, number))
            conf = _conf([*layers, own], last, {"Cmd": [f"{own}/bin/app"]})
            conf = store.file(f"{number}-conf.json", json.dumps(conf), 0o644)
            result = store.path(f"{number}")
            make_stream.shell_wrapper(result, stream, conf)
            _as_nix_leaves(result)
            versions.append(Streamed(result, _image_id(result), files, folders))
    except OSError as error:
        raise NoStore(f"{STORE} cannot be written: {error}") from error
    # So that no push waits for the disk.
    os.sync()
    return tuple(versions)


def _flat(files: dict) -> dict:
    """The same files, seven to a folder.

    Where they come from there are as many; but of each folder there only one or
    two were taken, and would bring all that is above them.
    """
    flat, counts = {}, Counter()
    for name, node in files.items():
        top, *_, last = PurePosixPath(name).parts
        number = counts[top]
        counts[top] += 1
        flat[f"{top}/{number // 7}/{number % 7}-{last}"] = node
    return flat


def _count(trees: list) -> tuple:
    """How many files there are, and how many folders."""
    folders = [{parent for name in tree for parent in PurePosixPath(name).parents} for tree in trees]
    return sum(map(len, trees)), sum(map(len, folders))


def _conf(layers: list, customisation_layer: Path, config: dict) -> dict:
    return {
        "architecture": "amd64",
        "os": "linux",
        "config": config,
        "store_dir": str(STORE),
        "from_image": None,
        "store_layers": [[str(path)] for path in layers],
        "customisation_layer": str(customisation_layer),
        "repo_tag": f"{NAME}:latest",
        "created": nix.CREATED,
        "mtime": nix.CREATED,
        "uid": "0",
        "gid": "0",
        "uname": "root",
        "gname": "root",
    }


def _image_id(result: Path) -> str:
    """The name of the config, in hex, in what the script writes."""
    command = subprocess.Popen([result], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    with command, tarfile.open(fileobj=command.stdout, mode="r|") as tar:
        for info in tar:
            if info.name == "manifest.json":
                return json.load(tar.extractfile(info))[0]["Config"].removesuffix(".json")
    raise SystemExit(f"bench: {result} writes no manifest.json")


class _Store:
    """What is put into the store. A journal names each path before it is made."""

    def __init__(self, journal: Path, stack: ExitStack) -> None:
        if os.geteuid() != 0:
            raise NoStore("only root writes to the Nix store")
        self.journal = open(journal, "a+")
        stack.callback(self.journal.close)
        try:
            fcntl.flock(self.journal, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise NoStore("another bench has its paths in the Nix store") from None
        self._clear()
        stack.callback(self._clear)
        for folder in (STORE.parent, STORE):
            if not folder.exists():
                self._note(folder)
                folder.mkdir()

    def path(self, name: str) -> Path:
        """The path of this name, which nothing is at yet."""
        path = Path(nix.store_name(f"{NAME}-{name}"))
        if os.path.lexists(path):
            raise NoStore(f"{path} is there already, and not of this bench")
        self._note(path)
        return path

    def file(self, name: str, content: str, mode: int) -> Path:
        path = self.path(name)
        path.write_text(content)
        path.chmod(mode)
        _as_nix_leaves(path)
        return path

    def tree(self, name: str, files: dict) -> Path:
        root = self.path(name)
        root.mkdir()
        for relative, node in files.items():
            path = root / relative
            path.parent.mkdir(parents=True, exist_ok=True)
            with node.open() as content, open(path, "wb") as out:
                shutil.copyfileobj(content, out)
            path.chmod(0o755 if node.executable else 0o644)
        _as_nix_leaves(root)
        return root

    def _note(self, path: Path) -> None:
        self.journal.write(f"{path}\n")
        self.journal.flush()

    def _clear(self) -> None:
        """Removes what the journal names, the latest first; whoever interrupts has to wait."""
        ends = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        before = signal.pthread_sigmask(signal.SIG_BLOCK, ends)
        try:
            self._remove()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def _remove(self) -> None:
        self.journal.seek(0)
        for path in map(Path, reversed(self.journal.read().splitlines())):
            if path in (STORE, STORE.parent):
                # Others may have begun to use them meanwhile.
                if path.is_dir() and not any(path.iterdir()):
                    path.rmdir()
            elif path.is_dir():
                shutil.rmtree(path)
            elif os.path.lexists(path):
                path.unlink()
        self.journal.truncate(0)


def _as_nix_leaves(path: Path) -> None:
    """Nobody may write it or what is below it, and all of it is of the first second of 1970."""
    for folder, _, names in os.walk(path, topdown=False):
        for name in [*names, "."]:
            _settle(Path(folder, name))
    if path.is_file():
        _settle(path)


def _settle(path: Path) -> None:
    is_open = path.is_dir() or path.stat().st_mode & 0o100
    path.chmod(0o555 if is_open else 0o444)
    os.utime(path, (nix.MTIME, nix.MTIME))
