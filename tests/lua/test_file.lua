-- SPDX-License-Identifier: MIT
-- lunark.file: open, write at positions, sync, ranges; and what is refused.
local file = require "lunark.file"
local fcntl = require "posix.fcntl"
local lu = require "luaunit"
local stat = require "posix.sys.stat"
local stdlib = require "posix.stdlib"
local stream = require "lunark.stream"
local task = require "lunark.task"
local unistd = require "posix.unistd"

local function refused(kind, text, fn, ...)
  local ok, err = pcall(fn, ...)
  lu.assertFalse(ok)
  lu.assertEquals(err.kind, kind)
  lu.assertStrContains(err.message, text)
end

local function fails(kind, text, result, err)
  lu.assertNil(result)
  lu.assertEquals(err.kind, kind)
  lu.assertStrContains(err.message, text)
  return err
end

local TestFile = {}

function TestFile:setUp()
  self.dir = stdlib.mkdtemp("/tmp/lunark-file-XXXXXX")
  self.path = self.dir .. "/a"
end

function TestFile:tearDown()
  for _, name in ipairs { "a", "b", "link", "fifo" } do
    os.remove(self.dir .. "/" .. name)
  end
  unistd.rmdir(self.dir)
end

function TestFile:test_write_at_positions()
  local f <close> = assert(file.open(self.path, "x"))
  lu.assertTrue(f:pwrite("world", 6))
  lu.assertTrue(f:pwrite("hello "))
  lu.assertTrue(f:sync())
  lu.assertTrue(file.sync_dir(self.dir))
  lu.assertEquals(f:size(), 11)
  lu.assertEquals(assert(f:stream()):read_all(), "hello world")
  local plain = assert(io.open(self.path, "rb"))
  lu.assertEquals(plain:read("a"), "hello world")
  plain:close()
end

function TestFile:test_permissions_of_a_new_file()
  assert(file.open(self.path, "x")):close()
  lu.assertEquals(stat.stat(self.path).st_mode & 511, 384, "0600")
  assert(file.open(self.dir .. "/b", "w", 420)):close()
  local mask = stat.umask(0)
  stat.umask(mask)
  lu.assertEquals(stat.stat(self.dir .. "/b").st_mode & 511, 420 & ~mask, "0644")
end

function TestFile:test_modes()
  fails("not_found", self.path, file.open(self.path))
  local f = assert(file.open(self.path, "x"))
  f:pwrite("abc")
  f:close()
  local err = fails("conflict", "it is there already", file.open(self.path, "x"))
  lu.assertStrContains(err.message, self.path)
  f = assert(file.open(self.path, "r"))
  lu.assertEquals(f:size(), 3)
  refused("usage", "was opened for reading", f.pwrite, f, "x")
  local s <close> = assert(stream.of("x"))
  refused("usage", "was opened for reading", s.to_file, s, f)
  f:close()
  f = assert(file.open(self.path, "w"))
  lu.assertEquals(f:size(), 0, "emptied")
  f:close()
  refused("usage", "unknown mode 'a'", file.open, self.path, "a")
end

function TestFile:test_ranges()
  local f <close> = assert(file.open(self.path, "w"))
  f:pwrite("0123456789")
  local function range(...)
    return assert(f:stream(...)):read_all()
  end
  lu.assertEquals(range(2, 5), "2345")
  lu.assertEquals(range(7), "789")
  lu.assertEquals(range(0, 0), "0")
  lu.assertEquals(range(8, 100), "89")
  lu.assertEquals(range(10), "")
  lu.assertEquals(range(3, 2), "")
  refused("usage", "range", f.stream, f, -1)
  refused("usage", "range", f.stream, f, 5, 2)
end

function TestFile:test_a_range_outlives_its_file()
  local f = assert(file.open(self.path, "w"))
  f:pwrite(("x"):rep(3000000))
  local s = assert(f:stream())
  f:close()
  f:close()
  lu.assertEquals(s:discard(), 3000000)
  refused("usage", "the file is closed", f.size, f)
end

function TestFile:test_parts_are_written_at_their_place()
  local f <close> = assert(file.open(self.path, "w"))
  local parts <close> = assert(stream.of("abcdefgh")):parts { size = 3, width = 3 }
  local list = { assert(parts:next()), assert(parts:next()), assert(parts:next()) }
  task.map(list, 3, function(part)
    assert(f:pwrite(part, part.offset))
    part:close()
  end)
  lu.assertEquals(assert(f:stream()):read_all(), "abcdefgh")
end

function TestFile:test_what_is_no_file()
  fails("io", "is a directory", file.open(self.dir))
  local err = fails("io", "directory", file.open(self.dir, "w"))
  lu.assertStrContains(err.message, self.dir)
  stat.mkfifo(self.dir .. "/fifo", 384)
  fails("io", "neither a regular file nor a block device", file.open(self.dir .. "/fifo"))
  fails("io", "neither a regular file nor a block device", file.open("/dev/null", "w"))
  fails("not_found", self.dir .. "/no", file.sync_dir(self.dir .. "/no"))
end

function TestFile:test_links_are_followed_to_where_they_lead()
  unistd.link("a", self.dir .. "/link", true)
  local f = assert(file.open(self.dir .. "/link", "w"))
  f:pwrite("through")
  f:close()
  lu.assertEquals(assert(stream.file(self.path)):read_all(), "through")
  lu.assertNotNil(unistd.readlink(self.dir .. "/link"), "the link is still one")
end

function TestFile:test_full_disk()
  -- /dev/full is no file that may be opened, so a limit has to do.
  local resource = require "posix.sys.resource"
  local signal = require "posix.signal"
  local limit = resource.getrlimit(resource.RLIMIT_FSIZE)
  local old = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
  local f <close> = assert(file.open(self.path, "w"))
  resource.setrlimit(resource.RLIMIT_FSIZE, { rlim_cur = 1000, rlim_max = limit.rlim_max })
  local wrote, err = f:pwrite(("x"):rep(2000))
  local copied, copy_err = assert(stream.of(("x"):rep(2000))):to_file(f)
  resource.setrlimit(resource.RLIMIT_FSIZE, limit)
  signal.signal(signal.SIGXFSZ, old)
  err = fails("io", "write '" .. self.path .. "'", wrote, err)
  lu.assertStrContains(err.message, "file too large")
  lu.assertStrContains(err.hint, "ulimit -f")
  fails("io", "file too large", copied, copy_err)
end

function TestFile:test_free_bytes()
  lu.assertTrue(assert(file.free_bytes(self.dir)) > 0)
  lu.assertTrue(assert(file.free_bytes(self.dir .. "/not/there/yet")) > 0)
end

function TestFile:test_arguments()
  refused("usage", "expected a path, got no value", file.open)
  refused("usage", "no NUL", file.open, "a\0b")
  refused("usage", "permissions", file.open, self.path, "w", 4096)
  local f <close> = assert(file.open(self.path, "w"))
  refused("usage", "expected a string or a part, got table", f.pwrite, f, {})
  refused("usage", "offset", f.pwrite, f, "x", -1)
  local far, err = f:pwrite("x", math.maxinteger)
  lu.assertNil(far)
  lu.assertEquals(err.kind, "io")
end

function TestFile:test_lock()
  local first <close> = assert(file.open(self.path, "w"))
  local second <close> = assert(file.open(self.path, "r"))
  lu.assertTrue(first:lock())
  lu.assertTrue(first:lock())
  local ok, err = second:lock()
  lu.assertNil(ok)
  lu.assertEquals(err.kind, "conflict")
  first:close()
  lu.assertTrue(second:lock())
end

function TestFile:test_descriptors_are_not_inherited()
  local f <close> = assert(file.open(self.path, "w"))
  lu.assertEquals(f:size(), 0)
  for fd = 3, 64 do
    if unistd.readlink("/proc/self/fd/" .. fd) == self.path then
      lu.assertTrue(fcntl.fcntl(fd, fcntl.F_GETFD) & fcntl.FD_CLOEXEC ~= 0)
      return
    end
  end
  lu.fail("the descriptor was not found")
end

return { TestFile = TestFile }
