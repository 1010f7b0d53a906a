# SPDX-License-Identifier: MIT
"""The README's script and commands, taken out of it and run: only host names and paths are put in."""
import gzip
import hashlib
import hmac
import http.server
import os
import re
import subprocess
import sys
import tarfile
import threading

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
from harness import LUNARK, ROOT, Case, environment, main  # noqa: E402

with open(os.path.join(ROOT, "README.md"), encoding="utf-8") as file:
    README = file.read()


class Hook(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.calls.append((body, self.headers["x-signature"]))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_):
        pass


class Readme(Case):
    def setUp(self):
        super().setUp()
        self.write("bin/pg_dump", "#!/bin/sh\n[ \"$*\" = '--format=custom app' ] || exit 9\nhead -c 3000000 /dev/zero\n"
                   "exit ${DUMP_STATUS:-0}\n", 0o755)
        self.write("data/file", "content")
        self.write("data/file.tmp", "not this")
        self.hook = http.server.HTTPServer(("127.0.0.1", 0), Hook)
        self.hook.calls = []
        thread = threading.Thread(target=self.hook.serve_forever)
        thread.start()
        self.addCleanup(lambda: (self.hook.shutdown(), thread.join(), self.hook.server_close()))
        script = re.search(r"```lua\n(.*?)```", README, re.S).group(1)
        lines = [line for line in script.splitlines() if line.strip()]
        self.assertLessEqual(len([line for line in lines if not line.startswith(("local exec", "local archive"))]), 11)
        script = script.replace("https://hooks.example.com", f"http://127.0.0.1:{self.hook.server_port}")
        script = script.replace("hooks.example.com", "127.0.0.1").replace("/srv/data", self.path("data"))
        self.script = self.write("nightly.lua", script)
        self.command = re.search(r"`lunark (run --allow declared nightly\.lua) s3://", README).group(1).split()[:-1]

    def run_it(self, url, status=0, **env):
        env = {**env, "PATH": self.path("bin") + ":" + os.environ["PATH"]}
        return self.lunark(*self.command, self.script, url, status=status, env=env)

    def test_script_to_a_local_store(self):
        self.run_it("file://" + self.path("store"))
        with gzip.open(self.path("store/app.dump.gz")) as file:
            self.assertEqual(3000000, len(file.read()))
        with tarfile.open(self.path("store/data.tar.gz")) as archive:
            self.assertEqual([self.path("data")[1:], self.path("data/file")[1:]], archive.getnames())
        with open(self.path("store/data.tar.gz"), "rb") as file:
            data = file.read()
        [(body, signature)] = self.hook.calls
        self.assertEqual(f"stored {len(data)} bytes, sha256 {hashlib.sha256(data).hexdigest()}", body.decode())
        self.assertEqual(hmac.new(b"shared key", body, "sha256").hexdigest(), signature)

    def test_script_to_s3(self):
        server = self.s3()
        self.run_it(server.url(server.bucket("bucket"), "nightly"), **server.env())
        self.assertEqual(["nightly/app.dump.gz", "nightly/data.tar.gz"], server.objects("bucket"))

    def test_script_with_a_dump_that_fails_at_its_end(self):
        failed = self.run_it("file://" + self.path("store"), status=1, DUMP_STATUS="3")
        self.assertIn("pg_dump", failed.stderr)
        self.assertEqual([], [f for _, _, files in os.walk(self.path("store")) for f in files])
        self.assertEqual([], self.hook.calls)

    def test_script_without_a_grant(self):
        denied = self.lunark("run", self.script, "file://" + self.path("store"), status=2)
        self.assertIn("--allow", denied.stderr)
        self.assertIn("not allowed", denied.stderr)

    def test_everyday_commands(self):
        block = re.search(r"## Everyday use\n\n```sh\n(.*?)```", README, re.S).group(1)
        server = self.s3()
        bucket = server.bucket("bucket")
        os.mkdir(self.path("disk"))
        env = environment(PATH=f"{self.path('bin')}:{os.environ['PATH']}", **server.env(),
                          AWS_ENDPOINT_URL=server.endpoint, AWS_REGION=server.region)
        os.symlink(LUNARK, self.path("bin/lunark"))
        os.symlink(os.path.join(ROOT, "tests/support/neo4j-admin"), self.path("bin/neo4j-admin"))
        for line in block.splitlines():
            line = line.split("  #")[0].replace("s3://bucket", f"s3://{bucket}")
            line = line.replace("/srv", self.path()).replace("/mnt/disk", self.path("disk"))
            if line.startswith("tar"):
                archive = [f for f in os.listdir(self.path("disk/data")) if f.endswith("Z.tar.gz")][0]
                line = re.sub(r"\./\S+", "./" + archive, line)
            done = subprocess.run(["sh", "-c", line], cwd=self.path("disk/data" if line.startswith("tar") else "."),
                                  env=env, capture_output=True, text=True, stdin=subprocess.DEVNULL)
            self.assertEqual(0, done.returncode, f"{line}\n{done.stdout}{done.stderr}")
        self.assertTrue(os.path.exists(self.path("restored") + self.path("data/file")))
        self.assertTrue(os.path.exists(self.path("disk/data") + self.path("data/file")))
        self.assertIn("neo4j/neo4j-latest.tar.gz", server.objects(bucket))
        self.assertIn("system/system-latest.tar.gz", server.objects(bucket))

    def demo(self, status=0, **env):
        done = subprocess.run(["sh", os.path.join(ROOT, "tests/support/demo.sh"), env.pop("command", LUNARK)], cwd=ROOT,
                              env=environment(TMPDIR=self.path(), **env), capture_output=True, text=True,
                              stdin=subprocess.DEVNULL)
        self.assertEqual(status, done.returncode, done.stdout + done.stderr)
        return done

    def test_demo_of_a_folder(self):
        self.write("my things/build/kept", "x")
        os.mkfifo(self.path("my things/fifo"))
        for _ in range(2):
            done = self.demo(DEMO=self.path("my things"), DEMO_OUT=self.path("out"))
            self.assertIn("The restored tree is the same as the source.", done.stdout)
            self.assertNotIn("\033", done.stdout)
            self.assertTrue(os.path.exists(self.path("out/restored") + self.path("my things/build/kept")))

    def test_demo_that_can_not_be_done(self):
        self.assertIn("a folder expected", self.demo(2, DEMO=self.path("none")).stderr)
        self.assertIn("name another folder", self.demo(2, DEMO=self.path(), DEMO_OUT=self.path("out")).stderr)
        damaging = self.write("damaging", f"#!/bin/sh\n{LUNARK} \"$@\" || exit\n[ $1 != restore ] ||"
                              f" echo other > {self.path('out/restored')}{self.path('data/file')}\n", 0o755)
        done = self.demo(1, DEMO=self.path("data"), DEMO_OUT=self.path("out"), command=damaging)
        self.assertIn("the restored tree is not the same", done.stderr)
        self.assertIn("> other", done.stderr)


if __name__ == "__main__":
    main()
