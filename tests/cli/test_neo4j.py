# SPDX-License-Identifier: MIT
"""lunark backup neo4j, against a stand-in that keeps the documented contract of neo4j-admin backup."""
import glob
import json
import os
import signal
import sys
import tarfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
from harness import ROOT, Case, environment, load_json, main  # noqa: E402


class Neo4j(Case):
    def setUp(self):
        super().setUp()
        os.mkdir(self.path("bin"))
        os.symlink(os.path.join(ROOT, "tests", "support", "neo4j-admin"), self.path("bin", "neo4j-admin"))
        self.store, self.work, self.log = self.path("store"), self.path("work"), self.path("log")

    def args(self, *more, database="neo4j,system"):
        return ["backup", "neo4j", "--address", "db.example.com", "--database", database, "--to", self.store,
                "--work-dir", self.work, *more]

    def env(self, **more):
        return {"PATH": self.path("bin") + ":" + environment()["PATH"], "NEO4J_TEST_LOG": self.log, **more}

    def backup(self, *more, status=0, database="neo4j,system", **env):
        return self.lunark(*self.args(*more, database=database), status=status, env=self.env(**env))

    def calls(self):
        with open(self.log, encoding="utf-8") as file:
            return [json.loads(line) for line in file]

    def archives(self, database):
        return sorted(glob.glob(f"{self.store}/{database}/{database}-2*.tar.gz"))

    def test_two_databases(self):
        self.backup()
        for database in ("neo4j", "system"):
            (archive,) = self.archives(database)
            self.assertRegex(os.path.basename(archive), rf"^{database}-\d{{4}}-\d\d-\d\d-\d\d:\d\d:\d\d\.tar\.gz$")
            self.assertTrue(os.path.exists(f"{self.store}/{database}/{database}-latest.tar.gz"))
            with tarfile.open(archive) as tar:
                self.assertIn(f"backups/{database}/neostore", tar.getnames())
            manifest = load_json(archive.replace(".tar.gz", ".manifest.json"))
            self.assertEqual([0], [p["code"] for p in manifest["producers"]])
            self.assertEqual(["neo4j-admin", "backup"], manifest["producers"][0]["command"][:2])
        stamps = {os.path.basename(self.archives(d)[0])[len(d):] for d in ("neo4j", "system")}
        self.assertEqual(1, len(stamps), "one time for all items of a run")
        self.assertEqual([], os.listdir(self.work), "the work folder is left empty")

    def test_command_line(self):
        self.backup(database="neo4j")
        (call,) = self.calls()
        argv = call["argv"]
        folder = argv[2].split("=")[1]
        self.assertTrue(folder.startswith(self.work + "/"), folder)
        self.assertEqual(
            ["backup", "--from=db.example.com:6362", f"--backup-dir={folder}", "--database=neo4j", "--pagecache=2G",
             "--fallback-to-full=true", "--check-consistency=true", f"--report-dir={folder}/.report_neo4j",
             "--check-graph=true", "--check-indexes=true", "--check-label-scan-store=true",
             "--check-property-owners=false", "--verbose"], argv)
        self.assertEqual("2G", call["heap"])

    def test_options_from_the_environment(self):
        self.lunark("backup", "neo4j", "--to", self.store, "--work-dir", self.work,
                    env=self.env(NEO4J_ADDR="other:7000", DATABASE="a, b", HEAP_SIZE="1G", CHECK_GRAPH="false"))
        calls = self.calls()
        self.assertEqual(["--database=a", "--database=b"], [c["argv"][3] for c in calls])
        self.assertIn("--from=other:7000", calls[0]["argv"])
        self.assertIn("--check-graph=false", calls[0]["argv"])
        self.assertEqual("1G", calls[0]["heap"])

    def test_a_fresh_folder_each_time(self):
        self.backup()
        self.backup()
        self.assertTrue(all("neo4j" not in call["found"] for call in self.calls() if "--database=neo4j" in call["argv"]))

    def test_one_fails_and_the_other_is_stored(self):
        failed = self.backup(NEO4J_TEST_STATUS="neo4j=1", NEO4J_TEST_PARTIAL="1", status=1)
        self.assertEqual([], self.archives("neo4j"))
        self.assertEqual(1, len(self.archives("system")))
        self.assertRegex(failed.stderr, "neo4j.*refused|refused.*neo4j")
        self.assertEqual([], os.listdir(self.work))

    def test_failure_leaves_latest_alone(self):
        self.backup(database="neo4j")
        latest = self.store + "/neo4j/neo4j-latest.tar.gz"
        with open(latest, "rb") as file:
            before = file.read()
        self.backup(database="neo4j", NEO4J_TEST_STATUS="1", NEO4J_TEST_PARTIAL="1", status=1)
        with open(latest, "rb") as file:
            self.assertEqual(before, file.read())
        self.assertEqual(1, len(self.archives("neo4j")))

    def test_consistency_check_is_a_warning(self):
        for code, message in ((2, "could not run"), (3, "found inconsistencies")):
            done = self.backup(database="neo4j", NEO4J_TEST_STATUS=str(code))
            self.assertIn(message, done.stderr)
            manifest = load_json(self.archives("neo4j")[-1].replace(".tar.gz", ".manifest.json"))
            self.assertEqual([code], [p["code"] for p in manifest["producers"]])
            self.assertIn(message, manifest["warnings"][0]["message"])
        self.backup("--strict", database="neo4j", NEO4J_TEST_STATUS="3", status=5)

    def test_killed(self):
        failed = self.backup(database="neo4j", NEO4J_TEST_STATUS="-9", NEO4J_TEST_PARTIAL="1", status=1)
        self.assertRegex(failed.stderr, "(?i)signal|killed")
        self.assertEqual([], self.archives("neo4j"))

    def test_success_without_a_backup(self):
        failed = self.backup(database="neo4j", NEO4J_TEST_EMPTY="1", status=1)
        self.assertIn("left no backup of neo4j", failed.stderr)
        self.assertEqual([], self.archives("neo4j"))

    def test_no_neo4j_admin(self):
        failed = self.lunark(*self.args(), env={"PATH": "/nowhere"}, status=1)
        self.assertIn("neo4j-admin", failed.stderr)

    def test_wrong_database_names(self):
        for name in ("*", "../x", "-x"):
            failed = self.backup("--database=" + name, status=2)
            self.assertIn("is no name of a database", failed.stderr)
        self.assertFalse(os.path.exists(self.log))
        failed = self.lunark("backup", "neo4j", "--to", self.store, status=2)
        self.assertIn("--address is missing", failed.stderr)
        self.assertIn("NEO4J_ADDR", failed.stderr)

    def test_term_ends_neo4j_admin(self):
        pidfile = self.path("pid")
        child = self.start(*self.args(database="neo4j"), env=self.env(NEO4J_TEST_SLEEP="60", NEO4J_TEST_PIDFILE=pidfile))
        for _ in range(200):
            if os.path.exists(pidfile) and os.path.getsize(pidfile):
                break
            time.sleep(0.05)
        child.send_signal(signal.SIGTERM)
        out, err = child.communicate(timeout=30)
        self.assertEqual(143, child.returncode, (out, err))
        with open(pidfile, encoding="utf-8") as file:
            self.assertFalse(os.path.exists("/proc/" + file.read()))
        self.assertEqual([], os.listdir(self.work))
        self.assertFalse(self.archives("neo4j"))


if __name__ == "__main__":
    main()
