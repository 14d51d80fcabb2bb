"""The images that bench pushes, made from the files of this machine.

In: the files below /usr. Out, in a folder that is kept between runs: an image
of 100 layers and 300 MB as buildLayeredImage leaves it, plain and gzip, in two
versions that differ in one layer of 6 MB; and, on demand, images of one large
layer as buildImage leaves them. Real files, because only they compress as real
images do. A machine with too few of them gets each several times over, XORed
with a constant, which hides the repetition and leaves the compressibility.
"""

import io
import json
import os
import random
import subprocess
import tarfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Iterator

import nix_layered as nix

ROOTS = ("/usr/lib", "/usr/bin", "/usr/share")
NAME = "pushimg-bench"
MB = 1_000_000
LAYERS = 100
TOTAL = 300 * MB
CHANGED = 6 * MB
# Smaller files are all header, larger ones would be layers of their own.
SIZES = range(256, 8 * MB)


@dataclass(frozen=True)
class Mutated(nix.Node):
    """A file on disk with every byte XORed."""

    xor: int = 0

    def open(self) -> BinaryIO:
        if self.xor == 0:
            return super().open()
        table = bytes(byte ^ self.xor for byte in range(256))
        return io.BytesIO(self.content.read_bytes().translate(table))


@dataclass(frozen=True)
class Version:
    """One version of the layered image: its files and the id it must get."""

    tar: Path
    gz: Path

    @property
    def image_id(self) -> str:
        """The config's digest in hex: what a push must end up with."""
        return image_id(self.tar)


def layered(folder: Path) -> tuple:
    """The two versions of the layered image, made if they are not there."""
    versions = tuple(
        Version(folder / f"layered-v{n}.tar", folder / f"layered-v{n}.tar.gz") for n in (1, 2)
    )
    if not all(v.tar.exists() and v.gz.exists() for v in versions):
        folder.mkdir(parents=True, exist_ok=True)
        layers = _layers()
        for number, version in enumerate(versions, start=1):
            _write_layered(version, layers, number)
    return versions


def single(folder: Path, size: int) -> Path:
    """A plain archive with one layer of about `size` bytes, in buildImage's form."""
    path = folder / f"single-{size // MB}M.tar"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        app = nix.store_name("everything-1.0")[1:]
        nodes = {f"{app}/{name}": node for name, node in _Pool().take(size).items()}
        with _finished(path) as out:
            nix.write_build_image(out, nodes, NAME, "single", {"Cmd": ["/bin/sh"]}, str(folder))
    return path


def gzip_6_size(version: Version) -> int:
    """The bytes of all layers, each through `gzip -6` by itself; remembered in a file."""
    known = version.tar.with_suffix(".gzip-6.json")
    if not known.exists():
        total = 0
        with tarfile.open(version.tar) as tar:
            for info in tar:
                if info.name.endswith("/layer.tar"):
                    layer = tar.extractfile(info).read()
                    packed = subprocess.run(["gzip", "-6n"], input=layer, capture_output=True)
                    total += len(packed.stdout)
        known.write_text(json.dumps(total))
    return json.loads(known.read_text())


def image_id(archive: Path) -> str:
    """The name of the config in a plain archive's manifest.json, without `.json`."""
    with tarfile.open(archive) as tar:
        manifest = json.load(tar.extractfile("manifest.json"))
    return manifest[0]["Config"].removesuffix(".json")


def _layers() -> list:
    """The store paths of all layers but the last, as (name, files)."""
    # Few large layers and many small ones, as in a real closure.
    weights = [1 / (n + 1) ** 0.9 for n in range(LAYERS - 2)]
    pool = _Pool()
    contents = [pool.take(CHANGED)]
    for weight in weights:
        contents.append(pool.take(int((TOTAL - CHANGED) * weight / sum(weights))))
    app, rest = contents[0], contents[1:]
    random.Random(1).shuffle(rest)
    named = [(nix.store_name(f"package-{n:02}-1.0"), files) for n, files in enumerate(rest)]
    return [*named, ("app", app)]


def _write_layered(version: Version, layers: list, number: int) -> None:
    store = [nix.store_layer(nix.StorePath(name, files)) for name, files in layers[:-1]]
    # The app of the second version: the same files, every byte another.
    app = nix.StorePath(
        nix.store_name(f"app-{number}.0"),
        {
            name: Mutated("file", node.content, node.executable, xor=node.xor ^ (number - 1))
            for name, node in layers[-1][1].items()
        },
    )
    links = {"bin/sh": nix.link(f"{layers[0][0]}/bin/sh")}
    every = [
        *store,
        nix.store_layer(app),
        nix.customisation_layer(f"{NAME}-customisation-layer", links),
    ]
    with _finished(version.tar) as out:
        nix.write_layered(out, every, f"{NAME}:latest", {"Cmd": [f"{app}/bin/app"]})
    with _finished(version.gz) as out:
        subprocess.run(["pigz", "-nTRc", str(version.tar)], stdout=out, check=True)


class _Pool:
    """Files to fill layers with: each of the machine's once, then mutated."""

    def __init__(self) -> None:
        self.files = [
            path
            for root in ROOTS
            for folder, folders, names in os.walk(root)
            # Sorted in place: os.walk then goes down in this order.
            if folders.sort() is None
            for path in (Path(folder, name) for name in sorted(names))
            if _size(path) in SIZES
        ]
        if not self.files:
            raise SystemExit(f"bench: no files to make an image from in {', '.join(ROOTS)}")
        random.Random(0).shuffle(self.files)
        self.left = []
        self.round = -1

    def take(self, size: int) -> dict:
        """Files that fill a tar of `size` bytes, a few kilobytes more or less, by name."""
        nodes, folders, passed_over = {}, set(), []
        remaining = size
        # The second condition: what is left may be less than any file.
        while remaining > 8192 and len(passed_over) <= 2 * len(self.files):
            if not self.left:
                self.round += 1
                self.left = [(path, self.round) for path in self.files]
            path, xor = self.left.pop()
            name = str(path.relative_to("/usr"))
            if xor:
                name = f"copy-{xor}/{name}"
            above = {str(p) for p in PurePosixPath(name).parents} - folders
            length = _tar_size(name, _size(path)) + sum(_tar_size(p, 0) for p in above)
            if length > remaining + 4096:
                passed_over.append((path, xor))
                continue
            nodes[name] = Mutated("file", path, os.access(path, os.X_OK), xor=xor % 256)
            folders |= above
            remaining -= length
        self.left.extend(reversed(passed_over))
        return nodes


def _tar_size(name: str, size: int) -> int:
    """What a file takes up in a layer: its blocks, a header, two more if its name is long."""
    store_prefix = 60
    return size + -size % 512 + 512 + (1024 if store_prefix + len(name) > 100 else 0)


def _size(path: Path) -> int:
    """The size of a regular file; -1 for anything else."""
    try:
        return path.stat().st_size if path.is_file() and not path.is_symlink() else -1
    except OSError:
        return -1


@contextmanager
def _finished(path: Path) -> Iterator[BinaryIO]:
    """Writes under another name first, so that an interrupted run leaves no half image."""
    part = path.with_name(path.name + ".part")
    print(f"making {path}", flush=True)
    with open(part, "wb") as out:
        yield out
    part.rename(path)
