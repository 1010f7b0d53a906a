-- SPDX-License-Identifier: MIT
-- lunark.fs in a directory of its own.
local lu = require "luaunit"
local fs = require "lunark.fs"
local unistd = require "posix.unistd"

local TestFs = {}
local dir

function TestFs.setUp() dir = assert(fs.tmpdir("/tmp", "lunark-fs")) end

function TestFs.tearDown()
  assert(fs.remove_all(dir))
  lu.assertFalse(fs.exists(dir))
end

function TestFs.test_names()
  lu.assertEquals(fs.join("/a", "b", "c"), "/a/b/c")
  lu.assertEquals(fs.join("/a/", "/b"), "/a/b")
  lu.assertEquals(fs.join("a"), "a")
  for path, expected in pairs {
    ["/a/b"] = { "/a", "b" }, ["/a/b/"] = { "/a", "b" }, ["/a"] = { "/", "a" }, ["/"] = { "/", "/" },
    ["a"] = { ".", "a" }, ["a//b"] = { "a", "b" },
  } do
    lu.assertEquals({ fs.dirname(path), fs.basename(path) }, expected, path)
  end
  lu.assertEquals(fs.absolute "/x", "/x")
  lu.assertEquals(fs.absolute "x", unistd.getcwd() .. "/x")
end

function TestFs.test_write_read_stat()
  local path = dir .. "/file"
  assert(fs.write_text(path, "hello\0world", tonumber("640", 8)))
  lu.assertEquals(fs.read_text(path), "hello\0world")
  local info = assert(fs.stat(path))
  lu.assertEquals(info.type, "file")
  lu.assertEquals(info.size, 11)
  lu.assertEquals(info.nlink, 1)
  lu.assertEquals(info.uid, unistd.geteuid())
  assert(fs.chmod(path, tonumber("600", 8)))
  lu.assertEquals(fs.stat(path).mode, tonumber("600", 8))
  lu.assertEquals(fs.readdir(dir), { "file" })
  assert(fs.write_text(path, ""))
  lu.assertEquals(fs.read_text(path), "")
end

function TestFs.test_read_text_is_bounded()
  assert(fs.write_text(dir .. "/big", ("x"):rep(1001)))
  local text, err = fs.read_text(dir .. "/big", 1000)
  lu.assertNil(text)
  lu.assertEquals(err.kind, "memory")
  lu.assertEquals(err.message, dir .. "/big is longer than 1000 bytes")
end

function TestFs.test_directories()
  local ok, err, made = fs.mkdir_all(dir .. "/a/b/c")
  lu.assertTrue(ok, err)
  lu.assertEquals(made, { dir .. "/a", dir .. "/a/b", dir .. "/a/b/c" })
  ok, err, made = fs.mkdir_all(dir .. "/a/b/c")
  lu.assertTrue(ok, err)
  lu.assertEquals(made, {})
  assert(fs.write_text(dir .. "/a/file", "x"))
  ok, err = fs.mkdir_all(dir .. "/a/file/x")
  lu.assertNil(ok)
  lu.assertEquals(err.message, dir .. "/a/file/x: not a directory")
  lu.assertEquals(fs.readdir(dir .. "/a"), { "b", "file" })
  ok, err = fs.rmdir(dir .. "/a")
  lu.assertNil(ok)
  lu.assertEquals(err.kind, "conflict")
  assert(fs.rmdir(dir .. "/a/b/c"))
  lu.assertTrue(fs.is_dir(dir .. "/a/b"))
  lu.assertFalse(fs.is_dir(dir .. "/a/file"))
end

function TestFs.test_links()
  assert(fs.write_text(dir .. "/one", "1"))
  assert(fs.link(dir .. "/one", dir .. "/two"))
  lu.assertEquals(fs.stat(dir .. "/one").nlink, 2)
  local ok, err = fs.link(dir .. "/one", dir .. "/two")
  lu.assertNil(ok)
  lu.assertEquals(err.kind, "conflict")
  assert(fs.symlink("one", dir .. "/link"))
  lu.assertEquals(fs.readlink(dir .. "/link"), "one")
  lu.assertEquals(fs.lstat(dir .. "/link").type, "link")
  lu.assertEquals(fs.stat(dir .. "/link").type, "file")
  lu.assertEquals(fs.realpath(dir .. "/link"), fs.realpath(dir) .. "/one")
end

function TestFs.test_rename_replaces()
  assert(fs.write_text(dir .. "/a", "new"))
  assert(fs.write_text(dir .. "/b", "old"))
  assert(fs.rename(dir .. "/a", dir .. "/b"))
  lu.assertEquals(fs.read_text(dir .. "/b"), "new")
  lu.assertEquals(fs.readdir(dir), { "b" })
end

function TestFs.test_remove_all_does_not_follow_links()
  assert(fs.mkdir_all(dir .. "/keep"))
  assert(fs.write_text(dir .. "/keep/file", "x"))
  assert(fs.mkdir_all(dir .. "/gone/deep"))
  assert(fs.write_text(dir .. "/gone/deep/file", "x"))
  assert(fs.symlink("../keep", dir .. "/gone/link"))
  assert(fs.symlink("nowhere", dir .. "/gone/dangling"))
  assert(fs.remove_all(dir .. "/gone"))
  lu.assertEquals(fs.readdir(dir), { "keep" })
  lu.assertEquals(fs.readdir(dir .. "/keep"), { "file" })
  lu.assertTrue(fs.remove_all(dir .. "/was/never/there"))
  for _, root in ipairs { "/", "//" } do
    local ok, err = pcall(fs.remove_all, root)
    lu.assertFalse(ok)
    lu.assertStrContains(err.message, "refused")
  end
end

function TestFs.test_what_is_not_there()
  local path = dir .. "/missing"
  for _, name in ipairs {
    "stat", "lstat", "readdir", "unlink", "rmdir", "readlink", "realpath", "read_text",
  } do
    local found, err = fs[name](path)
    lu.assertNil(found, name)
    lu.assertEquals(err.kind, "not_found", name)
    lu.assertEquals(err.message, path .. ": no such file or directory", name)
    lu.assertEquals(err.code, 2, name)
  end
  local found, err = fs.readdir(dir .. "/missing/x")
  lu.assertNil(found)
  lu.assertEquals(err.kind, "not_found")
end

function TestFs.test_misuse()
  for _, value in ipairs { 1, true, "" } do
    local ok, err = pcall(fs.stat, value)
    lu.assertFalse(ok)
    lu.assertEquals(err.kind, "usage")
  end
  local found, err = fs.stat("a\0b")
  lu.assertNil(found)
  lu.assertEquals(err.kind, "usage")
end

function TestFs.test_free_and_access()
  lu.assertTrue(fs.free(dir) > 0)
  lu.assertTrue(fs.access(dir, "rwx"))
  lu.assertFalse(fs.access(dir .. "/missing", "r"))
end

return { TestFs = TestFs }
