#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The s3 provider when the store fails, lies, throttles, redirects, or loses an answer: a scripted server in front of
versitygw. What is asserted is the error that a user reads, what was asked, and what the bucket holds afterwards."""
import json
import os
import sys
import tempfile
import time
import unittest
import xml.sax.saxutils

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
from scripted import Scripted  # noqa: E402

COMPLETE = {"method": "POST", "path": "uploadId="}
SECOND = {"method": "PUT", "path": "partNumber=2"}
BEGIN = {"method": "POST", "path": "uploads"}


def error(code, message="The store's words.", more=""):
    return f'<?xml version="1.0"?><Error><Code>{code}</Code><Message>{message}</Message>{more}</Error>'


def answer(status, code=None, **more):
    step = {"status": status, "headers": {"content-type": "application/xml", **more.pop("headers", {})}}
    if code:
        step["body"] = error(code)
    step.update(more)
    return step


def element(name, **children):
    inner = "".join(f"<{key}>{xml.sax.saxutils.escape(value)}</{key}>" for key, value in children.items())
    return f'<{name} xmlns="http://s3.amazonaws.com/doc/2006-03-01/">{inner}</{name}>'


# A store that takes everything: what a scripted upload alone needs.
UPLOAD = [dict(answer(200), body=element("InitiateMultipartUploadResult", UploadId="id"), match=BEGIN, times=0),
          dict(answer(200, headers={"etag": '"part"'}), match={"method": "PUT", "path": "partNumber="}, times=0),
          dict(answer(200), body=element("CompleteMultipartUploadResult", ETag='"whole"'), match=COMPLETE, times=0),
          dict(answer(204), match={"method": "DELETE"}, times=0)]


class Faults(Scripted):
    program, upstream = "tests/provider/s3_faults.lua", "versitygw"

    def run_case(self, case, steps, upstream=True, env=None):
        keys = {} if upstream else {"AWS_ACCESS_KEY_ID": "AKFIRST", "AWS_SECRET_ACCESS_KEY": "first/secret"}
        return super().run_case(case, steps, upstream, {**keys, "AWS_EC2_METADATA_DISABLED": "true", **(env or {})})

    def looked(self, case, steps, keys, **more):
        """As run_case; and the bucket holds these keys and no unfinished upload."""
        result, seen = self.run_case(case, steps, env={"LUNARK_TEST_LOOK": "1", **more.pop("env", {})}, **more)
        self.assertEqual((result["keys"] or [], result["uploads"]), (keys, 0))
        return result, seen

    def fails(self, case, steps, **more):
        result, seen = self.run_case(case, steps, **more)
        self.assertFalse(result["ok"], result)
        return result, seen


class Again(Faults):
    """What is tried again."""

    def test_throttled_then_fine(self):
        for status, code in ((503, "SlowDown"), (500, "InternalError"), (429, "TooManyRequests"), (502, None),
                             (408, "RequestTimeout"), (400, "RequestTimeout"), (504, None), (503, None),
                             (409, "OperationAborted"), (409, "ConditionalRequestConflict"), (400, "BadDigest"),
                             (400, "XAmzContentSHA256Mismatch"), (400, "IncompleteBody"), (503, "ServiceUnavailable"),
                             (503, "SlowDownWrite"), (503, "Busy"), (400, "ThrottlingException"),
                             (400, "KMS.ThrottlingException"), (500, None)):
            with self.subTest(code, status=status):
                result, seen = self.run_case("put", [dict(answer(status, code), match={"method": "PUT"}, times=2)])
                self.assertTrue(result["ok"], result)
                self.assertEqual(len(self.matching(seen, "PUT")), 3)

    def test_retry_after_is_waited_for(self):
        result, seen = self.run_case("put", [
            dict(answer(503, "SlowDown", headers={"retry-after": "2"}), match={"method": "PUT"})])
        self.assertTrue(result["ok"], result)
        self.assertEqual(len(self.matching(seen, "PUT")), 2)
        self.assertGreater(self.seconds, 2)

    def test_retry_after_is_a_date(self):
        # Of whole seconds: a second may be nearly over.
        date = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + 5))
        result, seen = self.run_case("put", [
            dict(answer(503, "SlowDown", headers={"retry-after": date}), match={"method": "PUT"})])
        self.assertTrue(result["ok"], result)
        self.assertEqual(len(self.matching(seen, "PUT")), 2)
        self.assertGreater(self.seconds, 2.5)

    def test_abort_that_something_else_answers(self):
        page = {"status": 200, "body": "<html><body>welcome</body></html>", "times": 2, "match": {"method": "DELETE"}}
        result, seen = self.looked("upload", [dict(answer(400, "InvalidPart"), match=COMPLETE), page], [])
        self.assertEqual(result["code"], "InvalidPart")
        self.assertEqual(len(self.matching(seen, "DELETE", "uploadId=")), 3)

    def test_every_step_of_an_upload_is_throttled(self):
        steps = [dict(answer(503, "SlowDown"), match=match, times=2) for match in (BEGIN, SECOND, COMPLETE)]
        result, seen = self.looked("upload", steps, ["big"])
        self.assertTrue(result["ok"], result)
        self.assertEqual(len(self.matching(seen, "POST", "uploadId=")), 3)
        self.assertEqual(self.matching(seen, "DELETE"), [])

    def test_connection_that_breaks(self):
        for how in (True, "reset"):
            result, seen = self.run_case("put", [{"match": {"method": "PUT"}, "drop": how, "times": 1}])
            self.assertTrue(result["ok"], result)
            self.assertGreaterEqual(len(self.matching(seen, "PUT")), 2)

    def test_reset_in_the_middle_of_a_part(self):
        result, _ = self.looked("upload", [{"match": SECOND, "read": 300000, "drop": "reset", "times": 3}], ["big"])
        self.assertTrue(result["ok"], result)

    def test_server_that_stalls(self):
        for match in (SECOND, COMPLETE, BEGIN):
            with self.subTest(str(match)):
                result, _ = self.looked("stalled", [{"match": match, "hold": 30}], ["big"])
                self.assertTrue(result["ok"], result)
                self.assertLess(self.seconds, 20)

    def test_answer_to_a_part_is_lost(self):
        result, seen = self.looked("upload", [{"match": SECOND, "forward": True, "drop": True}], ["big"])
        self.assertTrue(result["ok"], result)
        self.assertEqual(len(self.matching(seen, "PUT", "partNumber=2")), 2)

    def test_answer_to_the_beginning_is_lost(self):
        lost = {"match": BEGIN, "forward": True, "status": 500, "raw": "", "headers": {}}
        result, seen = self.looked("upload", [lost], ["big"])
        self.assertTrue(result["ok"], result)
        self.assertEqual(len(self.matching(seen, "POST", r"uploads")), 2)
        self.assertEqual(len(self.matching(seen, "DELETE", "uploadId=")), 1, "of the one that nobody knew")

    def test_lost_uploads_may_not_be_listed(self):
        lost = {"match": BEGIN, "forward": True, "status": 500, "raw": "", "headers": {}}
        denied = dict(answer(403, "AccessDenied"), match={"method": "GET", "path": "uploads"}, times=0)
        result, seen = self.run_case("upload", [lost, denied])
        self.assertTrue(result["ok"], result)
        self.assertEqual(self.matching(seen, "DELETE"), [])

    def test_uploads_of_others_are_left_alone(self):
        """Those with parts, of another key, or begun long ago."""
        def upload(key, number, began):
            return (f"<Upload><Key>faults/{key}</Key><UploadId>{number}</UploadId><Initiated>{began}</Initiated>"
                    "</Upload>")
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        uploads = upload("big", "full", now) + upload("big", "old", "2020-01-01T00:00:00Z") + \
            upload("bigger", "other", now) + upload("big", "lost", now)
        parts = "<ListPartsResult>{}</ListPartsResult>"
        result, seen = self.run_case("upload_only", [
            dict(answer(500, "InternalError"), match=BEGIN),
            dict(answer(200), body=f"<ListMultipartUploadsResult>{uploads}</ListMultipartUploadsResult>",
                 match={"method": "GET", "path": "uploads="}),
            dict(answer(200), body=parts.format("<Part><PartNumber>1</PartNumber></Part>"),
                 match={"method": "GET", "path": "uploadId=full"}),
            dict(answer(200), body=parts.format(""), match={"method": "GET", "path": "uploadId=lost"}),
            *UPLOAD], upstream=False)
        self.assertTrue(result["ok"], result)
        deleted = [one["path"].split("uploadId=")[1] for one in self.matching(seen, "DELETE")]
        self.assertEqual(deleted, ["lost"])

    def test_answer_to_complete_is_lost(self):
        # versitygw takes a second completion; S3 may say that there is no such upload any more.
        result, seen = self.looked("upload", [
            {"match": COMPLETE, "forward": True, "drop": True}, dict(answer(404, "NoSuchUpload"), match=COMPLETE)],
            ["big"])
        self.assertTrue(result["ok"], result)
        self.assertEqual(len(self.matching(seen, "POST", "uploadId=")), 2)
        self.assertEqual(self.matching(seen, "DELETE"), [])

    def test_answer_to_an_exclusive_complete_is_lost(self):
        result, seen = self.looked("upload_exclusive", [
            {"match": COMPLETE, "forward": True, "drop": True}, dict(answer(412, "PreconditionFailed"), match=COMPLETE)],
            ["big"])
        self.assertTrue(result["ok"], result)
        self.assertEqual(self.header(self.matching(seen, "POST", "uploadId=")[0], "if-none-match"), "*")

    def test_upload_that_is_gone_when_completed(self):
        result, _ = self.run_case("upload", [
            {"match": COMPLETE, "drop": True}, dict(answer(404, "NoSuchUpload"), match=COMPLETE)])
        self.assertFalse(result["ok"], "nothing is there")
        self.assertEqual(result["code"], "NoSuchUpload")

    def test_answer_to_an_exclusive_put_is_lost(self):
        result, _ = self.looked("exclusive", [{"match": {"method": "PUT"}, "forward": True, "drop": True}], ["key"])
        self.assertTrue(result["ok"], result)

    def test_answer_to_a_copy_is_lost(self):
        copy = {"method": "PUT", "header": {"x-amz-copy-source": "."}}
        for case, keys in (("copy", ["from", "to"]), ("copy_large", ["big", "to"])):
            result, seen = self.looked(case, [{"match": copy, "forward": True, "drop": True}], keys,
                                       env={"LUNARK_TEST_QUERY": "&copy_max=5M"})
            self.assertTrue(result["ok"], result)

    def test_answer_to_a_batch_of_deletes_is_lost(self):
        result, _ = self.looked("delete_many", [{"match": {"method": "POST"}, "forward": True, "drop": True}], [])
        self.assertTrue(result["ok"], result)

    def test_answer_to_an_abort_is_lost(self):
        result, _ = self.looked("upload", [
            dict(answer(400, "InvalidPart"), match=COMPLETE),
            {"match": {"method": "DELETE"}, "forward": True, "drop": True}], [])
        self.assertEqual(result["code"], "InvalidPart")
        self.assertNotIn("could not be removed", self.stderr)

    def test_error_inside_of_a_200(self):
        for case, path in (("upload", "uploadId="), ("copy", "/to"), ("copy_large", "/to.*partNumber=")):
            method = "POST" if case == "upload" else "PUT"
            with self.subTest(case):
                result, seen = self.run_case(case, [
                    dict(answer(200, "InternalError"), match={"method": method, "path": path})],
                    env={"LUNARK_TEST_QUERY": "&copy_max=5M"})
                self.assertTrue(result["ok"], result)
                self.assertEqual(len(self.matching(seen, method, path)), {"copy_large": 4}.get(case, 2))

    def test_error_inside_of_a_200_for_good(self):
        for case, step in (("upload", COMPLETE), ("copy", {"method": "PUT", "path": "/to"})):
            result, _ = self.fails(case, [dict(answer(200, "AccessDenied"), match=step, times=0)])
            self.assertEqual((result["kind"], result["code"]), ("auth", "AccessDenied"))

    def test_error_inside_of_a_200_that_is_no_use_to_try_again(self):
        for code in ("InvalidPart", "InvalidPartOrder", "EntityTooSmall", "InvalidRequest", "InvalidArgument", "MalformedXML",
                     "NotImplemented", "QuotaExceeded"):
            with self.subTest(code):
                result, seen = self.looked("upload", [dict(answer(200, code), match=COMPLETE, times=0)], [])
                self.assertEqual((result["ok"], result["kind"], result["code"]), (False, "io", code))
                self.assertEqual(len(self.matching(seen, "POST", "uploadId=")), 1)

    def test_answers_that_are_no_xml(self):
        for body in ("", "<html>busy", "<ListBucketResult>", "<html><body>busy</body></html>"):
            result, seen = self.run_case("list", [{"match": {"method": "GET"}, "status": 200, "body": body}])
            self.assertTrue(result["ok"], "asked again")
            self.assertEqual(len(self.matching(seen, "GET")), 2)

    def test_somebody_in_between_answers(self):
        """A 200 of something that is no store is not success."""
        page = {"status": 200, "body": "<html><body>welcome</body></html>", "times": 2}
        for case, match in (("put", {"method": "PUT"}), ("head", {"method": "HEAD"}), ("get", {"method": "GET"}),
                            ("delete", {"method": "DELETE"}), ("upload", BEGIN), ("upload", SECOND), ("upload", COMPLETE),
                            ("copy", {"method": "PUT", "path": "/to"}), ("delete_many", {"method": "POST"})):
            with self.subTest(case, match=str(match)):
                result, seen = self.run_case(case, [dict(page, match=match)])
                # What is not there is asked for until the store says so.
                self.assertTrue(result["ok"] or case in ("head", "get") and result["kind"] == "not_found", result)
                self.assertGreaterEqual(len(self.matching(seen, match["method"], match.get("path", ""))), 3)

    def test_damage_on_the_way(self):
        wrong = answer(200, headers={"etag": '"00000000000000000000000000000000"'})
        result, seen = self.run_case("put", [dict(wrong, match={"method": "PUT"})])
        self.assertTrue(result["ok"], "sent again")
        self.assertEqual(len(self.matching(seen, "PUT")), 2)
        other = dict(answer(200, headers={"etag": '"0"', "x-amz-checksum-crc32c": "AAAAAA=="}), match=SECOND)
        for step, query in ((other, ""), (dict(wrong, match=SECOND), "&checksum=md5")):
            result, seen = self.run_case("upload", [step], env={"LUNARK_TEST_QUERY": query})
            self.assertTrue(result["ok"], "sent again")
            self.assertEqual(len(self.matching(seen, "PUT", "partNumber=2")), 2)


class Final(Faults):
    """What is not tried again."""

    def test_complete_fails_for_good(self):
        for status, code in ((400, "InvalidPart"), (400, "EntityTooSmall"), (403, "AccessDenied"), (501, None)):
            result, seen = self.looked("upload", [dict(answer(status, code), match=COMPLETE)], [])
            self.assertEqual(result.get("code"), code)
            self.assertEqual(len(self.matching(seen, "DELETE", "uploadId=")), 1)

    def test_complete_of_other_bytes(self):
        for says, query, told in ((dict(ETag='"0-3"', ChecksumCRC32C="AAAAAA==-3"), "", "CRC32C AAAA"),
                                  (dict(ETag='"00000000000000000000000000000000-3"'), "&checksum=md5", "MD5 0000")):
            body = element("CompleteMultipartUploadResult", **says)
            result, seen = self.fails("upload", [dict(answer(200), body=body, match=COMPLETE)],
                                      env={"LUNARK_TEST_QUERY": query})
            self.assertEqual(result["kind"], "corrupt")
            self.assertIn("the store reports " + told, result["message"])
            self.assertEqual(len(self.matching(seen, "POST", "uploadId=")), 1)

    def test_part_is_refused(self):
        result, seen = self.looked("upload", [dict(answer(403, "AccessDenied"), match=SECOND)], [])
        self.assertEqual(result["kind"], "auth")
        self.assertEqual(len(self.matching(seen, "DELETE", "uploadId=")), 1)

    def test_upload_that_was_aborted_by_somebody(self):
        result, _ = self.fails("upload", [
            dict(answer(404, "NoSuchUpload"), match={"method": "PUT", "path": "partNumber=1"})])
        self.assertEqual(result["kind"], "conflict")
        self.assertIn("lifecycle", result["hint"])

    def test_errors_that_a_user_reads(self):
        cases = [
            ("put", 403, "InvalidAccessKeyId", "auth", "does not know this access key; the credentials are from the env"),
            ("put", 403, "SignatureDoesNotMatch", "auth", "check the access key, the secret key"),
            ("put", 403, "AccessDenied", "auth", "the policy of this key"),
            ("put", 403, None, "auth", "the credentials are from the environment"),
            ("put", 401, None, "auth", "refuses these credentials"),
            ("put", 400, "ExpiredToken", "auth", "have expired"),
            ("put", 400, "InvalidToken", "auth", "AWS_SESSION_TOKEN"),
            ("put", 400, "InvalidStorageClass", "usage", "storage_class"),
            ("put", 400, "KMS.NotFoundException", "usage", "sse_kms_key_id"),
            ("put", 403, "KMS.DisabledException", "auth", "sse_kms_key_id"),
            ("put", 404, "NoSuchBucket", "not_found", "make the bucket"),
            ("put", 507, "XMinioStorageFull", "io", "full"),
            ("put", 412, "PreconditionFailed", "conflict", ""),
            ("put", 405, "MethodNotAllowed", "io", ""),
            ("put", 411, "MissingContentLength", "io", ""),
            ("put", 400, "EntityTooLarge", "io", ""),
            ("put", 400, "KeyTooLongError", "usage", "1,024"),
            ("put", 501, "NotImplemented", "io", ""),
            ("put", 302, None, "usage", "region"),
            ("put", 403, "AccountProblem", "auth", "refuses"),
            ("put", 403, "InvalidSecurity", "auth", "refuses"),
            ("put", 403, "QuotaExceeded", "io", "quota"),
            ("put", 400, "XMinioAdminBucketQuotaExceeded", "io", "quota"),
            ("put", 400, "TokenRefreshRequired", "auth", "refuses"),
            ("put", 400, "InvalidBucketName", "usage", ""),
            ("put", 400, "InvalidDigest", "io", ""),
            ("put", 400, "InvalidEncryptionAlgorithmError", "usage", "?sse="),
            ("put", 400, "MetadataTooLarge", "usage", ""),
            ("put", 400, "MissingSecurityHeader", "io", ""),
            ("put", 409, "InvalidBucketState", "io", ""),
            ("put", 422, "UnprocessableEntity", "io", ""),
            ("put", 410, None, "not_found", ""),
            ("get", 404, "NoSuchKey", "not_found", ""),
            ("head", 404, None, "not_found", ""),
            ("head", 403, None, "auth", "refuses"),
            ("delete", 400, "ObjectLocked", "denied", "retention"),
            ("list", 404, "NoSuchBucket", "not_found", "make the bucket"),
            ("list", 403, "AllAccessDisabled", "auth", ""),
            ("get", 403, "InvalidObjectState", "io", "archived"),
            ("get", 416, "InvalidRange", "usage", ""),
            ("delete", 403, "AccessDenied", "auth", "policy"),
        ]
        for case, status, code, kind, hint in cases:
            with self.subTest(code, case=case, status=status):
                result, seen = self.fails(case, [dict(answer(status, code), times=0)], upstream=False)
                self.assertEqual(result["kind"], kind, result)
                self.assertIn(hint, result.get("hint") or "")
                self.assertEqual(result["status"], status)
                self.assertEqual(len(seen), 2 if status == 412 else 1, "what is no use is not tried again")
                self.assertNotIn("first/secret", json.dumps(result) + self.stderr)

    def test_missing_bucket(self):
        result, _ = self.run_case("check", [], env={"LUNARK_TEST_BUCKET": "no-such-bucket"})
        self.assertEqual(result["kind"], "not_found")
        self.assertRegex(result["message"], r"^bucket no-such-bucket at 127\.0\.0\.1:\d+: there is no such bucket$")

    def test_write_only_keys_may_back_up(self):
        steps = [dict(answer(403, "AccessDenied"), match={"method": "GET"}, times=0)]
        result, _ = self.run_case("check", steps, upstream=False)
        self.assertTrue(result["ok"])
        result, _ = self.run_case("read", steps, upstream=False)
        self.assertEqual(result["kind"], "auth")

    def test_more_parts_than_there_can_be(self):
        result, seen = self.looked("too_many", [], [])
        self.assertIn("2 parts", result["message"])
        self.assertEqual(len(self.matching(seen, "DELETE", "uploadId=")), 1)

    def test_ten_thousand_parts(self):
        result, seen = self.run_case("ten_thousand", UPLOAD, upstream=False)
        self.assertTrue(result["ok"], result)
        (complete,) = self.matching(seen, "POST", "uploadId=")
        self.assertGreater(complete["bytes"], 10000 * len("<Part><PartNumber></PartNumber><ETag></ETag></Part>"))

    def test_the_original_is_replaced_while_it_is_copied(self):
        head = dict(answer(200, headers={"etag": '"one"'}), length=5, match={"method": "HEAD"}, times=0)
        result, seen = self.fails("copy_only", [
            head, dict(answer(412, "PreconditionFailed"), match={"method": "PUT"}, times=0)], upstream=False)
        self.assertEqual(result["kind"], "conflict")
        self.assertIn("changed while it was copied", result["message"])
        self.assertEqual(self.header(self.matching(seen, "PUT")[0], "x-amz-copy-source-if-match"), "one")


class Latest(Faults):
    """Copies that must not replace what another run has put there meanwhile."""

    @staticmethod
    def head(key, length, **headers):
        return dict(answer(200, headers={"etag": '"one"', **headers}), length=length, times=0,
                    match={"method": "HEAD", "path": key})

    def test_conditions(self):
        done = dict(answer(200), body=element("CopyObjectResult", ETag='"new"'), match={"method": "PUT"})
        for case, name, value in (("latest", "if-match", '"old"'), ("latest_first", "if-none-match", "*")):
            result, seen = self.run_case(case, [self.head("from", 5), done], upstream=False)
            self.assertTrue(result["ok"], result)
            self.assertEqual(self.header(self.matching(seen, "PUT")[0], name), value)

    def test_moved_by_another(self):
        refused = dict(answer(412, "PreconditionFailed"), match={"method": "PUT"}, times=0)
        for length, mark, ok in ((5, "another", False), (6, "from", False), (5, "from", True)):
            for case in ("latest", "latest_first"):
                result, _ = self.run_case(case, [
                    self.head("from", 5), self.head("to", length, **{"x-amz-meta-of": mark}), refused], upstream=False)
                self.assertEqual((result["ok"], result.get("kind")), (ok, None if ok else "conflict"))

    def test_store_without_conditions(self):
        result, seen = self.run_case("latest", [
            self.head("from", 5), dict(answer(501, "NotImplemented"), match={"method": "PUT", "header": {"if-match": "."}}),
            dict(answer(200), body=element("CopyObjectResult", ETag='"new"'), match={"method": "PUT"})], upstream=False)
        self.assertTrue(result["ok"], result)
        self.assertEqual(len(self.matching(seen, "PUT")), 2)

    def test_copy_in_parts(self):
        result, seen = self.fails("copy_large", [
            dict(answer(412, "PreconditionFailed"), match={"method": "POST", "path": "/to.*uploadId="})],
            env={"LUNARK_TEST_QUERY": "&copy_max=5M"})
        self.assertEqual(result["kind"], "conflict")
        self.assertEqual(self.header(self.matching(seen, "POST", "/to.*uploadId=")[0], "if-none-match"), "*")
        self.assertEqual(len(self.matching(seen, "DELETE", "/to.*uploadId=")), 1)


class Reading(Faults):
    BODY = "0123456789"

    def get(self, case="get_all", **more):
        step = dict({"status": 200, "headers": {"etag": '"x"'}, "body": self.BODY, "match": {"method": "GET"}}, **more)
        return self.run_case(case, [step], upstream=False)[0]

    def test_an_answer_that_ends_early(self):
        self.assertEqual(self.get()["text"], self.BODY)
        for more in ({"close_after": 5}, {"reset_after": 5}, {"length": 20, "close_after": 10}):
            with self.subTest(str(more)):
                result = self.get(**more)
                self.assertEqual((result["ok"], result.get("kind")), (False, "network"), result)

    def test_ranges(self):
        good = {"content-range": "bytes 2-4/10"}
        self.assertEqual(self.get("get_range", status=206, headers=good, body="234")["text"], "234")
        for more in ({"status": 200}, {"status": 206, "headers": {"content-range": "bytes 0-2/10"}, "body": "012"},
                     {"status": 206, "headers": {}, "body": "012"}):
            with self.subTest(str(more)):
                result = self.get("get_range", **more)
                self.assertEqual((result["ok"], result.get("kind")), (False, "io"), result)


class Places(Faults):
    """Regions, clocks, keys that end."""

    def test_another_region(self):
        wrong = answer(400, "AuthorizationHeaderMalformed")
        wrong["body"] = error("AuthorizationHeaderMalformed", more="<Region>us-east-1</Region>")
        result, seen = self.run_case("put", [dict(wrong, match={"method": "PUT"})], env={"AWS_REGION": "eu-west-1"})
        self.assertTrue(result["ok"], result)
        self.assertEqual(result["region"], "us-east-1")
        scopes = [self.header(one, "authorization") for one in self.matching(seen, "PUT")]
        self.assertIn("/eu-west-1/s3/", scopes[0])
        self.assertIn("/us-east-1/s3/", scopes[1])

    def test_redirects_to_a_region(self):
        for status, code in ((301, "PermanentRedirect"), (307, "TemporaryRedirect"), (400, "IllegalLocationConstraint"),
                             (400, None), (301, None)):
            with self.subTest(code, status=status):
                result, seen = self.run_case("put", [
                    dict(answer(status, code, headers={"x-amz-bucket-region": "us-east-1"}), match={"method": "PUT"})],
                    env={"AWS_REGION": "eu-west-1"})
                self.assertTrue(result["ok"], result)
                self.assertEqual(len(self.matching(seen, "PUT")), 2)

    def test_redirects_in_a_circle(self):
        for status in (301, 307, 400):
            result, seen = self.fails("put", [
                dict(answer(status, "PermanentRedirect", headers={"x-amz-bucket-region": region}), match={"method": "PUT"})
                for region in ("eu-west-2", "eu-west-3")], upstream=False)
            self.assertEqual(len(seen), 2)
            self.assertIn("region", result["hint"])

    def test_a_location_is_not_followed(self):
        result, seen = self.fails("put", [
            dict(answer(307, "TemporaryRedirect", headers={"location": "http://192.0.2.1/"}), times=0)], upstream=False)
        self.assertEqual(len(seen), 1)

    def test_clock_that_is_off(self):
        ahead = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + 3600))
        # An answer to HEAD has no code.
        for case, method, code in (("put", "PUT", "RequestTimeTooSkewed"), ("head", "HEAD", None)):
            result, seen = self.run_case(case, [
                dict(answer(403, code, headers={"date": ahead}), match={"method": method}),
                dict(answer(200, headers={"etag": '"x"'}), match={"method": method})], upstream=False)
            self.assertTrue(result["ok"], result)
            self.assertAlmostEqual(result["skew"], 3600, delta=30)
            dates = [self.header(one, "x-amz-date") for one in self.matching(seen, method)]
            self.assertEqual(len(dates), 2)
            self.assertNotEqual(dates[0][:11], dates[1][:11], "signed an hour later")

    def test_clock_is_corrected_once(self):
        result, seen = self.fails("put", [dict(answer(403, "RequestTimeTooSkewed"), times=0)], upstream=False)
        self.assertEqual(result["kind"], "auth")
        self.assertIn("clock", result["hint"])
        self.assertLessEqual(len(seen), 2)

    def test_keys_that_end_in_mid_upload(self):
        """Their file has others by then."""
        with tempfile.TemporaryDirectory(prefix="lunark-keys-") as scratch:
            file = os.path.join(scratch, "credentials")
            with open(file, "w", encoding="ascii") as text:
                text.write("[default]\naws_access_key_id = AKFIRST\naws_secret_access_key = first/secret\n"
                           "aws_session_token = first/token\n")
            expired = dict(answer(400, "ExpiredToken"), times=0, match={
                "method": "PUT", "path": "partNumber=[23]", "header": {"authorization": "AKFIRST"}})
            result, seen = self.run_case("rotated", [expired, *UPLOAD], upstream=False, env={
                "AWS_SHARED_CREDENTIALS_FILE": file, "AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""})
        self.assertTrue(result["ok"], result)
        self.assertIn("AKFIRST", self.header(self.matching(seen, "PUT", "partNumber=1")[0], "authorization"))
        last = self.matching(seen, "POST", "uploadId=")[-1]
        self.assertIn("AKSECOND", self.header(last, "authorization"))
        self.assertEqual(self.header(last, "x-amz-security-token"), "second/token")
        self.assertNotIn("second/", self.stderr)

    def test_keys_that_end_for_good(self):
        expired = dict(answer(400, "ExpiredToken"), times=0, match=SECOND)
        result, seen = self.fails("upload_only", [expired, *UPLOAD], upstream=False,
                                  env={"AWS_SESSION_TOKEN": "first/token"})
        self.assertEqual((result["kind"], result["code"]), ("auth", "ExpiredToken"))
        self.assertEqual(len(self.matching(seen, "DELETE", "uploadId=")), 1)
        self.assertLess(len(self.matching(seen, "PUT", "partNumber=2")), 4)

    def test_a_source_that_is_silent_for_long(self):
        """Its connections are closed meanwhile, and what comes later is signed with the time it has then."""
        steps = [dict(step, close=True) for step in UPLOAD]
        result, seen = self.run_case("silent", steps, upstream=False)
        self.assertTrue(result["ok"], result)
        times = [self.header(self.matching(seen, "PUT", f"partNumber={n}")[0], "x-amz-date") for n in (1, 2)]
        one, two = (time.mktime(time.strptime(text, "%Y%m%dT%H%M%SZ")) for text in times)
        self.assertAlmostEqual(two - one, 1200, delta=10)


class Lacking(Faults):
    """Stores that lack something, and settings."""

    def test_store_without_batch_delete(self):
        for status, code in ((501, "NotImplemented"), (400, "MalformedXML")):
            result, seen = self.looked("delete_many", [dict(answer(status, code), match={"method": "POST"})], [])
            self.assertTrue(result["ok"], result)
            self.assertEqual(len(self.matching(seen, "DELETE")), 3)

    def test_some_deletes_fail(self):
        entry = "<Error><Key>faults/b</Key><Code>{}</Code><Message>No.</Message></Error>"
        for code, ok in (("AccessDenied", False), ("NoSuchKey", True)):
            body = f"<DeleteResult>{entry.format(code)}</DeleteResult>"
            result, _ = self.run_case("delete_many", [dict(answer(200), body=body, match={"method": "POST"})])
            self.assertEqual(result.get("kind"), None if ok else "auth")

    def test_store_without_conditions(self):
        none = {"header": {"if-none-match": r"\*"}}
        for case, method in (("exclusive", "PUT"), ("upload_exclusive", "POST")):
            result, seen = self.run_case(case, [dict(answer(501, "NotImplemented"), match={"method": method, **none})])
            self.assertTrue(result["ok"], result)
            self.assertEqual(len(self.matching(seen, method, "key|uploadId")), 2)

    def test_settings(self):
        _, seen = self.run_case("settings", [], env={
            "LUNARK_TEST_QUERY": "&storage_class=STANDARD_IA&sse=aws:kms&sse_kms_key_id=alias/backup&copy_max=5M"})
        self.assertEqual(len(self.matching(seen, "PUT", "/key")), 1)
        made = [one for one in seen if one["method"] == "PUT" and "partNumber" not in one["path"]
                or one["method"] == "POST" and "uploads" in one["path"]]
        for one in made:
            self.assertEqual(self.header(one, "x-amz-storage-class"), "STANDARD_IA")
            self.assertEqual(self.header(one, "x-amz-server-side-encryption"), "aws:kms")
            self.assertEqual(self.header(one, "x-amz-server-side-encryption-aws-kms-key-id"), "alias/backup")

    def test_copies_above_the_limit(self):
        result, seen = self.looked("copy_large", [], ["big", "to"], env={"LUNARK_TEST_QUERY": "&copy_max=5M"})
        self.assertTrue(result["ok"], result)
        ranges = sorted(self.header(one, "x-amz-copy-source-range") for one in self.matching(seen, "PUT", "/to.*partNumber="))
        self.assertEqual(ranges, ["bytes=0-5242879", "bytes=10485760-12582911", "bytes=5242880-10485759"])
        for one in self.matching(seen, "PUT", "/to.*partNumber="):
            self.assertRegex(self.header(one, "x-amz-copy-source-if-match"), "-3$")

    def test_copy_in_parts_that_fails(self):
        result, seen = self.looked("copy_large", [
            dict(answer(412, "PreconditionFailed"), match={"method": "PUT", "path": "/to.*partNumber=2"})], ["big"],
            env={"LUNARK_TEST_QUERY": "&copy_max=5M"})
        self.assertEqual(result["kind"], "conflict")
        self.assertEqual(len(self.matching(seen, "DELETE", "uploadId=")), 1)

    def test_checksums_go_with_the_bytes(self):
        """A bucket with a default retention takes nothing without them. A store that refuses the header for
        CRC32C gets MD5s."""
        refuses = dict(answer(501, "NotImplemented"), match=BEGIN)
        for steps, name, form in (([], "x-amz-checksum-crc32c", "^[A-Za-z0-9+/]{6}==$"),
                                  ([refuses], "content-md5", "^[A-Za-z0-9+/]{22}==$")):
            result, seen = self.run_case("upload", steps)
            self.assertTrue(result["ok"], result)
            for one in self.matching(seen, "PUT", "partNumber="):
                self.assertRegex(self.header(one, name), form)
                self.assertEqual(self.header(one, "x-amz-content-sha256"), one["sha256"])


if __name__ == "__main__":
    unittest.main()
