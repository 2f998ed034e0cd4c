#pragma once
#include <stdarg.h>
#include <stddef.h>
#define EOF (-1)
#ifdef __cplusplus
extern "C" {
#endif
typedef struct FILE FILE;
int remove(const char*);  // libc++'s headers name it
int snprintf(char*, size_t, const char*, ...) __attribute__((format(printf, 3, 4)));
int vsnprintf(char*, size_t, const char*, va_list) __attribute__((format(printf, 3, 0)));
#ifdef __cplusplus
}
#endif

#ifdef _LIBUNWIND_IS_NATIVE_ONLY
// The unwinder aborts where tables are damaged; on a phone nobody sees what it prints.
#define fprintf(...) ((void)0)
#define fflush(file) ((void)0)
#endif
