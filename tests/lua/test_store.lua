-- SPDX-License-Identifier: MIT
-- lunark.store and lunark.provider: finding and checking providers, retries, prefixes, lists and deletes.
local lu = require "luaunit"
local fs = require "lunark.fs"
local provider = require "lunark.provider"
local store = require "lunark.store"
local sys = require "lunark.core.sys"

local TestProvider, TestStore = {}, {}
local dir

-- Script directories are for good: one for all tests of this file.
local function write_provider(name, text)
  if not dir then
    dir = assert(fs.tmpdir("/tmp", "lunark-providers"))
    assert(fs.mkdir_all(dir .. "/providers/sign"))
    sys.add_script_dir(dir)
  end
  assert(fs.write_text(("%s/providers/%s.lua"):format(dir, name), text))
  return ("%s/providers/%s.lua"):format(dir, name)
end

local WHOLE = [[
local text = require "providers.sign.words"
local store = { objects = {} }
function store:put(key, body) self.objects[key] = body; return { size = #body } end
function store:get(key) return nil, self.none(key) end
function store:head(key)
  if self.objects[key] then return { size = #self.objects[key] } end
  return nil, self.none(key)
end
function store:list() return {} end
function store:delete() return {} end
return { api = 1, name = "own", schemes = { "own" }, options = { speed = { "integer", default = 3 } },
  open = function(url, options, ctx)
    store.none = function(key)
      local message = key .. text .. options.speed .. url.host .. type(ctx.http.request) .. type(ctx.file)
      return require "lunark.core.sys".error { kind = "not_found", message = message }
    end
    return store
  end }
]]

function TestProvider.tearDown()
  if dir then
    for _, name in ipairs(fs.readdir(dir .. "/providers")) do
      if name:find("%.lua$") then assert(fs.unlink(dir .. "/providers/" .. name)) end
    end
  end
end

function TestProvider.test_a_providers_file_is_found()
  write_provider("own", WHOLE)
  write_provider("sign/words", "return ' is not there '")
  local s = assert(store.open "own://place?speed=9")
  assert(s:put("a", "text"))
  lu.assertEquals(s:head("a"), { key = "a", size = 4 })
  local _, err = s:head("b")
  lu.assertEquals(err.message, "b is not there 9placefunctionnil")
  lu.assertFalse(s:can("multipart"))
  lu.assertEquals(s:describe(), "own://place")
end

function TestProvider.test_a_file_by_another_name_speaks_the_scheme()
  write_provider("elsewhere", (WHOLE:gsub('{ "own" }', '{ "first", "second" }')))
  write_provider("sign/words", "return ''")
  lu.assertEquals(assert(store.open "second://place").scheme, "second")
end

function TestProvider.test_an_unknown_scheme()
  local s, err = store.open "gopher://hole"
  lu.assertNil(s)
  lu.assertEquals(err.kind, "usage")
  lu.assertEquals(err.message, "no provider speaks 'gopher://'")
  lu.assertStrContains(err.hint, "azure, file, gs, https, s3")
end

function TestProvider.test_options_are_checked()
  write_provider("own", WHOLE)
  write_provider("sign/words", "return ''")
  local s, err = store.open "own://place?sped=9"
  lu.assertNil(s)
  lu.assertEquals(err.message, "own://place has no option 'sped'")
  lu.assertEquals(err.hint, "did you mean speed?")
  s, err = store.open "s3://bucket?regoin=x"
  lu.assertNil(s)
  lu.assertEquals(err.hint, "did you mean region?")
end

-- What is wrong with a provider's file is said with its path.
function TestProvider.test_wrong_files()
  local cases = {
    ["return 1"] = "it returns a number, a table expected",
    ["return {}"] = "it is written for api nil, api = 1 expected",
    ["return { api = 2 }"] = "it is written for api 2, api = 1 expected",
    ["return { api = 1, name = 'x', schemes = { 'x' } }"] = "function 'open' is missing",
    ["return { api = 1, name = 'x', open = print }"] = "'schemes' must be a list",
    ["return { api = 1, name = 'x', schemes = { 'x' }, open = print, feature = {} }"] =
      "unknown key 'feature', did you mean 'features'?",
    ["return { api = 1, name = 'x', schemes = { 'x' }, open = print, features = { rang = true } }"] =
      "unknown feature 'rang', did you mean 'range'?",
    ["return { api = 1, name = 'x', schemes = { 'x' }, open = print, features = { copy = 1 } }"] =
      "feature 'copy' is a number, a boolean expected",
    ["return { api = 1, name = 'x', schemes = {'x'}, open = print, features = { multipart = { mn = 1 } } }"] =
      "unknown multipart feature 'mn'",
    ["return { api = 1, name = 'x', schemes = { 'x' }, open = print, options = { a = { 'text' } } }"] =
      "option 'a'",
    ["return { api = 1, name = 'x', schemes = { 'x' }, open = print, features = { part_hash = {'md6'} } }"] =
      "part_hash 'md6': md5, sha1",
    ["return { api = 1, name = 'x', schemes = { 'x' }, open = print, root = 1 }"] =
      "'root' is a number, true or false expected",
    ["return { api = 1, name = 'x', schemes = {'x'}, open = print, features = { multipart = {min = 0} } }"] =
      "multipart feature 'min' is 0, an integer from 1 expected",
    ["return { api = 1, name = 'x', schemes = {'x'}, open = print, features = { multipart = "
      .. "{ min = 9, max = 8 } } }"] = "multipart: min is 9 and max is 8",
    ["return { api = 1, name = 'x', schemes = { 'x' }, open = print, needs = { exec = { 'curl' } } }"] =
      "unknown need 'exec'",
    ["return { api = 1, name = 'x', schemes = { 'x' }, open = print, needs = { env = { 1 } } }"] =
      "needs.env holds a number, names of variables expected",
    ["return { api = 1, name = 'x', schemes = { 'x' }, open = print, needs = { read = { '/etc' } } }"] =
      "needs.read holds a string, { env = NAME } or { home = PATH } expected",
    ["return {"] = "expected",
    ["error 'at load'"] = "at load",
    ["require 'lunark.exec'"] = "module 'lunark.exec' is not for providers",
    ["require 'lunark.retry'"] = "module 'lunark.retry' is not for providers",
    ["require 'lunark.transfer'"] = "module 'lunark.transfer' is not for providers",
    ["require 'posix.unistd'"] = "module 'posix.unistd' is not for providers",
    ["return io.open('/etc/passwd')"] = "io",
  }
  for text, words in pairs(cases) do
    local path = write_provider("wrong", text)
    local found, err = provider.load "providers/wrong.lua"
    lu.assertNil(found, text)
    lu.assertStrContains(err.message, words, false, text)
    if not text:find("require") then lu.assertStrContains(err.message, path, false, text) end
  end
end

function TestProvider.test_stores_are_checked()
  local path = write_provider("half", "return { api = 1, name = 'half', schemes = { 'half' }, "
    .. "open = function() return { put = print } end }")
  local s, err = store.open "half://x"
  lu.assertNil(s)
  lu.assertEquals(err.message, ("provider %s: the store has no function 'get'"):format(path))
  local half = WHOLE:gsub('"own"', '"half"', 2):gsub("options =", "features = { copy = true }, options =")
  write_provider("half", half)
  write_provider("sign/words", "return ''")
  s, err = store.open "half://x"
  lu.assertNil(s)
  lu.assertStrContains(err.message, "the feature 'copy' is declared and the store has no function 'copy'")
  for returned, words in pairs {
    ["{ part = print, finish = print }"] = "the upload has no function 'abort'",
    ["3"] = "begin returns a number",
  } do
    local text = WHOLE:gsub('"own"', '"half"', 2)
    text = text:gsub("options =", "features = { multipart = {} }, options =")
    local begin = "\nfunction store:begin() return " .. returned .. " end\nreturn {"
    write_provider("half", (text:gsub("\nreturn {", begin, 1)))
    s = assert(store.open "half://x")
    local upload
    upload, err = s:uploader("key")
    lu.assertNil(upload)
    lu.assertEquals(err.kind, "usage")
    lu.assertStrContains(err.message, words)
  end
end

-- --- the wrapper ---

local function fake(inner, prefix)
  return setmetatable({
    scheme = "mem", text = "mem://x", prefix = prefix or "", skew = 0, inner = inner, provider = "memory",
    features = { copy = true },
  }, store.Store)
end

local function failure(kind, retryable)
  return sys.error { kind = kind, message = "it failed", retryable = retryable }
end

function TestStore.test_retries()
  local calls = 0
  local s = fake { head = function()
    calls = calls + 1
    if calls < 3 then return nil, failure("network", true) end
    return { size = 1 }
  end }
  lu.assertEquals(s:head("k"), { key = "k", size = 1 })
  lu.assertEquals(calls, 3)
end

function TestStore.test_a_put_knows_its_attempt()
  local attempts = {}
  local s = fake { put = function(_, key, body, meta, how)
    attempts[#attempts + 1] = how.attempt
    lu.assertEquals({ key, body, meta, how.exclusive }, { "p/k", "body", {}, true })
    if #attempts == 1 then return nil, failure("timeout", true) end
    return { size = 4 }
  end }
  s.prefix = "p/"
  assert(s:put("k", "body", nil, { exclusive = true }))
  lu.assertEquals(attempts, { 1, 2 })
end

function TestStore.test_skew_moves_the_clock()
  local s
  s = fake { head = function()
    if s.skew == 0 then
      local err = failure "auth"
      err.skew = 500
      return nil, err
    end
    return { size = 1 }
  end }
  lu.assertNotNil(s:head("k"))
  lu.assertEquals(s.skew, 500)
end

function TestStore.test_a_provider_that_says_nothing()
  local s = fake { head = function() return nil end }
  local ok, err = pcall(s.head, s, "k")
  lu.assertFalse(ok)
  lu.assertStrContains(err.message, "provider memory: head k returned nil and no error")
end

function TestStore.test_list_over_pages()
  local pages = { [""] = { { "a", "b" }, "1" }, ["1"] = { {}, "2" }, ["2"] = { { "c" } } }
  local s = fake({ list = function(_, prefix, token)
    lu.assertEquals(prefix, "p/x")
    local page = pages[token or ""]
    local list = {}
    for index, key in ipairs(page[1]) do list[index] = { key = "p/x" .. key, size = 1 } end
    return list, page[2]
  end }, "p/")
  local keys = {}
  for info, err in s:list("x") do keys[#keys + 1] = assert(info, err).key end
  lu.assertEquals(keys, { "xa", "xb", "xc" })
end

function TestStore.test_list_that_breaks_off()
  local s = fake { list = function(_, _, token)
    if token then return nil, failure "io" end
    return { { key = "a", size = 1 } }, "more"
  end }
  local seen = {}
  for info, err in s:list() do seen[#seen + 1] = info and info.key or err.message end
  lu.assertEquals(seen, { "a", "it failed" })
end

function TestStore.test_delete_in_batches()
  local batches = {}
  local s = fake({ delete = function(_, keys)
    batches[#batches + 1] = #keys
    return keys[1] == "p/1001" and { ["p/1001"] = failure "auth" } or {}
  end }, "p/")
  local keys = {}
  for index = 1, 2500 do keys[index] = tostring(index) end
  local ok, err = s:delete(keys)
  lu.assertNil(ok)
  lu.assertEquals(err.message, "1 of 2500 keys could not be deleted; it failed")
  lu.assertEquals(err.errors["1001"].kind, "auth")
  lu.assertEquals(batches, { 1000, 1000, 500 })
  lu.assertTrue(s:delete {})
end

function TestStore.test_misuse()
  local s = fake {}
  for _, call in ipairs {
    function() s:put("k", { "table" }) end, function() s:head(nil) end, function() s:uploader("k") end,
    function() s:put("k", nil) end,
  } do
    local ok, err = pcall(call)
    lu.assertFalse(ok)
    lu.assertEquals(err.kind, "usage")
  end
end

function TestStore.test_open_what_can_not_be()
  for text, words in pairs {
    ["s3://b!d"] = "no name of a bucket", ["s3://bucket?endpoint=ftp://x"] = "endpoint",
    ["s3://bucket?region=a_b"] = "no region", ["s3://bucket?path_style=perhaps"] = "true or false",
  } do
    local s, err = store.open(text, { access_key_id = "a", secret_access_key = "b" })
    lu.assertNil(s, text)
    lu.assertEquals(err.kind, "usage", text)
    lu.assertStrContains(err.message, words)
  end
end

function TestStore.test_addresses_of_buckets()
  local keys = { access_key_id = "a", secret_access_key = "b" }
  local function address(text, key)
    local s = assert(store.open(text, keys))
    return { s.inner:address(key) }
  end
  local function check(text, key, host, path)
    lu.assertEquals(address(text, key), { host, path }, text)
  end
  check("s3://bucket?region=eu-west-1", "a b/ü", "bucket.s3.eu-west-1.amazonaws.com", "/a%20b/%C3%BC")
  check("s3://bucket?region=eu-west-1", nil, "bucket.s3.eu-west-1.amazonaws.com", "/")
  check("s3://with.dots?region=us-east-1", "k", "s3.us-east-1.amazonaws.com", "/with.dots/k")
  check("s3://bucket?region=cn-north-1", "k", "bucket.s3.cn-north-1.amazonaws.com.cn", "/k")
  check("s3://bucket?endpoint=http://127.0.0.1:9000", "k", "127.0.0.1:9000", "/bucket/k")
  check("s3://bucket?endpoint=https://h/base/&path_style=no", "k", "bucket.h", "/base/k")
  check("s3://bucket?region=us-east-1&path_style=yes", nil, "s3.us-east-1.amazonaws.com", "/bucket")
end

function TestStore.test_last_remove_the_script_directory()
  if dir then assert(fs.remove_all(dir)) end
end

return { TestProvider = TestProvider, TestStore = TestStore }
