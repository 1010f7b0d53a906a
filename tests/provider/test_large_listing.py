# SPDX-License-Identifier: MIT
"""10,001 backups in a store beside 100,000 objects of others: listed whole, in order, and the newest is restored."""
import datetime
import gzip
import json
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
from harness import Case, main  # noqa: E402

COUNT, FOREIGN = 10001, 100000


class Listing(Case):
    def fill(self, base):
        """The files, as if other tools had put them there."""
        start = datetime.datetime(2020, 1, 1)
        item = os.path.join(base, "p", "n")
        os.makedirs(item)
        whole = gzip.compress(b"a dump")
        for number in range(COUNT):
            stamp = (start + datetime.timedelta(hours=number)).strftime("%Y-%m-%dT%H%M%SZ")
            with open(os.path.join(item, f"n-{stamp}.txt.gz"), "wb") as file:
                file.write(whole)
        for number in range(FOREIGN):
            folder = os.path.join(base, ("o", "p-", "pp", "q")[number % 4], str(number % 100))
            if number < 400:
                os.makedirs(folder, exist_ok=True)
            os.close(os.open(os.path.join(folder, f"n-{number}.txt.gz"), os.O_CREAT | os.O_WRONLY))
        self.newest = stamp

    def check(self, url, env):
        listed = json.loads(self.lunark("list", url, "--json", env=env).stdout)["backups"]
        times = [found["time"] for found in listed]
        self.assertEqual(COUNT, len(times))
        self.assertEqual(COUNT, len(set(times)))
        self.assertEqual(sorted(times, reverse=True), times)
        self.lunark("restore", "--from", url, "--into", self.path("into"), "--overwrite", env=env)
        with open(self.path("into", "n.txt"), "rb") as file:
            self.assertEqual(b"a dump", file.read())
        self.assertEqual(self.newest, times[0].replace(":", ""))

    def test_s3_and_the_directory_that_is_behind_it(self):
        server = self.s3()
        if not server.data:
            self.skipTest("a server over a folder is needed: versitygw")
        self.fill(os.path.join(server.data, "bucket"))
        for url in (server.url("bucket", "p"), os.path.join(server.data, "bucket", "p")):
            self.check(url, server.env())


if __name__ == "__main__":
    main()
