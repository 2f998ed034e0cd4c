# Targets for the runtime of packed models; native.mk includes this file.

CORE_SOURCES := $(wildcard $(NATIVE)/runtime/*.cc $(NATIVE)/runtime/*/*.cc)
RUNTIME_SOURCES := $(CORE_SOURCES) $(wildcard $(NATIVE)/litert/*.cc)
PLAN_TEST := $(NATIVE_SOURCES) $(CORE_SOURCES) $(NATIVE)/tests/runtime/plan_test.cc
CASES := $(NATIVE_BUILD)/cases

.PHONY: runtime-strict abi versions fuzz-plan runtime-test aarch64-runtime cases

# The runtime and the delegate with every warning of the native code as an error.
runtime-strict:
	@$(call need,g++,g++)
	@mkdir -p $(NATIVE_BUILD)
	g++ $(NATIVE_FLAGS) -fPIC -shared -fvisibility=hidden $(NATIVE_SOURCES) \
		$(RUNTIME_SOURCES) -o $(NATIVE_BUILD)/dqa_delegate.so

# The part of TensorFlow Lite's C ABI that the delegate declares, compared with the
# headers in the Android package, for both machines.
ABI_TFLITE := 2.16.1
ABI_BUILD := build/abi

abi:
	@$(call need,g++,g++)
	@$(call need,aarch64-linux-gnu-g++,g++-aarch64-linux-gnu)
	@$(call need,mvn,maven)
	@$(call need,unzip,unzip)
	rm -rf $(ABI_BUILD) && mkdir -p $(ABI_BUILD)
	mvn -q -B dependency:copy -DoutputDirectory=$(ABI_BUILD) \
		-Dartifact=org.tensorflow:tensorflow-lite:$(ABI_TFLITE):aar
	unzip -q $(ABI_BUILD)/tensorflow-lite-$(ABI_TFLITE).aar 'headers/*' -d $(ABI_BUILD)
	for compiler in g++ aarch64-linux-gnu-g++; do \
		$$compiler -std=c++17 -fsyntax-only -Wall -Werror -I$(ABI_BUILD)/headers \
			-I$(NATIVE) $(NATIVE)/tests/litert/tflite_abi_check.cc || exit 1; \
	done

# One packed file and one library on each interpreter: the same bytes must come out. The
# oldest and the newest that setup.cfg allows are those of the environments at hand.
VERSIONS_BUILD := build/versions
VERSIONS := 1.4.0 2.1.6
VERSIONS_RUN = python tests/versions/run.py $$(echo dqa_keras/_delegate*.so) \
	$(VERSIONS_BUILD)

versions: extensions $(BOUNDS)/installed
	rm -rf $(VERSIONS_BUILD) && mkdir -p $(VERSIONS_BUILD)
	$(PYTHON) tests/versions/write.py $(VERSIONS_BUILD)
	for version in $(VERSIONS); do \
		$(PYTHON_BIN) -m venv --clear $(VERSIONS_BUILD)/venv && \
		$(VERSIONS_BUILD)/venv/bin/pip install -q ai-edge-litert==$$version && \
		$(VERSIONS_BUILD)/venv/bin/$(VERSIONS_RUN) ai >> $(VERSIONS_BUILD)/outputs \
		|| exit 1; \
	done
	for environment in $(VENV) $(BOUNDS); do for which in ai tensorflow; do \
		$$environment/bin/$(VERSIONS_RUN) $$which >> $(VERSIONS_BUILD)/outputs || exit 1; \
	done; done
	cat $(VERSIONS_BUILD)/outputs
	test $$(cut -d ' ' -f 1 $(VERSIONS_BUILD)/outputs | sort -u | wc -l) = 1

# Hostile plans, then hostile files in LiteRT, under AddressSanitizer and
# UndefinedBehaviorSanitizer: as many runs, from the same seeds, each time.
FUZZ_PLAN_RUNS ?= 10000
FUZZ_MODEL_RUNS ?= 1000
FUZZ_PLAN_SOURCES := $(NATIVE_SOURCES) $(CORE_SOURCES) $(NATIVE)/fuzz/plan_fuzz.cc

FUZZ_MODELS := $(NATIVE_BUILD)/models

fuzz-plan: extensions
	@$(call need,clang++,clang)
	@mkdir -p $(NATIVE_BUILD)/found
	clang++ $(NATIVE_FLAGS) -O1 -fsanitize=fuzzer,address,undefined \
		-fno-sanitize-recover=all $(FUZZ_PLAN_SOURCES) -o $(NATIVE_BUILD)/plan_fuzz
	rm -rf $(NATIVE_BUILD)/plans
	PYTHONPATH=tests/export $(PYTHON) $(NATIVE)/fuzz/make_plans.py $(NATIVE_BUILD)/plans
	$(NATIVE_BUILD)/plan_fuzz -runs=$(FUZZ_PLAN_RUNS) -seed=$(FUZZ_SEED) \
		-max_len=32768 -print_final_stats=1 \
		-artifact_prefix=$(NATIVE_BUILD)/found/ $(NATIVE_BUILD)/plans
	g++ $(NATIVE_FLAGS) -O1 -g1 -fPIC -shared -fvisibility=hidden \
		-fsanitize=address,undefined -fno-sanitize-recover=all $(NATIVE_SOURCES) \
		$(RUNTIME_SOURCES) -o $(NATIVE_BUILD)/dqa_delegate_sanitized.so
	$(PYTHON) tests/versions/write.py $(FUZZ_MODELS)
	$(PYTHON) $(NATIVE)/fuzz/model_fuzz.py $(NATIVE_BUILD)/dqa_delegate_sanitized.so \
		$(FUZZ_MODEL_RUNS) $(FUZZ_SEED) $(NATIVE_BUILD)/found $(FUZZ_MODELS)/*.tflite

# Plans, and what the NumPy reference makes of them.
cases: install
	PYTHONPATH=tests/export $(PYTHON) $(NATIVE)/tests/runtime/make_cases.py $(CASES)

# The same bytes from every instruction set and number of threads, under
# AddressSanitizer with UndefinedBehaviorSanitizer, and under ThreadSanitizer.
runtime-test: cases
	@$(call need,clang++,clang)
	clang++ $(NATIVE_FLAGS) -O1 -fsanitize=address,undefined -fno-sanitize-recover=all \
		$(PLAN_TEST) -o $(NATIVE_BUILD)/plan_test_sanitized
	$(NATIVE_BUILD)/plan_test_sanitized $(CASES)/*.case
	clang++ $(NATIVE_FLAGS) -O1 -fsanitize=thread $(PLAN_TEST) \
		-o $(NATIVE_BUILD)/plan_test_threads
	$(NATIVE_BUILD)/plan_test_threads $(CASES)/*.case

# The same bytes from Arm's, under qemu: with dot products and on a core without them.
aarch64-runtime: cases
	@$(call need,aarch64-linux-gnu-g++,g++-aarch64-linux-gnu)
	@$(call need,qemu-aarch64-static,qemu-user-static)
	aarch64-linux-gnu-g++ $(NATIVE_FLAGS) -static $(PLAN_TEST) \
		-o $(NATIVE_BUILD)/plan_test_aarch64
	qemu-aarch64-static $(NATIVE_BUILD)/plan_test_aarch64 $(CASES)/*.case
	qemu-aarch64-static -cpu cortex-a53 $(NATIVE_BUILD)/plan_test_aarch64 \
		$(CASES)/*.case

aarch64: aarch64-runtime
