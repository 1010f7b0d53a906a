#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Reads the index of an archive as docs/format.md says and checks it against the archive itself.

read_index.py FILE prints one line for each record; a difference between index and archive ends it with status 1.
--any: the archive is not a tar."""
import hashlib
import io
import struct
import sys
import tarfile
import zlib


def number(data, at):
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at


def numbers(data, at, count):
    values = []
    for _ in range(count):
        value, at = number(data, at)
        values.append(value)
    return values, at


def difference(value, previous):
    return (previous + (value >> 1 if value % 2 == 0 else -(value >> 1) - 1)) % 2**64


def member(data, at, kind):
    assert data[at:at + 4] == b"\x1f\x8b\x08\x04" and data[at + 12:at + 14] == b"LK", f"no member at {at}"
    xlen, = struct.unpack_from("<H", data, at + 10)
    sub, version, type_, flags, raw, size = struct.unpack_from("<HBBHII", data, at + 14)
    assert xlen <= 8192 and version == 1 and (kind is None or type_ == kind), f"member at {at} has type {type_}"
    payload = data[at + 28:at + 16 + sub]
    if type_:
        assert struct.unpack_from("<I", payload)[0] == zlib.crc32(payload[4:]), f"checksum of the member at {at}"
    return type_, raw, size, payload


def inflate(data, size):
    plain = zlib.decompress(data, -15)
    assert len(plain) == size
    return plain


def read_list(data, at, size):
    end = at + size
    while at < end:
        _, _, length, payload = member(data, at, 2)
        blocks, plain = struct.unpack_from("<II", payload, 4)
        body, pos, offset, raw, path = inflate(payload[12:], plain), 0, 0, 0, b""
        for _ in range(blocks):
            record, pos = number(body, pos)
            (step, bytes_, members, records, raw_step, shared, more), p = numbers(body, pos, 7)
            path = path[:shared] + body[p:p + more]
            offset, raw, pos = offset + step, raw + raw_step, pos + record
            yield offset, bytes_, members, records, raw, path
        at += length
    assert at == end


def read_block(data, at):
    payload = member(data, at, 1)[3]
    base, raw_base, members, records, digests, plain = struct.unpack_from("<QQIIII", payload, 4)
    hashes = [payload[36 + i * 32:68 + i * 32] for i in range(digests)]
    body, pos, table = inflate(payload[36 + digests * 32:], plain), 0, []
    for _ in range(members):
        (size, raw), pos = numbers(body, pos, 2)
        table.append((base, size, raw_base, raw))
        base, raw_base = base + size, raw_base + raw
    rows, path, at_member, mtime = [], b"", 0, 0
    for _ in range(records):
        length, pos = number(body, pos)
        flags, p = number(body, pos)
        kind = chr(body[p])
        (mode, step, header, to_data, size, when, ns, whole, shared, more), p = numbers(body, p + 1, 10)
        at_member, mtime = difference(step, at_member), difference(when, mtime)
        path = path[:shared] + body[p:p + more]
        assert (whole > len(path)) if flags & 4 else (whole == len(path)), path
        digest = hashes.pop(0) if flags & 1 else None
        signed = mtime - 2**64 if mtime >= 2**63 else mtime
        rows.append((path, kind, mode, at_member, header, header + to_data, size, signed, ns, digest, whole))
        pos += length
    assert not hashes and pos == len(body)
    return table, rows


def read(data):
    """The index of an archive: footer, list, member table, records."""
    names = ("list_at", "list_size", "blocks", "members", "entries", "raw")
    payload = member(data, len(data) - 94, 3)[3]
    footer = dict(zip(names, struct.unpack_from("<6Q", payload, 8)))
    flags, = struct.unpack_from("<I", payload, 4)
    assert footer["list_at"] + footer["list_size"] == len(data) - 94
    blocks, table, rows = list(read_list(data, footer["list_at"], footer["list_size"])), [], []
    for at, size, members, records, raw, path in blocks:
        block_table, block_rows = read_block(data, at)
        assert member(data, at, 1)[2] == size and (len(block_table), len(block_rows)) == (members, records)
        assert not block_table or block_table[0][2] == raw
        assert not block_rows or block_rows[0][0].startswith(path)
        table += block_table
        rows += block_rows
    assert (len(blocks), len(table), len(rows)) == (footer["blocks"], footer["members"], footer["entries"])
    paths = [row[0].replace(b"/", b"\0") for row in rows]
    assert not flags & 2 or all(a <= b for a, b in zip(paths, paths[1:])), "the paths are not in order"
    return footer, blocks, table, rows


def check(data, is_tar=True):
    footer, _, table, rows = read(data)
    at, start, walked, parts = 0, 0, [], []
    while at < len(data):
        kind, raw, size, _ = member(data, at, None)
        decoder = zlib.decompressobj(31)
        got = decoder.decompress(data[at:at + size])
        assert decoder.eof and not decoder.unused_data and len(got) == raw, f"member at {at}"
        if kind == 0:
            walked.append((at, size, start, raw))
            parts.append(got)
        at, start = at + size, start + raw
    plain = b"".join(parts)
    assert walked == table and len(plain) == footer["raw"]
    starts = {m[0]: m[2] for m in table}
    if is_tar:
        with tarfile.open(fileobj=io.BytesIO(plain)) as tar:
            entries = [(e, e.name.encode("utf-8", "surrogateescape")) for e in tar]
        assert len(entries) == len(rows), f"{len(entries)} entries, {len(rows)} records"
        for (entry, name), row in zip(entries, rows):
            path, kind, mode, at, header, data_at, size, mtime, _, digest, whole = row
            start = starts[at]
            assert path.rstrip(b"/")[:4096] == name[:len(path.rstrip(b"/"))], (path, name)
            assert (entry.type.decode(), entry.size, int(entry.mtime // 1)) == (kind, size, mtime), path
            assert (entry.offset, entry.offset_data) == (start + header, start + data_at), path
            assert entry.mode & 0o7777 == mode & 0o7777, path
            if digest:
                assert hashlib.sha256(plain[start + data_at:start + data_at + size]).digest() == digest, path
            assert digest or kind != "0" or size == 0, path
    return rows


if __name__ == "__main__":
    with open(sys.argv[-1], "rb") as file:
        for row in check(file.read(), "--any" not in sys.argv):
            print(row[0].decode("utf-8", "backslashreplace"), row[6], row[9].hex() if row[9] else "-")
