-- SPDX-License-Identifier: MIT
-- lunark.progress: sizes, durations, lines and bars.

local lu = require "luaunit"
local progress = require "lunark.progress"
local task = require "lunark.task"

local TestProgress = {}

local MiB = 1024 * 1024

function TestProgress.test_sizes()
  for bytes, text in pairs {
    [0] = "0 B", [1023] = "1023 B", [1024] = "1.0 KiB", [1536] = "1.5 KiB", [102400] = "100 KiB",
    [1048575] = "1.0 MiB", [12 * MiB] = "12.0 MiB", [1 << 40] = "1.0 TiB", [5000 << 50] = "5000 PiB",
  } do
    lu.assertEquals(progress.size(bytes), text)
  end
end

function TestProgress.test_durations()
  for seconds, text in pairs { [0] = "0 s", [59.4] = "59 s", [65] = "1 min 05 s", [7620] = "2 h 07 min" } do
    lu.assertEquals(progress.duration(seconds), text)
  end
end

function TestProgress.test_line()
  local sample = { read = 30 * MiB, stored = 10 * MiB, total = 60 * MiB }
  lu.assertEquals(progress.line("data", sample, 10),
    "data: 30.0 MiB read of 60.0 MiB, 10.0 MiB stored, ratio 3.0, 3.0 MiB/s, 10 s left")
  lu.assertEquals(progress.line("db", { read = MiB }, 0), "db: 1.0 MiB read, 0 B/s")
  lu.assertEquals(progress.line("db", { read = 0, waiting = "neo4j-admin" }, 90),
    "db: still waiting for neo4j-admin, 1 min 30 s")
end

function TestProgress.test_no_guess_of_the_rest_without_ground()
  for _, sample in ipairs {
    { read = 10 }, { read = 0, total = 10 }, { read = 10, total = 10 }, { read = 11, total = 10 },
  } do
    lu.assertNil(progress.line("x", sample, 60):find("left", 1, true))
  end
  lu.assertNil(progress.line("x", { read = 1, total = 10 }, 1):find("left", 1, true))
end

function TestProgress.test_bar_fits()
  local sample = { read = 30 * MiB, stored = 10 * MiB, total = 60 * MiB }
  for _, columns in ipairs { 10, 40, 79, 120, 200 } do
    lu.assertTrue(#progress.bar("data", sample, 10, columns) <= columns)
  end
  lu.assertEquals(progress.bar("data", sample, 10, 200):match("^%b[] *%d+%%"),
    "[" .. ("#"):rep(15) .. ("."):rep(15) .. "]  50%")
end

function TestProgress.test_nothing_stays_behind()
  local before = task.live()
  local shown = progress.start("none")
  local track = shown:track("x", function() return { read = 1 } end)
  track:close()
  track:close()
  shown:close()
  shown:close()
  task.sleep(0.01)
  lu.assertEquals(task.live(), before)
end

return { TestProgress = TestProgress }
