// What the lines for app/build.gradle.kts use and Maven Central does not have.

import org.gradle.api.Project
import org.gradle.api.artifacts.Dependency
import org.gradle.api.artifacts.dsl.DependencyHandler

// Android's plugin for Gradle, written by hand: the members of com.android.build.api.dsl
// that are in use. `noCompress` and `androidResources` were read in the plugin's source,
// `minSdk` and `defaultConfig` only in projects that use them.

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
