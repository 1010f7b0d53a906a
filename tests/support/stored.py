# SPDX-License-Identifier: MIT
"""Backups as lunark leaves them in a folder, written by hand: many of them, of any time."""
import gzip
import hashlib
import json
import os

DATA = gzip.compress(b"a dump\n", mtime=0)
REPORT = ".report.tar.gz"


def stem(item, when, style="standard"):
    """`when` is a datetime in UTC."""
    form = {"standard": "%Y-%m-%dT%H%M%SZ", "compat": "%Y-%m-%d-%H:%M:%S"}[style]
    return f"{item}/{item}-{when.strftime(form)}"


def manifest(key, data=DATA, **more):
    """The text of the manifest of an archive."""
    stamp = "2026-01-01T00:00:00Z"
    suffix = key[key.index(".", key.rindex("/") + 1):]
    found = {"lunark_manifest": 1, "version": "0.1.0", "item": key.split("/")[0], "key": key, "kind": "program",
             "suffix": suffix,
             "time": stamp, "started": stamp, "ended": stamp, "run": "0", "host": "h", "size": len(data),
             "sha256": hashlib.sha256(data).hexdigest(), "checked": True, "warning_count": 0, "unreadable": 0, **more}
    return json.dumps(found)


def put(base, key, text):
    path = os.path.join(base, key)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        file.write(text if isinstance(text, bytes) else text.encode())
    return key


def backup(base, item, when, style="standard", suffix=".dump.gz", report=False, data=DATA):
    """Archive and manifest, and a report; the archive's key."""
    beginning = stem(item, when, style)
    put(base, beginning + suffix, data)
    put(base, beginning + ".manifest.json", manifest(beginning + suffix, data))
    if report:
        put(base, beginning + REPORT, DATA)
    return beginning + suffix


def mark(base, key, **meta):
    """Our metadata beside an object of a directory, as the provider `local` keeps it."""
    folder, name = os.path.split(os.path.join(base, key))
    s = os.stat(os.path.join(folder, name))
    records = [{"size": s.st_size, "mtime": int(s.st_mtime), "meta": {"lunark-version": "0.1.0", **meta}}]
    put(folder, f".{name}.lunark", json.dumps({"version": 1, "records": records}))
    return key


def keys(base):
    """All keys of a directory."""
    found = []
    for folder, _, files in os.walk(base):
        found += [os.path.relpath(os.path.join(folder, name), base) for name in files if not name.startswith(".")]
    return sorted(found)
