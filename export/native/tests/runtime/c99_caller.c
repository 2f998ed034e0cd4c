/* Calls the runtime as a program in C99 does that knows the public headers alone:
 *
 *     c99_caller CASE
 *
 * make_cases.py writes cases. Prints the ops and the seconds that a profile counts, and
 * fails if outputs are wrong or if a number after the profile's was written.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "dqa/codec.h"
#include "dqa/delegate.h"
#include "dqa/litert.h"
#include "dqa/residual_table.h"
#include "dqa/runtime.h"

enum { GUARDS = 64, MOST = 8 };
static const double GUARD = -12345.0;

typedef struct {
  unsigned char* data;
  size_t size;
} Block;

static void fail(const char* why) {
  fprintf(stderr, "c99_caller: %s\n", why);
  exit(1);
}

/* Memory aligned to 64 bytes, which nobody frees. */
static unsigned char* aligned(size_t size) {
  unsigned char* const memory = malloc(size + 64);
  if (memory == NULL) fail("no memory");
  return memory + (64 - (size_t)memory % 64) % 64;
}

static Block block(FILE* file) {
  unsigned char length[8];
  Block read = {NULL, 0};
  int i;
  if (fread(length, 1, sizeof length, file) != sizeof length) fail("not a case");
  for (i = 7; i >= 0; --i) read.size = read.size << 8 | length[i];
  read.data = aligned(read.size);
  if (fread(read.data, 1, read.size, file) != read.size) fail("the case is cut off");
  return read;
}

static void profile(DqaRuntime* runtime, const void* const* inputs,
                    void* const* outputs, unsigned char* arena) {
  double seconds[DQA_OP_CODES + 1 + GUARDS];
  DqaError error;
  unsigned i;
  for (i = 0; i < DQA_OP_CODES + 1 + GUARDS; ++i) {
    seconds[i] = i <= DQA_OP_CODES ? 0.0 : GUARD;
  }
  dqa_runtime_profile(runtime, seconds);
  if (dqa_runtime_run(runtime, inputs, outputs, arena, &error)) fail(error.message);
  dqa_runtime_profile(runtime, NULL);
  for (i = 0; i < GUARDS; ++i) {
    if (seconds[DQA_OP_CODES + 1 + i] != GUARD) fail("the profile overran its numbers");
  }
  for (i = 0; i < DQA_OP_CODES; ++i) {
    printf("%s %g\n", dqa_runtime_op_name(i), seconds[i]);
  }
  if (dqa_runtime_op_name(DQA_OP_CODES) != NULL) fail("there are more op codes");
  printf("requantizing %g\n", seconds[DQA_OP_CODES]);
}

int main(int count, char** arguments) {
  FILE* const file = count == 2 ? fopen(arguments[1], "rb") : NULL;
  Block plan, constants, tables, counts, wanted[MOST];
  const void* inputs[MOST];
  void* outputs[MOST];
  DqaRuntime* runtime = NULL;
  DqaError error;
  unsigned char* arena;
  unsigned i;
  if (file == NULL) fail("it takes one case");
  plan = block(file);
  constants = block(file);
  tables = block(file);
  counts = block(file);
  if (counts.size != 2 || counts.data[0] > MOST || counts.data[1] > MOST) {
    fail("not a case");
  }
  for (i = 0; i < counts.data[0]; ++i) inputs[i] = block(file).data;
  for (i = 0; i < counts.data[1]; ++i) {
    wanted[i] = block(file);
    outputs[i] = aligned(wanted[i].size);
  }
  fclose(file);
  if (dqa_runtime_create(plan.data, plan.size, constants.data, constants.size,
                         tables.data, tables.size, DQA_AUTO, 2, &runtime, &error)) {
    fail(error.message);
  }
  arena = aligned(dqa_runtime_arena(runtime));
  profile(runtime, inputs, outputs, arena);
  for (i = 0; i < counts.data[1]; ++i) {
    if (memcmp(outputs[i], wanted[i].data, wanted[i].size) != 0) fail("wrong outputs");
  }
  dqa_runtime_destroy(runtime);
  return 0;
}
