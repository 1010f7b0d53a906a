# SPDX-License-Identifier: MIT
"""lunark backup neo4j with 4.x where it went wrong before: patterns, kept folders, stores that fail, what is looked at
before a run. The rows of defects that users met in the scripts and charts this replaces, each as what is right."""
import json
import os
import shutil
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
from harness import LUNARK, environment, main  # noqa: E402
from neo4j_case import Neo4jCase  # noqa: E402


def content(path):
    with open(path, "rb") as file:
        return file.read()


class Patterns(Neo4jCase):
    def test_all(self):
        self.backup(database="*", NEO4J_TEST_DATABASES="neo4j,system,backup,movies.2024")
        self.assertEqual(["*", "backup", "movies.2024", "neo4j", "system"], self.databases())
        first, *rest = self.calls()
        self.assertIn("--check-consistency=false", first["argv"], "the first only fetches")
        self.assertTrue(all("--check-consistency=true" in c["argv"] for c in rest))
        self.assertEqual(16, len(self.objects()))
        self.assertNotIn("warn .*system", self.backup(database="*").stderr)

    def test_each_has_its_own_status(self):
        done = self.backup("--json", database="n*,system", NEO4J_TEST_DATABASES="neo4j,new,other,system",
                           NEO4J_TEST_STATUS="neo4j=3")
        self.assertEqual(["n*", "neo4j", "new", "system"], self.databases())
        self.assertEqual([3, 0], [self.manifest(self.archives(d)[0])["producers"][0]["code"] for d in ("neo4j", "new")])
        self.assertIn("found inconsistencies", done.stderr)

    def test_one_fails(self):
        failed = self.backup(database="*", NEO4J_TEST_STATUS="neo4j=1", NEO4J_TEST_PARTIAL="1", status=1)
        self.assertEqual([[], 1], [self.archives("neo4j"), len(self.archives("system"))])
        self.assertIn("*: neo4j-admin ended with status 1", failed.stderr)
        self.assertIn("lunark: neo4j: neo4j-admin ended with status 1", failed.stderr)

    def test_one_that_leaves_nothing_is_not_forgotten(self):
        self.backup(database="*", NEO4J_TEST_STATUS="neo4j=1", status=1)
        self.assertEqual(1, len(self.archives("system")))

    def test_none_matches(self):
        failed = self.backup(database="x*", NEO4J_TEST_DATABASES="neo4j", status=1)
        self.assertIn("Database 'x*' does not exist", failed.stderr)
        failed = self.backup(database="n*", NEO4J_TEST_EMPTY="1", status=1)
        self.assertIn("left no backup of n*", failed.stderr)

    def test_named_and_matched_is_stored_once(self):
        self.backup(database="neo4j,*")
        self.assertEqual(["*", "neo4j", "system"], self.databases())

    def test_question_mark(self):
        self.backup(database="db?", NEO4J_TEST_DATABASES="db1,db2,db10")
        self.assertEqual(["db?", "db1", "db2"], self.databases())


class Kept(Neo4jCase):
    KEEP = ("--remove-existing-files=false", "--remove-backup-files=false")

    def setUp(self):
        super().setUp()
        self.base = self.path("backups")

    def keep(self, *more, **how):
        return self.backup("--backup-dir", self.base, *self.KEEP, *more, **how)

    def test_incremental(self):
        self.keep()
        self.assertEqual(["neo4j", "system"], sorted(self.left(self.base)))
        done = self.keep()
        self.assertIn("Incremental backup of neo4j", done.stderr)
        self.assertEqual(2, len(self.archives("neo4j")))
        self.assertIn("backups/neo4j/neostore.transaction.db.0", self.names(self.archives("neo4j")[-1]))
        self.assertIn("backups/neo4j/neostore", self.names(self.archives("neo4j")[-1]))

    def test_variables(self):
        for _ in range(2):
            self.lunark(*self.args("--backup-dir", self.base),
                        env=self.env(REMOVE_EXISTING_FILES="false", REMOVE_BACKUP_FILES="false"))
        self.assertIn("neo4j", self.calls()[-1]["found"])
        self.lunark(*self.args("--backup-dir", self.base), env=self.env(REMOVE_BACKUP_FILES="false"))
        self.assertEqual([".report_neo4j"], self.calls()[-2]["found"])
        self.assertEqual(["neo4j", "system"], sorted(self.left(self.base)))
        self.lunark(*self.args("--backup-dir", self.base), env=self.env())
        self.assertEqual([], self.left(self.base))

    def test_fallback_to_full(self):
        self.keep(database="neo4j")
        self.keep("--keep-failed", database="neo4j", NEO4J_TEST_BROKEN="1")
        self.assertEqual(["neo4j", "neo4j.err.1"], sorted(self.left(self.base)))
        self.assertFalse([n for n in self.names(self.archives("neo4j")[-1]) if "neo4j.err" in n])
        self.keep(database="neo4j", NEO4J_TEST_BROKEN="1")
        self.assertEqual(["neo4j"], self.left(self.base), "what was set aside goes once a backup is stored")
        failed = self.keep(database="neo4j", NEO4J_TEST_BROKEN="1", FALLBACK_TO_FULL="false", status=1)
        self.assertIn("can't be continued", failed.stderr)

    def test_set_aside_stays_when_the_backup_fails(self):
        self.keep(database="neo4j")
        self.keep(database="neo4j", NEO4J_TEST_BROKEN="1", NEO4J_TEST_STATUS="1", NEO4J_TEST_PARTIAL="1", status=1)
        self.assertEqual(["neo4j", "neo4j.err.1"], sorted(self.left(self.base)))

    def test_a_stale_folder_is_no_backup(self):
        self.keep(database="neo4j")
        latest = content(self.store + "/neo4j/neo4j-latest.tar.gz")
        for code in (0, 1, 2, 3):
            failed = self.keep(database="neo4j", NEO4J_TEST_EMPTY="1", NEO4J_TEST_STATUS=str(code), status=1)
            if code != 1:
                self.assertIn("what is there is of an earlier run", failed.stderr)
        self.assertEqual(1, len(self.archives("neo4j")))
        self.assertEqual(latest, content(self.store + "/neo4j/neo4j-latest.tar.gz"))

    def test_a_database_that_is_gone_does_not_match(self):
        self.keep(database="*", NEO4J_TEST_DATABASES="neo4j,old")
        self.keep(database="*", NEO4J_TEST_DATABASES="neo4j")
        self.assertEqual([2, 1], [len(self.archives(d)) for d in ("neo4j", "old")])

    def test_clean_before_the_start_and_only_what_is_ours(self):
        for name in ("neo4j/old", "neo4j.err.3/x", ".report_neo4j/old", "other/x", "notes.txt", "neo4j.txt"):
            self.write("backups/" + name)
        self.backup("--backup-dir", self.base, database="neo4j")
        self.assertEqual([".report_neo4j"], [n for n in self.calls()[0]["found"] if "neo4j" in n and ".txt" not in n])
        self.assertNotIn("backups/neo4j/old", self.names(self.archives("neo4j")[0]))
        self.assertEqual(["neo4j.txt", "notes.txt", "other"], sorted(self.left(self.base)))

    def test_what_a_volume_has_by_itself_is_no_database(self):
        """A file system's own folder, which only root can remove."""
        self.write("backups/lost+found/x")
        os.chmod(self.base + "/lost+found", 0)
        plain = [] if os.getuid() else ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]
        for version in ("4.4.40", "5.26.0"):
            self.version = version
            done = subprocess.run([*plain, LUNARK, *self.args("--backup-dir", self.base, database="*")],
                                  env=environment(**self.env()), capture_output=True, text=True, timeout=60)
            self.assertEqual(0, done.returncode, done.stderr)
        os.chmod(self.base + "/lost+found", 0o700)
        self.assertEqual(["lost+found"], self.left(self.base))
        self.assertFalse(os.path.exists(self.store + "/lost+found"))

    def test_nothing_is_removed_before_the_options_are_checked(self):
        self.write("backups/neo4j/old")
        for bad in ({"CLOUD_PROVIDER": "moon", "BUCKET": "s3://x"}, {"CHECK_GRAPH": "maybe"}):
            args = [a for a in self.args("--backup-dir", self.base) if a not in ("--to", self.store)]
            if "CHECK_GRAPH" in bad:
                args += ["--to", self.store]
            self.lunark(*args, env=self.env(**bad), status=2)
            self.assertTrue(os.path.exists(self.base + "/neo4j/old"))
        self.assertEqual([], self.calls())


class Killed(Neo4jCase):
    def kill_while_it_waits(self, *more):
        pidfile = self.path("pid")
        child = self.start(*self.args(*more, database="neo4j"),
                           env=self.env(NEO4J_TEST_SLEEP="60", NEO4J_TEST_PIDFILE=pidfile))
        for _ in range(200):
            if os.path.exists(pidfile) and os.path.getsize(pidfile):
                break
            time.sleep(0.05)
        return child, int(content(pidfile))

    def test_what_a_killed_run_leaves_is_removed_by_the_next(self):
        child, admin = self.kill_while_it_waits()
        self.backup(database="system")
        self.assertEqual(1, len(os.listdir(self.work)), "of a run that goes on")
        child.kill()
        child.wait()
        os.kill(admin, 9)
        self.assertEqual(1, len(os.listdir(self.work)))
        self.assertIn("was left by a run that did not end well", self.backup(database="system").stderr)
        self.assertEqual([], os.listdir(self.work))

    def test_one_run_at_a_time_in_a_folder(self):
        base = self.path("backups")
        child, admin = self.kill_while_it_waits("--backup-dir", base)
        self.write("backups/neo4j/partial")
        failed = self.backup("--backup-dir", base, status=1)
        self.assertIn(f"{base} is in use by another run", failed.stderr)
        self.assertTrue(os.path.exists(base + "/neo4j/partial"))
        child.kill()
        child.wait()
        os.kill(admin, 9)
        self.backup("--backup-dir", base)
        self.assertNotIn("backups/neo4j/partial", self.names(self.archives("neo4j")[0]))


class Stores(Neo4jCase):
    def test_a_backup_that_can_not_be_stored(self):
        self.backup()
        shutil.rmtree(self.store + "/neo4j")
        self.write("store/neo4j", "in the way")
        self.backup(status=1)
        self.assertEqual(2, len(self.archives("system")), "the other is stored all the same")
        self.assertEqual([], os.listdir(self.work))

    def test_a_file_that_can_not_be_read_is_no_part_of_a_backup(self):
        self.backup(database="neo4j")
        latest = content(self.store + "/neo4j/neo4j-latest.tar.gz")
        plain = [] if os.getuid() else ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]
        done = subprocess.run([*plain, LUNARK, *self.args()], env=environment(**self.env(NEO4J_TEST_UNREADABLE="1")),
                              capture_output=True, text=True, timeout=60)
        self.assertEqual(1, done.returncode, done.stderr)
        self.assertRegex(done.stderr, "lunark: .*/backups/neo4j/neostore: can't be opened: permission denied")
        self.assertEqual([], self.archives("system"))
        self.assertEqual(1, len(self.archives("neo4j")))
        self.assertEqual(latest, content(self.store + "/neo4j/neo4j-latest.tar.gz"))

    def test_a_dated_backup_that_can_not_be_stored_is_no_latest(self):
        self.backup(database="neo4j")
        latest = content(self.store + "/neo4j/neo4j-latest.tar.gz")
        now = int(time.time())
        for second in range(now - 1, now + 200):
            stamp = time.strftime("%Y-%m-%d-%H:%M:%S", time.gmtime(second))
            if not os.path.exists(f"{self.store}/neo4j/neo4j-{stamp}.tar.gz"):
                os.makedirs(f"{self.store}/neo4j/neo4j-{stamp}.tar.gz/in/the/way")
        self.backup(status=1)
        self.assertEqual(latest, content(self.store + "/neo4j/neo4j-latest.tar.gz"))
        self.assertEqual(1, len(self.archives("system")))

    def test_latest_that_can_not_be_moved(self):
        self.write("store/neo4j/neo4j-latest.tar.gz/in/the/way")
        failed = self.backup(status=1)
        self.assertIn("stored as neo4j/neo4j-2", failed.stderr)
        self.assertIn("latest not moved", failed.stderr)
        (noted,) = self.manifest(self.archives("system")[0])["failures"]
        self.assertEqual(("neo4j", self.store), (noted["item"], noted["store"]))
        self.assertTrue(self.archives("neo4j") and self.archives("system"))

    def test_latest_is_replaced(self):
        self.backup(database="neo4j")
        self.backup(database="neo4j", NEO4J_TEST_BYTES="5000")
        self.assertEqual(content(self.archives("neo4j")[-1]), content(self.store + "/neo4j/neo4j-latest.tar.gz"))

    def test_a_report_that_can_not_be_stored(self):
        now = int(time.time())
        for second in range(now - 1, now + 20):
            stamp = time.strftime("%Y-%m-%d-%H:%M:%S", time.gmtime(second))
            os.makedirs(f"{self.store}/neo4j/neo4j-{stamp}.report.tar.gz/in/the/way")
        failed = self.backup(status=1)
        self.assertIn("its report is not stored", failed.stderr)
        self.assertEqual([1, 1], [len([a for a in self.archives(d) if os.path.isfile(a)]) for d in ("neo4j", "system")])

    def test_s3_with_a_large_one_first(self):
        server = self.s3()
        bucket = server.bucket("bucket")
        url = server.url(bucket, "some/where")
        args = ["backup", "neo4j", "--address", self.address, "--database", "a,b,c,system", "--to", url,
                "--work-dir", self.work, "--log-level", "debug", "--json"]
        done = self.lunark(*args, env=self.env(**server.env(), NEO4J_TEST_BYTES="a=40000000,c=20000000,b=1"))
        parts = {}
        for item in json.loads(done.stdout)["items"]:
            with server.read(bucket, "some/where/" + item["key"].replace(".tar.gz", ".manifest.json")) as file:
                parts[item["item"]] = json.load(file)["parts"]
        self.assertTrue(parts["a"] > 1 and parts["c"] > 1 and parts["b"] == 1 and parts["system"] == 1, parts)
        found = [k for k in server.objects(bucket) if not k.endswith((".manifest.json", ".report.tar.gz"))]
        self.assertEqual(8, len(found), found)
        for database in ("a", "b", "c", "system"):
            self.assertIn(f"some/where/{database}/{database}-latest.tar.gz", found)
            self.assertRegex("\n".join(found), rf"some/where/{database}/{database}-\d{{4}}-\d\d-\d\d-\d\d:\d\d:\d\d\.tar\.gz")
        self.assertEqual([], list(server.uploads(bucket)))
        for text in (done.stdout, done.stderr, *map(str, self.calls())):
            self.assertNotIn(server.secret, text)

    def test_two_stores(self):
        other = self.path("other")
        self.backup("--to", other, database="neo4j", NEO4J_TEST_STATUS="3")
        keys = sorted(n for n in os.listdir(self.store + "/neo4j") if n[0] != ".")
        self.assertEqual(keys, sorted(n for n in os.listdir(other + "/neo4j") if n[0] != "."))
        self.assertEqual(4, len(keys))


class Before(Neo4jCase):
    def test_a_list_without_system(self):
        message = "the database 'system' is not among"
        self.assertIn(message, self.backup(database="neo4j").stderr)
        for names in ("neo4j,system", "*", "s*,neo4j"):
            self.assertNotIn(message, self.backup(database=names).stderr)

    def test_root(self):
        message = "neo4j-admin runs as root"
        self.assertEqual(os.getuid() == 0, message in self.backup().stderr)

    def test_memory(self):
        message = "heap, page cache and lunark want 2.0 TiB"
        self.assertIn(message, self.backup("--heap-size", "1024G", "--pagecache", "1T").stderr)
        self.assertIn("4.0 TiB", self.backup("--heap-size", "1024G", "--pagecache", "1T", "--parallel", "2").stderr)
        self.assertIn("want 1.0 TiB", self.backup("--pagecache", "1T").stderr)
        self.assertNotIn("heap, page cache", self.backup("--heap-size", "10m").stderr)
        self.assertNotIn("heap, page cache", self.backup().stderr)

    def test_free_space(self):
        free = os.statvfs(self.path()).f_bavail * os.statvfs(self.path()).f_frsize
        failed = self.backup("--expect-size", str(2 * free), status=1)
        self.assertRegex(failed.stderr, "neo4j: .* are free in .*, the backup before had")
        self.assertIn("--work-dir", failed.stderr)
        self.assertEqual([], self.calls())
        self.backup("--expect-size", str(2 * free), "--no-check-space")

    def test_what_it_says_is_seen_while_it_runs(self):
        child = self.start(*self.args(database="neo4j"), env=self.env(NEO4J_TEST_SLEEP="20"), text=True)
        began = time.monotonic()
        for line in child.stderr:
            if "Starting backup of database" in line:
                break
        self.assertLess(time.monotonic() - began, 15)
        self.assertIsNone(child.poll())
        child.terminate()
        child.wait(20)


if __name__ == "__main__":
    main()
