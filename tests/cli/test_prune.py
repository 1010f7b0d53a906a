# SPDX-License-Identifier: MIT
"""lunark prune on a directory: what goes, what stays and why, what is asked, and what is never touched."""
import datetime
import json
import os
import pty
import signal
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
import stored  # noqa: E402
from harness import LUNARK, Case, environment, main  # noqa: E402

START = datetime.datetime(2020, 1, 1, 2)
DAY = datetime.timedelta(days=1)


class Prune(Case):
    def setUp(self):
        super().setUp()
        self.base = self.path("store")
        os.mkdir(self.base)

    def days(self, count, item="n", **more):
        """Backups of that many days; their keys, the oldest first."""
        return [stored.backup(self.base, item, START + DAY * number, **more) for number in range(count)]

    def prune(self, *args, status=0, yes=True, **more):
        return self.lunark("prune", self.base, *args, *(["--yes"] if yes else []), status=status, **more)

    def said(self, *args, **more):
        """The plan by key, {key: (plan, why)}, and all that was said."""
        done = json.loads(self.prune("--json", *args, **more).stdout)
        return {line["key"]: (line["plan"], ", ".join(line["reasons"])) for line in done["backups"]}, done

    def archives(self):
        return [key for key in stored.keys(self.base) if "manifest" not in key and "report" not in key]


class Rules(Prune):
    def test_archive_manifest_and_report_go_together(self):
        old, kept = self.days(2, report=True)
        stored.put(self.base, "n/n-latest.dump.gz", stored.DATA)
        stored.put(self.base, "n/notes.txt", b"x")
        done = self.prune("--keep-last", "1")
        self.assertEqual(["n/n-2020-01-02T020000Z.dump.gz", "n/n-2020-01-02T020000Z.manifest.json",
                          "n/n-2020-01-02T020000Z.report.tar.gz", "n/n-latest.dump.gz", "n/notes.txt"],
                         stored.keys(self.base))
        self.assertRegex(done.stdout, rf"(?m)^n +2020-01-02T02:00:00Z +27 B +keep +last +{kept}$")
        self.assertRegex(done.stdout, rf"(?m)^n +2020-01-01T02:00:00Z +27 B +delete +no rule keeps it +{old}$")
        self.assertIn("1 backups deleted, 27 B", done.stderr)
        again, said = self.said("--keep-last", "1")
        self.assertEqual({kept: ("keep", "last")}, again)
        self.assertEqual((0, 0, []), (said["deleted"], said["status"], said["failures"]))

    def test_every_rule(self):
        keys = self.days(400)
        plan, said = self.said("--keep-daily", "3", "--keep-weekly", "2", "--keep-monthly", "2", "--keep-yearly", "2",
                               "--keep-last", "1", "--keep-within", "1d")
        by_day = {(START + DAY * number).strftime("%F"): key for number, key in enumerate(keys)}
        self.assertEqual({
            by_day["2021-02-03"]: ("keep", "last, daily 2021-02-03, weekly 2021-W05, monthly 2021-02, yearly 2021, within"),
            by_day["2021-02-02"]: ("keep", "daily 2021-02-02, within"),
            by_day["2021-02-01"]: ("keep", "daily 2021-02-01"),
            by_day["2021-01-31"]: ("keep", "weekly 2021-W04, monthly 2021-01"),
            by_day["2020-12-31"]: ("keep", "yearly 2020"),
        }, {key: line for key, line in plan.items() if line[0] != "delete"})
        self.assertEqual(len(keys) - len(self.archives()), said["deleted"])

    def test_items_and_suffixes_are_apart(self):
        """What `latest` tells apart is thinned out apart: another policy's dump is no newer copy of an archive."""
        self.days(3, "a")
        self.days(2, "b")
        stored.backup(self.base, "a", START - DAY, suffix=".tar.gz")
        stored.backup(self.base, "a", START - DAY * 2, suffix=".tar.gz")
        self.prune("--keep-last", "1", "--item", "a")
        self.assertEqual(["a/a-2019-12-31T020000Z.tar.gz", "a/a-2020-01-03T020000Z.dump.gz", "b/b-2020-01-01T020000Z.dump.gz",
                          "b/b-2020-01-02T020000Z.dump.gz"], self.archives())
        self.prune("--keep-last", "1", "--item", "nothing")
        self.prune("--keep-last", "1")
        self.assertEqual(3, len(self.archives()))

    def test_names_of_both_forms_and_equal_times(self):
        stored.backup(self.base, "n", START, style="compat")
        self.days(1)
        stored.backup(self.base, "n", START + DAY, style="compat")
        plan, _ = self.said("--keep-last", "2")
        self.assertEqual({"n/n-2020-01-02-02:00:00.dump.gz": ("keep", "last"), "n/n-2020-01-01-02:00:00.dump.gz": ("keep", "last"),
                          "n/n-2020-01-01T020000Z.dump.gz": ("delete", "")}, plan)
        self.assertEqual(["n/n-2020-01-01-02:00:00.dump.gz", "n/n-2020-01-02-02:00:00.dump.gz"], self.archives())

    def test_two_archives_of_one_name_and_time(self):
        """The manifest says whose it is; a report stays while one of them does."""
        self.days(3)
        first = stored.stem("n", START)
        stored.put(self.base, first + ".tar.gz", stored.DATA)
        stored.put(self.base, first + stored.REPORT, stored.DATA)
        plan, _ = self.said("--keep-last", "1")
        self.assertEqual(("leave", "its manifest is another archive's"), plan[first + ".tar.gz"])
        self.assertEqual([first + stored.REPORT, first + ".tar.gz"],
                         [key for key in stored.keys(self.base) if key.startswith(first)])

    def test_a_time_in_the_future(self):
        self.days(3)
        future = stored.backup(self.base, "n", datetime.datetime(2099, 1, 1))
        plan, _ = self.said("--keep-last", "1")
        self.assertEqual({future: ("keep", "in the future"), "n/n-2020-01-03T020000Z.dump.gz": ("keep", "last"),
                          "n/n-2020-01-02T020000Z.dump.gz": ("delete", ""), "n/n-2020-01-01T020000Z.dump.gz": ("delete", "")}, plan)


class Untouched(Prune):
    def test_what_is_not_a_whole_backup(self):
        """It does not count, so the newest good one stays, and it is not deleted."""
        good = self.days(3)
        after = [stored.stem("n", START + DAY * (10 + number)) for number in range(6)]
        stored.mark(self.base, stored.put(self.base, after[0] + ".dump.gz", b"incomplete"))
        stored.put(self.base, after[1] + ".dump.gz", stored.DATA)
        stored.put(self.base, after[1] + ".manifest.json", "{ no json")
        stored.put(self.base, after[2] + ".dump.gz", stored.DATA[:-1])
        stored.put(self.base, after[2] + ".manifest.json", stored.manifest(after[2] + ".dump.gz"))
        stored.put(self.base, after[3] + ".dump.gz", stored.DATA)
        stored.put(self.base, after[3] + ".manifest.json", stored.manifest(after[3] + ".dump.gz", lunark_manifest=2))
        stored.put(self.base, after[4] + ".manifest.json", stored.manifest(after[4] + ".dump.gz"))
        stored.put(self.base, after[5] + stored.REPORT, b"x")
        for key in ("n/other-2020-01-01T020000Z.tar.gz", "n/n-2020-13-01T020000Z.tar.gz", "n/n-latest.tar.gz", "n-x.tar.gz",
                    "a/b/b-2020-01-01T020000Z.tar.gz", "n/n-2020-01-01.tar.gz"):
            stored.put(self.base, key, b"somebody's")
        before = stored.keys(self.base)
        plan, _ = self.said("--keep-last", "1")
        self.assertEqual({
            after[0] + ".dump.gz": ("leave", "it has no manifest"),
            after[1] + ".dump.gz": ("leave", "its manifest can't be read"),
            after[2] + ".dump.gz": ("leave", "it has 26 bytes, its manifest says 27"),
            after[3] + ".dump.gz": ("leave", "its manifest is of a newer lunark"),
            good[2]: ("keep", "last"), good[1]: ("delete", ""), good[0]: ("delete", ""),
        }, plan)
        gone = [key for key in before if key not in stored.keys(self.base)]
        self.assertEqual([key.replace(".dump.gz", end) for key in good[:2] for end in (".dump.gz", ".manifest.json")], gone)

    def test_archives_of_others_only_with_adopt(self):
        charts = [stored.put(self.base, stored.stem("n", START + DAY * n, "compat") + ".tar.gz", b"chart's") for n in range(3)]
        half = stored.mark(self.base, stored.put(self.base, stored.stem("n", START + DAY * 9, "compat") + ".tar.gz", b"half"))
        self.prune("--keep-last", "1")
        self.assertEqual([*charts, half], self.archives())
        ours = [stored.backup(self.base, "n", START - DAY * n, suffix=".tar.gz", style="compat") for n in (1, 2)]
        plan, _ = self.said("--keep-last", "1", "--adopt")
        self.assertEqual({half: ("leave", "it is incomplete: it has no manifest"), charts[2]: ("keep", "last"),
                          charts[1]: ("delete", ""), charts[0]: ("delete", ""), ours[0]: ("keep", "newest"),
                          ours[1]: ("delete", "")}, plan)
        self.assertEqual(sorted([charts[2], half, ours[0]]), self.archives())

    def test_latest_stays_when_its_dated_one_goes(self):
        self.write("tree/file", b"x")
        self.lunark("backup", "files", self.path("tree"), "--to", self.base)
        (first,) = [key for key in self.archives() if "latest" not in key]
        time.sleep(1.1)
        self.lunark("backup", "files", self.path("tree"), "--to", self.base, "--no-latest")
        self.prune("--keep-last", "1")
        self.assertNotIn(first, self.archives())
        self.assertEqual(2, len(self.archives()))
        self.lunark("restore", "--from", self.base, "--at", "latest", "--into", self.path("into"))
        self.assertTrue(os.path.exists(self.path("into") + self.path("tree/file")))

    def test_nothing_of_a_deleted_backup_is_left(self):
        self.write("tree/file", b"x")
        self.lunark("backup", "files", self.path("tree"), "--to", self.base, "--no-latest", "--name", "n")
        stored.backup(self.base, "n", datetime.datetime.now() + DAY, suffix=".tar.gz")
        stored.backup(self.base, "n", START, suffix=".tar.gz")
        names = os.listdir(self.path("store/n"))
        self.prune("--keep-last", "1")
        self.assertEqual([], [name for name in os.listdir(self.path("store/n")) if "2020-01-01" in name])
        self.assertEqual(len(names) - 2, len(os.listdir(self.path("store/n"))))


class Asking(Prune):
    def setUp(self):
        super().setUp()
        self.keys = self.days(3)

    def terminal(self, *args):
        """The command at a terminal of its own: (pid, descriptor)."""
        pid, terminal = pty.fork()
        if pid == 0:
            try:
                os.execve(LUNARK, [LUNARK, "prune", self.base, *args], environment())
            finally:
                os._exit(99)
        self.addCleanup(os.close, terminal)
        return pid, terminal

    def talk(self, answer, *args, between=lambda: None):
        """(status, all that was printed) when the question gets that answer."""
        pid, terminal = self.terminal("--keep-last", "1", *args)
        text = b""
        while b"[y/N] " not in text:
            text += os.read(terminal, 4096)
        between()
        os.write(terminal, answer)
        while True:
            try:
                more = os.read(terminal, 4096)
            except OSError:
                break
            if not more:
                break
            text += more
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), text.decode()

    def test_yes(self):
        status, text = self.talk(b"y\n")
        self.assertEqual(0, status)
        self.assertIn("delete 2 backups, 54 B, from " + self.base + "? [y/N]", text)
        self.assertEqual(self.keys[2:], self.archives())

    def test_no(self):
        for answer in (b"\n", b"no\n", b"maybe\n", b"\x04"):
            status, text = self.talk(answer)
            self.assertEqual(0, status)
            self.assertIn("nothing is deleted", text)
            self.assertEqual(self.keys, self.archives())

    def test_interrupted(self):
        status, _ = self.talk(b"\x03")
        self.assertEqual(130, status)
        self.assertEqual(self.keys, self.archives())

    def test_nobody_can_be_asked(self):
        for more in ((), ("--json",)):
            failed = self.prune("--keep-last", "1", *more, yes=False, status=2)
            self.assertIn("lunark prune deletes only after a yes", failed.stderr)
            self.assertIn("hint: --yes is one; --dry-run shows what would be deleted", failed.stderr)
        self.assertEqual(self.keys, self.archives())

    def test_dry_run(self):
        for more in ((), ("--yes",)):
            shown = self.prune("--keep-last", "1", "--dry-run", *more, yes=False)
            self.assertEqual(2, shown.stdout.count("no rule keeps it"))
        said = json.loads(self.prune("--keep-last", "1", "--dry-run", "--json", yes=False).stdout)
        self.assertEqual((True, 0), (said["dry_run"], said["deleted"]))
        self.assertEqual(self.keys, self.archives())

    def test_usage(self):
        for args, message in (
                ((), "nothing says what is kept"), (("--keep-last", "0"), "nothing says what is kept"),
                (("--keep-last=-1",), "at least 0"), (("--keep-daily", "x"), "a whole number"),
                (("--keep-within", "1y"), "a duration like"), (("--keep-last", "1", "--item", "a/b"), "can't be a name")):
            self.assertIn(message, self.prune(*args, status=2).stderr, args)
        self.assertIn("a store expected", self.lunark("prune", os.path.join(self.base, self.keys[0]), "--keep-last", "1", "--yes",
                                                      status=2).stderr)
        self.lunark("prune", self.path("nothing"), "--keep-last", "1", "--yes", status=3)
        self.assertEqual(self.keys, self.archives())

    def test_what_changed_meanwhile_is_not_deleted(self):
        """Someone deletes the newest while the question stands: the plan's next one stays."""
        def between():
            os.unlink(os.path.join(self.base, self.keys[2]))
        status, text = self.talk(b"y\n", between=between)
        self.assertEqual(0, status)
        self.assertIn(f"{self.keys[1]} stays: what is stored has changed", text)
        self.assertEqual([self.keys[1]], self.archives())

    def test_what_was_replaced_meanwhile_is_not_deleted(self):
        def between():
            stored.backup(self.base, "n", START, data=stored.DATA + b"more")
            os.unlink(os.path.join(self.base, self.keys[1]))
        status, _ = self.talk(b"y\n", between=between)
        self.assertEqual(0, status)
        self.assertEqual([self.keys[0], self.keys[2]], self.archives())

    def test_a_signal(self):
        pid, terminal = self.terminal("--keep-last", "1")
        while b"[y/N] " not in os.read(terminal, 4096):
            pass
        os.kill(pid, signal.SIGTERM)
        self.assertEqual(143, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        self.assertEqual(self.keys, self.archives())


if __name__ == "__main__":
    main()
