# SPDX-License-Identifier: MIT
"""The inputs of tests/fuzz/corpus, run once more by each libFuzzer target."""
import os
import sys
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import run  # noqa: E402


class Corpus(unittest.TestCase):
    pass


def replayed(target):
    def test(self):
        program = os.path.join(run.BUILD, "fuzz_" + target)
        if not os.path.exists(program):
            self.skipTest("the targets are not built: make BUILD=fuzz fuzz-targets, with clang and its libFuzzer")
        inputs = len(os.listdir(os.path.join(run.CORPUS, target)))
        done = run.replay(target)
        self.assertEqual(0, done.returncode, done.stdout[-8000:])
        self.assertIn(f"{inputs} files found", done.stdout)
    return test


for name in run.targets():
    setattr(Corpus, "test_" + name, replayed(name))

if __name__ == "__main__":
    unittest.main(verbosity=2)
