-- SPDX-License-Identifier: MIT
-- embed.lua - turns Lua files into one C file, as text: `lua5.4 embed.lua OUT FILE...`.
-- The result defines lk_embedded_files, sorted by name, ended by an entry without a name (see embedded.h).
local out_name = assert(arg[1], "usage: embed.lua OUT FILE...")

local function read(name)
  local file <close> = assert(io.open(name, "rb"))
  return file:read("a")
end

-- C compilers need not take a string literal of more than 4,095 bytes; an array of numbers has no limit.
local function bytes(text)
  local lines = {}
  for first = 1, #text, 24 do
    lines[#lines + 1] = table.concat({ text:byte(first, first + 23) }, ",")
  end
  return table.concat(lines, ",\n")
end

local names = { table.unpack(arg, 2) }
table.sort(names)
local out = { '/* Made by runtime/embed.lua. */\n#include "embedded.h"\n' }
local entries = {}
for index, name in ipairs(names) do
  local text = read(name)
  local body = text == "" and "" or bytes(text) .. ",\n"
  out[#out + 1] = ("static const char file_%d[] = {\n%s0};\n"):format(index, body)
  entries[#entries + 1] = ('    {"%s", file_%d, %d},\n'):format(name, index, #text)
end
out[#out + 1] = "const struct lk_embedded lk_embedded_files[] = {\n"
out[#out + 1] = table.concat(entries) .. "    {0, 0, 0}};\n"

local file <close> = assert(io.open(out_name, "wb"))
assert(file:write(table.concat(out)))
