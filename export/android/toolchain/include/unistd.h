#pragma once
#define _POSIX_TIMERS 200809L
#define _SC_NPROCESSORS_ONLN 97
#ifdef __cplusplus
extern "C" {
#endif
int getpid(void);
long sysconf(int);
#ifdef __cplusplus
}
#endif
