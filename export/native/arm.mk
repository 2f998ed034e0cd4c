# What runs on 64-bit Arm, under qemu; native.mk includes this file.
#
# The guest is Debian's Python for aarch64, unpacked and not installed, with the wheels
# of NumPy and LiteRT. It is made once. LiteRT's kernels ask /proc/cpuinfo which core
# they are on, and crash on the answer of another machine.

ARM_BUILD := build/aarch64
ARM := $(ARM_BUILD)/guest
ARM_APT := -qq -o Dir::State::lists=$(CURDIR)/$(ARM_BUILD)/apt/lists \
	-o Dir::Cache=$(CURDIR)/$(ARM_BUILD)/apt/cache -o APT::Sandbox::User=root \
	-o APT::Architecture=arm64 -o APT::Architectures=arm64 -o Acquire::Languages=none
ARM_PACKAGES := python3.11-minimal libpython3.11-minimal libpython3.11-stdlib libc6 \
	libgcc-s1 libstdc++6 zlib1g libexpat1 libffi8 libbz2-1.0 liblzma5
# 2.3.0 crashes under qemu 7.2.
ARM_WHEELS := numpy flatbuffers ai-edge-litert==2.1.6
ARM_PLATFORMS := $(foreach tag,manylinux2014 manylinux_2_27 manylinux_2_28,\
	--platform $(tag)_aarch64)

ARM_NETWORKS ?= mobilenet_v2 efficientnet_lite0 resnet32
ARM_RESULTS := benchmarks/results/arm.json
ARM_CXX = aarch64-linux-gnu-g++ $(NATIVE_FLAGS)

.PHONY: arm-tools arm-count arm-bound phone phone-test

$(ARM)/made: | install
	rm -rf $(ARM) $(ARM_BUILD)/apt
	mkdir -p $(ARM_BUILD)/apt/lists/partial $(ARM_BUILD)/apt/cache/archives/partial
	apt-get $(ARM_APT) update
	cd $(ARM_BUILD)/apt && apt-get $(ARM_APT) download $(ARM_PACKAGES)
	for package in $(ARM_BUILD)/apt/*.deb; do dpkg -x $$package $(ARM); done
	mkdir -p $(ARM)/proc && cp $(NATIVE)/count/cpuinfo $(ARM)/proc
	$(PYTHON) -m pip install -q --no-deps --target $(ARM)/site --only-binary :all: \
		--python-version 3.11 $(ARM_PLATFORMS) $(ARM_WHEELS)
	touch $@

# The plugin that counts, and what it counts: the runtime alone, and as a delegate.
arm-tools: install
	@$(call need,gcc,gcc)
	@$(call need,aarch64-linux-gnu-g++,g++-aarch64-linux-gnu)
	@$(call need,qemu-aarch64,qemu-user)
	@mkdir -p $(ARM_BUILD)
	gcc -O2 -Wall -Wextra -Werror -fPIC -shared -fvisibility=hidden \
		$(NATIVE)/count/plugin.c -o $(ARM_BUILD)/plugin.so
	$(ARM_CXX) -static $(NATIVE_SOURCES) $(CORE_SOURCES) $(NATIVE)/count/run_plan.cc \
		-o $(ARM_BUILD)/run_plan
	$(ARM_CXX) -fPIC -shared -fvisibility=hidden $(NATIVE_SOURCES) $(RUNTIME_SOURCES) \
		-o $(ARM_BUILD)/delegate.so

# Instructions of an inference, packed and not; `ARM_NETWORKS=unet` takes half an hour.
arm-count: $(ARM)/made arm-tools extensions
	$(PYTHON) benchmarks/arm.py --networks $(ARM_NETWORKS) --json $(ARM_RESULTS)

# Fails if the runtime's own instructions have grown by more than 3 %.
arm-bound: arm-tools extensions
	$(PYTHON) benchmarks/arm.py --networks mobilenet_v2 resnet32 --bound $(ARM_RESULTS)

# What `dqa bench phone` pushes to a phone: LiteRT's library from its wheel, our program,
# and the C library that both were built for, with its loader: Android's is another.
PHONE := $(ARM_BUILD)/phone
PHONE_LIBRARIES := ld-linux-aarch64.so.1 libc.so.6 libm.so.6 libstdc++.so.6 libgcc_s.so.1

$(PHONE)/libLiteRt.so: | install
	@$(call need,unzip,unzip)
	mkdir -p $(PHONE)
	$(PYTHON) -m pip download -q --no-deps -d $(ARM_BUILD)/wheels --only-binary :all: \
		--python-version 3.11 $(ARM_PLATFORMS) $(filter ai-edge-litert%,$(ARM_WHEELS))
	unzip -qoj $(ARM_BUILD)/wheels/ai_edge_litert-*.whl ai_edge_litert/libLiteRt.so \
		-d $(PHONE)
	touch $@

phone: $(PHONE)/libLiteRt.so
	@$(call need,aarch64-linux-gnu-g++,g++-aarch64-linux-gnu)
	$(ARM_CXX) -g0 -s -static-libstdc++ -static-libgcc -fvisibility=hidden \
		$(NATIVE_SOURCES) $(RUNTIME_SOURCES) $(NATIVE)/phone/bench.cc -ldl \
		-o $(PHONE)/dqa_phone
	for name in $(PHONE_LIBRARIES); do \
		cp -L $$(aarch64-linux-gnu-g++ -print-file-name=$$name) $(PHONE) || exit 1; \
	done
	echo $(filter ai-edge-litert%,$(ARM_WHEELS)) > $(PHONE)/version

# The program under qemu, with a script in adb's place; and the C of docs/litert2.md.
phone-test: phone arm-tools extensions
	@$(call need,qemu-aarch64-static,qemu-user-static)
	$(PYTHON) -m pytest tests/benchmarks/devices/phone_test.py \
		tests/export/native/litert/litert2_page_test.py
