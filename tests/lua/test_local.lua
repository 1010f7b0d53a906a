-- SPDX-License-Identifier: MIT
-- providers/local.lua: what only a directory has. The rest is tests/provider/conformance.lua.
local lu = require "luaunit"
local exec = require "lunark.exec"
local fs = require "lunark.fs"
local json = require "lunark.json"
local store = require "lunark.store"

local TestLocal = {}
local dir, s

function TestLocal.setUp()
  dir = assert(fs.tmpdir("/tmp", "lunark-local"))
  s = assert(store.open(dir .. "/store"))
  assert(s:check("write"))
end

function TestLocal.tearDown() assert(fs.remove_all(dir)) end

local function keys()
  local list = {}
  for info, err in s:list() do list[#list + 1] = assert(info, err).key end
  return list
end

function TestLocal.test_objects_are_plain_files()
  assert(s:put("item/item-1.tar.gz", "the bytes"))
  lu.assertEquals(fs.read_text(dir .. "/store/item/item-1.tar.gz"), "the bytes")
  lu.assertEquals(fs.readdir(dir .. "/store/item"), { "item-1.tar.gz" })
end

function TestLocal.test_files_of_others_are_objects()
  assert(fs.mkdir_all(dir .. "/store/other"))
  assert(fs.write_text(dir .. "/store/other/x.tar.gz", "foreign"))
  lu.assertEquals(keys(), { "other/x.tar.gz" })
  lu.assertEquals(assert(s:head("other/x.tar.gz")).meta, {})
end

function TestLocal.test_a_copy_shares_the_bytes()
  assert(s:put("a/dated", "bytes"))
  assert(s:copy("a/dated", "a/latest", { of = "a/dated" }))
  lu.assertEquals(fs.stat(dir .. "/store/a/dated").ino, fs.stat(dir .. "/store/a/latest").ino)
  lu.assertEquals(fs.readdir(dir .. "/store/a"), { ".latest.lunark", "dated", "latest" })
end

function TestLocal.test_metadata_survives_a_copy_of_the_store()
  assert(s:put("a/x", "bytes", { mark = "1" }))
  assert(exec.run { "cp", "-a", dir .. "/store", dir .. "/moved" })
  local moved = assert(store.open(dir .. "/moved"))
  lu.assertEquals(assert(moved:head("a/x")).meta, { mark = "1" })
end

function TestLocal.test_metadata_of_another_object_does_not_count()
  assert(s:put("a/x", "bytes", { mark = "1" }))
  assert(fs.write_text(dir .. "/store/a/x", "written by somebody else"))
  lu.assertEquals(assert(s:head("a/x")).meta, {})
  assert(fs.write_text(dir .. "/store/a/.x.lunark", "no json"))
  lu.assertEquals(assert(s:head("a/x")).meta, {})
end

-- Between the record and the rename: the old object has its metadata still.
function TestLocal.test_a_crash_before_the_rename()
  assert(s:put("a/latest", "old", { of = "1" }))
  local path = dir .. "/store/a/.latest.lunark"
  local records = assert(json.decode(fs.read_text(path)))
  table.insert(records.records, 1, { size = 999, mtime = 1, meta = { of = "2" } })
  assert(fs.write_text(path, json.encode(records)))
  lu.assertEquals(assert(s:head("a/latest")).meta, { of = "1" })
end

function TestLocal.test_links_do_not_lead_out()
  assert(fs.mkdir_all(dir .. "/outside"))
  assert(fs.write_text(dir .. "/outside/secret", "secret"))
  assert(fs.symlink("../outside", dir .. "/store/way"))
  assert(fs.symlink("../outside/secret", dir .. "/store/file"))
  for _, call in ipairs { "head", "get" } do
    for _, key in ipairs { "way/secret", "file" } do
      local found, err = s[call](s, key)
      lu.assertNil(found, key)
      lu.assertEquals(err.kind, "denied", key)
    end
  end
  assert(s:put("inside", "x"))
  for what, call in pairs {
    put = function() return s:put("way/new", "x") end, uploader = function() return s:uploader("way/new") end,
    copy = function() return s:copy("inside", "way/new") end, list = function() return s:page("way/") end,
    ["copy from"] = function() return s:copy("way/secret", "new") end,
    delete = function() return s:delete("way/secret") end,
    ["delete the link"] = function() return s:delete("file") end,
  } do
    local info, err = call()
    lu.assertNil(info, what)
    lu.assertEquals(err.kind, "denied", what)
  end
  local _, err = s:put("way/new", "x")
  lu.assertStrContains(err.message, "a link leads out of")
  -- A link in the place of an object is not written through, and is not replaced.
  _, err = s:put("file", "x")
  lu.assertStrContains(err.message, "is a link, no object can take its name")
  lu.assertEquals(fs.read_text(dir .. "/outside/secret"), "secret")
  lu.assertEquals(keys(), { "inside" })
  lu.assertEquals(fs.readdir(dir .. "/outside"), { "secret" })
end

function TestLocal.test_keys_of_any_bytes()
  local all = {}
  for byte = 1, 255 do all[#all + 1] = byte ~= 47 and string.char(byte) or nil end
  local key = "d\xff/" .. table.concat(all)
  assert(s:put(key, "bytes", { mark = "1" }))
  assert(s:copy(key, "copy\n"))
  lu.assertEquals(keys(), { "copy\n", key })
  lu.assertEquals(assert(s:head(key)).meta, { mark = "1" })
  assert(s:delete { key, "copy\n" })
  lu.assertEquals(keys(), {})
end

-- Not where directories would have to be made behind the link first, either.
function TestLocal.test_links_do_not_lead_out_to_what_is_not_there_yet()
  assert(fs.mkdir_all(dir .. "/outside"))
  assert(fs.symlink("../outside", dir .. "/store/way"))
  assert(fs.symlink("../nowhere", dir .. "/store/dangling"))
  assert(fs.symlink("loop", dir .. "/store/loop"))
  assert(fs.symlink("real", dir .. "/store/inner"))
  assert(fs.mkdir_all(dir .. "/store/real"))
  assert(s:put("inside", "x"))
  local out = { "way/sub/new", "way/sub/sub/new", "dangling/new", "dangling/sub/new", "loop/sub/new" }
  for _, key in ipairs(out) do
    for _, call in ipairs { "put", "uploader", "copy" } do
      local info, err = s[call](s, call == "copy" and "inside" or key, call == "copy" and key or "x")
      lu.assertNil(info, key)
      lu.assertEquals(err.kind, "denied", key)
      lu.assertStrContains(err.message, "link")
    end
  end
  lu.assertEquals(fs.readdir(dir .. "/outside"), {})
  lu.assertFalse(fs.exists(dir .. "/nowhere"))
  assert(s:put("inner/sub/new", "links inside are fine"))
  lu.assertEquals(fs.read_text(dir .. "/store/real/sub/new"), "links inside are fine")
end

function TestLocal.test_what_a_killed_run_left()
  local left = dir .. "/store/a/.x.tar.gz.lunark-123-0123456789ab.tmp"
  local fresh = dir .. "/store/a/.y.tar.gz.lunark-123-0123456789ab.tmp"
  assert(fs.mkdir_all(dir .. "/store/a"))
  assert(fs.write_text(left, "half"))
  assert(fs.write_text(fresh, "half"))
  assert(exec.run { "touch", "-d", "2 days ago", left })
  lu.assertEquals(keys(), {})
  assert(s:put("a/new", "x"))
  lu.assertEquals(keys(), { "a/new" })
  lu.assertFalse(fs.exists(left))
  lu.assertTrue(fs.exists(fresh), "another run may be at work")
end

-- A store whose file calls are written down, by what they are done to.
local function watched()
  local file, done = s.inner.file, {}
  local plain = { open = file.open, rename = file.rename, link = file.link, sync_dir = file.sync_dir }
  local function note(...) done[#done + 1] = table.concat({ ... }, " ") end
  local function short(path)
    return (path:sub(#dir + 2):gsub("%.lunark%-.*$", ".tmp"))
  end
  function file.open(path, ...)
    local handle, err = plain.open(path, ...)
    if not handle then return nil, err end
    return {
      pwrite = function(_, ...)
        note("write", short(path))
        return handle:pwrite(...)
      end,
      sync = function()
        note("sync", short(path))
        return handle:sync()
      end,
      size = function() return handle:size() end, close = function() return handle:close() end,
    }
  end
  for _, name in ipairs { "rename", "link" } do
    file[name] = function(from, to)
      note(name, short(from), short(to))
      return plain[name](from, to)
    end
  end
  function file.sync_dir(path)
    note("sync", short(path))
    return plain.sync_dir(path)
  end
  return done
end

function TestLocal.test_what_is_whole_is_on_the_disk_before_it_has_its_name()
  local done = watched()
  assert(s:put("a/b", "bytes", { mark = "1" }))
  lu.assertEquals(done, {
    "write store/a/.b.tmp", "sync store/a/.b.tmp", "write store/a/..b.lunark.tmp",
    "sync store/a/..b.lunark.tmp", "rename store/a/..b.lunark.tmp store/a/.b.lunark",
    "rename store/a/.b.tmp store/a/b", "sync store/a", "sync store",
  })
  assert(s:put("a/c", "new", {}, { exclusive = true }))
  lu.assertEquals(table.move(done, #done - 3, #done, 1, {}), {
    "write store/a/.c.tmp", "sync store/a/.c.tmp", "link store/a/.c.tmp store/a/c", "sync store/a",
  })
  lu.assertNil(s:put("a/c", "taken", {}, { exclusive = true }))
end

function TestLocal.test_no_room()
  local file, said = s.inner.file, nil
  function file.free_bytes() return 3 end
  local info, err = s:put("a/large", "four")
  lu.assertNil(info)
  lu.assertEquals(err.kind, "io")
  lu.assertStrContains(err.message, "3 bytes are free, 4 are needed")
  lu.assertStrContains(err.hint, "make room")
  lu.assertEquals(keys(), {})
  -- What the source is expected to have may well fit when it is compressed.
  s.inner.ctx.log = { warn = function(text) said = text end }
  local _ <close> = assert(s:uploader("a/huge", nil, { expect_size = 1 << 60 }))
  lu.assertStrContains(said, "3 bytes are free, the source is expected to have 1152921504606846976")
end

function TestLocal.test_names_of_its_own_are_refused()
  for _, key in ipairs { ".x.lunark", "a/.x.lunark-1-0af.tmp", "/abs", "a/", "a/./b", ("n"):rep(256) } do
    local info, err = s:put(key, "x")
    lu.assertNil(info, key)
    lu.assertEquals(err.kind, "usage", key)
  end
  assert(s:put(("n"):rep(255), "long", { a = "1" }))
  lu.assertEquals(assert(s:head(("n"):rep(255))).meta, { a = "1" })
end

function TestLocal.test_delete_leaves_no_empty_directories()
  assert(s:put("a/b/c", "x", { m = "1" }))
  assert(s:put("a/d", "x"))
  assert(s:delete("a/b/c"))
  lu.assertEquals(fs.readdir(dir .. "/store/a"), { "d" })
  assert(s:delete("a/d"))
  lu.assertEquals(fs.readdir(dir .. "/store"), {})
end

function TestLocal.test_a_store_that_is_not_there()
  local missing = assert(store.open(dir .. "/missing/deep"))
  for _, err in ipairs { select(2, missing:check("read")), select(2, missing:page("")) } do
    lu.assertEquals(err.kind, "not_found")
    lu.assertEquals(err.message, ("directory %s/missing/deep does not exist"):format(dir))
  end
  lu.assertFalse(fs.exists(dir .. "/missing"))
  assert(fs.write_text(dir .. "/file", "x"))
  local _, err = assert(store.open(dir .. "/file")):check("write")
  lu.assertEquals(err.message, dir .. "/file is a file, a directory expected")
end

function TestLocal.test_a_directory_named_like_an_archive()
  assert(fs.mkdir_all(dir .. "/odd.tar.gz"))
  lu.assertNil(assert(store.open(dir .. "/odd.tar.gz")).key)
  lu.assertEquals(assert(store.open(dir .. "/other.tar.gz")).key, "other.tar.gz")
end

return { TestLocal = TestLocal }
