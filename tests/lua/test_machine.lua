-- SPDX-License-Identifier: MIT
local lu = require "luaunit"
local machine = require "lunark.machine"
local socket = require "posix.sys.socket"
local sys = require "lunark.core.sys"
local unistd = require "posix.unistd"

local TestMachine = {}

local MOUNTS = table.concat({
  "/dev/sda1 / ext4 rw 0 0", "server:/export /backups nfs4 rw 0 0", "tmpfs /backups/local tmpfs rw 0 0",
  "//host/share /mnt/with\\040blank cifs rw 0 0", "/dev/sdb /over ext4 rw 0 0",
  "none /over tmpfs rw 0 0",
}, "\n") .. "\n"

function TestMachine.test_filesystem()
  for path, expected in pairs {
    ["/"] = "ext4", ["/srv/x"] = "ext4", ["/backups"] = "nfs4",
    ["/backups/a/b"] = "nfs4", ["/backups2"] = "ext4",
    ["/backups/local/x"] = "tmpfs", ["/mnt/with blank/x"] = "cifs", ["/over"] = "tmpfs",
  } do
    lu.assertEquals(machine.filesystem(path, MOUNTS), expected, path)
  end
  lu.assertEquals(machine.filesystem("/proc"), "proc")
end

function TestMachine.test_memory()
  lu.assertTrue(machine.memory() > 1 << 20)
  lu.assertTrue(machine.memory() <= (sys.memory_limit() or math.maxinteger))
end

function TestMachine.test_answers()
  local fd = assert(socket.socket(socket.AF_INET, socket.SOCK_STREAM, 0))
  assert(socket.bind(fd, { family = socket.AF_INET, addr = "127.0.0.1", port = 0 }))
  assert(socket.listen(fd, 1))
  local port = socket.getsockname(fd).port
  lu.assertTrue(machine.answers("127.0.0.1", port, 5))
  lu.assertTrue(machine.answers("localhost", port, 5))
  unistd.close(fd)
  local ok, why = machine.answers("127.0.0.1", port, 5)
  lu.assertNil(ok)
  lu.assertEquals(why, "connection refused")
end

function TestMachine.test_names()
  local ok, why = machine.answers("no such name", 1, 1)
  lu.assertNil(ok)
  lu.assertStrContains(why, "known")
end

return { TestMachine = TestMachine }
