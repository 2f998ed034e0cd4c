/* Android's C library, as far as it differs for libdqa_delegate.so, on Linux with
 * glibc: tests load the shipped libraries through it. It bears the names that those ask
 * for (libc.so; empty ones are libdl.so and libm.so) and binds everything else to
 * glibc.
 *
 * The library's mutexes and their kin have room for glibc's. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

int* __errno(void) { return __errno_location(); }

void android_set_abort_message(const char* message) {
  fprintf(stderr, "%s\n", message);
}

int __xpg_strerror_r(int, char*, size_t);
int strerror_r(int error, char* text, size_t size) {
  return __xpg_strerror_r(error, text, size);
}

#ifdef __arm__
unsigned long __gnu_Unwind_Find_exidx(unsigned long, int*);
unsigned long dl_unwind_find_exidx(unsigned long address, int* count) {
  return __gnu_Unwind_Find_exidx(address, count);
}
#endif

/* Allocations of the library: `dqa_shim_fail(n)` makes the nth from now fail. */
static long remaining;
static unsigned long made;

void dqa_shim_fail(long nth) { remaining = nth; }
unsigned long dqa_shim_made(void) { return __atomic_load_n(&made, __ATOMIC_RELAXED); }

static int fails(void) {
  __atomic_add_fetch(&made, 1, __ATOMIC_RELAXED);
  return remaining > 0 && __atomic_sub_fetch(&remaining, 1, __ATOMIC_RELAXED) == 0;
}

void* __libc_malloc(size_t);
void* __libc_calloc(size_t, size_t);
void* __libc_realloc(void*, size_t);
void* __libc_memalign(size_t, size_t);

void* malloc(size_t size) { return fails() ? NULL : __libc_malloc(size); }
void* calloc(size_t count, size_t size) {
  return fails() ? NULL : __libc_calloc(count, size);
}
void* realloc(void* old, size_t size) {
  return fails() ? NULL : __libc_realloc(old, size);
}
int posix_memalign(void** made_at, size_t alignment, size_t size) {
  void* const found = fails() ? NULL : __libc_memalign(alignment, size);
  if (found == NULL) return ENOMEM;
  *made_at = found;
  return 0;
}
