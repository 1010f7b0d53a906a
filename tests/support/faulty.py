#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""faulty.py - an HTTP server that does what a script says: delays, breaks, lies, stalls, or loses an answer.

    faulty.py [--script FILE] [--log FILE] [--upstream http://HOST:PORT] [--cert PEM --key PEM] [--port N]
              [--ready FILE] [--stay]

Prints `port N` when it listens on 127.0.0.1 (and writes N to the file of --ready), and runs until its standard input
ends (--stay: until its parent is gone) or TERM comes. FILE holds a JSON list of steps. A request is answered by the
first step that matches and is not used up; without one it goes to the upstream, or gets 404. Keys of a step, all
optional:

  match       {"method": regexp, "path": regexp, "header": {name: regexp}}; whole method, search in the path with query
  times       how many requests it answers, default 1; 0 = any number
  read        read only so many bytes of the request's body (what follows the answer is not read)
  delay       seconds before anything is answered
  drop        true: close the connection in place of an answer; "reset": with RST
  forward     true: ask the upstream and use its answer (what follows changes that); with drop = a lost answer
  hold        seconds to stay silent in place of an answer
  informational  list of statuses sent first, such as [100, 103]
  status, reason, headers   headers is {name: value} or [[name, value], ...]
  body        text, or {"bytes": N}: a repeating pattern (byte i is i mod 251), or {"echo": true}: the request's body
  chunked     true: Transfer-Encoding: chunked instead of Content-Length;  trailers  {name: value} after it
  length      the Content-Length to claim
  close_after, reset_after, stall_after   N bytes of the body, then close, RST, or silence until the client goes
  rate        bytes per second of the answer's body
  close       true: end the connection after this answer

--log appends a JSON line per request: {"n", "connection", "method", "path", "version", "headers" (list of pairs as
sent), "bytes", "sha256", "complete", "step"}. A request with an absolute URL (to a proxy) and CONNECT are logged with
that as path; CONNECT is tunnelled when no step matches."""
import argparse
import hashlib
import http.client
import json
import os
import re
import select
import signal
import socket
import ssl
import struct
import sys
import threading
import time
from urllib.parse import urlsplit

PIECE = 65536
PATTERN = bytes(i % 251 for i in range(251 * 1024))  # 251 KiB: whole periods


def pattern(start, count):
    """`count` bytes of the pattern from offset `start`."""
    at = start % 251
    return PATTERN[at:at + count] if at + count <= len(PATTERN) else (PATTERN * 2)[at:at + count]


class Gone(Exception):
    """The client has closed."""


class Connection:
    def __init__(self, server, sock, number):
        self.server, self.sock, self.number = server, sock, number
        self.buffer = b""

    # --- reading ---
    def fill(self):
        data = self.sock.recv(PIECE)
        if not data:
            raise Gone
        self.buffer += data

    def line(self):
        while b"\n" not in self.buffer:
            if len(self.buffer) > 1 << 20:
                raise Gone
            self.fill()
        line, self.buffer = self.buffer.split(b"\n", 1)
        return line.rstrip(b"\r").decode("latin-1")

    def take(self, count):
        while count > 0:
            if not self.buffer:
                self.fill()
            piece, self.buffer = self.buffer[:count], self.buffer[count:]
            count -= len(piece)
            yield piece

    def body(self, headers, limit, keep):
        """Reads the request's body, at most `limit` bytes: (bytes or None, count, sha256, complete)."""
        digest, kept, count = hashlib.sha256(), [], 0

        def pieces():
            if "chunked" in headers.get("transfer-encoding", ""):
                while True:
                    size = int(self.line().split(";")[0], 16)
                    yield from self.take(size)
                    if size == 0:
                        while self.line():
                            pass
                        return
                    self.line()
            else:
                yield from self.take(int(headers.get("content-length", 0)))

        for piece in pieces():
            if limit is not None and count + len(piece) > limit:
                return None, count, digest.hexdigest(), False
            count += len(piece)
            digest.update(piece)
            if keep:
                kept.append(piece)
        return b"".join(kept) if keep else None, count, digest.hexdigest(), True

    # --- one request ---
    def serve(self):
        try:
            while self.request():
                pass
        except (Gone, OSError, ValueError):
            pass
        finally:
            try:
                self.sock.close()
            except OSError:
                pass

    def request(self):
        start = self.line()
        while not start:
            start = self.line()
        method, path, version = start.split(" ", 2)
        pairs = []
        while line := self.line():
            name, value = line.split(":", 1)
            pairs.append((name, value.strip()))
        headers = {name.lower(): value for name, value in pairs}
        number, step = self.server.choose(method, path, headers)
        entry = {"n": number, "connection": self.number, "method": method, "path": path, "version": version,
                 "headers": pairs, "step": step.get("index")}
        if method == "CONNECT" and "match" not in step:
            self.server.log({**entry, "bytes": 0, "complete": True})
            self.tunnel(path)
            return False
        if headers.get("expect", "").lower() == "100-continue" and "read" not in step and step.get("status", 0) < 400:
            self.sock.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        keep = bool(step.get("forward")) or isinstance(step.get("body"), dict) and "echo" in step["body"]
        body, entry["bytes"], entry["sha256"], entry["complete"] = self.body(headers, step.get("read"), keep)
        self.server.log(entry)
        time.sleep(step.get("delay", 0))
        answer = self.forward(method, path, pairs, body or b"") if step.get("forward") else {}
        if step.get("drop"):
            return self.end(reset=step["drop"] == "reset")
        if "hold" in step:
            self.silence(step["hold"])
            return self.end()
        more = self.answer({**answer, **step}, method, body)
        return more and entry["complete"] and headers.get("connection", "").lower() != "close"

    def forward(self, method, path, pairs, body):
        upstream = self.server.upstream
        client = http.client.HTTPConnection(upstream.hostname, upstream.port, timeout=60)
        try:
            client.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
            for name, value in pairs:
                if name.lower() not in ("expect", "connection", "transfer-encoding", "content-length"):
                    client.putheader(name, value)
            if body or method in ("PUT", "POST"):
                client.putheader("Content-Length", str(len(body)))
            client.endheaders(body or None)
            reply = client.getresponse()
            answer = {"status": reply.status, "reason": reply.reason, "raw": reply.read(), "headers": [
                [n, v] for n, v in reply.getheaders() if n.lower() not in ("content-length", "transfer-encoding",
                                                                           "connection")]}
            if method == "HEAD" and reply.getheader("Content-Length"):
                answer["length"] = int(reply.getheader("Content-Length"))
            return answer
        finally:
            client.close()

    def tunnel(self, path):
        host, port = path.rsplit(":", 1)
        with socket.create_connection((host.strip("[]"), int(port))) as far:
            self.sock.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            far.sendall(self.buffer)
            ends = {self.sock: far, far: self.sock}
            while True:
                for end in select.select(list(ends), [], [])[0]:
                    data = end.recv(PIECE)
                    if not data:
                        return
                    ends[end].sendall(data)

    # --- answering ---
    def answer(self, step, method, request_body):
        status = step.get("status", 200)
        for interim in step.get("informational", []):
            self.sock.sendall(f"HTTP/1.1 {interim} Interim\r\nx-interim: yes\r\n\r\n".encode())
        body = step.get("body", step.get("raw", ""))
        if isinstance(body, dict):
            body = request_body if "echo" in body else body["bytes"]
        elif isinstance(body, str):
            body = body.encode()
        size = body if isinstance(body, int) else len(body)
        headers = step.get("headers", {})
        headers = list(headers.items()) if isinstance(headers, dict) else headers
        lines = [f"HTTP/1.1 {status} {step.get('reason', http.client.responses.get(status, 'Unknown'))}"]
        lines += [f"{name}: {value}" for name, value in headers]
        chunked = step.get("chunked", False)
        if chunked:
            lines.append("Transfer-Encoding: chunked")
        elif status not in (204, 304) and not step.get("no_length"):
            lines.append(f"Content-Length: {step.get('length', size)}")
        close = step.get("close") or step.get("no_length")
        if close:
            lines.append("Connection: close")
        self.sock.sendall(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"))
        if method == "HEAD" or status in (204, 304):
            return not close
        stop = min([step[k] for k in ("close_after", "reset_after", "stall_after") if k in step], default=size)
        self.send_body(body, min(stop, size), chunked, step.get("rate"))
        if "reset_after" in step:
            return self.end(reset=True)
        if "stall_after" in step:
            self.silence(600)
            return self.end()
        if "close_after" in step:
            return self.end()
        if chunked:
            self.sock.sendall(("0\r\n" + "".join(f"{n}: {v}\r\n" for n, v in step.get("trailers", {}).items())
                               + "\r\n").encode())
        return not close and step.get("length", size) == size or self.end()

    def send_body(self, body, stop, chunked, rate):
        at, piece = 0, PIECE if not rate else max(1, int(rate / 20))
        while at < stop:
            count = min(piece, stop - at)
            data = pattern(at, count) if isinstance(body, int) else body[at:at + count]
            self.sock.sendall(b"%x\r\n%s\r\n" % (count, data) if chunked else data)
            at += count
            if rate:
                time.sleep(count / rate)

    def silence(self, seconds):
        """Says nothing, but notices that the client has gone."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            if select.select([self.sock], [], [], min(left, 0.2))[0] and not self.sock.recv(PIECE):
                raise Gone

    def end(self, reset=False):
        if reset:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()
        return False


class Server:
    def __init__(self, args):
        self.steps = []
        if args.script:
            with open(args.script, encoding="utf-8") as file:
                self.steps = json.load(file)
        for index, step in enumerate(self.steps):
            step["index"] = index
            step["left"] = step.get("times", 1) or float("inf")
        self.upstream = urlsplit(args.upstream) if args.upstream else None
        self.log_file = open(args.log, "a", encoding="utf-8") if args.log else None
        self.lock, self.count = threading.Lock(), 0
        self.tls = None
        if args.cert:
            self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self.tls.load_cert_chain(args.cert, args.key)

    def choose(self, method, path, headers):
        with self.lock:
            self.count += 1
            for step in self.steps:
                match = step.get("match", {})
                if step["left"] > 0 and re.fullmatch(match.get("method", ".*"), method) \
                        and re.search(match.get("path", ""), path) \
                        and all(re.search(v, headers.get(n.lower(), "")) for n, v in match.get("header", {}).items()):
                    step["left"] -= 1
                    return self.count, step
            return self.count, {"forward": True} if self.upstream else {"status": 404, "body": "no step matches\n"}

    def log(self, entry):
        with self.lock:
            if self.log_file:
                self.log_file.write(json.dumps(entry) + "\n")
                self.log_file.flush()

    def handle(self, sock, number):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self.tls:
            try:
                sock = self.tls.wrap_socket(sock, server_side=True)
            except (OSError, ssl.SSLError):
                sock.close()
                return
        Connection(self, sock, number).serve()

    def run(self, listener):
        number = 0
        while True:
            sock, _ = listener.accept()
            number += 1
            threading.Thread(target=self.handle, args=(sock, number), daemon=True).start()


def main():
    parser = argparse.ArgumentParser(description="a scripted HTTP server for tests")
    for name in ("script", "log", "upstream", "cert", "key", "ready"):
        parser.add_argument("--" + name)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--stay", action="store_true")
    args = parser.parse_args()
    server = Server(args)
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    listener = socket.create_server(("127.0.0.1", args.port), backlog=256)
    port = listener.getsockname()[1]
    if args.ready:
        with open(args.ready + ".new", "w", encoding="ascii") as file:
            file.write(f"{port}\n")
        os.rename(args.ready + ".new", args.ready)
    print("port", port, flush=True)
    threading.Thread(target=server.run, args=(listener,), daemon=True).start()
    parent = os.getppid()
    while os.getppid() == parent and (args.stay or os.read(0, 4096)):
        if args.stay:
            time.sleep(0.2)
    os._exit(0)


if __name__ == "__main__":
    sys.exit(main())
