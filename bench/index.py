# SPDX-License-Identifier: MIT
"""One file, and the list of files, out of a large archive on an S3 server on loopback: seconds, bytes and requests."""
import json
import os
import random
import shutil
import socket
import subprocess
import threading

from measure import LUNARK, ROUNDS, head, row, run

FILES = int(os.environ.get("BENCH_FILES", "42000"))
MEAN = int(os.environ.get("BENCH_GIB", "4")) * (1 << 30) // FILES
WANTED = "usr/f020/text 20020"


class Relay:
    """Passes connections on to a port and counts what comes back."""

    def __init__(self, port):
        self.port, self.bytes, self.requests = port, 0, 0
        self.server = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                near, _ = self.server.accept()
            except OSError:
                return
            far = socket.create_connection(("127.0.0.1", self.port))
            threading.Thread(target=self.copy, args=(near, far, False), daemon=True).start()
            threading.Thread(target=self.copy, args=(far, near, True), daemon=True).start()

    def copy(self, source, to, back):
        while data := source.recv(1 << 16):
            if back:
                self.bytes += len(data)
            else:
                self.requests += data.count(b" HTTP/1.1\r\n")
            try:
                to.sendall(data)
            except OSError:
                break
        to.close()

    def close(self):
        self.server.close()


def make_files(into):
    """Files of 1 KB to 4 MiB, text and noise in turn; what is stored is about BENCH_GIB."""
    rng = random.Random(1)
    text = "".join(f"{n} {rng.choice(('GET', 'PUT'))} /some/path/{rng.random()} 200\n" for n in range(40000)).encode()
    for number in range(FILES):
        folder = f"{into}/usr/f{number // 1000:03}"
        os.makedirs(folder, exist_ok=True)
        size = 1000 if number % 20 == 0 else int(rng.paretovariate(1.2) * MEAN / 2.2)
        size = min(size, 4 << 20) if number % 20 else size
        kind = "text" if number % 2 == 0 else "noise"
        start = rng.randrange(len(text) // 2)
        data = rng.randbytes(size) if number % 2 else (text[start:] * (size // len(text) + 2))[:size]
        with open(f"{folder}/{kind} {number}", "wb") as file:
            file.write(data)


def measure(name, command, server, wanted_ms, wanted_bytes=None):
    relay = Relay(int(server.endpoint.rsplit(":", 1)[1]))
    direct = command(server.endpoint)
    seconds = sorted(run(direct)[0] for _ in range(max(ROUNDS, 5) * 2))
    peak = max(run(direct, watch=True)[2] for _ in range(3))
    run(command(f"http://127.0.0.1:{relay.server.getsockname()[1]}"))
    relay.close()
    row(name, f"**{seconds[len(seconds) // 2] * 1000:.0f}** (under {wanted_ms})", f"{seconds[0] * 1000:.0f}",
        f"{relay.bytes / 1024:.0f}" + (f" (under {wanted_bytes >> 10})" if wanted_bytes else ""), relay.requests,
        f"{peak / 1024:.1f}")


def bench(scratch, server):
    source, into = os.path.join(scratch, "tree"), os.path.join(scratch, "into")
    make_files(source)

    def url(endpoint):
        return f"s3://ours/b?endpoint={endpoint}"
    run(f"cd {source} && {LUNARK} backup files usr --to '{url(server.endpoint)}' --name t --compress fast --progress none")
    shutil.rmtree(source)
    listed = json.loads(subprocess.run([LUNARK, "list", url(server.endpoint), "--json"], stdout=subprocess.PIPE,
                                       check=True, env=dict(os.environ, **server.servers.env)).stdout)["backups"][0]
    head(f"Looking into an archive of {FILES} files, {listed['size'] / (1 << 30):.2f} GiB, on S3 (versitygw)", "what",
         "median ms", "fastest ms", "KiB read", "requests", "peak MiB")

    def archive(endpoint):
        return f"s3://ours/b/{listed['key']}?endpoint={endpoint}"
    quiet = "--progress none --log-level warn"

    def restore(place, path):
        return lambda endpoint: f"rm -rf {into}; exec {LUNARK} restore --from '{place(endpoint)}' --into {into} {quiet} --path '{path}'"
    measure("one file of 1 KB, the archive named", restore(archive, WANTED), server, 150, 2 << 20)
    measure("one file of 1 KB, the newest backup", restore(url, WANTED), server, 150, 2 << 20)
    measure("50 files by a glob", restore(archive, "usr/f0[0-4]?/text ??0[02]0"), server, 1000)
    measure("list of all files", lambda endpoint: f"exec {LUNARK} list --files '{archive(endpoint)}'", server, 300)
    measure("list of one directory", lambda endpoint: f"exec {LUNARK} list --files '{archive(endpoint)}' --path usr/f020",
            server, 300)
