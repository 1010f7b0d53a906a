# SPDX-License-Identifier: MIT
"""The steps of the model test: each does something at random, and says what may have come of it."""
import contextlib
import json
import os
import random
import re
import shutil
import signal
import stat
import subprocess
import time

import model_tree
from harness import environment
from model import HALF, ITEMS, Backup, Model, doomed, stem_of

ENOSPC, EDQUOT, EIO = 28, 122, 5
SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
DAY = 86400
MANY = 16  # backups


def literal(path):
    """A glob for --path that matches nothing else."""
    return re.sub(rb"[*?\[\\]", rb"\\\g<0>", path)


class Steps(Model):
    # --- backup ---

    def options(self, rng):
        """Random ones; item, style, whether latest moves, clock, rules of prune."""
        item = rng.choice(ITEMS)
        style = "compat" if rng.random() < 0.2 else "standard"
        words = ["--name", item, "--name-format", style]
        if rng.random() < 0.7:
            words += ["--compress", rng.choice(("fast", "balanced", "none", "1", "6", "9"))]
        if rng.random() < 0.2:
            words += ["--jobs", rng.choice(("1", "3"))]
        if rng.random() < 0.1:
            words += ["--memory", "20M"]
        if rng.random() < 0.1:
            words += ["--strict"]
        latest = rng.random() > 0.15
        if not latest:
            words.append("--no-latest")
        clock = self.clock
        if self.store.local and rng.random() < 0.15:
            clock -= rng.choice((1, 60, 3600, DAY, 40 * DAY))
        return item, style, latest, clock, words

    def rules(self, rng):
        """Random ones as (name, number), and as options."""
        rules = []
        for name, most in (("last", 6), ("daily", 4), ("weekly", 3), ("monthly", 3), ("yearly", 2)):
            if rng.random() < 0.35:
                rules.append((name, rng.randrange(most)))
        if rng.random() < 0.3:
            rules.append(("within", rng.choice((1, 60, 3600, DAY, 30 * DAY))))
        if not any(number for _, number in rules):
            rules = [("last", rng.randrange(1, 6))]
        words = []
        for name, number in rules:
            words += [f"--keep-{name}", f"{number}s" if name == "within" else str(number)]
        return rules, words

    def run_backup(self, rng, choice, words=(), statuses=(0,), trouble=None, kill=None):
        """Runs one; what it was and what it did: the new Backup, or None."""
        item, style, latest, clock, options = choice
        snapshot = model_tree.snapshot(self.tree.base)
        before, left = self.store.view(), self.store.unfinished()
        began = self.now()
        done = self.lunark("backup", "files", os.fsdecode(self.tree.base), "--to", self.store.url, *options, *words,
                           statuses=statuses, trouble=trouble, clock=clock, kill=kill)
        if kill and not self.store.local:
            time.sleep(0.5)  # a server may store what it has got after nobody waits for its answer any more
        added, removed, changed = self.changes(before)
        first = [clock] if self.store.local else range(began, self.now() + 1)
        fresh = {self.free(item, seconds, style, before): None for seconds in first}
        archives = sorted(key for key in added if key.endswith(".tar.gz") and "-latest." not in key)
        self.check(len(archives) <= 1, "more than one archive came:", archives)
        made = None
        if archives:
            made = next((one for one in (Backup(item, seconds, style, snapshot, 0) for seconds in fresh)
                         if one.key == archives[0]), None)
            self.check(made, "the key is", archives[0], ", the first free one expected of", [stem_of(item, s, style) for s in fresh])
            self.take(made, added, before)
            self.count["backups"] += 1
        moved = self.latest_key(item) in added | changed
        if done.returncode == 0:
            self.check(made and made.manifest, "it ended well and stored nothing")
        if moved:
            self.check(made and made.manifest and latest, "latest moved without a whole new backup")
        if done.returncode == 0 and latest:
            self.equal(self.moves(made), moved, "latest moved")
        self.equal((set(), set()), (added - ({made.key, made.manifest_key} if made else set()) - {self.latest_key(item)},
                                    changed - {self.latest_key(item)}), "what else came and changed")
        if moved:
            self.latest[item] = {"of": made, "data": "whole", "marked": True}
        if done.returncode >= 0:
            self.equal(set(), self.store.unfinished() - left, "temporary files after a command that ended")
        return done, made, removed

    def free(self, item, seconds, style, view):
        while {stem_of(item, seconds, style) + end for end in (".tar.gz", ".manifest.json")} & view.keys():
            seconds += 1
        return seconds

    def take(self, made, added, before):
        """Into the model, as it is stored."""
        made.contents = (made.snapshot, model_tree.allocated(self.tree.base))
        made.size, made.sha256 = os.path.getsize(self.store.path(made.key)), self.digest(made.key)
        made.manifest = "good" if made.manifest_key in added else None
        self.check(made.key not in before, "an archive was replaced:", made.key)
        self.backups[made.key] = made
        if made.manifest:
            with open(self.store.path(made.manifest_key), encoding="utf-8") as file:
                said = json.load(file)
            self.equal((made.key, made.size, made.sha256), (said["key"], said["size"], said["sha256"]), "the manifest says")

    def moves(self, made):
        """Whether latest is to stand for a new backup: unless it stands for a newer one."""
        latest = self.latest.get(made.item)
        return not (latest and latest["marked"] and latest["of"].time > made.time)

    def step_backup(self, rng):
        choice = self.options(rng)
        item, _, _, clock, _ = choice
        rules, words = self.rules(rng) if rng.random() < 0.15 else ([], [])
        _, made, removed = self.run_backup(rng, choice, words)
        going = doomed([b for b in self.backups.values() if b.item == item], rules, clock if self.store.local else made.time) if rules else []
        self.equal({key for b in going for key in (b.key, b.manifest_key)}, removed, "what --keep deletes")
        self.drop(going)

    def drop(self, going):
        for b in going:
            b.data = b.manifest = None
        self.forget()

    def trouble(self, rng, most):
        """A signal before one of the changes of files, and the exit statuses it may lead to."""
        number = rng.choice(SIGNALS)
        return f"{rng.randrange(1, most)}:s{int(number)}", self.ended(number)

    def step_backup_killed(self, rng):
        choice = self.options(rng)
        if self.store.local and rng.random() < 0.8:
            trouble, statuses = self.trouble(rng, 45)
            _, _, removed = self.run_backup(rng, choice, trouble=trouble, statuses=statuses)
        else:
            number = rng.choice(SIGNALS)
            words = ["--limit-rate", rng.choice(("2M", "20M"))] if rng.random() < 0.5 else []
            _, _, removed = self.run_backup(rng, choice, words, kill=(rng.random() * (0.15 if self.store.local else 0.5), number),
                                            statuses=self.ended(number) | {-number})
        self.equal(set(), removed, "what went")

    def step_backup_full(self, rng):
        """A disk that is full from some moment on. Local only."""
        choice = self.options(rng)
        _, _, removed = self.run_backup(rng, choice, trouble=f"{rng.randrange(1, 25)}:e{rng.choice((ENOSPC, EDQUOT, EIO))}",
                                        statuses={0, 1, 3})
        self.equal(set(), removed, "what went")

    def step_backup_refused(self, rng):
        """What is wrong from the beginning changes nothing."""
        before = self.store.view()
        words, status = rng.choice(((["--compress", "much"], {2}), (["--name", "a/b"], {2}), (["--keep-last", "-1"], {2}),
                                    (["--keep-last", "0"], {2}), (["--no-such"], {2}), (["--to", "gopher://x"], {0, 1, 2})))
        if words[0] == "--to":
            args = ["backup", "files", os.fsdecode(self.tree.base) + "/nowhere", "--to", self.store.url]
            status = {1, 3}
        else:
            args = ["backup", "files", os.fsdecode(self.tree.base), "--to", self.store.url, *words]
        self.lunark(*args, statuses=status)
        self.unchanged(before)

    # --- restore ---

    def step_restore(self, rng):
        before = self.store.view()
        item = rng.choice(ITEMS)
        listed = [b for b, _ in self.listed(item)]
        way = rng.randrange(5)
        if not listed:
            self.lunark("restore", "--from", self.store.url, "--item", item, "--into", self.target(), statuses={1, 3})
        elif way == 0:
            self.restore_as(self.newest(item), "--from", self.store.url, "--item", item)
        elif way == 1:
            b = rng.choice(listed)
            at = rng.choice((stem_of("x", b.time, "standard")[4:], stem_of("x", b.time, "compat")[4:]))
            self.restore_as(self.newest(item, b.time), "--from", self.store.url, "--item", item, "--at", at)
        elif way == 2:
            b = rng.choice(listed)
            self.restore(b, "--from", self.one_of(b))
        elif way == 3 and item in self.latest:
            self.restore_latest(item)
        else:
            self.restore_some(rng, rng.choice(listed))
        self.unchanged(before)

    def restore_as(self, b, *where):
        """The backup that is meant, or none."""
        if b:
            self.restore(b, *where)
        else:
            self.lunark("restore", *where, "--into", self.target(), statuses={1})

    def restore_latest(self, item):
        """--at latest: the backup that it stands for while that is listed, else latest itself."""
        latest = self.latest[item]
        b = latest["of"]
        listed = [one for one, _ in self.listed(item) if one is b]
        if latest["marked"] and listed:
            return self.restore(b, "--from", self.store.url, "--item", item, "--at", "latest")
        statuses = {0} if latest["data"] == "whole" else {4} if latest["marked"] else {0, 4}
        return self.restore(b, "--from", self.store.url, "--item", item, "--at", "latest", statuses=statuses,
                            contents=(b.snapshot, 1 << 40))

    def restore_some(self, rng, b):
        """--path: what is asked for comes, as it was, and nothing but what lies on its way."""
        wanted = rng.sample(sorted(b.snapshot), min(len(b.snapshot), rng.choice((1, 1, 2, 5))))
        words = []
        for path in wanted:
            words += ["--path", os.fsdecode(literal(os.path.normpath(os.path.join(self.inside, path))))]
        into = self.target()
        statuses = b.statuses() | ({0} if b.manifest in ("good", "hash", "size") else set())
        if b.data != "whole":  # 1: what is asked for is not in the archive that lies there now
            statuses = statuses | {0, 1, 4}
        done = self.lunark("restore", "--from", self.one_of(b), "--into", into, *words, statuses=statuses)
        if done.returncode:
            self.count["refused"] += 1
            return
        found = model_tree.snapshot(os.path.join(os.fsencode(into), self.inside))
        if b.contents[0] is not b.snapshot:
            return
        needed = {path for path in b.snapshot if any(path == one or one == b"." or path.startswith(one + b"/") for one in wanted)}
        above = {path for path in b.snapshot if any(path == b"." or one.startswith(path + b"/") for one in wanted)}
        self.equal(needed | above, found.keys() | above, "what is restored")
        wrong = model_tree.differences({path: b.snapshot[path] for path in found}, found, ("link",))
        self.check(not wrong, b.key, "restored in part is not what it was:\n ", "\n  ".join(wrong[:20]))
        self.count["restored in part"] += 1

    def step_files(self, rng):
        """What is said to be in an archive is what was put into it."""
        whole = sorted((b for b in self.backups.values() if b.data == "whole"), key=lambda b: b.key)
        if not whole:
            return
        b = rng.choice(whole)
        lines = self.lunark("list", "--files", "--json", self.one_of(b)).stdout.splitlines()
        said = {one["path"]: one.get("sha256") if one["size"] else None for one in map(json.loads, lines)}
        expected = {}
        for path, entry in b.snapshot.items():
            first = entry.get("link", path) == path and not b.foreign
            expected[os.path.normpath(os.path.join(self.inside, path))] = entry["data"][1] if first and entry.get("data", (0,))[0] else None
        plain = {name.decode(): digest for name, digest in expected.items() if name.isascii() and name.decode().isprintable()}
        self.equal(len(expected), len(lines), "entries")
        self.equal(plain, {name: None if b.foreign else said.get(name, "not listed") for name in plain}, "digests of files")

    def step_restore_killed(self, rng):
        """What is there afterwards is whole; done again it is all there."""
        whole = [b for b in self.backups.values() if b.restores]
        if not whole:
            return self.step_change(rng)
        b, before, into = rng.choice(sorted(whole, key=lambda b: b.key)), self.store.view(), self.target()
        args = ["restore", "--from", self.one_of(b), "--into", into]
        if self.store.local and rng.random() < 0.8:
            if rng.random() < 0.3:
                done = self.lunark(*args, trouble=f"{rng.randrange(1, 100)}:e{ENOSPC}", statuses={0, 1})
            else:
                trouble, statuses = self.trouble(rng, 250)
                done = self.lunark(*args, trouble=trouble, statuses=statuses)
        else:
            number = rng.choice(SIGNALS)
            done = self.lunark(*args, kill=(rng.random() * 0.1, number), statuses=self.ended(number) | {-number})
        self.halves(b, into, done.returncode < 0)
        if done.returncode == 0:
            self.same(b, into)
        self.lunark(*args, "--overwrite")
        self.halves(b, into, True, remove=True)
        self.same(b, into)
        self.unchanged(before)
        return None

    def halves(self, b, into, may, remove=False):
        """No file under its own name is incomplete; temporary ones are there only after a SIGKILL."""
        for folder, _, files in os.walk(os.fsencode(into)):
            for name in files:
                path = os.path.join(folder, name)
                if HALF.match(name):
                    self.check(may, "a temporary file is left:", path)
                    if remove:
                        times = os.stat(folder)
                        os.unlink(path)
                        os.utime(folder, ns=(times.st_atime_ns, times.st_mtime_ns))
                elif os.path.isfile(path) and not os.path.islink(path):
                    inside = os.path.relpath(path, os.path.join(os.fsencode(into), self.inside))
                    with open(path, "rb") as file:
                        data = file.read()
                    said = b.snapshot.get(inside)
                    self.check(said and said.get("data", (None,))[0] == len(data), "half a file:", path)

    # --- prune ---

    def step_prune(self, rng, trouble=None, statuses=(0,), kill=None):
        rules, words = self.rules(rng)
        item = rng.choice(ITEMS) if rng.random() < 0.5 else None
        adopt, dry = rng.random() < 0.2, rng.random() < 0.2
        before = self.store.view()
        words += ["--item", item] if item else []
        words += ["--adopt"] if adopt else []
        adopted = [b for b, state in self.listed() if adopt and state == "unverified"]
        done = self.lunark("prune", self.store.url, "--json", *words, "--dry-run" if dry else "--yes", trouble=trouble,
                           statuses=statuses, kill=kill)
        going = []
        for name in ITEMS if item is None else [item]:
            going += doomed([b for b in self.backups.values() if b.item == name], rules, self.now(), adopted)
        if done.returncode == 0:
            said = json.loads(done.stdout)
            self.equal(sorted(b.key for b in going), sorted(line["key"] for line in said["backups"] if line["plan"] == "delete"), "the plan")
        added, removed, changed = self.changes(before)
        self.equal((set(), set()), (added, changed), "what came and changed")
        if dry or done.returncode == 0:
            self.equal(set() if dry else {key for b in going for key in (b.key, b.manifest and b.manifest_key) if key}, removed, "what went")
        self.after_prune(going, removed)

    def after_prune(self, going, removed):
        """A manifest goes before its archive: what is cut short never looks like a backup."""
        for b in going:
            if b.manifest and b.manifest_key in removed:
                b.manifest = None
                removed.discard(b.manifest_key)
            if b.key in removed:
                self.check(b.manifest is None, b.key, "went before its manifest")
                b.data = None
                removed.discard(b.key)
        self.equal(set(), removed, "what else went")
        self.forget()

    def step_prune_killed(self, rng):
        if self.store.local and rng.random() < 0.9:
            trouble, statuses = self.trouble(rng, 20)
            self.step_prune(rng, trouble=trouble, statuses=statuses)
        else:
            number = rng.choice(SIGNALS)
            self.step_prune(rng, kill=(rng.random() * 0.1, number), statuses=self.ended(number) | {-number})

    def step_orphans(self, rng):
        """Incomplete archives and temporary files, if they are old enough."""
        older = rng.choice((0, 3600, 10 * DAY, 400 * DAY)) if self.store.local else rng.choice((0, 10 * DAY))
        dry = rng.random() < 0.2
        before, left = self.store.view(), self.store.unfinished()
        going = [b for b, state in self.listed() if state == "incomplete" and self.age(b, before) >= older]
        self.lunark("prune", self.store.url, "--orphans", "--older-than", f"{older}s", "--dry-run" if dry else "--yes")
        added, removed, changed = self.changes(before)
        self.equal((set(), set() if dry else {b.key for b in going}, set()), (added, removed, changed), "what came, went and changed")
        old = {path for path in left if not self.store.local or self.clock - os.stat(path).st_mtime >= older} if dry else set()
        if not dry:
            young = {path for path in self.store.unfinished() if older == 0}
            self.equal(set(), young, "unfinished uploads that are left")
            for b in going:
                b.data = None
        self.check(not dry or old <= self.store.unfinished(), "a dry run removed something")
        self.forget()

    def age(self, b, view):
        return self.now() - max(b.time, view[b.key][2] / 1e9 if self.store.local else b.time)

    # --- verify ---

    def verdicts(self, b, deep):
        """States that verify may find."""
        if b.manifest is None:
            state = "incomplete" if self.marked(b) else "unverified"
            return {state} if b.data == "whole" else {state, "damaged"}
        if b.data is None:
            return {"missing"}
        if b.manifest == "newer":
            return {"unverified"} if b.data == "whole" else {"unverified", "damaged"}
        if b.restores:
            return {"ok"}
        if deep or b.data == "cut" or b.manifest in ("corrupt", "size"):
            return {"damaged"}
        return {"ok", "damaged"}

    def step_verify(self, rng):
        before = self.store.view()
        words = rng.choice(([], ["--data", f"{rng.choice((1, 10, 60))}%", "--seed", str(rng.randrange(1000))],
                            ["--data", "all"], ["--data", "all"], ["--restore"]))
        deep = words[-1:] in (["all"], ["--restore"])
        done = self.lunark("verify", self.store.url, "--all", "--json", *words, statuses=None)
        self.unchanged(before)
        if not self.backups and not self.latest:
            self.check(done.returncode in (1, 3), "nothing is there:", done.returncode)
            return
        said = json.loads(done.stdout)
        self.equal(done.returncode, said["status"], "status")
        by_key = {one["key"]: one for one in said["backups"]}
        damaged = False
        for b in self.backups.values():
            one = by_key.pop(b.key if b.data or b.manifest not in ("corrupt", "newer") else b.manifest_key, None)
            self.check(one, b.key, "is not verified")
            may = self.verdicts(b, deep)
            self.check(one["state"] in may, b.key, "is", one["state"], "by verify,", may, "expected:", one["findings"], one.get("error"))
            damaged = damaged or one["state"] in ("damaged", "missing")
            if "all" in words and b.data == "damaged":
                self.named(b, one)
        for item in self.latest:
            one = by_key.pop(self.latest_key(item), None)
            self.check(one, self.latest_key(item), "is not verified")
            self.check_latest(item, one)
            damaged = damaged or one["state"] in ("damaged", "missing")
        self.equal({}, by_key, "what else is verified")
        self.equal(4 if damaged else 0, done.returncode, "status")
        self.count["verified"] += len(said["backups"])

    def check_latest(self, item, one):
        latest = self.latest[item]
        of = latest["of"]
        if not latest["marked"]:
            may = {"unverified"}
        elif latest["data"] == "cut":
            may = {"ok", "damaged"}
        elif of.manifest in ("size", "hash"):
            may = {"damaged"}
        else:
            may = {"ok"}
        self.check(one["state"] in may, item, "latest is", one["state"], "by verify,", may, "expected:", one["findings"], one.get("error"))

    def named(self, b, one):
        """A flipped byte in the data of files is named with one of them."""
        paths = {finding.get("path") for finding in one["findings"]}
        for names in b.flips:
            self.check(not names or names & paths, b.key, "a damaged byte lies in one of", names, "named are", paths)

    # --- damage ---

    def step_damage(self, rng):
        found = sorted((b for b in self.backups.values() if b.data), key=lambda b: b.key)
        if not found:
            return self.step_change(rng)
        b = rng.choice(found)
        kinds = [self.flip] * 4 + [self.cut, self.cut, self.swap, self.touch, self.lose_data, self.lose_manifest, self.lose_latest]
        kind = rng.choice(kinds + [self.edit_manifest] * 3)
        kind(rng, b)
        self.note(kind.__name__, b.key)
        self.count["damaged"] += 1
        return None

    @contextlib.contextmanager
    def kept_time(self, path):
        before = os.stat(path)
        yield before
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))

    def shares(self, b):
        """The item whose latest is the same file, and that."""
        for item, latest in self.latest.items():
            if self.store.local and os.path.samefile(self.store.path(b.key), self.store.path(self.latest_key(item))):
                return item, latest
        return None, None

    def hurt(self, b, how):
        """The bytes of an archive are not what they were; a second name shares them."""
        item, latest = self.shares(b)
        b.data = self.bytes_of(b, how)
        b.flips = b.flips if b.data == "damaged" else []
        if latest:
            latest["data"] = "cut" if "cut" in (how, latest["data"]) else how
            latest["marked"] = latest["marked"] and self.has_marks(item)

    def bytes_of(self, b, how):
        """What an archive is now; two swaps can bring it back."""
        if os.path.getsize(self.store.path(b.key)) != b.size:
            return "cut"
        return "whole" if self.digest(b.key) == b.sha256 else how

    def flip(self, rng, b):
        path = self.store.path(b.key)
        with self.kept_time(path) as before, open(path, "r+b") as file:
            if not before.st_size:
                return
            data = file.read()
            at = rng.randrange(before.st_size)
            byte = bytes([data[at] ^ rng.randrange(1, 256)])
            if b.data == "whole":
                b.flips.append(model_tree.files_at(data, at, byte) if not b.foreign else set())
            file.seek(at)
            file.write(byte)
        self.note(f"byte {at} is {byte!r}")
        self.hurt(b, "damaged")

    def cut(self, rng, b):
        path = self.store.path(b.key)
        with self.kept_time(path) as before:
            os.truncate(path, rng.choice((0, rng.randrange(before.st_size + 1), max(0, before.st_size - 94), before.st_size + 7)))
            if os.path.getsize(path) == before.st_size:
                return
        self.hurt(b, "cut")

    def swap(self, rng, b):
        """Two archives take each other's name."""
        other = rng.choice(sorted((o for o in self.backups.values() if o.data), key=lambda o: o.key))
        if other is b or self.digest(b.key) == self.digest(other.key):
            return
        one, two, spare = self.store.path(b.key), self.store.path(other.key), os.path.join(self.scratch, "spare")
        os.rename(one, spare)
        os.rename(two, one)
        os.rename(spare, two)
        whole = b.data in ("whole", "other") and other.data in ("whole", "other")
        b.contents, other.contents = other.contents, b.contents
        for one in (b, other):
            one.data, one.flips = self.bytes_of(one, "other" if whole else "damaged"), []

    def touch(self, rng, b):
        """A time alone is no damage; a local store does not know the metadata any more."""
        path = self.store.path(rng.choice((b.key, self.latest_key(b.item))))
        if os.path.exists(path):
            os.utime(path, (rng.randrange(10**9), rng.randrange(10**9)))
        for item, latest in self.latest.items():
            latest["marked"] = latest["marked"] and self.has_marks(item)

    def lose_data(self, rng, b):
        self.store.remove(b.key)
        b.data = None
        self.forget()

    def lose_manifest(self, rng, b):
        if b.manifest:
            self.store.remove(b.manifest_key)
            b.manifest = None

    def lose_latest(self, rng, b):
        if b.item in self.latest:
            self.store.remove(self.latest_key(b.item))
            del self.latest[b.item]

    def edit_manifest(self, rng, b):
        if b.manifest != "good":
            return
        path = self.store.path(b.manifest_key)
        with open(path, encoding="utf-8") as file:
            text = file.read()
        said = json.loads(text)
        b.manifest = rng.choice(("corrupt", "size", "hash", "newer"))
        if b.manifest == "corrupt":
            text = rng.choice(("", "{", text[:len(text) // 2], "[]", "null", "\0" * 100, text.replace("sha256", "sha257"),
                               text.replace(b.key, "x/x-2001-01-01T000000Z.tar.gz")))
        elif b.manifest == "size":
            text = json.dumps({**said, "size": said["size"] + rng.choice((-1, 1, 1000))})
        elif b.manifest == "hash":
            text = json.dumps({**said, "sha256": "0" + said["sha256"][1:] if said["sha256"][0] != "0" else "1" + said["sha256"][1:]})
        else:
            text = json.dumps({**said, "lunark_manifest": 2})
        with open(path, "r+", encoding="utf-8") as file:
            file.truncate()
            file.write(text)

    # --- the rest ---

    def step_foreign(self, rng):
        """An archive of another tool, under a name as the old charts have it. Local only."""
        item, style = rng.choice(ITEMS), rng.choice(("standard", "compat"))
        seconds = self.free(item, self.clock - rng.randrange(20 * DAY), style, self.store.view())
        snapshot = model_tree.snapshot(self.tree.base)
        for entry in snapshot.values():  # GNU tar knows no links of pipes
            if entry["kind"] == stat.S_IFIFO:
                entry.pop("link", None)
        b = Backup(item, seconds, style, snapshot, 0)
        if b.key in self.backups:
            return
        path = self.store.path(b.key)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        done = subprocess.run(["tar", "--format=posix", "--xattrs", "-czf", path, "-C", "/", self.inside], env=environment(), check=True,
                              stderr=subprocess.PIPE)
        self.note("tar", b.key, done.stderr)
        b.size, b.sha256 = os.path.getsize(path), self.digest(b.key)
        b.manifest, b.foreign, b.contents = None, True, (b.snapshot, 1 << 40)
        self.backups[b.key] = b

    def step_change(self, rng):
        for _ in range(rng.choice((1, 1, 2, 5))):
            self.note(*self.tree.edit(rng))

    def step_tidy(self, rng):
        """What nothing else removes."""
        for b in sorted(self.backups.values(), key=lambda b: b.key):
            if len(self.backups) > MANY // 2 and not b.restores:
                for key in (b.data and b.key, b.manifest and b.manifest_key):
                    if key:
                        self.store.remove(key)
                b.data = b.manifest = None
                self.forget()
        for item in ITEMS:
            if os.path.isdir(self.store.path(item)) and not os.listdir(self.store.path(item)):
                shutil.rmtree(self.store.path(item))

    WEIGHTS = (("change", 16), ("backup", 16), ("backup_killed", 9), ("backup_full", 5), ("backup_refused", 1), ("restore", 14),
               ("restore_killed", 5), ("prune", 5), ("prune_killed", 4), ("orphans", 3), ("verify", 7), ("damage", 10), ("files", 2), ("foreign", 1))
    LOCAL = ("backup_full", "foreign")

    def step(self, number):
        rng = random.Random(f"{self.seed} {number}")
        self.clock += rng.choice((0, 0, 1, 60, 3600, 7 * 3600, DAY, DAY, 5 * DAY, 33 * DAY))
        names = [(name, weight) for name, weight in self.WEIGHTS if self.store.local or name not in self.LOCAL]
        name = rng.choices([name for name, _ in names], [weight for _, weight in names])[0]
        if len(self.backups) > MANY:
            name = rng.choice(("tidy", "prune", "prune_killed"))
        self.history.append([f"{number} {name}"])
        self.count[name] += 1
        getattr(self, "step_" + name)(rng)
        if name != "change":
            self.look()
        whole = sorted((b for b in self.backups.values() if b.restores), key=lambda b: b.key)
        if whole and number % 5 == 0:
            b = rng.choice(whole)
            self.restore(b, "--from", self.one_of(b))
            if number % 10 == 0:
                self.untar(b)
        if number % 100 == 0:
            self.everything()
