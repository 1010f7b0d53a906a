# SPDX-License-Identifier: MIT
"""lunark prune in buckets: on real servers of each cloud, with versions, with locks, with refusals of single keys, and
killed in the middle."""
import datetime
import json
import os
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as xml

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
import minio_server  # noqa: E402
import stored  # noqa: E402
from harness import Case, main  # noqa: E402

START = datetime.datetime(2020, 1, 1, 2)
VERSIONED = (b'<VersioningConfiguration xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Status>Enabled</Status>'
             b"</VersioningConfiguration>")
LOCK = ('<ObjectLockConfiguration xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><ObjectLockEnabled>Enabled'
        "</ObjectLockEnabled><Rule><DefaultRetention><Mode>{}</Mode><Days>1</Days></DefaultRetention></Rule>"
        "</ObjectLockConfiguration>")
KEPT = "the store keeps what was deleted as old versions: a rule of the bucket has to remove those"


class Stores(Case):
    def setUp(self):
        super().setUp()
        self.write("tree/file", b"content")

    def env_of(self, server):
        return {name: value for name, value in server.env.items()
                if name.startswith(("AWS_", "AZURE_")) or name == "STORAGE_EMULATOR_HOST"}

    def backups(self, url, count, env):
        for _ in range(count):
            self.lunark("backup", "files", self.path("tree"), "--name", "n", "--to", url, "--name-format", "compat", env=env)

    def prune(self, url, *args, env=None, status=0):
        done = self.lunark("prune", url, "--yes", "--json", *args, env=env, status=status)
        self.log = done.stderr
        return json.loads(done.stdout)

    def states(self, url, env):
        listed = json.loads(self.lunark("list", url, "--all", "--json", env=env).stdout)["backups"]
        return [found["state"] for found in listed]

    def whole_way(self, url, env):
        """Four backups to two, and the newest can be restored, by its name and as latest."""
        self.backups(url, 4, env)
        self.assertEqual(2, self.prune(url, "--keep-last", "2", env=env)["deleted"])
        self.assertNotIn(KEPT, self.log)
        self.assertEqual(["ok"] * 2, self.states(url, env))
        self.lunark("restore", "--from", url, "--into", self.path("into"), env=env)
        self.lunark("restore", "--from", url, "--at", "latest", "--into", self.path("latest"), env=env)
        self.assertEqual(0, self.prune(url, "--keep-last", "2", env=env)["deleted"])


class Clouds(Stores):
    def test_versitygw(self):
        server = self.s3()
        self.whole_way(server.url("bucket", "p"), server.env())
        self.assertEqual(5, len(server.objects("bucket")))

    def test_minio(self):
        self.whole_way("s3://bucket/p", self.env_of(self.serve("minio")))

    def test_azurite(self):
        self.whole_way("azure://bucket/p", self.env_of(self.serve("azurite")))

    def test_gcs(self):
        self.whole_way("gs://bucket/p", self.env_of(self.serve("fakegcs")))


class Many(Stores):
    def test_ten_thousand(self):
        """In pages and batches: some requests for each thousand, in memory that is bounded."""
        server = self.s3()
        if not server.data:
            self.skipTest("a server over a folder is needed: versitygw")
        base = os.path.join(server.data, "bucket", "p")
        for number in range(10000):
            stored.backup(base, "n", START + datetime.timedelta(hours=number), report=number % 10 == 0)
        for place, days, gone in ((server.url("bucket", "p"), "30", 9970), (base, "10", 20)):
            with open(self.path("said"), "wb") as said:
                child = self.start("prune", place, "--yes", "--keep-daily", days, env=server.env(), stdout=subprocess.DEVNULL,
                                   stderr=said)
                _, status, used = os.wait4(child.pid, 0)
            child.returncode = os.waitstatus_to_exitcode(status)
            with open(self.path("said"), encoding="utf-8") as said:
                self.assertIn(f"{gone} backups deleted", said.read())
            self.assertEqual(0, child.returncode)
            self.assertLess(used.ru_maxrss, 64 << 10, "KiB")
        self.assertEqual(10, sum(key.endswith(".dump.gz") for key in stored.keys(base)))
        self.assertEqual(20 + sum(key.endswith(stored.REPORT) for key in stored.keys(base)), len(stored.keys(base)))


class Versions(Stores):
    def signed(self, server, method, path, body=b""):
        keys = (server.env["AWS_ACCESS_KEY_ID"], server.env["AWS_SECRET_ACCESS_KEY"])
        return minio_server.signed(method, server.env["AWS_ENDPOINT_URL"] + path, body, keys=keys)

    def versions(self, server):
        """(versions, markers) of dated keys."""
        tree = xml.fromstring(self.signed(server, "GET", "/bucket?versions="))
        found = [one.tag.split("}")[-1] for one in tree if "latest" not in "".join(e.text or "" for e in one)]
        return found.count("Version"), found.count("DeleteMarker")

    def check(self, server, count):
        env = self.env_of(server)
        self.backups("s3://bucket/p", count, env)
        said = self.prune("s3://bucket/p", "--keep-last", "1", env=env)
        self.assertEqual((count - 1, True, 0), (said["deleted"], said["versions"], said["status"]))
        self.assertEqual(1, self.log.count(KEPT))
        self.assertEqual((2 * count, 2 * (count - 1)), self.versions(server))
        self.assertEqual(["ok"], self.states("s3://bucket/p", env))
        return env

    def test_versitygw(self):
        server = self.serve_versioned()
        self.check(server, 3)

    def serve_versioned(self):
        import servers
        server = servers.Servers(self.path())
        self.addCleanup(server.stop)
        server.versioning = True
        server.versitygw(["bucket"])
        self.signed(server, "PUT", "/bucket?versioning=", VERSIONED)
        return server

    def test_one_key(self):
        """A single key goes by another request."""
        self.check(self.serve_versioned(), 2)

    def test_object_lock(self):
        """What is locked goes on being there as a version, whatever the mode; nothing locked is lost."""
        for mode in ("GOVERNANCE", "COMPLIANCE"):
            with self.subTest(mode):
                os.makedirs(self.path(mode), exist_ok=True)
                server = self.serve_locked(mode)
                self.check(server, 3)
                server.stop()

    def serve_locked(self, mode):
        import servers
        server = servers.Servers(self.path(mode))
        self.addCleanup(server.stop)
        server.minio(["bucket"], lock=("bucket",))
        self.signed(server, "PUT", "/bucket?object-lock=", LOCK.format(mode).encode())
        return server

    def test_azure_says_so(self):
        server = self.serve("azurite")
        env = self.env_of(server)
        self.backups("azure://bucket/p", 2, env)
        place = self.behind(server, [{"match": {"method": "DELETE"}, "status": 202, "times": 0,
                                      "headers": {"x-ms-delete-type-permanent": "false"}}])
        said = self.prune("azure://bucket/p", "--keep-last", "1", env={**env, "AZURE_STORAGE_BLOB_ENDPOINT": place})
        self.assertEqual((1, True), (said["deleted"], said["versions"]))

    def test_immutable_in_azure_and_on_hold_at_google(self):
        """Nothing is lost, nothing failed: a warning."""
        google = {"error": {"code": 403, "message": "held", "errors": [{"reason": "objectUnderActiveHold", "message": "held"}]}}
        for kind, url, address, step in (
                ("azurite", "azure://bucket/p", "AZURE_STORAGE_BLOB_ENDPOINT",
                 {"status": 409, "headers": {"x-ms-error-code": "BlobImmutableDueToPolicy"}}),
                ("fakegcs", "gs://bucket/p", "STORAGE_EMULATOR_HOST", {"status": 403, "body": json.dumps(google)})):
            with self.subTest(kind):
                server = self.serve(kind)
                env = self.env_of(server)
                self.backups(url, 2, env)
                place = self.behind(server, [{"match": {"method": "DELETE"}, "times": 0, **step}], address)
                for args, status in (((), 0), (("--strict",), 5)):
                    said = self.prune(url, "--keep-last", "1", *args, env={**env, address: place}, status=status)
                    self.assertEqual((0, 1, []), (said["deleted"], said["locked"], said["failures"]))
                self.assertEqual(["ok"] * 2, self.states(url, env))

    def behind(self, server, steps, name="AZURE_STORAGE_BLOB_ENDPOINT"):
        """The address that a variable names through a server that answers these requests itself."""
        class Upstream:
            endpoint = "/".join(server.env[name].split("/")[:3])

            @staticmethod
            def url(*_):
                return server.env[name]
        return self.between(Upstream, "bucket", steps, log="log" + name)


class Refused(Stores):
    def setUp(self):
        super().setUp()
        self.server = self.s3()
        if not self.server.data:
            self.skipTest("a server over a folder is needed: versitygw")
        self.base = os.path.join(self.server.data, "bucket", "p")
        self.keys = [stored.backup(self.base, "n", START + datetime.timedelta(days=number)) for number in range(3)]

    def answer(self, *errors):
        """What a batch is answered that went through but for these (end of a key, code)."""
        return "<DeleteResult>" + "".join(f"<Error><Key>p/{key}</Key><Code>{code}</Code><Message>no</Message></Error>"
                                          for key, code in errors) + "</DeleteResult>"

    def run_with(self, *steps, args=(), status=0, log="log"):
        url = self.between(self.server, "bucket", [dict({"match": {"method": "POST", "path": "delete"}}, **step)
                                                   for step in steps], log=log)
        return self.prune(url, "--keep-last", "1", *args, env=self.server.env(), status=status)

    def manifest(self, number):
        return self.keys[number].replace(".dump.gz", ".manifest.json")

    def test_one_manifest_is_locked(self):
        """Its backup stays whole; it is no failure, but a warning."""
        steps = [{"status": 200, "body": self.answer((self.manifest(0), "ObjectLocked"))},
                 {"status": 200, "body": self.answer()}]
        for args, status in (((), 0), (("--strict",), 5)):
            stored.backup(self.base, "n", START + datetime.timedelta(days=1))
            said = self.run_with(*steps, args=args, status=status, log=f"log{status}")
            self.assertEqual((1, 1, []), (said["deleted"], said["locked"], said["failures"]))
            lines = {line["key"]: line for line in said["backups"]}
            self.assertTrue(lines[self.keys[0]]["locked"])
            self.assertIn("no (ObjectLocked)", lines[self.keys[0]]["error"]["message"])
            self.assertTrue(lines[self.keys[1]]["deleted"])
            self.assertRegex(self.log, "1 old backups are locked by the store: they go with a later run")
            self.assertTrue(os.path.exists(os.path.join(self.base, self.keys[0])))

    def test_archives_whose_manifest_stays_are_not_asked_for(self):
        self.run_with({"status": 200, "body": self.answer((self.manifest(0), "AccessDenied"),
                                                          (self.manifest(1), "AccessDenied"))}, status=3)
        with open(self.path("log"), encoding="utf-8") as log:
            sent = [json.loads(line) for line in log]
        self.assertEqual(1, len([one for one in sent if one["method"] in ("POST", "DELETE")]))

    def test_one_archive_is_refused(self):
        said = self.run_with({"forward": True}, {"status": 200, "body": self.answer((self.keys[1], "AccessDenied"))}, status=1)
        self.assertEqual(1, said["deleted"])
        (failure,) = said["failures"]
        self.assertIn("p/" + self.keys[1], failure["message"])
        self.assertIn("(its manifest is deleted already)", failure["message"])
        self.assertIn("lunark prune --orphans removes it", failure["hint"])

    def test_an_error_that_passes_is_asked_again(self):
        """Of single keys and of the whole batch."""
        said = self.run_with({"status": 200, "body": self.answer((self.manifest(0), "SlowDown"))}, {"status": 503},
                             {"forward": True, "times": 0})
        self.assertEqual((2, []), (said["deleted"], said["failures"]))
        self.assertEqual([self.keys[2], self.manifest(2)], sorted(key[2:] for key in self.server.objects("bucket")))

    def test_an_answer_that_is_lost(self):
        said = self.run_with({"forward": True, "drop": True}, {"forward": True, "drop": True}, {"forward": True, "times": 0})
        self.assertEqual((2, []), (said["deleted"], said["failures"]))

    def test_many_refusals_are_few_words(self):
        keys = [stored.backup(self.base, "n", START - datetime.timedelta(days=1 + number)) for number in range(30)]
        refused = [(key.replace(".dump.gz", ".manifest.json"), "AccessDenied") for key in keys + self.keys[:2]]
        said = self.run_with({"status": 200, "body": self.answer(*refused)}, status=3)
        self.assertEqual(11, len(said["failures"]))
        self.assertEqual("22 more could not be deleted", said["failures"][10]["message"])
        self.assertEqual(33, len([line for line in said["backups"] if line["plan"] != "leave"]))

    def test_the_store_goes_away(self):
        url = self.between(self.server, "bucket", [{"match": {"method": "POST"}, "status": 400, "times": 0,
                                                    "body": "<Error><Code>InvalidAccessKeyId</Code></Error>"}])
        said = self.prune(url, "--keep-last", "1", env=self.server.env(), status=3)
        self.assertEqual(0, said["deleted"])
        self.assertEqual(6, len(self.server.objects("bucket")))


class Killed(Stores):
    """At each request that deletes: before the store gets it, and after it was done."""
    DELETE = {"match": {"method": "POST", "path": "[?&]delete"}}

    def killed(self, steps, left):
        server = self.s3()
        env = server.env()
        self.backups(server.url("bucket", "p"), 4, env)
        url = self.between(server, "bucket", [{**self.DELETE, **step} for step in steps])
        child = self.start("prune", url, "--keep-last", "1", "--yes", env=env)
        deadline = time.monotonic() + 30
        while self.sent("log") < len(steps) and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(0.5)
        child.send_signal(signal.SIGKILL)
        child.wait()
        whole = server.url("bucket", "p")
        self.assertEqual(left, self.states(whole, env))
        self.lunark("restore", "--from", whole, "--into", self.path("into"), env=env)
        if "incomplete" in left:
            time.sleep(3)  # the runs of one second have names of later ones
            done = self.lunark("prune", whole, "--orphans", "--yes", "--older-than", "0s", env=env)
            self.assertEqual(3, done.stdout.count("incomplete "), done.stdout)
            self.assertEqual(["ok"], self.states(whole, env))
        self.assertEqual(len(left) if left[-1] == "ok" else 1,
                         len([key for key in server.objects("bucket") if key.endswith(".manifest.json")]))

    def test_before_the_manifests(self):
        self.killed([{"hold": 60}], ["ok"] * 4)

    def test_after_the_manifests(self):
        self.killed([{"forward": True, "hold": 60}], ["ok"] + ["incomplete"] * 3)

    def test_before_the_archives(self):
        self.killed([{"forward": True}, {"hold": 60}], ["ok"] + ["incomplete"] * 3)

    def test_after_the_archives(self):
        self.killed([{"forward": True}, {"forward": True, "hold": 60}], ["ok"])

    def sent(self, log):
        try:
            with open(self.path(log), encoding="utf-8") as file:
                return sum("delete" in json.loads(line)["path"] for line in file)
        except FileNotFoundError:
            return 0


if __name__ == "__main__":
    main()
