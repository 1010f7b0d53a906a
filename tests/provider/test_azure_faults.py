#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The azure provider when the store fails, lies, throttles, or loses an answer: a scripted server in front of Azurite.
What is asserted is the error that a user reads, what was asked, and what the container holds afterwards."""
import email.utils
import os
import sys
import time
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
from scripted import Scripted  # noqa: E402

BLOCK = {"method": "PUT", "path": "comp=block&"}
SECOND = {"method": "PUT", "path": "comp=block&blockid=[^&]*MDAwMDAy"}  # 000002 in base64
LIST = {"method": "PUT", "path": "comp=blocklist"}
COPY = {"method": "PUT", "header": {"x-ms-copy-source": "."}}


def answer(status, code=None, message="The store's words.", detail="", **more):
    step = {"status": status, "headers": {"content-type": "application/xml", **more.pop("headers", {})}}
    if code:
        step["headers"]["x-ms-error-code"] = code
        step["body"] = (f'\ufeff<?xml version="1.0" encoding="utf-8"?><Error><Code>{code}</Code><Message>{message}\n'
                        f'RequestId:7a36\nTime:2026-03-01T12:00:00Z</Message>{detail}</Error>')
    step.update(more)
    return step


class Case(Scripted):
    program, upstream = "tests/provider/azure_faults.lua", "azurite"


class Requests(Case):
    """Calls of one request."""

    def test_throttled_then_fine(self):
        for status, code in ((503, "ServerBusy"), (500, "InternalError"), (500, "OperationTimedOut"), (429, None),
                             (502, None), (408, None), (504, None), (400, "Md5Mismatch"), (409, "AccountBeingCreated"),
                             (409, "ContainerBeingDeleted")):
            with self.subTest(code, status=status):
                result, seen = self.run_case("put", [dict(answer(status, code), times=2), answer(201)], upstream=False)
                self.assertTrue(result["ok"], result)
                self.assertEqual(len(self.matching(seen, "PUT")), 3)

    def test_retry_after_is_waited_for(self):
        result, seen = self.run_case("put", [
            dict(answer(503, "ServerBusy", headers={"retry-after": "2"}), match={"method": "PUT"})])
        self.assertTrue(result["ok"], result)
        self.assertEqual(len(self.matching(seen, "PUT")), 2)
        self.assertGreater(self.seconds, 2)

    def test_connection_that_breaks(self):
        page = "<EnumerationResults><Blobs /><NextMarker /></EnumerationResults>"
        for case, method, then in (("put", "PUT", answer(201)), ("list", "GET", answer(200, body=page)),
                                   ("delete", "DELETE", answer(202))):
            for how in (True, "reset"):
                with self.subTest(case, how=how):
                    result, seen = self.run_case(case, [{"drop": how}, then], upstream=False)
                    self.assertTrue(result["ok"], result)
                    self.assertGreaterEqual(len(self.matching(seen, method)), 2)

    def test_answer_to_an_exclusive_put_is_lost(self):
        result, seen = self.run_case("exclusive", [{"match": {"method": "PUT"}, "forward": True, "drop": True}])
        self.assertTrue(result["ok"], result)
        self.assertEqual([self.header(one, "if-none-match") for one in self.matching(seen, "PUT")], ["*", "*"])

    def test_exclusive_put_of_a_key_that_is_taken(self):
        right = {"content-md5": "MGYXYYX8yjXSbBsWEqkeeA==", "x-ms-meta-a": "1", "etag": '"0x1"'}
        for there in ({"content-md5": "AAAAAAAAAAAAAAAAAAAAAA=="}, {"x-ms-meta-a": "2"}, {"x-ms-meta-b": "1"}):
            for status, code in ((409, "BlobAlreadyExists"), (412, "ConditionNotMet")):
                with self.subTest(str(there), code=code):
                    result, _ = self.run_case("exclusive", [
                        dict(answer(status, code), match={"method": "PUT"}, times=0),
                        dict(status=200, headers={**right, **there}, body="the body", match={"method": "HEAD"})],
                        upstream=False)
                    self.assertEqual(result.get("kind"), "conflict", result)

    # Status and code as in Microsoft's "Status and error codes" and "Blob service error codes".
    ERRORS = [
        ("put", 401, "InvalidAuthenticationInfo", "auth", "token"),
        ("put", 401, "NoAuthenticationInformation", "auth", "refuses"),
        ("put", 403, "AuthenticationFailed", "auth", "the key or token"),
        ("put", 403, "AuthorizationFailure", "auth", "firewall"),
        ("put", 403, "AuthorizationPermissionMismatch", "auth", "Storage Blob Data Contributor"),
        ("put", 403, "AuthorizationProtocolMismatch", "auth", "https"),
        ("put", 403, "AuthorizationResourceTypeMismatch", "auth", "srt=co"),
        ("put", 403, "AuthorizationServiceMismatch", "auth", "ss=b"),
        ("put", 403, "AuthorizationSourceIPMismatch", "auth", "sip="),
        ("put", 403, "KeyBasedAuthenticationNotPermitted", "auth", "identity"),
        ("put", 403, "InsufficientAccountPermissions", "auth", "refuses"),
        ("put", 403, "AccountIsDisabled", "auth", "refuses"),
        ("put", 403, "UnauthorizedBlobOverwrite", "conflict", "not replace"),
        ("put", 400, "AccountRequiresHttps", "usage", "https://"),
        ("put", 400, "InvalidHeaderValue", "io", ""),
        ("put", 404, "ContainerNotFound", "not_found", "make the container"),
        ("put", 404, "ResourceNotFound", "not_found", ""),
        ("put", 405, "UnsupportedHttpVerb", "io", ""),
        ("put", 409, "BlobAlreadyExists", "conflict", ""),
        ("put", 409, "BlobImmutableDueToPolicy", "conflict", "policy"),
        ("put", 409, "BlobImmutableDueToLegalHold", "conflict", "legal hold"),
        ("put", 409, "BlobBeingRehydrated", "io", "archive"),
        ("put", 409, "BlobOperationNotSupported", "io", "Data Lake"),
        ("put", 409, "BlobTierInadequateForContentLength", "usage", "access_tier"),
        ("put", 409, "BlockCountExceedsLimit", "io", ""),
        ("put", 409, "ContainerDisabled", "auth", "disabled"),
        ("put", 400, "InvalidBlobTier", "usage", "access_tier"),
        ("put", 400, "BlobAccessTierNotSupportedForAccountType", "usage", "access_tier"),
        ("put", 400, "InvalidMetadata", "io", ""),
        ("put", 400, "MetadataTooLarge", "io", ""),
        ("put", 409, "PublicAccessNotPermitted", "auth", "refuses"),
        ("put", 410, None, "not_found", ""),
        ("get", 409, "BlobArchived", "io", "rehydrate"),
        ("put", 409, "SnapshotsPresent", "conflict", "snapshots"),
        ("put", 411, "MissingContentLengthHeader", "io", ""),
        ("put", 412, "LeaseIdMissing", "conflict", "lease"),
        ("put", 412, "ConditionNotMet", "conflict", ""),
        ("put", 413, "RequestBodyTooLarge", "io", ""),
        ("range", 416, "InvalidRange", "usage", ""),
        ("list", 400, "OutOfRangeQueryParameterValue", "io", ""),
        ("put", 501, None, "io", ""),
        ("put", 507, None, "io", ""),
    ]

    def test_errors_that_a_user_reads(self):
        for case, status, code, kind, hint in self.ERRORS:
            with self.subTest(code, case=case):
                result, seen = self.run_case(case, [dict(answer(status, code), times=0)], upstream=False)
                self.assertFalse(result["ok"])
                self.assertEqual((result["kind"], result["status"]), (kind, status), result)
                self.assertIn(hint, result.get("hint") or "")
                self.assertEqual(len(seen), 1, "what is no use is not tried again")
                self.assertNotIn("RequestId", result["message"])
                if kind == "auth":
                    self.assertIn("the credentials are from the option account_key", result["hint"])

    def test_missing(self):
        result, _ = self.run_case("head", [])
        self.assertEqual((result["kind"], result["message"]), ("not_found", "faults/key: there is no such object"))
        result, _ = self.run_case("delete_many", [])
        self.assertTrue(result["ok"], result)

    def test_missing_container(self):
        for case in ("check", "read", "delete", "put"):
            result, _ = self.run_case(case, [dict(answer(404, "ContainerNotFound"), times=0)], upstream=False)
            self.assertEqual(result["kind"], "not_found")
            self.assertRegex(result["message"],
                             r"^container lunark-test at 127\.0\.0\.1:\d+: there is no such container$")

    def test_those_that_only_write(self):
        for code in ("AuthorizationPermissionMismatch", "AuthorizationResourceTypeMismatch"):
            steps = [dict(answer(403, code), match={"method": "GET"}, times=0)]
            self.assertTrue(self.run_case("check", steps, upstream=False)[0]["ok"])
            self.assertEqual(self.run_case("read", steps, upstream=False)[0]["kind"], "auth")

    def test_damage_on_the_way(self):
        result, seen = self.run_case("put", [
            dict(answer(201, headers={"content-md5": "AAAAAAAAAAAAAAAAAAAAAA=="}), match={"method": "PUT"})])
        self.assertTrue(result["ok"], "sent again")
        self.assertEqual([self.header(one, "content-md5") for one in self.matching(seen, "PUT")],
                         ["MGYXYYX8yjXSbBsWEqkeeA=="] * 2)

    def test_another_answers_in_the_place_of_the_store(self):
        for case, method in (("put", "PUT"), ("delete", "DELETE"), ("upload", "PUT"), ("copy", "PUT")):
            with self.subTest(case):
                result, seen = self.run_case(case, [
                    dict(answer(200, "InternalError"), match={"method": method}, times=2)])
                self.assertTrue(result["ok"], result)
                self.assertGreaterEqual(len(self.matching(seen, method)), 3)

    def test_another_answers_a_look_or_a_read(self):
        page = {"status": 200, "body": "<html><body>welcome</body></html>", "times": 2}
        for case, method in (("head", "HEAD"), ("text", "GET")):
            with self.subTest(case):
                result, seen = self.run_case(case, [dict(page, match={"method": method})])
                self.assertEqual((result["ok"], result.get("kind")), (False, "not_found"), result)
                self.assertEqual(len(self.matching(seen, method)), 3)

    def test_answers_that_are_no_xml(self):
        for body in ("", "<html>busy", "<EnumerationResults>", "<EnumerationResults></EnumerationResults>"):
            result, _ = self.run_case("list", [{"match": {"method": "GET"}, "status": 200, "body": body}])
            self.assertTrue(result["ok"], "asked again")

    def test_errors_that_are_no_xml(self):
        result, _ = self.run_case("put", [{"status": 403, "body": "<html>no & no", "times": 0}], upstream=False)
        self.assertEqual((result["kind"], result["message"]), ("auth", "faults/key: HTTP status 403"))

    def test_a_page_that_leads_to_itself(self):
        page = "<EnumerationResults><Blobs /><NextMarker>m</NextMarker></EnumerationResults>"
        result, seen = self.run_case("walk", [dict(answer(200), body=page, times=0)], upstream=False)
        self.assertEqual(result["kind"], "corrupt", result)
        self.assertEqual(len(seen), 2)

    def test_body_that_ends_early(self):
        body = {"status": 200, "body": "the body", "headers": {"etag": '"1"'}}
        for how in ("close_after", "reset_after"):
            result, _ = self.run_case("text", [dict(body, times=0, **{how: 4})], upstream=False)
            self.assertEqual(result["kind"], "network", result)

    def test_range_that_is_another(self):
        for headers in ({}, {"content-range": "bytes 0-3/8"}):
            result, _ = self.run_case("range", [
                {"status": 206, "body": "abcd", "headers": headers, "times": 0}], upstream=False)
            self.assertEqual(result["kind"], "io", result)

    def test_deletes_that_are_throttled(self):
        result, seen = self.run_case("delete_many", [
            dict(answer(503, "ServerBusy"), match={"method": "DELETE"}, times=2)])
        self.assertTrue(result["ok"], result)
        self.assertGreaterEqual(len(self.matching(seen, "DELETE")), 5)

    def test_settings(self):
        _, seen = self.run_case("tier", [])
        made = [one for one in self.matching(seen, "PUT") if "comp=block&" not in one["path"]]
        self.assertEqual([self.header(one, "x-ms-access-tier") for one in made], ["Cool"] * 3)
        _, seen = self.run_case("no_md5", [])
        self.assertEqual({self.header(one, "content-md5") for one in seen}, {None})


class Clocks(Case):
    AHEAD = email.utils.formatdate(time.time() + 3600, usegmt=True)
    DETAIL = "<AuthenticationErrorDetail>Request date header too old: 'x'</AuthenticationErrorDetail>"

    def test_clock_that_is_off(self):
        for case, method in (("put", "PUT"), ("head", "HEAD")):
            old = dict(answer(403, "AuthenticationFailed", detail=self.DETAIL, headers={"date": self.AHEAD}),
                       match={"method": method})
            fine = dict(answer(201 if case == "put" else 200, headers={"etag": '"0x8D"'}), match={"method": method})
            result, seen = self.run_case(case, [old, fine], upstream=False)
            self.assertTrue(result["ok"], result)
            self.assertAlmostEqual(result["skew"], 3600, delta=30)
            dates = [email.utils.parsedate_to_datetime(self.header(one, "x-ms-date")).timestamp() for one in seen]
            self.assertAlmostEqual(dates[1] - dates[0], 3600, delta=30)

    def test_clock_is_corrected_once(self):
        old = answer(403, "AuthenticationFailed", detail=self.DETAIL, headers={"date": self.AHEAD})
        result, seen = self.run_case("put", [dict(old, times=0)], upstream=False)
        self.assertEqual(result["kind"], "auth")
        self.assertIn("clock", result["hint"])
        self.assertLessEqual(len(seen), 2)


    def test_a_source_that_is_silent_for_long(self):
        """What comes later is signed with the time it has then, and the blocks before are still there."""
        result, seen = self.run_case("silent", [dict(match=BLOCK, forward=True, close=True, times=0)])
        self.assertTrue(result["ok"], result)
        one, two = (email.utils.parsedate_to_datetime(self.header(one, "x-ms-date")).timestamp()
                    for one in self.matching(seen, "PUT", "comp=block&"))
        self.assertAlmostEqual(two - one, 1200, delta=10)
        self.assertEqual(len(self.matching(seen, "PUT", "comp=blocklist")), 1)


class Copies(Case):
    SOURCE = {"match": {"method": "HEAD", "path": "/from"}, "status": 200, "body": "bytes",
              "headers": {"etag": '"0xF"'}}

    @staticmethod
    def there(status, id="c1", source="", **more):
        return {"match": {"method": "HEAD", "path": "/to"}, "status": 200, "body": "bytes", "headers": {
            "etag": '"0x2"', "x-ms-copy-id": id, "x-ms-copy-status": status, "x-ms-copy-source": source, **more}}

    def test_answer_is_lost(self):
        result, seen = self.run_case("copy", [{"match": COPY, "forward": True, "drop": True}])
        self.assertTrue(result["ok"], result)
        self.assertEqual(len([one for one in seen if self.header(one, "x-ms-copy-source")]), 2)

    def test_conditions(self):
        result, seen = self.run_case("races", [])
        self.assertTrue(result["ok"], result)

    def start(self, id="c1", status="pending"):
        return {"match": COPY, "status": 202, "headers": {"x-ms-copy-id": id, "x-ms-copy-status": status,
                                                          "etag": '"0x1"'}}

    def test_done_in_the_background(self):
        result, seen = self.run_case("copy_only", [
            self.SOURCE, self.start(), dict(self.there("pending"), times=2),
            dict(answer(503, "ServerBusy"), match={"method": "HEAD", "path": "/to"}), self.there("success")],
            upstream=False)
        self.assertTrue(result["ok"], result)
        self.assertEqual(len(self.matching(seen, "HEAD", "/to")), 4)
        copy = self.matching(seen, "PUT")[0]
        self.assertEqual(self.header(copy, "x-ms-source-if-match"), '"0xF"')
        self.assertEqual(self.header(copy, "if-none-match"), "*")

    def test_fails_in_the_background(self):
        for status in ("failed", "aborted"):
            words = "403 Forbidden \"Copy failed when reading the source.\""
            result, seen = self.run_case("copy_only", [
                self.SOURCE, self.start(), self.there(status, **{"x-ms-copy-status-description": words}),
                dict(answer(202), match={"method": "DELETE"})], upstream=False)
            self.assertEqual(result["kind"], "io", result)
            self.assertIn(f"the store's copy is '{status}': 403", result["message"])
            # The empty object that it leaves goes, if it still is that one.
            self.assertEqual([self.header(one, "if-match") for one in self.matching(seen, "DELETE")], ['"0x2"'])

    def test_fails_in_the_background_and_then_not(self):
        result, seen = self.run_case("copy_only", [
            dict(self.SOURCE, times=2), self.start(),
            self.there("failed", **{"x-ms-copy-status-description": "500 InternalServerError"}),
            dict(answer(202), match={"method": "DELETE"}), self.start(status="success")], upstream=False)
        self.assertTrue(result["ok"], result)

    def test_something_else_is_written_meanwhile(self):
        result, seen = self.run_case("copy_only", [self.SOURCE, self.start(), self.there("success", id="c2")],
                                     upstream=False)
        self.assertEqual(result["kind"], "conflict", result)
        self.assertEqual(self.matching(seen, "DELETE"), [])

    def test_done_before_its_answer_was_lost(self):
        for case in ("copy_new", "copy_known"):
            result, seen = self.run_case(case, [{"match": COPY, "forward": True, "drop": True}])
            self.assertTrue(result["ok"], result)
            self.assertEqual(len([one for one in seen if self.header(one, "x-ms-copy-source")]), 2)

    def test_somebody_else_was_there(self):
        for case, name, value in (("latest", "if-match", '"0x8D"'), ("copy_only", "if-none-match", "*")):
            result, seen = self.run_case(case, [
                self.SOURCE, dict(answer(412, "ConditionNotMet"), match=COPY),
                self.there("success", source="http://another/from", **{"x-ms-meta-of": "from"})], upstream=False)
            self.assertEqual(result.get("kind"), "conflict", result)
            self.assertEqual(self.header(self.matching(seen, "PUT")[0], name), value)


class Uploads(Case):
    """Blocks and their list."""

    def blocks(self, seen):
        return self.matching(seen, "PUT", "comp=block&")

    def test_nothing_goes_wrong(self):
        result, seen = self.run_case("upload", [])
        self.assertTrue(result["ok"], result)
        self.assertEqual(len(self.blocks(seen)), 4)
        self.assertEqual(sorted(one["bytes"] for one in self.blocks(seen)), [5, 1 << 20, 1 << 20, 1 << 20])
        for one in self.blocks(seen):
            self.assertRegex(self.header(one, "content-md5"), "^[A-Za-z0-9+/]{22}==$")
        self.assertEqual(len(self.matching(seen, "PUT", "comp=blocklist")), 1)

    def test_block_that_does_not_arrive(self):
        for fault in (answer(503, "ServerBusy"), answer(500, "InternalError"), answer(400, "Md5Mismatch"),
                      {"drop": True, "times": 2}, {"drop": "reset", "times": 2},
                      {"read": 300000, "drop": "reset", "times": 2}, answer(200)):
            with self.subTest(str(fault)):
                result, seen = self.run_case("upload", [dict(fault, match=SECOND)])
                self.assertTrue(result["ok"], result)
                self.assertGreaterEqual(len(self.blocks(seen)), 5)

    def test_block_whose_answer_is_lost(self):
        result, seen = self.run_case("upload", [dict(match=SECOND, forward=True, drop=True)])
        self.assertTrue(result["ok"], result)
        self.assertEqual(len(self.blocks(seen)), 5)

    def test_block_that_is_another_when_it_arrives(self):
        result, seen = self.run_case("upload", [
            dict(answer(201, headers={"content-md5": "AAAAAAAAAAAAAAAAAAAAAA=="}), match=SECOND, forward=True)])
        self.assertTrue(result["ok"], result)
        self.assertEqual(len(self.blocks(seen)), 5)

    def test_answer_to_the_list_is_lost(self):
        for case in ("upload", "upload_exclusive"):
            with self.subTest(case):
                result, seen = self.run_case(case, [dict(match=LIST, forward=True, drop=True)])
                self.assertTrue(result["ok"], result)
                self.assertEqual(len(self.matching(seen, "PUT", "comp=blocklist")), 2)

    def test_list_that_does_not_arrive(self):
        for fault in (answer(503, "ServerBusy"), answer(500, "OperationTimedOut"), {"drop": True, "times": 2}):
            result, seen = self.run_case("upload_exclusive", [dict(fault, match=LIST)])
            self.assertTrue(result["ok"], result)

    def test_server_that_stalls(self):
        for fault in ({"match": SECOND, "hold": 100}, {"match": LIST, "forward": True, "hold": 100},
                      {"match": {"method": "HEAD"}, "hold": 100}):
            result, _ = self.run_case("stalled", [fault])
            self.assertTrue(result["ok"], result)
            self.assertLess(self.seconds, 30)

    def test_list_of_many_blocks_whose_answer_is_lost(self):
        result, seen = self.run_case("many", [dict(match=LIST, forward=True, drop=True)])
        self.assertTrue(result["ok"], result)
        self.assertEqual(len(self.blocks(seen)), 10001)
        self.assertEqual(len(self.matching(seen, "PUT", "comp=blocklist")), 2)

    def test_key_that_is_taken(self):
        result, seen = self.run_case("upload_twice", [])
        self.assertEqual(result.get("kind"), "conflict", result)
        self.assertEqual(result["message"], "faults/big: the object is there already")

    def test_blocks_that_are_gone(self):
        result, seen = self.run_case("upload", [dict(answer(400, "InvalidBlockList"), match=LIST)])
        self.assertEqual(result["kind"], "conflict", result)
        self.assertIn("another upload", result["hint"])

    def test_upload_that_fails_writes_nothing(self):
        result, seen = self.run_case("upload", [dict(answer(403, "AuthorizationFailure"), match=SECOND, times=0)])
        self.assertEqual(result["kind"], "auth", result)
        self.assertEqual(self.matching(seen, "PUT", "comp=blocklist"), [])
        self.assertEqual(len(self.matching(seen, "DELETE")), 1)

    def test_blocks_of_another_upload_stay(self):
        result, seen = self.run_case("beside", [dict(answer(403, "AuthorizationFailure"), match=SECOND, times=1)])
        self.assertTrue(result["ok"], result)
        self.assertEqual(self.matching(seen, "DELETE"), [])

    def test_an_object_of_the_name_stays(self):
        result, seen = self.run_case("replace", [dict(answer(403, "AuthorizationFailure"), match=SECOND, times=1)])
        self.assertTrue(result["ok"], result)
        self.assertEqual(self.matching(seen, "DELETE"), [])

    def test_blocks_that_can_not_be_removed(self):
        for fault in ({"match": {"method": "GET", "path": "comp=blocklist"}}, {"match": {"method": "DELETE"}}):
            result, _ = self.run_case("upload", [
                dict(answer(403, "AuthorizationFailure"), match=SECOND, times=0),
                dict(answer(403, "AuthorizationPermissionMismatch"), times=0, **fault)])
            self.assertEqual(result["kind"], "auth", result)

    def test_cancelled(self):
        result, seen = self.run_case("cancel", [])
        self.assertEqual(result["kind"], "cancelled", result)
        self.assertEqual(self.matching(seen, "PUT", "comp=blocklist"), [])

    def test_server_that_forgets_connections(self):
        result, seen = self.run_case("upload_slow", [dict(match=BLOCK, forward=True, close=True, times=2)])
        self.assertTrue(result["ok"], result)


class Signatures(Case):
    """Shared access signatures."""

    def test_all_that_a_backup_does(self):
        result, seen = self.run_case("sas", [])
        self.assertTrue(result["ok"], result)
        for one in seen:
            self.assertRegex(one["path"], r"[?&]sv=.*&sig=")
            self.assertIsNone(self.header(one, "authorization"))
        source = [self.header(one, "x-ms-copy-source") for one in seen if self.header(one, "x-ms-copy-source")]
        self.assertRegex(source[0], r"/faults/from\?sv=.*&sig=")

    def test_what_is_refused_is_not_shown(self):
        for step in (answer(403, "AuthenticationFailed", "Signature did not match sig=very%2Fsecret%3D"),
                     {"drop": True}, {"status": 200, "body": "x"}):
            result, _ = self.run_case("sas_refused", [dict(step, times=3), answer(404, "ContainerNotFound", times=0)],
                                      upstream=False)
            self.assertFalse(result["ok"])
            self.assertIn("faults/key", self.stderr)
            self.assertNotRegex(self.stderr, "very.{1,3}secret")


if __name__ == "__main__":
    unittest.main()
