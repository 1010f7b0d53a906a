# SPDX-License-Identifier: MIT
"""Cases of a cloud's own client and lunark on one bucket, `lunark-test`, and of listings with far more objects than are
ours. What is the client's stands in the test of that cloud."""
import hashlib
import http.server
import json
import os
import subprocess
import threading
import urllib.parse

import harness

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
LUARUN = os.path.join(harness.BUILD, "luarun")
PREFIX = "some/pre fix/"
MIB = 1 << 20
NAMES = ["plain", "with space/and more .txt", "a+b+c", "100%/50%25.txt", "neo4j-2020-06-16-12:32:57.tar.gz",
         "grün/日本語/ñ.txt", "a!$&'()*,;=@[]~_-.^`{}|\"<>", "what?/x#y&z=1", "dot.", "e\u0301.txt", "\U0001F4BE",
         "a//b", "//", "slash/", "n" * (1024 - len(PREFIX))]
SIZES = {"empty": (0, 0), "a byte": (0, 1), "a part less a byte": (1, -1), "a part": (1, 0), "a part and a byte": (1, 1),
         "two parts": (2, 0), "parts": (3, 12345)}  # parts and bytes


class ClientCase(harness.Case):
    """self.servers has the server. Programs of the client: READ (PREFIX) prints the objects below it as client.lua does,
    UPLOAD (KEY, FILE), DOWNLOAD (KEY)."""
    scheme = READ = UPLOAD = DOWNLOAD = None
    PART = MIB  # as client.lua sends it

    def theirs(self, program, *words):
        """What a program of the client prints."""
        raise NotImplementedError

    def described(self, names):
        """The objects to be, in a file, and as both sides must report them."""
        objects = [{"key": key, "size": 20 + number, "meta": {}} for number, key in enumerate(names)]
        objects += [{"key": "size/" + key, "size": parts * self.PART + more, "meta": {"lunark-version": "0.1", "of": key}}
                    for key, (parts, more) in SIZES.items()]
        expected = []
        for one in sorted(objects, key=lambda one: one["key"].encode()):
            block = hashlib.sha256(one["key"].encode()).digest()
            body = (block * (one["size"] // 32 + 1))[:one["size"]]
            expected.append({**one, "sha256": hashlib.sha256(body).hexdigest()})
        return self.write("objects.json", json.dumps(objects)), expected

    def ours(self, what, file):
        """What client.lua says of the bucket, after it has written the objects when `what` is "write"."""
        env = dict(self.servers.env, LUNARK_TEST_STORE=f"{self.scheme}://lunark-test/some/pre%20fix")
        child = subprocess.run([LUARUN, "tests/provider/client.lua", what, file], cwd=ROOT, env=env,
                               stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=120,
                               check=False)
        self.assertEqual(0, child.returncode, child.stderr.decode())
        return [dict(one, meta=one["meta"] or {}) for one in json.loads(child.stdout)]

    def both_ways(self, env):
        """The client unpacks a backup of lunark's; lunark lists and restores an archive of the client's beside it."""
        url = f"{self.scheme}://lunark-test/nightly"
        harness.make_tree(self.path("tree"), files=20, big=1 << 19)
        self.lunark("backup", "files", self.path("tree"), "--name", "tree", "--to", url, env=env)
        key = next(one["key"] for one in json.loads(self.theirs(self.READ, "nightly/"))
                   if one["key"].endswith("latest.tar.gz"))
        os.mkdir(self.path("theirs"))
        subprocess.run(["tar", "xzf", "-", "-C", self.path("theirs")], check=True, stderr=subprocess.DEVNULL,
                       input=self.theirs(self.DOWNLOAD, "nightly/" + key))
        expected = harness.describe(self.path("tree"))
        self.assertEqual(expected, harness.describe(self.path("theirs") + self.path("tree")))
        subprocess.run(["tar", "czf", self.path("other.tar.gz"), "-C", self.path("tree"), "big.bin"], check=True)
        self.theirs(self.UPLOAD, "nightly/other/other-2026-03-01T120000Z.tar.gz", self.path("other.tar.gz"))
        listed = self.lunark("list", url, "--all", env=env).stdout
        self.assertIn("tree", listed)
        self.assertIn("other-2026-03-01T120000Z.tar.gz", listed)
        self.lunark("restore", "--from", url, "--item", "tree", "--into", self.path("ours"), env=env)
        self.assertEqual(expected, harness.describe(self.path("ours") + self.path("tree")))
        self.lunark("restore", "--from", url, "--item", "other", "--into", self.path("other"), env=env)
        with open(self.path("other", "big.bin"), "rb") as ours, open(self.path("tree", "big.bin"), "rb") as file:
            self.assertEqual(file.read(), ours.read())


class Pages(http.server.BaseHTTPRequestHandler):
    """Lists of 10,001 objects beside 100,000 others. Now and then a page has fewer than were asked for, or none, as those
    of the clouds may. A subclass has an `asked` of its own."""
    protocol_version = "HTTP/1.1"
    keys = sorted([f"aaa/{n:06}" for n in range(50000)] + [f"some/pre fix/{n:06}" for n in range(10001)] +
                  [f"some/pre fix2/{n:06}" for n in range(50000)])
    asked = None

    def log_message(self, *_):
        pass

    def request_of(self):
        """(path, query), which is noted."""
        place, _, query = self.path.partition("?")
        query = dict(urllib.parse.parse_qsl(query))
        self.asked.append(query)
        return place, query

    def page(self, prefix, start, wanted, largest):
        """(keys, where the next page starts or None)."""
        keys = [key for key in self.keys if key.startswith(prefix)]
        most = (0, 10, largest)[len(self.asked) % 3 if len(self.asked) < 10 else 2]
        page = keys[start:start + min(most, wanted)]
        return page, start + len(page) if start + len(page) < len(keys) else None

    def reply(self, body):
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class ListingCase(harness.Case):
    def count(self, pages, url, options="{}"):
        """All objects below a prefix are found, in order, and no others. PORT in the URL stands for the server's."""
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), pages)
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        self.addCleanup(server.server_close)
        self.addCleanup(server.shutdown)
        program = f"""
local s = assert(require "lunark.store".open(..., {options}))
local count, last = 0, ""
for info, err in s:list() do
  assert(assert(info, err).key > last)
  count, last = count + 1, info.key
end
print(count, last)
"""
        child = subprocess.run([LUARUN, self.write("count.lua", program), url.replace("PORT", str(server.server_port))],
                               env=harness.environment(), check=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                               timeout=120)
        self.assertEqual(b"10001\t010000\n", child.stdout)
        self.assertEqual({"some/pre fix/"}, {query["prefix"] for query in pages.asked})
        self.assertLess(len(pages.asked), 25)
