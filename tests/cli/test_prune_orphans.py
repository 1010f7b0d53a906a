# SPDX-License-Identifier: MIT
"""lunark prune --orphans: what killed runs leave is found and removed, what is young, whole or another's is not."""
import base64
import datetime
import json
import os
import signal
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
import stored  # noqa: E402
from azurite_server import request as azure_request  # noqa: E402
from harness import Case, main  # noqa: E402

START = datetime.datetime(2020, 1, 1, 2)
DAY = datetime.timedelta(days=1)
POLICY = """
return require "lunark.policy" { api = 1, name = "slow", summary = "never ends", needs = { exec = { "sh" } }, options = {},
  backup = function(job)
    job:save("n", { program = { "sh", "-c", "head -c 20000000 /dev/urandom; sleep 600" }, suffix = ".dump",
      expect_size = 1 << 30 })
  end }
"""


class Orphans(Case):
    def setUp(self):
        super().setUp()
        self.write("mine/policies/slow.lua", POLICY)

    def prune(self, url, *args, env=None, status=0):
        """The lines of the plan as {(kind, key): (plan, why, deleted)}, and all that was said."""
        done = self.lunark("prune", url, "--orphans", "--json", *args, *(() if "--dry-run" in args else ("--yes",)),
                           env=env, status=status)
        said = json.loads(done.stdout)
        self.log = done.stderr
        return {(line["kind"], line["key"]): (line["plan"], ", ".join(line["reasons"]), line["deleted"])
                for line in said["orphans"]}, said

    def killed(self, url, env, began):
        """A backup that is killed once began() says that something of it is in the store."""
        child = self.start("backup", "slow", "--scripts", self.path("mine"), "--to", url, "--no-latest", env=env)
        end = time.monotonic() + 30
        while not began():
            self.assertIsNone(child.poll(), "it ended by itself")
            self.assertLess(time.monotonic(), end, "nothing was begun")
            time.sleep(0.05)
        return child

    def kill(self, child):
        child.send_signal(signal.SIGKILL)
        child.wait()


class Directory(Orphans):
    def setUp(self):
        super().setUp()
        self.base = self.path("store")
        self.good = stored.backup(self.base, "n", START, report=True)
        stored.put(self.base, "n/n-latest.dump.gz", stored.DATA)

    def old(self, key, days=3):
        when = time.time() - days * 86400
        os.utime(os.path.join(self.base, key), (when, when))
        return key

    def marked(self, when, end=".dump.gz", days=3):
        key = self.old(stored.put(self.base, stored.stem("n", when) + end, b"half"), days)
        return stored.mark(self.base, key)

    def test_everything_that_is_left(self):
        half = self.marked(START + DAY)
        lost = self.marked(START + DAY * 2, stored.REPORT)
        temporary = self.old(stored.put(self.base, f"n/.{os.path.basename(half)}.lunark-12-0123456789ab.tmp", b"part"))
        sidecar = self.old(stored.put(self.base, "n/.n-gone.dump.gz.lunark", b"{}"))
        top = self.old(stored.put(self.base, ".check.lunark-12-0123456789ab.tmp", b"\0"))
        whole = stored.keys(self.base)
        plan, _ = self.prune(self.base, "--dry-run")
        self.assertEqual({("incomplete", half): ("delete", "it has no manifest", False),
                          ("report", lost): ("delete", "its backup is not there", False),
                          ("upload", half): ("delete", "neither finished nor aborted", False),
                          ("upload", "n/n-gone.dump.gz"): ("delete", "neither finished nor aborted", False),
                          ("upload", "check"): ("delete", "neither finished nor aborted", False)}, plan)
        self.assertEqual(whole, stored.keys(self.base))
        shown = self.lunark("prune", self.base, "--orphans", "--yes")
        self.assertIn("5 left-over things deleted", shown.stderr)
        self.assertRegex(shown.stdout, rf"(?m)^incomplete +\S+ +4 B +delete +it has no manifest +{half}$")
        self.assertEqual([key for key in whole if key not in (half, lost)], stored.keys(self.base))
        for gone in (temporary, sidecar, top):
            self.assertFalse(os.path.exists(os.path.join(self.base, gone)), gone)
        self.assertEqual({}, self.prune(self.base)[0])
        self.assertIn("nothing is left over", self.lunark("prune", self.base, "--orphans", "--yes").stdout)

    def test_young_ones_stay(self):
        """Young by the file's time, or by the time in the name."""
        now = datetime.datetime.now(datetime.timezone.utc)
        half, named = self.marked(START + DAY, days=0.5), self.marked(now - DAY / 2)
        stored.put(self.base, "n/.x.lunark-12-0123456789ab.tmp", b"part")
        young = ("keep", "younger than --older-than", False)
        self.assertEqual({("incomplete", half): young, ("incomplete", named): young, ("upload", "n/x"): young},
                         self.prune(self.base)[0])
        plan, said = self.prune(self.base, "--older-than", "11h")
        self.assertEqual(("keep", "younger than --older-than", False), plan["upload", "n/x"])
        self.assertEqual(2, said["deleted"])
        self.assertEqual([self.good], [key for key in stored.keys(self.base) if key.endswith("Z.dump.gz")])

    def test_what_is_whole_or_of_others_stays(self):
        self.old(stored.put(self.base, stored.stem("n", START + DAY) + ".tar.gz", b"a chart's"))
        self.old(stored.put(self.base, stored.stem("n", START + DAY) + stored.REPORT, b"somebody's"))
        self.old(stored.put(self.base, "n/.hidden", b"x"))
        self.old(stored.put(self.base, "n/.swap.tmp", b"x"))
        self.old(stored.put(self.base, "other/.n.lunark.d/file", b"x"))
        self.assertEqual({}, self.prune(self.base)[0])

    def test_of_one_item(self):
        self.marked(START + DAY)
        other = self.old(stored.put(self.base, "m/.x.lunark-12-0123456789ab.tmp", b"part"))
        _, said = self.prune(self.base, "--item", "n")
        self.assertEqual(1, said["deleted"])
        self.assertTrue(os.path.exists(os.path.join(self.base, other)))

    def test_what_has_a_manifest_is_whole(self):
        half = self.marked(START + DAY)
        stored.put(self.base, stored.stem("n", START + DAY) + ".manifest.json", stored.manifest(half, b"half"))
        self.assertEqual({}, self.prune(self.base)[0])

    def test_usage(self):
        for args, message in ((("--orphans", "--keep-last", "1"), "goes without"), (("--orphans", "--adopt"), "goes without"),
                              (("--older-than", "1h", "--keep-last", "1"), "says nothing without --orphans"),
                              (("--orphans", "--older-than", "1x"), "a duration like")):
            self.assertIn(message, self.lunark("prune", self.base, *args, "--yes", status=2).stderr)
        self.lunark("prune", self.base, "--orphans", status=2)

    def test_a_killed_run(self):
        def began():
            folder = os.path.join(self.base, "n")
            return any(name.endswith(".tmp") and os.path.getsize(os.path.join(folder, name)) > 0 for name in os.listdir(folder))
        child = self.killed(self.base, None, began)
        self.assertEqual({"keep"}, {line[0] for line in self.prune(self.base)[0].values()})
        self.kill(child)
        self.assertEqual(1, self.prune(self.base, "--older-than", "0s")[1]["deleted"])
        self.assertEqual([], [name for name in os.listdir(os.path.join(self.base, "n")) if name.endswith(".tmp")])


class S3(Orphans):
    def test_versitygw(self):
        server = self.s3()
        url, env = server.url("bucket", "p"), server.env()
        other = server.url("bucket", "q")
        for place in (url, other):
            self.kill(self.killed(place, env, lambda before=len(server.uploads("bucket")): len(server.uploads("bucket")) > before))
        self.assertEqual(2, len(server.uploads("bucket")))
        plan, said = self.prune(url, env=env)
        ((kind, key), line), = plan.items()
        self.assertEqual(("upload", "keep", False), (kind, line[0], line[2]))
        self.assertRegex(key, r"^n/n-\S+\.dump\.gz$")
        self.assertEqual(1, self.prune(url, "--older-than", "0s", env=env)[1]["deleted"])
        self.assertEqual(1, len(server.uploads("bucket")), "that of the other prefix")
        self.prune(server.url("bucket"), "--older-than", "0s", env=env)
        self.assertEqual(1, len(server.uploads("bucket")), "no key of a backup of this store")

    def test_minio(self):
        """It lists uploads only for whole keys and for the whole bucket."""
        server = self.serve("minio")
        env = {name: server.env[name] for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL")}

        def count():
            base = self.path("minio/.minio.sys/multipart")
            return sum(len(os.listdir(os.path.join(base, one))) for one in os.listdir(base)) if os.path.isdir(base) else 0
        for prefix in ("p", "q"):
            before = count()
            self.kill(self.killed("s3://bucket/" + prefix, env, lambda before=before: count() > before))
        time.sleep(1.1)
        self.assertEqual({"keep"}, {line[0] for line in self.prune("s3://bucket/p", env=env)[0].values()})
        self.assertEqual(1, self.prune("s3://bucket/p", "--older-than", "1s", env=env)[1]["deleted"])
        self.assertEqual(1, count())

    def test_parts_that_came_since(self):
        """An upload that was begun long ago is young while parts come."""
        server = self.s3()
        listed = f"""<ListMultipartUploadsResult><Bucket>bucket</Bucket><IsTruncated>false</IsTruncated>
            <Upload><Key>p/{stored.stem("n", START)}.tar.gz</Key><UploadId>u1</UploadId>
            <Initiated>2020-01-01T02:00:00.000Z</Initiated></Upload></ListMultipartUploadsResult>"""
        now = datetime.datetime.now(datetime.timezone.utc)
        part = "<Part><PartNumber>{}</PartNumber><LastModified>{:%Y-%m-%dT%H:%M:%S}.000Z</LastModified></Part>"
        pages = ["<ListPartsResult><IsTruncated>true</IsTruncated><NextPartNumberMarker>1</NextPartNumberMarker>"
                 + part.format(1, START) + "</ListPartsResult>",
                 "<ListPartsResult><IsTruncated>false</IsTruncated>" + part.format(2, now) + "</ListPartsResult>"]
        steps = [{"match": {"method": "GET", "path": "[?&]uploads"}, "status": 200, "body": listed, "times": 0},
                 {"match": {"method": "GET", "path": "part-number-marker=1"}, "status": 200, "body": pages[1], "times": 0},
                 {"match": {"method": "GET", "path": "uploadId=u1"}, "status": 200, "body": pages[0], "times": 0},
                 {"match": {"method": "DELETE"}, "status": 500, "times": 0}]
        plan, _ = self.prune(self.between(server, "bucket", steps), env=server.env())
        self.assertEqual([("keep", "younger than --older-than", False)], list(plan.values()))

    def test_pages_of_uploads(self):
        server = self.s3()
        one = """<ListMultipartUploadsResult><EncodingType>url</EncodingType><IsTruncated>{}</IsTruncated>
            <NextKeyMarker>p%2Fn%2Fa+b</NextKeyMarker><NextUploadIdMarker>u1</NextUploadIdMarker><Upload><Key>p%2Fn%2F{}</Key>
            <UploadId>{}</UploadId><Initiated>2020-01-01T02:00:00.000Z</Initiated></Upload></ListMultipartUploadsResult>"""
        name = "n-2020-01-01T0{}0000Z.tar.gz"
        steps = [{"match": {"method": "GET", "path": "key-marker=p%2Fn%2Fa%20b.*upload-id-marker=u1"}, "status": 200,
                  "body": one.format("false", name.format(2), "u2"), "times": 0},
                 {"match": {"method": "GET", "path": "[?&]uploads"}, "status": 200,
                  "body": one.format("true", name.format(1), "u1"), "times": 0},
                 {"match": {"method": "GET", "path": "uploadId="}, "status": 200, "times": 0,
                  "body": "<ListPartsResult><IsTruncated>false</IsTruncated></ListPartsResult>"},
                 {"match": {"method": "DELETE", "path": "uploadId=u1"}, "status": 204, "times": 0},
                 {"match": {"method": "DELETE", "path": "uploadId=u2"}, "status": 403, "times": 0,
                  "body": "<Error><Code>AccessDenied</Code></Error>"}]
        plan, said = self.prune(self.between(server, "bucket", steps), env=server.env(), status=1)
        self.assertEqual({("upload", "n/" + name.format(1)): ("delete", "neither finished nor aborted", True),
                          ("upload", "n/" + name.format(2)): ("delete", "neither finished nor aborted", False)}, plan)
        self.assertEqual(1, len(said["failures"]))

    def test_no_right_to_list_uploads(self):
        """What can be looked at is, what can't be is said; with nothing deleted the status is that of the refusal."""
        server = self.s3()
        steps = [{"match": {"method": "GET", "path": "[?&]uploads"}, "status": 403, "times": 0,
                  "body": "<Error><Code>AccessDenied</Code></Error>"}]
        _, said = self.prune(self.between(server, "bucket", steps), env=server.env(), status=3)
        self.assertIn("AccessDenied", said["failures"][0]["message"])


class Others(Orphans):
    def test_azure(self):
        """Blocks are listed; when the last one came is not told, so they are left, which is said."""
        server = self.serve("azurite")
        env = {name: value for name, value in server.env.items() if name.startswith("AZURE_")}
        url, sas = server.env["LUNARK_TEST_AZURE_URL"], server.env["LUNARK_TEST_AZURE_SAS"]
        key = stored.stem("n", START) + ".tar.gz"
        block = base64.b64encode(b"lunark-0123456789-000001").decode()
        azure_request("PUT", f"{url}/bucket/p/{key}?comp=block&blockid={block}&{sas}", b"12345")
        azure_request("PUT", f"{url}/bucket/p/empty?{sas}", b"", {"x-ms-blob-type": "BlockBlob"})
        plan, _ = self.prune("azure://bucket/p", env=env)
        self.assertEqual({("upload", key): ("leave", "the store throws blocks away a week after the last one; when that "
                                            "came is not told", False)}, plan)
        self.incomplete(url, sas)
        plan, said = self.prune("azure://bucket/p", "--older-than", "0s", env=env)
        self.assertEqual(1, said["deleted"])
        self.assertNotIn(("incomplete", "n/n-2020-01-02T020000Z.tar.gz"), self.prune("azure://bucket/p", env=env)[0])

    def incomplete(self, url, sas):
        azure_request("PUT", f"{url}/bucket/p/n/n-2020-01-02T020000Z.tar.gz?{sas}", b"half",
                      {"x-ms-blob-type": "BlockBlob", "x-ms-meta-lunark_version": "0.1.0"})

    def test_gcs(self):
        server = self.serve("fakegcs")
        env = {"STORAGE_EMULATOR_HOST": server.env["STORAGE_EMULATOR_HOST"]}
        self.write("tree/file", b"x")
        self.lunark("backup", "files", self.path("tree"), "--to", "gs://bucket/p", "--no-latest", env=env)
        plan, _ = self.prune("gs://bucket/p", "--older-than", "0s", env=env)
        self.assertEqual({}, plan)
        self.assertIn("unfinished uploads are not looked for: sessions can't be listed; Google ends each by itself", self.log)


if __name__ == "__main__":
    main()
