-- SPDX-License-Identifier: MIT
-- Any text as XML. What is read is within its limits and has what its declaration promises; text that XML
-- can carry comes back as it was; nothing raises.
local sys = require "lunark.core.sys"
local xml = require "lunark.xml"

local function walk(element, depth, shape)
  assert(depth <= 32, "deeper than 32")
  assert(type(element.name) == "string" and type(element.text) == "string", "name and text expected")
  assert(element:child(element.name) == nil or element:value(element.name) ~= nil)
  shape[#shape + 1] = depth
  assert(#shape <= 100000, "more than 100,000 elements")
  for _, child in ipairs(element) do walk(child, depth + 1, shape) end
end

return function(data)
  if xml.can_carry(data) then
    local root = assert(xml.parse("<a>" .. xml.escape(data) .. "</a>"))
    assert(root.text == data and #root == 0, "the text changed")
  end
  local root, err = xml.parse(data)
  if not root then
    assert(sys.is_error(err) and err.kind == "corrupt", "an error of kind corrupt expected")
    return err.message
  end
  local shape = {}
  walk(root, 1, shape)
  -- Few shapes: the first elements' depth.
  return table.concat(shape, ",", 1, math.min(#shape, 12))
end
