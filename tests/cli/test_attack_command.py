# SPDX-License-Identifier: MIT
"""The command in clumsy hands: bad values, broken scripts, policies and providers. Each ends with a message that
names what is wrong, the status that the guide promises, and nothing in the store."""
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
from harness import Case, main  # noqa: E402


class Values(Case):
    def setUp(self):
        super().setUp()
        self.file = self.write("data/a", "a")
        self.store = self.path("store")

    def refused(self, *args, says, status=2, to=None):
        result = self.lunark("backup", "files", self.path("data"), "--to", to or self.store, *args, status=status)
        self.assertIn(says, result.stderr)
        self.assertNotIn("called at", result.stderr, "a place in our own scripts says nothing to a user")
        self.assertFalse(os.path.exists(self.store), "something was touched")

    def test_numbers_out_of_range(self):
        self.refused("--jobs", "0", says="--jobs: '0' is not what is expected: at least 1")
        self.refused("--jobs", "1025", says="--jobs: '1025' is not what is expected: at most 1024")
        self.refused("--limit-rate", "0", says="--limit-rate: '0' is not what is expected: at least 1")
        self.refused("--memory", "1", says="--memory: '1' is not what is expected")
        self.refused("--expect-size", "9" * 30, says="--expect-size")
        self.refused("--compress", "13", says="--compress 13: fast, balanced")
        self.refused("--compress", "%s%n", says="--compress %s%n: fast")

    def test_a_work_folder_that_is_none(self):
        self.refused("--work-dir", "", says="--work-dir is empty")
        self.refused("--work-dir", self.file, says=f"{self.file}: not a directory")
        self.refused("--work-dir", self.file + "/below", says=f"{self.file}: not a directory")

    def test_names_are_checked_before_a_store_is_touched(self):
        for name in ("", "a/b", "..", "a\nb", "x" * 121):
            self.refused("--name", name, says="name")

    def test_a_store_is_given_once(self):
        os.makedirs(self.path("real"))
        os.symlink("real", self.path("link"))
        result = self.lunark("backup", "files", self.path("data"), "--to", self.path("real"), "--to",
                             self.path("link"), status=2)
        self.assertIn("link is the same store as", result.stderr)
        self.assertEqual([], os.listdir(self.path("real")))

    def test_a_message_names_its_item(self):
        self.write("scripts/policies/p.lua", 'return require "lunark.policy" { api = 1, name = "p", summary = "s", '
                   'backup = function(job) job:fail("x", "text") end }')
        result = self.lunark("backup", "--scripts", self.path("scripts"), "p", "--to", self.store, status=1)
        self.assertIn("lunark: x: text\n", result.stderr)


class Scripts(Case):
    def run_script(self, text, status, says=""):
        result = self.lunark("run", self.write("s.lua", text), status=status)
        self.assertIn(says, result.stderr)
        self.assertNotIn("0x", result.stderr, "an address says nothing to a user")

    def test_what_a_script_returns(self):
        self.run_script("return 7", 7)
        self.run_script("return", 0)
        self.run_script("return 256", 1, "s.lua returned 256, an exit status from 0 to 255 expected")
        self.run_script("return -1", 1, "s.lua returned -1")
        self.run_script('return nil, "no more tapes"', 1, "lunark: no more tapes")
        self.run_script('return require "lunark.store".open("")', 2, "the store's URL is empty")

    def test_what_a_script_raises(self):
        self.run_script('error("plain", 0)', 1, "lunark: plain")
        self.run_script("error({})", 1, "a value of type table was raised")
        self.run_script("error()", 1, "a value of type nil was raised")
        self.run_script("error(setmetatable({}, { __tostring = function() return 'mine' end }))", 1, "lunark: mine")
        self.run_script("error(setmetatable({}, { __tostring = function() error('x') end }))", 1, "of type table")
        self.run_script("local function f() return f() + 1 end f()", 1, "stack overflow")

    def test_a_script_that_is_none(self):
        result = self.lunark("run", "", status=2)
        self.assertIn("script '' can't be read", result.stderr)
        self.lunark("run", self.dir, status=2)
        self.run_script("x y", 2, "s.lua:1: syntax error")


class Policies(Case):
    def refused(self, fields, says, status=2):
        self.write("scripts/policies/p.lua", 'return require "lunark.policy" { api = 1, name = "p", summary = "s", '
                   f"{fields} }}")
        result = self.lunark("backup", "--scripts", self.path("scripts"), "p", "--to", self.path("store"), status=status)
        self.assertIn(says, result.stderr)
        self.assertNotIn("attempt to", result.stderr, "our own code broke over it")
        self.assertEqual([], [f for _, _, files in os.walk(self.path("store")) for f in files])

    def test_a_contract_with_errors(self):
        none = "backup = function() end"
        self.refused(f'options = {{ x = {{ "nope" }} }}, {none}', "policy p: option 'x'")
        self.refused(f'options = {{ x = {{ "string", nope = 1 }} }}, {none}', "policy p: option 'x': unknown key 'nope'")
        self.refused(f'options = {{ to = {{ "string" }} }}, {none}', "option 'to' is one of the command's own")
        self.refused(f'options = {{ json = {{ "string" }} }}, {none}', "option 'json' is one of the command's own")
        self.refused(f"check = function() return nil end, {none}", "policy p: its check gives no reason")

    def test_a_backup_with_errors(self):
        for call, says in (('job:save("x", { stream = 3 })', "stream must be a stream, found a number"),
                           ('job:save("x", { paths = "/x" })', "paths must be a list, found a string"),
                           ('job:save("x", { program = "true" })', "program must be a list, found a string"),
                           ('job:fail("x")', "job:fail: an error expected"),
                           ("job:warn()", "job:warn: a string expected")):
            self.refused(f"backup = function(job) {call} end", says)
        self.refused('backup = function(job) error({}) end', "a value of type table was raised", status=1)


class Providers(Case):
    def refused(self, body, says):
        self.write("data/a", "a")
        self.write("scripts/providers/v.lua", 'return { api = 1, name = "v", schemes = { "v" }, open = function() '
                   f"{body} end }}")
        result = self.lunark("backup", "--scripts", self.path("scripts"), "files", self.path("data"), "--to", "v://x/y",
                             status=2)
        self.assertIn(says, result.stderr)
        self.assertNotIn("attempt to", result.stderr, "our own code broke over it")

    def test_a_store_with_errors(self):
        store = ("return {{ put = function() return {put} end, get = function() return {get} end, "
                 "head = function() return {head} end, list = function() return {list} end, "
                 "delete = function() return {{}} end }}")
        self.refused("", "provider v: open returned nil and no error")
        self.refused('return nil, "text"', "provider v: open returned nil and no error")
        self.refused(store.format(put="{}", get="3", head="4", list="7"), "provider v: list returned a number")
        self.refused(store.format(put="{}", get="3", head="4", list="{ 5 }"), "a table about an object expected")
        self.refused(store.format(put="{}", get="3", head="4", list="{}"), "expected, found a number")


if __name__ == "__main__":
    main()
