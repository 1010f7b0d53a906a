# SPDX-License-Identifier: MIT
"""How long it takes to thin out very many backups: in a directory, and in a bucket behind a server on loopback."""
import datetime
import os
import shutil
import sys

from measure import LUNARK, ROOT, head, row, run

sys.path.insert(0, os.path.join(ROOT, "tests", "support"))
import stored  # noqa: E402

COUNT = int(os.environ.get("BENCH_BACKUPS", "10000"))
START = datetime.datetime(2020, 1, 1)


def fill(base):
    """Backups of an item, one each hour, as lunark leaves them."""
    shutil.rmtree(base, ignore_errors=True)
    for number in range(COUNT):
        stored.backup(base, "n", START + datetime.timedelta(hours=number))


def prune(url, *more):
    """(seconds, CPU seconds, peak KiB)"""
    return run([LUNARK, "prune", url, "--keep-daily", "30", "--keep-monthly", "12", *more, "--log-level", "error"],
               watch=True)


def bench(scratch, server):
    head(f"Thinning {COUNT} backups out to 40", "store", "plan s", "all s", "CPU s", "peak MiB", "a night later s", "wanted")
    for name, url, base in (("directory", os.path.join(scratch, "d"), os.path.join(scratch, "d")),
                            ("s3 (versitygw)", server.ours, os.path.join(server.data, "ours", "b"))):
        fill(base)
        plan, _, _ = prune(url, "--dry-run")
        whole, cpu, peak = prune(url, "--yes")
        left = len([key for key in stored.keys(base) if key.endswith(".dump.gz")])
        if left != 40:
            raise SystemExit(f"{left} backups are left, 40 expected")
        night, _, _ = prune(url, "--yes")
        row(name, f"{plan:.1f}", f"**{whole:.1f}**", f"{cpu:.1f}", f"{peak / 1024:.0f}", f"{night:.2f}", "seconds, at most 64 MiB")
