// How libc++ is built: threads and exceptions; no locales, files, streams or wide
// characters, whose declarations would all have to be written.
#pragma once
#ifdef __cplusplus
#define _LIBCPP_ABI_VERSION 1
// No other libc++ in the app's process is meant: hidden symbols, and another name.
#define _LIBCPP_ABI_NAMESPACE __dqa
#define _LIBCPP_HAS_THREADS 1
#define _LIBCPP_HAS_THREAD_API_PTHREAD 1
#define _LIBCPP_HAS_THREAD_API_EXTERNAL 0
#define _LIBCPP_HAS_THREAD_API_WIN32 0
#define _LIBCPP_HAS_THREAD_API_C11 0
#define _LIBCPP_HAS_MONOTONIC_CLOCK 1
#define _LIBCPP_HAS_LOCALIZATION 0
#define _LIBCPP_HAS_WIDE_CHARACTERS 0
#define _LIBCPP_HAS_UNICODE 0
#define _LIBCPP_HAS_FILESYSTEM 0
#define _LIBCPP_HAS_RANDOM_DEVICE 0
#define _LIBCPP_HAS_TERMINAL 0
#define _LIBCPP_HAS_TIME_ZONE_DATABASE 0
#define _LIBCPP_HAS_MUSL_LIBC 0
#define _LIBCPP_HAS_VENDOR_AVAILABILITY_ANNOTATIONS 0
#define _LIBCPP_PSTL_BACKEND_SERIAL
#define _LIBCPP_HARDENING_MODE_DEFAULT 2
#define _LIBCPP_ASSERTION_SEMANTIC_DEFAULT 2
#define _LIBCPP_INSTRUMENTED_WITH_ASAN 0
#define _LIBCPP_LIBC_NEWLIB 0
#define _LIBCPP_LIBC_PICOLIBC 0
#define _LIBCPP_DISABLE_VISIBILITY_ANNOTATIONS
#define _LIBCXXABI_DISABLE_VISIBILITY_ANNOTATIONS
#endif
