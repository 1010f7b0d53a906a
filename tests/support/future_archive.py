#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""future_archive.py OUT - an archive as a later version may write it: with everything that docs/format.md lets one add.

It holds the files future/file-0 to future/file-29 of N * 1,000 bytes, each byte the number of the file."""
import hashlib
import io
import struct
import sys
import tarfile
import zlib

FILES, A_MEMBER = 30, 5
NEW_FLAGS = 0xFFF0


def raw_deflate(data):
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
    return deflate.compress(data) + deflate.flush()


def member(kind, payload=b"", data=b""):
    """With another subfield behind LK, except in a footer, and flags that nobody knows."""
    if 1 <= kind <= 3:
        payload = struct.pack("<I", zlib.crc32(payload)) + payload
    extra = b"ZZ" + struct.pack("<H", 3) + b"new" if kind != 3 else b""
    body = raw_deflate(data)
    size = 28 + len(payload) + len(extra) + len(body) + 8
    return (b"\x1f\x8b\x08\x04\0\0\0\0\0\xff" + struct.pack("<H2sHBBHII", 16 + len(payload) + len(extra), b"LK",
            12 + len(payload), 1, kind, NEW_FLAGS, len(data), size) + payload + extra + body
            + struct.pack("<II", zlib.crc32(data), len(data)))


def number(value):
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes(out) + bytes((value,))


def difference(value):
    return number(2 * value if value >= 0 else -2 * value - 1)


def sized(record):
    """With fields that nobody knows behind it."""
    record += b"\xff\x01new fields"
    return number(len(record)) + record


def path_of(path, previous):
    shared = 0
    while shared < min(len(path), len(previous)) and path[shared] == previous[shared]:
        shared += 1
    return number(shared) + number(len(path) - shared) + path[shared:]


def block(base, raw_base, table, files):
    """files: (path, content, member, header, data) of each record."""
    body = b"".join(number(size) + number(raw) for size, raw in table)
    digests, at, when, previous = [], 0, 0, b""
    for path, content, start, header, data in files:
        flags = NEW_FLAGS | bool(content)
        mtime = 1_600_000_000 - len(content)
        body += sized(number(flags) + b"0" + number(0o100644) + difference(start - at) + number(header) + number(data - header)
                      + number(len(content)) + difference(mtime - when) + number(0) + number(len(path)) + path_of(path, previous))
        digests += [hashlib.sha256(content).digest()] if content else []
        at, when, previous = start, mtime, path
    digests.append(b"\xaa" * 32)  # one that no record asks for
    body += b"\x05more after the records"
    return member(1, struct.pack("<QQIIII", base, raw_base, len(table), len(files), len(digests), len(body))
                  + b"".join(digests) + raw_deflate(body))


def list_of(blocks):
    body, previous = b"", (0, 0, b"")
    for at, size, members, records, raw, path in blocks:
        body += sized(number(at - previous[0]) + number(size) + number(members) + number(records) + number(raw - previous[1])
                      + path_of(path, previous[2]))
        previous = (at, raw, path)
    body += b"more"
    return member(2, struct.pack("<II", len(blocks), len(body)) + raw_deflate(body))


def entries():
    """(path, content, bytes of the entry, bytes before its data) in the order of the archive."""
    for index in sorted(range(FILES), key=str):
        path, content = b"future/file-%d" % index, bytes((index,)) * (index * 1000)
        info = tarfile.TarInfo(path.decode())
        info.size, info.mtime = len(content), 1_600_000_000 - len(content)
        header = info.tobuf(tarfile.PAX_FORMAT)
        yield path, content, header + content + bytes(-len(content) % 512), len(header)


def archive():
    out, raw, blocks, waiting = io.BytesIO(), 0, [], list(entries())
    counted = 0
    while waiting:
        base, raw_base, table, files = out.tell(), raw, [], []
        for _ in range(2):
            start, data = out.tell(), b""
            for path, content, entry, header in waiting[:A_MEMBER]:
                files.append((path, content, start, len(data), len(data) + header))
                data += entry
            waiting = waiting[A_MEMBER:]
            data += bytes(0 if waiting else 1024)
            packed = member(0, b"a payload of data", data)
            out.write(packed)
            table.append((len(packed), len(data)))
            raw += len(data)
        packed = block(base, raw_base, table, files)
        blocks.append((out.tell(), len(packed), len(table), len(files), raw_base, files[0][0]))
        out.write(packed + member(77, b"not known here"))
        counted += len(table)
    at = out.tell()
    out.write(member(4) + list_of(blocks[:1]) + member(255, b"between lists") + list_of(blocks[1:]) + member(9, b"behind the list"))
    footer = struct.pack("<I6Q", 0xFFFFFFFE, at, out.tell() - at, len(blocks), counted, FILES, raw)
    return out.getvalue() + member(3, footer)


if __name__ == "__main__":
    with open(sys.argv[1], "wb") as file:
        file.write(archive())
