#pragma once
// libc++'s headers name it; nothing here has one.
typedef struct {
  int state;
} mbstate_t;
