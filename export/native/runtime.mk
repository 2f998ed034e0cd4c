# Targets for the runtime of packed models; native.mk includes this file.

RUNTIME_SOURCES := $(wildcard $(NATIVE)/runtime/*.cc $(NATIVE)/delegate/*.cc)

.PHONY: runtime-strict

# The runtime and the delegate with every warning of the native code as an error.
runtime-strict:
	@$(call need,g++,g++)
	@mkdir -p $(NATIVE_BUILD)
	g++ $(NATIVE_FLAGS) -fPIC -shared -fvisibility=hidden $(NATIVE_SOURCES) \
		$(RUNTIME_SOURCES) -o $(NATIVE_BUILD)/dqa_delegate.so
