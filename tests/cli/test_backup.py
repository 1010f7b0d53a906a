# SPDX-License-Identifier: MIT
"""lunark backup: names, manifests, latest, several stores, and what a failure leaves behind."""
import calendar
import glob
import hashlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tarfile
import time
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
from harness import LUNARK, Case, environment, free_port, load_json, main, make_tree  # noqa: E402


def sha256(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Files(Case):
    def setUp(self):
        super().setUp()
        self.tree = self.path("data")
        os.makedirs(self.tree)
        for name in ("a", "b.tmp", "c"):
            with open(os.path.join(self.tree, name), "w", encoding="utf-8") as file:
                file.write(name * 1000)
        self.store = self.path("store")

    def objects(self, store=None):
        store = store or self.store
        return sorted(os.path.relpath(os.path.join(d, f), store) for d, _, files in os.walk(store) for f in files
                      if not re.fullmatch(r"\..+\.lunark", f))

    def one(self, pattern):
        found = glob.glob(os.path.join(self.store, pattern))
        self.assertEqual(1, len(found), f"{pattern}: {self.objects()}")
        return found[0]

    def test_names_and_manifest(self):
        before = int(time.time())
        self.lunark("backup", "files", self.tree, "--to", self.store)
        after = time.time()
        archive = self.one("data/data-2*.tar.gz")
        self.assertRegex(os.path.basename(archive), r"^data-\d{4}-\d\d-\d\dT\d{6}Z\.tar\.gz$")
        stamp = time.strptime(os.path.basename(archive)[5:-7], "%Y-%m-%dT%H%M%SZ")
        seconds = calendar.timegm(stamp)
        self.assertTrue(before <= seconds <= after, (before, seconds, after))
        manifest = load_json(archive.replace(".tar.gz", ".manifest.json"))
        self.assertEqual(sha256(archive), manifest["sha256"])
        self.assertEqual(os.path.getsize(archive), manifest["size"])
        self.assertEqual("data/" + os.path.basename(archive), manifest["key"])
        self.assertEqual(["data", "files", "archive", 0],
                         [manifest[k] for k in ("item", "policy", "kind", "unreadable")])
        self.assertEqual(3, manifest["archive"]["files"])
        self.assertEqual(time.strftime("%Y-%m-%dT%H:%M:%SZ", stamp), manifest["time"])
        latest = self.one("data/data-latest.tar.gz")
        self.assertEqual(sha256(archive), sha256(latest))
        self.assertEqual(3, len(self.objects()))
        with tarfile.open(archive) as tar:
            self.assertIn(self.tree.lstrip("/") + "/a", tar.getnames())

    def test_compat_names(self):
        self.lunark("backup", "files", self.tree, "--to", self.store, "--name-format", "compat")
        archive = self.one("data/data-2*.tar.gz")
        self.assertRegex(os.path.basename(archive), r"^data-\d{4}-\d\d-\d\d-\d\d:\d\d:\d\d\.tar\.gz$")
        self.assertTrue(os.path.exists(archive.replace(".tar.gz", ".manifest.json")))
        self.lunark("restore", "--from", self.store, "--into", self.path("into"))
        self.assertTrue(os.path.exists(self.path("into") + self.tree + "/a"))

    def test_no_latest(self):
        self.lunark("backup", "files", self.tree, "--to", self.store, "--no-latest")
        self.assertFalse(os.path.exists(self.store + "/data/data-latest.tar.gz"))

    def test_exclude(self):
        self.lunark("backup", "files", self.tree, "--to", self.store, "--exclude", "*.tmp")
        with tarfile.open(self.one("data/data-2*.tar.gz")) as tar:
            names = [os.path.basename(n) for n in tar.getnames()]
        self.assertIn("a", names)
        self.assertNotIn("b.tmp", names)

    def test_several_paths_need_a_name(self):
        failed = self.lunark("backup", "files", self.tree, self.dir, "--to", self.store, status=2)
        self.assertEqual("lunark: several paths need a name\nhint: add --name NAME\n", failed.stderr)
        self.assertFalse(os.path.exists(self.store))
        other = self.write("other/x", "y")
        self.lunark("backup", "files", self.tree, other, "--to", self.store, "--name", "both")
        with tarfile.open(self.one("both/both-2*.tar.gz")) as tar:
            self.assertIn(other.lstrip("/"), tar.getnames())
            self.assertIn(self.tree.lstrip("/") + "/a", tar.getnames())

    def test_name_of_the_current_directory(self):
        self.lunark("backup", "files", ".", "--to", self.store, cwd=self.tree)
        self.one("data/data-2*.tar.gz")

    def test_missing_path(self):
        failed = self.lunark("backup", "files", self.path("nothing"), "--to", self.store, status=3)
        self.assertIn(self.path("nothing"), failed.stderr)
        self.assertIn("no such file", failed.stderr)
        self.assertEqual([], self.objects())

    def test_json(self):
        done = self.lunark("backup", "files", self.tree, "--to", self.store, "--json")
        result = json.loads(done.stdout)
        self.assertEqual(0, result["status"])
        self.assertEqual([], result["failures"])
        (item,) = result["items"]
        archive = self.one("data/data-2*.tar.gz")
        self.assertEqual(sha256(archive), item["sha256"])
        self.assertEqual("data/" + os.path.basename(archive), item["key"])
        self.assertEqual([True, True], [item["stores"][0]["stored"], item["stores"][0]["latest"]])

    def test_log_formats(self):
        done = self.lunark("backup", "files", self.tree, "--to", self.store, "--log-format", "json")
        lines = [json.loads(line) for line in done.stderr.splitlines()]
        self.assertTrue(any("stored data/data-" in line["message"] for line in lines), done.stderr)
        self.assertEqual("", done.stdout)
        done = self.lunark("backup", "files", self.tree, "--to", self.store, "--log-level", "error")
        self.assertEqual("", done.stderr + done.stdout)

    @unittest.skipIf(os.geteuid() == 0 and not shutil.which("setpriv"), "root reads everything, setpriv is not here")
    def test_unreadable_file_gives_5_and_is_in_the_manifest(self):
        os.chmod(self.tree + "/c", 0)
        os.chmod(self.dir, 0o777)
        args = ["backup", "files", self.tree, "--to", self.store]
        if os.geteuid() == 0:
            done = subprocess.run(["setpriv", "--reuid", "12345", "--regid", "12345", "--clear-groups", LUNARK, *args],
                                  env=environment(), capture_output=True, text=True, check=False)
            status, stderr = done.returncode, done.stderr
        else:
            failed = self.lunark(*args, status=None)
            status, stderr = failed.returncode, failed.stderr
        self.assertEqual(5, status, stderr)
        self.assertIn(self.tree.lstrip("/") + "/c", stderr)
        manifest = load_json(self.one("data/*.manifest.json"))
        self.assertEqual(1, manifest["unreadable"])
        self.assertTrue(any(w["path"].endswith("/c") and w["kind"] == "unreadable" for w in manifest["warnings"]))

    def test_two_stores(self):
        other = self.path("other")
        self.lunark("backup", "files", self.tree, "--to", self.store, "--to", other)
        self.assertEqual(self.objects(), self.objects(other))
        for key in self.objects():
            if key.endswith(".tar.gz"):
                self.assertEqual(sha256(f"{self.store}/{key}"), sha256(f"{other}/{key}"))

    def test_one_of_two_stores_fails(self):
        blocked = self.write("blocked", "a file where a directory is expected")
        failed = self.lunark("backup", "files", self.tree, "--to", blocked, "--to", self.store, "--json", status=1)
        self.assertIn(blocked, failed.stderr)
        self.one("data/data-2*.tar.gz")
        result = json.loads(failed.stdout)
        self.assertEqual(1, result["status"])
        self.assertEqual(1, len(result["failures"]))
        self.lunark("restore", "--from", self.store, "--into", self.path("into"))

    def test_all_stores_fail(self):
        blocked = self.write("blocked", "a file")
        self.lunark("backup", "files", self.tree, "--to", blocked, status=3)

    def test_next_second_when_the_key_is_taken(self):
        for _ in range(3):
            self.lunark("backup", "files", self.tree, "--to", self.store)
        self.assertEqual(3, len(glob.glob(self.store + "/data/data-2*.tar.gz")))
        self.assertEqual(3, len(glob.glob(self.store + "/data/data-2*.manifest.json")))

    def test_timeout(self):
        big = self.path("big")
        os.makedirs(big)
        with open(big + "/x", "wb") as file:
            file.write(os.urandom(8 << 20))
        failed = self.lunark("backup", "files", big, "--to", self.store, "--limit-rate", "1M", "--timeout", "1s", status=124)
        self.assertIn("--timeout", failed.stderr)
        self.assertEqual([], self.objects())

    def test_strict(self):
        # A socket can't be in an archive: a warning, which only --strict minds.
        with socket.socket(socket.AF_UNIX) as s:
            s.bind(self.tree + "/sock")
            self.lunark("backup", "files", self.tree, "--to", self.store)
            self.lunark("backup", "files", self.tree, "--to", self.store, "--strict", status=5)

    def test_only_latest_fails(self):
        in_the_way = self.path("store", "data", "data-latest.tar.gz", "in the way")
        os.makedirs(in_the_way)
        failed = self.lunark("backup", "files", self.tree, "--to", self.store, status=1)
        found = re.search(r"stored as (data/data-\S+\.tar\.gz), latest not moved", failed.stderr)
        self.assertTrue(found, failed.stderr)
        shutil.rmtree(os.path.dirname(in_the_way))
        self.assertIn(found.group(1), self.objects())
        self.lunark("restore", "--from", self.store, "--into", self.path("into"))

    def test_wrong_options(self):
        for args, message in (
                (("--compress", "13"), "--compress 13: fast, balanced, best, none"),
                (("--name", "a/b"), "'a/b' can't be a name"),
                (("--frobnicate",), "unknown option '--frobnicate'"),
                (("--limit-rate", "fast"), "--limit-rate"),
                (("--allow", "exec"), "KIND=VALUE"),
                (("--to", "ftp://x/y"), "ftp")):
            failed = self.lunark("backup", "files", self.tree, "--to", self.store, *args, status=None)
            self.assertEqual(2, failed.returncode, f"{args}: {failed.stderr}")
            self.assertIn(message, failed.stderr)
        failed = self.lunark("backup", "files", self.tree, status=2)
        self.assertIn("--to is missing", failed.stderr)
        failed = self.lunark("backup", "flies", self.tree, "--to", self.store, status=2)
        self.assertIn("there is no policy 'flies'", failed.stderr)


class S3(Case):
    def setUp(self):
        super().setUp()
        self.server = self.s3()
        self.bucket = self.server.bucket("bucket")
        self.tree = make_tree(self.path("data"), files=30, big=6 << 20)

    def test_stored_and_restored(self):
        url = self.server.url(self.bucket, "some/prefix")
        self.lunark("backup", "files", self.tree, "--to", url, env=self.server.env())
        keys = self.server.objects(self.bucket)
        self.assertEqual(3, len(keys), keys)
        self.assertTrue(all(key.startswith("some/prefix/data/data-") for key in keys), keys)
        self.assertEqual([], self.server.uploads(self.bucket))
        self.lunark("restore", "--from", url, "--into", self.path("into"), env=self.server.env())
        self.assertTrue(os.path.exists(self.path("into") + self.tree + "/big.bin"))

    def test_wrong_key(self):
        env = {"AWS_ACCESS_KEY_ID": self.server.access, "AWS_SECRET_ACCESS_KEY": "notthesecretkey"}
        failed = self.lunark("backup", "files", self.tree, "--to", self.server.url(self.bucket), env=env, status=3)
        self.assertIn("s3://bucket", failed.stderr)
        self.assertNotIn("notthesecretkey", failed.stderr)
        self.assertEqual([], self.server.objects(self.bucket))

    def test_no_keys(self):
        failed = self.lunark("backup", "files", self.tree, "--to", self.server.url(self.bucket), status=3)
        self.assertIn("AWS_ACCESS_KEY_ID", failed.stderr)

    def test_missing_bucket(self):
        failed = self.lunark("backup", "files", self.tree, "--to", self.server.url("nothing"), env=self.server.env(),
                             status=3)
        self.assertRegex(failed.stderr, "bucket.*nothing|nothing.*bucket")

    def test_closed_port(self):
        url = f"s3://bucket/?endpoint=http://127.0.0.1:{free_port()}&region=us-east-1"
        began = time.monotonic()
        failed = self.lunark("backup", "files", self.tree, "--to", url, env=self.server.env(), status=3)
        self.assertLess(time.monotonic() - began, 60)
        self.assertRegex(failed.stderr.lower(), "connect|refused")

    def test_one_of_two_stores_is_not_there(self):
        url = f"s3://bucket/?endpoint=http://127.0.0.1:{free_port()}&region=us-east-1"
        failed = self.lunark("backup", "files", self.tree, "--to", url, "--to", self.server.url(self.bucket),
                             env=self.server.env(), status=1)
        self.assertIn("127.0.0.1", failed.stderr)
        self.assertEqual(3, len(self.server.objects(self.bucket)))


if __name__ == "__main__":
    main()
