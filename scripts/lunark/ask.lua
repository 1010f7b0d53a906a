-- SPDX-License-Identifier: MIT
-- A question to the person at the terminal. Parks until it is answered; other tasks and signals go on.

local poll = require "posix.poll"
local sys = require "lunark.core.sys"
local task = require "lunark.core.task"
local unistd = require "posix.unistd"

local ask = {}

local PAUSE = 0.05

--- True where somebody can answer.
---@return boolean
function ask.possible()
  return sys.isatty(0) and sys.isatty(2)
end

--- Asks for a yes; anything else, and the end of the input, is a no.
---@param question string
---@return boolean
function ask.yes(question)
  sys.write(2, question .. " [y/N] ")
  while poll.rpoll(0, 0) ~= 1 do
    task.sleep(PAUSE)
  end
  local answer = unistd.read(0, 256) or ""
  return answer:lower():find("^%s*y") ~= nil
end

return ask
