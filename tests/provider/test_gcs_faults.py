#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The gcs provider when the store fails, lies, throttles, or loses an answer: a scripted server in front of an
emulator. What is asserted is the error that a user reads, what was asked, and what the bucket holds afterwards."""
import json
import os
import sys
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
from scripted import Scripted  # noqa: E402

SESSION = "upload_id="
CHUNK = 1024 * 1024


def answer(status, reason=None, message="The store's words.", **more):
    step = {"status": status, "headers": {"content-type": "application/json", **more.pop("headers", {})}}
    if reason:
        step["body"] = json.dumps({"error": {"code": status, "message": message, "errors": [
            {"domain": "global", "reason": reason, "message": message}]}})
    step.update(more)
    return step


def resource(**more):
    """What the store says of an object of the 8 bytes "the body"."""
    return json.dumps({"name": "faults/key", "size": "8", "generation": "7", "crc32c": "lEfIpA==",
                       "updated": "2026-03-01T12:00:00Z", **more})


class Requests(Scripted):
    """Calls of one request."""
    program, upstream = "tests/provider/gcs_faults.lua", "fakegcs"

    def test_throttled_then_fine(self):
        for status, reason in ((503, "backendError"), (500, "internalError"), (429, "rateLimitExceeded"), (502, None),
                               (408, "uploadBrokenConnection"), (403, "userRateLimitExceeded"), (504, None)):
            with self.subTest(reason, status=status):
                result, seen = self.run_case("put", [dict(answer(status, reason), match={"method": "POST"}, times=2)])
                self.assertTrue(result["ok"], result)
                self.assertEqual(len(self.matching(seen, "POST")), 3)

    def test_retry_after_is_waited_for(self):
        result, seen = self.run_case("put", [
            dict(answer(503, headers={"retry-after": "2"}), match={"method": "POST"})])
        self.assertTrue(result["ok"], result)
        self.assertEqual(len(self.matching(seen, "POST")), 2)
        self.assertGreater(self.seconds, 2)

    def test_connection_that_breaks(self):
        for how in (True, "reset"):
            result, seen = self.run_case("put", [{"match": {"method": "POST"}, "drop": how}])
            self.assertTrue(result["ok"], result)
            self.assertGreaterEqual(len(self.matching(seen, "POST")), 2)

    def test_answer_to_an_exclusive_put_is_lost(self):
        result, seen = self.run_case("exclusive", [{"match": {"method": "POST"}, "forward": True, "drop": True}])
        self.assertTrue(result["ok"], result)
        self.assertRegex(self.matching(seen, "POST")[0]["path"], "ifGenerationMatch=0")

    def test_exclusive_put_of_a_key_that_is_taken(self):
        for there in ({"crc32c": "AAAAAA=="}, {"size": "9"}, {"metadata": {"a": "another"}}):
            with self.subTest(str(there)):
                result, _ = self.run_case("exclusive", [
                    dict(answer(412, "conditionNotMet"), match={"method": "POST"}, times=0),
                    dict(answer(200), body=resource(**{"metadata": {"a": "1"}, **there}), match={"method": "GET"})],
                    upstream=False)
                self.assertFalse(result["ok"])
                self.assertEqual(result["kind"], "conflict")
                self.assertEqual(result["message"], "faults/key: the object is there already, or has changed")

    def test_errors_that_a_user_reads(self):
        cases = [
            ("put", 401, "authError", "auth", "the token is not valid"),
            ("put", 403, "forbidden", "auth", "roles of this account"),
            ("put", 403, "insufficientPermissions", "auth", "scope"),
            ("put", 403, "accountDisabled", "auth", "billing"),
            ("put", 403, "userProjectMissing", "auth", "?user_project="),
            ("put", 403, "retentionPolicyNotMet", "denied", "retention policy"),
            ("delete", 403, "objectUnderActiveHold", "denied", "hold"),
            ("put", 404, "notFound", "not_found", "make the bucket"),
            ("list", 404, "notFound", "not_found", "make the bucket"),
            ("put", 400, "invalid", "io", ""),
            ("put", 400, "invalidArgument", "usage", ""),
            ("put", 400, "parseError", "io", ""),
            ("put", 400, "userProjectMissing", "auth", "?user_project="),
            ("put", 400, "userProjectInvalid", "usage", "?user_project="),
            ("put", 403, "UserProjectAccessDenied", "auth", "?user_project="),
            ("put", 401, "AuthenticationRequiredRequesterPays", "auth", "?user_project="),
            ("put", 401, "required", "auth", "refuses"),
            ("put", 403, "AccountDisabled", "auth", "billing"),
            ("put", 403, "accessNotConfigured", "auth", "enable the Cloud Storage API"),
            ("put", 403, "countryBlocked", "auth", "roles"),
            ("put", 403, "dailyLimitExceeded", "throttled", ""),
            ("put", 405, "methodNotAllowed", "io", ""),
            ("put", 410, "gone", "not_found", ""),
            ("put", 411, "required", "io", ""),
            ("put", 412, "orgPolicyConstraintFailed", "denied", "policy of the organization"),
            ("get", 416, "requestedRangeNotSatisfiable", "usage", ""),
            ("put", 409, "conflict", "conflict", ""),
            ("put", 413, "uploadTooLarge", "io", "5 TiB"),
            ("put", 501, None, "io", ""),
        ]
        for case, status, reason, kind, hint in cases:
            with self.subTest(reason, case=case):
                message = "The specified bucket does not exist." if status == 404 else "The store's words."
                result, seen = self.run_case(case, [dict(answer(status, reason, message), times=0)], upstream=False,
                                             env={"LUNARK_TEST_TOKEN": "secret-token"})
                self.assertFalse(result["ok"])
                self.assertEqual((result["kind"], result["status"]), (kind, status), result)
                self.assertIn(hint, result.get("hint") or "")
                self.assertEqual(len(seen), 1, "what is no use is not tried again")
                if kind == "auth":
                    self.assertIn("the credentials are from the option token", result["hint"])
                self.assertNotIn("secret-token", json.dumps(result) + self.stderr)
                self.assertEqual(self.header(seen[0], "authorization"), "Bearer secret-token")

    def test_missing(self):
        result, _ = self.run_case("head", [])
        self.assertEqual((result["kind"], result["message"]), ("not_found", "faults/key: there is no such object"))
        result, _ = self.run_case("delete_many", [])
        self.assertTrue(result["ok"], result)

    def test_missing_bucket(self):
        for case in ("check", "read", "delete"):
            result, _ = self.run_case(case, [
                dict(answer(404, "notFound", "The specified bucket does not exist."), times=0)], upstream=False)
            self.assertEqual(result["kind"], "not_found")
            self.assertRegex(result["message"], r"^bucket lunark-test at 127\.0\.0\.1:\d+: there is no such bucket$")

    def test_accounts_that_only_write(self):
        steps = [dict(answer(403, "forbidden"), match={"method": "GET"}, times=0)]
        self.assertTrue(self.run_case("check", steps, upstream=False)[0]["ok"])
        self.assertEqual(self.run_case("read", steps, upstream=False)[0]["kind"], "auth")

    def test_damage_on_the_way(self):
        for lie in ({"crc32c": "AAAAAA=="}, {"size": "7"}, {"md5Hash": "AAAAAAAAAAAAAAAAAAAAAA=="}):
            result, seen = self.run_case("put", [
                dict(answer(200), body=resource(**lie), match={"method": "POST"})])
            self.assertTrue(result["ok"], "sent again")
            self.assertEqual(len(self.matching(seen, "POST")), 2)

    def test_answers_that_are_no_json(self):
        for body in ("", "<html>busy", '{"items":'):
            result, _ = self.run_case("list", [{"match": {"method": "GET"}, "status": 200, "body": body}])
            self.assertTrue(result["ok"], "asked again")

    def test_answers_that_describe_nothing(self):
        """Status 200 is no success by itself."""
        inner = json.dumps({"error": {"code": 503, "message": "Backend Error", "errors": []}})
        stored = json.loads(resource())
        for case, method, count in (("put", "POST", 2), ("head", "GET", 3), ("list", "GET", 2), ("copy", "POST", 3)):
            for body in (inner, '{"error":"busy"}', "[]", json.dumps(stored | {"name": "other"}), '{"items":[{}]}'):
                if case == "list" and "items" not in body and "error" not in body:
                    continue
                with self.subTest(case, body=body):
                    path = "rewriteTo" if case == "copy" else "alt=json|fields|uploadType"
                    steps = [dict(answer(200), body=body, match={"method": method, "path": path})]
                    if case == "head":
                        steps.append(dict(answer(200), body=resource(), match={"method": "GET"}))
                    result, seen = self.run_case(case, steps)
                    self.assertTrue(result["ok"], result)
                    self.assertGreaterEqual(len(self.matching(seen, method)), min(count, 2))

    def test_object_without_a_checksum(self):
        stored = json.loads(resource())
        del stored["crc32c"]
        result, _ = self.run_case("put", [dict(answer(200), body=json.dumps(stored), match={"method": "POST"})])
        self.assertTrue(result["ok"], "sent again")

    def test_a_page_that_leads_to_itself(self):
        result, _ = self.run_case("list", [dict(answer(200), body='{"nextPageToken":"x"}', times=0)], upstream=False)
        self.assertTrue(result["ok"], "an empty page is one")

    def test_deletes_that_are_throttled(self):
        result, seen = self.run_case("delete_many", [
            dict(answer(429, "rateLimitExceeded"), match={"method": "DELETE"}, times=2)])
        self.assertTrue(result["ok"], result)
        self.assertGreaterEqual(len(self.matching(seen, "DELETE")), 5)

    def test_get_of_an_object_that_is_replaced(self):
        media = {"method": "GET", "path": "alt=media"}
        result, seen = self.run_case("get", [
            dict(answer(200), body=resource(), match={"method": "GET", "path": "fields="}, times=1),
            dict(answer(404, "notFound"), match=media, times=1),
            dict(answer(200), body=resource(generation="8"), match={"method": "GET", "path": "fields="}, times=1),
            dict(answer(200), body="the body", match=media)], upstream=False)
        self.assertTrue(result["ok"], result)
        self.assertRegex(self.matching(seen, "GET", "alt=media")[1]["path"], "generation=8")

    def read(self, **media):
        result, _ = self.run_case("text", [
            dict(answer(200), body=resource(), match={"method": "GET", "path": "fields="}, times=0),
            {"match": {"method": "GET", "path": "alt=media"}, "status": 200, "times": 0, **media}], upstream=False)
        return result["ok"] or result["kind"]

    def test_bodies_that_end_early(self):
        self.assertIs(self.read(body="the body"), True)
        self.assertEqual(self.read(body="the body", close_after=3), "network")
        self.assertEqual(self.read(body="the body", reset_after=3), "network")
        self.assertEqual(self.read(body="the body", stall_after=3), "timeout")
        self.assertEqual(self.read(body="the bo", length=8), "network")
        self.assertEqual(self.read(body="the bo"), "corrupt")
        self.assertEqual(self.read(body="the body, and more"), "corrupt")

    def test_settings(self):
        _, seen = self.run_case("settings", [])
        made = self.matching(seen, "POST", "uploadType=")
        self.assertEqual(len(made), 2)
        for one in made:
            self.assertRegex(one["path"], "kmsKeyName=projects%2Fp%2Fk")
        self.assertRegex(self.matching(seen, "POST", "rewriteTo")[0]["path"], "destinationKmsKeyName=projects%2Fp%2Fk")
        self.assertEqual({self.header(one, "x-goog-user-project") for one in seen}, {"payer"})


def source_of():
    return resource(name="faults/from")


def copy_of(**more):
    return resource(name="faults/to", **more)


class Copies(Scripted):
    program, upstream = "tests/provider/gcs_faults.lua", "fakegcs"
    SOURCE = {"match": {"method": "GET"}, "times": 1, **answer(200)}

    def test_versions(self):
        for status, ok in ((412, False), (200, True)):
            done = json.dumps({"done": True, "resource": json.loads(copy_of())})
            result, seen = self.run_case("latest", [
                dict(self.SOURCE, body=source_of()), answer(status, match={"method": "POST"}, body=done),
                dict(self.SOURCE, body=copy_of(crc32c="AAAAAA=="))], upstream=False)
            self.assertEqual((result["ok"], result.get("kind")), (ok, None if ok else "conflict"))
            self.assertRegex(self.matching(seen, "POST")[0]["path"], "&ifGenerationMatch=5(&|$)")

    def test_answer_is_lost(self):
        result, seen = self.run_case("copy", [
            {"match": {"method": "POST", "path": "rewriteTo"}, "forward": True, "drop": True}])
        self.assertTrue(result["ok"], result)
        self.assertEqual(len(self.matching(seen, "POST", "rewriteTo")), 2)

    def test_many_calls(self):
        rewrite = {"method": "POST", "path": "rewriteTo"}
        more = answer(200, match=rewrite, body=json.dumps({"done": False, "rewriteToken": "t/1"}))
        done = answer(200, match=rewrite, body=json.dumps({"done": True, "resource": json.loads(copy_of())}))
        source = dict(self.SOURCE, body=source_of())
        result, seen = self.run_case("copy_only", [source, dict(more), dict(more), done], upstream=False)
        self.assertTrue(result["ok"], result)
        calls = self.matching(seen, "POST", "rewriteTo")
        self.assertEqual(["rewriteToken=t%2F1" in one["path"] for one in calls], [False, True, True])
        for one in calls:
            self.assertRegex(one["path"], "ifSourceGenerationMatch=7.*ifGenerationMatch=0")

    def test_call_that_fails_in_the_middle(self):
        rewrite = {"method": "POST", "path": "rewriteTo"}
        more = answer(200, match=rewrite, body=json.dumps({"done": False, "rewriteToken": "t/1"}))
        done = answer(200, match=rewrite, body=json.dumps({"done": True, "resource": json.loads(copy_of())}))
        result, seen = self.run_case("copy_only", [
            dict(self.SOURCE, body=source_of(), times=0), more, dict(answer(503), match=rewrite, times=2),
            done], upstream=False)
        self.assertTrue(result["ok"], result)
        self.assertEqual(["rewriteToken=t%2F1" in one["path"] for one in self.matching(seen, "POST")],
                         [False, True, True, True])

    def test_done_before_its_answer_was_lost(self):
        result, _ = self.run_case("copy_only", [
            dict(self.SOURCE, body=source_of()), dict(answer(412, "conditionNotMet"), match={"method": "POST"}),
            dict(self.SOURCE, body=copy_of(metadata={"of": "from"}))], upstream=False)
        self.assertTrue(result["ok"], result)

    def test_somebody_else_was_there(self):
        for there in (copy_of(metadata={"of": "another"}), copy_of(crc32c="AAAAAA==", metadata={"of": "from"})):
            result, _ = self.run_case("copy_only", [
                dict(self.SOURCE, body=source_of()), dict(answer(412, "conditionNotMet"), match={"method": "POST"}),
                dict(self.SOURCE, body=there)], upstream=False)
            self.assertEqual(result.get("kind"), "conflict", result)

    def test_copy_that_is_another(self):
        wrong = json.dumps({"done": True, "resource": json.loads(copy_of(crc32c="AAAAAA=="))})
        result, _ = self.run_case("copy_only", [
            dict(self.SOURCE, body=source_of()), answer(200, match={"method": "POST"}, body=wrong)], upstream=False)
        self.assertEqual(result.get("kind"), "corrupt", result)


class Uploads(Scripted):
    """Resumable sessions, in front of the emulator that answers what a session has."""
    program, upstream = "tests/provider/gcs_faults.lua", "gcsemulator"
    SECOND = {"method": "PUT", "path": SESSION, "header": {"content-range": f"bytes {CHUNK}-"}}
    LAST = {"method": "PUT", "path": SESSION, "header": {"content-range": r"/\d+$"}}

    def ranges(self, seen):
        return [self.header(one, "content-range") for one in self.matching(seen, "PUT", SESSION)]

    def test_nothing_goes_wrong(self):
        result, seen = self.run_case("upload", [])
        self.assertTrue(result["ok"], result)
        self.assertEqual(self.ranges(seen), ["bytes 0-1048575/*", "bytes 1048576-2097151/*", "bytes 2097152-3145727/*",
                                             "bytes 3145728-3145732/3145733"])
        self.assertRegex(self.header(self.matching(seen, "PUT", SESSION)[-1], "x-goog-hash"), "^crc32c=[A-Za-z0-9+/]{6}==$")
        self.assertEqual(self.matching(seen, "DELETE"), [])

    def test_whole_parts(self):
        result, seen = self.run_case("upload_exact", [])
        self.assertTrue(result["ok"], result)
        self.assertEqual(self.ranges(seen)[-1], "bytes 3145728-4194303/4194304")

    def test_chunk_that_does_not_arrive(self):
        for fault in (answer(503, "backendError"), answer(500), answer(408), answer(429, "rateLimitExceeded")):
            with self.subTest(str(fault)):
                result, seen = self.run_case("upload", [dict(fault, match=self.SECOND)])
                self.assertTrue(result["ok"], result)
                ranges = self.ranges(seen)
                self.assertEqual(ranges.count("bytes 1048576-2097151/*"), 2, ranges)
                self.assertIn("bytes */*", ranges)

    def test_connection_that_breaks(self):
        # The HTTP library itself tries once more where a kept connection breaks.
        for fault in ({"drop": True}, {"drop": "reset"}, {"read": 300000, "drop": "reset"}):
            with self.subTest(str(fault)):
                result, seen = self.run_case("upload", [dict(fault, match=self.SECOND, times=2)])
                self.assertTrue(result["ok"], result)
                self.assertIn("bytes */*", self.ranges(seen))

    def test_server_that_stalls(self):
        for match in (self.SECOND, self.LAST, {"method": "POST"}):
            with self.subTest(str(match)):
                result, _ = self.run_case("stalled", [dict(match=match, hold=30)])
                self.assertTrue(result["ok"], result)
                self.assertLess(self.seconds, 20)

    def test_answers_that_describe_nothing(self):
        for body in ('{"error":{"code":503,"message":"Backend Error"}}', "{}", "<html>"):
            with self.subTest(body):
                result, seen = self.run_case("upload", [dict(answer(200), body=body, match=self.LAST)])
                self.assertTrue(result["ok"], result)
                self.assertIn("bytes */3145733", self.ranges(seen))

    def test_chunk_whose_answer_is_lost(self):
        result, seen = self.run_case("upload", [dict(match=self.SECOND, forward=True, drop=True)])
        self.assertTrue(result["ok"], result)
        self.assertEqual(self.ranges(seen).count("bytes 2097152-3145727/*"), 1)

    def test_chunk_of_which_a_part_arrived(self):
        # The session has 256 KiB and a bit of the second chunk.
        status = {"method": "PUT", "path": SESSION, "header": {"content-range": r"^bytes \*/\*"}}
        rest = {"method": "PUT", "path": SESSION, "header": {"content-range": f"^bytes {CHUNK + 262144}-2097151/"}}
        result, seen = self.run_case("upload_only", [
            dict(answer(200, headers={"location": "http://elsewhere/upload/x?upload_id=1"}), match={"method": "POST"}),
            dict(answer(308, headers={"range": f"bytes=0-{CHUNK - 1}"}), match={"method": "PUT"}),
            dict(answer(503), match=self.SECOND),
            dict(answer(308, headers={"range": f"bytes=0-{CHUNK + 262144 + 99}"}), match=status),
            dict(answer(308, headers={"range": f"bytes=0-{2 * CHUNK - 1}"}), match=rest),
            dict(answer(308, headers={"range": f"bytes=0-{3 * CHUNK - 1}"}), match={"method": "PUT"}),
            dict(answer(403, "forbidden"), match=self.LAST)], upstream=False)
        self.assertEqual(result["kind"], "auth", result)
        again = [one for one in self.matching(seen, "PUT") if f"{CHUNK + 262144}-" in self.header(one, "content-range")]
        self.assertEqual([one["bytes"] for one in again], [CHUNK - 262144])
        self.assertEqual(len(self.matching(seen, "DELETE", SESSION)), 1)

    def test_first_chunk_that_does_not_arrive(self):
        result, seen = self.run_case("upload", [{"match": {"method": "PUT", "path": SESSION}, "drop": True}])
        self.assertTrue(result["ok"], result)
        self.assertEqual(self.ranges(seen).count("bytes 0-1048575/*"), 2)

    def test_last_answer_is_lost(self):
        # The emulator forgets a session that is done; Google's answers with the object.
        for case in ("upload", "upload_exact", "upload_exclusive"):
            with self.subTest(case):
                result, seen = self.run_case(case, [dict(match=self.LAST, forward=True, drop=True)])
                self.assertTrue(result["ok"], result)
                self.assertEqual(self.matching(seen, "DELETE"), [])

    def test_last_chunk_does_not_arrive(self):
        for case in ("upload", "upload_exact"):
            result, seen = self.run_case(case, [dict(match=self.LAST, drop=True, times=2)])
            self.assertTrue(result["ok"], result)
            self.assertRegex(" ".join(self.ranges(seen)), r"bytes \*/\d+ ")

    def test_chunk_that_arrives_twice(self):
        # A chunk sent again by the HTTP library is refused, and was taken.
        result, _ = self.run_case("upload", [dict(answer(400, "invalid"), match=self.SECOND, forward=True)])
        self.assertTrue(result["ok"], result)

    def test_session_that_is_gone(self):
        for status in (404, 410):
            result, _ = self.run_case("upload", [
                dict(answer(status), match={"method": "PUT", "path": SESSION}, times=0)])
            self.assertEqual(result["kind"], "io", result)
            self.assertIn("session", result["hint"])

    def test_cancelled(self):
        result, seen = self.run_case("cancel", [])
        self.assertEqual(result["kind"], "cancelled", result)
        self.assertGreaterEqual(len(self.matching(seen, "PUT", SESSION)), 1)
        self.assertEqual(len(self.matching(seen, "DELETE", SESSION)), 1)

    def test_upload_that_fails_is_ended(self):
        result, seen = self.run_case("upload", [
            dict(answer(403, "forbidden"), match=self.SECOND), dict(answer(499), match={"method": "DELETE"})])
        self.assertEqual(result["kind"], "auth", result)
        self.assertEqual(len(self.matching(seen, "DELETE", SESSION)), 1)
        self.assertNotIn("could not be removed", self.stderr)

    def test_damage_on_the_way(self):
        result, seen = self.run_case("upload", [
            dict(answer(200), body=resource(name="faults/big", size="3145733", generation="77", crc32c="AAAAAA=="),
                 match=self.LAST)])
        self.assertEqual(result["kind"], "corrupt", result)
        self.assertIn("the store reports crc32c AAAAAA==", result["message"])
        self.assertEqual(len(self.matching(seen, "DELETE", "generation=77")), 1)

    def test_bytes_that_the_store_refuses(self):
        words = 'Provided CRC32C "AAAAAA==" doesn\'t match calculated CRC32C "lEfIpA==".'
        for case in ("upload", "upload_exact"):
            result, seen = self.run_case(case, [
                dict(answer(400, "invalid", words), match=self.LAST, times=0),
                dict(answer(499), match={"method": "DELETE"})])
            self.assertEqual((result["kind"], result["hint"]), ("corrupt", "the bytes were changed on their way"), result)
            self.assertIn("doesn't match calculated", result["message"])
            self.assertEqual(len(self.matching(seen, "DELETE", SESSION)), 1)
        result, _ = self.run_case("put", [dict(answer(400, "invalid", words), match={"method": "POST"})],
                                  upstream="fakegcs")
        self.assertTrue(result["ok"], "sent again")

    def test_session_that_takes_nothing(self):
        result, seen = self.run_case("upload_only", [
            dict(answer(200, headers={"location": "http://elsewhere/upload/x?upload_id=1"}), match={"method": "POST"}),
            dict(answer(308), match={"method": "PUT"}, times=3),
            dict(answer(403, "forbidden"), match={"method": "PUT"})], upstream=False)
        self.assertEqual(result["kind"], "auth", result)
        self.assertEqual(len(self.matching(seen, "PUT")), 4)

    def test_session_without_an_address(self):
        result, _ = self.run_case("upload", [dict(answer(200), body="<html>", match={"method": "POST"})])
        self.assertTrue(result["ok"], "begun again")

    def test_token_never_goes_to_another_host(self):
        _, seen = self.run_case("upload_only", [
            dict(answer(200, headers={"location": "http://192.0.2.1/upload/x?upload_id=1"}), match={"method": "POST"}),
            dict(answer(403, "forbidden"), match={"method": "PUT"})], upstream=False,
            env={"LUNARK_TEST_TOKEN": "secret-token"})
        self.assertEqual(self.matching(seen, "PUT")[0]["path"], "/upload/x?upload_id=1")

    def test_precondition_fails_at_the_end(self):
        result, _ = self.run_case("upload_exclusive", [
            dict(answer(412, "conditionNotMet"), match=self.LAST), dict(answer(499), match={"method": "DELETE"})])
        self.assertEqual(result["kind"], "conflict", result)


if __name__ == "__main__":
    unittest.main()
