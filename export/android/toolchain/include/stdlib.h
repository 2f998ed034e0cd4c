#pragma once
#include <stddef.h>
#ifdef __cplusplus
extern "C" {
#endif
__attribute__((noreturn)) void abort(void);
void* calloc(size_t, size_t);
void free(void*);
void* malloc(size_t);
int posix_memalign(void**, size_t, size_t);
void* realloc(void*, size_t);
// What libc++'s headers and sources name, and no function of ours calls.
typedef struct {
  int quot, rem;
} div_t;
typedef struct {
  long quot, rem;
} ldiv_t;
typedef struct {
  long long quot, rem;
} lldiv_t;
ldiv_t ldiv(long, long);
lldiv_t lldiv(long long, long long);
double strtod(const char*, char**);
float strtof(const char*, char**);
long double strtold(const char*, char**);
long strtol(const char*, char**, int);
long long strtoll(const char*, char**, int);
unsigned long strtoul(const char*, char**, int);
unsigned long long strtoull(const char*, char**, int);
#ifdef __cplusplus
}
#endif
