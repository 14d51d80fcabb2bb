#!/usr/bin/env python3
"""Makes the tables and the plot of the documents from what bench measured.

In: docs/benchmarks.json, which `scripts/bench --publish` adds to. Out: the
tables between `<!-- bench: NAME -->` and `<!-- end of bench -->` in README.md
and docs/benchmarks.md, and docs/benchmarks.svg. Run by itself, it makes them
again from the file.
"""

import json
import re
import sys
from html import escape
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MEASURED = ROOT / "docs" / "benchmarks.json"
PLOT = ROOT / "docs" / "benchmarks.svg"
DOCUMENTS = (ROOT / "README.md", ROOT / "docs" / "benchmarks.md")

# The cases of each table, and what a row is called. Those that were not measured are left out.
TABLES = {
    "main": {
        "tar-unchanged": "plain tar, nothing changed",
        "tar-changed": "plain tar, one 6 MB layer changed",
        "gz-changed": "`.tar.gz`, one 6 MB layer changed",
        "tar-cold": "plain tar, nothing in the registry",
    },
    "image": {
        "tar-unchanged": "plain tar, nothing changed",
        "tar-changed": "plain tar, one 6 MB layer changed",
        "tar-cold": "plain tar, nothing in the registry",
        "gz-unchanged": "`.tar.gz`, nothing changed",
        "gz-changed": "`.tar.gz`, one 6 MB layer changed",
        "gz-cold": "`.tar.gz`, nothing in the registry",
        "layout-unchanged": "OCI layout, nothing changed",
        "layout-cold": "OCI layout, nothing in the registry",
    },
    "far": {
        "far-unchanged": "plain tar, nothing changed",
        "far": "plain tar, one 2 MB layer changed",
        "far-oci": "the same, OCI format",
    },
    "stream": {
        "stream-cold": "nothing in the registry",
        "stream-changed": "one 6 MB store path changed",
    },
    "services": {
        "services": "nothing in the registry",
    },
    "dense": {
        "random-1g": "all of it",
        "runs-3m": "every other 3 MiB",
        "runs-8k": "every other 8 KiB",
    },
    "many": {
        "many-cold": "nothing in the registry",
        "many-unchanged": "nothing changed",
    },
}
PLOTTED = {
    "tar-unchanged": "plain tar, nothing changed",
    "tar-changed": "plain tar, one layer changed",
    "gz-changed": ".tar.gz, one layer changed",
    "tar-cold": "plain tar, all layers new",
    "far": "50 ms away, one layer changed",
    "random-1g": "1 GB that does not compress",
}
# Where the other ways to use pushimg are shown, too.
WITH_VARIANTS = ("stream", "services")
OWN = "pushimg"
ALONE = "alone"  # where the results have, by case, the least that there is to do


class NotMeasured(Exception):
    """There is nothing to draw."""


def add(cases: list, versions: dict) -> None:
    """Adds the results of a run of bench, by case and tool, and makes the documents."""
    measured = json.loads(MEASURED.read_text()) if MEASURED.exists() else {}
    for case in cases:
        tools = measured.setdefault(case["case"], {})
        if case.get("floor"):
            alone = {"name": case["floor_name"], "seconds": case["floor"]}
            measured.setdefault(ALONE, {})[case["case"]] = alone
        for row in case.get("rows", []):
            if not row["seconds"] or row["note"] == "failed":
                continue
            name, rest = (row["label"].split(",", 1) + [""])[:2]
            name = versions.get(name, name).split(" commit:")[0] + (f",{rest}" if rest else "")
            tools[name] = {key: row[key] for key in ("seconds", "memory", "sent")}
            tools[name]["requests"] = sum(row["requests"].values())
            tools[name]["note"] = row["note"]
    MEASURED.write_text(json.dumps(measured, indent=1, sort_keys=True) + "\n")
    publish(measured)


def publish(measured: dict) -> None:
    for document in DOCUMENTS:
        text = document.read_text()
        pattern = r"(<!-- bench: (\w+) -->\n).*?(<!-- end of bench -->)"
        made = re.sub(
            pattern, lambda m: m[1] + table(m[2], measured) + m[3], text, flags=re.DOTALL
        )
        document.write_text(made)
    try:
        PLOT.write_text(plot(measured))
    except NotMeasured as error:
        print(f"bench: {error}", file=sys.stderr)


def seconds(tool: dict) -> float:
    """The median."""
    ordered = sorted(tool["seconds"])
    middle = len(ordered) // 2
    return (ordered[middle] + ordered[~middle]) / 2


def own_of(tools: dict) -> dict:
    """The results of pushimg without a cache."""
    return tools.get(OWN)


def peers_of(cases: list) -> list:
    """The other tools that start without a cache, skopeo first, and of it the newest."""
    names = {name for tools in cases for name in tools if name.split()[0] != OWN and "," not in name}
    version = lambda name: [int(n) for n in re.findall(r"\d+", name)]
    newest_first = sorted(names, key=version, reverse=True)
    return sorted(newest_first, key=lambda name: not name.startswith("skopeo"))


def table(name: str, measured: dict) -> str:
    """The table in Markdown, with its last line break; nothing if none of its cases was measured."""
    rows = TABLES[name]
    here = {case: measured[case] for case in rows if own_of(measured.get(case, {}))}
    if not here:
        return ""
    peers = peers_of(list(here.values()))
    if name in WITH_VARIANTS:
        every = {tool for tools in here.values() for tool in tools}
        one_by_one = {tool for tool in every if tool.endswith(", one by one")}
        variants = {tool for tool in every if tool.startswith(f"{OWN},")}
        peers = sorted(variants) + sorted(one_by_one - variants) + peers
    alone = {case: measured.get(ALONE, {}).get(case) for case in here}
    shows_alone = any(alone.values())
    shows_sent = any(peers_of([tools]) for tools in here.values())
    head = ["", OWN, *peers, *(["alone"] if shows_alone else [])]
    head += ["requests", "peak memory", *(["sent"] if shows_sent else [])]
    lines = [f"| {' | '.join(head)} |", f"|---|{'---:|' * (len(head) - 1)}"]
    for case, tools in here.items():
        own = own_of(tools)
        cells = [rows[case], f"{seconds(own):.2f} s"]
        for peer in peers:
            theirs = tools.get(peer)
            cells.append(f"{seconds(theirs):.2f} s ({times(theirs, own)})" if theirs else "")
        if shows_alone:
            least = alone[case]
            cells.append(f"`{least['name']}`: {seconds(least):.2f} s" if least else "")
        every = [own, *(tools[peer] for peer in peers if peer in tools)]
        cells.append(listed([str(tool["requests"]) for tool in every]))
        cells.append(listed([f"{max(t['memory']) / 1024:.0f}" for t in every if t["memory"]]) + " MiB")
        if shows_sent:
            cells.append(listed([f"{tool['sent'] / 1e6:.1f}" for tool in every]) + " MB")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def times(theirs: dict, own: dict) -> str:
    """How many times as long they took."""
    ratio = seconds(theirs) / seconds(own)
    return f"{ratio:.1f}" if ratio < 9.95 else f"{ratio:.0f}"


def listed(values: list) -> str:
    return values[0] if len(values) == 1 else f"{', '.join(values[:-1])} and {values[-1]}"


# --- The plot ----------------------------------------------------------------

WIDTH, NAMES, RIGHT = 760, 250, 70
BAR, GAP, BETWEEN, TOP = 14, 3, 16, 44
# Readable on white and on black; the text takes the colour of the page's scheme.
STYLE = """
  text { font: 13px system-ui, sans-serif; fill: #1f2328; }
  .value { font-size: 12px; }
  .axis { stroke: #8c959f; stroke-width: 1; }
  .tool0 { fill: #0969da; } .tool1 { fill: #bc4c00; } .tool2 { fill: #8c959f; } .tool3 { fill: #8250df; }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3; }
    .tool0 { fill: #4493f8; } .tool1 { fill: #f0883e; } .tool2 { fill: #9198a1; } .tool3 { fill: #ab7df8; }
  }
"""


def plot(measured: dict) -> str:
    here = {case: measured[case] for case in PLOTTED if own_of(measured.get(case, {}))}
    if not here:
        raise NotMeasured("no plot: none of its cases was measured")
    names = [OWN, *peers_of(list(here.values()))]
    longest = max(seconds(tools[name]) for tools in here.values() for name in names if name in tools)
    scale = (WIDTH - NAMES - RIGHT) / longest
    parts, y = [], TOP
    for case, tools in here.items():
        bars = [name for name in names if name in tools]
        height = len(bars) * (BAR + GAP) - GAP
        label_y = y + height / 2 + 4.5
        parts.append(f'<text x="{NAMES - 12}" y="{label_y:g}" text-anchor="end">{escape(PLOTTED[case])}</text>')
        for name in bars:
            value = seconds(tools[name])
            width = max(value * scale, 1)
            parts.append(
                f'<rect class="tool{names.index(name)}" x="{NAMES}" y="{y}" width="{width:.1f}" height="{BAR}"/>'
            )
            parts.append(
                f'<text class="value" x="{NAMES + width + 6:.1f}" y="{y + BAR - 3}">{value:.2f} s</text>'
            )
            y += BAR + GAP
        y += BETWEEN - GAP
    bottom = y - BETWEEN + 4
    parts.append(f'<line class="axis" x1="{NAMES}" y1="{TOP - 6}" x2="{NAMES}" y2="{bottom}"/>')
    x = NAMES
    for number, name in enumerate(names):
        parts.append(f'<rect class="tool{number}" x="{x}" y="12" width="{BAR}" height="{BAR}"/>')
        parts.append(f'<text x="{x + BAR + 6}" y="24">{escape(name)}</text>')
        x += BAR + 34 + 8 * len(name)
    body = "\n  ".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {bottom + 8}" role="img">\n'
        f"  <title>Seconds that a push takes; shorter is better</title>\n"
        f"  <style>{STYLE}  </style>\n  {body}\n</svg>\n"
    )


def main() -> int:
    try:
        publish(json.loads(MEASURED.read_text()))
    except OSError as error:
        print(f"bench_publish: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
