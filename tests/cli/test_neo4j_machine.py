# SPDX-License-Identifier: MIT
"""lunark backup neo4j and the machine it runs on: a work folder that is small, full or on a network file system, the memory
of a container. Each in name spaces of its own: a mount is real, or what the kernel says of it is replaced."""
import os
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
from harness import LUNARK, environment, main  # noqa: E402
from neo4j_case import Neo4jCase  # noqa: E402


class Place(Neo4jCase):
    def elsewhere(self, prepare, *args, status=0, **env):
        """Runs lunark after a line of shell in a name space for mounts; that is the same process."""
        os.makedirs(self.work, exist_ok=True)
        done = subprocess.run(["unshare", "--user", "--map-root-user", "--mount", "sh", "-ec", f'{prepare}; exec "$@"', "sh",
                               LUNARK, *args], env=environment(**self.env(**env)), capture_output=True, text=True, timeout=120)
        self.assertEqual(status, done.returncode, done.stderr)
        return done

    def in_small(self, size, *args, **how):
        return self.elsewhere(f"mount -t tmpfs -o size={size} none {self.work}", *args, **how)


class NoRoom(Place):
    def test_full_at_half(self):
        done = self.in_small("1m", *self.args(), NEO4J_TEST_BYTES="3000000", status=1)
        self.assertRegex(done.stderr, "lunark: neo4j: neo4j-admin ended with status 1: .*No space left on device")
        self.assertRegex(done.stderr, f"hint: .* are free in {self.work}/.*: make room")
        self.assertEqual([], self.objects())

    def test_the_backup_before_was_larger(self):
        self.backup("--work-dir", self.path("other"), database="neo4j", NEO4J_TEST_BYTES="3000000")
        done = self.in_small("1m", *self.args(database="neo4j"), status=1)
        self.assertIn("the backup before had 2.9 MiB", done.stderr)
        self.assertEqual(1, len(self.calls()))

    def test_the_store_folder_is_all_that_needs_room(self):
        """What can't be compressed, in a work folder with room for one database and 2 MiB: no archive, no part of one."""
        size = 64 << 20
        server = self.s3()
        bucket = server.bucket("bucket")
        self.in_small(f"{size + (2 << 20)}", *self.args("--to", server.url(bucket, "x"), "--no-check-space"),
                      NEO4J_TEST_BYTES=str(size), TMPDIR="/nowhere", **server.env())
        self.assertEqual([size, size], [self.manifest(self.archives(d)[0])["archive"]["bytes"] // (1 << 20) << 20
                                        for d in ("neo4j", "system")])
        self.assertEqual(8, len(server.objects(bucket)))
        self.in_small(f"{size - (1 << 20)}", *self.args("--no-check-space"), NEO4J_TEST_BYTES=str(size), status=1)


class Warned(Place):
    MESSAGE = "backups over a network file system are slow and may be damaged"

    def seen(self, name, text):
        """A line of shell that puts another text into this process's own file of that name below /proc."""
        return f"mount --bind {self.write('seen-' + name, text)} /proc/$$/{name}"

    def test_network_file_systems(self):
        base = self.path("some where")
        os.mkdir(base)
        link = self.path("link")
        os.symlink(base, link)
        with open("/proc/self/mounts", encoding="utf-8") as file:
            mounts = file.read()
        for kind, said in (("nfs", True), ("nfs4", True), ("cifs", True), ("ext4", False), ("tmpfs", False)):
            prepare = self.seen("mounts", mounts + f"server:/x {base} {kind} rw 0 0\n".replace("some where", r"some\040where"))
            for folder in (base, base + "/below", link):
                args = self.args("--backup-dir", folder)
                done = self.elsewhere(prepare, *args)
                self.assertEqual(said, f"{folder} is on {kind}: {self.MESSAGE}" in done.stderr, done.stderr)
            self.elsewhere(prepare, *self.args("--backup-dir", base, "--strict"), status=5)
            done = self.elsewhere(prepare, *self.args("--work-dir", base, database="system"))
            self.assertEqual(said, f"is on {kind}: {self.MESSAGE}" in done.stderr, done.stderr)
        self.assertNotIn(self.MESSAGE, self.in_small("10m", *self.args()).stderr, "a mount that is one")

    def limited(self, version, limit):
        """Prepares a control group with a limit of memory."""
        name = "memory.max" if version == 2 else "memory.limit_in_bytes"
        base = os.path.dirname(self.write(f"group{version}/pod/{name}", f"{limit}\n"))
        controller = "" if version == 2 else "memory"
        kind = "cgroup2 cgroup2 rw" if version == 2 else "cgroup cgroup rw,memory"
        return "; ".join((
            self.seen("cgroup", f"{0 if version == 2 else 4}:{controller}:/pod\n"),
            self.seen("mountinfo", f"31 23 0:28 / {os.path.dirname(base)} rw - {kind}\n")))

    def test_memory_of_the_container(self):
        message = "heap, page cache and lunark want "
        for version in (1, 2):
            prepare = self.limited(version, 4 << 30)
            done = self.elsewhere(prepare, *self.args("--heap-size", "2G", "--pagecache", "2G"))
            self.assertRegex(done.stderr, message + "4.1 GiB of memory, there are 4.0 GiB")
            self.assertIn("4.0 GiB", done.stderr)
            done = self.elsewhere(prepare, *self.args("--heap-size", "2G", "--pagecache", "1900m"))
            self.assertNotIn(message, done.stderr)
            done = self.elsewhere(prepare, *self.args("--heap-size", "1G", "--pagecache", "500m", "--jobs", "2"))
            self.assertNotIn(message, done.stderr)
            for databases in ("a,b,c,system", "*"):
                done = self.elsewhere(prepare, *self.args("--heap-size", "1G", "--pagecache", "500m", "--jobs", "3",
                                                          database=databases))
                self.assertIn(message + "4.5 GiB of memory, there are 4.0 GiB", done.stderr)
            self.elsewhere(prepare, *self.args("--heap-size", "4G", "--strict"), status=5)
        done = self.elsewhere(self.limited(2, "max"), *self.args("--heap-size", "10m", "--pagecache", "10m"))
        self.assertNotIn(message, done.stderr)


if __name__ == "__main__":
    main()
