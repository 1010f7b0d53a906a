#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Reads archives of lunark as docs/format.md says, and no more of the file than there need be.
read_archive.py FILE lists type (as tar has it), size and path; read_archive.py FILE PATH writes a file to standard output."""
import hashlib, io, struct, sys, tarfile, zlib  # noqa: E401


def numbers(data, at, count):
    values = []
    for _ in range(count):
        value = shift = 0
        while data[at] > 127:
            value, shift, at = value | (data[at] & 127) << shift, shift + 7, at + 1
        values, at = values + [value | data[at] << shift], at + 1
    return values, at


def order(path):  # of entries in an archive: a slash comes before all else; the list knows 128 bytes of a path
    return path.replace(b"/", b"\0")[:128]


class Archive:
    def __init__(self, file):  # binary, seekable
        self.file, self.end = file, file.seek(0, 2) - 94
        kind, _, _, payload, _ = self.member(self.end)
        assert kind == 3, "no footer of lunark"
        flags, self.list_at, size, *_ = struct.unpack("<I6Q", payload)
        assert self.list_at + size == self.end and not flags & 1, "the list is not whole: the members must be walked"
        self.ordered = flags & 2
        self.blocks = list(self.listed())  # offset and first path of those with records

    def member(self, at):  # type, size, bytes of data, payload behind the checksum, all of it
        self.file.seek(at)
        head = self.file.read(28)
        assert head[:4] + head[12:14] + head[16:17] == b"\x1f\x8b\x08\x04LK\1", f"no member of lunark at {at}"
        length, _, kind, _, raw, size = struct.unpack("<HBBHII", head[14:])
        data = head + self.file.read(size - 28)
        payload = data[28:16 + length]
        assert kind not in (1, 2, 3) or zlib.crc32(payload[4:]) == int.from_bytes(payload[:4], "little"), "damaged"
        return kind, size, raw, payload[4:], data

    def listed(self):
        at = self.list_at
        while at < self.end:
            kind, size, _, payload, _ = self.member(at)
            at, count = at + size, struct.unpack_from("<I", payload)[0] if kind == 2 else 0
            body, pos, offset, path = zlib.decompress(payload[8:], -15) if count else b"", 0, 0, b""
            for _ in range(count):
                (length,), pos = numbers(body, pos, 1)
                (step, _, _, records, _, shared, more), p = numbers(body, pos, 7)
                offset, path, pos = offset + step, path[:shared] + body[p:p + more], pos + length
                if records:
                    yield offset, path

    def records(self, block):  # path, type, size, member, offset of header and of data in it, SHA-256, bytes of the path
        payload = self.member(block)[3]
        members, count, digests = struct.unpack_from("<III", payload, 16)
        body, digest, path, member = zlib.decompress(payload[32 + 32 * digests:], -15), 32, b"", 0
        pos = numbers(body, 0, 2 * members)[1]
        for _ in range(count):
            (length,), pos = numbers(body, pos, 1)
            (flags,), p = numbers(body, pos, 1)
            (_, step, header, to_data, size, _, _, whole, shared, more), q = numbers(body, p + 1, 10)
            path, pos = path[:shared] + body[q:q + more], pos + length
            member += step >> 1 if step % 2 == 0 else -(step >> 1) - 1
            sha256, digest = (payload[digest:digest + 32], digest + 32) if flags & 1 else (None, digest)
            yield path, body[p:p + 1], size, member, header, header + to_data, sha256, whole

    def files(self):
        return (record for at, _ in self.blocks for record in self.records(at))

    def data(self, member, skip, size):  # of the decompressed stream, from `skip` bytes behind where that member begins
        while size > 0:
            kind, length, raw, _, packed = self.member(member)
            piece = zlib.decompress(packed, 31)[skip:skip + size] if kind == 0 else b""
            member, skip, size = member + length, max(0, skip - raw), size - len(piece)
            yield piece

    def find(self, path):  # in the blocks that can hold it; without an order that is any of them
        key, first = order(path), [order(start) for _, start in self.blocks]
        near = [i for i in range(len(first)) if first[i] <= key <= (first + [key])[i + 1]]
        near += [] if self.ordered else range(len(first))
        for record in (r for i in near for r in self.records(self.blocks[i][0])):
            if record[7] == len(path) and record[0] == path[:4096] and (len(path) <= 4096 or self.whole(record) == path):
                return record
        raise KeyError(path)

    def whole(self, record):  # path of a record that has a part of it
        headers = b"".join(self.data(record[3], record[4], record[5] - record[4])) + bytes(1024)
        return tarfile.open(fileobj=io.BytesIO(headers)).next().name.encode(errors="surrogateescape")

    def content(self, record):
        hash = hashlib.sha256()
        for piece in self.data(record[3], record[5], record[2]):
            hash.update(piece)
            yield piece
        assert record[6] in (None, hash.digest()), "the file is damaged"


if __name__ == "__main__":
    archive = Archive(open(sys.argv[1], "rb"))
    for record in archive.files() if len(sys.argv) < 3 else ():
        print(record[1].decode(), record[2], record[0].decode(errors="backslashreplace").replace("\n", "\\n"))
    for path in sys.argv[2:]:
        for piece in archive.content(archive.find(path.encode(errors="surrogateescape"))):
            sys.stdout.buffer.write(piece)
