# SPDX-License-Identifier: MIT
"""The examples of docs/policies.md and docs/providers.md, taken out of them and run as they stand."""
import glob
import gzip
import http.server
import json
import os
import re
import sys
import threading
import urllib.parse

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
from harness import ROOT, Case, describe, main, make_tree  # noqa: E402


def examples(name):
    with open(os.path.join(ROOT, "docs", name), encoding="utf-8") as file:
        return re.findall(r"```lua\n(.*?)```", file.read(), re.S)


class Web(http.server.BaseHTTPRequestHandler):
    """The server that the provider of docs/providers.md speaks with."""
    protocol_version = "HTTP/1.1"

    def answer(self, status, body=b"", headers=()):
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def refused(self):
        if self.headers["authorization"] == "sesame":
            return False
        self.close_connection = True
        self.answer(403)
        return True

    def do_PUT(self):
        if self.refused():
            return
        body = self.rfile.read(int(self.headers["content-length"]))
        meta = [(k, v) for k, v in self.headers.items() if k.lower().startswith("x-meta-")]
        self.server.objects[urllib.parse.unquote(self.path[1:])] = (body, meta)
        self.answer(201)

    def do_GET(self):
        path, _, query = self.path[1:].partition("?")
        if self.refused():
            return
        if query:
            prefix = urllib.parse.parse_qs(query, keep_blank_values=True)["prefix"][0]
            found = [{"key": key, "size": len(body)} for key, (body, _) in sorted(self.server.objects.items())
                     if key.startswith(prefix)]
            self.answer(200, json.dumps(found).encode())
        elif urllib.parse.unquote(path) in self.server.objects:
            self.answer(200, *self.server.objects[urllib.parse.unquote(path)])
        else:
            self.answer(404)

    do_HEAD = do_GET

    def log_message(self, *_):
        pass


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
    def setUp(self):
        super().setUp()
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Web)
        self.server.objects = {}
        thread = threading.Thread(target=self.server.serve_forever)
        thread.start()
        self.addCleanup(lambda: (self.server.shutdown(), thread.join(), self.server.server_close()))
        self.env = {"LUNARK_PATH": self.path("mine"), "WEB_TOKEN": "sesame"}
        self.url = f"web://127.0.0.1:{self.server.server_port}/some/where"

    def test_the_contract_loads(self):
        self.write("mine/providers/example.lua", examples("providers.md")[0])
        failed = self.lunark("list", "example://host/x", status=2, env=self.env)
        self.assertIn("endpoint is missing", failed.stderr)
        self.assertIn("EXAMPLE_ENDPOINT", failed.stderr)

    def test_a_small_one(self):
        self.write("mine/providers/web.lua", examples("providers.md")[-1])
        tree = make_tree(self.path("src"), files=40, big=1 << 20)
        self.lunark("backup", "files", tree, "--to", self.url, env=self.env)
        self.assertIn("some/where/src/src-latest.tar.gz", self.server.objects)
        self.assertIn(" ok ", self.lunark("list", self.url, env=self.env).stdout)
        self.lunark("restore", "--from", self.url, "--into", self.path("into"), env=self.env)
        self.assertEqual(describe(tree), describe(self.path("into") + tree))
        refused = self.lunark("list", self.url, status=3, env={**self.env, "WEB_TOKEN": "wrong"})
        self.assertIn("answered 403", refused.stderr)
        self.assertNotIn("wrong", refused.stderr)


if __name__ == "__main__":
    main()
