# SPDX-License-Identifier: MIT
"""Random commands on a store against a simple model of it: what is whole is restored, what is damaged is refused, and
nothing else changes, whatever is killed and wherever the disk is full.

test_model.py [--seed N] [--steps N] [--store local|s3] runs one sequence; the same seed is the same sequence."""
import argparse
import os
import random
import shutil
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
from harness import Case, S3Server, main  # noqa: E402
from model import START, Model  # noqa: E402
from model_steps import Steps  # noqa: E402
from servers import Unavailable  # noqa: E402

FIXED = 6  # the seed that each run has
MEMORY = "/dev/shm"


def scratch_folder():
    """In memory, where that keeps extended attributes: a step takes many small files."""
    folder = tempfile.mkdtemp(prefix="lunark-test.", dir=MEMORY if os.path.isdir(MEMORY) else None)
    try:
        os.setxattr(folder, "user.test", b"")
        os.removexattr(folder, "user.test")
    except OSError:
        os.rmdir(folder)
        folder = tempfile.mkdtemp(prefix="lunark-test.")
    os.chmod(folder, 0o755)
    return folder


def run(seed, steps, store, seconds=None):
    """One sequence, or as much of it as fits into that time. What was done is told; the last of it if it fails."""
    scratch, server, number = scratch_folder(), None, 0
    began = time.monotonic()
    try:
        server = S3Server(scratch) if store == "s3" else None
        if server and not server.data:
            raise Unavailable("the model test needs versitygw")
        model = Steps(scratch, seed, random.Random(f"{seed} tree"), server)
        try:
            for number in range(1, steps + 1):
                model.step(number)
                if seconds and time.monotonic() - began > seconds:
                    break
            model.everything()
        except Exception:
            for step in model.history:
                print("\n    ".join(step), file=sys.stderr)
            print("standard error of the last command:\n" + model.stderr, file=sys.stderr)
            print(f"model: seed {seed}, store {store}, failed in step {number}; to do it again: "
                  f"make model SEED={seed} STEPS={number} STORE={store}", file=sys.stderr)
            raise
        print(f"model: seed {seed}, store {store}: {number} steps in {time.monotonic() - began:.0f} s:",
              ", ".join(f"{count} {name}" for name, count in sorted(model.count.items())), file=sys.stderr)
    finally:
        if server:
            server.stop()
        shutil.rmtree(scratch, True)


class EachChange(Case):
    """What a backup does to the files of a local store, ended or refused before each change in turn."""
    MOST = 60

    def backups(self, trouble, statuses):
        """A backup for each change that one makes, each with trouble before another one; what was there after each."""
        self.write("tree/file", "x")
        model = Model(self.path("scratch"), 0, random.Random(0))
        for number in range(1, self.MOST):
            done = model.lunark("backup", "files", self.path("tree"), "--to", model.store.url, clock=START + number * 60,
                                trouble=f"{number}:{trouble}", statuses=statuses)
            yield model.store, done
            if done.returncode == 0 and number > 30:
                return
        self.fail("the trouble never came to an end")

    def setUp(self):
        super().setUp()
        os.mkdir(self.path("scratch"))

    def test_sigterm(self):
        ended = 0
        for store, done in self.backups("s15", {0, 143}):
            self.assertEqual(set(), store.unfinished())
            ended += done.returncode == 143
        self.assertGreater(ended, 15)

    def test_a_full_disk(self):
        failed = 0
        for store, done in self.backups("e28", {0, 1, 3}):
            self.assertEqual(set(), store.unfinished())
            failed += done.returncode > 0
        self.assertGreater(failed, 5)


    def test_latest_and_its_marks_belong_together(self):
        """Killed anywhere, also when the archive before has the same size and the same time."""
        model, latest = Model(self.path("scratch"), 0, random.Random(0)), "tree/tree-latest.tar.gz"
        words = ["backup", "files", self.path("tree"), "--compress", "none", "--to", model.store.url]
        for number in range(12, 45):
            self.write("tree/file", f"{number}")
            os.utime(self.path("tree"), (number, number))
            model.lunark(*words, clock=START + number * 60)
            self.write("tree/file", f"{number + 50}")
            done = model.lunark(*words, clock=START + number * 60 + 30, trouble=f"{number}:s9", statuses={0, -9})
            model.lunark("restore", "--from", model.store.path(latest), "--into", model.target())
            if done.returncode == 0:
                return
        self.fail("nothing was killed in the end")


class ModelTest(Case):
    """Short ones; `make model` runs long ones."""

    def test_the_same_steps_each_time(self):
        run(FIXED, 300, "local", 40)

    def test_other_steps_each_time(self):
        run(random.SystemRandom().randrange(10**6), 300, "local", 20)

    def test_s3(self):
        run(FIXED, 60, "s3", 20)


if __name__ == "__main__":
    if any(word.startswith("--s") for word in sys.argv):
        parser = argparse.ArgumentParser()
        parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
        parser.add_argument("--steps", type=int, default=3000)
        parser.add_argument("--store", choices=("local", "s3"), default="local")
        given = parser.parse_args()
        run(given.seed, given.steps, given.store)
    else:
        main()
