# SPDX-License-Identifier: MIT
"""The library as others load it: a host in C, a host that loads it at run time, a plain lua5.4, an installed tree."""
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
from harness import BUILD, LUNARK, ROOT  # noqa: E402

LIBRARY = os.path.join(BUILD, "liblunark.so.0")


def output(*argv, **options):
    return subprocess.run(argv, check=True, capture_output=True, text=True, timeout=120, **options).stdout


class Host(unittest.TestCase):
    def test_host_in_c(self):
        text = output(os.path.join(BUILD, "host"))
        self.assertIn("log: level 1: hello world", text)
        records = [json.loads(line[10:]) for line in text.splitlines() if line.startswith("progress: ")]
        self.assertIn({"step": 3, "of": 3}, records)
        self.assertIn("result: done", text)
        self.assertIn("cleaned up", text)
        self.assertIn("cancelled: cancelled: cancelled by the host", text)

    def test_only_the_interface_is_visible(self):
        symbols = re.findall(r" [A-Z] (\S+)", output("nm", "-D", "--defined-only", LIBRARY))
        with open(os.path.join(ROOT, "runtime", "lunark.h"), encoding="utf-8") as header:
            declared = set(re.findall(r"\b(lunark_[a-z_]+)\(", header.read()))
        self.assertEqual(set(symbols), declared | {"luaopen_lunark"})
        self.assertIn("liblunark.so.0", output("readelf", "-d", LIBRARY))

    def test_a_host_that_loads_it_at_run_time(self):
        # RTLD_LOCAL, as ctypes does it: modules of Lua in C must find liblua all the same.
        script = f"""
import ctypes
library = ctypes.CDLL({LIBRARY!r})
library.lunark_new.restype = ctypes.c_void_p
library.lunark_result.restype = ctypes.c_char_p
for name in ("lunark_allow", "lunark_run_string", "lunark_result", "lunark_free"):
    getattr(library, name).argtypes = [ctypes.c_void_p] + [ctypes.c_char_p] * {{
        "lunark_allow": 3, "lunark_run_string": 4, "lunark_result": 0, "lunark_free": 0}}[name]
runtime = library.lunark_new(None, None)
assert library.lunark_allow(runtime, b"posix", b"*", None) == 0
source = b"return require('cjson').encode({{require('posix.unistd').getpid()}})"
assert library.lunark_run_string(runtime, b"x", source, None, None) == 0
print(library.lunark_result(runtime).decode())
library.lunark_free(runtime)
"""
        self.assertRegex(output(sys.executable, "-c", script), r"^\[\d+\]\n$")

    def test_the_header_is_c_and_cpp(self):
        source = '#include "lunark.h"\nint main(void) { return lunark_version()[0] == 0; }\n'
        for compiler, suffix in (("gcc", "c"), ("g++", "cc")):
            if shutil.which(compiler) is None:
                self.skipTest(f"skipped: no {compiler}")
            with tempfile.TemporaryDirectory() as scratch:
                path = os.path.join(scratch, "x." + suffix)
                with open(path, "w", encoding="utf-8") as file:
                    file.write(source)
                output(compiler, "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-fsyntax-only",
                       "-I", os.path.join(ROOT, "runtime"), path)


class Install(unittest.TestCase):
    def test_an_installed_tree(self):
        with tempfile.TemporaryDirectory() as scratch:
            prefix = os.path.join(scratch, "usr")
            output("make", "-s", "install", f"PREFIX={prefix}", cwd=ROOT)
            version = output(LUNARK, "--version")
            self.assertEqual(output(os.path.join(prefix, "bin", "lunark"), "--version"), version)
            self.assertIn("backup", output(os.path.join(prefix, "bin", "lunark"), "--help"))
            path = dict(os.environ, PKG_CONFIG_PATH=os.path.join(prefix, "lib", "pkgconfig"))
            flags = output("pkg-config", "--cflags", "--libs", "lunark", env=path).split()
            binary = os.path.join(scratch, "host")
            with open(os.path.join(ROOT, "tests", "unit", "host.c"), encoding="utf-8") as file:
                source = file.read().replace('"../../runtime/lunark.h"', "<lunark.h>")
            code = os.path.join(scratch, "host.c")
            with open(code, "w", encoding="utf-8") as file:
                file.write(source)
            output("cc", "-o", binary, code, *flags, "-pthread")
            path["LD_LIBRARY_PATH"] = os.path.join(prefix, "lib")
            self.assertIn("result: done", output(binary, env=path))


class Module(unittest.TestCase):
    SCRIPT = """
local lunark = require "lunark"
local task = require "lunark.task"
assert(lunark.exec.run({ "echo", "from a program" }).stdout == "from a program\\n")
local results = task.map({ 1, 2, 3 }, 3, function(i) task.sleep(0.05) return i * 2 end)
assert(table.concat(results, ",") == "2,4,6")
local _, err = task.timeout(0.05, task.sleep, 60)
assert(err.kind == "timeout")
local stream = lunark.core.stream.of("abc")
assert(lunark.crypto.hex(lunark.crypto.digest("sha256", "abc"))
  == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad")
assert(stream:read_all() == "abc")
print(lunark.version)
"""

    def test_a_plain_lua(self):
        lua = shutil.which("lua5.4") or self.skipTest("skipped: no lua5.4")
        output("make", "-s", "rock", cwd=ROOT)
        module = os.path.join(ROOT, "build", "release", "rock")
        self.assertNotIn("liblua", output("ldd", os.path.join(module, "lunark.so")))
        environment = dict(os.environ, LUA_CPATH_5_4=os.path.join(module, "?.so") + ";;")
        self.assertEqual("lunark " + output(lua, "-e", self.SCRIPT, env=environment), output(LUNARK, "--version"))


if __name__ == "__main__":
    unittest.main()
