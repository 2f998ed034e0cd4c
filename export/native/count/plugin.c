/* A plugin for qemu-aarch64 7 and 8: counts guest instructions, by class and function.
 *
 *     qemu-aarch64 -plugin plugin.so,out=FILE PROGRAM...
 *
 * What is counted lies between two calls of getpgid(424242). FILE then holds a line for
 * each block of code that ran there: how often, its instructions by class in the order
 * of `Class`, and its function, or "-" where the guest's file has no symbols for it.
 *
 * Debian ships no header of qemu's plugins: the few declarations needed are these.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define EXPORT __attribute__((visibility("default")))

struct qemu_plugin_tb;
struct qemu_plugin_insn;
typedef void (*TranslateCallback)(uint64_t id, struct qemu_plugin_tb* block);
typedef void (*SyscallCallback)(uint64_t id, unsigned cpu, int64_t number, uint64_t a1,
                                uint64_t a2, uint64_t a3, uint64_t a4, uint64_t a5,
                                uint64_t a6, uint64_t a7, uint64_t a8);
void qemu_plugin_register_vcpu_tb_trans_cb(uint64_t id, TranslateCallback callback);
void qemu_plugin_register_vcpu_syscall_cb(uint64_t id, SyscallCallback callback);
void qemu_plugin_register_vcpu_tb_exec_inline(struct qemu_plugin_tb* block,
                                              int operation, void* value, uint64_t by);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb* block);
struct qemu_plugin_insn* qemu_plugin_tb_get_insn(const struct qemu_plugin_tb* block,
                                                 size_t index);
const void* qemu_plugin_insn_data(const struct qemu_plugin_insn* instruction);
const char* qemu_plugin_insn_symbol(const struct qemu_plugin_insn* instruction);

EXPORT int qemu_plugin_version = 1;

enum Class { kAll, kSdot, kSmmla, kLong, kMemory, kBranch, kClasses };
enum { kAdd = 0, kGetpgid = 155, kMark = 424242 };

struct Block {
  struct Block* next;
  const char* function;
  uint64_t runs;
  unsigned count[kClasses];
};

static struct Block* blocks;
static const char* path;
static int counting;

/* By the encodings in the Arm Architecture Reference Manual, C4.1. */
static enum Class class_of(uint32_t i) {
  const uint32_t vectors = i & 0xbfe0fc00, element = i & 0xbfc0f400;
  const unsigned opcode = i >> 12 & 15;
  if (vectors == 0x0e809400 || vectors == 0x2e809400 || vectors == 0x0e809c00 ||
      element == 0x0f80e000 || element == 0x2f80e000 || element == 0x0f80f000 ||
      element == 0x0f00f000) {
    return kSdot; /* SDOT, UDOT, USDOT, SUDOT */
  }
  if (vectors == 0x0e80a400 || vectors == 0x2e80a400 || vectors == 0x0e80ac00) {
    return kSmmla; /* SMMLA, UMMLA, USMMLA */
  }
  /* [SU]MLAL, [SU]MLSL, [SU]MULL, and their second halves. */
  if ((i & 0x9f200c00) == 0x0e200000 && (opcode == 8 || opcode == 10 || opcode == 12)) {
    return kLong;
  }
  if ((i & 0x9f000400) == 0x0f000000 && (opcode == 2 || opcode == 6 || opcode == 10)) {
    return kLong;
  }
  if ((i & 0x0a000000) == 0x08000000) return kMemory;
  if ((i & 0x1c000000) == 0x14000000) return kBranch;
  return kAll;
}

static void translated(uint64_t id, struct qemu_plugin_tb* tb) {
  (void)id;
  struct Block* const block = calloc(1, sizeof *block);
  if (block == NULL) abort();
  block->next = blocks;
  blocks = block;
  const size_t count = qemu_plugin_tb_n_insns(tb);
  for (size_t n = 0; n < count; ++n) {
    uint32_t code;
    const struct qemu_plugin_insn* const at = qemu_plugin_tb_get_insn(tb, n);
    memcpy(&code, qemu_plugin_insn_data(at), sizeof code);
    if (n == 0) block->function = qemu_plugin_insn_symbol(at);
    const enum Class kind = class_of(code);
    ++block->count[kAll];
    if (kind != kAll) ++block->count[kind];
  }
  qemu_plugin_register_vcpu_tb_exec_inline(tb, kAdd, &block->runs, 1);
}

static void write_counts(void) {
  FILE* const file = fopen(path, "w");
  if (file == NULL) abort();
  for (const struct Block* b = blocks; b != NULL; b = b->next) {
    if (b->runs == 0) continue;
    fprintf(file, "%" PRIu64, b->runs);
    for (unsigned kind = 0; kind < kClasses; ++kind) {
      fprintf(file, " %u", b->count[kind]);
    }
    fprintf(file, " %s\n", b->function != NULL && *b->function ? b->function : "-");
  }
  if (fclose(file) != 0) abort();
}

static void called(uint64_t id, unsigned cpu, int64_t number, uint64_t a1, uint64_t a2,
                   uint64_t a3, uint64_t a4, uint64_t a5, uint64_t a6, uint64_t a7,
                   uint64_t a8) {
  (void)id, (void)cpu, (void)a2, (void)a3, (void)a4, (void)a5, (void)a6, (void)a7;
  (void)a8;
  if (number != kGetpgid || a1 != kMark) return;
  if (counting) write_counts();
  counting = !counting;
  for (struct Block* b = blocks; b != NULL; b = b->next) b->runs = 0;
}

EXPORT int qemu_plugin_install(uint64_t id, const void* info, int count,
                               char** values) {
  (void)info;
  if (count != 1 || strncmp(values[0], "out=", 4) != 0) {
    fputs("plugin.so takes out=FILE\n", stderr);
    return 1;
  }
  path = values[0] + 4;
  qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
  qemu_plugin_register_vcpu_syscall_cb(id, called);
  return 0;
}
