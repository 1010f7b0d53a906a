-- SPDX-License-Identifier: MIT
-- Sends what `cat FILE` writes to a store as one object: upload.lua STORE FILE
local exec = require "lunark.exec"
local store = require "lunark.store"
local transfer = require "lunark.transfer"

local place = assert(store.open(arg[1]))
local child <close> = assert(exec.start { "cat", arg[2], stdout = "stream" })
assert(transfer.upload(child.stdout, { { store = place, key = "ours.bin" } }, { raw = true }))
