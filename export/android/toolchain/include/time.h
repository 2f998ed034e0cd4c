#pragma once
#include <stddef.h>
#define CLOCK_REALTIME 0
#define CLOCK_MONOTONIC 1
typedef long time_t;
typedef long clock_t;
struct timespec {
  time_t tv_sec;
  long tv_nsec;
};
struct tm;
#ifdef __cplusplus
extern "C" {
#endif
int clock_gettime(int, struct timespec*);
int nanosleep(const struct timespec*, struct timespec*);
#ifdef __cplusplus
}
#endif
