-- SPDX-License-Identifier: MIT
-- lunark.naming: keys, times, names.

local lu = require "luaunit"
local naming = require "lunark.naming"

local TestNaming = {}

-- Seconds as `date -u -d 2020-06-16T12:32:57Z +%s` prints them.
local WHEN = 1592310777

function TestNaming.test_forms_of_a_time()
  lu.assertEquals(naming.format_time(WHEN), "2020-06-16T123257Z")
  lu.assertEquals(naming.format_time(WHEN + 0.9, "standard"), "2020-06-16T123257Z")
  lu.assertEquals(naming.format_time(WHEN, "compat"), "2020-06-16-12:32:57")
  lu.assertErrorMsgContains("unknown form of time", naming.format_time, WHEN, "other")
end

function TestNaming.test_reading_a_time()
  lu.assertEquals({ naming.parse_time("2020-06-16T123257Z") }, { WHEN, "standard" })
  lu.assertEquals({ naming.parse_time("2020-06-16-12:32:57") }, { WHEN, "compat" })
  lu.assertEquals(naming.parse_time("2020-02-29T000000Z"), 1582934400)
  for _, text in ipairs {
    "", "latest", "2020-06-16", "2021-02-29T000000Z", "2020-13-01T000000Z", "2020-06-31-00:00:00",
    "2020-06-16T243257Z", "2020-06-16T123257", "2020-06-16T12:32:57Z", "x2020-06-16T123257Z",
  } do
    lu.assertNil(naming.parse_time(text), text)
  end
end

function TestNaming.test_times_of_a_person()
  for _, text in ipairs {
    "2020-06-16T12:32:57Z", "2020-06-16T123257Z", "2020-06-16-12:32:57", "2020-06-16 12:32:57",
    "2020-06-16T14:32:57+02:00", "2020-06-16T07:02:57-05:30", "2020-06-16T12:32:57.25Z",
    "2020-06-16T12:32:57",
  } do
    lu.assertEquals(naming.parse_at(text), WHEN, text)
  end
  lu.assertEquals(naming.parse_at("latest"), "latest")
  local at, err = naming.parse_at("yesterday")
  lu.assertNil(at)
  lu.assertEquals(err.kind, "usage")
  lu.assertEquals(err.message, "'yesterday' is no time")
end

function TestNaming.test_keys()
  lu.assertEquals(naming.data_key("data", WHEN, ".tar.gz"), "data/data-2020-06-16T123257Z.tar.gz")
  lu.assertEquals(naming.data_key("neo4j", WHEN, ".tar.gz", "compat"),
    "neo4j/neo4j-2020-06-16-12:32:57.tar.gz")
  lu.assertEquals(naming.manifest_key("a", WHEN), "a/a-2020-06-16T123257Z.manifest.json")
  lu.assertEquals(naming.latest_key("neo4j", ".tar.gz"), "neo4j/neo4j-latest.tar.gz")
  lu.assertEquals(naming.latest_key("app", ".dump.gz"), "app/app-latest.dump.gz")
end

function TestNaming.test_taking_keys_apart()
  lu.assertEquals(naming.parse_key("a/a-2020-06-16T123257Z.tar.gz"), {
    item = "a", kind = "data", suffix = ".tar.gz", time = WHEN, stamp = "2020-06-16T123257Z",
    style = "standard",
  })
  lu.assertEquals(naming.parse_key("my-db/my-db-2020-06-16-12:32:57.dump.gz"), {
    item = "my-db", kind = "data", suffix = ".dump.gz", time = WHEN, stamp = "2020-06-16-12:32:57",
    style = "compat",
  })
  lu.assertEquals(naming.parse_key("a/a-2020-06-16T123257Z.manifest.json").kind, "manifest")
  lu.assertEquals(naming.parse_key("a/a-2020-06-16-12:32:57.report.tar.gz").kind, "report")
  lu.assertEquals(naming.parse_key("a/a-latest.tar.gz"), { item = "a", kind = "latest", suffix = ".tar.gz" })
end

function TestNaming.test_other_peoples_keys()
  for _, key in ipairs {
    "a-2020-06-16T123257Z.tar.gz", "a/b-2020-06-16T123257Z.tar.gz", "x/a/a-2020-06-16T123257Z.tar.gz",
    "a/a-2020-06-16T123257Z", "a/a-2020-06-31T123257Z.tar.gz", "a/a-latest", "a/a-.tar.gz", "a/", "",
  } do
    lu.assertNil(naming.parse_key(key), key)
  end
end

function TestNaming.test_parse_file()
  lu.assertEquals(naming.parse_file "my-db-2020-06-16-12:32:57.dump.gz", {
    item = "my-db", kind = "data", suffix = ".dump.gz", time = 1592310777, stamp = "2020-06-16-12:32:57",
    style = "compat",
  })
  local file = "a-2020-06-16T123257Z.tar.gz"
  lu.assertEquals(naming.parse_file(file), naming.parse_key("a/" .. file))
  lu.assertEquals(naming.parse_file("a-2020-06-16T123257Z.manifest.json").kind, "manifest")
  lu.assertEquals(naming.parse_file "a-b-latest.tar.gz",
    { item = "a-b", kind = "latest", suffix = ".tar.gz" })
  for _, other in ipairs { "a.tar.gz", "-latest.tar.gz", "a-latest", "a-2020-13-16T123257Z.tar.gz",
    "a/b-latest.tar.gz", "a-2020-06-16T123257Z", "" } do
    lu.assertNil(naming.parse_file(other), other)
  end
end

function TestNaming.test_names()
  for _, name in ipairs { "a", "neo4j", "ünïcode ☃", "-dash", "a.b", "latest", ("x"):rep(120) } do
    lu.assertTrue(naming.check_name(name), name)
  end
  for _, name in ipairs { "", ".", "..", "a/b", "a\nb", "a\0b", ("x"):rep(121), "a\xff", "\xed\xa0\x80" } do
    local ok, err = naming.check_name(name)
    lu.assertNil(ok, name)
    lu.assertEquals(err.kind, "usage")
  end
end

function TestNaming.test_suffixes()
  for _, suffix in ipairs { "", ".dump", ".sql", ".tar.zst", ".manifests" } do
    lu.assertTrue(naming.check_suffix(suffix), suffix)
  end
  for _, suffix in ipairs { "dump", ".a/b", ".manifest", ".manifest.json", ".report", ".report.tar", ". " } do
    lu.assertNil(naming.check_suffix(suffix), suffix)
  end
end

function TestNaming.test_metadata_is_printable_ascii()
  lu.assertEquals(naming.to_meta("a/b-2020.tar.gz"), "a/b-2020.tar.gz")
  lu.assertEquals(naming.to_meta("ü 100%"), "%C3%BC%20100%25")
  for _, text in ipairs { "plain", "ünï ☃ %41", "\0\255" } do
    lu.assertEquals(naming.from_meta(naming.to_meta(text)), text)
  end
end

return { TestNaming = TestNaming }
