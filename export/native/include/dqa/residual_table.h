/* The layer tables of a .tflite file: its DQA_RESIDUAL metadata buffer, read.
 *
 *   DqaTables* tables;
 *   if (dqa_tables_open(data, size, &tables, &error) != DQA_OK) ...
 *   const DqaLayer* layer = dqa_tables_find(tables, "relu_dqa", 8);
 *   if (layer != NULL) dqa_codec_create(&layer->table, DQA_AUTO, &codec, &error);
 *   dqa_tables_close(tables);
 *
 * export/FORMAT.md describes the bytes. As in codec.h, nothing here throws and hostile
 * bytes give a status and a message.
 */
#ifndef DQA_RESIDUAL_TABLE_H_
#define DQA_RESIDUAL_TABLE_H_

#include "dqa/codec.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct DqaTables DqaTables;

/* One quantized activation. Everything it points to belongs to its DqaTables. */
typedef struct {
  const char* name;      /* UTF-8 and NUL-terminated; may hold NULs of its own */
  size_t name_size;      /* bytes, without the terminator */
  const uint32_t* shape; /* without the batch axis, channels last; 0 where unknown */
  size_t rank;           /* at least 1 */
  DqaTable table;        /* ready for dqa_codec_create */
} DqaLayer;

/* Reads and checks a whole buffer; bytes behind the size that it states are padding.
 * The buffer is copied and may go away. Memory is asked for once everything that
 * decides how much has been checked: about twice the buffer's size at most. */
DqaStatus dqa_tables_open(const uint8_t* data, size_t size, DqaTables** tables,
                          DqaError* error);
void dqa_tables_close(DqaTables* tables);

/* How many layers there are, in the order of the model. */
size_t dqa_tables_count(const DqaTables* tables);

/* A layer by its place, NULL beyond the last one. */
const DqaLayer* dqa_tables_layer(const DqaTables* tables, size_t index);

/* A layer by its name of `name_size` bytes, NULL if there is none. */
const DqaLayer* dqa_tables_find(const DqaTables* tables, const char* name,
                                size_t name_size);

#ifdef __cplusplus
}
#endif

#endif /* DQA_RESIDUAL_TABLE_H_ */
