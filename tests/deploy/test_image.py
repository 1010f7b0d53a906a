# SPDX-License-Identifier: MIT
"""The container file, built for real on Debian 13 without a container tool, and both images run as a cluster runs them: from
the environment alone."""
import os
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
from harness import ROOT, Case, main  # noqa: E402
from image_build import Builder  # noqa: E402
from neo4j_server import OPENS, Neo4j  # noqa: E402
from servers import CACHE, Unavailable, make_available  # noqa: E402

VERSION = "4.4.40"
FILE = os.path.join(ROOT, "deploy", "container", "Containerfile")
TOOLS = os.path.join(CACHE, "container-files-1", "bin")
DEBIAN = os.path.join(CACHE, "debian-13", "root")
# What the user's image brings: a script that runs its Java, as neo4j-admin does.
ADMIN = """#!/bin/bash
set -e
"$JAVA_HOME/bin/java" -version 2> /dev/null
export NEO4J_CONF="$NEO4J_HOME/conf"
for word; do
    case $word in
    --backup-dir=*) dir=${word#*=} ;;
    --from=*) from=${word#*=} ;;
    --database=*) database=${word#*=} ;;
    esac
done
case $1 in
dump | load | --version) exec java -Xmx300m -XX:TieredStopAtLevel=1 -cp "$NEO4J_HOME/lib/*" OPENS -Dapp.name=neo4j \\
    -Dbasedir="$NEO4J_HOME" org.neo4j.cli.AdminTool "$@" ;;
backup) mkdir "$dir/$database" && echo "$database" > "$dir/$database/neostore" ;;
unbind) ;;
restore) mkdir -p "/data/databases/$database" "/data/transactions/$database" && mv "$from"/* "/data/databases/$database/" ;;
*) exit 64 ;;
esac
""".replace("OPENS", " ".join(OPENS))


def make(path, text):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
    os.chmod(path, 0o755)


class Parsed(unittest.TestCase):
    def test_a_linter_of_container_files(self):
        make_available(os.path.join(TOOLS, "hadolint"), "hadolint")
        # The stage that only hands files on is root; packages are those of the release.
        out = subprocess.run([os.path.join(TOOLS, "hadolint"), "--ignore", "DL3002", "--ignore", "DL3008", FILE], text=True,
                             stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self.assertEqual((0, ""), (out.returncode, out.stdout))


@unittest.skipUnless(os.getuid() == 0, "only root can build images")
class Built(Case):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        try:
            make_available(os.path.join(TOOLS, "python"), "dockerfile-parse")
            make_available(os.path.join(DEBIAN, "bin", "sh"), "Debian 13")
        except Unavailable as reason:
            raise unittest.SkipTest(str(reason)) from reason
        cls.folder = tempfile.mkdtemp(prefix="lunark-image.")
        cls.addClassCleanup(shutil.rmtree, cls.folder)
        theirs = os.path.join(cls.folder, "neo4j")
        cls.lay_out(theirs)
        cls.builder = Builder(os.path.join(TOOLS, "python"), FILE, ROOT, cls.folder, {
            "debian:13-slim": [DEBIAN], "neo4j:4.4-enterprise": [DEBIAN, theirs]})
        cls.backup, cls.restore = cls.builder.build("backup", "restore")

    @staticmethod
    def lay_out(theirs):
        """An image as Neo4j's own: a real Java where a Debian package puts it, the real Community Edition."""
        jars = os.path.join(CACHE, f"neo4j-{VERSION}", "lib")
        make_available(jars, f"Neo4j {VERSION}")
        java = os.path.realpath(shutil.which("java") or "/nowhere/bin/java")
        home = os.path.dirname(os.path.dirname(java))
        if not os.path.exists(java):
            raise unittest.SkipTest("no java here")
        make(os.path.join(theirs, "var/lib/neo4j/bin/neo4j-admin"), ADMIN)
        shutil.copytree(jars, os.path.join(theirs, "var/lib/neo4j/lib"))
        os.mkdir(os.path.join(theirs, "var/lib/neo4j/conf"))
        for name in ("data", "logs"):
            os.symlink("/" + name, os.path.join(theirs, "var/lib/neo4j", name))
        shutil.copytree(home, theirs + home, symlinks=True, ignore=shutil.ignore_patterns("jmods", "include", "man", "legal"))
        for folder, _, names in os.walk(home):
            for path in (os.path.join(folder, name) for name in names):
                target = os.path.realpath(path)
                if os.path.islink(path) and not target.startswith(home) and os.path.isfile(target):
                    os.makedirs(os.path.dirname(theirs + target), exist_ok=True)
                    shutil.copy(target, theirs + target)
        os.symlink("nowhere", os.path.join(theirs + home, "docs.gone"))
        os.makedirs(os.path.join(theirs, "usr/bin"), exist_ok=True)
        os.symlink(java, os.path.join(theirs, "usr/bin/java"))

    def shell(self, stage, line):
        return self.builder.add(stage, self.builder.chroot(stage, ["/bin/sh", "-c", line])).strip()

    def test_what_is_in_it(self):
        for stage, uid in ((self.backup, "7474"), (self.restore, "0")):
            self.assertEqual(uid, self.shell(stage, "id -u"))
            self.assertEqual("7474 7474", self.shell(stage, "echo $(id -u neo4j) $(id -g neo4j)"))
            for path in ("/scripts/backup.sh", "/scripts/restore.sh", "/usr/bin/lunark", "/usr/lib/lunark/scripts/backup.sh",
                         "/var/lib/neo4j/bin/neo4j-admin", "/opt/java/openjdk/bin/java"):
                self.assertEqual("", self.shell(stage, f"test -x {path}; readlink -e {path} > /dev/null"), path)
            self.assertEqual("7474:7474 770", self.shell(stage, "stat -c '%u:%g %a' /backups /data /logs | sort -u"))
            self.assertEqual(VERSION, self.shell(stage, "neo4j-admin --version 2>/dev/null"))
            self.assertEqual("", self.shell(stage, "ls -d /src /usr/include/lunark.h /taken 2>/dev/null || true"))
            self.assertEqual("", self.shell(stage, "command -v gcc make git curl || true"), "nothing of the build")
            self.assertEqual("", self.shell(stage, "ldd /usr/bin/lunark /usr/lib/liblunark.so.0 | grep 'not found' || true"))
            self.assertIn("lunark 0", self.shell(stage, "lunark --version"))
            self.assertIn("NEO4J_ADDR", self.shell(stage, "lunark backup neo4j --help"))

    def run_pod(self, stage, volumes, env, *options):
        """The image's own command with a root that is read-only but for the volumes."""
        script = "mkdir -p $1/credentials; " + "".join(
            f"mount --bind {source} $1{place}; " for place, source in volumes.items())
        script += "for d in tmp logs; do mount -t tmpfs -o mode=1777 none $1/$d; done; mount -o remount,ro $1; "
        done, _ = self.builder.mounted(stage, script + self.builder.chroot(stage, [*stage.cmd, *options], env), timeout=300)
        return done

    def test_both_run_from_the_environment_alone(self):
        server = self.s3()
        server.bucket("bucket")
        keys = self.write("keys/credentials", f"[default]\nregion={server.region}\naws_access_key_id={server.access}\n"
                          f"aws_secret_access_key={server.secret}\n", 0o644)
        os.chmod(os.path.dirname(keys), 0o755)
        backups, data = self.path("backups"), self.path("data")
        for folder in (backups, data):
            os.mkdir(folder, 0o770)
            os.chown(folder, 7474, 7474)
        env = {"DATABASE": "neo4j,system", "CLOUD_PROVIDER": "aws", "BUCKET": "s3://bucket",
               "AWS_ENDPOINT_URL_S3": server.endpoint}
        done = self.run_pod(self.backup, {"/credentials": os.path.dirname(keys), "/backups": backups},
                            {**env, "NEO4J_ADDR": "db:6362"})
        self.assertEqual(0, done.returncode, done.stdout)
        self.assertEqual(8, len(server.objects("bucket")), done.stdout)
        self.assertNotIn("as root", done.stdout)
        self.assertEqual([".lunark-lock"], os.listdir(backups))
        volumes = {"/credentials": os.path.dirname(keys), "/data": data}
        done = self.run_pod(self.restore, volumes, {**env, "FORCE_OVERWRITE": "true"})
        self.assertEqual(0, done.returncode, done.stdout)
        for name in ("neo4j", "system"):
            with open(f"{data}/databases/{name}/neostore", encoding="utf-8") as file:
                self.assertEqual(name + "\n", file.read())
            self.assertEqual(7474, os.stat(f"{data}/databases/{name}/neostore").st_uid)
        done = self.run_pod(self.restore, volumes, {**env, "FORCE_OVERWRITE": "true"})
        self.assertTrue(re.search("nothing is done", done.stdout) and done.returncode == 0, done.stdout)
        for stage in (self.backup, self.restore):
            done = self.run_pod(stage, volumes, {"CLOUD_PROVIDER": "aws", "BUCKET": "s3://bucket"})
            self.assertEqual(2, done.returncode, done.stdout)

    def test_a_real_database(self):
        server = Neo4j(VERSION, self.path("home"))
        self.addCleanup(server.stop)
        server.start()
        server.query("UNWIND range(1, 1000) AS i CREATE (:N {i: i})")
        server.stop()
        store, data, other = self.path("store"), self.path("home", "data"), self.path("other")
        subprocess.run(["chown", "-R", "7474:7474", data], check=True)
        for folder in (store, other):
            os.mkdir(folder)
            os.chown(folder, 7474, 7474)
        env = {"DATABASE": "neo4j,system", "HEAP_SIZE": "300m"}
        done = self.run_pod(self.backup, {"/data": data, "/backups": store}, {**env, "LUNARK_TO": "/backups/store"},
                            "--method", "dump")
        self.assertEqual(0, done.returncode, done.stdout)
        done = self.run_pod(self.restore, {"/data": other, "/backups": store}, {**env, "LUNARK_FROM": "/backups/store"})
        self.assertEqual(0, done.returncode, done.stdout)
        shutil.rmtree(data)
        os.rename(other, data)
        server.start()
        self.assertEqual([[1000, 500500]], server.query("MATCH (n:N) RETURN count(n), sum(n.i)"))


if __name__ == "__main__":
    main()
