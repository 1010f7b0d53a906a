# SPDX-License-Identifier: MIT
"""The command as containers run it: PID 1, no passwd entry, no home, read-only root, few descriptors, deaf stdout;
and what is left when it is killed at any moment, or when two runs meet."""
import glob
import gzip
import os
import random
import shutil
import signal
import subprocess
import sys
import tarfile
import time
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
from harness import LUNARK, Case, describe, environment, load_json, main, make_tree  # noqa: E402

ROOT_ONLY = unittest.skipUnless(os.geteuid() == 0, "needs root: namespaces, mounts or another uid")


def children(pid):
    """Direct children of a process."""
    found = []
    for path in glob.glob(f"/proc/{pid}/task/*/children"):
        try:
            with open(path) as file:
                found += [int(p) for p in file.read().split()]
        except OSError:
            pass
    return found


def descendants(pid):
    found = []
    for child in children(pid):
        found += [child, *descendants(child)]
    return found


class Container(Case):
    def big(self, mib=64):
        path = self.path("big", "data")
        os.makedirs(self.path("big"))
        with open(path, "wb") as file:
            for _ in range(mib):
                file.write(random.randbytes(1 << 20))
        return self.path("big")

    @ROOT_ONLY
    def test_pid_1_ends_on_term_in_the_middle_of_an_upload(self):
        server = self.s3()
        bucket = server.bucket("bucket")
        outer = subprocess.Popen(
            ["unshare", "--pid", "--fork", "--mount-proc", LUNARK, "backup", "files", self.big(), "--to",
             server.url(bucket), "--name", "n", "--limit-rate", "8M", "--progress", "none"],
            env=environment(**server.env()), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self.addCleanup(lambda: (outer.poll() is None and outer.kill(), outer.wait(), outer.stdout.close()))
        for _ in range(200):
            if server.uploads(bucket):
                break
            time.sleep(0.05)
        self.assertTrue(server.uploads(bucket), "the upload never began")
        inner = children(outer.pid)
        self.assertEqual(1, len(inner))
        began = time.monotonic()
        os.kill(inner[0], signal.SIGTERM)
        out, _ = outer.communicate(timeout=30)
        self.assertEqual(143, outer.returncode, out)
        self.assertLess(time.monotonic() - began, 20)
        self.assertEqual([], server.uploads(bucket), "an upload is still open")
        self.assertEqual([], server.objects(bucket))

    @ROOT_ONLY
    def test_pid_1_ends_its_programs_and_reaps_orphans(self):
        script = self.write("s.lua", 'local exec = require "lunark.exec"\n'
                            'exec.run{"sh", "-c", "(sleep 300 & ) ; (sh -c \'exit 3\' & ) ; exec sleep 300"}\n')
        outer = subprocess.Popen(["unshare", "--pid", "--fork", "--mount-proc", LUNARK, "run", "--allow", "exec=*", script],
                                 env=environment(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                 stderr=subprocess.STDOUT)
        self.addCleanup(lambda: (outer.poll() is None and outer.kill(), outer.wait(), outer.stdout.close()))
        time.sleep(1.5)
        inner = children(outer.pid)[0]
        for child in descendants(inner):
            with open(f"/proc/{child}/stat") as stat:
                self.assertNotIn(" Z ", stat.read(), "a zombie is kept")
        os.kill(inner, signal.SIGTERM)
        out, _ = outer.communicate(timeout=30)
        self.assertEqual(143, outer.returncode, out)

    @ROOT_ONLY
    def test_unknown_uid_without_home_on_a_read_only_root_with_256_descriptors(self):
        tree = make_tree(self.path("src"))
        os.chmod(self.dir, 0o777)
        subprocess.run(["chown", "-R", "12345:12345", tree], check=True)
        work = self.path("work")
        os.mkdir(work, 0o777)
        os.chmod(work, 0o777)
        # A mount namespace of its own: everything read-only but the one folder.
        script = (f"mount --bind {work} {work} && mount -o remount,bind,ro / && "
                  f"exec prlimit --nofile=256:256 setpriv --reuid 12345 --regid 12345 --clear-groups --no-new-privs "
                  f"env -i PATH=/usr/bin:/bin {LUNARK} \"$@\"")
        for args in (["backup", "files", tree, "--to", work + "/store", "--name", "n"],
                     ["list", work + "/store"],
                     ["restore", "--from", work + "/store", "--item", "n", "--into", work + "/into"]):
            done = subprocess.run(["unshare", "-m", "sh", "-c", script, "sh", *args], capture_output=True, text=True,
                                  stdin=subprocess.DEVNULL)
            self.assertEqual(0, done.returncode, f"{args}: {done.stdout}{done.stderr}")
        self.assertEqual(describe(tree), describe(work + "/into/" + tree.lstrip("/")))

    def test_stdout_closed(self):
        tree = make_tree(self.path("src"))
        done = subprocess.run(["sh", "-c", f'exec "$@" >&-', "sh", LUNARK, "backup", "files", tree, "--to",
                               self.path("store"), "--name", "n", "--json"], env=environment(), stderr=subprocess.PIPE,
                              stdin=subprocess.DEVNULL)
        self.assertEqual(0, done.returncode, done.stderr)
        self.lunark("restore", "--from", self.path("store"), "--item", "n", "--into", self.path("into"))

    def test_everything_closed(self):
        tree = make_tree(self.path("src"))
        done = subprocess.run(["sh", "-c", 'exec "$@" >&- 2>&- <&-', "sh", LUNARK, "backup", "files", tree, "--to",
                               self.path("store"), "--name", "n"], env=environment())
        self.assertEqual(0, done.returncode)
        self.lunark("restore", "--from", self.path("store"), "--item", "n", "--into", self.path("into"))
        self.assertEqual(describe(tree), describe(self.path("into") + tree))

    def test_output_that_nobody_reads_does_not_stop_a_backup(self):
        tree = make_tree(self.path("src"), files=3000)
        read, write = os.pipe()
        try:
            child = self.start("backup", "files", tree, "--to", self.path("store"), "--name", "n", "--log-level", "debug",
                               "--json", stdout=write, stderr=write)
            # The pipe is full before the command starts: every write of it would block for ever.
            os.set_blocking(write, False)
            try:
                while True:
                    os.write(write, b"x" * 4096)
            except BlockingIOError:
                os.set_blocking(write, True)
            self.assertEqual(0, child.wait(60))
        finally:
            os.close(read)
            os.close(write)
        self.assertEqual(1, len(glob.glob(self.path("store/n/n-2*.tar.gz"))))


class Killed(Case):
    def check_store(self, objects, read):
        """Every visible archive is whole and has what the tree had; every manifest has its archive."""
        for key in objects:
            if key.endswith(".tar.gz"):
                with read(key) as file, tarfile.open(fileobj=file, mode="r:gz") as archive:
                    names = archive.getnames()
                self.assertTrue(names)
            if key.endswith(".manifest.json"):
                self.assertIn(key.replace(".manifest.json", ".tar.gz"), objects)

    def rounds(self, url, env, objects, read, count):
        tree = self.path("src")
        os.makedirs(tree)
        with open(tree + "/a", "wb") as file:
            file.write(random.Random(3).randbytes(24 << 20))
        began = time.monotonic()
        self.lunark("backup", "files", tree, "--to", url, "--name", "n", env=env)
        whole = time.monotonic() - began
        rng = random.Random(11)
        killed = 0
        for _ in range(count):
            child = self.start("backup", "files", tree, "--to", url, "--name", "n", env=env)
            try:
                child.wait(rng.uniform(0.02, whole * 1.1))
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
                killed += 1
            self.check_store(objects(), read)
        self.assertGreater(killed, 0, "nothing was killed: the run is too short")
        self.lunark("restore", "--from", url, "--item", "n", "--into", self.path("into"), env=env)
        self.assertEqual(describe(tree), describe(self.path("into") + tree))

    def test_kill_at_random_moments_local(self):
        store = self.path("store")

        def objects():
            return [os.path.relpath(os.path.join(d, f), store) for d, _, files in os.walk(store) for f in files
                    if not f.startswith(".")]
        self.rounds(store, {}, objects, lambda key: open(os.path.join(store, key), "rb"), 25)

    def test_kill_at_random_moments_s3(self):
        server = self.s3()
        bucket = server.bucket("bucket")
        self.rounds(server.url(bucket), server.env(), lambda: server.objects(bucket),
                    lambda key: server.read(bucket, key), 15)

    def test_two_runs_at_once_and_the_older_finishes_last(self):
        tree = self.path("src")
        os.makedirs(tree)
        with open(tree + "/a", "wb") as file:
            file.write(random.randbytes(6 << 20))
        server = self.s3()
        url = server.url(server.bucket("bucket"))
        for to, env in ((self.path("store"), {}), (url, server.env())):
            older = self.start("backup", "files", tree, "--to", to, "--name", "n", "--limit-rate", "2M", "--json", env=env)
            time.sleep(1.2)
            with open(tree + "/b", "wb") as file:
                file.write(b"newer")
            self.lunark("backup", "files", tree, "--to", to, "--name", "n", env=env)
            out, err = older.communicate(timeout=60)
            self.assertEqual(0, older.returncode, err)
            into = self.path("into")
            for at in ((), ("--at", "latest")):
                shutil.rmtree(into, ignore_errors=True)
                self.lunark("restore", "--from", to, "--item", "n", *at, "--into", into, env=env)
                self.assertTrue(os.path.exists(into + tree + "/b"), f"{to} {at}: the older run's backup counts as newest")
            listed = self.lunark("list", to, "--json", env=env)
            self.assertIn("n-", listed.stdout)
            os.unlink(tree + "/b")

    def test_same_second_twice(self):
        tree = make_tree(self.path("src"), files=3)
        runs = [self.start("backup", "files", tree, "--to", self.path("store"), "--name", "n") for _ in range(4)]
        for child in runs:
            _, err = child.communicate(timeout=60)
            self.assertEqual(0, child.returncode, err)
        archives = glob.glob(self.path("store/n/n-2*.tar.gz"))
        self.assertEqual(4, len(archives), "a run has overwritten another's object")
        for archive in archives:
            manifest = load_json(archive.replace(".tar.gz", ".manifest.json"))
            self.assertTrue(manifest)
            with gzip.open(archive) as file:
                file.read()


class Disk(Case):
    @ROOT_ONLY
    def test_full_disk(self):
        store = self.path("small")
        os.mkdir(store)
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", store], check=True)
        self.addCleanup(subprocess.run, ["umount", store])
        tree = self.path("src")
        os.makedirs(tree)
        with open(tree + "/a", "wb") as file:
            file.write(random.randbytes(20 << 20))
        small = self.path("src2")
        os.makedirs(small)
        with open(small + "/a", "wb") as file:
            file.write(b"first")
        self.lunark("backup", "files", small, "--to", store, "--name", "n")
        before = sorted(glob.glob(store + "/**", recursive=True, include_hidden=True))
        failed = self.lunark("backup", "files", tree, "--to", store, "--name", "n", status=None)
        self.assertIn(failed.returncode, (1, 3), failed.stderr)
        self.assertRegex(failed.stderr, "no space left")
        self.assertIn(store, failed.stderr)
        self.assertEqual(before, sorted(glob.glob(store + "/**", recursive=True, include_hidden=True)))
        self.lunark("restore", "--from", store, "--item", "n", "--into", self.path("into"))
        self.assertTrue(os.path.exists(self.path("into") + small + "/a"))


if __name__ == "__main__":
    main()
