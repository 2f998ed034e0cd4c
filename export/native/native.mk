# Targets for the native code; the Makefile includes this file and gives $(PYTHON).
# Each installs what it needs; apt-get runs once, and only where a tool is missing. A lock
# keeps targets that are made side by side from calling it at once.

NATIVE := export/native
NATIVE_BUILD ?= build/native
NATIVE_SOURCES := $(wildcard $(NATIVE)/codec/*.cc)
NATIVE_HEADERS := $(wildcard $(NATIVE)/codec/*.h $(NATIVE)/include/dqa/*.h)
NATIVE_TESTS := $(wildcard $(NATIVE)/tests/codec/*.cc)
NATIVE_FLAGS := -std=c++17 -O3 -g -ffp-contract=off -I$(NATIVE)/include \
	-I$(NATIVE) -Wall -Wextra -Wconversion -Werror -pthread
GOLDEN := tests/golden
FUZZ_RUNS ?= 1000000
FUZZ_SECONDS ?= 1200
FUZZ_SEED ?= 1

# $(call need,command,packages)
need = command -v $(1) >/dev/null || flock /tmp/dqa_keras_apt.lock sh -c \
	'command -v $(1) >/dev/null || (apt-get update -qq && \
	DEBIAN_FRONTEND=noninteractive apt-get install -y -qq $(2) >/dev/null)'

.PHONY: extensions native fuzz aarch64 native-coverage lint-native

# The extension modules in place. `make install` builds them too where there is a
# compiler: they are built once more only if a source is newer.
extensions: install
	@$(call need,g++,g++)
	@built=$$(ls dqa_keras/_delegate*.so 2>/dev/null | head -1) && test "$$built" && \
	test -z "$$(find setup.py $(NATIVE) -newer $$built -name '*.cc' \
		-o -newer $$built -name '*.h' -o -newer $$built -name setup.py)" || { \
	$(PYTHON) -m pip install -q "setuptools>=68" "nanobind>=2.4" && \
	$(PYTHON) setup.py -q build_ext --inplace; }

# The extension modules, and the native tests under gcc.
native: extensions
	@mkdir -p $(NATIVE_BUILD)
	g++ $(NATIVE_FLAGS) $(NATIVE_SOURCES) $(NATIVE_TESTS) \
		-o $(NATIVE_BUILD)/codec_test
	$(NATIVE_BUILD)/codec_test $(GOLDEN)

include $(NATIVE)/arm.mk
include $(NATIVE)/runtime.mk

# The native tests under AddressSanitizer with UndefinedBehaviorSanitizer, and under
# ThreadSanitizer; then a million mutated blobs, tables and metadata buffers under the
# first two. Mutation stops early after FUZZ_SECONDS.
fuzz:
	@$(call need,clang++,clang)
	@mkdir -p $(NATIVE_BUILD)/found
	clang++ $(NATIVE_FLAGS) -O1 -fsanitize=address,undefined -fno-sanitize-recover=all \
		$(NATIVE_SOURCES) $(NATIVE_TESTS) -o $(NATIVE_BUILD)/codec_test_sanitized
	$(NATIVE_BUILD)/codec_test_sanitized $(GOLDEN)
	clang++ $(NATIVE_FLAGS) -O1 -fsanitize=thread $(NATIVE_SOURCES) $(NATIVE_TESTS) \
		-o $(NATIVE_BUILD)/codec_test_threads
	$(NATIVE_BUILD)/codec_test_threads $(GOLDEN)
	clang++ $(NATIVE_FLAGS) -O1 -fsanitize=fuzzer,address,undefined \
		-fno-sanitize-recover=all $(NATIVE_SOURCES) $(NATIVE)/fuzz/codec_fuzz.cc \
		-o $(NATIVE_BUILD)/codec_fuzz
	rm -rf $(NATIVE_BUILD)/seeds
	$(PYTHON) $(NATIVE)/fuzz/make_corpus.py $(GOLDEN) $(NATIVE_BUILD)/seeds
	$(NATIVE_BUILD)/codec_fuzz -runs=$(FUZZ_RUNS) -max_total_time=$(FUZZ_SECONDS) \
		-seed=$(FUZZ_SEED) -max_len=4096 -print_final_stats=1 \
		-artifact_prefix=$(NATIVE_BUILD)/found/ $(NATIVE_BUILD)/seeds

# The NEON path against golden vectors and the scalar path, under qemu.
aarch64:
	@$(call need,aarch64-linux-gnu-g++,g++-aarch64-linux-gnu)
	@$(call need,qemu-aarch64-static,qemu-user-static)
	@mkdir -p $(NATIVE_BUILD)
	aarch64-linux-gnu-g++ $(NATIVE_FLAGS) -static $(NATIVE_SOURCES) \
		$(NATIVE_TESTS) -o $(NATIVE_BUILD)/codec_test_aarch64
	qemu-aarch64-static $(NATIVE_BUILD)/codec_test_aarch64 $(GOLDEN)

# Lines and branches of the native code that its tests reach.
native-coverage:
	@$(call need,clang++,clang)
	@$(call need,llvm-cov,llvm)
	@mkdir -p $(NATIVE_BUILD)
	clang++ $(NATIVE_FLAGS) -O1 -fprofile-instr-generate -fcoverage-mapping \
		$(NATIVE_SOURCES) $(NATIVE_TESTS) -o $(NATIVE_BUILD)/codec_test_covered
	LLVM_PROFILE_FILE=$(NATIVE_BUILD)/codec_test.profraw \
		$(NATIVE_BUILD)/codec_test_covered $(GOLDEN)
	llvm-profdata merge $(NATIVE_BUILD)/codec_test.profraw \
		-o $(NATIVE_BUILD)/codec_test.profdata
	llvm-cov report $(NATIVE_BUILD)/codec_test_covered \
		-instr-profile=$(NATIVE_BUILD)/codec_test.profdata \
		$(NATIVE_SOURCES) $(NATIVE_HEADERS)

# clang-format and clang-tidy come with the test extra (setup.cfg), so no root is needed.
lint-native: install
	$(dir $(PYTHON))clang-format --dry-run -Werror $(NATIVE_SOURCES) $(NATIVE_HEADERS) \
		$(NATIVE_TESTS) $(NATIVE)/tests/checks.h $(RUNTIME_SOURCES) \
		$(wildcard $(NATIVE)/runtime/*/*.h $(NATIVE)/litert/*.h \
		$(NATIVE)/portable/*.cc $(NATIVE)/bindings/*/*.cc $(NATIVE)/fuzz/*.cc $(NATIVE)/count/*.cc $(NATIVE)/phone/*.cc \
		$(NATIVE)/tests/runtime/*.c $(NATIVE)/tests/runtime/*.cc)
	printf '%s\n' $(NATIVE_SOURCES) $(RUNTIME_SOURCES) | xargs -P 2 -I{} \
		$(dir $(PYTHON))clang-tidy --quiet {} -- $(filter-out -Werror,$(NATIVE_FLAGS))
