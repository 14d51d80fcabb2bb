"""Makes what Nix's streamLayeredImage leaves, in a folder of its own.

In: the folder, and options as JSON (see OPTIONS). Out, in the folder: `result`,
the wrapper; `stream` and `conf.json`, which it names; `store`, full of what is
hard to tar; `base.tar` where there is to be a base image.
"""

import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

OPTIONS = {
    # Fields of the conf, laid over the usual ones; null takes a field away.
    "conf": {},
    # Pairs: what is to be replaced in the script, and by what.
    "replace": [],
    # "shell" or "binary".
    "wrapper": "shell",
    # More arguments that the wrapper passes.
    "flags": "",
    # The base image: null, "plain" or "gzip".
    "base": None,
}


def name(number, name):
    """As a store path is named."""
    return f"{number:032}-{name}"


def glibc(root):
    """A package with all that a tar finds hard."""
    lib = root / "lib"
    (lib / "empty").mkdir(parents=True)
    for path in ["a/b", "a-b/c", "a.b", "a/b-c", "a/B", "a b/\N{EURO SIGN}", "é/ü/x"]:
        (lib / path).mkdir(parents=True, exist_ok=True)
        (lib / path / "file").write_text(path)
    for size in [0, 1, 511, 512, 513, 10_240, 3_000_000]:
        (lib / f"{size}").write_bytes((bytes(range(251)) * (size // 251 + 1))[:size])
    for length in [60, 98, 99, 100, 101, 200, 255]:
        (lib / ("n" * length)).write_text("long")
        (lib / ("l" * length)).symlink_to("t" * length)
    (lib / ("d" * 200) / ("d" * 200)).mkdir(parents=True)
    (lib / "so.1").write_text("library")
    (lib / "so").symlink_to("so.1")
    (lib / "folder").symlink_to("a")
    (lib / "absolute").symlink_to(lib)
    (lib / "nowhere").symlink_to("/no/such/é")
    os.link(lib / "so.1", lib / "again")
    os.link(lib / "3000000", root / "big again")
    for raw in [b"\xff", b"a\xe2\x82", b"\xed\xa0\x80", b"\xf0\x9f\x98\x80", b"\xee\x80\x80"]:
        path = os.fsencode(lib) + b"/raw " + raw
        with open(path, "wb") as file:
            file.write(raw)
        os.symlink(raw, path + b" link")
    for mode in [0o444, 0o555, 0o4555, 0o2755, 0o1777, 0o600]:
        (root / f"mode{mode:o}").write_text("x")
        (root / f"mode{mode:o}").chmod(mode)
    (lib / "a").chmod(0o555)
    (lib / "é").chmod(0o1777)


def store(folder):
    """The store paths of each layer."""
    paths = [folder / name(number, path) for number, path in enumerate(
        ["glibc-2.38", "script", "link", "empty", "app-1.0", "app-1.0-doc"]
    )]
    glibc(paths[0])
    paths[1].write_text("#!/bin/sh\n")
    paths[1].chmod(0o555)
    paths[2].symlink_to(paths[0])
    paths[3].mkdir()
    for path in paths[4:]:
        (path / "bin").mkdir(parents=True)
    (paths[4] / "bin" / "app").write_text("an app")
    # One file, two store paths, as after `nix-store --optimise`.
    os.link(paths[4] / "bin" / "app", paths[5] / "bin" / "app")
    return [[paths[0]], [paths[1], paths[2]], [paths[3]], [paths[5], paths[4]]]


def tar_of(files):
    """A tar as GNU tar writes it, and its digest."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for path, content in files.items():
            member = tarfile.TarInfo(path)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return out.getvalue(), hashlib.sha256(out.getvalue()).hexdigest()


def customisation_layer(folder):
    tar, digest = tar_of({"./etc/passwd": b"root:x:0:0::/root:/bin/sh\n"})
    folder.mkdir()
    (folder / "layer.tar").write_bytes(tar)
    (folder / "layer.tar").chmod(0o444)
    (folder / "checksum").write_text(f"{digest}\n")


def base_image(path, compression):
    """An image of two layers, named as dockerTools.buildImage names them."""
    layers = [tar_of({f"base/{n}": b"base" * n}) for n in (1, 30_000)]
    names = [f"{n:064}/layer.tar" for n in (1, 2)]
    config = {
        "config": {"Env": ["PATH=/base", "LANG=C"], "Cmd": ["/base"]},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{d}" for _, d in layers]},
    }
    manifest = [{"Config": "config.json", "RepoTags": None, "Layers": names}]
    files = {name: tar for name, (tar, _) in zip(names, layers)}
    files["config.json"] = json.dumps(config).encode()
    files["manifest.json"] = json.dumps(manifest).encode()
    archive, _ = tar_of(files)
    if compression == "gzip":
        archive = subprocess.run(["gzip", "-n"], input=archive, stdout=-1, check=True).stdout
    path.write_bytes(archive)


def shell_wrapper(path, script, flags):
    path.write_text(f'#! /bin/sh -e\nexec "{script}"  {flags} "$@" \n')
    path.chmod(0o755)


def binary_wrapper(path, script, flags):
    """A small program, and the command that made it, which nobody reads but people."""
    command = f"{script} \\\n    --inherit-argv0 \\\n    --add-flags '{flags}'"
    text = "\n\n\n# ---\n# This wrapper was made by:\n\n\n"
    text += f"makeCWrapper {command}\n\n\n# (See makeBinaryWrapper.)\n\n\n"
    arguments = ", ".join(json.dumps(flag) for flag in flags.split())
    source = f"""
        #include <unistd.h>
        const char *DOCSTRING = {json.dumps(text)};
        int main(int argc, char **argv) {{
            char *flags[] = {{argv[0], {arguments}, NULL}};
            return execv({json.dumps(str(script))}, flags);
        }}
    """
    subprocess.run(["cc", "-x", "c", "-o", path, "-"], input=source.encode(), check=True)


def main():
    folder = Path(sys.argv[1]).resolve()
    options = OPTIONS | json.loads(sys.argv[2])
    (folder / "store").mkdir()
    layers = store(folder / "store")
    customisation = folder / "store" / name(9, "customisation-layer")
    customisation_layer(customisation)
    conf = {
        "architecture": "arm64",
        "config": {
            "Env": ["PATH=/bin:é", "HOME=/root"],
            "Cmd": ["/bin/app", "it's \"so\"\n"],
            "Labels": {},
            "ExposedPorts": {"80/tcp": {}},
            "StopTimeout": 10,
            "Healthcheck": {"Test": [], "Interval": 18446744073709551615},
        },
        "os": "linux",
        "store_dir": str(folder / "store"),
        "from_image": None,
        "store_layers": [[str(path) for path in paths] for paths in layers],
        "customisation_layer": str(customisation),
        "repo_tag": "registry.example/app:v1",
        "created": "2024-05-06T07:08:09+00:00",
        "mtime": "1970-01-01T00:00:01+00:00",
        "uid": "0",
        "gid": "0",
        "uname": "root",
        "gname": "root",
    }
    if options["base"]:
        base_image(folder / "base.tar", options["base"])
        conf["from_image"] = str(folder / "base.tar")
    for key, value in options["conf"].items():
        conf[key] = value
        if value is None:
            del conf[key]
    (folder / "conf.json").write_text(json.dumps(conf))

    script = (Path(__file__).parent / "stream_image.py").read_text()
    script = script.replace("@PYTHON@", os.path.realpath(sys.executable))
    for what, instead in options["replace"]:
        assert what in script, what
        script = script.replace(what, instead)
    (folder / "stream").write_text(script)
    (folder / "stream").chmod(0o755)
    flags = f"{folder}/conf.json {options['flags']}".strip()
    wrapper = binary_wrapper if options["wrapper"] == "binary" else shell_wrapper
    wrapper(folder / "result", folder / "stream", flags)


if __name__ == "__main__":
    main()
