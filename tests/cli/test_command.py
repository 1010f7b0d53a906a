# SPDX-License-Identifier: MIT
"""The command itself: help, versions, scripts and what they are allowed."""
import glob
import os
import pty
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
from harness import LUNARK, ROOT, Case, environment, main  # noqa: E402


class Command(Case):
    def test_version_and_help(self):
        self.assertRegex(self.lunark("--version").stdout, r"^lunark \d+\.\d+\.\d+\n$")
        self.assertIn("Commands:", self.lunark("--help").stdout)
        for command in ("backup", "restore", "list", "run", "scripts"):
            text = self.lunark(command, "--help").stdout
            self.assertTrue(text.startswith(f"Usage: lunark {command} "), text)
            self.assertIn("--log-format text|json", text)
        text = self.lunark("backup", "files", "-h").stdout
        self.assertIn("--exclude PATTERN", text)
        self.assertIn("--to URL", text)

    def test_what_is_no_command(self):
        self.assertIn("a command is missing", self.lunark(status=2).stderr)
        failed = self.lunark("bakup", status=2)
        self.assertEqual("lunark: there is no command 'bakup'\nhint: there are: backup, restore, list, verify, prune, run, scripts\n",
                         failed.stderr)

    def test_scripts(self):
        text = self.lunark("scripts").stdout
        for name in ("policies/files.lua", "policies/neo4j.lua", "providers/s3.lua", "lunark/cli.lua"):
            self.assertRegex(text, f"(?m)^{name} +embedded$")
        with open(os.path.join(ROOT, "scripts", "policies", "files.lua"), encoding="utf-8") as file:
            self.assertEqual(file.read(), self.lunark("scripts", "--dump", "policies/files.lua").stdout)
        failed = self.lunark("scripts", "--dump", "policies/none.lua", status=2)
        self.assertIn("there is no script 'policies/none.lua'", failed.stderr)

    def test_a_policy_of_ones_own(self):
        self.write("mine/policies/hello.lua", """
local policy = require "lunark.policy"
return policy {
  api = 1, name = "hello", summary = "says hello",
  needs = { exec = { "echo" } },
  options = { word = { "string", required = true, help = "what to say" } },
  backup = function(job)
    job:save("hello", { program = { "echo", job.options.word }, suffix = ".txt" })
  end,
}
""")
        scripts = ["--scripts", self.path("mine")]
        self.assertIn("says hello", self.lunark("backup", "--help", *scripts).stdout)
        self.assertIn("--word WORD", self.lunark("backup", "hello", "-h", *scripts).stdout)
        self.assertIn("--word WORD", self.lunark("backup", "hello", "-h", "--scripts=mine", cwd=self.path()).stdout)
        for none in ("", self.path("none")):
            self.assertIn(f"--scripts {none}: there is no such folder",
                          self.lunark("backup", "hello", "--scripts", none, status=2).stderr)
        self.lunark("backup", "hello", "--word", "you", "--to", self.path("store"), *scripts)
        (stored,) = glob.glob(self.path("store/hello/hello-2*.txt.gz"))
        self.assertEqual(b"you\n", subprocess.run(["gzip", "-dc", stored], check=True, capture_output=True).stdout)
        self.assertIn("there is no policy 'hello'",
                      self.lunark("backup", "hello", "--to", self.path("store"), status=2).stderr)

    def test_a_policy_that_replaces_the_embedded_one(self):
        self.write("mine/policies/files.lua", """
return require "lunark.policy" {
  api = 1, name = "files", summary = "not what you think", backup = function(job)
    job:save("other", { stream = require("lunark.stream").of("x") })
  end,
}
""")
        text = self.lunark("scripts", "--scripts", self.path("mine")).stdout
        self.assertRegex(text, f"policies/files.lua +{self.path('mine')}/policies/files.lua .replaces")
        self.lunark("backup", "files", "--to", self.path("store"), "--scripts", self.path("mine"))
        self.assertTrue(glob.glob(self.path("store/other/other-2*.gz")))
        env = {"LUNARK_PATH": self.path("mine")}
        self.assertIn("Not what you think", self.lunark("backup", "files", "--help", env=env).stdout)

    def test_a_policy_that_is_wrong(self):
        for text, message in (
                ("return 1", "it returns a number, policy{...} expected"),
                ("return {", "bad.lua:1"),
                ("return require 'lunark.policy' { api = 1, name = 'bad' }", "the field summary is missing"),
                ("error('oh no')", "oh no")):
            self.write("mine/policies/bad.lua", text)
            failed = self.lunark("backup", "bad", "--to", self.path("store"), "--scripts", self.path("mine"), status=2)
            self.assertIn(message, failed.stderr)

    def test_run(self):
        script = self.write("s.lua", "print(arg[0]:match('[^/]*$'), ...)\nreturn 7\n")
        done = self.lunark("run", script, "--scripts", "none", "--help", status=7)
        self.assertEqual("s.lua\t--scripts\tnone\t--help\n", done.stdout)
        done = self.lunark("run", script, "a", "--json", "-h", status=7)
        self.assertEqual("s.lua\ta\t--json\t-h\n", done.stdout)
        self.assertIn("can't be read", self.lunark("run", self.path("none.lua"), status=2).stderr)
        script = self.write("e.lua", "error('broken')")
        self.assertIn("e.lua:1: broken", self.lunark("run", script, status=1).stderr)
        script = self.write("syntax.lua", "x = = 1")
        self.assertIn("syntax.lua:1", self.lunark("run", script, status=2).stderr)

    def test_a_script_as_a_program(self):
        script = self.write("prog", f"#!{LUNARK} run\nprint('as a program', arg[1])\n", 0o755)
        done = subprocess.run([script, "x"], env=environment(), capture_output=True, text=True, check=True)
        self.assertEqual("as a program\tx\n", done.stdout)

    def test_what_a_script_may_do(self):
        script = self.write("s.lua", "local exec = require 'lunark.exec'\nassert(exec.run { 'true' })\n")
        failed = self.lunark("run", script, status=2)
        self.assertIn("true", failed.stderr)
        self.assertIn("--allow exec=true", failed.stderr)
        self.lunark("run", "--allow", "exec=true", script)
        self.lunark("run", "--allow", "exec=*", script)
        self.lunark("run", "--allow", "exec=false", script, status=2)
        needing = self.write("n.lua", "needs { exec = { 'true' } }\n" + open(script, encoding="utf-8").read())
        self.assertIn("hint: add --allow exec=true, or --allow declared", self.lunark("run", needing, status=2).stderr)
        self.lunark("run", "--allow", "declared", needing)

    def test_a_script_grants_itself_nothing(self):
        for grant in ("require('lunark.core.sys').allow('exec', '*')",
                      "needs { exec = { '*' } }",
                      "pcall(require('lunark.core.sys').allow, 'exec', '*')"):
            script = self.write("s.lua", f"{grant}\nassert(require('lunark.exec').run {{ 'true' }})\n")
            self.lunark("run", script, status=2)
        script = self.write("io.lua", "assert(io == nil and os.execute == nil and debug == nil and dofile == nil)\n"
                            "assert(os.exit == nil and package == nil and string.dump == nil)\n")
        self.lunark("run", script)

    def test_bar_on_a_terminal(self):
        tree = self.path("data")
        os.makedirs(tree)
        with open(tree + "/x", "wb") as file:
            file.write(os.urandom(3 << 20))
        outer, inner = pty.openpty()
        child = subprocess.Popen([LUNARK, "backup", "files", tree, "--to", self.path("store"), "--limit-rate", "1500K"],
                                 env=environment(TERM="xterm"), stdin=subprocess.DEVNULL, stdout=inner, stderr=inner)
        os.close(inner)
        seen = b""
        try:
            while True:
                try:
                    data = os.read(outer, 4096)
                except OSError:
                    break
                if not data:
                    break
                seen += data
            self.assertEqual(0, child.wait(30), seen)
        finally:
            if child.poll() is None:
                child.kill()
                child.wait()
            os.close(outer)
        text = seen.decode()
        self.assertRegex(text, r"\[#+\.*\] +\d+% data: \S+ \S+ read of ")
        self.assertIn("stored", text)


class Words(Case):
    """What people mistype, and what must never be shown."""

    def setUp(self):
        super().setUp()
        self.write("src/a", "x")

    def test_a_secret_in_a_url_is_refused_and_not_shown(self):
        for url in ("s3://bucket/p?secret_key=hUsHhUsH", "s3://AKIA:hUsHhUsH@bucket/p"):
            for args in (["backup", "files", self.path("src"), "--to", url], ["list", url],
                         ["restore", "--from", url, "--into", self.path("into")]):
                for more in ([], ["--json"], ["--log-format", "json", "--log-level", "debug"]):
                    done = self.lunark(*args, *more, status=2)
                    self.assertNotIn("hUsHhUsH", done.stdout + done.stderr)

    def test_folders_whose_parents_are_missing_are_made(self):
        self.lunark("backup", "files", self.path("src"), "--to", self.path("a/b/store"), "--work-dir", self.path("c/d/w"))
        self.lunark("restore", "--from", self.path("a/b/store"), "--into", self.path("e/f/into"))
        self.assertTrue(os.path.exists(self.path("e/f/into") + self.path("src/a")))

    def test_control_characters_do_not_reach_the_terminal(self):
        done = self.lunark("backup", "files", self.path("src"), "--to", self.path("st"), "--name", "a\n\x1b[2J", status=2)
        self.assertNotIn("\x1b", done.stderr)
        self.assertEqual(2, len(done.stderr.splitlines()))

    def test_a_store_that_is_not_there_is_3(self):
        self.lunark("list", self.path("nowhere"), status=3)
        self.lunark("restore", "--from", self.path("nowhere"), "--into", self.path("into"), status=3)
        self.assertFalse(os.path.exists(self.path("into")))

    def test_too_little_memory(self):
        done = self.lunark("list", self.path("st"), "--memory", "1", status=2)
        self.assertIn("--memory", done.stderr)


if __name__ == "__main__":
    main()
