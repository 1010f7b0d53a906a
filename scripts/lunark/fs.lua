-- SPDX-License-Identifier: MIT
--- Names in the file system: stat, directories, rename, links. What is in files is
--- lunark.core.file's business. Needs luaposix, and the read or write capability for each path that
--- is touched: it is checked before the call.

local dirent = require "posix.dirent"
local errno = require "posix.errno"
local fcntl = require "posix.fcntl"
local stat = require "posix.sys.stat"
local statvfs = require "posix.sys.statvfs"
local stdio = require "posix.stdio"
local stdlib = require "posix.stdlib"
local sys = require "lunark.core.sys"
local unistd = require "posix.unistd"

local fs = {}

local EDQUOT = 122 -- luaposix has no name for it

local KINDS = {
  [errno.ENOENT] = "not_found", [errno.ENOTDIR] = "not_found", [errno.EACCES] = "denied",
  [errno.EPERM] = "denied", [errno.EROFS] = "denied", [errno.EEXIST] = "conflict",
  [errno.ENOTEMPTY] = "conflict", [errno.ENOMEM] = "memory",
}
local HINTS = {
  [errno.ENOSPC] = "make room on that file system",
  [EDQUOT] = "the quota of this user is used up",
  [errno.EROFS] = "the file system is mounted read-only",
}

-- What the system says as an error; luaposix puts the path or its own function's name before it.
local function failure(op, path, message, code)
  local reason = code and errno.errno(code) or tostring(message or "unknown error")
  return nil, sys.error {
    kind = KINDS[code] or "io", op = "fs." .. op, code = code,
    message = ("%s: %s"):format(path, reason:sub(1, 1):lower() .. reason:sub(2)), hint = HINTS[code],
  }
end

local function check(kind, path, op)
  if type(path) ~= "string" or path == "" then
    error(sys.error { kind = "usage", op = "fs." .. op, message = "fs." .. op .. ": a path is expected" }, 0)
  end
  if path:find("\0", 1, true) then
    local message = "a path can't hold a byte of value 0"
    return nil, sys.error { kind = "usage", op = "fs." .. op, message = message }
  end
  return sys.check(kind, fs.absolute(path))
end

--- The path with the current directory before it when it is relative. Nothing is resolved.
---@param path string
---@return string
function fs.absolute(path)
  if path:sub(1, 1) == "/" then return path end
  local here = unistd.getcwd() or "/"
  return (here == "/" and "" or here) .. "/" .. path
end

-- As check, for a call that is about a symbolic link itself, wherever that leads: what counts is the
-- directory that it is in. A link that was granted by its own path can be looked at, too.
local function check_name(kind, path, op)
  local info = type(path) == "string" and not path:find("\0", 1, true) and stat.lstat(path)
  if not info or stat.S_ISLNK(info.st_mode) == 0 then return check(kind, path, op) end
  local ok, err = check(kind, fs.dirname(fs.absolute(path)), op)
  if not ok and kind == "read" then return check(kind, path, op) end
  return ok, err
end

--- Joins components with one `/` between them.
---@return string
function fs.join(...)
  local out = select(1, ...)
  for index = 2, select("#", ...) do
    local part = select(index, ...)
    if out:sub(-1) ~= "/" and out ~= "" then out = out .. "/" end
    out = out .. part:gsub("^/+", "")
  end
  return out
end

--- The last component; "/" for the root.
---@param path string
---@return string
function fs.basename(path)
  local trimmed = path:gsub("/+$", "")
  return trimmed == "" and path:sub(1, 1) or trimmed:match("([^/]+)$")
end

--- What is before the last component; "." when there is nothing.
---@param path string
---@return string
function fs.dirname(path)
  local trimmed = path:gsub("/+$", "")
  local parent = trimmed:match("^(.*)/[^/]*$")
  if not parent then return trimmed == "" and "/" or "." end
  parent = parent:gsub("/+$", "")
  return parent == "" and "/" or parent
end

local TYPES = {
  { stat.S_ISREG, "file" }, { stat.S_ISDIR, "directory" }, { stat.S_ISLNK, "link" },
  { stat.S_ISFIFO, "fifo" }, { stat.S_ISSOCK, "socket" }, { stat.S_ISCHR, "character device" },
  { stat.S_ISBLK, "block device" },
}

local function type_of(mode)
  for _, entry in ipairs(TYPES) do
    if entry[1](mode) ~= 0 then return entry[2] end
  end
  return "unknown"
end

local function stat_with(call, op, path, allowed)
  local ok, err = allowed("read", path, op)
  if not ok then return nil, err end
  local info, message, code = call(path)
  if not info then return failure(op, path, message, code) end
  return {
    type = type_of(info.st_mode), size = info.st_size, mtime = info.st_mtime, mode = info.st_mode & 4095,
    uid = info.st_uid, gid = info.st_gid, ino = info.st_ino, dev = info.st_dev, nlink = info.st_nlink,
  }
end

---@class lunark.fs.Stat
---@field type string file, directory, link, fifo, socket, "character device", "block device"
---@field size integer bytes
---@field mtime integer seconds since 1970
---@field mode integer permission bits
---@field uid integer
---@field gid integer
---@field ino integer
---@field dev integer
---@field nlink integer

--- What a path stands for, links followed.
---@param path string
---@return lunark.fs.Stat?
---@return table? err
function fs.stat(path) return stat_with(stat.stat, "stat", path, check) end

--- As stat, for a link itself.
---@param path string
---@return lunark.fs.Stat?
---@return table? err
function fs.lstat(path) return stat_with(stat.lstat, "lstat", path, check_name) end

--- True when something is there, links followed.
---@param path string
---@return boolean
function fs.exists(path) return fs.stat(path) ~= nil end

--- True for a directory, links followed.
---@param path string
---@return boolean
function fs.is_dir(path)
  local info = fs.stat(path)
  return info ~= nil and info.type == "directory"
end

--- The names in a directory, sorted bytewise, without `.` and `..`.
---@param path string
---@return string[]?
---@return table? err
function fs.readdir(path)
  local ok, err = check("read", path, "readdir")
  if not ok then return nil, err end
  -- luaposix raises where opendir fails.
  local good, names, message, code = pcall(dirent.dir, path)
  if not good or type(names) ~= "table" then
    local info, why = fs.stat(path)
    if not info then return nil, why end
    if info.type ~= "directory" then return failure("readdir", path, "not a directory", errno.ENOTDIR) end
    if not unistd.access(path, "r") then
      return failure("readdir", path, "permission denied", errno.EACCES)
    end
    return failure("readdir", path, good and message or names, code)
  end
  local kept = {}
  for _, name in ipairs(names) do
    if name ~= "." and name ~= ".." then kept[#kept + 1] = name end
  end
  table.sort(kept)
  return kept
end

local function change_with(allowed, op, path, call, ...)
  local ok, err = allowed("write", path, op)
  if not ok then return nil, err end
  local done, message, code = call(path, ...)
  if not done then return failure(op, path, message, code) end
  return true
end

-- A call on one path that changes something.
local function change(op, path, call, ...) return change_with(check, op, path, call, ...) end

--- Makes one directory.
---@param path string
---@param mode integer? 0777 by default, as the umask allows
---@return true?
---@return table? err
function fs.mkdir(path, mode) return change("mkdir", path, stat.mkdir, mode or tonumber("777", 8)) end

--- Makes a directory and what is missing above it. One that is there is fine.
---@param path string
---@param mode integer?
---@return true?
---@return table? err
---@return string[]? made the directories that were not there before
function fs.mkdir_all(path, mode)
  path = fs.absolute(path)
  local missing, at = {}, path
  while true do
    local info, message, code = stat.stat(at)
    if info then
      if stat.S_ISDIR(info.st_mode) == 0 then
        return failure("mkdir_all", at, "not a directory", errno.ENOTDIR)
      end
      break
    end
    if code ~= errno.ENOENT then return failure("mkdir_all", at, message, code) end
    table.insert(missing, 1, at)
    if at == "/" then break end
    at = fs.dirname(at)
  end
  for _, directory in ipairs(missing) do
    local ok, err = fs.mkdir(directory, mode)
    if not ok and err.code ~= errno.EEXIST then return nil, err end
  end
  return true, nil, missing
end

--- Makes a directory that was granted by its own path, and what is missing above it: the write capability is
--- asked for the directory alone. What was made is still there after a crash.
---@param path string
---@return true?
---@return table? err
function fs.mkdir_granted(path)
  local ok, err = check("write", path, "mkdir_granted")
  if not ok then return nil, err end
  local missing, at = {}, fs.absolute(path)
  while not stat.stat(at) and at ~= "/" do
    table.insert(missing, 1, at)
    at = fs.dirname(at)
  end
  local there = stat.stat(at)
  if there and stat.S_ISDIR(there.st_mode) == 0 then
    return failure("mkdir_granted", at, "not a directory", errno.ENOTDIR)
  end
  for _, directory in ipairs(missing) do
    local done, message, code = stat.mkdir(directory, tonumber("777", 8))
    if not done and code ~= errno.EEXIST then return failure("mkdir_granted", directory, message, code) end
    local parent = fcntl.open(fs.dirname(directory), fcntl.O_RDONLY | fcntl.O_CLOEXEC)
    if parent then
      unistd.fsync(parent)
      unistd.close(parent)
    end
  end
  return true
end

--- Removes a name that is no directory.
---@param path string
---@return true?
---@return table? err
function fs.unlink(path) return change_with(check_name, "unlink", path, unistd.unlink) end

--- Removes an empty directory.
---@param path string
---@return true?
---@return table? err
function fs.rmdir(path) return change("rmdir", path, unistd.rmdir) end

--- Sets permission bits.
---@param path string
---@param mode integer
---@return true?
---@return table? err
function fs.chmod(path, mode) return change("chmod", path, stat.chmod, mode) end

--- Gives a path and all that is below it to a user and a group. Links are not followed.
---@param path string
---@param uid integer
---@param gid integer
---@return true?
---@return table? err
function fs.chown_all(path, uid, gid)
  local info, err = fs.lstat(path)
  if not info then return nil, err end
  if info.type == "link" then return true end
  local ok
  ok, err = change("chown", path, unistd.chown, uid, gid)
  if not ok or info.type ~= "directory" then return ok, err end
  local names
  names, err = fs.readdir(path)
  if not names then return nil, err end
  for _, name in ipairs(names) do
    ok, err = fs.chown_all(path .. "/" .. name, uid, gid)
    if not ok then return nil, err end
  end
  return true
end

--- Renames; what was at `to` is replaced in one step.
---@param from string
---@param to string
---@return true?
---@return table? err
function fs.rename(from, to)
  local ok, err = check_name("write", from, "rename")
  if not ok then return nil, err end
  return change_with(check_name, "rename", to, function(path) return stdio.rename(from, path) end)
end

--- Makes a hard link. Fails with conflict when `to` is there.
---@param from string
---@param to string
---@return true?
---@return table? err
function fs.link(from, to)
  local ok, err = check("write", from, "link")
  if not ok then return nil, err end
  return change("link", to, function(path) return unistd.link(from, path, false) end)
end

--- Makes a symbolic link at `path` that holds `target`.
---@param target string
---@param path string
---@return true?
---@return table? err
function fs.symlink(target, path)
  return change("symlink", path, function(at) return unistd.link(target, at, true) end)
end

--- What a symbolic link holds.
---@param path string
---@return string?
---@return table? err
function fs.readlink(path)
  local ok, err = check_name("read", path, "readlink")
  if not ok then return nil, err end
  local target, message, code = unistd.readlink(path)
  if not target then return failure("readlink", path, message, code) end
  return target
end

--- The absolute path with all links resolved.
---@param path string
---@return string?
---@return table? err
function fs.realpath(path)
  local ok, err = check("read", path, "realpath")
  if not ok then return nil, err end
  local real, message, code = stdlib.realpath(path)
  if not real then return failure("realpath", path, message, code) end
  return real
end

--- True when this user may do it: any of "r", "w", "x".
---@param path string
---@param mode string
---@return boolean
function fs.access(path, mode)
  return check("read", path, "access") ~= nil and unistd.access(path, mode) == 0
end

--- Bytes that this user can still write on a path's file system.
---@param path string
---@return integer?
---@return table? err
function fs.free(path)
  local ok, err = check("read", path, "free")
  if not ok then return nil, err end
  local info, message, code = statvfs.statvfs(path)
  if not info then return failure("free", path, message, code) end
  return info.f_bavail * (info.f_frsize or info.f_bsize)
end

-- Depth first, links never followed.
local function remove(path)
  local info, err = fs.lstat(path)
  if not info then
    if err.code == errno.ENOENT then return true end
    return nil, err
  end
  if info.type ~= "directory" then return fs.unlink(path) end
  local names
  names, err = fs.readdir(path)
  if not names then return nil, err end
  for _, name in ipairs(names) do
    local ok
    ok, err = remove(path .. "/" .. name)
    if not ok then return nil, err end
  end
  return fs.rmdir(path)
end

--- Removes a file, or a directory with all that is in it. What is not there is fine; links are not
--- followed.
---@param path string
---@return true?
---@return table? err
function fs.remove_all(path)
  if fs.absolute(path):gsub("/+", "/") == "/" then
    error(sys.error { kind = "usage", op = "fs.remove_all", message = "fs.remove_all: '/' is refused" }, 0)
  end
  local ok, err = check_name("write", path, "remove_all")
  if not ok then return nil, err end
  return remove(path)
end

--- Makes a fresh directory that only this user can enter: `<base>/<name>-XXXXXX`.
---@param base string
---@param name string?
---@return string? path
---@return table? err
function fs.tmpdir(base, name)
  local template = fs.join(fs.absolute(base), (name or "lunark") .. "-XXXXXX")
  local ok, err = check("write", template, "tmpdir")
  if not ok then return nil, err end
  local path, message, code = stdlib.mkdtemp(template)
  if not path then return failure("tmpdir", template, message, code) end
  return path
end

local function read_descriptor(fd, path, max)
  local pieces, total = {}, 0
  while true do
    local piece, message, code = unistd.read(fd, 65536)
    if not piece then
      if code ~= errno.EINTR then return failure("read_text", path, message, code) end
    elseif piece == "" then
      return table.concat(pieces)
    else
      total = total + #piece
      if total > max then
        return nil, sys.error {
          kind = "memory", op = "fs.read_text", message = ("%s is longer than %d bytes"):format(path, max),
        }
      end
      pieces[#pieces + 1] = piece
    end
  end
end

--- The content of a small file (configuration, a secret), read at once.
---@param path string
---@param max integer? bytes, 1 MiB; longer is an error of kind memory
---@return string?
---@return table? err
function fs.read_text(path, max)
  local ok, err = check("read", path, "read_text")
  if not ok then return nil, err end
  local fd, message, code = fcntl.open(path, fcntl.O_RDONLY | fcntl.O_CLOEXEC)
  if not fd then return failure("read_text", path, message, code) end
  local text
  text, err = read_descriptor(fd, path, max or 1024 * 1024)
  unistd.close(fd)
  return text, err
end

local function write_descriptor(fd, path, text)
  local at = 1
  while at <= #text do
    local written, message, code = unistd.write(fd, text:sub(at, at + 65535))
    if written then
      at = at + written
    elseif code ~= errno.EINTR then
      return failure("write_text", path, message, code)
    end
  end
  if unistd.fsync(fd) ~= 0 then return failure("write_text", path, "fsync failed", errno.EIO) end
  return true
end

--- Writes a small file: to `temporary` beside it, to the disk, then renamed over `path`.
---@param path string
---@param text string
---@param mode integer? 0666 by default, as the umask allows
---@param temporary string? name of the file it is written to first, in the same directory
---@return true?
---@return table? err
function fs.write_text(path, text, mode, temporary)
  temporary = temporary or ("%s.%d.tmp"):format(path, sys.pid())
  local ok, err = check("write", path, "write_text")
  if ok then ok, err = check("write", temporary, "write_text") end
  if not ok then return nil, err end
  local flags = fcntl.O_WRONLY | fcntl.O_CREAT | fcntl.O_TRUNC | fcntl.O_CLOEXEC
  local fd, message, code = fcntl.open(temporary, flags, mode or tonumber("666", 8))
  if not fd then return failure("write_text", temporary, message, code) end
  ok, err = write_descriptor(fd, temporary, text)
  unistd.close(fd)
  if ok then ok, err = fs.rename(temporary, path) end
  if not ok then
    unistd.unlink(temporary)
    return nil, err
  end
  return true
end

return fs
