-- SPDX-License-Identifier: MIT
-- gcs_faults.lua - providers/gcs.lua against a server that answers as a script says, perhaps in front of a
-- real one. Run by test_gcs_faults.py: `luarun gcs_faults.lua CASE`, which prints what became of it.
local http = require "lunark.http"
local store = require "lunark.store"
local stream = require "lunark.core.stream"
local sys = require "lunark.core.sys"
local task = require "lunark.task"
local transfer = require "lunark.transfer"

local faults = dofile "tests/provider/faults.lua"
local noise = faults.noise

local MiB = 1024 * 1024
local case = ...
local function open(query)
  local endpoint = sys.env "LUNARK_TEST_HTTP_URL"
  return assert(store.open(("gs://lunark-test/faults?endpoint=%s%s"):format(endpoint, query or ""),
    { token = sys.env "LUNARK_TEST_TOKEN", anonymous = not sys.env "LUNARK_TEST_TOKEN" }))
end
local s = open()


-- Waits for a silent server for a moment only.
local function impatient()
  s.inner.ctx.http = setmetatable({ request = function(request)
    request.idle_timeout = 0.5
    return http.request(request)
  end }, { __index = http })
end

-- Uploads, and reads back what is there then.
local function upload(size, more)
  local body = noise(size)
  local target = { store = s, key = "big", meta = { mark = "yes" }, exclusive = more and more.exclusive }
  local done, err = transfer.upload(stream.of(body), { target }, { part_size = more and more.part or MiB })
  if not done then return nil, err end
  faults.read_back(s, body)
  return done
end

local cases = {
  put = function() return s:put("key", "the body", { a = "1" }) end,
  exclusive = function() return s:put("key", "the body", { a = "1" }, { exclusive = true }) end,
  head = function() return s:head("key") end,
  get = function() return s:get("key") end,
  text = function()
    impatient()
    local body, err = s:get("key")
    if not body then return nil, err end
    local held <close> = body
    return held:read_all(MiB)
  end,
  stalled = function()
    impatient()
    return upload(3 * MiB + 5)
  end,
  list = function() return s:page("") end,
  delete = function() return s:delete("key") end,
  delete_many = function() return s:delete { "a", "b", "c" } end,
  check = function() return s:check("write") end,
  read = function() return s:check("read") end,
  upload = function() return upload(3 * MiB + 5) end,
  upload_exact = function() return upload(4 * MiB) end,
  upload_exclusive = function() return upload(3 * MiB + 5, { exclusive = true }) end,
  upload_only = function()
    local targets = { { store = s, key = "big" } }
    return transfer.upload(stream.of(noise(3 * MiB + 5)), targets, { part_size = MiB })
  end,
  cancel = function()
    local targets = { { store = s, key = "big" } }
    local source = stream.of(noise(8 * MiB)):limit(4 * MiB)
    local running = task.spawn(transfer.upload, source, targets, { part_size = MiB })
    task.sleep(0.9)
    task.cancel(running, "enough")
    local _, err = task.join(running)
    assert(s:head("big") == nil, "something is there")
    return nil, err
  end,
  copy = function()
    assert(s:put("from", "bytes"))
    return s:copy("from", "to", { of = "from" })
  end,
  copy_only = function() return s:copy("from", "to", { of = "from" }, { replaces = false }) end,
  settings = function()
    s = open("&storage_class=NEARLINE&kms_key_id=projects/p/k&user_project=payer")
    assert(s:put("key", "x"))
    local targets = { { store = s, key = "big" } }
    assert(transfer.upload(stream.of(noise(3 * MiB)), targets, { part_size = MiB }))
    return s:copy("key", "to")
  end,
  latest = function() return s:copy("from", "to", { of = "from" }, { replaces = "5" }) end,
}

local result, err = cases[case]()
faults.report(result, err, { skew = s.skew })
