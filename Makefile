# Every target sets up what it needs; a second run finds it done.
# PYTHON_BIN picks the interpreter (3.10 to 3.13), VENV where its environment goes.
PYTHON_BIN ?= python3
VENV ?= .venv
PYTHON := $(VENV)/bin/python
export TF_CPP_MIN_LOG_LEVEL ?= 3

help:
	@echo "make demo     train, quantize, export and compare on real digits (offline)"
	@echo "make test     doctests, unit and end-to-end tests"
	@echo "make notebooks   runs every notebook"
	@echo "make test-backends    the same codes on JAX and PyTorch"
	@echo "make browser  Chromium, which the tests of dqa report need"
	@echo "make docs     the documentation: build/docs/index.html"
	@echo "make commands the documentation's longest commands, on small data"
	@echo "make distribution   calibration by several processes, some of which are lost"
	@echo "make faults   calibration and export killed at every stage"
	@echo "make bounds   the oldest TensorFlow, Keras, NumPy and LiteRT that are allowed"
	@echo "make lint     style and types only, C++ included"
	@echo "make native   the compiled codec and its own tests"
	@echo "make aarch64  the NEON codec against the golden vectors, under qemu"
	@echo "make arm-count   instructions of an inference on Arm, counted under qemu"
	@echo "make arm-bound   fails if the runtime executes over 3 % more than it did"
	@echo "make phone    what dqa bench phone pushes to a phone"
	@echo "make native-coverage   what the native tests reach"
	@echo "make abi      the delegate's C ABI against TensorFlow Lite's headers"
	@echo "make versions one packed file on five interpreters"
	@echo "make fuzz-plan   hostile plans under sanitizers"
	@echo "make fuzz     the codec under sanitizers, a million mutated inputs"
	@echo "make release  dist/: source archive, wheels, list of parts, all checked"
	@echo "make same-files BASE=revision   exports as that revision does, to the byte"
	@echo "make android  the Android library: built, tested on the JVM, packed as .aar"
	@echo "make clean    remove everything that was built"

NOTEBOOKS_RUN := build/notebooks/run
BOUNDS := build/bounds

include export/native/native.mk
include export/android/android.mk
include release/release.mk

.PHONY: help install demo test test-backends lint notebooks docs commands same-files clean

$(VENV)/installed: setup.cfg setup.py pyproject.toml
	$(PYTHON_BIN) -m venv $(VENV)
	$(PYTHON) -m pip install -q --upgrade pip
	@# setuptools warns of every editable install
	PYTHONWARNINGS=ignore $(PYTHON) -m pip install -q -e '.[test,docs]'
	touch $@

install: $(VENV)/installed

demo: install
	$(VENV)/bin/dqa demo --output build/demo

lint: install lint-native
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	@# These see the package as it is installed: export/ inside dqa_keras/.
	rm -rf build/typed && mkdir -p build/typed
	cp -r dqa_keras build/typed && cp -r export build/typed/dqa_keras/export
	cd build/typed && $(abspath $(VENV))/bin/lint-imports --no-logo --no-cache $(CURDIR)/setup.cfg
	cd build/typed && $(abspath $(PYTHON)) -m mypy --config-file $(CURDIR)/setup.cfg -p dqa_keras

# What the tests of the report open it in.
browser:
	@$(call need,chromedriver,chromium chromium-driver)

test: install browser
	$(PYTHON) -m pytest --doctest-modules dqa_keras export tests -n 2 --dist loadfile \
	  --ignore tests/docs/notebooks_test.py --ignore tests/backends --ignore tests/slow \
	  --cov=dqa_keras --cov=export --cov-report=term:skip-covered --cov-fail-under=90

# An environment of its own: no TensorFlow in it, so nothing can lean on it by accident.
test-backends: install
	$(PYTHON_BIN) -m venv build/backends
	build/backends/bin/python -m pip install -q --upgrade pip
	build/backends/bin/python -m pip install -q ai-edge-litert flatbuffers jax keras \
	  matplotlib numpy torch tqdm
	DQA_BACKENDS_PYTHON=$(abspath build/backends/bin/python) \
	  $(PYTHON) -m pytest tests/backends

commands: install
	$(PYTHON) -m pytest tests/slow/commands_test.py

distribution: install
	$(PYTHON) -m pytest tests/slow/distribution_test.py -n 2

# Processes killed at every stage and within every write.
faults: install
	@$(call need,g++,g++)
	$(PYTHON) -m pytest tests/slow/kill_test.py

# The oldest versions that setup.cfg allows; the newest are what every other target has.
$(BOUNDS)/installed: setup.cfg
	$(PYTHON_BIN) -m venv --clear $(BOUNDS)
	sed -n 's/^ *\([a-z-]*\)>=\([0-9.]*\).*/\1==\2/p' setup.cfg > $(BOUNDS)/oldest.txt
	sed '1,/^install_requires/d; /^$$/,$$d; s/#.*//' setup.cfg > $(BOUNDS)/required.txt
	$(BOUNDS)/bin/pip install -q -c $(BOUNDS)/oldest.txt -r $(BOUNDS)/required.txt \
	  pytest hypothesis
	touch $@

# LiteRT's CompiledModel, which only tests use, came to its wheels later.
bounds: $(BOUNDS)/installed
	@$(call need,g++,g++)
	rm -rf build/lib.* # setuptools would install what an older checkout left there
	$(BOUNDS)/bin/pip install -q --no-deps --force-reinstall .
	$(BOUNDS)/bin/pytest tests/layers_test.py tests/quantizers_test.py \
	  tests/calibration/calibrate_test.py tests/export/tflite_test.py \
	  tests/export/native/litert/litert_kernel_test.py -k 'not compiled_model'

# What the site shows of the notebooks is what they printed when last run.
$(NOTEBOOKS_RUN): $(wildcard notebooks/*.ipynb dqa_keras/*.py dqa_keras/*/*.py \
    export/*.py export/*/*.py) | install
	$(PYTHON) -m pytest tests/docs/notebooks_test.py
	touch $@

notebooks: $(NOTEBOOKS_RUN)

docs: $(NOTEBOOKS_RUN)
	@$(call need,dot,graphviz)
	rm -rf build/site && mkdir -p build/site/export
	cp -r docs benchmarks *.md build/site && cp export/FORMAT.md build/site/export
	cp -r build/notebooks build/site/docs
	$(PYTHON) -m sphinx -q -W --keep-going -b html build/site/docs build/docs
	@echo "open build/docs/index.html"

# What a refactoring must keep: the files of this revision beside those of another.
same-files: install
	@$(call need,g++,g++)
	$(PYTHON) release/same_files.py $(BASE)

clean:
	rm -rf build dist .venv *.egg-info .coverage .pytest_cache .ruff_cache .mypy_cache
