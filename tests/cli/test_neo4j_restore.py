# SPDX-License-Identifier: MIT
"""lunark restore neo4j against the stand-in for neo4j-admin: command lines, what is refused, what stays whole."""
import glob
import json
import os
import pwd
import random
import shutil
import subprocess
import sys
import time
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
from harness import LUNARK, describe, environment, main  # noqa: E402
from neo4j_case import Neo4jCase  # noqa: E402

HOLD = ("import fcntl, sys\nf = open(sys.argv[1], 'w')\nfcntl.lockf(f, fcntl.LOCK_EX)\nprint('locked', flush=True)\n"
        "sys.stdin.read()")


class RestoreCase(Neo4jCase):
    def setUp(self):
        super().setUp()
        self.data = self.path("data")
        os.mkdir(self.data)

    def stored(self, *more, **env):
        """Backs up, and forgets the calls."""
        self.backup(*more, **env)
        os.unlink(self.log)

    def command(self, *more, database="neo4j,system"):
        return ["restore", "neo4j", "--from", self.store, "--database", database, "--data-dir", self.data, *more]

    def restore(self, *more, status=0, database="neo4j,system", **env):
        return self.lunark(*self.command(*more, database=database), status=status,
                           env=self.env(**{"NEO4J_TEST_DATA": self.data, **env}))

    def argvs(self):
        return [c["argv"] for c in self.calls()]

    def content(self, database, name="neostore"):
        with open(f"{self.data}/databases/{database}/{name}", "rb") as file:
            return file.read()

    def whole(self, *databases):
        for database in databases:
            self.assertEqual(random.Random(database).randbytes(100000), self.content(database))

    def old(self, database="neo4j"):
        """A database that is there before."""
        for place in ("databases", "transactions"):
            self.write(f"data/{place}/{database}/old", "old")

    def is_old(self, database="neo4j"):
        for place in ("databases", "transactions"):
            self.assertEqual(["old"], os.listdir(f"{self.data}/{place}/{database}"))

    def nothing_left(self):
        self.assertFalse(os.path.exists(self.data + "/.restore"))
        self.assertEqual([], glob.glob(self.data + "/*/.*.lunark-old"))


class Four(RestoreCase):
    def test_command_lines_of_the_container(self):
        self.stored()
        done = self.restore("--force")
        staging = self.data + "/.restore"
        self.assertEqual([["unbind"]] + [
            ["restore", f"--from={staging}/backups/{d}", f"--database={d}", "--force", "--to-data-directory",
             f"{self.data}/databases/", "--to-data-tx-directory", f"{self.data}/transactions/", "--move", "--verbose"]
            for d in ("neo4j", "system")], self.argvs())
        self.whole("neo4j", "system")
        self.nothing_left()
        script = f"{self.data}/scripts/neo4j/restore_metadata.cypher"
        self.assertIn(f"cat {script} | cypher-shell -d system --param \"database => 'neo4j'\"", done.stderr)

    def from_environment(self, status=0, **env):
        return self.lunark("restore", "neo4j", "--data-dir", self.data, status=status,
                           env=self.env(LUNARK_FROM=self.store, **env))

    def test_variables_of_the_container(self):
        self.stored()
        self.old()
        self.from_environment(DATABASE="neo4j", TIMESTAMP="latest", FORCE_OVERWRITE="true", PURGE_ON_COMPLETE="false",
                              BACKUP_SET_DIR="backups/neo4j")
        self.whole("neo4j")
        self.assertTrue(os.path.isdir(self.data + "/.restore"))
        self.assertIn("--force", self.argvs()[1])
        stamp = os.path.basename(self.archives("neo4j")[0])[len("neo4j-"):-len(".tar.gz")]
        for at, status in ((stamp, 0), ("2001-01-01-00:00:00", 1), ("yesterday", 2)):
            done = self.from_environment(status, DATABASE="neo4j, system", TIMESTAMP=at, FORCE_OVERWRITE="true")
        self.assertIn("'yesterday' is no time", done.stderr)
        self.from_environment(1, DATABASE="neo4j", FORCE_OVERWRITE="false")

    def test_variables_that_are_empty(self):
        """As the server's chart has them for values that are null."""
        self.stored()
        empty = dict.fromkeys(("TIMESTAMP", "FORCE_OVERWRITE", "PURGE_ON_COMPLETE", "BACKUP_SET_DIR", "HEAP_SIZE"), "")
        self.from_environment(DATABASE="neo4j", **empty)
        self.whole("neo4j")
        self.nothing_left()
        self.from_environment(1, DATABASE="neo4j", **empty)

    def test_one_that_is_there(self):
        self.stored()
        self.old()
        failed = self.restore(status=1)
        self.assertIn(f"neo4j: there is such a database in {self.data}/databases", failed.stderr)
        self.assertIn("--force (FORCE_OVERWRITE=true) replaces it", failed.stderr)
        self.assertEqual([], self.argvs())
        skipped = self.restore("--skip-existing")
        self.assertIn("neo4j: is there already, and stays as it is", skipped.stderr)
        self.is_old()
        self.whole("system")

    def test_damaged(self):
        self.stored()
        self.old()
        before = describe(self.data)
        path = self.archives("system")[0]
        with open(path, "rb") as file:
            data = file.read()
        for name, bad in (("flipped", data[:5000] + bytes([data[5000] ^ 1]) + data[5001:]), ("cut", data[:-100])):
            with open(path, "wb") as file:
                file.write(bad)
            failed = self.restore("--force", status=4)
            self.assertIn(os.path.basename(path), failed.stderr, name)
            self.assertEqual([], self.argvs(), "neo4j-admin was not started")
            self.assertEqual(before, describe(self.data), name)

    def test_neo4j_admin_fails(self):
        self.stored()
        self.old("system")
        failed = self.restore("--force", status=1, NEO4J_TEST_STATUS="system=1")
        self.assertIn("system: neo4j-admin ended with status 1: ", failed.stderr)
        self.assertIn("Restoring system failed: no luck", failed.stderr)
        self.is_old("system")
        self.whole("neo4j")
        self.nothing_left()
        self.restore("--force", status=1, NEO4J_TEST_STATUS="unbind=1")
        self.is_old("system")

    def test_killed_in_the_middle(self):
        self.stored()
        self.old()
        go = self.path("go")
        child = self.start(*self.command("--force"), env=self.env(NEO4J_TEST_WAIT=go, NEO4J_TEST_PIDFILE=self.path("pid")),
                           stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 30
        while not os.path.exists(self.data + "/databases/neo4j/half") and time.monotonic() < deadline:
            time.sleep(0.02)
        self.assertTrue(os.path.exists(self.data + "/databases/neo4j/half"))
        child.kill()
        child.wait()
        self.write("go")
        with open(self.path("pid"), encoding="utf-8") as file:
            pid = int(file.read())
        while os.path.exists(f"/proc/{pid}") and time.monotonic() < deadline:
            time.sleep(0.02)
        done = self.restore("--force")
        self.assertIn("neo4j: a restore was ended in the middle; what it has left is removed", done.stderr)
        self.whole("neo4j", "system")
        self.assertFalse(os.path.exists(self.data + "/databases/neo4j/old"))
        self.nothing_left()

    def test_two_at_once(self):
        self.stored()
        self.old()
        child = self.start(*self.command("--force"), env=self.env(NEO4J_TEST_WAIT=self.path("go")))
        deadline = time.monotonic() + 30
        while not os.path.exists(self.data + "/databases/neo4j/half") and time.monotonic() < deadline:
            time.sleep(0.02)
        for more in ((), ("--once",)):
            failed = self.restore("--force", *more, status=1)
            self.assertIn(f"{self.data}/.restore is in use by another run", failed.stderr)
            self.assertTrue(os.path.exists(self.data + "/databases/neo4j/half"), "it is left alone")
        self.write("go")
        out, err = child.communicate(timeout=30)
        self.assertEqual(0, child.returncode, (out, err))
        self.whole("neo4j", "system")
        self.nothing_left()

    def test_ended_by_a_signal(self):
        """The old database is back when the run has ended: a server may be started without another restore."""
        self.stored()
        for old in (True, False):
            if old:
                self.old()
            child = self.start(*self.command("--force"), stderr=subprocess.PIPE, env=self.env(
                NEO4J_TEST_WAIT=self.path("never"), NEO4J_TEST_PIDFILE=self.path("pid")))
            deadline = time.monotonic() + 30
            while not os.path.exists(self.data + "/databases/neo4j/half") and time.monotonic() < deadline:
                time.sleep(0.02)
            self.assertTrue(os.path.exists(self.data + "/databases/neo4j/half"))
            self.assertTrue(not old or glob.glob(self.data + "/databases/.neo4j.lunark-old/old"))
            child.terminate()
            _, said = child.communicate(timeout=30)
            self.assertEqual(143, child.returncode, said)
            if old:
                self.is_old()
                shutil.rmtree(self.data + "/databases/neo4j")
                shutil.rmtree(self.data + "/transactions/neo4j")
            else:
                self.assertFalse(os.path.exists(self.data + "/databases/neo4j"))
            self.nothing_left()
        done = self.restore()
        self.assertNotIn("was ended in the middle", done.stderr)
        self.whole("neo4j", "system")

    def test_killed_and_not_started_again_as_such(self):
        self.stored()
        for place in ("databases", "transactions"):
            self.write(f"data/{place}/.neo4j.lunark-old/old", "old")
            self.write(f"data/{place}/neo4j/half", "")
        self.killed_there({"databases": True, "transactions": True})
        self.is_old()

    def killed_there(self, had):
        self.write("data/.lunark-restore.json", json.dumps({"request": "another", "state": "begun", "done": {},
                                                            "at_work": "neo4j", "had": had}))
        self.assertIn("there is such a database", self.restore(status=1).stderr)
        self.assertEqual([], self.argvs())

    def test_killed_while_setting_aside(self):
        self.stored()
        self.write("data/databases/.neo4j.lunark-old/old", "old")
        self.write("data/transactions/neo4j/old", "old")
        self.killed_there({"databases": True, "transactions": True})
        self.is_old()

    def test_killed_before_setting_aside(self):
        self.stored()
        self.old()
        self.killed_there({"databases": True, "transactions": True})
        self.is_old()

    def test_killed_where_there_was_none(self):
        self.stored()
        self.write("data/databases/neo4j/half", "")
        self.write("data/.lunark-restore.json", json.dumps({"request": "another", "state": "begun", "done": {},
                                                            "at_work": "neo4j", "had": {}}))
        self.restore()
        self.whole("neo4j", "system")
        self.assertFalse(os.path.exists(self.data + "/databases/neo4j/half"))

    def test_goes_on(self):
        self.stored()
        for force in ((), ("--force", "--once")):
            self.restore(*force, status=1, NEO4J_TEST_STATUS="system=1")
            self.write("data/databases/neo4j/mark", "")
            os.unlink(self.log)
            self.restore(*force)
            self.assertEqual(["unbind", "restore"], [a[0] for a in self.argvs()])
            self.assertTrue(os.path.exists(self.data + "/databases/neo4j/mark"))
            self.whole("neo4j", "system")
            os.unlink(self.data + "/.lunark-restore.json")
        self.restore("--force")
        self.assertFalse(os.path.exists(self.data + "/databases/neo4j/mark"))

    @unittest.skipUnless(os.getuid() == 0, "only root gives files away")
    def test_owner_and_mode(self):
        self.stored()
        os.makedirs(self.path("old/backups/neo4j"))
        self.write("old/backups/neo4j/neostore", random.Random("neo4j").randbytes(100000), 0o040)
        os.chmod(self.path("old/backups/neo4j"), 0o555)
        subprocess.run(["tar", "-zcf", f"{self.store}/neo4j/neo4j-2040-01-01-00:00:00.tar.gz", "backups"],
                       cwd=self.path("old"), check=True)
        os.chown(self.data, 7474, 7473)
        self.restore("--mixed")
        for base, folders, files in os.walk(self.data + "/databases"):
            for name in folders + files:
                info = os.stat(os.path.join(base, name))
                self.assertEqual((7474, 7473), (info.st_uid, info.st_gid), name)
                self.assertEqual(0o600, info.st_mode & 0o600, name)
        self.restore("--force", "--owner", "nobody", database="neo4j")
        self.assertEqual(pwd.getpwnam("nobody").pw_uid, os.stat(self.data + "/databases/neo4j/neostore").st_uid)

    @unittest.skipUnless(os.getuid() == 0, "only root can be another user")
    def test_as_a_user_that_may_not(self):
        self.stored()
        self.old()
        for path in (self.path(), self.store, self.path("bin")):
            os.chmod(path, 0o755)
        nobody = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", LUNARK]

        def restore(words, *more, status):
            done = subprocess.run([*nobody, *self.command("--force", *more)], capture_output=True, text=True, timeout=60,
                                  env=environment(**self.env(NEO4J_TEST_LOG=self.path("data", "log"))))
            self.assertEqual(status, done.returncode, done.stderr)
            self.assertIn(words, done.stderr)
            self.assertEqual([], glob.glob(self.data + "/.*"), "nothing was touched")
            self.is_old()

        restore(f"{self.data} can't be written to by this user", status=2)
        os.chmod(self.data, 0o777)
        restore(f"{self.data}/databases can't be written to by this user", status=2)
        for place in ("databases", "transactions"):
            os.chmod(f"{self.data}/{place}", 0o777)
        restore("only root can give files to 'root'", "--owner", "root", status=2)
        restore(f"neo4j: {self.data}/databases/neo4j can't be replaced by this user", status=1)
        os.chmod(f"{self.data}/databases/neo4j", 0o777)
        restore(f"neo4j: {self.data}/transactions/neo4j can't be replaced by this user", status=1)
        os.chmod(f"{self.data}/transactions/neo4j", 0o777)
        done = subprocess.run([*nobody, *self.command("--force")], capture_output=True, text=True, timeout=60,
                              env=environment(**self.env(NEO4J_TEST_LOG=self.path("data", "log"))))
        self.assertEqual(0, done.returncode, done.stderr)
        self.whole("neo4j", "system")
        self.assertEqual(65534, os.stat(self.data + "/databases/neo4j/neostore").st_uid)

    def test_started_again(self):
        self.stored()
        self.old()
        self.restore("--force", "--once")
        self.whole("neo4j", "system")
        self.write("data/databases/neo4j/new", "")
        os.unlink(self.log)
        again = self.restore("--force", "--once")
        self.assertIn("this was restored before: nothing is done", again.stderr)
        self.assertEqual([], self.argvs())
        self.assertTrue(os.path.exists(self.data + "/databases/neo4j/new"))
        self.restore("--force", "--once", database="neo4j")
        self.assertFalse(os.path.exists(self.data + "/databases/neo4j/new"), "another request restores")
        self.restore("--force", database="neo4j")
        self.assertEqual(4, len(self.argvs()), "without --once it restores again")

    def test_not_recovered(self):
        self.stored("--prepare-restore=false")
        self.restore()
        self.assertEqual(["unbind", "prepare-restore", "restore", "prepare-restore", "restore"],
                         [a[0] for a in self.argvs()])
        self.assertEqual(f"--target={self.data}/.restore/backups/neo4j", self.argvs()[1][1])
        self.whole("neo4j", "system")

    def test_dry_run(self):
        self.stored()
        done = self.restore("--dry-run", "--json")
        self.assertEqual(["neo4j", "system"], [i["item"] for i in json.loads(done.stdout)["items"]])
        self.assertIn("neo4j: would restore neo4j/neo4j-", done.stderr)
        self.assertEqual([], os.listdir(self.data))
        self.assertEqual([], self.argvs())

    def test_one_run(self):
        self.stored()
        self.backup(database="neo4j")
        first = os.path.basename(self.archives("system")[0])[len("system"):]
        done = json.loads(self.restore("--json", "--at", "latest").stdout)
        self.assertEqual(["neo4j/neo4j" + first, "system/system" + first], [i["key"] for i in done["items"]])
        mixed = self.restore("--json", "--mixed", "--force", "--strict", status=5)
        self.assertIn("the backups are of different runs: neo4j of ", mixed.stderr)
        self.assertNotEqual("neo4j/neo4j" + first, json.loads(mixed.stdout)["items"][0]["key"])

    def test_archives_of_the_old_container(self):
        for folder, database in (("backups", "neo4j"), ("data", "system")):
            self.write(f"old/{folder}/{database}/neostore", random.Random(database).randbytes(100000))
            os.makedirs(f"{self.store}/{database}")
            for at in ("2020-06-16-12:32:57", "latest"):
                subprocess.run(["tar", "--force-local", "-zcf", f"{self.store}/{database}/{database}-{at}.tar.gz",
                                f"{folder}/{database}"], cwd=self.path("old"), check=True)
        done = self.restore()
        self.assertIn("there is no SHA-256 to compare it with", done.stderr)
        self.whole("neo4j", "system")
        for at in ("latest", "2020-06-16-12:32:57"):
            self.restore("--force", TIMESTAMP=at)
            self.whole("neo4j", "system")

    def test_other_folder_in_the_archive(self):
        os.makedirs(self.store + "/neo4j")
        self.write("old/set/neostore", random.Random("neo4j").randbytes(100000))
        subprocess.run(["tar", "-zcf", self.store + "/neo4j/neo4j-latest.tar.gz", "set"], cwd=self.path("old"), check=True)
        failed = self.restore(database="neo4j", status=4)
        self.assertIn("the archive has no backups/neo4j and no data/neo4j in it", failed.stderr)
        failed = self.restore(database="neo4j", status=2, BACKUP_SET_DIR="../../etc")
        self.assertIn("leads out of the archive", failed.stderr)
        self.restore(database="neo4j", BACKUP_SET_DIR="set")
        self.whole("neo4j")

    def test_tar_of_the_old_container_reads_ours(self):
        self.stored()
        (dated,) = self.archives("neo4j")
        for path in (dated, f"{self.store}/neo4j/neo4j-latest.tar.gz"):
            shutil.copy(path, self.data)
            subprocess.run(["tar", "--force-local", "--overwrite", "-zxvf", os.path.basename(path)], cwd=self.data,
                           check=True, capture_output=True)
            with open(self.data + "/backups/neo4j/neostore", "rb") as file:
                self.assertEqual(random.Random("neo4j").randbytes(100000), file.read())

    def test_configuration_is_changed_when_asked(self):
        self.stored()
        conf = self.write("neo4j.conf", "dbms.x=1")
        self.restore()
        for _ in range(2):
            self.restore("--force", "--allow-upgrade", conf)
            with open(conf, encoding="utf-8") as file:
                self.assertEqual("dbms.x=1\ndbms.allow_upgrade=true\n", file.read())

    def test_refused(self):
        self.stored()
        for args, words in ((("--data-dir", self.path("none")), "the server's data folder expected"),
                            (("--owner", "nobody-like-this"), "there is no such user"),
                            (("--restore-until", "5"), "is of Neo4j 5"), (("--at", "x"), "'x' is no time"),
                            (("--into", "x"), "--into"), (("--neo4j-version", "3.5"), "4.0 or later expected")):
            self.assertIn(words, self.restore(*args, status=2).stderr)
        self.assertIn("no name of a database", self.restore(database="*", status=2).stderr)
        self.assertIn("'other' has no latest", self.restore(database="other", status=1).stderr)
        self.assertEqual([], os.listdir(self.data))

    def test_no_space(self):
        self.stored()
        (path,) = glob.glob(self.store + "/neo4j/neo4j-2*.manifest.json")
        with open(path, encoding="utf-8") as file:
            manifest = json.load(file)
        manifest["raw_size"] = 1 << 50
        with open(path, "w", encoding="utf-8") as file:
            json.dump(manifest, file)
        failed = self.restore(status=1)
        self.assertRegex(failed.stderr, "are free in .*/data, 1.* are needed")
        self.assertEqual([], os.listdir(self.data))

    def test_one_archive(self):
        self.stored()
        self.lunark("restore", "neo4j", "--from", self.archives("neo4j")[0], "--database", "other", "--data-dir", self.data,
                    "--backup-set-dir", "backups/neo4j", env=self.env())
        self.assertEqual(self.content("other"), random.Random("neo4j").randbytes(100000))

    def test_in_use(self):
        self.stored()
        self.old()
        path = self.data + "/databases/neo4j/database_lock"
        holder = subprocess.Popen([sys.executable, "-c", HOLD, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        holder.stdout.readline()
        failed = self.restore("--force", status=1)
        holder.communicate()
        self.assertIn("neo4j: a server has this database in use", failed.stderr)
        self.assertEqual([], self.argvs())

    def test_dumps(self):
        self.stored("--method", "dump")
        self.restore("--force")
        self.assertEqual([["load", f"--from={self.data}/.restore/dumps/{d}/{d}.dump", f"--database={d}", "--force",
                           "--verbose"] for d in ("neo4j", "system")], self.argvs())
        self.assertEqual(b"DZV1" + random.Random("neo4j").randbytes(100000), self.content("neo4j"))
        shutil.rmtree(self.data + "/databases")
        failed = self.restore(status=1, NEO4J_TEST_DATA=self.path("elsewhere"))
        self.assertIn("there is no database in " + self.data, failed.stderr)


class Five(RestoreCase):
    version = "5.26.0"

    def test_a_chain(self):
        keep = ("--backup-dir", self.path("b"), "--remove-existing-files=false", "--remove-backup-files=false")
        self.backup(*keep, database="neo4j")
        self.stored(*keep, database="neo4j")
        self.restore("--force", "--restore-until", "77", database="neo4j")
        (call,) = self.calls()
        files = sorted(n for n in os.listdir(self.path("b")) if n.endswith(".backup"))
        self.assertEqual(files, call["found"])
        self.assertEqual(["database", "restore", f"--from-path={self.data}/.restore/backups/neo4j/{files[-1]}",
                          "--overwrite-destination=true", "--restore-until=77", f"--to-path-data={self.data}/databases/",
                          f"--to-path-txn={self.data}/transactions/", "--verbose", "neo4j"], call["argv"])
        self.assertTrue(self.content("neo4j").startswith(b"DIFF"))

    def test_dumps(self):
        self.stored("--method", "dump")
        self.restore()
        self.assertEqual([["database", "load", f"--from-path={self.data}/.restore/dumps/{d}", "--verbose", d]
                          for d in ("neo4j", "system")], self.argvs())

    def test_of_a_later_release(self):
        self.stored(database="neo4j")
        self.version = "4.4.10"
        failed = self.restore(database="neo4j", status=2)
        self.assertIn("the backup is of Neo4j 5.26.0, neo4j-admin of 4.4.10", failed.stderr)


if __name__ == "__main__":
    main()
