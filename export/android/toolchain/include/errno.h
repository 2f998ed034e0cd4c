#pragma once
// The kernel's numbers, the same on every processor that Linux runs on here.
#define ENOMEM 12
#define EBUSY 16
#define EINVAL 22
#define ERANGE 34
#define EDEADLK 35
#define ETIMEDOUT 110
#ifdef __cplusplus
extern "C"
#endif
int* __errno(void);
#define errno (*__errno())
