# SPDX-License-Identifier: MIT
"""What the documentation claims and no other test shows: large files, virtual-host addressing, profiles, rights of
scripts, the bar on a terminal, records of odd files, scripts as programs."""
import glob
import json
import os
import pty
import re
import select
import socket
import subprocess
import sys
import tarfile
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
from harness import LUNARK, Case, environment, load_json, main, make_tree  # noqa: E402


class Archives(Case):
    def test_a_file_over_8_gib(self):
        os.mkdir(self.path("src"))
        with open(self.path("src/huge"), "wb") as file:
            file.truncate(9 << 30)
            file.seek(0, os.SEEK_END)
            file.write(b"tail\n")
        size = os.path.getsize(self.path("src/huge"))
        self.lunark("backup", "files", self.path("src"), "--to", self.path("store"), "--name", "n")
        archive = glob.glob(self.path("store/n/n-2*.tar.gz"))[0]
        self.assertLess(os.path.getsize(archive), 64 << 20)
        for tar in (["bsdtar"], ["tar", "--force-local"]):
            listed = subprocess.run([*tar, "-tvf", archive], capture_output=True, text=True, check=True).stdout
            self.assertIn(str(size), listed)
        with tarfile.open(archive) as file:
            file.next()
            self.assertEqual(size, file.next().size)
        self.lunark("restore", "--from", self.path("store"), "--item", "n", "--into", self.path("into"))
        back = self.path("into") + self.path("src/huge")
        self.assertEqual(size, os.path.getsize(back))
        self.assertLess(os.stat(back).st_blocks * 512, 1 << 20, "the holes were filled")
        with open(back, "rb") as file:
            file.seek(9 << 30)
            self.assertEqual(b"tail\n", file.read())

    def test_choices_of_what_is_read(self):
        tree = self.path("src")
        for name in ("keep/a", "keep/b.tmp", "cache/CACHEDIR.TAG", "cache/data", "node_modules/x/y"):
            self.write("src/" + name, "Signature: 8a477f597d28d172789f06886806bc55" if "TAG" in name else "x")
        self.lunark("backup", "files", tree, "--to", self.path("store"), "--name", "n", "--exclude", "*.tmp",
                    "--exclude", "node_modules", "--exclude-caches")
        with tarfile.open(glob.glob(self.path("store/n/n-2*.tar.gz"))[0]) as archive:
            names = [os.path.relpath("/" + name, tree) for name in archive.getnames()]
        self.assertEqual([".", "cache", "cache/CACHEDIR.TAG", "keep", "keep/a"], names)

    @unittest.skipUnless(os.geteuid() == 0, "needs root: a mount")
    def test_one_file_system(self):
        self.write("src/here", "x")
        os.mkdir(self.path("src/there"))
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", self.path("src/there")], check=True)
        self.addCleanup(subprocess.run, ["umount", self.path("src/there")])
        self.write("src/there/file", "x")
        self.lunark("backup", "files", self.path("src"), "--to", self.path("store"), "--name", "n", "--one-file-system")
        with tarfile.open(glob.glob(self.path("store/n/n-2*.tar.gz"))[0]) as archive:
            names = archive.getnames()
        self.assertIn(self.path("src/there")[1:], names)
        self.assertNotIn(self.path("src/there/file")[1:], names)

    @unittest.skipUnless(os.geteuid() == 0, "needs root: another uid")
    def test_what_can_not_be_read_is_in_the_manifest_and_gives_5(self):
        self.write("src/good", "x")
        self.write("src/secret", "x", 0o600)
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(self.path("src/socket"))
            os.chmod(self.dir, 0o777)
            done = subprocess.run(["setpriv", "--reuid", "12345", "--regid", "12345", "--clear-groups", LUNARK, "backup",
                                   "files", self.path("src"), "--to", self.path("store"), "--name", "n"],
                                  env=environment(), capture_output=True, text=True)
        self.assertEqual(5, done.returncode, done.stderr)
        self.assertIn("src/secret", done.stderr)
        manifest = load_json(glob.glob(self.path("store/n/*.manifest.json"))[0])
        self.assertEqual(1, manifest["unreadable"])
        kinds = {os.path.basename(w["path"]): w["kind"] for w in manifest["warnings"]}
        self.assertEqual({"secret": "unreadable", "socket": "skipped"}, kinds)
        with tarfile.open(glob.glob(self.path("store/n/n-2*.tar.gz"))[0]) as archive:
            self.assertIn(self.path("src/good")[1:], archive.getnames())


class Addressing(Case):
    def test_virtual_host_and_path_style(self):
        server = self.s3("--virtual-domain", "localhost:PORT")
        tree = make_tree(self.path("src"), files=5)
        url = f"s3://bucket/p?endpoint=http://localhost:{server.port}&region={server.region}&path_style=false"
        self.lunark("backup", "files", tree, "--to", url, "--name", "n", env=server.env())
        self.assertIn("p/n/n-latest.tar.gz", server.objects("bucket"))
        self.lunark("restore", "--from", url, "--item", "n", "--into", self.path("into"), env=server.env())

    def test_keys_of_a_profile(self):
        server = self.s3()
        server.bucket("bucket")
        self.write("home/.aws/credentials", f"[default]\naws_access_key_id = wrong\naws_secret_access_key = wrong\n"
                   f"[night]\naws_access_key_id = {server.access}\naws_secret_access_key = {server.secret}\n", 0o600)
        tree = make_tree(self.path("src"), files=3)
        env = {"HOME": self.path("home")}
        url = server.url("bucket")
        self.lunark("backup", "files", tree, "--to", url + "&profile=night", "--name", "n", env=env)
        self.lunark("backup", "files", tree, "--to", url, "--name", "n", env={**env, "AWS_PROFILE": "night"})
        failed = self.lunark("backup", "files", tree, "--to", url, "--name", "n", status=3, env=env)
        self.assertNotIn(server.secret, failed.stderr)


class Scripts(Case):
    def test_granted(self):
        out = self.lunark("run", "--allow", "exec=echo", self.write(
            "s.lua", 'print(assert(require("lunark.exec").run { "echo", "hello" }).stdout)')).stdout
        self.assertIn("hello", out)

    def test_a_script_as_a_program(self):
        os.makedirs(self.path("bin"))
        os.symlink(LUNARK, self.path("bin/lunark"))
        script = self.write("tool", '#!/usr/bin/env -S lunark run --allow exec=echo\n'
                            'print(arg[1], (assert(require("lunark.exec").run { "echo", arg[2] }).stdout))\n', 0o755)
        done = subprocess.run([script, "one", "two"], env=environment(PATH=self.path("bin") + ":" + os.environ["PATH"]),
                              capture_output=True, text=True)
        self.assertEqual((0, "one\ttwo\n\n"), (done.returncode, done.stdout), done.stderr)


class Output(Case):
    def test_bar_on_a_terminal(self):
        os.mkdir(self.path("src"))
        with open(self.path("src/data"), "wb") as file:
            for _ in range(60):
                file.write(os.urandom(1 << 20))
        leader, follower = pty.openpty()
        child = self.start("backup", "files", self.path("src"), "--to", self.path("store"), "--name", "n",
                           "--limit-rate", "12M", stdout=follower, stderr=follower, env={"COLUMNS": "120"})
        os.close(follower)
        text = b""
        while True:
            ready, _, _ = select.select([leader], [], [], 30)
            try:
                data = os.read(leader, 65536) if ready else b""
            except OSError:
                data = b""
            if not data:
                break
            text += data
        os.close(leader)
        self.assertEqual(0, child.wait(30))
        text = text.decode()
        self.assertRegex(text, r"\[#+\.*\] +\d+%")
        self.assertRegex(text, r"MiB read of 60\.\d MiB, \d+\.\d MiB stored")
        self.assertRegex(text, r"MiB/s")
        self.assertRegex(text, r"\d+ s left")

    def test_plain_and_json(self):
        tree = make_tree(self.path("src"), files=5)
        done = self.lunark("backup", "files", tree, "--to", self.path("store"), "--name", "n", "--json",
                           "--log-format", "json")
        self.assertTrue(json.loads(done.stdout))
        for line in done.stderr.splitlines():
            record = json.loads(line)
            self.assertTrue({"time", "severity", "message", "run"} <= set(record), line)
            self.assertTrue(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", record["time"]))
        self.assertTrue(json.loads(self.lunark("list", self.path("store"), "--json").stdout)["backups"])
        done = self.lunark("restore", "--from", self.path("store"), "--item", "n", "--into", self.path("into"), "--json")
        self.assertTrue(json.loads(done.stdout))


if __name__ == "__main__":
    main()
