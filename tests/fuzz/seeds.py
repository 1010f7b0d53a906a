#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Writes the first inputs of the targets into tests/fuzz/corpus: small archives that lunark makes, and nasty cases.

seeds.py [LUNARK]. Inputs that a run of `make fuzz` learned or found lie beside them; those are not touched."""
import glob
import gzip
import io
import os
import struct
import subprocess
import sys
import tarfile
import tempfile
import zlib

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))


def save(target, name, data):
    folder = os.path.join(HERE, "corpus", target)
    if not data:
        return  # libFuzzer tries that by itself
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, name), "wb") as file:
        file.write(data)


def member(kind, payload, data=b"", extra=b"", flags=0):
    """A member as docs/format.md has it; a payload without its checksum."""
    if kind:
        payload = struct.pack("<I", zlib.crc32(payload)) + payload
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
    body = deflate.compress(data) + deflate.flush()
    size = 28 + len(payload) + len(extra) + len(body) + 8
    return (b"\x1f\x8b\x08\x04\0\0\0\0\0\xff" + struct.pack("<H2sHBBHII", 16 + len(payload) + len(extra), b"LK",
            12 + len(payload), 1, kind, flags, len(data), size) + payload + extra + body
            + struct.pack("<II", zlib.crc32(data), len(data)))


def archives(lunark):
    """Real ones: name -> bytes."""
    found = {}
    with tempfile.TemporaryDirectory() as scratch:
        tree = os.path.join(scratch, "t")
        os.makedirs(os.path.join(tree, "d" * 60, "e" * 60))
        for number in range(12):
            with open(os.path.join(tree, "d" * 60, "e" * 60, f"{number}.txt"), "wb") as file:
                file.write(b"line\n" * number * 20)
        with open(os.path.join(tree, "big"), "wb") as file:
            file.write(b"0" * (2 << 20) + b"end")
        os.link(os.path.join(tree, "big"), os.path.join(tree, "hard"))
        os.symlink("big", os.path.join(tree, "soft"))
        for name, arguments in {
                "tree": ["backup", "files", tree], "stored": ["backup", "files", tree + "/" + "d" * 60, "--compress", "none"],
                "empty": ["backup", "files", tree + "/soft"]}.items():
            store = os.path.join(scratch, name)
            subprocess.run([lunark, *arguments, "--to", store, "--name", "x", "--no-latest"], check=True, capture_output=True)
            with open(glob.glob(store + "/x/*.tar.gz")[0], "rb") as file:
                found[name] = file.read()
    return found


def members(archive):
    at = 0
    while at < len(archive):
        size, = struct.unpack_from("<I", archive, at + 24)
        yield archive[at + 17], archive[at:at + size]
        at += size


def gunzip_seeds(real):
    for name, archive in real.items():
        save("gunzip", name, b"\x10" + archive)
    plain = gzip.compress(b"text " * 50, mtime=0)
    named = b"\x1f\x8b\x08\x1e\0\0\0\0\0\3" + struct.pack("<H", 6) + b"XY\2\0ab" + b"name\0comment\0"
    named += struct.pack("<H", zlib.crc32(named) & 0xffff) + plain[10:]
    other = b"\x1f\x8b\x08\x04\0\0\0\0\0\xff" + struct.pack("<H2sH", 4, b"ZZ", 0) + plain[10:]
    small = member(0, b"", b"data " * 9)
    for name, data in {
            "plain": plain, "named": named, "other-field": other, "mixed": small + plain + named + small, "padded": plain + b"\0" * 99,
            "garbage": small + b"garbage", "cut": small[:-3], "cut-header": small + small[:20], "one-byte": b"\x1f",
            "nothing": b"", "bomb": member(0, b"", b"\0" * (1 << 20)) * 2, "foreign-bomb": gzip.compress(b"\0" * (2 << 20), mtime=0),
            "new-type": member(9, b"what is to come"), "more-fields": member(0, b"", b"data", b"QQ\2\0ab", flags=0xfff0),
            "payload-of-data": member(0, b"longer", b"data"), "too-large": small[:20] + b"\xff" * 8 + small[28:],
            "stored": b"\x1f\x8b\x08\0\0\0\0\0\0\xff\1\3\0\xfc\xffabc" + struct.pack("<II", zlib.crc32(b"abc"), 3)}.items():
        save("gunzip", name, b"\0" + data)


def index_seeds(real):
    for name, archive in real.items():
        if len(archive) < 16384:
            save("index", "archive-" + name, b"\x03" + archive)
        for kind, data in members(archive):
            if kind:
                save("index", f"{name}-{kind}", bytes((0, 2, 1, 0)[kind:kind + 1]) + data)
    record = bytes((5,)) + b"0" + b"\xa4\x83\2" + b"\0\0\x80\4\5\0\0\5\0\1a"
    save("index", "body-records", b"\x82\1\1\1" + b"\x20\5" + bytes((len(record),)) + record)
    save("index", "body-long-record", b"\x82\0\1\1" + bytes((len(record) + 6,)) + record + b"future")
    save("index", "body-list", b"\x81\2\0\0" + (b"\x0a\x20\x40\1\1\0\0\3abc" + b"\x09\x20\x40\1\1\0\1\1z"))
    save("index", "endless-number", b"\x82\1\1\0" + b"\xff" * 40)
    save("index", "many", b"\x82\xff\xff\xff" + b"\1" * 600)


def check_seeds(real):
    sys.path.insert(0, os.path.join(ROOT, "tests", "support"))
    import future_archive
    for name, archive in {**real, "future": future_archive.archive()}.items():
        if len(archive) < 20000:
            for bits in (1, 3, 13, 17):
                save("check", f"{name}-{bits}", bytes((bits, 40)) + archive)
    whole = real["tree"]
    for name, data in {"cut": whole[:-200], "damaged": whole[:900] + b"\xff" + whole[901:], "shifted": whole[1:], "twice": whole * 2,
                       "others": gzip.compress(b"\0" * 1024, mtime=0), "between": whole + gzip.compress(b"x", mtime=0) + whole}.items():
        save("check", name, b"\x09\x40" + data)


def tar_of(*entries, **options):
    """A tar of (name, type, link or data, more attributes)."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", **options) as tar:
        for name, kind, content, *more in entries:
            info = tarfile.TarInfo(name)
            info.type, info.mode, info.mtime = kind, 0o755 if kind == tarfile.DIRTYPE else 0o644, 1_600_000_000
            for key, value in (more[0] if more else {}).items():
                setattr(info, key, value)
            if kind in (tarfile.SYMTYPE, tarfile.LNKTYPE):
                info.linkname = content
            data = content if isinstance(content, bytes) else b""
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    # Two blocks of zeros end it; the rest of the record says nothing.
    data = out.getvalue().rstrip(b"\0")
    return data + b"\0" * (-len(data) % 512 + 1024)


def extract_seeds(real):
    file, folder, soft, hard = tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE
    pax, gnu = {"format": tarfile.PAX_FORMAT}, {"format": tarfile.GNU_FORMAT}
    for name, archive in real.items():
        plain = gzip.decompress(archive)
        save("extract", "real-" + name, b"\2\x3f" + (plain if len(plain) < 30000 else plain[:8192] + b"\0" * 1024))
    attributes = {"pax_headers": {"SCHILY.xattr.user.a": "value", "SCHILY.acl.access": "user::rw-,user:1:r--,group::r--,mask::r--,other::r--",
                                  "mtime": "1.5", "LIBARCHIVE.creationtime": "-1.25", "uid": "99999999999"}}
    sparse = {"pax_headers": {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "s", "GNU.sparse.realsize": "9999"}}
    old = {"pax_headers": {"GNU.sparse.map": "0,3,4096,3", "GNU.sparse.size": "5000", "GNU.sparse.name": "s"}}
    for name, data in {
            "kinds": tar_of(("d", folder, b""), ("d/f", file, b"text"), ("d/s", soft, "f"), ("d/h", hard, "d/f"), ("p", tarfile.FIFOTYPE, b""),
                            ("c", tarfile.CHRTYPE, b"", {"devmajor": 1, "devminor": 3}), **pax),
            "long": tar_of(("n" * 300 + "/" + "m" * 300, file, b"x"), ("l", soft, "t" * 200), **gnu), "long-pax": tar_of(("n" * 200, file, b"x"), **pax),
            "up": tar_of(("../outside", file, b"x"), **pax), "absolute": tar_of(("/tmp/lunark-fuzz-up", file, b"x"), **pax),
            "through-link": tar_of(("k", soft, ".."), ("k/outside", file, b"x"), **pax), "hard-out": tar_of(("h", hard, "../outside"), ("h", file, b"x"), **pax),
            "hard-of-link": tar_of(("k", soft, "../outside"), ("h", hard, "k"), ("h", file, b"x"), **pax), "directory-is-link": tar_of(("u", folder, b"", {"mode": 0o777}), **pax),
            "link-is-there": tar_of(("l", file, b"x"), ("a", file, b"y"), ("d", file, b"z"), **pax), "attributes": tar_of(("x", file, b"1", attributes), **pax),
            "sparse": tar_of(("x", file, b"1\n4096\n3\n".ljust(512, b"\0") + b"abc", sparse), **pax), "sparse-old": tar_of(("x", file, b"abcabc", old), **pax),
            "twice": tar_of(("t", file, b"1"), ("t", folder, b""), ("t/f", file, b"2"), ("t", file, b"3"), **pax), "set-id": tar_of(("s", file, b"1", {"mode": 0o6777}), **pax),
            "dots": tar_of(("./././d/./f", file, b"1"), ("d/../../outside", file, b"2"), (".", folder, b""), ("d//f", file, b"3"), **pax),
            "cut": tar_of(("t", file, b"1" * 600), **pax)[:900], "empty": b"\0" * 1024, "nothing": b""}.items():
        for bits, first in ((2, 0x3f), (4, 0x3f), (0x86, 0x20), (0x47, 0x5f)):
            save("extract", f"{name}-{bits:x}", bytes((bits, first)) + data)
    save("extract", "gzip", b"\x0a\x3f" + gzip.compress(tar_of(("t", file, b"1"), **pax), mtime=0))


def lua_seeds():
    sha = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    whole = ('{"lunark_manifest":1,"key":"db/db-2020-06-16T123257Z.dump.gz","size":10,"sha256":"%s","item":"db",'
             '"producers":[{"command":["a","b"],"code":0,"seconds":1.5}],"warnings":[]}' % sha)
    for name, text in {
            "manifest": whole, "newer": whole.replace('":1,', '":2,'), "size": whole.replace("10", "-1"), "key": whole.replace("db/db", "x/y"),
            "hash": whole.replace(sha, "abc"), "numbers": "[0,-0,1.5,1e308,-1e-308,9007199254740993,123456789012345678901234567890,1E+2]",
            "texts": '["\\u00e9\\ud83d\\ude00\\n","\\ud800","\\u0000",""]', "deep": "[" * 64 + "]" * 64, "deeper": "[" * 65 + "]" * 65,
            "nothing": "", "null": "null", "bare": "1", "open": "[1,", "raw": '"\xff\xfe"', "objects": '{"":{"a":null,"b":[[],{}],"1":true},"a":false}'}.items():
        save("manifest", name, text.encode("latin-1"))
    page = ("<ListBucketResult xmlns='http://s3.amazonaws.com/doc/2006-03-01/'><EncodingType>url</EncodingType><IsTruncated>true</IsTruncated>"
            "<NextContinuationToken>t</NextContinuationToken><Contents><Key>a%2Fb+c</Key><Size>3</Size><ETag>&quot;x&quot;</ETag>"
            "<LastModified>2026-01-31T02:00:00.000Z</LastModified></Contents></ListBucketResult>")
    error = "<?xml version='1.0' encoding='UTF-8'?><Error><Code>AccessDenied</Code><Message>no.</Message></Error>"
    blobs = ("<?xml version='1.0'?><EnumerationResults><Blobs><Blob><Name>a</Name><Properties><Content-Length>3</Content-Length><Etag>0x1</Etag>"
             "<Last-Modified>Tue, 24 Nov 2026 10:00:00 GMT</Last-Modified></Properties></Blob></Blobs><NextMarker>m</NextMarker></EnumerationResults>")
    for name, text in {
            "page": page, "error": error, "blobs": blobs, "entities": "<!DOCTYPE a [<!ENTITY b 'c'>]><a>&b;</a>", "deep": "<a>" * 33 + "</a>" * 33,
            "data": "<a><![CDATA[<&>]]>&#x41;&amp;<!-- c --><?p i?></a>", "attributes": "<a b='1' c:d=\"2\"/>", "open": "<a><b>", "two": "<a/><b/>",
            "nothing": "", "text": "text", "utf16": "\xff\xfe<\0a\0/\0>\0", "bom": "\xef\xbb\xbf<a/>", "colon": "<a:b/>"}.items():
        save("xml", name, text.encode("latin-1"))
    objects = ('{"kind":"storage#objects","nextPageToken":"t","items":[{"name":"a","size":"3","etag":"x","updated":"2026-01-31T02:00:00.000Z",'
               '"generation":"1","crc32c":"AAAAAA==","metadata":{"item":"x"}}]}')
    refused = '{"error":{"code":403,"message":"no.","errors":[{"reason":"forbidden","domain":"global"}],"status":"PERMISSION_DENIED"}}'
    token = '{"access_token":"t","expires_in":3600,"token_type":"Bearer"}'
    for name, (place, call, code, text) in {
            "page": (0, 0, 0, page), "error": (0, 0, 8, error), "error-in-200": (0, 1, 0, error), "region": (1, 4, 5, "eu-west-2"), "begun": (0, 8, 0,
            "<InitiateMultipartUploadResult><UploadId>u</UploadId></InitiateMultipartUploadResult>"), "deleted": (0, 2, 0, "<DeleteResult><Error><Key>a</Key>"
            "<Code>AccessDenied</Code></Error></DeleteResult>"), "copied": (0, 9, 0, "<CopyObjectResult><ETag>x</ETag></CopyObjectResult>"),
            "objects": (2, 0, 0, objects), "refused": (2, 1, 8, refused), "object": (2, 4, 0, objects[47:-2]), "rewrite": (2, 9, 0, '{"done":false,"rewriteToken":"t"}'),
            "token": (3, 0, 0, token), "no-token": (3, 0, 7, '{"error":"invalid_grant","error_description":"no"}'), "blobs": (4, 0, 0, blobs),
            "blob-error": (4, 1, 9, "<?xml version='1.0'?><Error><Code>ContainerNotFound</Code><Message>no\nRequestId:x</Message></Error>"),
            "put": (4, 5, 0, ""), "entra": (5, 0, 0, token), "entra-error": (5, 0, 7, '{"error":"invalid_client","error_description":"AADSTS1: no","error_codes":[7]}'),
            "nothing": (0, 0, 0, "")}.items():
        save("answers", name, bytes((place, call, code)) + text.encode("latin-1"))


def main():
    lunark = sys.argv[1] if len(sys.argv) > 1 else os.path.join(ROOT, "build", "release", "lunark")
    real = archives(lunark)
    gunzip_seeds(real)
    index_seeds(real)
    extract_seeds(real)
    lua_seeds()
    check_seeds(real)


if __name__ == "__main__":
    main()
