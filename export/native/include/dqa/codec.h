/* The codec of packed activations: values or codes in, bytes out, and back.
 *
 * export/FORMAT.md describes the bytes. Every function is safe on hostile bytes, throws
 * nothing, and may be called from any thread; a codec is immutable once created. On
 * failure a function returns a status other than DQA_OK and, if `error` is not NULL,
 * leaves a message in it that states the rule and the value received.
 */
#ifndef DQA_CODEC_H_
#define DQA_CODEC_H_

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef enum {
  DQA_OK = 0,
  DQA_BAD_ARGUMENT = 1, /* the caller's own mistake */
  DQA_BAD_TABLE = 2,    /* the layer's table breaks a rule */
  DQA_BAD_VERSION = 3,  /* written by another version of the format */
  DQA_TRUNCATED = 4,    /* the bytes end too early */
  DQA_OVERSIZED = 5,    /* bytes are left over */
  DQA_CORRUPT = 6,      /* any other broken rule of the format */
  DQA_NO_SPACE = 7,     /* the output buffer is below the static bound */
  DQA_NO_MEMORY = 8
} DqaStatus;

typedef struct {
  char message[192]; /* one line, NUL-terminated */
} DqaError;

typedef enum { DQA_RAW = 0, DQA_RESIDUAL = 1, DQA_ALL = 2 } DqaStorage;

/* Float32 values, or codes of one byte each (uint8 if the table's sign is 0, else
 * int8). */
typedef enum { DQA_FLOAT32 = 0, DQA_CODES = 1 } DqaType;

/* Instruction sets; all give the same bytes. */
typedef enum {
  DQA_AUTO = 0,
  DQA_SCALAR = 1,
  DQA_AVX2 = 2,
  DQA_NEON = 3,
  /* The runtime alone has these: */
  DQA_AVX_VNNI = 4,
  DQA_AVX512_VNNI = 5,
  DQA_NEON_DOT = 6,
  DQA_NEON_I8MM = 7
} DqaIsa;

/* One layer's table, as in DQA_RESIDUAL. The arrays are copied. A codec without
 * codeword lengths (NULL) takes 58 KB less each, and refuses strips of the storage
 * classes that need them. */
typedef struct {
  uint32_t bits;       /* n, 1..8 */
  uint32_t extra_bits; /* m, 0..4; n + m <= 8 */
  /* 0: codes are unsigned. 1: signed; half of the 2^n base codes lie below 0. Above:
   * the zero point plus 1; so many base codes lie below 0, fewer than half, n + m < 8.
   */
  uint32_t sign;
  uint32_t channels;               /* C, 1..65,536 */
  const uint8_t* mask;             /* C bytes, 1 for an important channel */
  const float* scale;              /* C positive finite numbers */
  const uint8_t* residual_lengths; /* 2^m codeword lengths, or NULL */
  const uint8_t* base_lengths;     /* 2^n codeword lengths, or NULL */
} DqaTable;

typedef struct DqaCodec DqaCodec;

/* Creates a codec; DQA_AUTO takes the fastest instruction set of this machine. */
DqaStatus dqa_codec_create(const DqaTable* table, DqaIsa isa, DqaCodec** codec,
                           DqaError* error);
void dqa_codec_destroy(DqaCodec* codec);

/* The instruction set that a codec runs on, or that DQA_AUTO would take (codec = NULL).
 */
DqaIsa dqa_codec_isa(const DqaCodec* codec);

/* Most bytes that a strip of so many pixels takes; exact for DQA_RAW. */
size_t dqa_strip_bound(const DqaCodec* codec, DqaStorage storage, size_t pixels);

/* Bytes of scratch that packing or unpacking a strip of so many pixels needs. */
size_t dqa_strip_scratch(const DqaCodec* codec, DqaStorage storage, size_t pixels);

/* Writes one strip. `out` has at least dqa_strip_bound bytes, `scratch` at least
 * dqa_strip_scratch bytes; nothing is allocated. */
DqaStatus dqa_pack_strip(const DqaCodec* codec, DqaStorage storage, DqaType type,
                         const void* values, size_t pixels, uint8_t* out,
                         size_t capacity, size_t* size, uint8_t* scratch,
                         DqaError* error);

/* Reads one strip of exactly `size` bytes. */
DqaStatus dqa_unpack_strip(const DqaCodec* codec, DqaStorage storage, DqaType type,
                           const uint8_t* strip, size_t size, size_t pixels,
                           void* values, uint8_t* scratch, DqaError* error);

/* How a tensor is cut: `rows` rows of `row_pixels` pixels, `strip_rows` rows a strip.
 */
typedef struct {
  size_t rows;
  size_t row_pixels;
  size_t strip_rows;
} DqaGeometry;

/* Most bytes that a blob takes, 0 if the geometry is out of range. */
size_t dqa_blob_bound(const DqaCodec* codec, DqaStorage storage,
                      const DqaGeometry* geometry);

/* Writes a whole tensor on `threads` threads (at least 1); `capacity` is at least
 * dqa_blob_bound. */
DqaStatus dqa_pack(const DqaCodec* codec, DqaStorage storage, DqaType type,
                   const void* values, const DqaGeometry* geometry, uint32_t threads,
                   uint8_t* out, size_t capacity, size_t* size, DqaError* error);

/* Reads a whole tensor of `rows` rows; storage class and strips are the blob's. */
DqaStatus dqa_unpack(const DqaCodec* codec, DqaType type, const uint8_t* blob,
                     size_t size, size_t rows, size_t row_pixels, uint32_t threads,
                     void* values, DqaError* error);

/* Decodes a section of blocks alone into a plane, for benchmarks and tests: `which` is
 * DQA_RESIDUAL for residual symbols, DQA_ALL for base symbols. `plane` has
 * ceil(count * width / 8) + 8 bytes. */
DqaStatus dqa_decode_blocks(const DqaCodec* codec, DqaStorage which,
                            const uint8_t* section, size_t size, size_t count,
                            uint8_t* plane, DqaError* error);

#ifdef __cplusplus
}
#endif

#endif /* DQA_CODEC_H_ */
