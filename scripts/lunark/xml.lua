-- SPDX-License-Identifier: MIT
--- XML: small documents (answers of stores) to tables and back, over lua-expat.
--- Needs lua-expat. Bounded: size, depth and number of elements; a document type declaration is
--- refused, so there are no entities to expand.

local lxp = require "lxp"
local sys = require "lunark.core.sys"

local xml = {}

local MAX_BYTES = 8 * 1024 * 1024
local MAX_DEPTH = 32
local MAX_ELEMENTS = 100000

---@class lunark.xml.element
---@field name string without a namespace prefix
---@field text string text directly inside, all of it
---@field [integer] lunark.xml.element children in order
local Element = {}
Element.__index = Element

--- The first child of that name, or nil.
---@param name string
---@return lunark.xml.element?
function Element:child(name)
  for _, child in ipairs(self) do
    if child.name == name then return child end
  end
end

--- The text of the first child of that name, or nil.
---@param name string
---@return string?
function Element:value(name)
  local child = self:child(name)
  return child and child.text
end

--- Iterates over the children of that name.
---@param name string
---@return fun(): lunark.xml.element?
function Element:each(name)
  local index = 0
  return function()
    while true do
      index = index + 1
      local child = self[index]
      if not child or child.name == name then return child end
    end
  end
end

local function failed(what, format, ...)
  return nil, sys.error { kind = "corrupt", op = "xml", message = what .. ": " .. format:format(...) }
end

local function make_handlers(state)
  local stack = { { texts = {} } }
  local function refuse(parser, reason)
    state.refused = state.refused or reason
    parser:stop()
  end
  return {
    StartElement = function(parser, name)
      state.count = state.count + 1
      if #stack > MAX_DEPTH then return refuse(parser, "nests deeper than " .. MAX_DEPTH .. " levels") end
      if state.count > MAX_ELEMENTS then
        return refuse(parser, "has more than " .. MAX_ELEMENTS .. " elements")
      end
      local element = setmetatable({ name = name:match("[^:]+$") or name, texts = {} }, Element)
      table.insert(stack[#stack], element)
      stack[#stack + 1] = element
    end,
    EndElement = function()
      local element = table.remove(stack)
      element.text, element.texts = table.concat(element.texts), nil
      if #stack == 1 then state.root = element end
    end,
    CharacterData = function(_, text)
      local texts = stack[#stack].texts
      texts[#texts + 1] = text
    end,
    StartDoctypeDecl = function(parser) refuse(parser, "has a document type declaration") end,
  }
end

--- Reads a document.
---@param text string
---@param what string? names the text in an error
---@return lunark.xml.element? root
---@return table? err kind corrupt
function xml.parse(text, what)
  what = what or "XML"
  if #text > MAX_BYTES then return failed(what, "%d bytes are more than %d", #text, MAX_BYTES) end
  local state = { count = 0 }
  local parser = lxp.new(make_handlers(state))
  local ok, message, line = parser:parse(text)
  if ok and not state.refused then ok, message, line = parser:parse() end
  pcall(parser.close, parser)
  if state.refused then return failed(what, "the document %s", state.refused) end
  if not ok then return failed(what, "%s in line %d", tostring(message), line or 0) end
  if not state.root then return failed(what, "there is no element") end
  return state.root
end

local escapes = { ["&"] = "&amp;", ["<"] = "&lt;", [">"] = "&gt;", ['"'] = "&quot;", ["\r"] = "&#13;" }

--- Text made safe for an element or attribute.
---@param text string
---@return string
function xml.escape(text)
  return (text:gsub('[&<>"\r]', escapes))
end

--- False when text has a character that XML 1.0 can't carry, or is not UTF-8.
---@param text string
---@return boolean
function xml.can_carry(text)
  return utf8.len(text) ~= nil and not text:find("[\0-\8\11\12\14-\31]")
    and not text:find("\xEF\xBF[\xBE\xBF]")
end

return xml
