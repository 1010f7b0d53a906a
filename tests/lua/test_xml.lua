-- SPDX-License-Identifier: MIT
-- lunark.xml and lunark.json: reading, bounds, writing.
local lu = require "luaunit"
local json = require "lunark.json"
local sys = require "lunark.core.sys"
local xml = require "lunark.xml"

local TestXml = {}

function TestXml.test_an_answer()
  local root = assert(xml.parse([[<?xml version="1.0" encoding="UTF-8"?>
<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>b</Name>
  <Contents><Key>a &amp; b &lt;c&gt;</Key><Size>5</Size></Contents>
  <Contents><Key>&#xFC;/x</Key><Size>0</Size><ETag>&quot;e&quot;</ETag></Contents>
  <IsTruncated/></ListBucketResult>]]))
  lu.assertEquals(root.name, "ListBucketResult")
  lu.assertEquals(root:value("Name"), "b")
  lu.assertEquals(root:value("IsTruncated"), "")
  lu.assertNil(root:value("Absent"))
  local keys = {}
  for item in root:each("Contents") do keys[#keys + 1] = item:value("Key") end
  lu.assertEquals(keys, { "a & b <c>", "ü/x" })
end

function TestXml.test_prefixes_and_mixed_text()
  local root = assert(xml.parse "<a:x xmlns:a='u'>one<a:y>two</a:y>three<![CDATA[<&]]></a:x>")
  lu.assertEquals(root.name, "x")
  lu.assertEquals(root.text, "onethree<&")
  lu.assertEquals(root:child("y").text, "two")
end

local function refused(text, words)
  local root, err = xml.parse(text, "answer")
  lu.assertNil(root)
  lu.assertEquals(err.kind, "corrupt")
  lu.assertStrContains(err.message, "answer: ")
  if words then lu.assertStrContains(err.message, words) end
end

function TestXml.test_damage()
  refused("")
  refused("   ")
  refused("not xml")
  refused("<a><b></a></b>", "mismatched tag")
  refused("<a>cut o")
  refused("<a></a><b/>")
  refused("<a>\255</a>")
end

-- Expat takes a colon for a letter when it is not told of namespaces.
function TestXml.test_a_name_that_is_all_prefix()
  lu.assertEquals(xml.parse("<:><a:/></:>").name, ":")
  lu.assertEquals(xml.parse("<:><a:/></:>")[1].name, "a:")
end

function TestXml.test_bounds()
  refused(("<a>"):rep(40) .. ("</a>"):rep(40), "deeper than 32")
  refused("<a>" .. ("<b/>"):rep(100001) .. "</a>", "more than 100000 elements")
  refused("<a>" .. (" "):rep(9 * 1024 * 1024) .. "</a>", "bytes are more than")
  refused('<!DOCTYPE x [<!ENTITY e "x">]><x>&e;</x>', "document type")
  refused('<!DOCTYPE x SYSTEM "file:///etc/passwd"><x/>', "document type")
end

function TestXml.test_writing()
  lu.assertEquals(xml.escape("a<b>&\"c\"\r"), "a&lt;b&gt;&amp;&quot;c&quot;&#13;")
  lu.assertTrue(xml.can_carry("plain ü \t\n"))
  for _, text in ipairs { "\0", "a\1b", "\27", "\255", "\239\191\191" } do
    lu.assertFalse(xml.can_carry(text))
  end
end

local TestJson = {}

function TestJson.test_numbers()
  local value = assert(json.decode '{"i":12,"big":9007199254740991,"f":1.5,"e":1e3,"list":[1,2.5],"neg":-7}')
  lu.assertEquals(math.type(value.i), "integer")
  lu.assertEquals(value.big, 9007199254740991)
  lu.assertEquals(math.type(value.big), "integer")
  lu.assertEquals(value.f, 1.5)
  lu.assertEquals(math.type(value.e), "integer")
  lu.assertEquals(value.list, { 1, 2.5 })
  lu.assertEquals(json.encode { size = 123456789012345678, ratio = 0.1, third = 1 / 3 },
    '{"ratio":0.1,"size":123456789012345678,"third":0.33333333333333331}')
end

function TestJson.test_writing()
  local value = { b = 1, a = { "x", "y" }, c = json.array {}, d = {}, e = json.null, f = false }
  lu.assertEquals(json.encode(value),
    '{"a":["x","y"],"b":1,"c":[],"d":{},"e":null,"f":false}')
  lu.assertEquals(json.encode("a/b\n\"ü\"\0"), '"a/b\\n\\"ü\\"\\u0000"')
  lu.assertEquals(json.encode({ a = { 1 } }, "  "), '{\n  "a": [\n    1\n  ]\n}')
  lu.assertEquals(json.encode { key = sys.secret "geheim" }, '{"key":"***"}')
end

function TestJson.test_what_can_not_be_written()
  for _, value in ipairs { { 1, 2, x = 3 }, { print }, { 0 / 0 }, { 1 / 0 }, { [2] = 1 } } do
    local ok, err = pcall(json.encode, value)
    lu.assertFalse(ok)
    lu.assertEquals(err.kind, "usage")
  end
  local loop = {}
  loop.loop = loop
  lu.assertFalse((pcall(json.encode, loop)))
end

function TestJson.test_damage()
  for _, text in ipairs { "", "{", "[1,]", "nul", "{'a':1}", ("["):rep(100) .. ("]"):rep(100) } do
    local value, err = json.decode(text, "manifest x")
    lu.assertNil(value)
    lu.assertEquals(err.kind, "corrupt")
    lu.assertStrContains(err.message, "manifest x is not JSON")
  end
end

function TestJson.test_a_number_that_no_double_holds()
  for _, text in ipairs { "1e999", "-1e999", "[1, {\"a\": 1e400}]" } do
    local value, err = json.decode(text, "manifest x")
    lu.assertNil(value)
    lu.assertEquals(err.kind, "corrupt")
    lu.assertEquals(err.message, "manifest x is not JSON: a number is out of range")
  end
  lu.assertEquals(json.decode("1e308"), 1e308)
end

function TestJson.test_round_trip()
  local value = { list = { 1, "two", true, { x = 1.25 } }, name = "ü\t", none = json.null }
  lu.assertEquals(json.decode(json.encode(value)), value)
end

return { TestXml = TestXml, TestJson = TestJson }
