#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The s3 provider when the store fails, lies, throttles, redirects, or loses an answer: a scripted server in front of
versitygw. What is asserted is the error that a user reads, and what the bucket holds afterwards."""
import json
import os
import re
import subprocess
import tempfile
import time
import unittest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
LUARUN = os.path.join(ROOT, "build", os.environ.get("LUNARK_TEST_BUILD", "release"), "luarun")
SERVER = os.path.join(ROOT, "tests", "support", "server")
UNAVAILABLE = 77


def error(code, message="The store's words."):
    return f'<?xml version="1.0"?><Error><Code>{code}</Code><Message>{message}</Message></Error>'


def answer(status, code=None, **more):
    step = {"status": status, "headers": {"content-type": "application/xml", **more.pop("headers", {})}}
    if code:
        step["body"] = error(code)
    step.update(more)
    return step


class Faults(unittest.TestCase):
    def run_case(self, case, steps, upstream=True, env=None, bucket="lunark-test"):
        """(what became of it, the requests that were seen)."""
        with tempfile.TemporaryDirectory(prefix="lunark-faults-") as scratch:
            script, log = os.path.join(scratch, "script.json"), os.path.join(scratch, "log")
            with open(script, "w", encoding="utf-8") as file:
                json.dump(steps, file)
            argv = [SERVER, "faulty", "--script", script]
            if upstream:
                argv += ["--upstream", "versitygw"]
            # The log goes with the server: it is copied while that runs.
            command = (f'"{LUARUN}" tests/provider/s3_faults.lua {case} {bucket}; status=$?; '
                       f'cp "$LUNARK_TEST_HTTP_LOG" "{log}"; exit $status')
            began = time.time()
            environment = dict(os.environ, AWS_ACCESS_KEY_ID="x", AWS_SECRET_ACCESS_KEY="y")
            child = subprocess.run(
                [*argv, "--", "sh", "-c",
                 'export AWS_ENDPOINT_URL="$LUNARK_TEST_HTTP_URL" '
                 'AWS_ACCESS_KEY_ID="${AWS_ACCESS_KEY_ID:-x}" AWS_SECRET_ACCESS_KEY="${AWS_SECRET_ACCESS_KEY:-y}" '
                 f'{" ".join(f"{k}={v}" for k, v in (env or {}).items())}; ' + command],
                cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                timeout=120, check=False)
            self.seconds = time.time() - began
            if child.returncode == UNAVAILABLE:
                raise unittest.SkipTest(child.stderr.decode())
            text = child.stdout.decode()
            self.assertEqual(child.returncode, 0, text + child.stderr.decode())
            with open(log, encoding="utf-8") as lines:
                seen = [json.loads(line) for line in lines]
            self.stderr = child.stderr.decode()
            return json.loads(text.strip().splitlines()[-1]), seen

    @staticmethod
    def matching(seen, method, pattern=""):
        return [one for one in seen if one["method"] == method and re.search(pattern, one["path"])]

    # --- what is tried again ---

    def test_throttled_then_fine(self):
        for status, code in ((503, "SlowDown"), (500, "InternalError"), (429, "TooManyRequests"),
                             (408, "RequestTimeout")):
            with self.subTest(code):
                result, seen = self.run_case("put", [dict(answer(status, code), match={"method": "PUT"}, times=2)])
                self.assertTrue(result["ok"], result)
                self.assertEqual(len(self.matching(seen, "PUT")), 3)

    def test_retry_after_is_waited_for(self):
        result, seen = self.run_case("put", [
            dict(answer(503, "SlowDown", headers={"retry-after": "2"}), match={"method": "PUT"})])
        self.assertTrue(result["ok"], result)
        self.assertEqual(len(self.matching(seen, "PUT")), 2)
        self.assertGreater(self.seconds, 2)

    def test_connection_that_breaks(self):
        for how in (True, "reset"):
            result, seen = self.run_case("put", [{"match": {"method": "PUT"}, "drop": how, "times": 1}])
            self.assertTrue(result["ok"], result)
            self.assertGreaterEqual(len(self.matching(seen, "PUT")), 2)

    def test_answer_to_a_part_is_lost(self):
        result, seen = self.run_case("upload", [
            {"match": {"method": "PUT", "path": "partNumber=2"}, "forward": True, "drop": True}])
        self.assertTrue(result["ok"], result)
        self.assertEqual(len(self.matching(seen, "PUT", "partNumber=2")), 2)

    def test_answer_to_complete_is_lost(self):
        # versitygw takes a second completion; S3 may say that there is no such upload any more.
        complete = {"method": "POST", "path": "uploadId="}
        result, seen = self.run_case("upload", [
            {"match": complete, "forward": True, "drop": True}, dict(answer(404, "NoSuchUpload"), match=complete)])
        self.assertTrue(result["ok"], result)
        self.assertEqual(len(self.matching(seen, "POST", "uploadId=")), 2)
        self.assertEqual(len(self.matching(seen, "HEAD", "/big")), 1)
        self.assertEqual(self.matching(seen, "DELETE"), [])

    def test_upload_that_is_gone_when_completed(self):
        complete = {"method": "POST", "path": "uploadId="}
        result, _ = self.run_case("upload", [
            {"match": complete, "drop": True}, dict(answer(404, "NoSuchUpload"), match=complete)])
        self.assertFalse(result["ok"], "nothing is there")
        self.assertEqual(result["code"], "NoSuchUpload")

    def test_answer_to_an_exclusive_put_is_lost(self):
        result, _ = self.run_case("exclusive", [{"match": {"method": "PUT"}, "forward": True, "drop": True}])
        self.assertTrue(result["ok"], result)

    def test_error_inside_of_a_200(self):
        for case, path in (("upload", "uploadId="), ("copy", "/to")):
            method = "POST" if case == "upload" else "PUT"
            with self.subTest(case):
                result, seen = self.run_case(case, [
                    dict(answer(200, "InternalError"), match={"method": method, "path": path})])
                self.assertTrue(result["ok"], result)
                self.assertEqual(len(self.matching(seen, method, path)), 2)

    # --- what is not ---

    def test_complete_fails_for_good(self):
        result, seen = self.run_case("upload", [
            dict(answer(400, "InvalidPart"), match={"method": "POST", "path": "uploadId="})])
        self.assertFalse(result["ok"])
        self.assertIn("InvalidPart", result["message"])
        self.assertEqual(len(self.matching(seen, "DELETE", "uploadId=")), 1)

    def test_upload_that_was_aborted_by_somebody(self):
        result, _ = self.run_case("upload", [
            dict(answer(404, "NoSuchUpload"), match={"method": "PUT", "path": "partNumber=1"})])
        self.assertFalse(result["ok"])
        self.assertEqual(result["kind"], "conflict")
        self.assertIn("lifecycle", result["hint"])

    def test_errors_that_a_user_reads(self):
        cases = [
            ("put", 403, "InvalidAccessKeyId", "auth", "does not know this access key; the credentials are from the env"),
            ("put", 403, "SignatureDoesNotMatch", "auth", "check the access key, the secret key"),
            ("put", 403, "AccessDenied", "auth", "the policy of this key"),
            ("put", 400, "ExpiredToken", "auth", "have expired"),
            ("put", 404, "NoSuchBucket", "not_found", "make the bucket"),
            ("put", 507, "XMinioStorageFull", "io", "full"),
        ]
        for case, status, code, kind, hint in cases:
            with self.subTest(code):
                result, seen = self.run_case(case, [dict(answer(status, code), times=0)], upstream=False)
                self.assertFalse(result["ok"])
                self.assertEqual(result["kind"], kind, result)
                self.assertIn(hint, result["hint"])
                self.assertEqual(result["status"], status)
                self.assertEqual(len(seen), 1, "what is no use is not tried again")

    def test_missing_bucket(self):
        result, _ = self.run_case("check", [], bucket="no-such-bucket")
        self.assertEqual(result["kind"], "not_found")
        self.assertRegex(result["message"], r"^bucket no-such-bucket at 127\.0\.0\.1:\d+: there is no such bucket$")

    def test_write_only_keys_may_back_up(self):
        steps = [dict(answer(403, "AccessDenied"), match={"method": "GET"}, times=0)]
        result, _ = self.run_case("check", steps, upstream=False)
        self.assertTrue(result["ok"])
        result, _ = self.run_case("read", steps, upstream=False)
        self.assertEqual(result["kind"], "auth")

    def test_damage_on_the_way(self):
        result, seen = self.run_case("put", [
            dict(answer(200, headers={"etag": '"00000000000000000000000000000000"'}), match={"method": "PUT"})])
        self.assertTrue(result["ok"], "sent again")
        self.assertEqual(len(self.matching(seen, "PUT")), 2)

    # --- regions and clocks ---

    def test_another_region(self):
        wrong = answer(400, "AuthorizationHeaderMalformed")
        wrong["body"] = error("AuthorizationHeaderMalformed").replace("</Error>", "<Region>us-east-1</Region></Error>")
        result, seen = self.run_case("put", [dict(wrong, match={"method": "PUT"})], env={"AWS_REGION": "eu-west-1"})
        self.assertTrue(result["ok"], result)
        self.assertEqual(result["region"], "us-east-1")
        scopes = [dict(one["headers"]).get("authorization", "") for one in self.matching(seen, "PUT")]
        self.assertIn("/eu-west-1/s3/", scopes[0])
        self.assertIn("/us-east-1/s3/", scopes[1])

    def test_redirect_to_a_region(self):
        result, _ = self.run_case("put", [
            dict(answer(301, "PermanentRedirect", headers={"x-amz-bucket-region": "us-east-1"}), match={"method": "PUT"})],
            env={"AWS_REGION": "eu-west-1"})
        self.assertTrue(result["ok"], result)

    def test_clock_that_is_off(self):
        ahead = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + 3600))
        result, seen = self.run_case("put", [
            dict(answer(403, "RequestTimeTooSkewed", headers={"date": ahead}), match={"method": "PUT"}),
            dict(answer(200, headers={"etag": '"x"'}), match={"method": "PUT"})], upstream=False)
        self.assertTrue(result["ok"], result)
        self.assertAlmostEqual(result["skew"], 3600, delta=30)
        dates = [dict(one["headers"])["x-amz-date"] for one in self.matching(seen, "PUT")]
        self.assertEqual(len(dates), 2)
        self.assertNotEqual(dates[0][:11], dates[1][:11], "signed an hour later")

    def test_clock_is_corrected_once(self):
        result, seen = self.run_case("put", [dict(answer(403, "RequestTimeTooSkewed"), times=0)], upstream=False)
        self.assertEqual(result["kind"], "auth")
        self.assertIn("clock", result["hint"])
        self.assertLessEqual(len(seen), 2)

    # --- stores that lack something ---

    def test_store_without_batch_delete(self):
        result, seen = self.run_case("delete_many", [dict(answer(501, "NotImplemented"), match={"method": "POST"})])
        self.assertTrue(result["ok"], result)
        self.assertEqual(len(self.matching(seen, "DELETE")), 3)

    def test_store_without_conditions(self):
        result, seen = self.run_case("exclusive", [
            dict(answer(501, "NotImplemented"), match={"method": "PUT", "header": {"if-none-match": r"\*"}})])
        self.assertTrue(result["ok"], result)
        self.assertEqual(len(self.matching(seen, "PUT")), 2)

    def test_answers_that_are_no_xml(self):
        for body in ("", "<html>busy", "<ListBucketResult>"):
            result, _ = self.run_case("list", [
                {"match": {"method": "GET"}, "status": 200, "body": body}])
            self.assertTrue(result["ok"], "asked again")

    def test_secrets_are_not_in_errors_and_logs(self):
        result, _ = self.run_case("put", [dict(answer(403, "SignatureDoesNotMatch"), times=0)], upstream=False,
                                  env={"AWS_SECRET_ACCESS_KEY": "very/secret+key"})
        self.assertNotIn("very/secret", json.dumps(result) + self.stderr)


if __name__ == "__main__":
    unittest.main()
