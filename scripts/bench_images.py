"""The images that bench pushes, made from the files of this machine.

In: the files below /usr. Out, in a folder that is kept between runs: an image
of 100 layers and 300 MB as buildLayeredImage leaves it, plain and gzip, in two
versions that differ in one layer of 6 MB; and, on demand, the first of them as
an OCI layout, ten services that share most of their layers, many small images,
and images of one large layer as buildImage leaves them. Real files, because only they compress as
real images do. A machine with too few of them gets each several times over,
XORed with a constant, which hides the repetition and leaves the compressibility.
"""

import io
import itertools
import json
import os
import random
import shutil
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
CHANGED_LITTLE = 2 * MB
SERVICES = 10
# Of the LAYERS of a service, those that all have, and the size of each part.
SHARED = 90
SHARED_SIZE = 50 * MB
OWN_SIZE = 10 * MB
# Many small images, which have all but two layers in common, and the sizes of their two parts.
MANY = {"many": 200, "thousand": 1000}
MANY_LAYERS = 62
MANY_SHARED_SIZE = 3 * MB
MANY_OWN_SIZE = 50_000
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


def layered(folder: Path, changed: int = CHANGED) -> tuple:
    """The two versions of the layered image, made if they are not there. The app's layer, in which
    they differ, has `changed` bytes."""
    stem = "layered" if changed == CHANGED else f"layered-{changed // MB}M"
    versions = tuple(
        Version(folder / f"{stem}-v{n}.tar", folder / f"{stem}-v{n}.tar.gz") for n in (1, 2)
    )
    if not all(v.tar.exists() and v.gz.exists() for v in versions):
        folder.mkdir(parents=True, exist_ok=True)
        packages, app = contents(changed)
        for number, version in enumerate(versions, start=1):
            _write_layered(version, packages, app_version(app, number), number)
    return versions


def contents(changed: int = CHANGED) -> tuple:
    """What the store paths of the image hold: a list of (name, files), and the app's files."""
    pool = _Pool()
    app = pool.take(changed)
    packages = pool.packages("package", LAYERS - 2, TOTAL - changed)
    random.Random(1).shuffle(packages)
    return [(f"package-{n:02}-1.0", files) for n, (_, files) in enumerate(packages)], app


def app_version(app: dict, number: int) -> dict:
    """The app of one version. That of the second has the same files, every byte another."""
    return {
        name: Mutated("file", node.content, node.executable, xor=node.xor ^ (number - 1))
        for name, node in app.items()
    }


def services(folder: Path) -> list:
    """Plain archives of images that have SHARED of their LAYERS in common."""
    paths = [folder / f"service-{n}.tar" for n in range(SERVICES)]
    return _family(paths, SHARED, SHARED_SIZE, LAYERS - SHARED - 1, OWN_SIZE)


def many(folder: Path, kind: str) -> list:
    """Plain archives of as many small images as MANY says, with all but two layers in common."""
    paths = [folder / kind / f"image-{n:03}.tar" for n in range(MANY[kind])]
    return _family(paths, MANY_LAYERS - 2, MANY_SHARED_SIZE, 1, MANY_OWN_SIZE)


def _family(paths: list, shared_layers: int, shared_size: int, own_layers: int, own_size: int) -> list:
    """Images with layers in common, layers of their own, and a last one of links, its own as well."""
    if not all(path.exists() for path in paths):
        paths[0].parent.mkdir(parents=True, exist_ok=True)
        print(f"making {paths[0]} and {len(paths) - 1} more", flush=True)
        pool = _Pool()
        shared = [
            _store_layer(*named) for named in pool.packages("package", shared_layers, shared_size)
        ]
        for path in paths:
            name = path.stem
            own = pool.packages(name, own_layers, own_size)
            links = {"bin/service": nix.link(f"{nix.store_name(own[0][0])}/bin/service")}
            last = nix.customisation_layer(f"{name}-customisation-layer", links)
            every = [*shared, *(_store_layer(*named) for named in own), last]
            with _in_one_piece(path) as out:
                nix.write_layered(out, every, f"{name}:latest", {"Cmd": ["/bin/service"]})
    return paths


def layout(folder: Path, version: Version) -> Path:
    """An OCI layout of the image with gzip blobs, made by skopeo."""
    path = folder / f"{version.tar.stem}.oci"
    if not path.exists():
        part = path.with_suffix(".part")
        shutil.rmtree(part, ignore_errors=True)
        print(f"making {path}", flush=True)
        copy = ["skopeo", "copy", "--quiet", "--insecure-policy", f"docker-archive:{version.tar}"]
        subprocess.run([*copy, f"oci:{part}:latest"], check=True)
        part.rename(path)
    return path


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


def dense(folder: Path, size: int, run: int) -> Path:
    """A plain archive with one layer of `size` bytes of one file: all of it random, or every other
    run of `run` bytes, with pieces of this machine's files between."""
    path = folder / f"dense-{size // MB}M-{run}.tar"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        source = folder / f"dense-{run}.bin"
        generator = random.Random(run)
        files = itertools.cycle(_Pool().files)
        rest = b""
        with open(source, "wb") as out:
            while out.tell() < size:
                out.write(generator.randbytes(run or MB))
                while len(rest) < run:
                    rest += next(files).read_bytes()
                out.write(rest[:run])
                rest = rest[run:]
            out.truncate(size)
        app = nix.store_name("model-1.0")[1:]
        with _finished(path) as out:
            node = nix.Node("file", source, False)
            nix.write_build_image(out, {f"{app}/model": node}, NAME, "dense", {"Cmd": ["/bin/sh"]}, str(folder))
        source.unlink()
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
    """The config's digest in hex, as an archive or a layout names it."""
    if archive.is_dir():
        index = json.loads((archive / "index.json").read_text())
        manifest = archive / "blobs" / index["manifests"][0]["digest"].replace(":", "/")
        return json.loads(manifest.read_text())["config"]["digest"].removeprefix("sha256:")
    with tarfile.open(archive) as tar:
        manifest = json.load(tar.extractfile("manifest.json"))
    return manifest[0]["Config"].removesuffix(".json")


def _write_layered(version: Version, packages: list, app: dict, number: int) -> None:
    name = f"app-{number}.0"
    links = {"bin/sh": nix.link(f"{nix.store_name(packages[0][0])}/bin/sh")}
    every = [
        *(_store_layer(*named) for named in [*packages, (name, app)]),
        nix.customisation_layer(f"{NAME}-customisation-layer", links),
    ]
    with _finished(version.tar) as out:
        command = {"Cmd": [f"{nix.store_name(name)}/bin/app"]}
        nix.write_layered(out, every, f"{NAME}:latest", command)
    with _finished(version.gz) as out:
        subprocess.run(["pigz", "-nTRc", str(version.tar)], stdout=out, check=True)


def _store_layer(name: str, files: dict) -> nix.Layer:
    return nix.store_layer(nix.StorePath(nix.store_name(name), files))


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

    def packages(self, name: str, count: int, size: int) -> list:
        """So many packages as (name, files), together of that size."""
        # Few large ones and many small ones, as in a real closure.
        weights = [1 / (n + 1) ** 0.9 for n in range(count)]
        shares = [int(size * weight / sum(weights)) for weight in weights]
        return [(f"{name}-{n:02}-1.0", self.take(share)) for n, share in enumerate(shares)]


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
    """Says what is made, and writes it in one piece."""
    print(f"making {path}", flush=True)
    with _in_one_piece(path) as out:
        yield out


@contextmanager
def _in_one_piece(path: Path) -> Iterator[BinaryIO]:
    """Writes under another name first, so that an interrupted run leaves no half image."""
    part = path.with_name(path.name + ".part")
    with open(part, "wb") as out:
        yield out
    part.rename(path)
