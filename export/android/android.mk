# The README's Kotlin, compiled against the classes of the tensorflow-lite AAR.

KOTLIN_BUILD := build/kotlin
TFLITE_ANDROID := 2.16.1

.PHONY: kotlin

kotlin:
	@$(call need,mvn,maven)
	@$(call need,javac,default-jdk-headless)
	@$(call need,unzip,unzip)
	rm -rf $(KOTLIN_BUILD) && mkdir -p $(KOTLIN_BUILD)
	mvn -q -B -f export/android dependency:copy-dependencies \
		-DoutputDirectory=$(abspath $(KOTLIN_BUILD))/jars
	for name in tensorflow-lite tensorflow-lite-api; do \
		mvn -q -B dependency:copy -DoutputDirectory=$(KOTLIN_BUILD) \
			-Dartifact=org.tensorflow:$$name:$(TFLITE_ANDROID):aar && \
		unzip -p $(KOTLIN_BUILD)/$$name-$(TFLITE_ANDROID).aar classes.jar \
			> $(KOTLIN_BUILD)/jars/$$name.jar || exit 1; \
	done
	grep -q 'org.tensorflow:tensorflow-lite:$(TFLITE_ANDROID)"' README.md
	sed -n '/^```kotlin$$/,/^```$$/{/^```/!p}' README.md > $(KOTLIN_BUILD)/Readme.kt
	java -cp '$(KOTLIN_BUILD)/jars/*' org.jetbrains.kotlin.cli.jvm.K2JVMCompiler \
		-no-stdlib -no-reflect -Werror -d $(KOTLIN_BUILD)/classes \
		-cp "$$(echo $(KOTLIN_BUILD)/jars/*.jar | tr ' ' ':')" $(KOTLIN_BUILD)/Readme.kt
	test -f $(KOTLIN_BUILD)/classes/ReadmeKt.class
