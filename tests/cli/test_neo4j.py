# SPDX-License-Identifier: MIT
"""lunark backup neo4j with Neo4j 4.x, against a stand-in that keeps the documented contract of neo4j-admin backup."""
import json
import os
import re
import shutil
import signal
import sys
import tarfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
from harness import main  # noqa: E402
from neo4j_case import Neo4jCase, refusing_port  # noqa: E402


class Stored(Neo4jCase):
    def test_two_databases(self):
        self.backup()
        self.assertEqual([f"{d}/{d}-{rest}" for d in ("neo4j", "system") for rest in
                          ("TIME.manifest.json", "TIME.report.tar.gz", "TIME.tar.gz", "latest.tar.gz")], self.objects())
        for database in ("neo4j", "system"):
            (archive,) = self.archives(database)
            self.assertRegex(os.path.basename(archive), rf"^{database}-\d{{4}}-\d\d-\d\d-\d\d:\d\d:\d\d\.tar\.gz$")
            base = f"backups/{database}"
            expected = {base, *(f"{base}/{n}" for n in (".hidden", "database_lock", "neostore", "nested.err.1", "tools"))}
            if database != "system":
                expected.add(f"{base}/tools/metadata_script.cypher")
            self.assertEqual(expected, set(self.names(archive)))
            manifest = self.manifest(archive)
            self.assertEqual([0], [p["code"] for p in manifest["producers"]])
            self.assertEqual(["neo4j-admin", "backup"], manifest["producers"][0]["command"][:2])
            self.assertEqual({"database": database, "method": "backup", "neo4j_version": "4.4.10", "recovered": True},
                             manifest["details"])
        self.assertEqual([], os.listdir(self.work), "the work folder is left empty")

    def test_the_restore_container_reads_it(self):
        self.backup(database="neo4j")
        os.mkdir(self.path("restore"))
        os.system(f"cd {self.path('restore')} && tar --force-local --overwrite -zxvf "
                  f"{self.store}/neo4j/neo4j-latest.tar.gz > /dev/null")
        self.assertEqual(100000, os.path.getsize(self.path("restore/backups/neo4j/neostore")))

    def test_report(self):
        self.backup(database="system", NEO4J_TEST_STATUS="3")
        (report,) = [p for p in os.listdir(self.store + "/system") if ".report." in p and p[0] != "."]
        with tarfile.open(f"{self.store}/system/{report}") as tar:
            self.assertEqual({"backups/.report_system", "backups/.report_system/backup.log",
                              "backups/.report_system/inconsistencies-2026.report"}, set(tar.getnames()))
            said = tar.extractfile("backups/.report_system/backup.log").read().decode()
        self.assertIn("Starting backup of database 'system'", said)
        self.assertIn("Inconsistencies found", said, "what went to standard error, too")
        listed = self.lunark("list", self.store).stdout
        self.assertNotIn("report", listed)

    def test_one_time_and_any_number_at_once(self):
        for options, width in ((("--parallel", "4"), 4), (("--jobs", "4"), 4), (("--jobs", "4", "--parallel", "1"), 1),
                               ((), 1)):
            with self.subTest(options):
                self.backup(*options, database="a,b,c,system", NEO4J_TEST_TOGETHER=self.path("together"))
                with open(self.path("together"), encoding="utf-8") as file:
                    self.assertEqual(width, max(int(line) for line in file), "runs of neo4j-admin at once")
                os.unlink(self.path("together"))
                self.assertEqual(["a", "b", "c", "system"], sorted(self.databases()))
                self.assertEqual(16, len(self.objects()))
                shutil.rmtree(self.store)
                os.unlink(self.log)

    def test_lines_of_the_log(self):
        done = self.backup("--log-format", "json", "--log-to", "stdout")
        lines = [json.loads(line) for line in done.stdout.splitlines()]
        said = [line for line in lines if "Starting backup of database" in line["message"]]
        self.assertEqual([("neo4j", "INFO"), ("system", "INFO")], [(s["item"], s["severity"]) for s in said])
        self.assertTrue(all(line["run"] and line["time"] for line in lines))
        self.assertEqual("", done.stderr)

    def test_peak_of_the_work_directory(self):
        size = 30_000_000
        child = self.start(*self.args(database="neo4j,system"), env=self.env(NEO4J_TEST_BYTES=str(size)))
        peak = 0
        while child.poll() is None:
            now = 0
            for folder, _, files in os.walk(self.work):
                for name in files:
                    try:
                        now += os.lstat(os.path.join(folder, name)).st_size
                    except FileNotFoundError:
                        pass
            peak = max(peak, now)
            time.sleep(0.01)
        self.assertEqual(0, child.returncode, child.communicate())
        self.assertGreaterEqual(peak, size)
        self.assertLess(peak, size + 100_000, "the store folder of one database and no archive")


class Asked(Neo4jCase):
    """What neo4j-admin is asked for."""

    def argv(self, *more, database="neo4j", **env):
        self.backup(*more, database=database, address=env.pop("address", "db.example.com"), **env)
        return self.calls()[-1]["argv"]

    def options(self, *more, **env):
        """Options by name."""
        return dict(re.match(r"--([^=]+)=?(.*)", a).groups() for a in self.argv(*more, **env)[1:])

    def test_whole_command_line(self):
        argv = self.argv()
        folder = argv[2].split("=")[1]
        self.assertTrue(folder.startswith(self.work + "/"), folder)
        self.assertEqual(
            ["backup", "--from=db.example.com:6362", f"--backup-dir={folder}", "--database=neo4j",
             "--fallback-to-full=true", "--check-consistency=true", f"--report-dir={folder}/.report_neo4j",
             "--check-graph=true", "--check-indexes=true", "--check-label-scan-store=true",
             "--check-property-owners=false", "--verbose"], argv)
        self.assertIsNone(self.calls()[0]["heap"])

    def test_whole_command_line_of_the_chart(self):
        self.lunark("backup", "neo4j", "--to", self.store, "--backup-dir", self.path("backups"), "--work-dir", self.work,
                    env=self.env(NEO4J_ADDR="my-neo4j:6362", DATABASE="neo4j", HEAP_SIZE="2G", PAGE_CACHE="2G",
                                 FALLBACK_TO_FULL="true", CHECK_CONSISTENCY="true", CHECK_INDEXES="true",
                                 CHECK_GRAPH="true", CHECK_LABEL_SCAN_STORE="true", CHECK_PROPERTY_OWNERS="false",
                                 REMOVE_EXISTING_FILES="true", REMOVE_BACKUP_FILES="true"))
        (call,) = self.calls()
        base = self.path("backups")
        self.assertEqual(
            ["backup", "--from=my-neo4j:6362", f"--backup-dir={base}", "--database=neo4j", "--pagecache=2G",
             "--fallback-to-full=true", "--check-consistency=true", f"--report-dir={base}/.report_neo4j",
             "--check-graph=true", "--check-indexes=true", "--check-label-scan-store=true",
             "--check-property-owners=false", "--verbose"], call["argv"])
        self.assertEqual("2G", call["heap"])
        self.assertEqual([], self.left(base))

    def test_all_options_in_their_order(self):
        config = self.write("extra.conf", "")
        argv = self.argv("--include-metadata", "users", "--prepare-restore=false", "--parallel-recovery",
                         "--additional-config", config, "--check-index-structure=true", "--expand-commands",
                         "--report-dir", self.path("reports"), "--pagecache", "4g", "--heap-size", "512m")
        folder = argv[2].split("=")[1]
        self.assertEqual(
            ["backup", "--from=db.example.com:6362", f"--backup-dir={folder}", "--database=neo4j", "--pagecache=4g",
             "--fallback-to-full=true", "--check-consistency=false", f"--report-dir={self.path('reports')}/.report_neo4j",
             "--check-graph=true", "--check-indexes=true", "--check-index-structure=true",
             "--check-label-scan-store=true", "--check-property-owners=false", "--include-metadata=users",
             "--prepare-restore=false", "--parallel-recovery=true", f"--additional-config={config}", "--expand-commands",
             "--verbose"], argv)
        self.assertEqual("512m", self.calls()[0]["heap"])
        self.assertFalse(self.manifest(self.archives("neo4j")[0])["details"]["recovered"])
        self.assertTrue(os.path.exists(self.path("reports/.report_neo4j/backup.log")), "a folder of one's own is kept")

    def test_each_variable(self):
        for name, option in (("FALLBACK_TO_FULL", "fallback-to-full"), ("CHECK_CONSISTENCY", "check-consistency"),
                             ("CHECK_INDEXES", "check-indexes"), ("CHECK_GRAPH", "check-graph"),
                             ("CHECK_LABEL_SCAN_STORE", "check-label-scan-store"),
                             ("CHECK_PROPERTY_OWNERS", "check-property-owners")):
            for value in ("true", "false"):
                with self.subTest(name=name, value=value):
                    self.assertEqual(value, self.options(**{name: value})[option])
        self.assertEqual("3G", self.options(PAGE_CACHE="3G")["pagecache"])
        self.assertNotIn("pagecache", self.options(PAGE_CACHE="", HEAP_SIZE=""))
        self.assertIn(self.calls()[-1]["heap"], (None, ""))
        self.options(HEAP_SIZE="300M")
        self.assertEqual("300M", self.calls()[-1]["heap"])
        self.lunark("backup", "neo4j", "--to", self.store, "--work-dir", self.work,
                    env=self.env(NEO4J_ADDR="other:7000", DATABASE="a, b"))
        self.assertEqual(["a", "b"], self.databases()[-2:])
        self.assertIn("--from=other:7000", self.calls()[-1]["argv"])

    def test_flag_before_environment(self):
        self.assertEqual("true", self.options("--check-graph", CHECK_GRAPH="false")["check-graph"])
        self.assertEqual("false", self.options("--no-check-graph", CHECK_GRAPH="true")["check-graph"])

    def test_deprecated(self):
        done = self.backup("--check-property-owners", "--check-label-scan-store=false")
        self.assertIn("--check-label-scan-store, --check-property-owners: deprecated", done.stderr)
        self.assertNotIn("deprecated", self.backup().stderr)

    def test_no_metadata_of_system(self):
        self.backup("--include-metadata", "users")
        self.assertEqual([True, False], ["--include-metadata=users" in c["argv"] for c in self.calls()])

    def test_addresses(self):
        for given, expected in (("host", "host:6362"), ("host:1", "host:1"), ("::1", "[::1]:6362"), ("[::1]", "[::1]:6362"),
                                ("[::1]:7", "[::1]:7"), ("10.0.0.1", "10.0.0.1:6362")):
            self.assertEqual(expected, self.options(address=given)["from"])

    def test_from_is_address(self):
        self.lunark("backup", "neo4j", "--from", "one:1,two", "--database", "neo4j", "--to", self.store, "--work-dir", self.work,
                    env=self.env(NEO4J_ADDR="other"))
        self.assertIn("--from=one:1", self.calls()[0]["argv"], "a flag comes before the environment")

    def test_names(self):
        self.backup(database="Neo4j, system ,,neo4j,backup,backup_test")
        self.assertEqual(["neo4j", "system", "backup", "backup_test"], self.databases())
        self.assertIn("backups/backup/neostore", self.names(self.archives("backup")[0]))
        self.backup("--databases", "x,y", database="w")
        self.assertEqual(["w", "x", "y"], self.databases()[4:])


class Refused(Neo4jCase):
    """What ends with 2 before anything is touched."""

    def refused(self, message, *args, **env):
        failed = self.lunark(*args, status=2, env=self.env(**env))
        self.assertIn(message, failed.stderr)
        self.assertEqual([], self.calls())
        self.assertFalse(os.path.exists(self.store))
        return failed.stderr

    def test_missing(self):
        message = self.refused("--database is missing", "backup", "neo4j", "--to", self.store)
        self.assertIn("DATABASE", message)
        message = self.refused("--address is missing", "backup", "neo4j", "--to", self.store, DATABASE="neo4j")
        self.assertIn("NEO4J_ADDR", message)

    def test_names(self):
        for name in ("../x", "a/b", "a b", "-x", ".x"):
            self.refused("is no name of a database", *self.args(f"--databases={name}"))

    def test_addresses(self):
        for address in ("http://host:6362", "host:port", "host:0", "host:65536", "a b", "[::1", "host/x", "a:b:g"):
            self.refused(f"--address '{address}' is no address", *self.args(address=address))

    def test_sizes(self):
        self.refused("--heap-size: '2 GB' is no size", *self.args("--heap-size", "2 GB"))
        self.refused("--pagecache: 'much' is no size", *self.args(), PAGE_CACHE="much")

    def test_booleans(self):
        self.refused("CHECK_GRAPH: 'maybe'", *self.args(), CHECK_GRAPH="maybe")

    def test_version(self):
        for version in ("3.5.35", "neo4j-admin 3.5.8"):
            self.refused("neo4j-admin is of Neo4j 3.5", *self.args(), NEO4J_TEST_VERSION=version)
        self.refused("3.5", *self.args("--neo4j-version", "3.5"))
        self.refused("is no version", *self.args("--neo4j-version", "new"))
        self.assertIn("--neo4j-version 4.4", self.refused("a version expected", *self.args(), NEO4J_TEST_VERSION="new"))
        failed = self.refused("exited with code 1", *self.args(), NEO4J_TEST_VERSION_STATUS="1")
        self.assertIn("--neo4j-version 4.4", failed)

    def test_a_version_that_is_given_is_not_asked_for(self):
        self.backup("--neo4j-version", "4.3", NEO4J_TEST_VERSION_STATUS="1")
        self.assertEqual("4.3", self.manifest(self.archives("neo4j")[0])["details"]["neo4j_version"])
        self.backup("--neo4j-version", "5.26", database="system", NEO4J_TEST_VERSION="5.26.0", NEO4J_TEST_VERSION_STATUS="1")
        self.assertEqual(["database", "backup"], self.calls()[-1]["argv"][:2])

    def test_no_neo4j_admin(self):
        failed = self.lunark(*self.args(), env={"PATH": "/nowhere"}, status=2)
        self.assertIn("program 'neo4j-admin' not found", failed.stderr)
        self.assertIn("PATH", failed.stderr)

    def test_of_another_version(self):
        self.refused("--type is of Neo4j 5", *self.args("--type", "FULL"))
        self.refused("--include-metadata none is of Neo4j 5", *self.args("--include-metadata", "none"))

    def test_kept_files_need_a_folder(self):
        for name in ("REMOVE_EXISTING_FILES", "REMOVE_BACKUP_FILES"):
            self.assertIn("--backup-dir", self.refused("only in a folder of their own", *self.args(), **{name: "false"}))
        self.refused("a folder expected", *self.args("--backup-dir", self.write("file")))


class Failed(Neo4jCase):
    def test_one_fails_and_the_other_is_stored(self):
        failed = self.backup("--json", NEO4J_TEST_STATUS="neo4j=1", NEO4J_TEST_PARTIAL="1", status=1)
        (failure,) = json.loads(failed.stdout)["failures"]
        self.assertEqual(["exit", "neo4j", 1], [failure[k] for k in ("kind", "item", "code")])
        self.assertEqual([], self.archives("neo4j"))
        self.assertEqual(1, len(self.archives("system")))
        self.assertRegex(failed.stderr, "lunark: neo4j: neo4j-admin ended with status 1: .*was refused")
        (noted,) = self.manifest(self.archives("system")[0])["failures"]
        self.assertEqual(("neo4j", "exit", 1, failure["message"]), tuple(noted[k] for k in ("item", "kind", "code", "message")))
        self.assertEqual([], os.listdir(self.work))

    def test_each_status_of_a_run_is_in_the_manifests(self):
        other = self.path("other")
        self.backup("--to", other, database="a,b,c,d,system", NEO4J_TEST_STATUS="b=1,c=3,d=70", NEO4J_TEST_PARTIAL="1", status=1)
        for database, code in (("a", 0), ("c", 3), ("system", 0)):
            (archive,) = self.archives(database)
            for store in (self.store, other):
                manifest = self.manifest(archive.replace(self.store, store))
                self.assertEqual([code], [p["code"] for p in manifest["producers"]])
                self.assertEqual([("b", 1), ("d", 70)], [(f["item"], f["code"]) for f in manifest["failures"]])
        self.lunark("restore", "--from", self.store, "--item", "a", "--into", self.path("into"))
        self.backup("--to", other)
        self.assertNotIn("failures", self.manifest(self.archives("neo4j")[0]))

    def test_a_failure_that_can_not_be_noted(self):
        pidfile = self.path("pid")
        child = self.start(*self.args(database="a,b,system"), text=True,
                           env=self.env(NEO4J_TEST_STATUS="system=1", NEO4J_TEST_PIDFILE=pidfile))
        for line in child.stderr:
            if "stored a/" in line:
                break
        (archive,) = self.archives("a")
        manifest = archive.replace(".tar.gz", ".manifest.json")
        os.unlink(manifest)
        self.write(os.path.join(manifest, "in/the/way"))
        said = child.stderr.read()
        self.assertEqual(1, child.wait(30))
        self.assertIn("does not name what else failed in this run", said)
        self.assertIn("failures", self.manifest(self.archives("b")[0]))

    def test_each_status(self):
        for code in (4, 64, 70, 127, 255):
            failed = self.backup(database="neo4j", NEO4J_TEST_STATUS=str(code), NEO4J_TEST_PARTIAL="1", status=1)
            self.assertIn(f"ended with status {code}", failed.stderr)
        self.assertEqual([], self.archives("neo4j"))

    def test_consistency_check_is_a_warning(self):
        for code, message in ((2, "could not run"), (3, "found inconsistencies")):
            done = self.backup("--json", NEO4J_TEST_STATUS=f"neo4j={code}")
            self.assertRegex(done.stderr, f"warn .*{message}")
            manifest = self.manifest(self.archives("neo4j")[-1])
            self.assertEqual([code], [p["code"] for p in manifest["producers"]])
            self.assertIn(message, manifest["warnings"][0]["message"])
            said = json.loads(done.stdout)
            self.assertEqual([[code], [0]], [[p["code"] for p in item["producers"]] for item in said["items"]])
            self.assertEqual([1, 0], [item["warnings"] for item in said["items"]])
            self.assertRegex(done.stderr, r"2 of 2 stored, 0 failures, [12] warnings")
        self.backup("--strict", database="neo4j", NEO4J_TEST_STATUS="3", status=5)

    def test_killed(self):
        failed = self.backup(database="neo4j", NEO4J_TEST_STATUS="-9", NEO4J_TEST_PARTIAL="1", status=1)
        self.assertRegex(failed.stderr, "ended by signal 9")
        self.assertIn("want of memory", failed.stderr)
        failed = self.backup(database="neo4j", NEO4J_TEST_STATUS="137", NEO4J_TEST_PARTIAL="1", status=1)
        self.assertIn("want of memory", failed.stderr)
        self.assertEqual([], self.archives("neo4j"))

    def test_out_of_heap(self):
        failed = self.backup(database="neo4j", NEO4J_TEST_NOMEMORY="1", status=1)
        self.assertIn("OutOfMemoryError: Java heap space", failed.stderr)
        self.assertIn("--heap-size", failed.stderr)
        failed = self.backup(database="neo4j", NEO4J_TEST_NOMEMORY="exit", status=1)
        self.assertRegex(failed.stderr, "ended with status 3: .*Terminating due to")
        self.assertEqual([], self.archives("neo4j"), "3 of Java is not the 3 of inconsistencies")

    def test_success_without_a_backup(self):
        for code in (0, 2, 3):
            failed = self.backup(database="neo4j", NEO4J_TEST_EMPTY="1", NEO4J_TEST_STATUS=str(code), status=1)
            self.assertIn("left no backup of neo4j", failed.stderr)
        self.assertEqual([], self.archives("neo4j"))

    def test_silence_is_no_failure(self):
        done = self.backup("--progress", "plain", database="neo4j", NEO4J_TEST_SILENT="1", NEO4J_TEST_SLEEP="32")
        self.assertEqual(1, len(self.archives("neo4j")))
        (line,) = [line for line in done.stderr.splitlines() if "still waiting" in line]
        self.assertIn("neo4j: still waiting for neo4j-admin, 30 s", line)

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
        self.assertIn("ended from outside: what was under way is not done", str(err))
        with open(pidfile, encoding="utf-8") as file:
            self.assertFalse(os.path.exists("/proc/" + file.read()))
        self.assertEqual([], os.listdir(self.work))
        self.assertFalse(self.archives("neo4j"))

    def test_each_other_end(self):
        """Status of the run, and neo4j-admin is over with it."""
        pidfile = self.path("pid")
        for number, options, status in ((signal.SIGINT, (), 130), (None, ("--timeout", "2s"), 124)):
            child = self.start(*self.args(*options), env=self.env(NEO4J_TEST_SLEEP="60", NEO4J_TEST_PIDFILE=pidfile))
            deadline = time.monotonic() + 20
            while not (os.path.exists(pidfile) and os.path.getsize(pidfile)) and time.monotonic() < deadline:
                time.sleep(0.05)
            if number:
                child.send_signal(number)
            _, err = child.communicate(timeout=40)
            self.assertEqual(status, child.returncode, err)
            with open(pidfile, encoding="utf-8") as file:
                self.assertFalse(os.path.exists("/proc/" + file.read()))
            os.unlink(pidfile)
            self.assertEqual([], os.listdir(self.work))
            self.assertEqual([], self.objects())

    def test_unreachable(self):
        address = f"127.0.0.1:{refusing_port()}"
        failed = self.backup(address=address, NEO4J_TEST_REFUSE=address, status=3)
        for text in (f"{address} can't be reached: connection refused", "dbms.backup.enabled",
                     "dbms.backup.listen_address", f"so that {address} answers"):
            self.assertIn(text, failed.stderr)
        self.assertEqual(2, len(self.calls()), "each database is tried")
        self.assertEqual([], self.objects())

    def test_reached_and_failed(self):
        failed = self.backup(NEO4J_TEST_REFUSE=self.address, status=1)
        self.assertIn("neo4j-admin ended with status 1", failed.stderr)

    def test_addresses_in_turn(self):
        address = f"127.0.0.1:{refusing_port()}"
        done = self.backup(address=f"{address}, {self.address}", NEO4J_TEST_REFUSE=address)
        self.assertEqual([address, self.address, self.address], [c["argv"][1].split("=")[1] for c in self.calls()])
        self.assertIn("the next address is tried", done.stderr)
        self.assertEqual(1, len(self.archives("system")))


if __name__ == "__main__":
    main()
