-- SPDX-License-Identifier: MIT
-- lunark.fetch: whole objects by several ranges at once, in order, each resumed where it broke; and
-- stream.gather below it.
local lu = require "luaunit"
local fetch = require "lunark.fetch"
local store = require "lunark.store"
local stream = require "lunark.core.stream"
local sys = require "lunark.core.sys"
local task = require "lunark.task"

local KiB = 1024
local TestFetch = {}

-- A stream of a text that breaks behind `count` bytes.
local function broken(text, count)
  local gather <close> = stream.gather(1)
  local body = gather:stream()
  assert(gather:take(0, stream.of(text:sub(1, count)), count))
  gather:fail(sys.error { kind = "network", message = "the connection broke", retryable = true })
  return body
end

-- A store with one object that counts what is asked. `behaviour(first, last, number)` returns a stream, an
-- error, or a change of the info.
local function fake(text, behaviour, features)
  local inner = { asked = {}, busy = 0, most = 0 }
  function inner:get(key, range)
    local first, last = range and range[1] or 0, range and range[2] or #text - 1
    self.asked[#self.asked + 1] = range and ("%d-%d"):format(first, last) or "all"
    local info = { key = key, size = #text, etag = "one" }
    local body, err, change
    if behaviour then body, err, change = behaviour(first, last, #self.asked) end
    if err then return nil, err end
    for name, value in pairs(change or {}) do info[name] = value end
    return body or stream.of(text:sub(first + 1, last + 1)), info
  end
  return setmetatable({
    scheme = "fake", text = "fake://b", prefix = "p/", skew = 0, provider = "fake", inner = inner,
    features = features or { range = true },
  }, store.Store), inner
end

local function pattern(size)
  local pieces = {}
  for number = 1, size // 16 + 1 do pieces[number] = ("%015d\n"):format(number) end
  return table.concat(pieces):sub(1, size)
end

local TEXT = pattern(100 * KiB + 7)

local function read(from, options)
  options = options or {}
  options.size = options.size or #TEXT
  local reader <close> = assert(fetch.open(from, "k", options))
  return reader.stream:read_all()
end

function TestFetch.test_in_order_and_each_byte_once()
  for _, width in ipairs { 1, 2, 3, 8, 100 } do
    for _, range in ipairs { 7 * KiB, 4 * KiB, 200 * KiB } do
      local s, inner = fake(TEXT)
      lu.assertTrue(read(s, { range = range, width = width }) == TEXT)
      lu.assertEquals(#inner.asked, width == 1 and 1 or (#TEXT - 1) // range + 1)
    end
  end
end

function TestFetch.test_pieces_that_come_late()
  local s = fake(TEXT, function(first) task.sleep(first % 3 * 0.01) end)
  lu.assertTrue(read(s, { range = 8 * KiB + 1, width = 4 }) == TEXT)
end

function TestFetch.test_part_of_an_object()
  local s = fake(TEXT)
  lu.assertTrue(read(s, { range = KiB, width = 4, first = 5, last = 9999 }) == TEXT:sub(6, 10000))
  lu.assertTrue(read(s, { width = 1, first = 5, last = 9999 }) == TEXT:sub(6, 10000))
end

function TestFetch.test_stores_without_ranges()
  local s, inner = fake(TEXT, nil, {})
  lu.assertTrue(read(s) == TEXT)
  lu.assertEquals(inner.asked, { "all" })
  s, inner = fake(TEXT, nil, { range = true, range_width = 1 })
  lu.assertTrue(read(s) == TEXT)
  lu.assertEquals(inner.asked, { "all" })
end

function TestFetch.test_goes_on_where_it_broke()
  local s, inner = fake(TEXT, function(first, last, number)
    if number > 20 or last == first then return nil end
    return broken(TEXT:sub(first + 1, last + 1), (last - first) // 2)
  end)
  lu.assertTrue(read(s, { range = 30 * KiB, width = 3 }) == TEXT)
  lu.assertStrContains(table.concat(inner.asked, " "), "15359-30719")
end

function TestFetch.test_an_answer_that_is_too_short()
  local s = fake(TEXT, function(first, last, number)
    if number == 2 then return stream.of(TEXT:sub(first + 1, last - 10)) end
  end)
  lu.assertTrue(read(s, { range = 30 * KiB, width = 3 }) == TEXT)
end

function TestFetch.test_another_object_in_between()
  for _, change in ipairs { { etag = "two" }, { size = 5 }, { version = "9" } } do
    local s = fake(TEXT, function(first) if first > 50 * KiB then return nil, nil, change end end)
    local text, err = read(s, { range = 10 * KiB, width = 4 })
    lu.assertNil(text)
    lu.assertEquals(err.kind, "io")
    lu.assertEquals(err.message, "k was replaced by another object while it was read")
  end
end

function TestFetch.test_a_range_that_fails_for_good()
  local s = fake(TEXT, function(first)
    if first > 50 * KiB then return nil, sys.error { kind = "auth", message = "no more" } end
  end)
  local text, err = read(s, { range = 10 * KiB, width = 4 })
  lu.assertNil(text)
  lu.assertEquals(err.message, "no more")
  s = fake(TEXT, function() return nil, sys.error { kind = "not_found", message = "gone" } end)
  local reader
  reader, err = fetch.open(s, "k", { size = #TEXT, range = KiB })
  lu.assertNil(reader)
  lu.assertEquals(err.kind, "not_found")
end

function TestFetch.test_more_than_was_asked_for()
  local s = fake(TEXT, function(first) if first > 0 then return stream.of(TEXT) end end)
  local text, err = read(s, { range = 10 * KiB, width = 4 })
  lu.assertNil(text)
  lu.assertEquals(err.message, "more than the 10240 bytes that were asked for came")
end

-- Nothing runs on when what reads it stops.
function TestFetch.test_a_reader_that_stops()
  local live = task.live()
  for _, how in ipairs { "stream", "reader", "both" } do
    local s, inner = fake(TEXT)
    local reader = assert(fetch.open(s, "k", { size = #TEXT, range = KiB, width = 2 }))
    assert(reader.stream:read())
    if how ~= "reader" then reader.stream:close() end
    task.sleep(0.02)
    reader:close()
    lu.assertTrue(#inner.asked < 10, how)
    lu.assertEquals(task.live(), live, how)
  end
end

-- What is ahead is bounded, however slow the reader is.
function TestFetch.test_what_is_ahead_is_bounded()
  local s, inner = fake(TEXT)
  local reader <close> = assert(fetch.open(s, "k", { size = #TEXT, range = KiB, width = 3 }))
  task.sleep(0.1)
  lu.assertTrue(#inner.asked <= 3 + 3, #inner.asked)
  lu.assertTrue(reader.stream:read_all() == TEXT)
end

function TestFetch.test_gather_misuse()
  local gather <close> = stream.gather(2)
  gather:stream()
  for _, case in ipairs {
    { function() stream.gather(0) end, "a width from 1 to 1024 expected" },
    { function() gather:stream() end, "the stream was taken already" },
    { function() gather:take(2, stream.of("x"), 1) end, "it is not the turn of piece 2 yet" },
    { function() gather:room(-1) end, "pieces are numbered from 0, got -1" },
  } do
    local ok, err = pcall(case[1])
    lu.assertFalse(ok)
    lu.assertStrContains(tostring(err), case[2])
  end
  gather:close()
  lu.assertErrorMsgContains("the gather is closed", function() gather:room(0) end)
end

return { TestFetch = TestFetch }
