# SPDX-License-Identifier: MIT
"""lunark verify: every kind of damage is found and named, what is whole is not blamed, and nothing is written."""
import glob
import gzip
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
import minio_server  # noqa: E402
import read_index  # noqa: E402
from harness import Case, load_json, main, make_tree  # noqa: E402


class Verify(Case):
    def setUp(self):
        super().setUp()
        self.store = self.path("store")

    def tree(self, name="data", files=300, big=5 << 20, seed=1):
        """Small files, which share members, and one large one, which spans several."""
        rng = random.Random(seed)
        for number in range(files):
            self.write(f"{name}/d{number % 5}/file {number}", rng.randbytes(rng.choice((0, 10, 3000, 30000))))
        self.write(f"{name}/large", rng.randbytes(big))
        self.write(f"{name}/zeros", b"\0" * 100000)
        os.symlink("large", self.path(name, "zz link"))
        os.link(self.path(name, "large"), self.path(name, "zz hard"))
        return self.path(name)

    def backup(self, name="data", **more):
        if not os.path.exists(self.path(name)):
            self.tree(name, **more)
        self.lunark("backup", "files", self.path(name), "--to", self.store)
        return sorted(glob.glob(f"{self.store}/{name}/{name}-2*.tar.gz"))[-1]

    def verify(self, *args, status=0, url=None, **more):
        """The one backup, or all, as --json has them."""
        done = self.lunark("verify", "--json", url or self.store, *args, status=status, **more)
        self.stderr = done.stderr
        found = json.loads(done.stdout)
        self.assertEqual(status, found["status"])
        return found["backups"]

    def dated(self, *args, **more):
        (found,) = [one for one in self.verify(*args, **more) if not one.get("latest")]
        return found

    def flip(self, path, offset, mask=0x20):
        before = os.stat(path)
        with open(path, "r+b") as file:
            file.seek(offset)
            byte = file.read(1)
            file.seek(offset)
            file.write(bytes([byte[0] ^ mask]))
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))

    def index(self, path):
        with open(path, "rb") as file:
            return read_index.read(file.read())

    def messages(self, found):
        return "\n".join(finding["message"] for finding in found["findings"])


class Quick(Verify):
    def test_whole_backups(self):
        self.backup()
        self.backup("other")
        before = sorted((e.path, e.stat().st_mtime_ns) for e in os.scandir(self.store + "/data"))
        found = self.verify()
        self.assertEqual(["data", "data", "other", "other"], [one["item"] for one in found])
        self.assertEqual({"ok"}, {one["state"] for one in found})
        self.assertEqual(before, sorted((e.path, e.stat().st_mtime_ns) for e in os.scandir(self.store + "/data")))
        done = self.lunark("verify", self.store, "--item", "data")
        self.assertEqual(2, len(done.stdout.splitlines()))
        self.assertRegex(done.stdout, r"(?m)^ok +data +20\S+Z +data/data-\S+\.tar\.gz +checked: manifest, size, index$")
        self.assertRegex(done.stdout, r"(?m)^ok +data +latest +data/data-latest\.tar\.gz +checked: size, latest$")
        self.assertEqual("", done.stderr)

    def test_which_ones(self):
        first = self.backup(files=3)
        time.sleep(1)
        second = self.backup(files=3)
        stamps = [re.search(r"data-(\S+Z)", path).group(1) for path in (first, second)]
        self.assertIn(stamps[1], self.dated()["key"])
        self.assertEqual(3, len(self.verify("--all")))
        (found,) = self.verify("--at", stamps[0])
        self.assertIn(stamps[0], found["key"])
        (found,) = self.verify("--at", "latest")
        self.assertEqual((True, f"data/data-{stamps[1]}.tar.gz"), (found["latest"], found["stands_for"]))
        self.assertIn("index", found["checked"])
        (found,) = self.verify(url=first)
        self.assertEqual("ok", found["state"])
        self.assertEqual(["manifest", "size", "index"], found["checked"])
        (found,) = self.verify(url=self.store + "/data/data-latest.tar.gz")
        self.assertEqual(["size", "latest", "index"], found["checked"])
        for words in (["--at", stamps[0]], ["--item", "data"], ["--all"]):
            self.assertIn("say nothing there", self.lunark("verify", first, *words, status=2).stderr)
        self.lunark("verify", self.store, "--all", "--at", stamps[0], status=2)
        self.assertIn("there is no backup of 'nothing'", self.lunark("verify", self.store, "--item", "nothing", status=1).stderr)
        self.lunark("verify", self.store, "--at", "2001-01-01T00:00:00Z", status=1)
        self.lunark("verify", self.path("nowhere"), status=3)

    def test_index_block_list_and_footer(self):
        archive = self.backup()
        footer, blocks, _, _ = self.index(archive)
        self.assertGreater(len(blocks), 1)
        size = os.path.getsize(archive)
        for at, words in ((blocks[1][0] + 100, f"index block at byte {blocks[1][0]}: a checksum is wrong"),
                          (blocks[0][0] + 13, f"index block at byte {blocks[0][0]}: a member is not"),
                          (footer["list_at"] + 40, "the list of index blocks is damaged"),
                          (size - 94 + 40, "index of the archive is damaged"),
                          (size - 94 + 13, "has no index at its end")):
            self.flip(archive, at)
            found = self.dated(status=4)
            self.assertEqual("damaged", found["state"])
            self.assertIn(words, self.messages(found))
            self.flip(archive, at)
        self.assertEqual("ok", self.dated()["state"])

    def test_cut_off_and_replaced(self):
        archive = self.backup()
        with open(archive, "rb") as file:
            whole = file.read()
        other = self.backup("other", seed=2, files=310)
        with open(other, "rb") as file:
            theirs = file.read()
        for data, words in ((whole[:-1], "has %d bytes in the store, %d by its manifest" % (len(whole) - 1, len(whole))),
                            (whole[:len(whole) // 2], "it is cut off"), (b"", "has 0 bytes"), (theirs, "the manifest counts")):
            with open(archive, "wb") as file:
                file.write(data)
            found = self.dated("--item", "data", status=4)
            self.assertEqual("damaged", found["state"])
            self.assertIn(words, self.messages(found))

    def test_manifest(self):
        archive = self.backup(files=3)
        path = archive.replace(".tar.gz", ".manifest.json")
        good = load_json(path)
        for change, words in (({"size": good["size"] + 1}, "by its manifest"), ({"sha256": "0" * 63}, "64 hexadecimal"),
                              ({"item": "other"}, "it speaks of item other"), ({"key": "a/a-2026-01-31T020000Z.tar.gz"},
                                                                               "it speaks of another backup"),
                              ({"archive": {**good["archive"], "files": 1000}}, "the manifest counts 1")):
            self.write(path, json.dumps({**good, **change}))
            found = self.dated(status=4)
            self.assertEqual("damaged", found["state"])
            self.assertIn(words, self.messages(found))
        self.write(path, "{")
        self.assertIn("JSON expected", self.messages(self.dated(status=4)))
        self.write(path, json.dumps({**good, "lunark_manifest": 2}))
        found = self.dated()
        self.assertEqual("unverified", found["state"])
        self.assertIn("use a newer lunark", self.messages(found))
        self.dated("--strict", status=5)
        self.write(path, json.dumps({**good, "added": 1}))
        self.assertEqual("ok", self.dated()["state"])

    def test_missing_and_incomplete(self):
        archive = self.backup(files=3)
        os.rename(archive, self.path("away"))
        found = self.dated(status=4)
        self.assertEqual("missing", found["state"])
        self.assertIn("is not in the store, its manifest is", self.messages(found))
        os.rename(self.path("away"), archive)
        os.unlink(archive.replace(".tar.gz", ".manifest.json"))
        found = self.dated()
        self.assertEqual("incomplete", found["state"])
        self.assertIn("has no manifest", self.messages(found))
        self.dated("--strict", status=5)

    def test_latest(self):
        first = self.backup(files=3)
        self.write("data/more", "more")
        time.sleep(1)
        second = self.backup(files=3)
        side = self.store + "/data/.data-latest.tar.gz.lunark"
        good = load_json(side)
        self.assertIn(good["records"][0]["meta"]["lunark-key"], second)

        def mark(**change):
            meta = {**good["records"][0]["meta"], **{"lunark-" + name: value for name, value in change.items()}}
            record = {**good["records"][0], "meta": {name: value for name, value in meta.items() if value}}
            self.write(side, json.dumps({**good, "records": [record]}))

        for change, words in (({"key": os.path.relpath(first, self.store)}, "is marked with SHA-256"),
                              ({"sha256": "0" * 64}, "is marked with SHA-256"), ({"sha256": None}, "its SHA-256 expected"),
                              ({"key": "other/other-2026-01-31T020000Z.tar.gz"}, "a backup of data and its SHA-256 expected")):
            mark(**change)
            for found in (self.verify(status=4)[0], self.verify("--at", "latest", status=4)[0]):
                self.assertEqual((True, "damaged"), (found["latest"], found["state"]))
                self.assertIn(words, self.messages(found))
        mark(key=None)
        found = self.verify()[0]
        self.assertEqual("unverified", found["state"])
        self.assertIn("does not say which backup it stands for", self.messages(found))
        mark()
        os.unlink(second)
        os.unlink(second.replace(".tar.gz", ".manifest.json"))
        found = self.verify()[0]
        self.assertEqual("ok", found["state"])
        self.assertIn("which is not there any more", self.messages(found))

    def test_of_another_tool(self):
        os.makedirs(self.store + "/db")
        path = self.tree("other", files=3)
        subprocess.run(["tar", "czf", self.store + "/db/db-2026-01-31T020000Z.tar.gz", path], check=True,
                       stderr=subprocess.DEVNULL)
        found = self.dated()
        self.assertEqual(("unverified", []), (found["state"], found["checked"]))
        self.assertIn("it is of another tool", self.messages(found))
        self.assertIn("warn", self.stderr)
        self.dated("--strict", status=5)


class Data(Verify):
    """--data: what is damaged is named, and nothing else is."""

    def check(self, archive, *args, **more):
        """State, the paths that are named, messages of what names no path."""
        (found,) = self.verify("--data", "all", *args, url=archive, **more)
        prefix = self.dir.lstrip("/") + "/"
        paths = sorted(f["path"].replace(prefix, "") for f in found["findings"] if "path" in f)
        return found, paths, [f["message"] for f in found["findings"] if "path" not in f]

    def inside(self, archive, at):
        """The paths of which something lies in the data member that has the byte `at`, by the index."""
        _, _, table, rows = self.index(archive)
        (start, size), = [(row[0], row[1]) for row in table if row[0] <= at < row[0] + row[1]]
        plain = {row[0]: (row[2], row[3]) for row in table}
        first = plain[start][0]
        found = []
        for path, _, _, member, header, data_at, length, *_ in rows:
            begin, end = plain[member][0] + header, plain[member][0] + data_at + length
            if begin < first + plain[start][1] and end > first:
                found.append(path.decode().replace(self.dir.lstrip("/") + "/", ""))
        return start, start + size - 1, sorted(found)

    def test_whole(self):
        archive = self.backup()
        footer, _, table, rows = self.index(archive)
        found, paths, messages = self.check(archive)
        self.assertEqual(("ok", [], []), (found["state"], paths, messages))
        self.assertEqual(["manifest", "size", "index", "data"], found["checked"])
        counts = found["counts"]
        self.assertEqual(os.path.getsize(archive), counts["bytes"])
        self.assertEqual((footer["members"], footer["raw"], footer["entries"]),
                         (counts["members"], counts["raw"], counts["entries"]))
        self.assertEqual(len([row for row in rows if row[9]]), counts["files"])
        self.assertEqual(0, counts["unchecked"])
        for more in ((), ("--memory", "4M"), ("--jobs", "1")):
            self.assertEqual("ok", self.check(archive, *more)[0]["state"])
        (found,) = self.verify("--at", "latest", "--data", "all")
        self.assertEqual(("ok", "data"), (found["state"], found["checked"][-1]))

    def test_every_member(self):
        """A flipped byte in the data, in the checksum or in a header of any member: exactly its files are named."""
        archive = self.backup(files=120, big=3 << 20)
        _, _, table, _ = self.index(archive)
        self.assertGreater(len(table), 5)
        for start, size, _, _ in table:
            for at in (start + size // 2 + 3, start + size - 6, start + 2, start + 9, start + 21, start + 25):
                self.flip(archive, at)
                first, last, names = self.inside(archive, start)
                found, paths, messages = self.check(archive, status=4)
                self.assertEqual("damaged", found["state"])
                self.assertEqual(names, paths, (start, at - start, size, found["findings"]))
                self.assertEqual({(first, last)}, {(f["first"], f["last"]) for f in found["findings"] if "first" in f})
                self.assertEqual(2, len(messages), messages)  # the member, and the hash of the whole
                self.assertIn("expected", messages[-1])
                self.flip(archive, at)
        self.assertEqual("ok", self.check(archive)[0]["state"])
        start = table[0][0]
        self.flip(archive, start + 50)
        done = self.lunark("verify", archive, "--data", "all", status=4)
        self.assertRegex(done.stderr, r"data/d0/file \d+: its (data can't be decompressed|checksum is wrong) \(bytes 0 to \d+\)")
        self.assertNotRegex(done.stderr, r"gz: its ")
        self.assertRegex(done.stderr, r"\d+ more findings, --json shows all")

    def test_wide_damage(self):
        """Zeros over several members, a cut, and bytes put in between: what is behind is still read."""
        archive = self.backup(files=200, big=4 << 20)
        with open(archive, "rb") as file:
            whole = file.read()
        _, _, table, rows = self.index(archive)
        everything = len(rows)

        def put(data):
            with open(archive, "wb") as file:
                file.write(data)

        for one, last in ((0, 1), (2, 4)):
            begin, end = table[one][0] + 100, table[last][0] + 100
            expected = set()
            for start, *_ in table[one:last + 1]:
                expected |= set(self.inside(archive, start)[2])
            put(whole[:begin] + bytes(end - begin) + whole[end:])
            found, paths, _ = self.check(archive, status=4)
            self.assertEqual(sorted(expected), paths)
            self.assertEqual(everything, found["counts"]["entries"] + len(paths))
            put(whole)
        cut = table[len(table) // 2][0] + 10
        put(whole[:cut])
        found, _, messages = self.check(archive, status=4)
        self.assertIn("no member begins here", messages)
        self.assertIn("it is cut off", " ".join(messages))
        put(whole[:cut] + b"something else" + whole[cut:])
        found, _, messages = self.check(archive, status=4)
        self.assertEqual("damaged", found["state"])
        self.assertGreater(found["counts"]["members"], len(table) - 3)
        put(b"")
        self.check(archive, status=4)
        put(whole[:-94])
        found, paths, messages = self.check(archive, status=4)
        self.assertEqual([], paths)
        self.assertEqual(everything, found["counts"]["entries"], "the blocks in between are read all the same")

    def test_index(self):
        """A damaged index block, list or footer: the data is read by the members' headers, and files elsewhere compared."""
        archive = self.backup(files=600)
        footer, blocks, _, rows = self.index(archive)
        self.assertGreater(len(blocks), 2)
        for at in (blocks[1][0] + 100, blocks[0][0] + 13, footer["list_at"] + 40, os.path.getsize(archive) - 50):
            self.flip(archive, at)
            found, paths, messages = self.check(archive, status=4)
            self.assertEqual([], paths)
            self.assertEqual(2, len(messages), messages)
            self.assertEqual(footer["members"], found["counts"]["members"])
            self.assertGreater(found["counts"]["files"], 100)
            self.flip(archive, at)

    def test_other_archive(self):
        """Another archive of the same size is whole in itself, and is not this one."""
        archives = []
        for seed in (1, 2):
            path = self.write("data/noise", random.Random(seed).randbytes(100000))
            for name in (path, os.path.dirname(path)):
                os.utime(name, ns=(0, 1_600_000_000_000_000_000))
            time.sleep(seed - 1)
            self.lunark("backup", "files", self.path("data"), "--to", self.store, "--compress", "none")
            archives.append(sorted(glob.glob(f"{self.store}/data/data-2*.tar.gz"))[-1])
        archive, other = archives
        self.assertEqual(os.path.getsize(other), os.path.getsize(archive))
        shutil.copy(other, archive)
        self.assertEqual("ok", self.verify(url=archive)[0]["state"], "not to be seen without reading")
        _, _, messages = self.check(archive, status=4)
        self.assertEqual(1, len(messages))
        self.assertRegex(messages[0], "has SHA-256 [0-9a-f]{64}, [0-9a-f]{64} expected")

    def test_sample(self):
        archive = self.backup(files=400, big=20 << 20)
        _, _, table, _ = self.index(archive)
        size = os.path.getsize(archive)
        (found,) = self.verify("--data", "30%", "--seed", "7", url=archive)
        self.assertEqual(("ok", "data 30%"), (found["state"], found["checked"][-1]))
        self.assertIn("--data 30% --seed 7 repeats", self.stderr)
        self.assertTrue(size // 10 < found["counts"]["bytes"] < size * 6 // 10, found["counts"])
        again = self.verify("--data", "30%", "--seed", "7", url=archive)
        self.assertEqual(found["counts"], again[0]["counts"])
        self.assertGreater(self.verify("--data", "0.01%", url=archive)[0]["counts"]["bytes"], 0)
        self.assertEqual("data", self.verify("--data", "100%", url=archive)[0]["checked"][-1])
        (found,) = self.verify("--data", "99.999999%", url=archive)
        self.assertEqual(sum(row[1] for row in table), found["counts"]["bytes"])
        self.assertGreater(found["counts"]["files"], 280)
        start, size = table[2][:2]
        self.flip(archive, start + size // 2)
        (found,) = self.verify("--data", "99.999999%", url=archive, status=4)
        self.assertEqual(self.inside(archive, start)[2], sorted(
            f["path"].replace(self.dir.lstrip("/") + "/", "") for f in found["findings"] if "path" in f))
        for wrong in ("0%", "101%", "some", "5"):
            self.lunark("verify", archive, "--data", wrong, status=2)
        self.lunark("verify", archive, "--data", "all", "--seed", "1", status=2)

    def test_outputs_of_programs(self):
        self.write("mine/policies/out.lua", """return require "lunark.policy" { api = 1, name = "out", summary = "writes",
          needs = { exec = { "seq" } }, options = {}, backup = function(job)
          job:save("out", { program = { "seq", "500000" }, suffix = ".txt" }) end }""")
        self.lunark("backup", "out", "--scripts", self.path("mine"), "--to", self.store)
        (archive,) = glob.glob(self.store + "/out/out-2*.gz")
        found, paths, messages = self.check(archive)
        self.assertEqual(("ok", [], [], 0), (found["state"], paths, messages, found["counts"]["files"]))
        self.flip(archive, os.path.getsize(archive) // 2)
        found, paths, messages = self.check(archive, status=4)
        self.assertEqual(([], 2), (paths, len(messages)))
        self.verify("--data", "100%", url=archive, status=4)


class Restore(Verify):
    """--restore: a drill that leaves nothing behind."""

    def setUp(self):
        super().setUp()
        self.work = self.path("work")
        os.makedirs(self.work)

    def drill(self, *args, status=0, **more):
        found = self.verify("--restore", "--work-dir", self.work, *args, status=status, **more)
        self.assertEqual([], os.listdir(self.work))
        return found

    def test_every_kind_of_entry(self):
        tree = make_tree(self.path("src"))
        os.chmod(os.path.join(tree, "empty"), 0o000)
        os.symlink("/usr/bin/env", os.path.join(tree, "leads out of it"))
        self.lunark("backup", "files", tree, "--to", self.store)
        archive, = glob.glob(self.store + "/src/src-2*.tar.gz")
        _, _, _, rows = self.index(archive)
        found = self.drill("--at", "latest")[0]
        self.assertEqual(("ok", []), (found["state"], found["findings"]))
        self.assertEqual(["size", "latest", "index", "restore"], found["checked"])
        self.assertEqual((len(rows), len([row for row in rows if row[9]]), 0),
                         tuple(found["restored"][name] for name in ("entries", "files", "unchecked")))
        self.assertEqual("restore", self.drill(url=archive)[0]["checked"][-1])
        found = self.verify("--restore", url=archive, env={"TMPDIR": self.work})[0]
        self.assertEqual("ok", found["state"])
        self.assertEqual([], os.listdir(self.work))

    def test_damage(self):
        archive = self.backup(files=60, big=3 << 20)
        _, _, table, _ = self.index(archive)
        self.flip(archive, table[1][0] + 1000)
        (found,) = self.drill(url=archive, status=4)
        self.assertEqual("damaged", found["state"])
        self.assertIn("is damaged", self.messages(found))

    def test_outputs_of_programs_and_archives_of_other_tools(self):
        self.write("mine/policies/out.lua", """return require "lunark.policy" { api = 1, name = "out", summary = "writes",
          needs = { exec = { "seq" } }, options = {}, backup = function(job)
          job:save("out", { program = { "seq", "500000" }, suffix = ".txt" }) end }""")
        self.lunark("backup", "out", "--scripts", self.path("mine"), "--to", self.store)
        os.makedirs(self.store + "/db")
        subprocess.run(["tar", "czf", self.store + "/db/db-2026-01-31T020000Z.tar.gz", self.tree("other", files=3)], check=True,
                       stderr=subprocess.DEVNULL)
        found = [one for one in self.drill() if not one.get("latest")]
        self.assertEqual([("db", "unverified"), ("out", "ok")], [(one["item"], one["state"]) for one in found])
        self.assertEqual({"restore"}, {one["checked"][-1] for one in found})
        self.assertEqual({"entries": 11, "files": 0, "unchecked": 0}, found[0]["restored"])
        self.assertEqual(1, len(found[0]["findings"]), found[0]["findings"])

    def test_ended_by_a_signal_or_a_timeout(self):
        archive = self.backup(files=10, big=60 << 20)
        for signum in (signal.SIGTERM, signal.SIGINT):
            child = self.start("verify", archive, "--restore", "--work-dir", self.work, "--limit-rate", "2M")
            deadline = time.time() + 20
            while not glob.glob(self.work + "/lunark-*/restored/**/large", recursive=True) and time.time() < deadline:
                time.sleep(0.05)
            self.assertNotEqual([], os.listdir(self.work))
            child.send_signal(signum)
            child.communicate(timeout=20)
            self.assertNotEqual(0, child.returncode)
            self.assertEqual([], os.listdir(self.work))
        self.lunark("verify", archive, "--restore", "--work-dir", self.work, "--limit-rate", "2M", "--timeout", "2s", status=124)
        self.assertEqual([], os.listdir(self.work))
        child = self.start("verify", archive, "--restore", "--work-dir", self.work, "--limit-rate", "2M")
        while not glob.glob(self.work + "/lunark-*/restored/*"):
            time.sleep(0.05)
        child.kill()
        child.communicate(timeout=20)
        self.assertNotEqual([], os.listdir(self.work))
        self.drill(url=archive)
        self.assertIn("was left by a run that did not end well", self.stderr)

    def test_no_room(self):
        archive = self.backup(files=3)
        manifest = archive.replace(".tar.gz", ".manifest.json")
        self.write(manifest, json.dumps({**load_json(manifest), "raw_size": 1 << 52}))
        (found,) = self.drill(url=archive, status=1)
        self.assertEqual("failed", found["state"])
        self.assertIn("are free in", found["error"]["message"])
        self.assertIn("--work-dir", found["error"]["hint"])


class Hostile(Verify):
    """Whatever is in archive and manifest: an answer, never a crash."""

    def test_any_bytes(self):
        archive = self.backup(files=60, big=2 << 20)
        manifest = archive.replace(".tar.gz", ".manifest.json")
        with open(archive, "rb") as file:
            whole = file.read()
        good, rng = load_json(manifest), random.Random(5)

        def ends_well(what):
            for more in (["--data", "all"], ["--data", "30%"], ["--restore", "--work-dir", self.path("work")]):
                done = self.lunark("verify", archive, *more, status=None)
                self.assertIn(done.returncode, (0, 4), (what, more, done.stderr))
                self.assertEqual("damaged" in done.stdout, done.returncode == 4, (what, more, done.stdout))
            self.assertEqual([], os.listdir(self.path("work")))

        for number in range(8):
            data, at = bytearray(whole), rng.randrange(len(whole))
            if number % 4 == 0:
                for _ in range((1, 300)[number // 4]):
                    data[rng.randrange(len(data))] = rng.randrange(256)
            elif number % 4 == 1:
                del data[at:at + rng.choice((1, 100, 100000))]
            elif number % 4 == 2:
                data[at:at] = rng.randbytes(rng.choice((1, 50, 3000)))
            else:
                data[-rng.randrange(1, 9000):] = rng.randbytes(94)
            self.write(os.path.relpath(archive, self.dir), bytes(data))
            ends_well(number)
        self.write(os.path.relpath(archive, self.dir), whole)
        for change in ({"archive": "x"}, {"archive": {"members": [], "files": "x"}}, {"raw_size": "many"}, {"raw_size": -1},
                       {"item": {}}, {"kind": 5}, {"kind": "stream"}, {"archive": {"files": 1e300, "members": 1}}):
            self.write(os.path.relpath(manifest, self.dir), json.dumps({**good, **change}))
            ends_well(change)


class Foreign(Verify):
    """--data with what other tools have written."""

    def test_archives(self):
        os.makedirs(self.store + "/db")
        path = self.store + "/db/db-2026-01-31T020000Z.tar.gz"
        tree = self.tree("other", files=50)
        for command in (["tar", "czf", path, tree], ["tar", "cf", path[:-3], tree]):
            subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
            path = command[2]
            (found,) = self.verify("--data", "all", "--item", "db")
            self.assertEqual(("unverified", ["data"]), (found["state"], found["checked"]))
            self.assertEqual(subprocess.run(["tar", "tf", path], check=True, capture_output=True).stdout.count(b"\n"),
                             found["counts"]["entries"])
            with open(path, "rb") as file:
                whole = file.read()
            middle = len(whole) // 2
            for data in (whole[:middle], whole[:512] + b"x" * 600 + whole[1112:]):
                with open(path, "wb") as file:
                    file.write(data)
                (found,) = self.verify("--data", "all", "--item", "db", status=4)
                self.assertEqual("damaged", found["state"])
                shutil.rmtree(self.path("into"), True)
                self.lunark("restore", "--from", self.store, "--item", "db", "--into", self.path("into"), status=4)
            os.unlink(path)
        path = self.store + "/db/db-2026-01-31T020000Z.dump.gz"
        with gzip.open(path, "wb") as file:
            file.write(b"text" * 100000)
        self.assertEqual("unverified", self.verify("--data", "5%", url=path)[0]["state"])
        self.flip(path, os.path.getsize(path) - 6)
        self.assertIn("damaged", self.messages(self.verify("--data", "all", url=path, status=4)[0]))


class Remote(Verify):
    """The same through S3, with credentials that may only read."""

    def test_s3(self):
        server = self.s3()
        url = server.url(server.bucket("bucket"), "p")
        tree = self.tree()
        self.lunark("backup", "files", tree, "--to", url, env=server.env())
        found = self.verify(url=url, env=server.env())
        self.assertEqual(["ok", "ok"], [one["state"] for one in found])
        self.assertEqual("data/data-latest.tar.gz", found[0]["key"])
        self.assertEqual(found[1]["key"], found[0]["stands_for"])
        for more in (["--data", "all"], ["--data", "40%"], ["--restore", "--work-dir", self.path("work")]):
            found = self.verify(*more, url=url, env=server.env())
            self.assertEqual(["ok", "ok"], [one["state"] for one in found])
            self.assertIn(more[0].strip("-"), found[1]["checked"][-1])
        if server.data:
            path = os.path.join(server.data, "bucket/p", found[1]["key"])
            _, blocks, _, _ = self.index(path)
            self.flip(path, blocks[0][0] + 60)
            found = self.verify("--item", "data", "--data", "all", url=url, env=server.env(), status=4)
            self.assertIn(f"index block at byte {blocks[0][0]}", self.messages(found[1]))
            # `latest` stands for what it says, or it is damaged.
            other = self.tree("other", seed=3)
            self.lunark("backup", "files", other, "--to", url, env=server.env())
            (key,) = [key for key in server.objects("bucket") if "other" in key and re.search(r"Z\.tar\.gz$", key)]
            shutil.copy(os.path.join(server.data, "bucket", key), os.path.join(server.data, "bucket/p/data/data-latest.tar.gz"))
            found = self.verify("--item", "data", url=url, env=server.env(), status=4)
            self.assertIn("bytes in the store", self.messages(found[0]))
        failed = self.lunark("verify", url, env={**server.env(), "AWS_SECRET_ACCESS_KEY": "wrong"}, status=3)
        self.assertNotIn("wrong", failed.stderr)

    def test_reading_is_enough(self):
        running = self.serve("minio")
        root = {name: running.env[name] for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")}
        endpoint = running.env["AWS_ENDPOINT_URL"]
        url = f"s3://bucket/?endpoint={endpoint}"
        self.lunark("backup", "files", self.tree(files=20), "--to", url, env=root)
        env = minio_server.session(endpoint, json.dumps({"Version": "2012-10-17", "Statement": [
            {"Effect": "Allow", "Action": ["s3:ListBucket"], "Resource": "arn:aws:s3:::bucket"},
            {"Effect": "Allow", "Action": ["s3:GetObject"], "Resource": "arn:aws:s3:::bucket/*"}]}))
        for more in ([], ["--data", "all"], ["--data", "10%"], ["--restore"]):
            found = self.verify(*more, url=url, env=env)
            self.assertEqual(["ok", "ok"], [one["state"] for one in found])


if __name__ == "__main__":
    main()
