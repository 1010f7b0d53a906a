-- SPDX-License-Identifier: MIT
--- CRC-32C of bytes that are put together from parts, out of the parts' own: no byte is read again.
--- A CRC is the remainder of a polynomial over GF(2); appending n bytes multiplies it by x^(8n). The
--- order of bits is the reflected one, in which the highest bit is the coefficient of x^0.

local crc32c = {}

local POLYNOMIAL = 0x82F63B78 -- Castagnoli's, reflected
local X8 = 1 << 23 -- x^8

-- a times b, modulo the polynomial.
local function multiply(a, b)
  local product, bit = 0, 1 << 31
  while bit > 0 do
    if a & bit ~= 0 then product = product ~ b end
    b = b & 1 == 1 and (b >> 1) ~ POLYNOMIAL or b >> 1
    bit = bit >> 1
  end
  return product
end

--- The CRC of A followed by B.
---@param first integer of A
---@param second integer of B
---@param bytes integer length of B
---@return integer
function crc32c.combine(first, second, bytes)
  local power = X8
  while bytes > 0 do
    if bytes & 1 == 1 then first = multiply(first, power) end
    power = multiply(power, power)
    bytes = bytes >> 1
  end
  return first ~ second
end

--- From four bytes, the highest first, as a number.
---@param raw string
---@return integer
function crc32c.number(raw)
  return (string.unpack(">I4", raw))
end

--- As four bytes, the highest first.
---@param value integer
---@return string
function crc32c.bytes(value)
  return string.pack(">I4", value)
end

return crc32c
