# SPDX-License-Identifier: MIT
"""The examples of docs/policies.md and docs/providers.md, taken out of them and run as they stand."""
import glob
import gzip
import json
import os
import re
import shutil
import sys
import time
import types

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
import servers  # noqa: E402
from harness import ROOT, Case, describe, main, make_tree  # noqa: E402


def examples(name):
    with open(os.path.join(ROOT, "docs", name), encoding="utf-8") as file:
        return re.findall(r"```lua\n(.*?)```", file.read(), re.S)


FAILS = """
return require "lunark.policy" {
  api = 1, name = "dump", summary = "a program that fails", needs = { exec = { "sh" } },
  backup = function(job)
    job:save("dump", { program = { "sh", "-c", "head -c 3000000 /dev/urandom; exit 3" }, suffix = ".bin" })
  end,
}
"""


class Policies(Case):
    def setUp(self):
        super().setUp()
        self.write("bin/pg_dump", "#!/bin/sh\necho \"dump of $*\"\n", 0o755)
        self.env = {"PATH": self.path("bin") + ":" + os.environ["PATH"]}

    def stored(self, pattern):
        (found,) = glob.glob(self.path(pattern))
        with gzip.open(found, "rt") as file:
            return file.read()

    def test_policy(self):
        self.write("mine/policies/postgres.lua", examples("policies.md")[0])
        command = ["backup", "postgres", "--scripts", self.path("mine"), "--to", self.path("store")]
        self.lunark(*command, "--database", "app,crm", "--host", "db", env=self.env)
        for name in ("app", "crm"):
            self.assertEqual(f"dump of --format=custom --host=db {name}\n",
                             self.stored(f"store/{name}/{name}-2*.dump.gz"))
        missing = self.lunark(*command, env=self.env, status=2)
        self.assertIn("--database is missing\nhint: or set PGDATABASE", missing.stderr)

    def test_script_with_a_job(self):
        script = self.write("job.lua", examples("policies.md")[1])
        self.lunark("run", "--allow", "declared", script, "file://" + self.path("store"), env=self.env)
        self.assertEqual("dump of app\n", self.stored("store/app/app-2*.sql.gz"))


class Providers(Case):
    def test_the_contract_loads(self):
        self.write("mine/providers/example.lua", examples("providers.md")[0])
        failed = self.lunark("list", "example://host/x", status=2, env={"LUNARK_PATH": self.path("mine")})
        self.assertIn("endpoint is missing", failed.stderr)
        self.assertIn("EXAMPLE_ENDPOINT", failed.stderr)

    def pruned(self, url, env, folder):
        """Old backups go by a rule, and by --orphans what has no manifest; the newest one stays whole."""
        for _ in range(2):
            time.sleep(1.1)  # a key of its own
            self.lunark("backup", "files", self.path("src"), "--to", url, env=env)
        before = sorted(name for name in os.listdir(folder) if name.endswith("Z.tar.gz"))
        self.assertEqual(3, len(before))
        os.unlink(os.path.join(folder, before[0].replace("tar.gz", "manifest.json")))

        def archives():
            return sorted(name for name in os.listdir(folder) if name.endswith("Z.tar.gz"))
        self.assertIn("it has no manifest", self.lunark("prune", url, "--orphans", "--older-than", "1s", "--dry-run",
                                                        env=env).stdout)
        self.assertEqual(before, archives())
        done = self.lunark("prune", url, "--orphans", "--older-than", "1s", "--yes", env=env)
        self.assertIn("unfinished uploads are not looked for: the store can't list them", done.stderr)
        self.assertEqual(before[1:], archives())
        self.lunark("prune", url, "--keep-last", "1", "--yes", env=env)
        self.assertEqual(before[-1:], archives())
        self.assertIn("ok ", self.lunark("verify", url, env=env).stdout)

    def damaged(self, url, env, folder):
        """Bytes that are others are found."""
        (name,) = [name for name in os.listdir(folder) if name.endswith("Z.tar.gz")]
        with open(os.path.join(folder, name), "r+b") as file:
            file.seek(os.path.getsize(file.name) // 2)
            byte = file.read(1)
            file.seek(-1, os.SEEK_CUR)
            file.write(bytes([byte[0] ^ 1]))
        self.lunark("verify", url, "--data", "all", status=4, env=env)
        self.lunark("restore", "--from", url, "--item", "src", "--into", self.path("bad"), status=4, env=env)

    def test_retry_and_rate_are_the_librarys(self):
        """The provider has no word of them."""
        running = servers.Servers(self.path())
        self.addCleanup(running.stop)
        running.webdav()
        self.write("mine/providers/webdav.lua", examples("providers.md")[-1])
        env = {name: running.env[name] for name in ("WEBDAV_USER", "WEBDAV_PASSWORD")}
        env["LUNARK_PATH"] = self.path("mine")
        endpoint = running.env["LUNARK_TEST_WEBDAV_URL"].replace("webdav", "http")
        place = types.SimpleNamespace(endpoint=endpoint, url=lambda *words: "/".join((endpoint, *words)))
        busy = {"status": 503, "headers": {"retry-after": "1"}}
        steps = [{"match": {"method": "PUT"}, **busy}, {"match": {"method": "PUT"}, "drop": "reset"},
                 {"match": {"method": "MOVE"}, **busy}, {"match": {"method": "PROPFIND"}, **busy, "times": 2},
                 {"match": {"method": "GET"}, **busy}]
        url = self.between(place, "some", steps).replace("http:", "webdav:")
        with open(self.write("src/noise"), "wb") as file:
            file.write(os.urandom(3 << 20))
        began = time.monotonic()
        done = self.lunark("backup", "files", self.path("src"), "--to", url, "--limit-rate", "1M", "--log-level", "debug",
                           env=env)
        self.assertGreater(time.monotonic() - began, 2.5)
        self.assertIn("again in", done.stderr)
        self.lunark("restore", "--from", url, "--into", self.path("into"), env=env)
        self.assertEqual(describe(self.path("src")), describe(self.path("into") + self.path("src")))
        with open(self.path("log"), encoding="utf-8") as log:
            seen = [json.loads(line)["method"] for line in log]
        self.assertGreaterEqual(seen.count("PUT"), 4, "two objects, and again what was refused")

    def test_webdav_with_every_verb(self):
        running = servers.Servers(self.path())
        self.addCleanup(running.stop)
        running.webdav()
        code = examples("providers.md")[-1]
        self.assertLess(len([line for line in code.splitlines() if line.strip() and not line.strip().startswith("--")]), 100)
        self.write("mine/providers/webdav.lua", code)
        env = {name: running.env[name] for name in ("WEBDAV_USER", "WEBDAV_PASSWORD")}
        env["LUNARK_PATH"] = self.path("mine")
        url, data = running.env["LUNARK_TEST_WEBDAV_URL"] + "/some/where", running.env["LUNARK_TEST_WEBDAV_DATA"]
        tree = make_tree(self.path("src"), files=40, big=1 << 20)
        self.lunark("backup", "files", tree, "--to", url, env=env)
        stored = sorted(os.listdir(os.path.join(data, "some/where/src")))
        self.assertEqual(["manifest.json", "tar.gz", "tar.gz"], sorted(name.split(".", 1)[1] for name in stored if name[0] != "."))
        self.assertFalse([name for name in stored if name.endswith(".tmp")])
        with gzip.open(os.path.join(data, "some/where/src/src-latest.tar.gz")) as file:
            self.assertIn(b"ustar", file.read(512))
        self.assertIn(" ok ", self.lunark("list", url, env=env).stdout)
        self.lunark("restore", "--from", url, "--into", self.path("into"), env=env)
        self.assertEqual(describe(tree), describe(self.path("into") + tree))
        self.lunark("restore", "--from", url, "--into", self.path("one"), "--path", "**/big.bin", env=env)
        self.assertEqual(["big.bin"], [name for _, _, names in os.walk(self.path("one")) for name in names])
        self.assertIn("ok ", self.lunark("verify", url, "--data", "all", env=env).stdout)
        self.lunark("verify", url, "--restore", "--work-dir", self.dir, env=env)
        self.pruned(url, env, os.path.join(data, "some/where/src"))
        # Any client writes there, and is read.
        os.makedirs(os.path.join(data, "some/other/n"), exist_ok=True)
        shutil.copy(os.path.join(data, "some/where/src/src-latest.tar.gz"),
                    os.path.join(data, "some/other/n/n-2026-01-31T020000Z.tar.gz"))
        self.assertIn("unverified", self.lunark("list", url.replace("where", "other"), env=env).stdout)
        refused = self.lunark("list", url, status=3, env={**env, "WEBDAV_PASSWORD": "a wrong word"})
        self.assertIn("answered 401", refused.stderr)
        self.assertIn("credentials", refused.stderr)
        self.assertNotIn("a wrong word", refused.stderr)
        self.damaged(url, env, os.path.join(data, "some/where/src"))
        # A program that fails leaves nothing behind.
        self.write("mine/policies/dump.lua", FAILS)
        self.lunark("backup", "dump", "--to", url, status=1, env=env)
        self.assertFalse(glob.glob(os.path.join(data, "some/where/dump/*")))


if __name__ == "__main__":
    main()
