# lunark - build, test and install. `make help` lists the targets.
# BUILD picks the variant (release asan tsan fuzz); each has its own folder below build/.

BUILD   ?= release
B       := build/$(BUILD)
VERSION := 0.1.0
SOVER   := 0
PREFIX  ?= /usr/local
LIBDIR  ?= $(PREFIX)/lib
BINDIR  ?= $(PREFIX)/bin
INCDIR  ?= $(PREFIX)/include
DESTDIR ?=
CC      ?= cc
LUA     ?= lua5.4
PYTHON  ?= python3
# V=1 shows the commands.
Q := $(if $(V),,@)
show = $(if $(V),,@printf '  %-6s %s\n' $(1) $@)
export LUNARK_CACHE ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/lunark

PKGS := lua5.4 libcurl libcrypto zlib libarchive
HAVE := $(if $(shell pkg-config --exists libdeflate && echo y),libdeflate) \
        $(if $(shell pkg-config --exists libisal && echo y),libisal)
ALL_PKGS := $(PKGS) $(HAVE)

WARN := -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wvla -Wwrite-strings -Wundef
ifdef WERROR
WARN += -Werror
endif
OPT_release := -O2 -g -DNDEBUG
OPT_asan    := -O1 -g -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer
OPT_tsan    := -O1 -g -fsanitize=thread -fno-omit-frame-pointer
OPT_fuzz    := -O1 -g -fsanitize=address,undefined,fuzzer-no-link -fno-sanitize-recover=all -fno-omit-frame-pointer
OPT         := $(OPT_$(BUILD))
ifeq ($(OPT),)
$(error BUILD is "$(BUILD)": release, asan, tsan or fuzz expected)
endif
ifeq ($(BUILD),fuzz)
CC := clang
endif
DEFS := -D_GNU_SOURCE -DLUNARK_VERSION='"$(VERSION)"' \
        $(if $(filter libdeflate,$(HAVE)),-DHAVE_LIBDEFLATE) $(if $(filter libisal,$(HAVE)),-DHAVE_ISAL)
override CFLAGS += -std=c11 $(OPT) $(WARN) $(DEFS) -fPIC -fvisibility=hidden -pthread -iquote runtime \
                   $(shell pkg-config --cflags $(ALL_PKGS))
LIBS := $(shell pkg-config --libs $(ALL_PKGS)) -pthread -lm -ldl
# The module for a plain lua5.4 gets its Lua from the program that loads it.
ROCK_LIBS := $(shell pkg-config --libs $(filter-out lua5.4,$(ALL_PKGS))) -pthread -lm -ldl

SRC      := $(filter-out runtime/main.c,$(wildcard runtime/*.c))
OBJ      := $(SRC:runtime/%.c=$(B)/%.o) $(B)/embedded.o
SCRIPTS  := $(sort $(wildcard scripts/lunark/*.lua scripts/policies/*.lua scripts/policies/*/*.lua providers/*.lua providers/*/*.lua providers/*/*/*.lua))
TESTS    := $(patsubst tests/unit/test_%.c,$(B)/test_%,$(wildcard tests/unit/test_*.c))
# Has this machine a clang with libFuzzer?
FUZZER   = $(wildcard $(shell clang -print-file-name=libclang_rt.fuzzer-$(shell uname -m).a 2>/dev/null) \
                     $(shell clang -print-runtime-dir 2>/dev/null)/libclang_rt.fuzzer*.a)
FUZZ     := $(patsubst tests/fuzz/%.c,$(B)/fuzz_%,$(wildcard tests/fuzz/*.c))
SO       := $(B)/liblunark.so.$(SOVER)

.PHONY: all help check unit lint asan ubsan tsan valgrind demo bench install uninstall clean format rock install-rock tests \
        fuzz fuzz-targets model
.DELETE_ON_ERROR:
.SECONDARY:

## all         the command and the shared library (the default)
all: $(B)/lunark $(SO)

$(B)/%.o: runtime/%.c Makefile | $(B)
	$(call show,CC)
	$(Q)$(CC) $(CFLAGS) -MMD -MP -c -o $@ $<

$(B)/embedded.c: runtime/embed.lua $(SCRIPTS) | $(B)
	$(call show,EMBED)
	$(Q)$(LUA) runtime/embed.lua $@ $(SCRIPTS)

$(B)/embedded.o: $(B)/embedded.c
	$(call show,CC)
	$(Q)$(CC) $(CFLAGS) -c -o $@ $<

$(SO): $(OBJ)
	$(call show,LINK)
	$(Q)$(CC) $(CFLAGS) -shared -Wl,-soname,liblunark.so.$(SOVER) -Wl,-z,nodelete -Wl,-z,defs -Wl,-z,relro -Wl,-z,now \
	    -o $@ $(OBJ) $(LIBS) $(LDFLAGS)
	$(Q)ln -sf liblunark.so.$(SOVER) $(B)/liblunark.so

$(B)/lunark: $(B)/main.o $(SO)
	$(call show,LINK)
	$(Q)$(CC) $(CFLAGS) -o $@ $(B)/main.o -ldl $(LDFLAGS)

# Linked into programs of the tests; -rdynamic lets libraries see it.
ifeq ($(BUILD),tsan)
TEST_OBJ := $(B)/tsan_longjmp.o
$(TESTS) $(B)/luarun $(B)/host: $(TEST_OBJ)
$(TESTS) $(B)/luarun $(B)/host: LDFLAGS += -rdynamic
endif
$(B)/tsan_longjmp.o: tests/support/tsan_longjmp.c | $(B)
	$(call show,CC)
	$(Q)$(CC) $(CFLAGS) -c -o $@ $<

# Unit tests link the objects themselves, because the library hides everything internal.
$(B)/libinternal.a: $(OBJ)
	$(call show,AR)
	$(Q)rm -f $@ && ar rcs $@ $(OBJ)

$(B)/test_%: tests/unit/test_%.c $(B)/libinternal.a
	$(call show,TEST)
	$(Q)$(CC) $(CFLAGS) -iquote tests/unit -o $@ $< $(TEST_OBJ) $(B)/libinternal.a -lcmocka $(LIBS) $(LDFLAGS)

# Small programs that use the public library as a host would.
$(B)/luarun: tests/support/luarun.c $(SO)
	$(call show,TEST)
	$(Q)$(CC) $(CFLAGS) -o $@ $< $(TEST_OBJ) -L$(B) -llunark -Wl,-rpath,'$$ORIGIN' $(LDFLAGS)
$(B)/host: tests/unit/host.c $(SO)
	$(call show,TEST)
	$(Q)$(CC) $(CFLAGS) -o $@ $< $(TEST_OBJ) -L$(B) -llunark -pthread -Wl,-rpath,'$$ORIGIN' $(LDFLAGS)

# libFuzzer's targets; BUILD=fuzz.
$(B)/fuzz_%: tests/fuzz/%.c tests/fuzz/fuzz.h $(B)/libinternal.a
	$(call show,FUZZ)
	$(Q)$(CC) $(CFLAGS) -fsanitize=fuzzer -o $@ $< $(B)/libinternal.a $(LIBS) $(LDFLAGS)
fuzz-targets: $(FUZZ)

$(B):
	mkdir -p $@

## tests       builds everything that the tests run (BUILD=asan, BUILD=tsan: with sanitizers)
tests: all $(TESTS) $(B)/luarun $(B)/host

## check       lint, then every test: C and Lua under ASan and UBSan, providers and the command in the release build
check:
	$(MAKE) lint
	$(MAKE) BUILD=asan WERROR=1 tests
	$(MAKE) WERROR=1 tests
	$(if $(FUZZER),$(MAKE) BUILD=fuzz WERROR=1 fuzz-targets)
	$(PYTHON) tests/run.py

## unit        only the C and Lua tests, in the variant BUILD
unit: tests
	$(PYTHON) tests/run.py --build $(BUILD) --only unit,lua

## asan ubsan  C and Lua tests under AddressSanitizer and UndefinedBehaviorSanitizer
asan ubsan:
	$(MAKE) BUILD=asan unit
## tsan        C and Lua tests under ThreadSanitizer
tsan:
	$(MAKE) BUILD=tsan unit
## valgrind    C tests under valgrind
valgrind: tests
	$(PYTHON) tests/run.py --valgrind --only unit

## fuzz        libFuzzer's targets, SECONDS each (TARGETS="gunzip index" picks some); needs clang
SECONDS ?= 60
fuzz:
	$(MAKE) BUILD=fuzz WERROR=1 fuzz-targets
	$(PYTHON) tests/fuzz/run.py --seconds $(SECONDS) $(TARGETS)

## model       random commands on a store against a model of it: STEPS of them, SEED repeats (STORE=s3: versitygw)
STEPS ?= 3000
STORE ?= local
model: tests
	$(PYTHON) tests/cli/test_model.py --steps $(STEPS) --store $(STORE) $(if $(SEED),--seed $(SEED))

## lint        style as a program can check it: compilers without warnings, format, banned calls, layers, luacheck
lint:
	sh tests/support/lint.sh

## format      rewrites the C files as .clang-format says
format:
	sh tests/support/lint.sh --format

## demo        backs up DEMO (this clone by default) into a local store, lists, restores and compares it
demo: all
	sh tests/support/demo.sh $(B)/lunark

## bench       comparisons with peers: medians and ratios (BENCH="local s3 restore verify memory start")
bench: all
	$(PYTHON) bench/run.py $(BENCH)

## install     command, library, header and pkg-config file below PREFIX (DESTDIR is honoured)
install: all
	install -d $(DESTDIR)$(BINDIR) $(DESTDIR)$(LIBDIR)/pkgconfig $(DESTDIR)$(INCDIR)
	install -m 755 $(B)/lunark $(DESTDIR)$(BINDIR)/lunark
	install -m 755 $(SO) $(DESTDIR)$(LIBDIR)/liblunark.so.$(SOVER)
	ln -sf liblunark.so.$(SOVER) $(DESTDIR)$(LIBDIR)/liblunark.so
	install -m 644 runtime/lunark.h $(DESTDIR)$(INCDIR)/lunark.h
	sed -e 's|@PREFIX@|$(PREFIX)|; s|@LIBDIR@|$(LIBDIR)|; s|@INCDIR@|$(INCDIR)|; s|@VERSION@|$(VERSION)|' \
	    runtime/lunark.pc.in > $(DESTDIR)$(LIBDIR)/pkgconfig/lunark.pc

## uninstall   takes away what install put there
uninstall:
	rm -f $(DESTDIR)$(BINDIR)/lunark $(DESTDIR)$(LIBDIR)/liblunark.so.$(SOVER) $(DESTDIR)$(LIBDIR)/liblunark.so \
	    $(DESTDIR)$(INCDIR)/lunark.h $(DESTDIR)$(LIBDIR)/pkgconfig/lunark.pc

## rock        the module lunark.so for a plain lua5.4 (what `luarocks make` calls, then install-rock)
rock: $(B)/rock/lunark.so
$(B)/rock/lunark.so: $(OBJ)
	mkdir -p $(B)/rock
	$(CC) $(CFLAGS) -shared -Wl,-z,nodelete -o $@ $(OBJ) $(ROCK_LIBS) $(LDFLAGS)
install-rock: rock
	install -d $(INST_LIBDIR)
	install -m 755 $(B)/rock/lunark.so $(INST_LIBDIR)/lunark.so

## clean       removes build/
clean:
	rm -rf build

help:
	@sed -n 's/^## /  /p' Makefile

-include $(wildcard $(B)/*.d)
