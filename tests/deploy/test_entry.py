# SPDX-License-Identifier: MIT
"""The command of the backup container, in a folder laid out like the image: run with the environment that the chart
renders, against a real S3 server."""
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
from deploy_case import DeployCase  # noqa: E402
from harness import LUNARK, ROOT, environment, main  # noqa: E402

STAMP = r"\d{4}-\d\d-\d\d-\d\d:\d\d:\d\d"


class EntryCase(DeployCase):
    """The image laid out in the scratch folder."""

    def setUp(self):
        super().setUp()
        self.backups = self.path("backups")
        self.image = self.path("image")
        os.makedirs(self.path("image", "scripts"))
        os.makedirs(self.path("image", "usr/lib/lunark/scripts"))
        for name in os.listdir(os.path.join(ROOT, "deploy", "scripts")):
            shutil.copy(os.path.join(ROOT, "deploy", "scripts", name), self.path("image", "scripts"))
        os.symlink(LUNARK, self.path("image", "usr/lib/lunark/scripts/backup.sh"))

    def rendered(self, server, release="my", **values):
        """Environment and arguments of the pod; what is mounted there is here in the scratch folder."""
        job = self.render({"neo4jaddr": self.address, "bucket": "s3://bucket", "cloudProvider": "aws", "secretName": "keys",
                           "s3": {"endpoint": server.endpoint, "region": server.region}, **values}, release=release)
        keys = self.write("credentials/credentials", f"[default]\nregion={server.region}\naws_access_key_id={server.access}\n"
                          f"aws_secret_access_key={server.secret}\n", 0o400)
        env = self.environment(job)
        self.assertEqual("/credentials/credentials", env["LUNARK_CREDENTIALS"])
        env.update(LUNARK_CREDENTIALS=keys, BACKUP_DIR=self.backups, TMPDIR=self.dir)
        return env, self.container(job).get("args", [])

    def begin(self, env, args=(), script="backup.sh"):
        child = subprocess.Popen([self.path("image", "scripts", script), *args], env=environment(**{**self.env(), **env}),
                                 cwd="/", stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.addCleanup(lambda: child.poll() is None and child.kill())
        return child

    def run_entry(self, env, args=(), status=0, **more):
        child = self.begin({**env, **more}, args)
        out, err = child.communicate(timeout=120)
        self.assertEqual(status, child.returncode, out + err)
        return out, err


class Backup(EntryCase):
    def test_the_rendered_pod(self):
        server = self.s3()
        env, args = self.rendered(server)
        out, _ = self.run_entry(env, args)
        keys = server.objects("bucket")
        (stamp,) = set(re.findall(STAMP, "\n".join(keys)))
        self.assertEqual(sorted(f"{d}/{d}-{rest}" for d in ("neo4j", "system") for rest in (
            f"{stamp}.tar.gz", "latest.tar.gz", f"{stamp}.report.tar.gz", f"{stamp}.manifest.json")), keys)
        self.assertTrue(all(line.startswith("{") for line in out.splitlines()), out)
        self.assertNotIn(server.secret, out)
        calls = [c for c in self.calls() if c["argv"] != ["--version"]]
        self.assertEqual([["backup", f"--from={self.address}", f"--backup-dir={self.backups}", f"--database={d}",
                           "--pagecache=2G", "--fallback-to-full=true", "--check-consistency=true",
                           f"--report-dir={self.backups}/.report_{d}", "--check-graph=true", "--check-indexes=true",
                           "--check-label-scan-store=true", "--check-property-owners=false", "--verbose"]
                          for d in ("neo4j", "system")], [c["argv"] for c in calls])
        self.assertEqual(["2G", "2G"], [c["heap"] for c in calls])
        self.assertEqual([], self.left(self.backups))

    def test_options_and_path_style(self):
        server = self.s3()
        env, args = self.rendered(server, heapSize="1G", pageCache="512m", checkGraph=False, removeBackupFiles=False,
                                  removeExistingFiles="false", includeMetadata="users", database="neo4j",
                                  s3={"endpoint": server.endpoint, "region": server.region, "forcePathStyle": True})
        self.run_entry(env, args)
        argv = self.calls()[-1]["argv"]
        for option in ("--pagecache=512m", "--check-graph=false", "--include-metadata=users"):
            self.assertIn(option, argv)
        self.assertEqual("1G", self.calls()[-1]["heap"])
        self.assertIn("neo4j", self.left(self.backups), "kept for an incremental backup")
        self.assertEqual(4, len(server.objects("bucket")))

    def test_defaults_of_the_chart(self):
        env = {"NEO4J_ADDR": self.address, "DATABASE": "neo4j", "LUNARK_TO": self.store, "BACKUP_DIR": self.backups}
        self.run_entry(env)
        self.assertEqual("2G", self.calls()[-1]["heap"])
        self.assertIn("--pagecache=2G", self.calls()[-1]["argv"])
        self.run_entry(env, HEAP_SIZE="", PAGE_CACHE="")
        self.assertEqual("2G", self.calls()[-1]["heap"])

    def test_exit_status(self):
        server = self.s3()
        env, args = self.rendered(server)
        self.run_entry(env, args, status=1, NEO4J_TEST_STATUS="neo4j=1", NEO4J_TEST_PARTIAL="1")
        self.assertEqual(["system"], sorted({key.split("/")[0] for key in server.objects("bucket")}), "the other one is stored")
        self.run_entry(env, args, NEO4J_TEST_STATUS="neo4j=3")
        self.run_entry(env, [*args, "--strict=true"], status=5, NEO4J_TEST_STATUS="neo4j=3")
        out, _ = self.run_entry(env, args, status=2, CLOUD_PROVIDER="other")
        self.assertIn("CLOUD_PROVIDER", out)
        missing = dict(env)
        del missing["NEO4J_ADDR"]
        self.run_entry(missing, args, status=2)
        out, _ = self.run_entry(env, args, status=2, LUNARK_CREDENTIALS=self.path("none"))
        self.assertIn(self.path("none"), out)

    @unittest.skipUnless(os.getuid() == 0, "only root can be another user")
    def test_another_user_and_a_root_that_is_read_only(self):
        """As the pod's security context has it: user 7474, nothing to write to but the volumes."""
        server = self.s3()
        env, _ = self.rendered(server, database="neo4j")
        keys = env["LUNARK_CREDENTIALS"]
        os.chown(keys, 7474, 7474)
        subprocess.run(["make", "-s", "install", "PREFIX=/usr", f"DESTDIR={self.image}"], cwd=ROOT, check=True,
                       stdout=subprocess.DEVNULL)
        link = self.path("image", "usr/lib/lunark/scripts/backup.sh")
        os.unlink(link)
        os.symlink(self.path("image", "usr/bin/lunark"), link)
        os.unlink(self.path("bin", "neo4j-admin"))
        shutil.copy(os.path.join(ROOT, "tests/support/neo4j-admin"), self.path("bin"))
        os.mkdir(self.backups)
        os.chown(self.backups, 7474, 7474)
        env.update(self.env(), NEO4J_TEST_LOG=os.path.join(self.backups, "log"), TMPDIR="/nowhere",
                   PATH=self.path("bin") + ":/usr/local/bin:/usr/bin:/bin")
        script = (f"mount --bind {self.backups} {self.backups} && mount -o remount,bind,ro / && "
                  "! touch /x 2>/dev/null && cd / && exec setpriv --reuid 7474 --regid 7474 --clear-groups "
                  f"--inh-caps=-all --no-new-privs {self.path('image', 'scripts', 'backup.sh')}")
        done = subprocess.run(["unshare", "-m", "sh", "-c", script], env=environment(**env), stdin=subprocess.DEVNULL, text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=120)
        if done.returncode == 1 and "unshare" in done.stdout[:20]:
            self.skipTest(done.stdout)
        self.assertEqual(0, done.returncode, done.stdout)
        self.assertEqual(4, len(server.objects("bucket")))
        self.assertNotIn("as root", done.stdout)

    def test_name_and_signals(self):
        env = {"NEO4J_ADDR": self.address, "DATABASE": "neo4j", "LUNARK_TO": self.store, "BACKUP_DIR": self.backups,
               "NEO4J_TEST_SLEEP": "60", "NEO4J_TEST_PIDFILE": self.path("pid")}
        child = self.begin(env)
        end = time.time() + 30
        while not os.path.exists(self.path("pid")) and time.time() < end:
            time.sleep(0.05)
        with open(f"/proc/{child.pid}/comm", encoding="ascii") as file:
            self.assertEqual("backup.sh\n", file.read(), "what pgrep looks at")
        found = subprocess.run(["pgrep", "backup.sh"], stdout=subprocess.PIPE, text=True).stdout.split()
        self.assertIn(str(child.pid), found, "as the chart's example of a sidecar asks")
        with open(f"/proc/{child.pid}/cmdline", encoding="utf-8") as file:
            self.assertIn("/scripts/backup.sh\0backup\0neo4j", file.read(), "what pgrep -f looks at")
        child.send_signal(signal.SIGTERM)
        child.communicate(timeout=30)
        self.assertEqual(143, child.returncode)
        with open(self.path("pid"), encoding="ascii") as file:
            self.assertFalse(os.path.exists(f"/proc/{file.read().strip()}"), "neo4j-admin was ended")
        self.assertFalse(os.path.exists(self.path("store", "neo4j")) and os.listdir(self.path("store", "neo4j")))


class Restore(EntryCase):
    """The init container of the server's pod, with the Labs chart's variables."""

    def setUp(self):
        super().setUp()
        self.data = self.path("data")
        os.mkdir(self.data)
        os.symlink(LUNARK, self.path("bin", "lunark"))
        self.server = self.s3()
        env, args = self.rendered(self.server)
        self.run_entry(env, args)
        os.unlink(self.log)
        self.env_of_pod = {
            "DATABASE": "neo4j,system", "CLOUD_PROVIDER": "aws", "BUCKET": "s3://bucket", "TIMESTAMP": "latest",
            "FORCE_OVERWRITE": "true", "PURGE_ON_COMPLETE": "true", "DATA_DIR": self.data, "NEO4J_TEST_DATA": self.data,
            **{name: env[name] for name in ("LUNARK_CREDENTIALS", "AWS_ENDPOINT_URL_S3", "AWS_REGION")}}

    def restore(self, status=0, **env):
        child = self.begin({**self.env_of_pod, **env}, script="restore.sh")
        out, err = child.communicate(timeout=120)
        self.assertEqual(status, child.returncode, out + err)
        return out + err

    def store_of(self, database="neo4j"):
        return self.path("data", "databases", database, "neostore")

    def test_restored_once(self):
        self.restore()
        for database in ("neo4j", "system"):
            self.assertEqual(100000, os.path.getsize(self.store_of(database)))
        self.assertFalse(os.path.exists(self.path("data", ".restore")))
        self.write("data/databases/neo4j/neostore", "written since")
        calls = len(self.calls())
        self.restore()  # the pod is started again
        self.assertEqual(len("written since"), os.path.getsize(self.store_of()), "not rolled back")
        self.assertNotIn("restore", [c["argv"][0] for c in self.calls()[calls:]])

    def test_what_is_there_stays_without_force(self):
        for place in ("databases", "transactions"):
            self.write(f"data/{place}/neo4j/neostore", "old")
        for force in ("false", None):
            self.restore(FORCE_OVERWRITE=force)
            self.assertEqual(3, os.path.getsize(self.store_of()))
            self.assertEqual(100000, os.path.getsize(self.store_of("system")))

    def test_failures_are_failures(self):
        for place in ("databases", "transactions"):
            self.write(f"data/{place}/neo4j/neostore", "old")
        for status, env in ((1, {"NEO4J_TEST_STATUS": "1"}), (2, {"BUCKET": ""}), (None, {"DATABASE": "neo4j,other"}),
                            (None, {"AWS_ENDPOINT_URL_S3": "http://127.0.0.1:1"})):
            child = self.begin({**self.env_of_pod, **env}, script="restore.sh")
            out, err = child.communicate(timeout=120)
            self.assertNotEqual(0, child.returncode, out + err)
            self.assertEqual(status or child.returncode, child.returncode, out + err)
            self.assertEqual(3, os.path.getsize(self.store_of()), env)


if __name__ == "__main__":
    main()
