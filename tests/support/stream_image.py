#!@PYTHON@
"""A stream script as nixpkgs has one, for tests: it writes the same bytes.

In: a conf.json. Out, on stdout: a docker archive. pushimg knows this text by
its digest, in src/source/nix_stream/script.rs; a change here needs one there.
"""

import argparse
import hashlib
import io
import itertools
import json
import os
import pathlib
import sys
import tarfile
import threading
from datetime import datetime, timezone

NOW = datetime.now(tz=timezone.utc)


def parse_time(text):
    return NOW if text == "now" else datetime.fromisoformat(text)


def archive_paths_to(
    obj, paths, mtime, uid, gid, uname, gname
):
    """One layer."""

    def append_root(ti):
        ti.name = "/" + ti.name
        return ti

    def apply_filters(ti):
        ti.mtime = mtime
        ti.uid = uid
        ti.gid = gid
        ti.uname = uname
        ti.gname = gname
        return ti

    def nix_root(ti):
        ti.mode = 0o0755  # rwxr-xr-x
        return ti

    def dir(path):
        ti = tarfile.TarInfo(path)
        ti.type = tarfile.DIRTYPE
        return ti

    with tarfile.open(fileobj=obj, mode="w|") as tar:
        # The store's own folders come first.
        tar.addfile(apply_filters(nix_root(dir("/nix"))))
        tar.addfile(apply_filters(nix_root(dir("/nix/store"))))

        for path in map(pathlib.Path, paths):
            below = [] if path.is_symlink() else path.rglob("*")
            files = itertools.chain([path], below)
            for filename in sorted(files):
                ti = apply_filters(append_root(tar.gettarinfo(filename)))
                if ti.islnk():
                    ti.type = tarfile.REGTYPE
                    ti.linkname = ""
                    ti.size = filename.stat().st_size
                if not ti.isfile():
                    tar.addfile(ti)
                    continue
                with open(filename, "rb") as content:
                    tar.addfile(ti, content)


class FromImage:
    def __init__(self, path):
        self.tar = tarfile.open(path)
        self.manifest_json = json.load(self.tar.extractfile("manifest.json"))
        self.image_json = json.load(
            self.tar.extractfile(self.manifest_json[0]["Config"])
        )


def load_from_image(path):
    return None if path is None else FromImage(path)


class Layer:
    """What the manifest and the config tell of a layer."""

    def __init__(self, checksum, path, paths):
        self.checksum, self.path, self.paths = checksum, path, paths


def base_layers(out, from_image):
    names = from_image.manifest_json[0]["Layers"]
    diff_ids = from_image.image_json["rootfs"]["diff_ids"]
    for path, diff_id in zip(names, diff_ids):
        member = from_image.tar.getmember(path)
        out.addfile(member, from_image.tar.extractfile(member))
        yield Layer(diff_id.partition(":")[2], path, paths=[path])


def overlay_base_config(from_image, final_config):
    if from_image is None:
        return final_config
    base_config = from_image.image_json["config"]
    final_env = base_config.get("Env", []) + final_config.get("Env", [])
    if final_env:
        by_name = {entry.split("=", 1)[0]: entry for entry in final_env}
        final_config["Env"] = list(by_name.values())
    return final_config


class Measure:
    """A file of which nothing is kept but its length and checksum."""

    def __init__(self):
        self.size, self.digest = 0, hashlib.sha256()

    def write(self, data):
        self.size += len(data)
        self.digest.update(data)


def store_layer(out, paths, mtime, owner):
    # Made twice, as there: its checksum goes before its bytes.
    measure = Measure()
    archive_paths_to(measure, paths, mtime, *owner)
    reading, writing = os.pipe()

    def make_again():
        with open(writing, "wb") as pipe:
            archive_paths_to(pipe, paths, mtime, *owner)

    with open(reading, "rb") as content:
        threading.Thread(target=make_again).start()
        return add(out, measure.digest.hexdigest(), paths, content, measure.size, mtime)


def ready_layer(out, customisation_layer, mtime):
    with open(os.path.join(customisation_layer, "checksum")) as f:
        checksum = f.read().strip()
    path = os.path.join(customisation_layer, "layer.tar")
    with open(path, "rb") as content:
        size = os.path.getsize(path)
        paths=[customisation_layer]
        return add(out, checksum, paths, content, size, mtime)


def add(out, checksum, paths, content, size, mtime):
    name = f"{checksum}/layer.tar"
    add_file(out, name, content, size, mtime)
    return Layer(checksum, name, paths)


def add_file(out, name, content, size, mtime):
    member = tarfile.TarInfo(name)
    member.size = size
    member.mtime = mtime
    out.addfile(member, content)


def add_json(out, name, value, mtime):
    name = name or f"{hashlib.sha256(value).hexdigest()}.json"
    add_file(out, name, io.BytesIO(value), len(value), mtime)
    return name


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("conf")
    parser.add_argument("--repo_tag", "-t")
    args = parser.parse_args()
    with open(args.conf) as f:
        conf = json.load(f)

    created = parse_time(conf["created"])
    mtime = int(parse_time(conf["mtime"]).timestamp())
    uid = int(conf["uid"])
    gid = int(conf["gid"])
    uname = conf["uname"]
    gname = conf["gname"]
    owner = (uid, gid, uname, gname)
    store_dir = conf["store_dir"]
    from_image = load_from_image(conf["from_image"])

    with tarfile.open(mode="w|", fileobj=sys.stdout.buffer) as out:
        layers = list(base_layers(out, from_image)) if from_image else []
        for paths in conf["store_layers"]:
            assert all(path.startswith(store_dir) for path in paths)
            print("layer", len(layers) + 1, "of", paths, file=sys.stderr)
            layers.append(store_layer(out, paths, mtime, owner))
        layers.append(ready_layer(out, conf["customisation_layer"], mtime))
        image_json = {
            "created": datetime.isoformat(created),
            "architecture": conf["architecture"],
            "os": "linux",
            "config": overlay_base_config(from_image, conf["config"]),
            "rootfs": {
                "diff_ids": [f"sha256:{layer.checksum}" for layer in layers],
                "type": "layers",
            },
            "history": [
                {
                    "created": datetime.isoformat(created),
                    "comment": f"store paths: {layer.paths}",
                }
                for layer in layers
            ],
        }
        image_json = json.dumps(image_json, indent=4).encode("utf-8")
        image = add_json(out, None, image_json, mtime)
        manifest = [
            {
                "Config": image,
                "RepoTags": [args.repo_tag or conf["repo_tag"]],
                "Layers": [layer.path for layer in layers],
            }
        ]
        manifest = json.dumps(manifest, indent=4).encode("utf-8")
        add_json(out, "manifest.json", manifest, mtime)


if __name__ == "__main__":
    main()
