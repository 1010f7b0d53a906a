std = "lua54"
max_line_length = 110
codes = true
files["tests"] = { globals = {}, read_globals = {} }
files["scripts/meta"] = { ignore = { "211", "212", "213", "241" } }
