# SPDX-License-Identifier: MIT
"""A store that random commands are run on, and a simple model that says what must be in it: for the model test.

What is stored is looked at on the disk, not through lunark. After each step of the model test the store must show what
the model says, and nothing else may have changed."""
import collections
import datetime
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import time

import model_tree
from harness import LUNARK, environment

ITEMS = ("data", "b\u00fccher 1")
START = 1893456000  # 2030-01-01: later than the files of the test, so that the clock of the command is never behind them
AHEAD = 600
SUPPORT = os.path.dirname(os.path.abspath(__file__))
TEMPORARY = re.compile(r"^\..+\.lunark-\d+-[0-9a-f]+\.tmp$")
HALF = re.compile(rb"^\.lunark-\d+-\d+\.tmp$")
FORMS = {"standard": "%Y-%m-%dT%H%M%SZ", "compat": "%Y-%m-%d-%H:%M:%S"}


class Wrong(AssertionError):
    """What was found is not what the model says."""


def build_trouble(scratch):
    """The library that stops the clock and makes trouble at the Nth change of files."""
    path = os.path.join(scratch, "trouble.so")
    subprocess.run([os.environ.get("CC", "cc"), "-std=c11", "-O1", "-D_GNU_SOURCE", "-shared", "-fPIC", "-o", path,
                    os.path.join(SUPPORT, "trouble.c"), "-ldl"], check=True)
    return path


def utc(seconds):
    return datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc)


def stem_of(item, seconds, style):
    return f"{item}/{item}-{utc(seconds).strftime(FORMS[style])}"


class Backup:
    """One of an item at a time. `data` is whole, damaged (the bytes), cut (the length) or None; `manifest` is good, corrupt,
    newer, size or hash (which it says wrong) or None."""

    def __init__(self, item, seconds, style, snapshot, size):
        self.item, self.time, self.style, self.snapshot, self.size = item, seconds, style, snapshot, size
        self.key = stem_of(item, seconds, style) + ".tar.gz"
        self.manifest_key = stem_of(item, seconds, style) + ".manifest.json"
        self.data, self.manifest, self.foreign, self.raw = "whole", "good", False, None
        self.flips = []
        self.contents = None  # what lies under its name: the tree, and what that took on the disk

    @property
    def restores(self):
        return self.data == "whole" and self.manifest == "good"

    def statuses(self):
        """Those that a restore may end with; with 0, what is restored must be right."""
        if self.manifest == "newer":
            return {2}
        if self.manifest is None:
            return {0} if self.data == "whole" else {0, 4}
        return {0} if self.restores else {4}


class Store:
    """What is stored, as it is on the disk: the folder of a local store or that of a bucket."""

    def __init__(self, folder, url, server=None, bucket=None):
        self.folder, self.url, self.server, self.bucket = folder, url, server, bucket
        self.local = server is None

    def path(self, key):
        return os.path.join(self.folder, key)

    def view(self):
        """key -> what changes when the object is written anew."""
        found = {}
        for folder, folders, files in os.walk(self.folder):
            folders[:] = [name for name in folders if name != ".sgwtmp"]
            for name in files:
                path = os.path.join(folder, name)
                if not self.local or not name.startswith("."):
                    s = os.lstat(path)
                    found[os.path.relpath(path, self.folder)] = (s.st_ino, s.st_size, s.st_mtime_ns)
        return found

    def unfinished(self):
        """Temporary files, or uploads in flight."""
        if not self.local:
            return set(self.server.uploads(self.bucket))
        return {os.path.join(folder, name) for folder, _, files in os.walk(self.folder) for name in files if TEMPORARY.match(name)}

    def hidden(self, key):
        """The file with the metadata of an object of a local store."""
        folder, name = os.path.split(self.path(key))
        return os.path.join(folder, f".{name}.lunark")

    def marks(self, key):
        """Metadata of an object of a local store: that which was written for its size and time."""
        try:
            with open(self.hidden(key), encoding="utf-8") as file:
                records = json.load(file)["records"]
        except OSError:
            return {}
        s = os.stat(self.path(key))
        found = [r for r in records if (r["size"], r["mtime"]) == (s.st_size, s.st_mtime_ns // 10**9)]
        return next((r["meta"] for r in sorted(found, key=lambda r: r.get("ino") != s.st_ino)), {})

    def remove(self, key):
        os.unlink(self.path(key))
        if self.local and os.path.exists(self.hidden(key)):
            os.unlink(self.hidden(key))


# --- what prune keeps, in the plainest way ---

def periods(kind, seconds):
    day = utc(seconds)
    return {"daily": day.date(), "weekly": day.isocalendar()[:2], "monthly": (day.year, day.month), "yearly": day.year}[kind]


def doomed(backups, rules, now, adopted=()):
    """Of the backups of one item, those that go. `rules` is a list of (name, number); adopted: those that count by their names."""
    good = [b for b in backups if b.data and b.manifest in ("good", "hash") and b.data != "cut"]
    good += [b for b in backups if b in adopted]
    past = sorted((b for b in good if b.time <= now + AHEAD), key=lambda b: (-b.time, b.key))
    kept = set()
    for kind in (lambda b: b.manifest is None, lambda b: b.manifest is not None):
        kept.update([b for b in past if kind(b)][:1])
    for name, number in rules:
        if name == "last":
            kept.update(past[:number])
        elif name == "within":
            kept.update(b for b in past if number and b.time >= past[0].time - number)
        else:
            for period in sorted({periods(name, b.time) for b in past}, reverse=True)[:number]:
                kept.add(next(b for b in past if periods(name, b.time) == period))
    return [b for b in past if b not in kept]


class Model:
    """The commands, what they do to the store, and what the model says of it. Steps are in model_steps.py."""

    def __init__(self, scratch, seed, rng, s3=None):
        self.scratch, self.seed = scratch, seed
        self.env = environment(TMPDIR=scratch)
        self.clock = START
        if s3:
            self.env.update(s3.env())
            s3.bucket("bucket")
            self.store = Store(os.path.join(s3.data, "bucket", "p"), s3.url("bucket", "p"), s3, "bucket")
        else:
            os.makedirs(os.path.join(scratch, "store"))
            self.store = Store(os.path.join(scratch, "store"), os.path.join(scratch, "store"))
            self.env["LD_PRELOAD"] = build_trouble(scratch)
        self.tree = model_tree.Tree(os.path.join(scratch, "tree"), rng)
        self.inside = self.tree.base.lstrip(b"/")  # the tree in an archive
        self.backups, self.latest = {}, {}
        self.history = collections.deque([["the beginning"]], maxlen=20)
        self.count = collections.Counter()

    def now(self):
        return self.clock if self.store.local else int(time.time())

    def note(self, *words):
        self.history[-1].append(" ".join(w.decode("utf-8", "backslashreplace") if isinstance(w, bytes) else str(w) for w in words))

    def check(self, condition, *words):
        if not condition:
            raise Wrong(" ".join(map(str, words)))

    def equal(self, expected, found, *words):
        if expected != found:
            raise Wrong(f"{' '.join(map(str, words))}: {found!r}, {expected!r} expected")

    # --- commands ---

    def lunark(self, *args, statuses=(0,), trouble=None, clock=None, kill=None):
        """Runs the command. trouble: "N:sSIGNAL" or "N:eERRNO", see trouble.c; kill: (seconds, signal)."""
        env = dict(self.env)
        if self.store.local:
            env["LUNARK_TEST_CLOCK"] = str(clock or self.clock)
            if trouble:
                env["LUNARK_TEST_TROUBLE"] = trouble
        self.note("lunark", *args, *([f"[{trouble or kill}]"] if trouble or kill else []), *([f"[clock {clock}]"] if clock else []))
        child = subprocess.Popen([LUNARK, *args], env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        try:
            if kill:
                try:
                    out, err = child.communicate(timeout=kill[0])
                except subprocess.TimeoutExpired:
                    child.send_signal(kill[1])
            out, err = child.communicate(timeout=120)
        except subprocess.TimeoutExpired:
            child.kill()
            out, err = child.communicate()
            raise Wrong(f"it took more than 120 s: {err.decode(errors='replace')}") from None
        done = subprocess.CompletedProcess(args, child.returncode, out.decode("utf-8", "surrogateescape"), err.decode(errors="replace"))
        self.note("  ->", done.returncode)
        self.stderr = done.stderr
        self.check(statuses is None or done.returncode in statuses, f"exit status {done.returncode},", sorted(statuses or ()),
                   f"expected\n{done.stdout}\n{done.stderr}")
        return done

    def ended(self, number):
        """Exit statuses of a command that a signal may have ended."""
        return {0, -number if number == signal.SIGKILL else 128 + number}

    # --- what the model says ---

    def listed(self, item=None):
        """(backup, state) as list has them: by item, newest first."""
        found = []
        for b in self.backups.values():
            if b.data and (item is None or b.item == item):
                state = "ok" if b.manifest else "incomplete" if self.marked(b) else "unverified"
                found.append((b, state))
        return sorted(found, key=lambda one: (one[0].item.encode(), -one[0].time, one[0].key.encode()))

    def marked(self, b):
        return not b.foreign and (not self.store.local or bool(self.store.marks(b.key)))

    def newest(self, item, at=None):
        """What restore takes."""
        return next((b for b, state in self.listed(item) if state != "incomplete" and at in (None, b.time)), None)

    def keys(self):
        """All that is to be visible."""
        found = {b.key for b in self.backups.values() if b.data} | {b.manifest_key for b in self.backups.values() if b.manifest}
        return found | {self.latest_key(item) for item in self.latest}

    def latest_key(self, item):
        return f"{item}/{item}-latest.tar.gz"

    def has_marks(self, item):
        return not self.store.local or bool(self.store.marks(self.latest_key(item)))

    def forget(self):
        """Backups of which nothing is left."""
        self.backups = {key: b for key, b in self.backups.items() if b.data or b.manifest}

    def changes(self, before):
        """Keys that came, that went, and that are not what they were."""
        after = self.store.view()
        return (after.keys() - before.keys(), before.keys() - after.keys(),
                {key for key in after.keys() & before.keys() if after[key] != before[key]})

    def unchanged(self, before):
        self.equal((set(), set(), set()), self.changes(before), "what came, went and changed")

    # --- invariants ---

    def look(self):
        """The store shows what the model says: on the disk and by `list`."""
        self.equal(sorted(self.keys()), sorted(self.store.view()), "keys in the store")
        for item, latest in self.latest.items():
            if self.store.local and latest["marked"]:
                meta = self.store.marks(self.latest_key(item))
                self.equal(latest["of"].key, re.sub(r"%(..)", lambda m: chr(int(m[1], 16)), meta.get("lunark-key", "")).encode(
                    "latin-1").decode(), "latest stands for")
        if not self.backups and not self.latest and not os.path.isdir(self.store.folder):
            return
        shown = json.loads(self.lunark("list", self.store.url, "--all", "--json").stdout)["backups"]
        sizes = self.store.view()
        self.equal([{"item": b.item, "key": b.key, "size": sizes[b.key][1], "state": state,
                     "time": utc(b.time).strftime("%Y-%m-%dT%H:%M:%SZ"), **({"manifest": b.manifest_key} if b.manifest else {})}
                    for b, state in self.listed()], shown, "list")

    def target(self):
        path = os.path.join(self.scratch, "into")
        if os.path.lexists(path):
            shutil.rmtree(path)
        return path

    def same(self, b, into, without=(), holes=True, contents=None):
        """What is in a folder is the tree of a backup."""
        tree, allocated = contents or b.contents
        found = model_tree.snapshot(os.path.join(os.fsencode(into), self.inside))
        wrong = model_tree.differences(tree, found, without)
        self.check(not wrong, b.key, "is restored and is not the tree that it was:\n ", "\n  ".join(wrong[:20]))
        self.check(not holes or model_tree.allocated(into) <= allocated + (256 << 10), "holes did not come back:",
                   model_tree.allocated(into), allocated)

    def restore(self, b, *where, trouble=None, statuses=None, contents=None):
        """Restores a backup as `where` names it. Restored as good is only what is right."""
        into = self.target()
        done = self.lunark("restore", *where, "--into", into, statuses=statuses or b.statuses(), trouble=trouble)
        if done.returncode == 0:
            self.same(b, into, contents=contents)
            self.count["restored"] += 1
        else:
            self.count["refused"] += 1
        return done

    def untar(self, b):
        """The same with GNU tar."""
        into = self.target()
        os.mkdir(into)
        more = ["--xattrs", "--xattrs-include=*"] if b.time % 2 else []
        done = subprocess.run(["tar", *more, "-xpzf", self.store.path(b.key), "-C", into], stdout=subprocess.DEVNULL,
                              stderr=subprocess.PIPE, env=self.env if not self.store.local else environment())
        self.note("tar", b.key, "->", done.returncode)
        self.equal(0, done.returncode, f"tar xzf {b.key}: {done.stderr.decode(errors='replace')}")
        self.same(b, into, () if more else ("xattrs",), holes=False)
        self.count["tar"] += 1

    def one_of(self, b):
        """A URL of one archive."""
        if self.store.local:
            return self.store.path(b.key)
        return self.store.url.replace("?", "/" + b.key.replace(" ", "%20") + "?", 1)

    def everything(self):
        """All backups: those that are whole come back, the others are refused."""
        for b, state in self.listed():
            self.restore(b, "--from", self.one_of(b))
            if b.data == "whole":
                self.untar(b)

    def digest(self, key):
        with open(self.store.path(key), "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
