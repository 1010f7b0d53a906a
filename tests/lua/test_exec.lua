-- SPDX-License-Identifier: MIT
-- lunark.exec: programs from scripts - results, streams, input, cancelling, options, and what is misuse.
local exec = require "lunark.exec"
local lu = require "luaunit"
local stream = require "lunark.core.stream"
local sys = require "lunark.core.sys"
local task = require "lunark.task"
local stat = require "posix.sys.stat"
local stdlib = require "posix.stdlib"
local unistd = require "posix.unistd"

local TestExec = {}

local function sh(script, options)
  local all = { "sh", "-c", script }
  for key, value in pairs(options or {}) do
    all[key] = value
  end
  return all
end

local function misuse(message, fn, ...)
  local ok, err = pcall(fn, ...)
  lu.assertFalse(ok)
  lu.assertEquals(err.kind, "usage")
  lu.assertStrContains(tostring(err), message)
end

local function fails(kind, message, result, err)
  lu.assertNil(result)
  lu.assertStrContains(tostring(err), message)
  lu.assertEquals(err.kind, kind)
  return err
end

-- The processes of a group that still run; orphans that wait for init to reap them do not count.
local function group_size(pid)
  local listed = assert(exec.run { "ps", "-eo", "pgid=,stat=" }).stdout
  local count = 0
  for group, state in listed:gmatch "(%d+)%s+(%a)" do
    if tonumber(group) == pid and state ~= "Z" then
      count = count + 1
    end
  end
  return count
end

function TestExec.test_result()
  local result = assert(exec.run(sh("echo out; echo err >&2", { stderr = "capture" })))
  lu.assertEquals(result.code, 0)
  lu.assertNil(result.signal)
  lu.assertEquals(result.stdout, "out\n")
  lu.assertEquals(result.stderr, "err\n")
  lu.assertFalse(result.truncated)
  lu.assertFalse(result.timed_out)
  lu.assertTrue(result.seconds >= 0 and result.seconds < 10)
end

function TestExec.test_arguments_are_given_as_they_are()
  local odd = { "a b", "", "$HOME", "'\"\\", "\xff\n", "*" }
  local result = assert(exec.run { "printf", "%s|", table.unpack(odd) })
  lu.assertEquals(result.stdout, table.concat(odd, "|") .. "|")
  lu.assertEquals(assert(exec.run { "echo", 12, 1.5, sys.secret "s3cret" }).stdout, "12 1.5 s3cret\n")
end

function TestExec.test_failure_tells_code_and_last_words()
  local err = fails(
    "exit",
    "program 'sh' exited with code 3: connection refused; giving up",
    exec.run(sh("echo connection refused >&2; echo giving up >&2; exit 3"))
  )
  lu.assertEquals(err.code, 3)
  lu.assertEquals(err.result.code, 3)
  err = fails("exit", "program 'sh' was killed by signal 9 (SIGKILL)", exec.run(sh "kill -9 $$"))
  lu.assertEquals(err.result.signal, 9)
  lu.assertNil(err.result.code)
  lu.assertEquals(assert(exec.run(sh("exit 3", { ok = { 0, 3 } }))).code, 3)
end

function TestExec.test_a_program_that_cannot_start()
  fails("not_found", "program 'no-such-program' not found in PATH", exec.run { "no-such-program" })
  fails("not_found", "directory '/no/such'", exec.run { "true", cwd = "/no/such" })
  fails("not_found", "user 'no-such-user': no such user", exec.run { "true", user = "no-such-user" })
  fails("denied", "can't be started", exec.run { "/etc/passwd" })
end

function TestExec.test_timeout_ends_the_group()
  local process = assert(exec.start(sh("sleep 60 & sleep 61", { timeout = 0.3, grace = 0.5 })))
  local pid = process.pid
  local result = assert(process:wait())
  lu.assertTrue(result.timed_out)
  fails("timeout", "program 'sh' ran longer than its timeout and was ended after", process:status())
  lu.assertEquals(group_size(pid), 0)
end

function TestExec.test_environment_and_directory()
  local result = assert(exec.run(sh("echo $A $B ${HOME-none}; pwd", {
    env = { A = 1, B = sys.secret "two", HOME = false },
    cwd = "/usr",
  })))
  lu.assertEquals(result.stdout, "1 two none\n/usr\n")
  lu.assertEquals(assert(exec.run { "env", clean_env = true, env = { ONLY = "x" } }).stdout, "ONLY=x\n")
end

function TestExec.test_input()
  lu.assertEquals(assert(exec.run { "cat", stdin = "a\0b" }).stdout, "a\0b")
  lu.assertEquals(assert(exec.run { "cat" }).stdout, "")
  lu.assertEquals(assert(exec.run { "cat", stdin = sys.secret "pw" }).stdout, "pw")
  lu.assertEquals(assert(exec.run { "cat", stdin = stream.of(("x"):rep(200000)) }).stdout, ("x"):rep(200000))
end

function TestExec.test_stream()
  local source, process = exec.stream(sh "seq 1 3")
  lu.assertEquals(source:read_all(), "1\n2\n3\n")
  lu.assertEquals(process:wait().code, 0)
  lu.assertTrue(process:status())
end

function TestExec.test_stream_fails_at_its_end()
  local source = exec.stream(sh "echo data; echo broken >&2; exit 2")
  lu.assertEquals(source:read(), "data\n")
  local err = fails("exit", "program 'sh' exited with code 2: broken", source:read())
  lu.assertEquals(err.code, 2)
  fails("exit", "printed nothing", exec.stream({ "true" }):read())
  lu.assertNil(exec.stream({ "true", allow_empty = true }):read())
end

function TestExec.test_a_large_stream_through_two_programs()
  local source = exec.stream { "head", "-c", 100000000, "/dev/zero" }
  local result = assert(exec.run { "wc", "-c", stdin = exec.stream { "cat", stdin = source } })
  lu.assertEquals(result.stdout, "100000000\n")
end

function TestExec.test_a_dropped_process_goes_on_for_its_stream()
  local source = exec.stream(sh "sleep 0.3; echo late")
  collectgarbage()
  collectgarbage()
  lu.assertEquals(source:read_all(), "late\n")
end

function TestExec.test_closing_the_stream_ends_the_program()
  local source, process = exec.stream { "yes" }
  source:read()
  source:close()
  lu.assertNotNil(process:wait())
  fails("cancelled", "was stopped", process:status())
end

function TestExec.test_a_dropped_process_is_ended()
  local pid = assert(exec.start { "sleep", "60" }).pid
  for _ = 1, 200 do
    collectgarbage()
    task.sleep(0.02)
    if group_size(pid) == 0 then
      return
    end
  end
  lu.fail("it still runs")
end

function TestExec.test_close()
  local pid
  do
    local process <close> = exec.start { "sleep", "60" }
    pid = process.pid
    process:close()
    misuse("the process was closed", process.wait, process)
  end
  for _ = 1, 200 do
    if group_size(pid) == 0 then
      return
    end
    task.sleep(0.02)
  end
  lu.fail("it still runs")
end

function TestExec.test_cancelling_the_task_ends_the_program()
  local pid
  local t = task.spawn(function()
    local process = exec.start(sh "sleep 60 & sleep 61")
    pid = process.pid
    process:wait()
  end)
  task.sleep(0.1)
  task.cancel(t, "enough")
  local ok, err = task.join(t)
  lu.assertFalse(ok)
  lu.assertEquals(err.kind, "cancelled")
  lu.assertEquals(group_size(pid), 0)
  local result, why = task.timeout(0.2, exec.run, { "sleep", "60" })
  fails("timeout", "", result, why)
end

function TestExec.test_two_tasks_wait()
  local process = exec.start(sh "sleep 0.2; exit 4")
  local results = task.map({ 1, 2, 3 }, 3, function()
    return process:wait().code
  end)
  lu.assertEquals(results, { 4, 4, 4 })
  lu.assertEquals(process:wait().code, 4)
end

function TestExec.test_kill()
  local process = exec.start(sh "trap 'exit 9' USR1; while :; do sleep 0.05; done")
  task.sleep(0.2)
  lu.assertTrue(process:kill "SIGUSR1")
  lu.assertEquals(process:wait().code, 9)
  fails("not_found", "program 'sh' has ended", process:kill())
  misuse("expected the name or number of a signal", process.kill, process, "NOPE")
end

function TestExec.test_dozens_at_once()
  local begun = sys.monotonic()
  local numbers = {}
  for i = 1, 40 do
    numbers[i] = i
  end
  local codes = task.map(numbers, 40, function(i)
    local result = exec.run(sh(("sleep 0.2; echo %d"):format(i)))
    return tonumber(result.stdout)
  end)
  lu.assertEquals(codes, numbers)
  lu.assertTrue(sys.monotonic() - begun < 6, "they ran at once")
end

function TestExec.test_hundreds_in_a_row()
  for i = 1, 200 do
    lu.assertEquals(exec.run({ "echo", i }).stdout, i .. "\n")
  end
end

function TestExec.test_capture_is_bounded()
  local result = assert(exec.run { "seq", "1", "100000", capture_max = 20 })
  lu.assertTrue(result.truncated)
  lu.assertEquals(#result.stdout, 20)
  lu.assertStrContains(result.stdout, "\n99999\n100000\n")
end

function TestExec.test_log_is_kept_when_asked()
  local script = "echo first; echo second >&2; echo third"
  local result = assert(exec.run { "sh", "-c", script, stdout = "log", stderr = "stdout", log_max = 1000 })
  lu.assertEquals(result.stdout, "first\nsecond\nthird\n")
  lu.assertNil(result.stderr)
  lu.assertNil(assert(exec.run { "sh", "-c", script, stdout = "log" }).stdout)
  result = assert(exec.run { "seq", "1", "100000", stdout = "log", log_max = 5000 })
  lu.assertTrue(result.truncated)
  lu.assertEquals(#result.stdout, 5000)
end

function TestExec.test_only_three_descriptors()
  lu.assertEquals(assert(exec.run { "ls", "/proc/self/fd" }).stdout, "0\n1\n2\n3\n")
end

function TestExec.test_user_and_group()
  local uid = sys.uid()
  if uid ~= 0 then
    fails("denied", "only root may switch users", exec.run { "id", user = 0 })
    lu.skip("switching the user needs root")
  end
  lu.assertEquals(assert(exec.run(sh("id -u; id -g", { user = 12345 }))).stdout, "12345\n12345\n")
  lu.assertEquals(assert(exec.run(sh("id -u; id -g", { user = "12345", group = 7 }))).stdout, "12345\n7\n")
end

function TestExec.test_shell()
  lu.assertEquals(assert(exec.shell("echo $1 | tr a b; echo $X", { env = { X = "y" } })).stdout, "\ny\n")
  misuse("exec.shell: expected a command line", exec.shell, {})
end

function TestExec.test_which()
  local path = assert(exec.which "sh")
  lu.assertTrue(path:find "^/.*/sh$" ~= nil)
  fails("not_found", "not found in PATH", exec.which "no-such-program")
  local dir = stdlib.mkdtemp "/tmp/lunark-exec-XXXXXX"
  local file = dir .. "/plain"
  assert(io.open(file, "w")):close()
  stat.chmod(file, tonumber("644", 8))
  fails("denied", "permission denied", exec.which(file))
  unistd.unlink(file)
  unistd.rmdir(dir)
end

function TestExec.test_misuse()
  misuse("expected a table", exec.start, "ls -l")
  misuse("got an empty list", exec.start, {})
  misuse("unknown option 'shell'", exec.start, { "ls", shell = true })
  misuse("argument 1 must be a string, a number or a secret, got table", exec.start, { "ls", {} })
  misuse("argument 1 has a NUL byte", exec.start, { "ls", "a\0b" })
  misuse("a name in 'env' must be a string without '='", exec.start, { "ls", env = { ["A=B"] = "x" } })
  misuse("'stdout' must be stream, capture, log, null, inherit; got 'stdout'", exec.start, {
    "ls",
    stdout = "stdout",
  })
  misuse("'stdin' must be a string or a stream, got table", exec.start, { "ls", stdin = {} })
  misuse("'ok' must be a list of exit codes", exec.start, { "ls", ok = { 256 } })
  local moved = stream.of "x"
  assert(exec.run { "cat", stdin = moved })
  misuse("the stream was given to something else", exec.start, { "cat", stdin = moved })
  local process <close> = exec.start { "sleep", "60" }
  misuse("the program still runs", process.status, process)
end

return { TestExec = TestExec }
