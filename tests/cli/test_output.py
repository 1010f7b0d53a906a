# SPDX-License-Identifier: MIT
"""What programs read of the command: --json is one document for every command and every end, each log line is valid in
either format, progress is lines where there is no terminal. And where scripts come from, in which order."""
import json
import os
import re
import subprocess
import sys
import tempfile
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
from harness import LUNARK, Case, environment, free_port, main, make_tree  # noqa: E402

POLICY = """
return require "lunark.policy" {{
  api = 1, name = "{name}", summary = "from {where}", backup = function(job)
    job:save("{where}", {{ stream = require("lunark.stream").of("x") }})
  end,
}}
"""


class Json(Case):
    def setUp(self):
        super().setUp()
        self.tree = make_tree(self.path("src"), files=5)
        self.store = self.path("store")

    def document(self, *args, status=0, **more):
        """The one JSON document on standard output; every line of the log is one, too."""
        done = self.lunark(args[0], "--json", "--log-format", "json", *args[1:], status=status, **more)
        found = json.loads(done.stdout)
        self.assertTrue(done.stdout.endswith("}\n"), done.stdout)
        for line in done.stderr.splitlines():
            record = json.loads(line)
            self.assertLessEqual({"time", "severity", "message"}, set(record), line)
            self.assertIn(record["severity"], ("DEBUG", "INFO", "WARN", "ERROR"))
        return found, done.stderr

    def failed(self, *args, status):
        found, log = self.document(*args, status=status)
        self.assertEqual(status, found["status"])
        self.assertTrue(found["failures"][0]["kind"] and found["failures"][0]["message"], found)
        self.assertIn('"ERROR"', log)
        return found

    def test_what_goes_well(self):
        backup, _ = self.document("backup", "files", self.tree, "--to", self.store)
        self.assertEqual(0, backup["status"])
        listed, _ = self.document("list", self.store)
        self.assertEqual([backup["items"][0]["key"]], [b["key"] for b in listed["backups"]])
        restored, _ = self.document("restore", "--from", self.store, "--into", self.path("into"))
        self.assertEqual(0, restored["status"])
        scripts, _ = self.document("scripts")
        self.assertIn("policies/files.lua", [s["name"] for s in scripts["scripts"]])
        os.mkdir(self.path("empty"))
        self.assertEqual([], self.document("list", self.path("empty"))[0]["backups"])

    def test_what_fails(self):
        nowhere = f"s3://bucket/?endpoint=http://127.0.0.1:{free_port()}&region=us-east-1"
        self.failed("backup", "files", self.path("none"), "--to", self.store, status=3)
        self.failed("backup", "files", self.tree, "--to", nowhere, status=3)
        self.failed("restore", "--from", self.path("none"), "--into", self.path("into"), status=3)
        self.failed("list", self.path("none"), status=3)
        self.failed("backup", "files", self.tree, self.store, "--to", self.store, status=2)  # needs --name
        self.failed("scripts", "--dump", "none", status=2)
        self.failed("run", self.path("none.lua"), status=2)
        self.failed("run", self.write("s.lua", "error('oh\\n\\1no')"), status=1)
        self.failed("run", self.write("s.lua", "require('lunark.exec').shell('exit 3')\nerror('x')"), status=1)

    def test_a_command_line_that_is_wrong(self):
        for args in (("backup", "files", "--frobnicate"), ("bakup",), ("backup", "flies"), ("list",), ("backup",),
                     ("list", self.store, "--memory", "much"), ("restore", "--from", self.store)):
            found = self.failed(*args, status=2)
            self.assertEqual("usage", found["failures"][0]["kind"])
        # What stands behind SCRIPT is the script's.
        done = self.lunark("run", "--allow", "much", self.write("s.lua", ""), "--json", "--log-format", "json", status=2)
        self.assertEqual(("", "lunark: "), (done.stdout, done.stderr[:8]))
        done = self.lunark("bakup", status=2, env={"LUNARK_LOG_FORMAT": "json"})
        self.assertIn("there is no command 'bakup'", json.loads(done.stderr)["message"])

    def test_names_that_are_not_utf8(self):
        tree = os.fsencode(self.path("odd"))
        os.mkdir(tree)
        for name in (b"\xff\xfe", b"new\nline", b"quote\"", b"\x01\x7f", b"\xed\xa0\x80"):
            open(os.path.join(tree, name), "wb").close()
            os.chmod(os.path.join(tree, name), 0)
        os.chmod(self.dir, 0o777)
        command = [LUNARK, "backup", "files", self.path("odd"), "--to", self.store, "--json", "--log-format", "json"]
        if os.geteuid() == 0:
            command = ["setpriv", "--reuid", "12345", "--regid", "12345", "--clear-groups", *command]
        done = subprocess.run(command, env=environment(), capture_output=True, check=False)
        self.assertEqual(5, done.returncode, done.stderr)
        self.assertEqual(5, json.loads(done.stdout.decode("utf-8"))["unreadable"])
        lines = done.stderr.decode("utf-8").splitlines()
        self.assertGreaterEqual(len(lines), 5)
        for line in lines:
            json.loads(line)
        text = subprocess.run([w for w in command if w not in ("--json", "--log-format", "json")], env=environment(),
                              capture_output=True, check=False).stderr.decode("utf-8")
        for line in text.splitlines():
            self.assertRegex(line, r"^(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d|hint: |lunark: )")
        self.assertIsNone(re.search("[\x00-\x09\x0b-\x1f\x7f]", text), text)

    def test_log_on_standard_output(self):
        done = self.lunark("backup", "files", self.tree, "--to", self.store, "--log-to", "stdout", "--log-format", "json")
        self.assertEqual("", done.stderr)
        self.assertTrue([json.loads(line) for line in done.stdout.splitlines()])


class Progress(Case):
    def test_lines_where_there_is_no_terminal(self):
        """The library's own file with another interval, found before the embedded one."""
        text = self.lunark("scripts", "--dump", "lunark/progress.lua").stdout
        self.assertIn("PLAIN_EVERY = 30\n", text)
        self.write("mine/lunark/progress.lua", text.replace("PLAIN_EVERY = 30\n", "PLAIN_EVERY = 0.5\n"))
        os.mkdir(self.path("src"))
        with open(self.path("src/data"), "wb") as file:
            file.write(os.urandom(8 << 20))
        done = self.lunark("backup", "files", self.path("src"), "--to", self.path("store"), "--limit-rate", "2M",
                           env={"LUNARK_PATH": self.path("mine")})
        lines = [line for line in done.stderr.splitlines() if " read, " in line and " stored, " in line]
        self.assertGreaterEqual(len(lines), 3, done.stderr)
        for line in lines:
            self.assertRegex(line, r"src: \d\S* (B|[KM]iB) read, \d\S* (B|[KM]iB) stored,( ratio \d+\.\d,)? \d\S* (B|[KM]iB)/s")
        self.assertNotIn("\r", done.stderr)
        self.assertNotIn("\x1b", done.stderr)
        for mode in ("none", "plain"):
            done = self.lunark("backup", "files", self.path("src"), "--to", self.path("store"), "--progress", mode)
            self.assertEqual(1, done.stderr.count(" read, "), done.stderr)  # of the closing line


class Order(Case):
    """--scripts, LUNARK_PATH, XDG_CONFIG_HOME, /etc/lunark, the embedded ones; never the current directory."""

    def policy(self, where, name="files"):
        self.write(f"{where}/policies/{name}.lua", POLICY.format(name=name, where=os.path.basename(where)))
        return self.path(where)

    def winner(self, *args, env=None, prefix=()):
        """Where `lunark scripts` says that policies/files.lua is from, and who ran."""
        def run(*words):
            done = subprocess.run([*prefix, LUNARK, *words], env=environment(**(env or {})), cwd=self.path("cwd"),
                                  capture_output=True, text=True, check=False)
            self.assertEqual(0, done.returncode, done.stderr)
            return done.stdout
        said = {s["name"]: s for s in json.loads(run("scripts", "--json", *args))["scripts"]}["policies/files.lua"]
        self.assertEqual(said["origin"] != "embedded", said["replaces"])
        dumped = run("scripts", "--dump", "policies/files.lua", *args)
        summary = re.search(r'summary = "(?:from )?(.*?)"', dumped).group(1)
        self.assertIn(summary, run("backup", "--help", *args))
        return said["origin"], summary

    def test_each_comes_before_the_next(self):
        self.policy("cwd")
        self.write("cwd/lunark/cli.lua", "error('the current directory was searched')")
        one, two = self.policy("one"), self.policy("two")
        path, late = self.policy("path"), self.policy("late")
        self.policy("config/lunark")
        home = self.policy("home/.config/lunark")
        env = {"LUNARK_PATH": f"{path}:{late}", "XDG_CONFIG_HOME": self.path("config"), "HOME": self.path("home")}

        def origin(folder):
            return folder + "/policies/files.lua"
        self.assertEqual((origin(one), "one"), self.winner("--scripts", one, "--scripts", two, env=env))
        self.assertEqual((origin(two), "two"), self.winner("--scripts", two, "--scripts", one, env=env))
        self.assertEqual((origin(path), "path"), self.winner(env=env))
        env["LUNARK_PATH"] = self.path("none") + ":" + late
        self.assertEqual((origin(late), "late"), self.winner(env=env))
        del env["LUNARK_PATH"]
        self.assertEqual((origin(self.path("config/lunark")), "lunark"), self.winner(env=env))
        del env["XDG_CONFIG_HOME"]
        self.assertEqual(origin(home), self.winner(env=env)[0])
        self.assertEqual(("embedded", "directories and files as one archive"), self.winner())
        for nothing in (".", "", ":", "./", "policies", ".:."):
            self.assertEqual("embedded", self.winner(env={"LUNARK_PATH": nothing, "XDG_CONFIG_HOME": "."})[0], nothing)

    @unittest.skipUnless(os.geteuid() == 0, "needs root: its own /etc")
    def test_of_the_host(self):
        self.policy("etc")
        config = self.policy("config/lunark")
        with tempfile.TemporaryDirectory(dir=self.dir) as upper:
            subprocess.run(["cp", "-a", "/etc/.", upper], check=True)
            os.makedirs(upper + "/lunark/policies")
            with open(upper + "/lunark/policies/files.lua", "w", encoding="ascii") as file:
                file.write(POLICY.format(name="files", where="etc"))
            os.mkdir(self.path("cwd"))
            prefix = ["unshare", "--mount", "sh", "-c", f'mount --bind "{upper}" /etc && exec "$@"', "sh"]
            if subprocess.run([*prefix, "true"], check=False, capture_output=True).returncode != 0:
                self.skipTest("a mount of one's own can't be made here")
            self.assertEqual(("/etc/lunark/policies/files.lua", "etc"), self.winner(prefix=prefix))
            self.assertEqual(config + "/policies/files.lua",
                             self.winner(prefix=prefix, env={"XDG_CONFIG_HOME": self.path("config")})[0])


if __name__ == "__main__":
    main()
