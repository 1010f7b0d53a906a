-- SPDX-License-Identifier: MIT
-- providers/azure.lua: addresses in all their forms, keys that the store takes, sizes of blocks.
local lu = require "luaunit"
local azure = require "providers.azure"
local store = require "lunark.store"
local sys = require "lunark.core.sys"
local transfer = require "lunark.transfer"
local url = require "lunark.url"

local TestAddresses, TestNames, TestPlan = {}, {}, {}

local GiB = 1 << 30
local ACC, CHINA = "https://acc.blob.core.windows.net", "https://acc.blob.core.chinacloudapi.cn"

local function open(text)
  return store.open(text, { account_key = "d3Jvbmcga2V5" })
end

-- The address of an object "k" in the store of a URL.
local function address(text)
  local s, err = open(text)
  if not s then return nil, err end
  return s.inner:address(s.prefix .. "k")
end

function TestAddresses.test_forms()
  local function check(text, base)
    lu.assertEquals(address(text), base .. "/con/x/k")
  end
  check("azure://con/x?account=acc", ACC)
  check("azure://con/x?account=acc&endpoint_suffix=core.chinacloudapi.cn", CHINA)
  check("azure://con/x?endpoint=https://blobs.example:8443/acc/", "https://blobs.example:8443/acc")
  check("azure://con/x?account=acc&endpoint=http://127.0.0.1:10000", "http://127.0.0.1:10000/acc")
  check("azure://con/x?endpoint=" .. CHINA, CHINA)
  check(ACC .. "/con/x", ACC)
  check(CHINA .. "/con/x/?access_tier=Cool", CHINA)
  check("https://acc.z12.blob.storage.azure.net/con/x", "https://acc.z12.blob.storage.azure.net")
  lu.assertEquals(address("azure://con?account=acc"), ACC .. "/con/k")
  lu.assertEquals(address("azure://$web/path/to/dir?account=acc"), ACC .. "/$web/path/to/dir/k")
  lu.assertEquals(address(ACC .. "/con/a%20b"), ACC .. "/con/a%20b/k")
end

function TestAddresses.test_url_of_one_archive()
  local s = assert(open(ACC .. "/con/nightly/data/data-2026-01-31T020000Z.tar.gz"))
  lu.assertEquals({ s.key, s.prefix }, { "data-2026-01-31T020000Z.tar.gz", "nightly/data/" })
end

function TestAddresses.test_what_is_none()
  for text, message in pairs {
    ["azure://con"] = "no storage account", ["azure://CON?account=a"] = "'CON' is no name of a container",
    ["azure://co_d?account=a"] = "is no name of a container", ["azure://c?account=a"] = "3 to 63",
    ["azure://con-?account=a"] = "single -", ["azure://con?account=a/b"] = "is no name of a storage",
    ["azure://con?endpoint=ftp://h/a"] = "'ftp://h/a'",
    ["azure://con?endpoint=https://h"] = "no storage account",
    ["https://example.com/con"] = "https://example.com: ACCOUNT.blob.core.windows.net expected",
    [ACC] = "the container is missing",
    [ACC .. "/con?sv=1&sig=x"] = "looks like a secret",
    ["azure://con?account=a&acess_tier=Hot"] = "did you mean access_tier",
  } do
    local found, err = address(text)
    lu.assertNil(found, text)
    lu.assertEquals(err.kind, "usage")
    lu.assertStrContains(err.message .. (err.hint or ""), message)
  end
end

-- The host of an endpoint is nearer than the environment.
function TestAddresses.test_account_of_an_endpoint()
  local function account_of(endpoint)
    local options = { account_key = "d3Jvbmcga2V5", endpoint = endpoint }
    local ctx = { secret = sys.secret, grant = function() end }
    function ctx.env(name) return name == "AZURE_STORAGE_ACCOUNT" and "other" or nil end
    return assert(azure.open(assert(url.parse "azure://con"), options, ctx)).account
  end
  lu.assertEquals(account_of(ACC), "acc")
  lu.assertEquals(account_of(CHINA), "acc")
  for _, endpoint in ipairs { "https://blobs.example", "https://way.example/through" } do
    lu.assertEquals(account_of(endpoint), "other")
  end
  lu.assertEquals(account_of(nil), "other")
end

-- Each cloud has an authority of its own, for which the right to ask it is taken.
function TestAddresses.test_authority_of_an_address()
  local function granted(text, more)
    local options = { client_secret = "x", tenant_id = "t", client_id = "c", endpoint_suffix = more }
    local hosts, ctx = {}, { env = function() end, grant_read = function() end, log = {}, clock = sys.clock }
    function ctx.grant(host) hosts[#hosts + 1] = host end
    function ctx.read(path) return nil, sys.error { kind = "not_found", message = path } end
    local place = assert(azure.locate(assert(url.parse(text))))
    for name, value in pairs(place.query) do options[name] = value end
    assert(azure.open(place, options, ctx))
    return hosts
  end
  lu.assertEquals(granted(ACC .. "/con"), { "login.microsoftonline.com", "acc.blob.core.windows.net" })
  lu.assertEquals(granted(CHINA .. "/con"), { "login.chinacloudapi.cn", "acc.blob.core.chinacloudapi.cn" })
  lu.assertEquals(granted("azure://con?account=acc", "core.usgovcloudapi.net"),
    { "login.microsoftonline.us", "acc.blob.core.usgovcloudapi.net" })
end

function TestNames.test_keys_that_are_refused()
  local s = assert(open "azure://con?endpoint=http://127.0.0.1:1/acc")
  for _, key in ipairs { "", ".", "..", "a/../b", "a\\b", "a\nb", "a\0b", "a\xFFb", ("é"):rep(1025) } do
    local info, err = s:head(key)
    lu.assertNil(info)
    lu.assertEquals(err.kind, "usage")
  end
end

function TestNames.test_metadata_that_is_refused()
  local s = assert(open "azure://con?endpoint=http://127.0.0.1:1/acc")
  for _, meta in ipairs { { ["1a"] = "x" }, { ["a.b"] = "x" }, { a = "é" }, { a = "x\r\ny" } } do
    local info, err = s:put("k", "body", meta)
    lu.assertNil(info)
    lu.assertEquals(err.kind, "usage")
  end
end

-- A blob has 50,000 blocks of up to 4,000 MiB.
-- https://learn.microsoft.com/azure/storage/blobs/scalability-targets
function TestPlan.test_blocks()
  local s = assert(open "azure://con?account=acc")
  local function plan(size)
    return transfer.plan({ { store = s, key = "k" } }, { expect_size = size, spill_dir = "/" })
  end
  local small = assert(plan(nil))
  lu.assertEquals(small.count, 50000)
  lu.assertTrue(transfer.capacity({ { store = s, key = "k" } }, {}) > 150 * GiB)
  for _, size in ipairs { GiB, 100 * GiB, 1024 * GiB, 20 * 1024 * GiB, 160 * 1024 * GiB } do
    local found = assert(plan(size))
    lu.assertTrue(found.size * 50000 >= size and found.size <= 4000 << 20, size)
  end
  local none, err = plan(200 * 1024 * GiB)
  lu.assertNil(none)
  lu.assertStrContains(err.message, "50000 parts")
end

return { TestAddresses = TestAddresses, TestNames = TestNames, TestPlan = TestPlan }
