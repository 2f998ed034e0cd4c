/* Runs a packed model in LiteRT 2 by the C of docs/litert2.md, which comes before this:
 *
 *     packed_main MODEL THREADS INPUT OUTPUT OUTPUT_BYTES
 */
#include <stdio.h>

int main(int count, char** values) {
  if (count != 6) return 2;
  PackedModel* packed = packed_open(values[1], (unsigned)atoi(values[2]));
  if (packed == NULL) return 3;
  FILE* in = fopen(values[3], "rb");
  FILE* out = fopen(values[4], "wb");
  static char input[1 << 20], output[1 << 20];
  const size_t input_bytes = in ? fread(input, 1, sizeof input, in) : 0,
               output_bytes = (size_t)atoi(values[5]);
  const char* why = packed_run(packed, input, input_bytes, output, output_bytes);
  if (why != NULL) puts(why);
  const int written =
      out != NULL && fwrite(output, 1, output_bytes, out) == output_bytes;
  packed_close(packed);
  return why == NULL && written && fclose(out) == 0 && fclose(in) == 0 ? 0 : 1;
}
