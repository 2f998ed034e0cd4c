// The native half of io.github.dqakeras.DqaDelegate. Handles are pointers in a
// jlong; the Kotlin half sees to it that none is used after it was freed.
#include <jni.h>

#include <cstdint>
#include <new>
#include <string>
#include <vector>

#include "dqa/delegate.h"

namespace {

constexpr char kClass[] = "io/github/dqakeras/DqaDelegate";

// LiteRT's callback takes nothing that would tell one caller from another.
thread_local char reported[256];

void report(const char* message) {
  size_t size = 0;
  while (message[size] != '\0' && size + 1 < sizeof(reported)) {
    reported[size] = message[size];
    ++size;
  }
  reported[size] = '\0';
}

void throw_new(JNIEnv* env, const char* name, const char* message) {
  const jclass type = env->FindClass(name);
  if (type != nullptr) env->ThrowNew(type, message);
}

TfLiteDelegate* delegate(jlong handle) {
  return reinterpret_cast<TfLiteDelegate*>(static_cast<intptr_t>(handle));
}

// Modified UTF-8 copies of a Java array's strings; false if Java threw.
bool copy(JNIEnv* env, jobjectArray array, std::vector<std::string>* strings) {
  const jsize count = env->GetArrayLength(array);
  for (jsize i = 0; i < count; ++i) {
    const auto string = static_cast<jstring>(env->GetObjectArrayElement(array, i));
    const char* const text = env->GetStringUTFChars(string, nullptr);
    if (text == nullptr) return false;
    strings->emplace_back(text);
    env->ReleaseStringUTFChars(string, text);
    env->DeleteLocalRef(string);
  }
  return true;
}

jlong create(JNIEnv* env, jclass, jobjectArray key_array,
             jobjectArray value_array) try {
  std::vector<std::string> keys, values;
  if (!copy(env, key_array, &keys) || !copy(env, value_array, &values)) return 0;
  std::vector<const char*> key_texts, value_texts;
  for (const std::string& key : keys) key_texts.push_back(key.c_str());
  for (const std::string& value : values) value_texts.push_back(value.c_str());
  reported[0] = '\0';
  TfLiteDelegate* const delegate = tflite_plugin_create_delegate(
      key_texts.data(), value_texts.data(), keys.size(), report);
  if (delegate == nullptr)
    throw_new(env, "java/lang/IllegalArgumentException", reported);
  return static_cast<jlong>(reinterpret_cast<intptr_t>(delegate));
} catch (const std::bad_alloc&) {
  throw_new(env, "java/lang/OutOfMemoryError", "no memory for a delegate");
  return 0;
}

void destroy(JNIEnv*, jclass, jlong handle) {
  tflite_plugin_destroy_delegate(delegate(handle));
}

jlongArray counters(JNIEnv* env, jclass, jlong handle) {
  DqaCounters read;
  dqa_delegate_counters(delegate(handle), &read);
  const jlong values[] = {static_cast<jlong>(read.ops),
                          static_cast<jlong>(read.arena_bytes),
                          static_cast<jlong>(read.runs)};
  const jlongArray array = env->NewLongArray(3);
  if (array != nullptr) env->SetLongArrayRegion(array, 0, 3, values);
  return array;
}

const JNINativeMethod kMethods[] = {
    {const_cast<char*>("nativeCreate"),
     const_cast<char*>("([Ljava/lang/String;[Ljava/lang/String;)J"),
     reinterpret_cast<void*>(create)},
    {const_cast<char*>("nativeDestroy"), const_cast<char*>("(J)V"),
     reinterpret_cast<void*>(destroy)},
    {const_cast<char*>("nativeCounters"), const_cast<char*>("(J)[J"),
     reinterpret_cast<void*>(counters)},
};

}  // namespace

// Registered by hand, so that no Java_ symbol need be visible and a method that
// both halves do not agree on fails when the library is loaded.
extern "C" DQA_EXPORT jint JNI_OnLoad(JavaVM* vm, void*) {
  JNIEnv* env = nullptr;
  if (vm->GetEnv(reinterpret_cast<void**>(&env), JNI_VERSION_1_6) != JNI_OK) {
    return JNI_ERR;
  }
  const jclass type = env->FindClass(kClass);
  if (type == nullptr) return JNI_ERR;
  const jint count = sizeof(kMethods) / sizeof(kMethods[0]);
  if (env->RegisterNatives(type, kMethods, count) != JNI_OK) return JNI_ERR;
  return JNI_VERSION_1_6;
}
