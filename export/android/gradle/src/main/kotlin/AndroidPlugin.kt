// What the lines for app/build.gradle.kts use and Maven Central does not have.

import org.gradle.api.Project
import org.gradle.api.artifacts.Dependency
import org.gradle.api.artifacts.dsl.DependencyHandler

// Android's plugin for Gradle, version 8: of com.android.build.api.dsl the members in use,
// named and typed as there: `noCompress: MutableCollection<String>` of AndroidResources,
// `minSdk: Int?` of what `defaultConfig` configures.

class ApplicationDefaultConfig {
    var minSdk: Int? = null
}

class AndroidResources {
    val noCompress: MutableCollection<String> = mutableListOf()
}

open class ApplicationExtension {
    val defaultConfig = ApplicationDefaultConfig()
    val androidResources = AndroidResources()

    fun defaultConfig(action: ApplicationDefaultConfig.() -> Unit) = defaultConfig.action()

    fun androidResources(action: AndroidResources.() -> Unit) = androidResources.action()
}

// Gradle's Kotlin DSL: what it generates for a module's plugins.

fun Project.android(configure: ApplicationExtension.() -> Unit) =
    extensions.getByType(ApplicationExtension::class.java).configure()

fun Project.dependencies(configuration: DependencyHandler.() -> Unit) = dependencies.configuration()

fun DependencyHandler.implementation(dependency: Any): Dependency? = add("implementation", dependency)
