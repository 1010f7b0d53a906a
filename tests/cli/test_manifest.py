# SPDX-License-Identifier: MIT
"""Manifests: the schema in docs/ is theirs, and fields that nobody knows are ignored and left alone."""
import json
import os
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
import manifests  # noqa: E402
from harness import BUILD, ROOT, Case, environment, main  # noqa: E402

# Records with everything that a manifest may say, and with as little as can be.
ENCODE = """
local manifest = require "lunark.manifest"
local sys = require "lunark.core.sys"
local least = {
  item = "db", key = "db/db-2020-06-16T123257Z", time = 1592310777, started = 1592310777.5, ended = 1592310800,
  run = "r1", kind = "stream", suffix = "", size = 0, sha256 = ("0"):rep(64),
}
local most = {}
for name, value in pairs(least) do most[name] = value end
for name, value in pairs {
  policy = "p", raw_size = 20, parts = 1, details = { database = "neo4j", list = { 1, 2 } }, unreadable = 1,
  kind = "program", suffix = ".dump.gz", key = "db/db-2020-06-16T123257Z.dump.gz",
  producers = {
    { command = { "pg_dump", "--password", sys.secret("hunter2hunter2") }, code = 0, seconds = 1.5 },
    { command = { "a\\xff" }, signal = 9, seconds = 0 }, { command = {} },
  },
  archive = { files = 1, directories = 0, links = 0, others = 0, bytes = 9, members = 1 },
  warnings = { { path = "a\\xff", kind = "changed", message = "it changed" }, { message = "alone" } }, warning_count = 7,
  failures = { { item = "x", kind = "network", code = 3, message = "m" }, { kind = "io", message = "m" } },
} do most[name] = value end
print(manifest.encode(least))
for _, checked in ipairs { true, false } do print("--", manifest.encode(most, checked)) end
"""


class Manifests(Case):
    def valid(self, found):
        errors = manifests.validate(found)
        if errors is None:
            self.skipTest("jsonschema is not here: tests/support/tools.sh")
        return errors

    def encoded(self):
        script = self.write("encode.lua", ENCODE)
        text = subprocess.check_output([os.path.join(BUILD, "luarun"), script], cwd=ROOT, env=environment(), text=True)
        return [json.loads(part) for part in text.split("--\t")]

    def test_all_that_can_be_written_is_valid(self):
        found = self.encoded()
        self.assertEqual(3, len(found))
        self.assertEqual([[]] * 3, self.valid(found))
        with open(manifests.SCHEMA, encoding="utf-8") as file:
            schema = json.load(file)
        named = set(schema["properties"])
        self.assertEqual(named, {name for one in found for name in one}, "the schema knows each field, and no other")
        self.assertEqual(set(schema["required"]), set(found[0]), "what is always there is required")

    def test_what_is_not_valid(self):
        (least, *_) = self.encoded()
        for change in ({"sha256": "abc"}, {"size": -1}, {"size": "1"}, {"lunark_manifest": 2}, {"time": "yesterday"}, {"kind": "x"},
                       {"key": "no folder"}, {"producers": [{}]}, {"warnings": {}}, {"checked": "yes"}, {"parts": 0}):
            self.assertNotEqual([[]], self.valid([{**least, **change}]), change)
        for name in least:
            self.assertNotEqual([[]], self.valid([{key: value for key, value in least.items() if key != name}]), name)

    def test_unknown_fields_are_ignored_and_left_alone(self):
        self.write("src/file", "content")
        store = self.path("store")
        for _ in range(2):
            self.lunark("backup", "files", self.path("src"), "--to", store, "--name", "x")
            time.sleep(1.1)  # the name has whole seconds
        kept = {}
        for name in os.listdir(os.path.join(store, "x")):
            if name.endswith(".manifest.json"):
                path = os.path.join(store, "x", name)
                with open(path, encoding="utf-8") as file:
                    found = json.load(file)
                found.update({"new": {"a": [], "b": None, "c": 12345678901234567890, "d": [1, {}]}, "also new": "ü"})
                found["archive"]["new"] = 1
                self.assertEqual([[]], self.valid([found]))
                with open(path, "w", encoding="utf-8") as file:
                    json.dump(found, file, ensure_ascii=False, indent=1)
                with open(path, "rb") as file:
                    kept[path] = file.read()
        self.assertEqual(2, len(kept))
        self.assertIn("ok", self.lunark("list", store).stdout)
        self.lunark("verify", store)
        self.lunark("restore", "--from", store, "--item", "x", "--into", self.path("out"))
        self.lunark("prune", store, "--keep-last", "2", "--yes")
        self.lunark("backup", "files", self.path("src"), "--to", store, "--name", "x")
        for path, text in kept.items():
            with open(path, "rb") as file:
                self.assertEqual(text, file.read())


if __name__ == "__main__":
    main()
