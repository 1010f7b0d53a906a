-- SPDX-License-Identifier: MIT
-- conformance.lua - what every store must do, whatever its provider. Run on the store whose URL is in
-- LUNARK_TEST_STORE, which is empty: `luarun tests/lua/run.lua tests/provider/conformance.lua`. A provider of
-- yours is found in LUNARK_PATH.
-- LUNARK_TEST_WRONG holds options (name=value, commas) with which the store must refuse, or "unchecked" for a
-- server that looks at no credentials. LUNARK_TEST_LACKS names cases (commas) that the server at hand can't
-- do, whatever a provider asks of it: they are left out, and named.
local lu = require "luaunit"
local crypto = require "lunark.core.crypto"
local store = require "lunark.store"
local stream = require "lunark.core.stream"
local sys = require "lunark.core.sys"
local task = require "lunark.task"
local transfer = require "lunark.transfer"

local MiB = 1024 * 1024
local TestStore = {}
local base = assert(sys.env("LUNARK_TEST_STORE"), "LUNARK_TEST_STORE is not set")
local is_local = not base:find("^%w+://")

local number = 0
local s

function TestStore.setUp()
  number = number + 1
  s = assert(store.open(base .. "/case" .. number))
  assert(s:check("write"))
end

function TestStore.tearDown()
  local keys = {}
  for info, err in s:list() do
    if not info and err.kind == "not_found" then return end
    keys[#keys + 1] = assert(info, err).key
  end
  assert(s:delete(keys))
end

local function text_of(key, range)
  local body <close> = assert(s:get(key, range))
  return assert(body:read_all(64 * MiB))
end

local function keys_below(prefix)
  local keys = {}
  for info, err in s:list(prefix) do keys[#keys + 1] = assert(info, err).key end
  return keys
end

-- Bytes that don't compress and can be made again.
local function noise(size, seed)
  local block = {}
  for index = 1, 4096 do block[index] = crypto.digest("sha256", seed .. ":" .. index) end
  local text = table.concat(block)
  return text:rep(size // #text + 1):sub(1, size)
end

local function sha256(text)
  return crypto.hex(crypto.digest("sha256", text))
end

local function round_trip(key, body)
  local info = assert(s:put(key, body))
  lu.assertEquals(info.size, #body)
  lu.assertEquals(text_of(key), body)
  lu.assertEquals(assert(s:head(key)).size, #body)
  lu.assertEquals(keys_below(key), { key })
end

local function upload(key, body, part_size, more)
  local target = { store = s, key = key }
  for name, value in pairs(more or {}) do target[name] = value end
  local done = assert(transfer.upload(stream.of(body), { target }, { part_size = part_size }))
  if not done.targets[1].ok then error(done.targets[1].err) end
  return done
end

-- --- names ---

local names = {
  plain = "plain.txt", nested = "a/b/c/d.txt", space = "with space/and more .txt", plus = "a+b+c",
  percent = "100%/50%25.txt", colon = "neo4j-2020-06-16-12:32:57.tar.gz", unicode = "grün/日本語/ñ.txt",
  punctuation = "a!$&'()*,;=@[]~_-.^`{}|\"<>",
  question_and_hash = "what?/x#y&z=1", quotes = "it's \"q\".txt",
  tilde = "~user/-dash/=equals", many_dots = "...a/b...c/.hidden", trailing_dot = "folder./name.",
  long_component = ("n"):rep(200), emoji = "backup-\u{1F4BE}.gz", combining = "e\u{301}.txt",
  comma_semicolon = "a,b;c",
}

for case, key in pairs(names) do
  TestStore["test_name_" .. case] = function() round_trip(key, "the content of " .. key) end
end

function TestStore.test_deep_key()
  round_trip(("0123456789/"):rep(40) .. "end", "deep")
end

-- With the prefix it has `count` bytes; every 100th is a slash.
local function key_of(count)
  return (("0123456789"):rep(10):sub(2) .. "/"):rep(20):sub(1, count - #s.prefix - 1) .. "e"
end

function TestStore.test_key_of_1024_bytes()
  local key = key_of(1024)
  lu.assertEquals(#s.prefix + #key, 1024)
  round_trip(key, "long")
  if s:can("copy") then
    assert(s:copy(key, "short"))
    lu.assertEquals(text_of("short"), "long")
  end
  assert(s:delete(key))
  -- One byte more is an object, or it is said what is wrong with it.
  local longer = key_of(1025)
  local info, err = s:put(longer, "longer")
  if info then return lu.assertEquals(text_of(longer), "longer") end
  lu.assertEquals(err.kind, "usage")
  lu.assertStrContains(err.message, longer)
end

function TestStore.test_trailing_slash()
  -- A name of its own, or refused; never the name without it.
  assert(s:put("folder", "no slash"))
  local info, err = s:put("folder/", "slash")
  if info then
    lu.assertEquals(text_of("folder/"), "slash")
  else
    lu.assertStrContains(err.message, "folder/")
  end
  lu.assertEquals(text_of("folder"), "no slash")
end

function TestStore.test_same_letters()
  for _, key in ipairs { "Case", "case", "CASE", "e\u{301}", "é" } do assert(s:put(key, key)) end
  for _, key in ipairs { "Case", "case", "CASE", "e\u{301}", "é" } do lu.assertEquals(text_of(key), key) end
  lu.assertEquals(#keys_below(""), 5)
end

function TestStore.test_names_that_share_a_beginning()
  for _, key in ipairs { "a", "a.b", "ab", "a b" } do assert(s:put(key, key)) end
  for _, key in ipairs { "a", "a.b", "ab", "a b" } do lu.assertEquals(text_of(key), key) end
end

function TestStore.test_bad_keys_are_refused()
  local info, err = s:head("a\0b")
  lu.assertNil(info)
  lu.assertEquals(err.kind, "usage")
end

function TestStore.test_empty_components()
  -- A directory has no such names and says so; an object store takes them as they are.
  local info, err = s:put("a//b", "x")
  if info then
    lu.assertEquals(text_of("a//b"), "x")
    assert(s:delete("a//b"))
  else
    lu.assertStrContains(err.message, "a//b")
  end
end

function TestStore.test_backslash()
  -- One service takes it for a slash: its provider says so.
  local info, err = s:put("a\\b", "x")
  if not info then
    lu.assertEquals(err.kind, "usage")
    return lu.assertStrContains(err.message, "a\\b")
  end
  lu.assertEquals(text_of("a\\b"), "x")
  lu.assertEquals(keys_below(""), { "a\\b" })
end

function TestStore.test_dots_do_not_leave_the_prefix()
  assert(s:put("inside/kept", "kept"))
  local info, err = s:put("inside/../../escaped", "x")
  if is_local then
    lu.assertNil(info)
    lu.assertEquals(err.kind, "usage")
  end
  lu.assertEquals(text_of("inside/kept"), "kept")
  if info then s:delete("inside/../../escaped") end
end

-- --- content ---

function TestStore.test_empty_object() round_trip("empty", "") end

function TestStore.test_one_byte() round_trip("one", "x") end

function TestStore.test_every_byte()
  local all = {}
  for byte = 0, 255 do all[byte + 1] = string.char(byte) end
  round_trip("bytes", table.concat(all):rep(5))
end

function TestStore.test_large_put() round_trip("large", noise(3 * MiB + 17, "put")) end

function TestStore.test_overwrite()
  assert(s:put("key", "first", { a = "1" }))
  assert(s:put("key", "the second one", { b = "2" }))
  lu.assertEquals(text_of("key"), "the second one")
  local info = assert(s:head("key"))
  lu.assertEquals(info.meta, { b = "2" })
end

function TestStore.test_overwrite_with_shorter()
  assert(s:put("key", ("long"):rep(1000)))
  assert(s:put("key", "short"))
  lu.assertEquals(text_of("key"), "short")
end

function TestStore.test_overwrite_while_it_is_read()
  local old = noise(2 * MiB, "old")
  assert(s:put("key", old))
  local body <close> = assert(s:get("key"))
  assert(s:put("key", "new"))
  local text = body:read_all(4 * MiB)
  lu.assertTrue(text == nil or text == old, "half old, half new")
  lu.assertEquals(text_of("key"), "new")
end

-- --- metadata ---

function TestStore.test_metadata()
  local meta = { ["lunark-version"] = "0.1.0", ["lunark-key"] = "a/b c%2B=+:;,.tar.gz", plain = "x" }
  assert(s:put("with", "body", meta))
  lu.assertEquals(assert(s:head("with")).meta, meta)
  local body, info = s:get("with")
  body:close()
  lu.assertEquals(info.meta, meta)
end

function TestStore.test_metadata_of_all_printable_characters()
  local text = {}
  for byte = 33, 126 do text[#text + 1] = string.char(byte) end
  local meta = { all = table.concat(text), spaces = "a  b", long = ("x"):rep(1000) }
  assert(s:put("with", "body", meta))
  lu.assertEquals(assert(s:head("with")).meta, meta)
end

function TestStore.test_no_metadata()
  assert(s:put("without", "body"))
  lu.assertEquals(assert(s:head("without")).meta, {})
end

function TestStore.test_metadata_of_parts()
  upload("parts", noise(6 * MiB, "meta"), 5 * MiB, { meta = { mark = "yes" } })
  lu.assertEquals(assert(s:head("parts")).meta, { mark = "yes" })
end

function TestStore.test_time_of_change()
  assert(s:put("timed", "x"))
  local mtime = assert(s:head("timed")).mtime
  lu.assertAlmostEquals(mtime, sys.clock(), 60)
end

-- --- ranges ---

local ranges = {
  first_byte = { 0, 0 }, beginning = { 0, 99 }, middle = { 1000, 1999 }, last_byte = { 9999, 9999 },
  to_the_end = { 9990, nil }, beyond_the_end = { 9990, 20000 }, all = { 0, 9999 },
}

for case, range in pairs(ranges) do
  TestStore["test_range_" .. case] = function()
    local body = noise(10000, "range")
    assert(s:put("r", body))
    lu.assertEquals(text_of("r", range), body:sub(range[1] + 1, (range[2] or 9999) + 1))
    local part, info = s:get("r", range)
    part:close()
    lu.assertEquals(info.size, 10000)
  end
end

function TestStore.test_range_outside()
  assert(s:put("r", "short"))
  local body, err = s:get("r", { 5, 9 })
  lu.assertNil(body)
  lu.assertEquals(err.kind, "usage")
end

-- --- what is not there ---

function TestStore.test_missing()
  for _, call in ipairs { "head", "get" } do
    local found, err = s[call](s, "not/there")
    lu.assertNil(found)
    lu.assertEquals(err.kind, "not_found")
    lu.assertStrContains(err.message, "not/there")
  end
end

function TestStore.test_prefix_is_no_object()
  assert(s:put("dir/file", "x"))
  local found, err = s:head("dir")
  lu.assertNil(found)
  lu.assertEquals(err.kind, "not_found")
end

function TestStore.test_delete()
  assert(s:put("gone", "x"))
  assert(s:delete("gone"))
  lu.assertNil(s:head("gone"))
  lu.assertEquals(keys_below(""), {})
end

function TestStore.test_delete_missing()
  assert(s:put("there", "x"))
  lu.assertTrue(s:delete("never/was"))
  lu.assertTrue(s:delete { "never/was", "nor/this" })
  lu.assertEquals(keys_below(""), { "there" })
end

function TestStore.test_delete_many()
  local keys = {}
  for index = 1, 25 do keys[index] = ("many/%02d <&>.txt"):format(index) end
  task.map(keys, 8, function(key) return assert(s:put(key, key)) end)
  assert(s:put("stays", "x"))
  keys[#keys + 1] = "many/not there"
  assert(s:delete(keys))
  lu.assertEquals(keys_below(""), { "stays" })
end

function TestStore.test_put_again_after_delete()
  assert(s:put("k/e/y", "one", { a = "1" }))
  assert(s:delete("k/e/y"))
  assert(s:put("k/e/y", "two"))
  lu.assertEquals(text_of("k/e/y"), "two")
  lu.assertEquals(assert(s:head("k/e/y")).meta, {})
end

-- --- listing ---

function TestStore.test_list_order_and_sizes()
  local sizes = { ["a/1"] = 1, ["a/10"] = 2, ["a/2"] = 3, ["b"] = 4, ["a-b"] = 5, ["B"] = 6, ["é"] = 7 }
  for key, size in pairs(sizes) do assert(s:put(key, ("x"):rep(size))) end
  local expected = {}
  for key in pairs(sizes) do expected[#expected + 1] = key end
  table.sort(expected)
  local found = {}
  for info, err in s:list() do
    found[#found + 1] = assert(info, err).key
    lu.assertEquals(info.size, sizes[info.key])
    lu.assertAlmostEquals(info.mtime, sys.clock(), 60)
  end
  lu.assertEquals(found, expected)
end

function TestStore.test_list_prefix()
  for _, key in ipairs { "x/a", "x/b", "xy", "y/x/a", "x" .. "-1" } do assert(s:put(key, "1")) end
  lu.assertEquals(keys_below("x/"), { "x/a", "x/b" })
  lu.assertEquals(keys_below("x"), { "x-1", "x/a", "x/b", "xy" })
  lu.assertEquals(keys_below("x/a"), { "x/a" })
  lu.assertEquals(keys_below("nothing/"), {})
end

function TestStore.test_list_does_not_show_neighbours()
  local neighbour = assert(store.open(base .. "/case" .. number .. "-neighbour"))
  assert(neighbour:put("other", "x"))
  assert(s:put("own", "x"))
  lu.assertEquals(keys_below(""), { "own" })
  assert(neighbour:delete("other"))
end

function TestStore.test_list_pages()
  local keys = {}
  for index = 1, 1005 do keys[index] = ("p/%04d"):format(index) end
  task.map(keys, 16, function(key) return assert(s:put(key, "")) end)
  lu.assertEquals(keys_below("p/"), keys)
  local page, token = s:page("p/")
  lu.assertTrue(#page < 1005 and token ~= nil, "a page of at most 1,000 is expected")
  assert(s:delete(keys))
  lu.assertEquals(keys_below("p/"), {})
end

-- --- copy ---

function TestStore.test_copy()
  assert(s:put("from", "the bytes", { a = "1" }))
  local info = assert(s:copy("from", "to/there", { b = "2" }))
  lu.assertEquals(info.size, 9)
  lu.assertEquals(text_of("to/there"), "the bytes")
  lu.assertEquals(assert(s:head("to/there")).meta, { b = "2" })
  lu.assertEquals(assert(s:head("from")).meta, { a = "1" })
end

function TestStore.test_copy_keeps_metadata()
  assert(s:put("from", "x", { a = "1" }))
  assert(s:copy("from", "to"))
  lu.assertEquals(assert(s:head("to")).meta, { a = "1" })
end

function TestStore.test_copy_replaces()
  assert(s:put("one", "1"))
  assert(s:put("two", "2"))
  assert(s:copy("one", "latest", { of = "one" }))
  assert(s:copy("two", "latest", { of = "two" }))
  assert(s:copy("two", "latest", { of = "two again" }))
  lu.assertEquals(text_of("latest"), "2")
  lu.assertEquals(assert(s:head("latest")).meta, { of = "two again" })
  lu.assertEquals(text_of("one"), "1")
  lu.assertEquals(keys_below(""), { "latest", "one", "two" })
end

function TestStore.test_copy_is_independent()
  assert(s:put("from", "old"))
  assert(s:copy("from", "to"))
  assert(s:put("from", "new"))
  lu.assertEquals(text_of("to"), "old")
  assert(s:delete("from"))
  lu.assertEquals(text_of("to"), "old")
end

function TestStore.test_copy_of_odd_names()
  assert(s:put("a+b c%/ü:1", "odd"))
  assert(s:copy("a+b c%/ü:1", "ü/ +%"))
  lu.assertEquals(text_of("ü/ +%"), "odd")
end

function TestStore.test_copy_missing()
  local info, err = s:copy("not/there", "to")
  lu.assertNil(info)
  lu.assertEquals(err.kind, "not_found")
  lu.assertNil(s:head("to"))
end

-- --- uploads ---

assert(loadfile("tests/provider/conformance_uploads.lua")) {
  tests = TestStore, is_local = is_local, store = function() return s end,
  prefix = function() return base .. "/case" .. number end,
  text_of = text_of, keys_below = keys_below, noise = noise, sha256 = sha256, upload = upload,
}

-- --- many at once, and other things ---

function TestStore.test_many_at_once()
  local keys = {}
  for index = 1, 40 do keys[index] = "at-once/" .. index end
  task.map(keys, 20, function(key) return assert(s:put(key, key)) end)
  local texts = task.map(keys, 20, function(key) return text_of(key) end)
  lu.assertEquals(texts, keys)
end

function TestStore.test_same_key_at_once()
  task.map({ "a", "b", "c", "d" }, 4, function(letter)
    return assert(s:put("same", letter:rep(100000), { by = letter }))
  end)
  local text = text_of("same")
  lu.assertEquals(text, text:sub(1, 1):rep(100000))
end

function TestStore.test_closed_early()
  assert(s:put("big", noise(8 * MiB, "early")))
  local body = assert(s:get("big"))
  assert(body:read())
  body:close()
  lu.assertEquals(#text_of("big"), 8 * MiB)
end

function TestStore.test_url_of_one_archive()
  assert(s:put("item/item-1.tar.gz", "archive"))
  local one = assert(store.open(base .. "/case" .. number .. "/item/item-1.tar.gz"))
  lu.assertEquals(one.key, "item-1.tar.gz")
  local body <close> = assert(one:get(one.key))
  lu.assertEquals(body:read_all(), "archive")
end

function TestStore.test_check()
  assert(s:put("x", "x"))
  lu.assertTrue(s:check("read"))
  lu.assertTrue(s:check("write"))
end

function TestStore.test_wrong_credentials()
  local text = sys.env("LUNARK_TEST_WRONG")
  if not text then
    lu.assertTrue(is_local)
    return
  end
  if text == "unchecked" then return end
  local wrong = {}
  for name, value in text:gmatch("([%w_]+)=([^,]+)") do wrong[name] = value end
  local refused = assert(store.open(base, wrong))
  for _, call in ipairs { "put", "head", "get", "check" } do
    local ok, err = refused[call](refused, call == "check" and "read" or "key", "body")
    lu.assertNil(ok, call)
    lu.assertEquals(err.kind, "auth", call)
    lu.assertStrContains(err.hint, "credentials", call)
  end
end

-- A store is held to the features that its provider declares; what it lacks is named.
local features = {
  uploads = { "^test_uploads_" }, copy = { "^test_copy" }, range = { "^test_range_" },
  multipart = {
    "^test_upload_", "part", "^test_abort_", "^test_source_fails$", "^test_cancel_",
    "^test_exclusive_upload$",
  },
}

local probe = assert(store.open(base))
for feature, patterns in pairs(features) do
  if not probe:can(feature) then
    print(("skipped: the tests of the feature '%s', which the provider does not have"):format(feature))
    for name in pairs(TestStore) do
      for _, pattern in ipairs(patterns) do
        if name:find(pattern) then TestStore[name] = nil end
      end
    end
  end
end

for name in (sys.env "LUNARK_TEST_LACKS" or ""):gmatch("[%w_]+") do
  assert(TestStore[name], "LUNARK_TEST_LACKS: there is no case " .. name)
  TestStore[name] = nil
  print("left out, the server can't: " .. name)
end

return { TestStore = TestStore }
