-- SPDX-License-Identifier: MIT
-- lunark.stream: reads, filters, sinks, parts.
local file = require "lunark.file"
local lu = require "luaunit"
local stream = require "lunark.stream"
local sys = require "lunark.core.sys"
local task = require "lunark.task"
local stdlib = require "posix.stdlib"
local unistd = require "posix.unistd"

local MiB = 1024 * 1024
-- FIPS 180-2 (SHA-256) and RFC 1321 (MD5) vectors.
local SHA256_ABC = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
local SHA256_EMPTY = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
local MD5_ABC = "900150983cd24fb0d6963f7d28e17f72"

local function refused(kind, text, fn, ...)
  local ok, err = pcall(fn, ...)
  lu.assertFalse(ok)
  lu.assertEquals(err.kind, kind)
  lu.assertStrContains(err.message, text)
end

-- Bytes that repeat late and compress a little.
local function data(size)
  local piece = {}
  for i = 1, 4096 do
    piece[i] = string.pack("<I4", i * 2654435761 & 0xffffffff)
  end
  local text = table.concat(piece)
  return text:rep(size // #text + 1):sub(1, size)
end

local TestStream = {}

function TestStream:setUp()
  self.dir = stdlib.mkdtemp("/tmp/lunark-stream-XXXXXX")
  self.path = self.dir .. "/file"
end

function TestStream:tearDown()
  os.remove(self.path)
  unistd.rmdir(self.dir)
end

function TestStream.test_read()
  local s <close> = assert(stream.of("abc"))
  lu.assertTrue(stream.is_stream(s))
  lu.assertEquals(s:state(), "whole")
  lu.assertEquals(s:bytes(), 3)
  lu.assertEquals(s:read(), "abc")
  lu.assertEquals({ s:read() }, {})
  lu.assertEquals({ s:read() }, {}, "the end stays the end")
  s:close()
  s:close()
  lu.assertEquals(s:bytes(), 3)
  refused("usage", "stream.read: the stream is closed", s.read, s)
end

function TestStream.test_read_all()
  local text = data(3 * MiB + 17)
  lu.assertTrue(assert(stream.of(text)):read_all() == text)
  local s <close> = assert(stream.of(text))
  local all, err = s:read_all(2 * MiB)
  lu.assertNil(all)
  lu.assertEquals(err.kind, "memory")
  lu.assertEquals(err.message, "the stream is longer than 2097152 bytes")
  lu.assertEquals(assert(stream.of("")):read_all(), "")
end

function TestStream.test_gzip_and_back()
  local text = data(5 * MiB + 3)
  for _, options in ipairs {
    {}, { level = "fast" }, { level = "best", index = false }, { level = "none" },
    { level = 3, engine = "zlib" }, { jobs = 1 },
  } do
    local packed = assert(stream.of(text)):gzip(options):read_all()
    lu.assertEquals(packed:sub(1, 4), "\x1f\x8b\x08\x04")
    lu.assertTrue(#packed < #text + 10000)
    local s = assert(stream.of(packed)):gunzip()
    lu.assertTrue(s:read_all() == text)
    s:close()
  end
end

function TestStream.test_bytes_count_both_sides_of_gzip()
  local s <close> = assert(stream.of(("x"):rep(3 * MiB))):gzip()
  local size = assert(s:discard())
  lu.assertEquals(s:state(), "whole")
  lu.assertEquals(s:bytes(), size)
  lu.assertEquals(s:raw_bytes(), 3 * MiB)
end

function TestStream.test_gunzip_names_what_is_wrong()
  local packed = assert(stream.of("hello")):gzip():read_all()
  for input, message in pairs {
    ["plain"] = "the data is not gzip: it does not begin with 1f 8b",
    [""] = "the data is not gzip: it is empty",
    [packed:sub(1, 20)] = "gzip data is cut off at byte 20, inside the member that begins at byte 0",
    [packed .. "x"] = "gzip data is followed by something else at byte " .. #packed,
  } do
    local s <close> = assert(stream.of(input)):gunzip()
    local all, err = s:read_all()
    lu.assertNil(all)
    lu.assertEquals(err.kind, "corrupt")
    lu.assertEquals(err.message, message)
    lu.assertEquals(s:state(), "failed")
    all, err = s:read()
    lu.assertNil(all)
    lu.assertEquals(err.message, message, "read again")
  end
end

function TestStream.test_options_are_checked()
  local s <close> = assert(stream.of("x"))
  refused("usage", "unknown option 'levle'", s.gzip, s, { levle = 1 })
  refused("usage", "unknown compression level 'fastest'", s.gzip, s, { level = "fastest" })
  refused("usage", "unknown compression level '13'", s.gzip, s, { level = 13 })
  refused("usage", "unknown compression engine 'zstd'", s.gzip, s, { engine = "zstd" })
  refused("usage", "'jobs' must be between", s.gzip, s, { jobs = 0 })
  refused("usage", "expected a string, got table", stream.of, {})
  refused("usage", "1 byte per second or more", s.limit, s, 0)
  lu.assertEquals(s:read(), "x", "it was not moved")
end

function TestStream.test_a_moved_stream_is_gone()
  local s = assert(stream.of("x"))
  local packed <close> = s:gzip()
  refused("usage", "stream.read: the stream was given to something else", s.read, s)
  refused("usage", "the stream was given to something else", s.gunzip, s)
  refused("usage", "the stream was given to something else", s.state, s)
  s:close()
  lu.assertNotEquals(packed:state(), "cancelled")
end

function TestStream.test_hash()
  local hash, bytes = assert(stream.of("abc")):hash { "sha256", "md5" }
  lu.assertEquals(hash, { sha256 = SHA256_ABC, md5 = MD5_ABC })
  lu.assertEquals(bytes, 3)
  lu.assertEquals(assert(stream.of("")):hash({ "sha256" }).sha256, SHA256_EMPTY)
  local s <close> = assert(stream.of(""))
  refused("usage", "crc64", s.hash, s, { "crc64" })
  refused("usage", "expected a list", s.hash, s, "sha256")
  s:discard()
  refused("usage", "the stream was read to its end", s.hash, s, { "md5" })
end

function TestStream.test_hash_of_a_failed_stream()
  local result, err = assert(stream.of("no")):gunzip():hash { "md5" }
  lu.assertNil(result)
  lu.assertEquals(err.kind, "corrupt")
end

function TestStream:test_to_file_and_back()
  local text = data(3 * MiB + 5)
  do
    local f <close> = assert(file.open(self.path, "x"))
    lu.assertEquals(assert(stream.of(text)):to_file(f), #text)
    lu.assertEquals(assert(stream.of("tail")):to_file(f), 4, "behind the first")
    lu.assertEquals(f:size(), #text + 4)
  end
  lu.assertTrue(assert(stream.file(self.path)):read_all() == text .. "tail")
end

function TestStream:test_file_that_is_not_there()
  local s, err = stream.file(self.path)
  lu.assertNil(s)
  lu.assertEquals(err.kind, "not_found")
  lu.assertStrContains(err.message, self.path)
  refused("usage", "no NUL", stream.file, "a\0b")
end

function TestStream.test_others_run_while_one_reads()
  local slow = assert(stream.of(data(3 * MiB))):limit(6 * MiB)
  local turns, done = 0, false
  local other = task.spawn(function()
    while not done do
      task.sleep(0.01)
      turns = turns + 1
    end
  end)
  lu.assertEquals(slow:discard(), 3 * MiB)
  done = true
  task.join(other)
  lu.assertTrue(turns > 3)
end

function TestStream.test_a_timeout_leaves_the_stream_readable()
  local slow <close> = assert(stream.of(data(3 * MiB))):limit(MiB)
  local got = {}
  local result, err = task.timeout(0.2, function()
    while true do
      got[#got + 1] = assert(slow:read())
    end
  end)
  lu.assertNil(result)
  lu.assertEquals(err.kind, "timeout")
  lu.assertEquals(slow:state(), "open")
end

function TestStream.test_cancelled_while_it_reads_to_the_end()
  for _, method in ipairs { "discard", "read_all" } do
    local slow <close> = assert(stream.of(data(8 * MiB))):limit(MiB)
    local reader = task.spawn(function()
      return slow[method](slow)
    end)
    task.sleep(0.05)
    task.cancel(reader, "enough")
    local ok, err = task.join(reader)
    lu.assertFalse(ok)
    lu.assertEquals(err.kind, "cancelled")
    lu.assertEquals(slow:state(), method == "discard" and "cancelled" or "open")
  end
end

function TestStream.test_closed_while_it_is_read()
  local slow = assert(stream.of(data(4 * MiB))):limit(100000)
  local reader = task.spawn(function()
    local piece, err
    repeat
      piece, err = slow:read()
    until not piece
    return err
  end)
  task.sleep(0.05)
  refused("usage", "another task is reading the stream", slow.read, slow)
  refused("usage", "another task is reading the stream", slow.gzip, slow)
  slow:close()
  local ok, err = task.join(reader)
  lu.assertTrue(ok)
  lu.assertEquals(err.message, "the stream was closed while it was read")
  lu.assertEquals(slow:state(), "cancelled")
end

function TestStream.test_collected_without_close()
  for _ = 1, 20 do
    assert(stream.of(data(2 * MiB))):gzip()
    assert(stream.of(data(2 * MiB))):parts { size = MiB }
  end
  collectgarbage()
  collectgarbage()
end

-- Parts -----------------------------------------------------------------------------------------------
function TestStream.test_verify_the_beginning()
  local function read(text, begins)
    local made = assert(stream.of(text):verify { begins = begins, name = "it" })
    return made:read_all()
  end
  lu.assertEquals(read("DZV1 rest", { "DGV1", "DZV1" }), "DZV1 rest")
  lu.assertEquals(read("ab", { "a" }), "ab")
  local wrong = { ["DZX1 rest of it and more"] = "DZX1 rest of it ", ["DZ"] = "DZ", ["\n1"] = "?1" }
  for text, shown in pairs(wrong) do
    local ok, err = read(text, { "DGV1", "DZV1" })
    lu.assertNil(ok)
    lu.assertEquals({ err.kind, err.message }, {
      "io", ("it is not what is expected: it begins with '%s'"):format(shown),
    })
  end
  lu.assertErrorMsgContains("1 to 8", function() read("x", {}) end)
  lu.assertErrorMsgContains("16 bytes", function() read("x", { ("x"):rep(17) }) end)
end

local TestParts = {}

function TestParts.test_parts_of_a_stream()
  local text = data(2500000)
  local options = { size = MiB, hash = { "sha256", "md5" }, total = { "sha256" } }
  local parts <close> = assert(stream.of(text)):parts(options)
  local seen, got = {}, {}
  while true do
    local part <close> = parts:next()
    if not part then
      break
    end
    seen[#seen + 1] = { part.number, part.offset, part.size, part.last }
    got[#got + 1] = part:string()
    lu.assertEquals(part:string(3, 5), part:string():sub(4, 8))
    lu.assertEquals(part:string(part.size - 2, 5), part:string():sub(-2))
    lu.assertEquals(part:string(part.size + 1), "")
    local want = assert(stream.of(part:string())):hash { "sha256", "md5" }
    lu.assertEquals(part.hash, want)
    lu.assertNil(part.unknown)
  end
  lu.assertEquals(seen, {
    { 1, 0, MiB, false }, { 2, MiB, MiB, false }, { 3, 2 * MiB, 2500000 - 2 * MiB, true },
  })
  lu.assertTrue(table.concat(got) == text)
  lu.assertEquals(parts:bytes(), 2500000)
  lu.assertEquals(parts:total(), (assert(stream.of(text)):hash { "sha256" }))
  lu.assertNil(parts:next())
end

function TestParts.test_empty_stream_gives_one_empty_part()
  local parts <close> = assert(stream.of("")):parts { size = MiB, hash = { "sha256" } }
  local part = assert(parts:next())
  lu.assertEquals({ part.number, part.size, part.last, part:string() }, { 1, 0, true, "" })
  lu.assertEquals(part.hash.sha256, SHA256_EMPTY)
  lu.assertNil(parts:next())
  part:close()
end

function TestParts.test_another_handle_on_the_same_bytes()
  local parts <close> = assert(stream.of("abc")):parts { size = 10 }
  local part = assert(parts:next())
  local again <close> = part:ref()
  part:close()
  part:close()
  lu.assertEquals(again:string(), "abc")
  refused("usage", "the part is closed", part.string, part)
  refused("usage", "the part is closed", function()
    return part.size
  end)
end

function TestParts.test_width_bounds_what_exists()
  local parts <close> = assert(stream.of(data(4 * MiB))):parts { size = MiB, width = 2 }
  local first, second = assert(parts:next()), assert(parts:next())
  local third, err = task.timeout(0.1, function()
    return parts:next()
  end)
  lu.assertNil(third)
  lu.assertEquals(err.kind, "timeout")
  first:close()
  third = assert(parts:next())
  lu.assertEquals(third.number, 3)
  second:close()
  third:close()
end

function TestParts:test_spilled_parts()
  self.dir = stdlib.mkdtemp("/tmp/lunark-parts-XXXXXX")
  local text = data(3 * MiB)
  local parts = assert(stream.of(text)):parts { size = 2 * MiB, spill_dir = self.dir, hash = { "sha256" } }
  local first, second = assert(parts:next()), assert(parts:next())
  lu.assertTrue(first:string() .. second:string() == text)
  local target <close> = assert(file.open(self.dir .. "/copy", "w"))
  lu.assertTrue(target:pwrite(second, second.offset))
  lu.assertTrue(target:pwrite(first, 0))
  first:close()
  second:close()
  parts:close()
  lu.assertTrue(assert(target:stream()):read_all() == text)
  os.remove(self.dir .. "/copy")
  lu.assertTrue(unistd.rmdir(self.dir) == 0, "nothing else is left there")
end

function TestParts.test_a_failure_ends_the_parts()
  local packed = assert(stream.of(data(3 * MiB))):gzip():read_all()
  local parts <close> = assert(stream.of(packed:sub(1, -300))):gunzip():parts { size = MiB }
  local part, err
  repeat
    if part then
      part:close()
    end
    part, err = parts:next()
  until not part
  lu.assertEquals(err.kind, "corrupt")
  refused("usage", "the stream was not read to its whole end", parts.total, parts)
end

function TestParts.test_misuse()
  local s <close> = assert(stream.of("x"))
  refused("usage", "unknown option 'sise'", s.parts, s, { sise = 1 })
  refused("usage", "'size' must be between", s.parts, s, { size = 0 })
  local parts = assert(s:parts { size = 1 })
  parts:close()
  parts:close()
  refused("usage", "the parts are closed", parts.next, parts)
end

function TestStream.test_pipe()
  local out, writer = stream.pipe()
  local read = task.spawn(function() return out:read_all() end)
  local parts = stream.of(("x"):rep(3000000)):parts { size = 2000000 }
  for part in function() return parts:next() end do
    lu.assertTrue(writer:write(part))
    part:close()
  end
  lu.assertTrue(writer:write("end"))
  writer:finish()
  writer:finish()
  local _, text = task.join(read)
  lu.assertEquals({ #text, text:sub(-4) }, { 3000003, "xend" })
end

function TestStream.test_pipe_that_fails()
  local out, writer = stream.pipe()
  local write = task.spawn(function() return writer:write(("x"):rep(9000000)) end)
  task.sleep(0)
  writer:finish(sys.error { kind = "network", message = "gone" })
  local _, ok, err = task.join(write)
  lu.assertNil(ok)
  lu.assertEquals(err.kind, "network")
  _, err = out:read_all()
  lu.assertEquals({ err.kind, err.message }, { "network", "gone" })
  out, writer = stream.pipe()
  out:close()
  _, err = writer:write("x")
  lu.assertEquals(err.kind, "cancelled")
  out, writer = stream.pipe()
  writer:close()
  _, err = out:read()
  lu.assertStrContains(err.message, "closed before its end")
end

return { TestStream = TestStream, TestParts = TestParts }
