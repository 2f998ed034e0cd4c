// How a function of the codec says what went wrong.
#ifndef DQA_CODEC_ERRORS_H_
#define DQA_CODEC_ERRORS_H_

#include <cstdarg>
#include <cstdio>

#include "dqa/codec.h"

namespace dqa {

// Fills in the message, if somebody wants it, and gives the status back.
[[gnu::format(printf, 3, 4)]] inline DqaStatus fail(DqaError* error, DqaStatus status,
                                                    const char* format, ...) {
  if (error != nullptr) {
    va_list arguments;
    va_start(arguments, format);
    std::vsnprintf(error->message, sizeof error->message, format, arguments);
    va_end(arguments);
  }
  return status;
}

}  // namespace dqa

#endif  // DQA_CODEC_ERRORS_H_
