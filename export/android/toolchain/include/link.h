#pragma once
#include <elf.h>
#include <stddef.h>
#ifdef __LP64__
#define ElfW(type) Elf64_##type
#else
#define ElfW(type) Elf32_##type
#endif
#ifdef __cplusplus
extern "C" {
#endif
// The system hands these out, so an object may go on behind what is declared.
struct dl_phdr_info {
  ElfW(Addr) dlpi_addr;
  const char* dlpi_name;
  const ElfW(Phdr)* dlpi_phdr;
  ElfW(Half) dlpi_phnum;
};
int dl_iterate_phdr(int (*)(struct dl_phdr_info*, size_t, void*), void*);
typedef unsigned long _Unwind_Ptr;
_Unwind_Ptr dl_unwind_find_exidx(_Unwind_Ptr, int*);  // on 32-bit Arm
#ifdef __cplusplus
}
#endif
