# The Android library: `make android` builds it, tests it on the JVM and packs an .aar.
# With ANDROID_NDK=/path/to/ndk the .aar's libraries are for Android; else they are for
# Linux, which the JVM's tests load, and the file's name says so.

ANDROID := export/android
ANDROID_BUILD := build/android
ANDROID_NDK ?=
ANDROID_AAR := $(if $(ANDROID_NDK),dqa-android,dqa-android-linux).aar
# ABI for Android, processor and compiler on Linux.
ANDROID_ABIS := x86_64,x86_64,g++ arm64-v8a,aarch64,aarch64-linux-gnu-g++ \
	armeabi-v7a,armv7,arm-linux-gnueabihf-g++
# Their classes lie in jars inside AARs; the last ones fit the interpreter for Linux.
TFLITE_AARS := tensorflow-lite:2.16.1 tensorflow-lite-api:2.16.1 tensorflow-lite:2.6.0
TFLITE_LINUX := ai.djl.tflite:tflite-native-cpu:2.6.2:jar:linux-x86_64
ANDROID_SNIPPETS = $(PYTHON) $(ANDROID)/snippets.py $(ANDROID_BUILD) docs/android.md

.PHONY: android kotlin android-native android-jars android-models

android: android-native android-jars android-models
	$(ANDROID_SNIPPETS) $(ANDROID_BUILD)/models/*/README.md
	mvn -q -B -f $(ANDROID) verify -Daar=$(ANDROID_AAR)
	mvn -q -B -f $(ANDROID)/gradle test -Daar=$(ANDROID_AAR)
	@echo "wrote $(ANDROID_BUILD)/$(ANDROID_AAR)"

# The Kotlin alone, that of docs/android.md with it: no native code, no
# tests.
kotlin: android-jars install
	mkdir -p $(ANDROID_BUILD)/models
	$(ANDROID_SNIPPETS)
	mvn -q -B -f $(ANDROID) test-compile

# libdqa_delegate.so for each ABI.
android-native:
	@$(call need,cmake,cmake)
	@$(call need,javac,default-jdk-headless)
	@$(call need,g++,g++)
	@$(call need,aarch64-linux-gnu-g++,g++-aarch64-linux-gnu)
	@$(call need,arm-linux-gnueabihf-g++,g++-arm-linux-gnueabihf)
	rm -rf $(ANDROID_BUILD)/aar
	headers=$$(dirname $$(readlink -f $$(command -v javac)))/../include; \
	for each in $(ANDROID_ABIS); do \
		set -- $$(echo $$each | tr , ' ') && out=$(ANDROID_BUILD)/linux/$$1 && \
		cmake -S $(NATIVE) -B $$out -DCMAKE_SYSTEM_NAME=Linux \
			-DCMAKE_SYSTEM_PROCESSOR=$$2 -DCMAKE_CXX_COMPILER=$$3 \
			"-DJAVA_HEADERS=$$headers;$$headers/linux" >/dev/null && \
		cmake --build $$out --target dqa_delegate -j 2 >/dev/null && \
		if [ -n "$(ANDROID_NDK)" ]; then \
			out=$(ANDROID_BUILD)/ndk/$$1 && \
			cmake -S $(NATIVE) -B $$out -DANDROID_ABI=$$1 -DANDROID_PLATFORM=android-24 \
				-DCMAKE_TOOLCHAIN_FILE=$(ANDROID_NDK)/build/cmake/android.toolchain.cmake && \
			cmake --build $$out --target dqa_delegate -j 2; \
		fi && mkdir -p $(ANDROID_BUILD)/aar/jni/$$1 && \
		cp $$out/libdqa_delegate.so $(ANDROID_BUILD)/aar/jni/$$1 || exit 1; \
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

# Models for the tests, and the Kotlin that comes with them.
android-models: extensions
	rm -rf $(ANDROID_BUILD)/models
	$(PYTHON) $(ANDROID)/make_models.py $(ANDROID_BUILD)/models
