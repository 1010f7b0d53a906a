# SPDX-License-Identifier: MIT
"""lunark backup neo4j with Neo4j 5 and later, and dumps, against the stand-in for neo4j-admin."""
import gzip
import json
import os
import random
import re
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
from harness import main  # noqa: E402
from neo4j_case import Neo4jCase, refusing_port  # noqa: E402

ARTIFACT = r"-\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d\.backup"


class Five(Neo4jCase):
    version = "5.26.0"

    def files(self, database, number=-1):
        """Files in an archive of a database."""
        return sorted(self.names(self.archives(database)[number]))

    def test_two_databases(self):
        self.backup()
        self.assertEqual([f"{d}/{d}-{rest}" for d in ("neo4j", "system") for rest in
                          ("TIME.manifest.json", "TIME.report.tar.gz", "TIME.tar.gz", "latest.tar.gz")], self.objects())
        (name,) = self.files("neo4j")
        self.assertRegex(name, "^backups/neo4j/neo4j" + ARTIFACT + "$")
        self.assertEqual({"database": "neo4j", "method": "backup", "neo4j_version": "5.26.0",
                          "chain": [os.path.basename(name)]}, self.manifest(self.archives("neo4j")[0])["details"])
        self.assertEqual([], os.listdir(self.work))

    def test_whole_command_line(self):
        self.backup(database="neo4j", address="db.example.com")
        argv = self.calls()[0]["argv"]
        self.assertEqual(["database", "backup", "--from=db.example.com:6362", "--include-metadata=all",
                          "--keep-failed=false", "--parallel-recovery=false", "--type=AUTO", argv[7], "--verbose", "neo4j"],
                         argv)
        self.assertRegex(argv[7], f"^--to-path={self.work}/lunark-[0-9a-f]+/backups$")

    def test_all_options(self):
        config = self.write("extra.conf", "")
        self.backup("--type", "FULL", "--include-metadata", "none", "--keep-failed", "--parallel-recovery", "--pagecache",
                    "1g", "--heap-size", "2g", "--additional-config", config, "--expand-commands", "--no-verbose",
                    "--backup-dir", self.path("b"), database="neo4j", address="h1:1")
        self.assertEqual(["database", "backup", "--from=h1:1", "--include-metadata=none", "--keep-failed=true",
                          "--parallel-recovery=true", "--type=FULL", f"--to-path={self.path('b')}", "--pagecache=1g",
                          f"--additional-config={config}", "--expand-commands", "neo4j"], self.calls()[0]["argv"])
        self.assertEqual("2g", self.calls()[0]["heap"])

    def test_variables_of_the_chart(self):
        self.lunark("backup", "neo4j", "--to", self.store, "--work-dir", self.work,
                    env=self.env(NEO4J_ADDR="h", DATABASE="neo4j,system", HEAP_SIZE="2G", PAGE_CACHE="2G",
                                 FALLBACK_TO_FULL="true", CHECK_CONSISTENCY="true", CHECK_GRAPH="true"))
        self.assertEqual(["neo4j", "system"], [c["argv"][-1] for c in self.calls()])

    def test_options_of_4(self):
        for option in ("--check-index-structure", "--prepare-restore=false"):
            failed = self.backup(option, status=2)
            self.assertIn("is of Neo4j 4, this is neo4j-admin 5.26.0", failed.stderr)

    def test_a_chain(self):
        base = self.path("backups")
        keep = ("--backup-dir", base, "--remove-existing-files=false", "--remove-backup-files=false")
        for number in (1, 2, 3):
            self.backup(*keep)
            files = self.files("neo4j")
            self.assertEqual(number, len(files))
            self.assertEqual(files, [f"backups/neo4j/{n}" for n in sorted(os.listdir(base)) if n.startswith("neo4j")])
            self.assertTrue(all(re.search("neo4j" + ARTIFACT, f) for f in files), "of this database alone")
        self.backup(*keep, "--type", "FULL")
        self.assertEqual(1, len(self.files("neo4j")), "a full one is a chain by itself")
        self.backup(*keep)
        self.assertEqual(2, len(self.files("neo4j")))
        self.assertEqual(5, len([n for n in os.listdir(base) if n.startswith("neo4j")]))
        latest = self.names(f"{self.store}/neo4j/neo4j-latest.tar.gz")
        self.assertEqual(self.files("neo4j"), sorted(latest), "latest alone restores")

    def test_a_chain_with_each_release(self):
        inspect = ["backup", "inspect", "--database=neo4j", "--latest-chain", "--empty"]
        for version, expected in (("5.24.2", ["database", "backup"]), ("5.26.0", [*inspect, "--show-metadata"]),
                                  ("2025.06.0", [*inspect, "--show-metadata"]), ("2025.07.0", inspect),
                                  ("2026.01.1", inspect)):
            self.version = version
            keep = ("--backup-dir", self.path(version), "--remove-existing-files=false", "--remove-backup-files=false")
            for kind, number in (("AUTO", 1), ("AUTO", 2), ("FULL", 1), ("AUTO", 2), ("DIFF", 3)):
                self.backup(*keep, "--type", kind, database="neo4j")
                self.assertEqual(number, len(self.files("neo4j")), (version, kind))
            tail = f"--inspect-path={self.path(version)}" if version == "5.24.2" else self.path(version)
            self.assertEqual([*expected, tail], self.calls()[-1]["argv"])
            self.backup(*keep, database="neo4j", NEO4J_TEST_IDLE="1")
            self.assertEqual(3, len(self.files("neo4j")), "an empty artifact holds nothing")
            self.backup(*keep, database="neo4j")
            self.assertEqual(4, len(self.files("neo4j")))

    def test_diff_without_full(self):
        failed = self.backup("--type", "DIFF", database="neo4j", status=2)
        self.assertIn("continues one that is kept", failed.stderr)
        failed = self.backup("--type", "DIFF", "--backup-dir", self.path("b"), "--remove-existing-files=false",
                             database="neo4j", status=1)
        self.assertIn("can't be continued", failed.stderr)

    def test_databases_whose_names_begin_alike(self):
        self.backup(database="neo4j,neo4j-2024,backup", NEO4J_TEST_DATABASES="neo4j,neo4j-2024,backup")
        for database in ("neo4j", "neo4j-2024", "backup"):
            (name,) = self.files(database)
            self.assertRegex(name, f"^backups/{database}/{database}{ARTIFACT}$")

    def test_pattern(self):
        done = self.backup("--json", database="*", NEO4J_TEST_DATABASES="neo4j,system,backup_test,a-b")
        self.assertEqual(["*", "a-b", "backup_test", "neo4j", "system"],
                         [c["argv"][-1] for c in self.calls() if "--from" in str(c)], "each again, by its name")
        self.assertEqual([[0]] * 4, [[p["code"] for p in i["producers"]] for i in json.loads(done.stdout)["items"]])
        self.assertEqual(16, len(self.objects()))
        self.assertEqual(2, len(self.files("neo4j")), "what the pattern fetched, and what was new since")
        (report,) = [n for n in os.listdir(self.store + "/a-b") if ".report." in n and n[0] != "."]
        self.assertIn("backups/.report_a-b/backup.log", self.names(f"{self.store}/a-b/{report}"))
        self.assertRegex(self.files("backup_test")[0], "^backups/backup_test/backup_test" + ARTIFACT)

    def test_pattern_with_a_failure(self):
        failed = self.backup(database="*", NEO4J_TEST_STATUS="neo4j=1", NEO4J_TEST_DATABASES="neo4j,system,x", status=1)
        self.assertEqual(["*", "system", "x"], [c["argv"][-1] for c in self.calls() if "--from" in str(c)])
        self.assertEqual([0, 1, 1], [len(self.archives(d)) for d in ("neo4j", "system", "x")])
        self.assertEqual(2, len(self.files("x")), "what the pattern fetched, and what was added by name")
        self.assertIn("*: neo4j-admin ended with status 1", failed.stderr)

    def test_what_a_pattern_fetched_is_not_fetched_again(self):
        for kind in ("FULL", "AUTO"):
            self.backup("--type", kind, database="neo*", NEO4J_TEST_DATABASES="neo4j", NEO4J_TEST_IDLE="1")
            kinds = [[a for a in c["argv"] if "--type" in a] for c in self.calls() if "--from" in str(c)]
            self.assertEqual([[f"--type={kind}"], ["--type=AUTO"]], kinds[-2:])
            self.assertEqual(1, len(self.files("neo4j")), "nothing was new")

    def test_a_pattern_and_its_second_run(self):
        failed = self.backup(database="neo4j,*", NEO4J_TEST_DATABASES="neo4j,system,x", NEO4J_TEST_AGAIN="x=1", status=1)
        self.assertIn("x: neo4j-admin ended with status 1", failed.stderr)
        self.assertEqual([1, 1, 0], [len(self.archives(d)) for d in ("neo4j", "system", "x")])
        self.assertEqual(["*", "neo4j", "system", "x"], [c["argv"][-1] for c in self.calls() if "--from" in str(c)])

    def test_success_without_an_artifact(self):
        failed = self.backup(database="neo4j", NEO4J_TEST_EMPTY="1", status=1)
        self.assertIn("left no backup of neo4j", failed.stderr)
        keep = ("--backup-dir", self.path("b"), "--remove-existing-files=false", "--remove-backup-files=false")
        self.backup(*keep, database="neo4j")
        failed = self.backup(*keep, database="neo4j", NEO4J_TEST_EMPTY="1", status=1)
        self.assertIn("what is there is of an earlier run", failed.stderr)
        self.assertEqual(1, len(self.archives("neo4j")))

    def test_failed_with_an_artifact(self):
        for code in (1, 2, 3, 70):
            self.backup(database="neo4j", NEO4J_TEST_STATUS=str(code), NEO4J_TEST_PARTIAL="1", status=1)
        self.assertEqual([], self.archives("neo4j"))

    def test_unreachable(self):
        address = f"127.0.0.1:{refusing_port()}"
        failed = self.backup(address=address, NEO4J_TEST_REFUSE=address, status=3)
        self.assertIn("server.backup.listen_address", failed.stderr)
        self.backup(address=f"{address},{self.address}", NEO4J_TEST_REFUSE=address)

    def test_community(self):
        failed = self.backup(NEO4J_TEST_COMMUNITY="1", status=1)
        self.assertIn("--method dump", failed.stderr)


class Dumps(Neo4jCase):
    def check(self, version, *expected):
        self.version = version
        args = ["backup", "neo4j", "--method", "dump", "--database", "neo4j,system", "--to", self.store]
        done = self.lunark(*args, env=self.env(HEAP_SIZE="1g"))
        for database in ("neo4j", "system"):
            (archive,) = self.archives(database, ".dump.gz")
            with gzip.open(archive) as file:
                self.assertEqual(b"DZV1" + random.Random(database).randbytes(100000), file.read())
            manifest = self.manifest(archive)
            self.assertEqual({"database": database, "method": "dump", "neo4j_version": version}, manifest["details"])
            self.assertEqual(0, manifest["producers"][0]["code"])
        self.assertEqual([list(e) for e in expected], [c["argv"] for c in self.calls()])
        self.assertEqual({"1g"}, {c["heap"] for c in self.calls()})
        self.assertNotIn("root", done.stderr)
        self.assertEqual([f"{d}/{d}-{rest}" for d in ("neo4j", "system") for rest in
                          ("TIME.dump.gz", "TIME.manifest.json", "latest.dump.gz")], self.objects())

    def test_of_4(self):
        self.check("4.4.40", ("dump", "--database=neo4j", "--to=-"), ("dump", "--database=system", "--to=-"))

    def test_of_5(self):
        self.check("5.26.0", ("database", "dump", "--to-stdout", "neo4j"), ("database", "dump", "--to-stdout", "system"))

    def test_what_fails_is_not_stored(self):
        args = ["backup", "neo4j", "--method", "dump", "--database", "neo4j,system", "--verbose", "--to", self.store]
        failed = self.lunark(*args, status=1, env=self.env(NEO4J_TEST_STATUS="neo4j=1", NEO4J_TEST_PARTIAL="1"))
        self.assertRegex(failed.stderr, "lunark: .*The database is in use. Stop database 'neo4j'")
        self.assertEqual([], self.archives("neo4j", ".dump.gz"))
        (archive,) = self.archives("system", ".dump.gz")
        with gzip.open(archive) as file:
            self.assertEqual(b"DZV1", file.read(4), "nothing that --verbose says is in the dump")

    def test_killed_or_empty(self):
        args = ["backup", "neo4j", "--method", "dump", "--database", "neo4j", "--to", self.store]
        for settings, message in (({"NEO4J_TEST_STATUS": "-9"}, "killed by signal 9"), ({"NEO4J_TEST_EMPTY": "1"}, ""),
                                  ({"NEO4J_TEST_STATUS": "-15"}, "signal 15")):
            failed = self.lunark(*args, status=1, env=self.env(**settings))
            self.assertIn(message, failed.stderr)
            self.assertEqual([], self.objects())

    def test_a_dump_with_messages_in_it(self):
        args = ["backup", "neo4j", "--method", "dump", "--database", "neo4j,system", "--to", self.store]
        failed = self.lunark(*args, status=1, env=self.env(NEO4J_TEST_CHATTY="1"))
        self.assertIn("the output of 'neo4j-admin' is not what is expected: it begins with 'neo4j 4.4.10?DZV'",
                      failed.stderr)
        self.assertEqual([], self.objects())

    def test_refused(self):
        args = ["backup", "neo4j", "--method", "dump", "--to", self.store]
        failed = self.lunark(*args, "--database", "n*", status=2, env=self.env())
        self.assertIn("a dump takes databases by name", failed.stderr)
        failed = self.lunark(*args, "--database", "n", "--additional-config", "x", status=2, env=self.env())
        self.assertIn("--additional-config is not for a dump", failed.stderr)


if __name__ == "__main__":
    main()
