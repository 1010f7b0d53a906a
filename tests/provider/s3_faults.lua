-- SPDX-License-Identifier: MIT
-- s3_faults.lua - providers/s3.lua against a server that answers as a script says, perhaps with a real one
-- behind. Run by test_s3_faults.py: `luarun s3_faults.lua CASE`, which prints what became of it.
local crypto = require "lunark.crypto"
local fs = require "lunark.fs"
local http = require "lunark.http"
local store = require "lunark.store"
local stream = require "lunark.core.stream"
local sys = require "lunark.core.sys"
local task = require "lunark.task"
local transfer = require "lunark.transfer"

local faults = dofile "tests/provider/faults.lua"

local MiB = 1024 * 1024
local case = ...
local bucket = sys.env "LUNARK_TEST_BUCKET" or "lunark-test"
local function open(query)
  local endpoint = sys.env "LUNARK_TEST_HTTP_URL"
  return assert(store.open(("s3://%s/faults?endpoint=%s%s"):format(bucket, endpoint, query or "")))
end
local s = open(sys.env "LUNARK_TEST_QUERY")

-- Changes what every request is made with, or what comes of it.
local function around(before, after)
  s.inner.ctx.http = setmetatable({ request = function(request)
    if before then before(request) end
    local response, err = http.request(request)
    if response and after then after(response, request) end
    return response, err
  end }, { __index = http })
end

local function text_of(size) return ("0123456789abcdef"):rep(size // 16) end

local function send(source, more)
  local target = { store = s, key = "big", meta = { mark = "yes" }, exclusive = more and more.exclusive }
  return transfer.upload(source, { target }, { part_size = more and more.part or 5 * MiB })
end

-- Uploads, and reads back what is there then.
local function upload(size, more)
  local done, err = send(stream.of(text_of(size)), more)
  if not done then return nil, err end
  faults.read_back(s, text_of(size))
  return done
end

local function count_keys()
  local count = 0
  for info, err in s:list() do
    assert(info, err)
    count = count + 1
  end
  return count
end

local cases = {
  put = function() return s:put("key", "the body", { a = "1" }) end,
  exclusive = function() return s:put("key", "the body", { a = "1" }, { exclusive = true }) end,
  head = function() return s:head("key") end,
  get = function() return s:get("key") end,
  get_all = function()
    local body <close>, err = s:get("key")
    if not body then return nil, err end
    return body:read_all(MiB)
  end,
  get_range = function()
    local body <close>, err = s:get("key", { 2, 4 })
    if not body then return nil, err end
    return body:read_all(MiB)
  end,
  list = function() return s:page("") end,
  delete = function() return s:delete("key") end,
  check = function() return s:check("write") end,
  read = function() return s:check("read") end,
  upload = function() return upload(12 * MiB) end,
  upload_only = function() return send(stream.of(text_of(12 * MiB))) end,
  upload_exclusive = function() return upload(12 * MiB, { exclusive = true }) end,
  copy = function()
    assert(s:put("from", "bytes"))
    return s:copy("from", "to")
  end,
  copy_only = function() return s:copy("from", "to", { of = "from" }) end,
  latest = function() return s:copy("from", "to", { of = "from" }, { replaces = "old" }) end,
  latest_first = function() return s:copy("from", "to", { of = "from" }, { replaces = false }) end,
  copy_large = function()
    assert(send(stream.of(text_of(12 * MiB))))
    local info, err = s:copy("big", "to", { of = "big" }, { replaces = false })
    if not info then return nil, err end
    local back <close> = assert(s:get("to"))
    assert(back:hash { "sha256" }.sha256 == crypto.hex_digest("sha256", text_of(12 * MiB)), "not the same")
    assert(s:head("to").meta.of == "big")
    return info
  end,
  delete_many = function()
    assert(s:put("a", "1"))
    assert(s:put("b", "2"))
    local ok, err = s:delete { "a", "b", "c" }
    if not ok then return nil, err end
    return count_keys() == 0
  end,
  stalled = function()
    around(function(request) request.idle_timeout = 0.5 end)
    return upload(12 * MiB)
  end,
  -- More parts than the store takes.
  too_many = function()
    s.features.multipart.count = 2
    return send(stream.of(text_of(12 * MiB)))
  end,
  ten_thousand = function()
    local up = assert(s:uploader("big"))
    for number = 1, 10000 do up.parts[number] = { etag = ("%032x"):format(number), size = 5 * MiB } end
    return up:finish()
  end,
  -- Keys in a file that somebody swaps when the first part has come.
  rotated = function()
    around(nil, function(_, request)
      if request.url:find("partNumber=1&", 1, true) then
        assert(fs.write_text(sys.env "AWS_SHARED_CREDENTIALS_FILE", [[
[default]
aws_access_key_id = AKSECOND
aws_secret_access_key = second/secret
aws_session_token = second/token
]]))
      end
    end)
    return send(stream.of(text_of(12 * MiB)):limit(8 * MiB))
  end,
  -- A source that says nothing for 20 minutes, by the clock of the provider.
  silent = function()
    local late, clock = 0, s.inner.ctx.clock
    s.inner.ctx.clock = function() return clock() + late end
    s.inner.credentials.clock = s.inner.ctx.clock
    local up <close> = assert(s:uploader("big"))
    assert(up:part(1, text_of(5 * MiB), 0))
    task.sleep(0.5)
    late = 1200
    assert(up:part(2, text_of(5 * MiB), 5 * MiB))
    return up:finish()
  end,
  settings = function()
    assert(s:put("key", "x"))
    assert(send(stream.of(text_of(12 * MiB))))
    assert(s:copy("key", "to"))
    return s:copy("big", "to")
  end,
}

-- What an operator finds afterwards: keys and uploads.
local function look(out)
  out.keys, out.uploads = {}, 0
  for info, err in s:list() do out.keys[#out.keys + 1] = assert(info, err).key end
  local root = assert(s.inner:send_xml { op = "uploads", method = "GET", query = { { "uploads", "" } } })
  for _ in root:each("Upload") do out.uploads = out.uploads + 1 end
end

local result, err = cases[case]()
local out = {
  skew = s.skew, region = s.inner.region,
  host = s.inner.endpoint.host, text = type(result) == "string" and result or nil,
}
if sys.env "LUNARK_TEST_LOOK" then look(out) end
faults.report(result, err, out)
