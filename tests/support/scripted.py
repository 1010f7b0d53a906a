# SPDX-License-Identifier: MIT
"""Cases of a Lua program against a scripted server (faulty.py), alone or in front of a real one."""
import json
import os
import re
import subprocess
import tempfile
import time
import unittest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
LUARUN = os.path.join(ROOT, "build", os.environ.get("LUNARK_TEST_BUILD", "release"), "luarun")
SERVER = os.path.join(ROOT, "tests", "support", "server")
UNAVAILABLE = 77


class Scripted(unittest.TestCase):
    program = None   # Lua file below the root; prints what became of a case as its last line, JSON
    upstream = None  # server that answers what no step does

    def run_case(self, case, steps, upstream=True, env=None):
        """(what became of it, the requests that were seen). `env` reaches the program alone."""
        with tempfile.TemporaryDirectory(prefix="lunark-scripted-") as scratch:
            script, log = os.path.join(scratch, "script.json"), os.path.join(scratch, "log")
            with open(script, "w", encoding="utf-8") as file:
                json.dump(steps, file)
            argv = [SERVER, "faulty", "--script", script]
            if upstream:
                argv += ["--upstream", upstream if isinstance(upstream, str) else self.upstream]
            words = [f"{name}={value}" for name, value in (env or {}).items()]
            # The log goes with the server: it is copied while that runs.
            command = f'env "$@" "{LUARUN}" {self.program} {case}; s=$?; cp "$LUNARK_TEST_HTTP_LOG" "{log}"; exit $s'
            began = time.monotonic()
            child = subprocess.run([*argv, "--", "sh", "-c", command, "case", *words], cwd=ROOT,
                                   stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                   timeout=120, check=False)
            self.seconds, self.stderr = time.monotonic() - began, child.stderr.decode()
            if child.returncode == UNAVAILABLE:
                raise unittest.SkipTest(self.stderr)
            text = child.stdout.decode()
            self.assertEqual(child.returncode, 0, text + self.stderr)
            with open(log, encoding="utf-8") as lines:
                return json.loads(text.strip().splitlines()[-1]), [json.loads(line) for line in lines]

    @staticmethod
    def matching(seen, method, pattern=""):
        return [one for one in seen if one["method"] == method and re.search(pattern, one["path"])]

    @staticmethod
    def header(request, name):
        return {n.lower(): v for n, v in request["headers"]}.get(name)
