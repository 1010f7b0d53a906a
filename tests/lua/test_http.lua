-- SPDX-License-Identifier: MIT
-- lunark.http: requests from scripts against the scripted server tests/support/faulty.py: signing in the
-- task, bodies of every kind, streams, errors, cancelling, misuse.
local crypto = require "lunark.core.crypto"
local exec = require "lunark.core.exec"
local http = require "lunark.http"
local json = require "lunark.json"
local lu = require "luaunit"
local stream = require "lunark.core.stream"
local sys = require "lunark.core.sys"
local task = require "lunark.task"

local TestHttp = {}

local function write(path, text)
  local file = assert(io.open(path, "w"))
  assert(file:write(text))
  assert(file:close())
end

-- Starts the server with these steps, tearDown ends it; its address.
function TestHttp:start(steps)
  self.script = os.tmpname()
  write(self.script, json.encode(json.array(steps)))
  self.log = self.script .. ".log"
  self.ready = self.script .. ".ready"
  self.child = assert(exec.start {
    "python3", "tests/support/faulty.py", "--stay", "--script", self.script, "--log", self.log,
    "--ready", self.ready, stdout = "null",
  })
  for _ = 1, 1000 do
    local file = io.open(self.ready)
    if file then
      local port = file:read("n")
      file:close()
      return ("http://127.0.0.1:%d"):format(port)
    end
    task.sleep(0.02)
  end
  error("the test server did not start")
end

function TestHttp:setUp()
  self.child = nil
end

function TestHttp:tearDown()
  if self.child then
    self.child:close()
    os.remove(self.script)
    os.remove(self.log)
    os.remove(self.ready)
  end
end

function TestHttp:requests()
  local list = {}
  for line in io.lines(self.log) do
    local entry = assert(json.decode(line))
    entry.header = {}
    for _, pair in ipairs(entry.headers) do
      entry.header[pair[1]:lower()] = pair[2]
    end
    list[#list + 1] = entry
  end
  return list
end

local function misuse(message, options)
  local ok, err = pcall(http.request, options)
  lu.assertFalse(ok)
  lu.assertEquals(err.kind, "usage")
  lu.assertStrContains(tostring(err), message)
end

function TestHttp.testEscapeAndQuery()
  -- RFC 3986, 2.3: these alone are unreserved.
  lu.assertEquals(http.escape "AZaz09-._~", "AZaz09-._~")
  lu.assertEquals(http.escape "a b/ü+&=%*'(", "a%20b%2F%C3%BC%2B%26%3D%25%2A%27%28")
  lu.assertEquals(http.query { { "list-type", 2 }, { "prefix", "a/b c" }, { "uploads" } },
    "list-type=2&prefix=a%2Fb%20c&uploads=")
end

function TestHttp.testParseUrl()
  local url = assert(http.parse_url "https://bucket.example:9000/a/../b%20c?x=1&y")
  lu.assertEquals(url, {
    scheme = "https", host = "bucket.example", port = 9000, default_port = false, path = "/a/../b%20c",
    query = "x=1&y",
  })
  local none, err = http.parse_url "ftp://x/"
  lu.assertNil(none)
  lu.assertEquals(err.kind, "usage")
  lu.assertStrContains(err.message, "only http and https")
end

function TestHttp:testRequest()
  local url = self:start {
    { status = 201, body = "made", headers = { { "X-Amz-Request-Id", "R1" }, { "A", "1" }, { "a", "2" } } },
  }
  local response = assert(http.request {
    method = "POST", url = url .. "/p?x=1", query = { { "k", "v w" } }, body = "text",
    headers = { ["X-Number"] = 7, ["X-Secret"] = sys.secret "not to be shown", ["X-Empty"] = "" },
  })
  lu.assertEquals(response.status, 201)
  lu.assertEquals(response.body, "made")
  lu.assertNil(response.stream)
  lu.assertEquals(response.request_id, "R1")
  lu.assertEquals(response.headers.a, "1, 2")
  lu.assertEquals(response.retries, 0)
  lu.assertTrue(response.seconds > 0)
  local request = self:requests()[1]
  lu.assertEquals(request.path, "/p?x=1&k=v%20w")
  lu.assertEquals(request.sha256, crypto.hex(crypto.digest("sha256", "text")))
  lu.assertEquals(request.header["x-number"], "7")
  lu.assertEquals(request.header["x-secret"], "not to be shown")
  lu.assertEquals(request.header["x-empty"], "")
end

function TestHttp:testSign()
  local url = self:start { { times = 0, body = "ok" } }
  local seen
  local function sign(request)
    task.sleep(0.01) -- may park: renewing credentials
    seen = request
    request.headers.authorization = "T " .. request.body_hash.sha256
    request.url = request.url .. "&signed=1"
  end
  assert(http.request {
    url = url .. "/a%2Fb", query = { { "q", "1" } }, headers = { ["X-A"] = "b" }, sign = sign, method = "PUT",
    body = "abc",
  })
  lu.assertEquals(seen.method, "PUT")
  lu.assertEquals(seen.path, "/a%2Fb")
  lu.assertEquals(seen.query, "q=1")
  lu.assertEquals("http://" .. seen.host, url)
  lu.assertEquals(seen.headers["x-a"], "b")
  lu.assertEquals(seen.body_size, 3)
  local request = self:requests()[1]
  -- FIPS 180-2, appendix B.1: SHA-256 of "abc".
  lu.assertEquals(request.header.authorization,
    "T ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad")
  lu.assertEquals(request.path, "/a%2Fb?q=1&signed=1")
  local none, err = http.request {
    url = url, sign = function() return nil, sys.error { kind = "auth", message = "no credentials" } end,
  }
  lu.assertNil(none)
  lu.assertEquals(err.kind, "auth")
  lu.assertEquals(#self:requests(), 1)
end

function TestHttp:testParts()
  local url = self:start { { times = 0, body = "ok" } }
  local text = ("0123456789"):rep(100000)
  for _, spill in ipairs { false, "/tmp" } do
    local parts = stream.of(text):parts {
      size = 400000, width = 2, hash = { "sha256" }, spill_dir = spill or nil,
    }
    local hashes = {}
    while true do
      local part <close> = assert(parts:next(), "a part") -- luacheck: ignore
      local hash
      assert(http.request {
        method = "PUT", url = url, body = part,
        sign = function(request) hash = request.body_hash.sha256 end,
      })
      hashes[#hashes + 1] = hash
      if part.last then break end
    end
    lu.assertNil(parts:next())
    parts:close()
    lu.assertEquals(#hashes, 3)
    local all = self:requests()
    for i = 1, 3 do
      local request = all[#all - 3 + i]
      lu.assertEquals(request.bytes, i < 3 and 400000 or 200000)
      lu.assertEquals(request.sha256, hashes[i])
      local piece = text:sub(400000 * i - 399999, 400000 * i)
      lu.assertEquals(request.sha256, crypto.hex(crypto.digest("sha256", piece)))
    end
  end
end

function TestHttp:testStreams()
  local url = self:start { { times = 0, body = { echo = true }, headers = { etag = "e" } } }
  local source = stream.of(("abc"):rep(300000))
  local response = assert(http.request { method = "PUT", url = url, body = source, sink = "stream" })
  lu.assertNil(response.body)
  lu.assertEquals(response.headers.etag, "e")
  lu.assertEquals(assert(response.stream:read_all()), ("abc"):rep(300000))
  lu.assertEquals(self:requests()[1].header["transfer-encoding"], "chunked")
  misuse("", { method = "PUT", url = url, body = source }) -- moved
  assert(http.request { method = "PUT", url = url, body = stream.of "12345", length = 5 })
  lu.assertEquals(self:requests()[2].header["content-length"], "5")
  local none, err = http.request { method = "PUT", url = url, body = stream.of "12345", length = 6 }
  lu.assertNil(none)
  lu.assertStrContains(err.message, "shorter than the 6 bytes announced")
end

function TestHttp:testFailingSource()
  local url = self:start { { times = 0 } }
  local source = assert(exec.start { "sh", "-c", "echo partial; exit 3", stdout = "stream" })
  local none, err = http.request { method = "PUT", url = url, body = source.stdout }
  source:close()
  lu.assertNil(none)
  lu.assertEquals(err.kind, "exit")
  lu.assertStrContains(err.message, "3")
  task.sleep(0.1)
  lu.assertNil(io.open(self.log, "r") and self:requests()[1])
end

function TestHttp:testBrokenStream()
  local url = self:start {
    { body = { bytes = 900000 }, reset_after = 400000 }, { status = 404, body = "<Error/>" },
  }
  local response = assert(http.request { url = url .. "/k", sink = "stream" })
  local none, err = response.stream:discard()
  lu.assertNil(none)
  lu.assertEquals(err.kind, "network")
  lu.assertTrue(err.retryable)
  lu.assertStrContains(err.message, "/k")
  response = assert(http.request { url = url, sink = "stream" })
  lu.assertNil(response.stream)
  lu.assertEquals(response.body, "<Error/>")
end

function TestHttp:testErrors()
  local url = self:start { { times = 0, hold = 60 } }
  local none, err = http.request { url = url .. "/x?password=1", idle_timeout = 0.2 }
  lu.assertNil(none)
  lu.assertEquals(err.kind, "timeout")
  lu.assertTrue(err.retryable)
  lu.assertEquals(err.op, "http.request")
  lu.assertEquals(err.message, "GET " .. url .. "/x: no byte from or to the server for 0.2 s")
  none, err = http.request { url = "http://127.0.0.1:1/" }
  lu.assertNil(none)
  lu.assertEquals(err.kind, "network")
  lu.assertStrContains(tostring(err), "127.0.0.1")
  lu.assertStrContains(tostring(err), "check host and port")
end

function TestHttp:testCancelled()
  local url = self:start { { times = 0, hold = 60 } }
  local waiting = task.spawn(http.request, { url = url, method = "PUT", body = stream.of "x" })
  task.sleep(0.1)
  task.cancel(waiting, "enough")
  local ok, err = task.join(waiting)
  lu.assertFalse(ok)
  lu.assertEquals(err.kind, "cancelled")
  local began = sys.monotonic()
  local none, late = task.timeout(0.1, http.request, { url = url })
  lu.assertNil(none)
  lu.assertEquals(late.kind, "timeout")
  lu.assertTrue(sys.monotonic() - began < 5)
end

function TestHttp:testDroppedStream()
  local url = self:start { { times = 0, body = { bytes = 900000 }, stall_after = 400000 } }
  local response = assert(http.request { url = url, sink = "stream" })
  assert(response.stream:read())
  response.stream:close()
  response = assert(http.request { url = url, sink = "stream" }) -- left to the collector
  lu.assertEquals(response.status, 200)
  response = nil -- luacheck: ignore
  collectgarbage()
end

function TestHttp:testManyAtOnce()
  local url = self:start { { times = 0, delay = 0.1, body = "ok" } }
  local list = {}
  for i = 1, 64 do list[i] = i end
  local began = sys.monotonic()
  local statuses = task.map(list, 64, function(i)
    return assert(http.request { url = ("%s/%d"):format(url, i) }).status
  end)
  for i = 1, 64 do lu.assertEquals(statuses[i], 200) end
  lu.assertTrue(sys.monotonic() - began < 5) -- one after the other: 6.4 s
  for i = 1, 10 do
    lu.assertEquals(assert(http.request { url = ("%s/again/%d"):format(url, i) }).status, 200)
  end
  local last = 0
  for _, request in ipairs(self:requests()) do last = math.max(last, request.connection) end
  lu.assertTrue(last <= 64)
end

function TestHttp.testMisuse()
  misuse("expected a table", "http://127.0.0.1/")
  misuse("'url' must be a string", {})
  misuse("unknown option 'retry'", { url = "http://127.0.0.1:1/", retry = 1 })
  misuse("bad url", { url = "http://127.0.0.1:1/a b" })
  misuse("line end", { url = "http://127.0.0.1:1/", headers = { a = "b\r\nc: d" } })
  misuse("bad name", { url = "http://127.0.0.1:1/", headers = { ["a: b\r\nc"] = "d" } })
  misuse("stands there twice", { url = "http://127.0.0.1:1/", headers = { A = "1", a = "2" } })
  misuse("must be a string, a number or a secret", { url = "http://127.0.0.1:1/", headers = { a = {} } })
  misuse("'body' must be", { url = "http://127.0.0.1:1/", method = "PUT", body = 5 })
  misuse("'sink' must be", { url = "http://127.0.0.1:1/", sink = "file" })
  misuse("'max'", { url = "http://127.0.0.1:1/", max = 0 })
  misuse("NUL", { url = "http://127.0.0.1:1/", ca_file = "/a\0b" })
  misuse("resolve", { url = "http://127.0.0.1:1/", resolve = { 1 } })
end

function TestHttp.test_check()
  local function checked(status, headers)
    return http.check("GET a/key", { status = status, headers = headers or {}, request_id = "r" })
  end
  lu.assertEquals(checked(206).status, 206)
  local kinds = {
    [301] = "io", [400] = "io", [401] = "auth", [403] = "auth", [404] = "not_found", [409] = "conflict",
    [412] = "conflict", [416] = "usage", [429] = "throttled", [500] = "io", [501] = "io", [503] = "io",
  }
  local passing = { [429] = true, [500] = true, [503] = true }
  for status, kind in pairs(kinds) do
    local none, err = checked(status, { ["retry-after"] = "7" })
    lu.assertNil(none)
    lu.assertEquals({ err.kind, err.status, err.request_id, err.retry_after }, { kind, status, "r", 7 })
    lu.assertEquals(err.message, ("GET a/key: the server answered %d"):format(status))
    lu.assertEquals(err.retryable, passing[status] or false)
  end
  local none, err = http.check("GET x", nil, "what was before")
  lu.assertNil(none)
  lu.assertEquals(err, "what was before")
end

function TestHttp.test_basic()
  local made = http.basic("Aladdin", sys.secret "open sesame") -- RFC 7617
  lu.assertEquals(tostring(made), "***")
  lu.assertEquals(made:reveal(), "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==")
end

function TestHttp.test_a_byte_of_value_0_is_in_no_name()
  local none, err = http.request { url = "http://127.0.0.1:1/a%00b?x=1" }
  lu.assertNil(none)
  lu.assertEquals(err.kind, "usage")
  lu.assertStrContains(err.message, "/a%00b: a name can't hold a byte of value 0")
end

return { TestHttp = TestHttp }
