"""Docker archives laid out as Nix's dockerTools lays them out, byte for byte.

In: store paths, described in memory (their files may stay on disk), and an
image configuration. Out: the archive that `buildLayeredImage` or `buildImage`
would leave behind for them, uncompressed. Nix's own script is Python and
writes with `tarfile`, so the same module with the same settings gives the same
bytes: streamed, PAX only where a name needs it, padded to records of 10,240.

Used by make-testdata for small images and by bench for large ones.
"""

import hashlib
import io
import json
import tarfile
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Callable, Iterator, Union

STORE = "/nix/store"
CREATED = "1970-01-01T00:00:01+00:00"
MTIME = 1

# Nix writes base 32 without e, o, t and u, so that no hash spells a word.
_BASE32 = "0123456789abcdfghijklmnpqrsvwxyz"

# A layer is spooled once, to learn its size and digest before its header is
# written; above this many bytes the spool is a file.
_SPOOL_IN_MEMORY = 32 << 20


@dataclass(frozen=True)
class Node:
    """One file, directory or symlink of a store path."""

    kind: str  # "file", "dir" or "link"
    content: Union[bytes, Path] = b""
    executable: bool = False
    target: str = ""

    def size(self) -> int:
        if isinstance(self.content, bytes):
            return len(self.content)
        return self.content.stat().st_size

    def open(self) -> BinaryIO:
        if isinstance(self.content, bytes):
            return io.BytesIO(self.content)
        return open(self.content, "rb")


def file(content: Union[bytes, str, Path], executable: bool = False) -> Node:
    """A regular file; a `Path` is read when the layer is written, not before."""
    if isinstance(content, str):
        content = content.encode()
    return Node("file", content, executable)


def link(target: str) -> Node:
    return Node("link", target=target)


def empty_dir() -> Node:
    return Node("dir")


@dataclass
class StorePath:
    """A store path: its full name, and what is in it by relative name.

    Parent directories are implied; only empty ones need a node of their own.
    """

    name: str
    nodes: dict = field(default_factory=dict)

    def __str__(self) -> str:
        return self.name


def store_name(name: str, seed: str = "") -> str:
    """`/nix/store/<32 base-32 digits>-name`, always the same for one name and seed."""
    digest = hashlib.sha256(f"{name}\0{seed}".encode()).digest()
    # Nix folds the 32 bytes into 20 by XOR, and writes the last digit first.
    folded = bytearray(20)
    for i, byte in enumerate(digest):
        folded[i % 20] ^= byte
    number = int.from_bytes(folded, "little")
    digits = [_BASE32[number >> (5 * i) & 31] for i in reversed(range(32))]
    return f"{STORE}/{''.join(digits)}-{name}"


@dataclass(frozen=True)
class Layer:
    """A layer to be: the store paths its history names, and what writes its tar."""

    paths: list
    write: Callable[[BinaryIO], None]


def store_layer(*paths: StorePath) -> Layer:
    """A layer as the stream script makes it: /nix, /nix/store, then each path."""

    def write(out: BinaryIO) -> None:
        with tarfile.open(fileobj=out, mode="w|") as tar:
            tar.addfile(_owned("/nix", tarfile.DIRTYPE, 0o755))
            tar.addfile(_owned(STORE, tarfile.DIRTYPE, 0o755))
            for path in paths:
                _add_nodes(tar, path.name, _with_parents(path.nodes))

    return Layer([p.name for p in paths], write)


def customisation_layer(name: str, nodes: dict) -> Layer:
    """The last layer: symlinks into the store, tarred by GNU tar from `.`."""

    def write(out: BinaryIO) -> None:
        with tarfile.open(fileobj=out, mode="w|", format=tarfile.GNU_FORMAT) as tar:
            _add_nodes(tar, ".", _with_parents(nodes))

    return Layer([store_name(name)], write)


def write_layered(
    out: BinaryIO,
    layers: list,
    repo_tag: str,
    config: dict,
    spool_dir: Union[str, None] = None,
) -> list:
    """Writes what buildLayeredImage compresses; returns the diff IDs in hex.

    The order is the stream's: layers, then the config, then manifest.json.
    """
    diff_ids = []
    with tarfile.open(fileobj=out, mode="w|") as tar:
        for number, layer in enumerate(layers, start=1):
            with _spooled(layer, spool_dir) as (spool, digest, size):
                info = _plain(f"{digest}/layer.tar", size)
                if number == len(layers):
                    # The customisation layer is a file of the store, added
                    # with that file's mode and owner.
                    info = _owned(info.name, tarfile.REGTYPE, 0o444)
                    info.size = size
                tar.addfile(info, spool)
                diff_ids.append(digest)
        image = layered_config(layers, diff_ids, config)
        image_name = f"{hashlib.sha256(image).hexdigest()}.json"
        manifest = [
            {
                "Config": image_name,
                "RepoTags": [repo_tag],
                "Layers": [f"{digest}/layer.tar" for digest in diff_ids],
            }
        ]
        _add_bytes(tar, image_name, image)
        _add_bytes(tar, "manifest.json", json.dumps(manifest, indent=4).encode())
    return diff_ids


def layered_config(layers: list, diff_ids: list, config: dict) -> bytes:
    """The image configuration as the stream script serialises it."""
    image = {
        "created": CREATED,
        "architecture": "amd64",
        "os": "linux",
        "config": config,
        "rootfs": {"diff_ids": [f"sha256:{d}" for d in diff_ids], "type": "layers"},
        "history": [
            {"created": CREATED, "comment": f"store paths: {layer.paths}"}
            for layer in layers
        ],
    }
    return json.dumps(image, indent=4).encode()


def write_build_image(
    out: BinaryIO,
    nodes: dict,
    name: str,
    tag: str,
    config: dict,
    spool_dir: Union[str, None] = None,
) -> str:
    """Writes what buildImage compresses, with one layer of its own; returns its diff ID.

    `nodes` is the root file system, store paths included (`nix/store/…`). GNU
    tar packs both the layer and the archive, so names start at `.`, and the
    archive is sorted by name.
    """

    def write_layer(to: BinaryIO) -> None:
        with tarfile.open(fileobj=to, mode="w|", format=tarfile.GNU_FORMAT) as tar:
            _add_nodes(tar, ".", _with_parents(nodes))

    created = "1970-01-01T00:00:01Z"
    base = {"architecture": "amd64", "config": config, "created": created, "os": "linux"}
    with _spooled(Layer([], write_layer), spool_dir) as (spool, diff_id, size):
        # The layer's directory is named by the hash of its `json`, which is
        # why it says nothing about the layer's bytes.
        layer_json = _compact({**base, "checksum": f"sha256:{diff_id}", "Size": size})
        layer_id = hashlib.sha256(layer_json).hexdigest()
        image = _compact(
            {
                **base,
                "rootfs": {"diff_ids": [f"sha256:{diff_id}"], "type": "layers"},
                "history": [{"created": created}],
            }
        )
        image_name = f"{hashlib.sha256(image).hexdigest()}.json"
        manifest = [
            {
                "Config": image_name,
                "RepoTags": [f"{name}:{tag}"],
                "Layers": [f"{layer_id}/layer.tar"],
            }
        ]
        entries = {
            f"{layer_id}/VERSION": b"1.0",
            f"{layer_id}/json": layer_json,
            f"{layer_id}/layer.tar": (spool, size),
            image_name: image,
            "manifest.json": _compact(manifest),
            "repositories": _compact({name: {tag: layer_id}}),
        }
        with tarfile.open(fileobj=out, mode="w|", format=tarfile.GNU_FORMAT) as tar:
            tar.addfile(_owned("./", tarfile.DIRTYPE, 0o755))
            for entry in sorted([*entries, layer_id]):
                if entry == layer_id:
                    tar.addfile(_owned(entry, tarfile.DIRTYPE, 0o755))
                    continue
                content = entries[entry]
                if isinstance(content, bytes):
                    content = (io.BytesIO(content), len(content))
                info = _owned(entry, tarfile.REGTYPE, 0o644)
                info.size = content[1]
                tar.addfile(info, content[0])
    return diff_id


@contextmanager
def _spooled(layer: Layer, spool_dir: Union[str, None]) -> Iterator[tuple]:
    """The layer's tar from its start, its digest in hex, and its size."""
    with tempfile.SpooledTemporaryFile(_SPOOL_IN_MEMORY, dir=spool_dir) as spool:
        hashed = _HashingWriter(spool)
        layer.write(hashed)
        size = spool.tell()
        spool.seek(0)
        yield spool, hashed.digest.hexdigest(), size


class _HashingWriter:
    def __init__(self, out: BinaryIO) -> None:
        self.out = out
        self.digest = hashlib.sha256()

    def write(self, data: bytes) -> int:
        self.digest.update(data)
        return self.out.write(data)


def _with_parents(nodes: dict) -> dict:
    """The nodes with every directory on the way to them, the root as ``."""
    whole = {"": nodes.get("", empty_dir())}
    for name, node in nodes.items():
        for parent in PurePosixPath(name).parents:
            if str(parent) != ".":
                whole.setdefault(str(parent), empty_dir())
        whole[name] = node
    return whole


def _add_nodes(tar: tarfile.TarFile, root: str, nodes: dict) -> None:
    # By parts, as Python orders paths: `lib/x` comes before `lib-y`.
    for name in sorted(nodes, key=lambda n: PurePosixPath(n).parts):
        node = nodes[name]
        full = f"{root}/{name}" if name else root
        if node.kind == "dir":
            # A customisation layer is writable before it is tarred; what is
            # in the store never is.
            mode = 0o755 if root == "." and not name.startswith("nix/store/") else 0o555
            tar.addfile(_owned(full, tarfile.DIRTYPE, mode))
        elif node.kind == "link":
            info = _owned(full, tarfile.SYMTYPE, 0o777)
            info.linkname = node.target
            tar.addfile(info)
        else:
            info = _owned(full, tarfile.REGTYPE, 0o555 if node.executable else 0o444)
            info.size = node.size()
            with node.open() as content:
                tar.addfile(info, content)


def _owned(name: str, kind: bytes, mode: int) -> tarfile.TarInfo:
    info = _plain(name, 0)
    info.type = kind
    info.mode = mode
    info.uname = info.gname = "root"
    return info


def _plain(name: str, size: int) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size = size
    info.mtime = MTIME
    return info


def _add_bytes(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    tar.addfile(_plain(name, len(content)), io.BytesIO(content))


def _compact(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":"), sort_keys=True).encode()
