rockspec_format = "3.0"
package = "lunark"
version = "scm-1"
source = {
  url = "git+file://.",
}
description = {
  summary = "A backup runner: tar.gz archives, programs and signed HTTP requests from Lua, streamed and in parallel",
  license = "MIT",
}
supported_platforms = { "linux" }
dependencies = {
  "lua >= 5.4, < 5.5",
}
build = {
  type = "make",
  build_target = "rock",
  install_target = "install-rock",
  build_variables = {
    LUA = "$(LUA)",
  },
  install_variables = {
    LUA = "$(LUA)",
    INST_LIBDIR = "$(LIBDIR)",
  },
}
