# SPDX-License-Identifier: MIT
"""lunark verify: every kind of damage is found and named, what is whole is not blamed, and nothing is written."""
import glob
import json
import os
import random
import re
import shutil
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
import minio_server  # noqa: E402
import read_index  # noqa: E402
from harness import Case, load_json, main  # noqa: E402


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
        if server.data:
            path = os.path.join(server.data, "bucket/p", found[1]["key"])
            _, blocks, _, _ = self.index(path)
            self.flip(path, blocks[0][0] + 60)
            found = self.verify("--item", "data", url=url, env=server.env(), status=4)
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
        found = self.verify(url=url, env=env)
        self.assertEqual(["ok", "ok"], [one["state"] for one in found])


if __name__ == "__main__":
    main()
