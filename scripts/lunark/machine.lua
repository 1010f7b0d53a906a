-- SPDX-License-Identifier: MIT
-- What this machine has and can reach: memory, kind of a file system, whether an address answers.
-- For checks before and after a program runs. Needs luaposix, and net for an address.

local errno = require "posix.errno"
local fcntl = require "posix.fcntl"
local fs = require "lunark.fs"
local poll = require "posix.poll"
local pwd = require "posix.pwd"
local socket = require "posix.sys.socket"
local sys = require "lunark.core.sys"
local task = require "lunark.task"
local unistd = require "posix.unistd"

local machine = {}

local EINPROGRESS = errno.EINPROGRESS
local LOOK_EVERY = 0.02

local function content(path)
  local file <close> = io.open(path)
  return file and file:read("a")
end

--- The memory that there is for this process and its children: the limit of the control group, or else what
--- the machine has.
---@return integer|nil bytes
function machine.memory()
  local kib = (content("/proc/meminfo") or ""):match("MemTotal:%s+(%d+) kB")
  local installed = kib and math.tointeger(kib) * 1024
  local limit = sys.memory_limit()
  return limit and installed and math.min(limit, installed) or limit or installed
end

-- What /proc/self/mounts writes for blanks and backslashes.
local function unescape(text)
  return (text:gsub("\\(%d%d%d)", function(octal) return string.char(tonumber(octal, 8)) end))
end

--- The numbers of a user and of its group.
---@param name string
---@return integer|nil uid
---@return integer|nil gid
function machine.user(name)
  local entry = pwd.getpwnam(name)
  if entry then
    return entry.pw_uid, entry.pw_gid
  end
  return nil
end

--- Whether another process holds a lock on a file. Needs read for it.
---@param path string
---@return boolean
function machine.is_locked(path)
  if not fs.exists(path) then
    return false
  end
  local fd = fcntl.open(path, fcntl.O_RDONLY | fcntl.O_CLOEXEC)
  if not fd then
    return false
  end
  local wish = { l_type = fcntl.F_WRLCK, l_whence = unistd.SEEK_SET, l_start = 0, l_len = 0 }
  local asked = fcntl.fcntl(fd, fcntl.F_GETLK, wish)
  unistd.close(fd)
  return asked ~= nil and wish.l_type ~= fcntl.F_UNLCK
end

--- The type of the file system that holds a path: ext4, nfs4, tmpfs ...
---@param path string absolute, without links
---@param mounts string|nil text of /proc/self/mounts, default that of this process
---@return string|nil
function machine.filesystem(path, mounts)
  local best, kind = -1, nil
  for line in (mounts or content("/proc/self/mounts") or ""):gmatch("[^\n]+") do
    local place, found = line:match("^%S+ (%S+) (%S+)")
    place = place and unescape(place)
    local below = place == "/" or place == path or (place and path:sub(1, #place + 1) == place .. "/")
    if below and #place >= best then -- of several on one place, the last counts
      best, kind = #place, found
    end
  end
  return kind
end

-- Waits until a socket that connects has done so. true, or nil and why not.
local function connected(fd, seconds)
  local deadline = sys.monotonic() + seconds
  while sys.monotonic() < deadline do
    local ready = poll.poll({ [fd] = { events = { OUT = true } } }, 0)
    if ready and ready > 0 then
      local code = socket.getsockopt(fd, socket.SOL_SOCKET, socket.SO_ERROR)
      if code == 0 then
        return true
      end
      return nil, errno.errno(code):lower()
    end
    task.sleep(LOOK_EVERY)
  end
  return nil, ("no answer within %g s"):format(seconds)
end

local function try(place, seconds)
  local fd, why = socket.socket(place.family, socket.SOCK_STREAM, 0)
  if not fd then
    return nil, why
  end
  local _ <close> = setmetatable({}, { __close = function() unistd.close(fd) end })
  fcntl.fcntl(fd, fcntl.F_SETFD, fcntl.FD_CLOEXEC)
  fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.O_NONBLOCK)
  local done, message, code = socket.connect(fd, place)
  if done == 0 then
    return true
  elseif code ~= EINPROGRESS then
    return nil, (errno.errno(code) or message):lower()
  end
  return connected(fd, seconds)
end

--- Whether something accepts connections there. Looking up the name blocks; the connection parks. Needs net
--- for the host.
---@param host string name or address, IPv6 without brackets
---@param port integer
---@param seconds number to wait for each address of the host
---@return boolean|nil
---@return string|nil why not, as the system says it
function machine.answers(host, port, seconds)
  local ok, err = sys.check("net", host)
  if not ok then
    error(err)
  end
  local places, why = socket.getaddrinfo(host, tostring(port), { socktype = socket.SOCK_STREAM })
  if not places or #places == 0 then
    return nil, (why or "the name is not known"):lower()
  end
  for _, place in ipairs(places) do
    ok, why = try(place, seconds)
    if ok then
      return true
    end
  end
  return nil, why
end

return machine
