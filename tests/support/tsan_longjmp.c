/* SPDX-License-Identifier: MIT
 * tsan_longjmp.c - only for builds with ThreadSanitizer: a liblua that was built with
 * _FORTIFY_SOURCE leaves C functions by __longjmp_chk, which the sanitizer does not intercept. It
 * would keep their frames for ever and fail after some ten thousand errors or parks. */
#include <setjmp.h>

void __longjmp_chk(jmp_buf env, int value) __attribute__((noreturn, visibility("default")));

void __longjmp_chk(jmp_buf env, int value)
{
    longjmp(env, value); /* which is intercepted; _longjmp is not */
}
