# The Android library: `make android` builds it for Android, tests it on Linux and packs
# build/android/dqa-android.aar. The compiler is the PyPI package ziglang's. With
# ANDROID_NDK=/path/to/ndk the .aar holds the NDK's libraries in place of zig's.

ANDROID := export/android
ANDROID_BUILD := build/android
ANDROID_NDK ?=
ANDROID_ABIS := arm64-v8a armeabi-v7a x86_64
ZIGLANG := ziglang==0.17.1
ANDROID_ZIG := $(ANDROID_BUILD)/$(subst ==,-,$(ZIGLANG))
# Their classes lie in jars inside AARs; the last ones fit the interpreter for Linux.
TFLITE_AARS := tensorflow-lite:2.16.1 tensorflow-lite-api:2.16.1 tensorflow-lite:2.6.0
TFLITE_LINUX := ai.djl.tflite:tflite-native-cpu:2.6.2:jar:linux-x86_64
ANDROID_SHIM_FLAGS := -O1 -Wall -Wextra -Werror
ANDROID_SNIPPETS = $(PYTHON) $(ANDROID)/snippets.py $(ANDROID_BUILD) \
	docs/android.md docs/litert2.md

.PHONY: android kotlin android-native android-shim android-jars android-models \
	android-litert2 android-robolectric

android: android-native android-shim android-jars android-models
	$(ANDROID_SNIPPETS) $(ANDROID_BUILD)/models/*/README.md
	$(MAKE) android-litert2
	mvn -q -B -f $(ANDROID) verify
	mvn -q -B -f $(ANDROID)/gradle test
	$(MAKE) android-robolectric
	@$(call need,readelf,binutils)
	DQA_ANDROID=$(abspath $(ANDROID_BUILD)) DQA_ZIG=$(abspath $(ANDROID_ZIG)) \
		$(PYTHON) -m pytest tests/slow/android_test.py
	@echo "wrote $(ANDROID_BUILD)/dqa-android.aar"

# The Kotlin alone, that of docs/android.md with it: no native code, no
# tests.
kotlin: android-jars install
	mkdir -p $(ANDROID_BUILD)/exported
	$(ANDROID_SNIPPETS)
	mvn -q -B -f $(ANDROID) test-compile

$(ANDROID_ZIG)/installed:
	$(PYTHON_BIN) -m venv --clear $(ANDROID_ZIG)
	$(ANDROID_ZIG)/bin/pip install -q $(ZIGLANG)
	touch $@

# libdqa_delegate.so for each ABI: zig's, which tests load, and those for the .aar.
android-native: $(ANDROID_ZIG)/installed
	@$(call need,javac,default-jdk-headless)
	rm -rf $(ANDROID_BUILD)/aar && mkdir -p $(ANDROID_BUILD)/aar
	$(ANDROID_ZIG)/bin/python $(ANDROID)/toolchain/build.py $(ANDROID_BUILD)/native \
		$$(dirname $$(readlink -f $$(command -v javac)))/../include
ifeq ($(ANDROID_NDK),)
	cp -r $(ANDROID_BUILD)/native $(ANDROID_BUILD)/aar/jni
else
	@$(call need,cmake,cmake)
	for abi in $(ANDROID_ABIS); do \
		out=$(ANDROID_BUILD)/ndk/$$abi && \
		cmake -S $(NATIVE) -B $$out -DANDROID_ABI=$$abi -DANDROID_PLATFORM=android-24 \
			-DCMAKE_TOOLCHAIN_FILE=$(ANDROID_NDK)/build/cmake/android.toolchain.cmake && \
		cmake --build $$out --target dqa_delegate -j 2 && \
		mkdir -p $(ANDROID_BUILD)/aar/jni/$$abi && \
		cp $$out/libdqa_delegate.so $(ANDROID_BUILD)/aar/jni/$$abi || exit 1; \
	done
endif

# What stands in for Android's C library on Linux, and what runs plans in a library. The
# 32-bit Arm compiler is that of Android's way of calling.
android-shim:
	@$(call need,g++,g++)
	@$(call need,aarch64-linux-gnu-g++,g++-aarch64-linux-gnu)
	@$(call need,arm-linux-gnueabi-g++,g++-arm-linux-gnueabi)
	@$(call need,qemu-aarch64-static,qemu-user-static)
	for each in x86_64, arm64-v8a,aarch64-linux-gnu- armeabi-v7a,arm-linux-gnueabi-; do \
		set -- $$(echo $$each | tr , ' ') && out=$(ANDROID_BUILD)/shim/$$1 && \
		mkdir -p $$out && for name in libc.so libdl.so libm.so; do \
			$$2gcc $(ANDROID_SHIM_FLAGS) -fPIC -shared -Wl,-soname,$$name -x c \
				$$(test $$name = libc.so && echo $(ANDROID)/toolchain/shim.c || \
				echo /dev/null) -Wl,--no-as-needed -lm -o $$out/$$name || exit 1; \
		done && \
		$$2g++ $(ANDROID_SHIM_FLAGS) -std=c++17 -Wno-psabi -I$(NATIVE) -I$(NATIVE)/include \
			$(NATIVE)/tests/litert/library_test.cc -ldl -o $$out/library_test || exit 1; \
	done

# What pom.xml finds under build/android.
android-jars:
	@$(call need,mvn,maven)
	@$(call need,unzip,unzip)
	mkdir -p $(ANDROID_BUILD)/jars $(ANDROID_BUILD)/tflite
	for aar in $(TFLITE_AARS); do \
		name=$$(echo $$aar | tr : -) && \
		{ test -s $(ANDROID_BUILD)/jars/$$name.jar || \
		{ mvn -q -B dependency:copy -DoutputDirectory=$(ANDROID_BUILD)/jars \
			-Dartifact=org.tensorflow:$$aar:aar && \
		unzip -p $(ANDROID_BUILD)/jars/$$name.aar classes.jar \
			> $(ANDROID_BUILD)/jars/$$name.jar; }; } || exit 1; \
	done
	test -s $(ANDROID_BUILD)/tflite/libtensorflowlite_jni.so || { \
		mvn -q -B dependency:copy -DoutputDirectory=$(ANDROID_BUILD)/tflite \
			-Dartifact=$(TFLITE_LINUX) && \
		unzip -qoj $(ANDROID_BUILD)/tflite/*.jar 'native/lib/*.so' \
			-d $(ANDROID_BUILD)/tflite; }

# The C of docs/litert2.md as the library that the page's Kotlin loads, with LiteRT 2 of
# the wheel.
ANDROID_LITERT2 := tests/export/native/litert/headers

android-litert2:
	litert=$$($(PYTHON) -c 'import ai_edge_litert; print(*ai_edge_litert.__path__)') && \
	java=$$(dirname $$(readlink -f $$(command -v javac)))/../include && \
	gcc -O1 -Wall -Wextra -Werror -fPIC -shared -I$$java -I$$java/linux \
		-I$(ANDROID_LITERT2) -I$(NATIVE)/include $(ANDROID_BUILD)/c/litert2.c \
		$$litert/libLiteRt.so $(ANDROID_BUILD)/native/x86_64/libdqa_delegate.so \
		-Wl,-rpath,$$litert -o $(ANDROID_BUILD)/c/libpacked_model.so

# The .aar in an app that was exported, on Android's own framework. Its manifest and assets
# are linked and aligned as Gradle's plugin would, against the framework's resources.
ANDROID_APP := $(ANDROID_BUILD)/app
FRAMEWORK = $(firstword $(wildcard $(HOME)/.m2/repository/org/robolectric/android-all/*/*.jar))

android-robolectric:
	@$(call need,zipalign,aapt zipalign)
	rm -rf $(ANDROID_APP) && mkdir -p $(ANDROID_APP)/assets \
		$(ANDROID_APP)/resources/com/android/tools
	unzip -q $(ANDROID_BUILD)/dqa-android.aar -d $(ANDROID_APP)
	for name in resnet32 unet; do \
		cp $(ANDROID_BUILD)/models/$${name}_packed/src/main/assets/* $(ANDROID_APP)/assets && \
		cp -r $(ANDROID_BUILD)/models/$${name}_packed/src/main/kotlin $(ANDROID_APP) \
		|| exit 1; \
	done
	cp LICENSE $(ANDROID_APP)/assets/compressed.txt
	sed -e 's|<manifest|& package="com.example.resnet32.packed"|' \
		-e 's|<application|<uses-sdk android:minSdkVersion="24" android:targetSdkVersion="34"/>&|' \
		$(ANDROID_BUILD)/models/resnet32_packed/src/main/AndroidManifest.xml \
		> $(ANDROID_APP)/AndroidManifest.xml
	aapt2 link --manifest $(ANDROID_APP)/AndroidManifest.xml -A $(ANDROID_APP)/assets \
		-0 .tflite -I $(FRAMEWORK) -o $(ANDROID_APP)/linked.apk
	zipalign 4 $(ANDROID_APP)/linked.apk $(ANDROID_APP)/app.apk
	printf '%s\n' android_resource_apk=$(abspath $(ANDROID_APP))/app.apk \
		android_merged_manifest=$(abspath $(ANDROID_APP))/AndroidManifest.xml \
		> $(ANDROID_APP)/resources/com/android/tools/test_config.properties
	echo sdk=34 > $(ANDROID_APP)/resources/robolectric.properties
	mvn -q -B -f $(ANDROID)/robolectric test

# Models and plans for the tests, and the Kotlin that comes with them.
android-models: extensions
	rm -rf $(ANDROID_BUILD)/models
	PYTHONPATH=tests/export $(PYTHON) $(NATIVE)/tests/runtime/make_cases.py \
		$(ANDROID_BUILD)/cases
	$(PYTHON) $(ANDROID)/make_models.py $(ANDROID_BUILD)/models
	rm -rf $(ANDROID_BUILD)/exported && mkdir -p $(ANDROID_BUILD)/exported
	cp -r $(ANDROID_BUILD)/models/*/src/main/kotlin/* $(ANDROID_BUILD)/exported
