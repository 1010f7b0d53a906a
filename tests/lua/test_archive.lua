-- SPDX-License-Identifier: MIT
-- lunark.archive: made, read by other tools, extracted; what is refused; cancelling.
local archive = require "lunark.archive"
local exec = require "lunark.exec"
local file = require "lunark.core.file"
local lu = require "luaunit"
local stream = require "lunark.core.stream"
local sys = require "lunark.core.sys"
local task = require "lunark.core.task"

local TestArchive = {}

-- A shell command in the test's directory; its standard output.
local function sh(self, command)
  local result, err = exec.run { "sh", "-c", command, cwd = self.dir, stderr = "capture" }
  if not result then
    error(tostring(err) .. " in " .. command)
  end
  return result.stdout
end

function TestArchive:setUp()
  self.dir = "/"
  self.dir = sh(self, "mktemp -d /tmp/lunark-test-XXXXXX"):gsub("\n$", "")
  sh(self, "mkdir -p tree/dir && echo one > tree/one && echo two > tree/dir/two &&"
    .. "ln tree/one tree/dir/link &&"
    .. "ln -s one tree/soft && head -c 3000000 /dev/urandom > tree/big && touch tree/skip.bak &&"
    .. "mkfifo tree/fifo")
end

function TestArchive:tearDown()
  local dir = self.dir
  self.dir = "/"
  sh(self, "rm -rf " .. dir)
end

local function store(self, options, name)
  local made = assert(archive.create(options))
  local out <close> = assert(file.open(self.dir .. "/" .. name, "x"))
  assert(assert(made:stream()):to_file(out))
  return made
end

local function misuse(message, fn, ...)
  local ok, err = pcall(fn, ...)
  lu.assertFalse(ok)
  lu.assertStrContains(tostring(err), message)
end

function TestArchive:test_every_level_and_engine_is_a_tar_gz()
  local engines = archive.engines()
  lu.assertNotNil(engines.zlib)
  for engine in pairs(engines) do
    for _, level in ipairs { "fast", "balanced", "none", 6 } do
      local name = engine .. "-" .. level .. ".tar.gz"
      local made = store(self, {
        roots = { { path = self.dir .. "/tree", name = "t" } }, level = level, engine = engine,
        exclude = { "*.bak" },
      }, name)
      sh(self, ("rm -rf x && mkdir x && tar -C x -xzf %s && gzip -t %s"):format(name, name))
      lu.assertEquals(sh(self, "diff -r --no-dereference -x skip.bak -x fifo tree x/t"), "")
      local result = made:result()
      lu.assertEquals(result.files, 3)
      lu.assertEquals(result.directories, 2)
      lu.assertEquals(result.links, 2)
      lu.assertEquals(result.others, 1)
      lu.assertEquals(result.bytes, 3000008)
      lu.assertEquals(result.warning_count, 0)
      lu.assertEquals(result.unreadable, 0)
      lu.assertEquals(result.warnings, {})
      lu.assertTrue(result.members >= 4)
      local progress = made:progress()
      lu.assertEquals(progress.bytes, 3000008)
      lu.assertEquals(progress.files, 8)
      made:close()
    end
  end
end

function TestArchive:test_there_and_back()
  local made = assert(archive.create { roots = { self.dir .. "/tree" } })
  local job = assert(archive.extract(made:stream(), { into = self.dir .. "/x" }))
  local result = assert(job:wait())
  lu.assertEquals({ result.files, result.directories, result.links, result.others }, { 4, 2, 2, 1 })
  lu.assertEquals(result.bytes, 3000008)
  lu.assertEquals(job:progress(), { bytes = 3000008, files = 9 })
  lu.assertEquals(job:wait().files, 4) -- asked again
  lu.assertEquals(sh(self, "diff -r --no-dereference -x fifo tree x$PWD/tree && test -p x$PWD/tree/fifo"), "")
end

function TestArchive:test_plain_tar_and_errors_of_extraction()
  sh(self, "tar -cf a.tar tree")
  local job = assert(archive.extract(stream.file(self.dir .. "/a.tar"), { into = self.dir .. "/x" }))
  lu.assertEquals(assert(job:wait()).files, 4)
  job = assert(archive.extract(stream.file(self.dir .. "/a.tar"), { into = self.dir .. "/x" }))
  local result, err = job:wait()
  lu.assertNil(result)
  lu.assertEquals(err.kind, "conflict")
  lu.assertStrContains(err.message, "exists in the target")
  job = assert(archive.extract(stream.of("not a tar"), { into = self.dir .. "/y" }))
  result, err = job:wait()
  lu.assertNil(result)
  lu.assertEquals(err.kind, "corrupt")
  job, err = archive.extract(stream.of("x"), { into = self.dir .. "/a.tar" })
  lu.assertNil(job)
  lu.assertStrContains(err.message, "a.tar can't be opened: not a directory")
end

function TestArchive:test_estimate()
  local found = assert(archive.estimate { roots = { self.dir .. "/tree" }, exclude = { "dir" } })
  lu.assertEquals(found, { files = 3, bytes = 3000004 })
end

-- A file whose size is not what there is to read.
function TestArchive:test_whole()
  local path = "/sys/kernel/uevent_seqnum"
  local made = assert(archive.create { roots = { self.dir .. "/tree", path } })
  assert(assert(made:stream()):read_all(1 << 24))
  local warning = made:result().warnings[1]
  lu.assertEquals({ warning.kind, warning.path }, { "changed", path })
  for _, roots in ipairs { { path, self.dir .. "/tree" }, { self.dir .. "/tree", path } } do
    made = assert(archive.create { roots = roots, whole = true })
    local text, err = assert(made:stream()):read_all(1 << 24)
    lu.assertNil(text)
    lu.assertEquals(err.kind, "io")
    lu.assertStrContains(err.message, path .. ": " .. warning.message)
  end
  made = assert(archive.create { roots = { self.dir .. "/tree" }, whole = true })
  assert(assert(made:stream()):read_all(1 << 24))
end

function TestArchive:test_misuse()
  local root = self.dir .. "/tree"
  misuse("'roots' must name at least one path", archive.create, {})
  misuse("unknown option 'root'", archive.create, { root = root })
  misuse("a root must be a string, got number", archive.create, { roots = { 1 } })
  misuse("unknown option 'as'", archive.create, { roots = { { path = root, as = "x" } } })
  misuse("an exclude pattern has a NUL byte", archive.create, { roots = { root }, exclude = { "a\0b" } })
  misuse("'exclude' must be a list, got string", archive.create, { roots = { root }, exclude = "x" })
  misuse("'into' must be a string, got nil", archive.extract, stream.of(""), {})
  local options = { into = root, owner = "me" }
  misuse("'owner' must be auto, keep or none, got me", archive.extract, stream.of(""), options)
  local made = assert(archive.create { roots = { root } })
  -- Before its stream is taken: behind it the archive is read ahead, and a small one soon complete.
  local result, err = made:result()
  lu.assertNil(result)
  lu.assertStrContains(err.message, "the archive is not complete")
  local taken <close> = made:stream()
  misuse("the archive's stream was taken already", made.stream, made)
  taken:close()
  made:close()
  misuse("the archive is closed", made.progress, made)
  made, err = archive.create { roots = { "/nonexistent/x" } }
  lu.assertNil(made)
  lu.assertEquals(err.kind, "not_found")
  lu.assertEquals(err.message, "/nonexistent/x can't be archived: no such file or directory")
end

function TestArchive:test_cancelled_while_it_waits()
  local made = assert(archive.create { roots = { self.dir .. "/tree" } })
  local slow = assert(assert(made:stream()):limit(1000))
  local job = assert(archive.extract(slow, { into = self.dir .. "/x" }))
  local waiter = task.spawn(function()
    return job:wait()
  end)
  task.sleep(0.05)
  task.cancel(waiter, "enough")
  local ok, err = task.join(waiter)
  lu.assertFalse(ok)
  lu.assertEquals(err.kind, "cancelled")
end

function TestArchive:test_closing_tells_the_one_who_waits()
  local made = assert(archive.create { roots = { self.dir .. "/tree" } })
  local slow = assert(assert(made:stream()):limit(1000))
  local job = assert(archive.extract(slow, { into = self.dir .. "/x" }))
  local waiter = task.spawn(function()
    return job:wait()
  end)
  task.sleep(0.05)
  job:close()
  local ok, result, err = task.join(waiter)
  lu.assertTrue(ok)
  lu.assertNil(result)
  lu.assertEquals(err.kind, "cancelled")
end

-- Dropped handles end what they began; the runner looks for what is left.
function TestArchive:test_dropped()
  for _ = 1, 3 do
    local made = assert(archive.create { roots = { self.dir .. "/tree" } })
    assert(archive.extract(assert(made:stream()), { into = self.dir .. "/x" .. sys.monotonic() }))
    made = assert(archive.create { roots = { self.dir .. "/tree" } })
    made:stream()
  end
  collectgarbage()
  collectgarbage()
end

return { TestArchive = TestArchive }
