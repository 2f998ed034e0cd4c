#pragma once
#include <stddef.h>
#ifdef __cplusplus
extern "C" {
#endif
void* memchr(const void*, int, size_t);
int memcmp(const void*, const void*, size_t);
void* memcpy(void*, const void*, size_t);
void* memmove(void*, const void*, size_t);
void* memset(void*, int, size_t);
int strcmp(const char*, const char*);
size_t strlen(const char*);
int strerror_r(int, char*, size_t);  // POSIX's: 0, or an error
#ifdef __cplusplus
}
#endif
