import java.io.File
import org.gradle.api.Project
import org.gradle.testfixtures.ProjectBuilder
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.DynamicTest
import org.junit.jupiter.api.DynamicTest.dynamicTest
import org.junit.jupiter.api.TestFactory

/** Every file with lines for app/build.gradle.kts, run as a project's build script would. */
class LinesTest {
    private val work = File(System.getProperty("work")).canonicalFile

    @TestFactory
    fun resolve(): List<DynamicTest> {
        assertTrue(LINES.size > 10) { "docs/android.md and the exports: ${LINES.keys}" }
        return LINES.map { (file, lines) -> dynamicTest(file) { check(project(), lines) } }
    }

    private fun project(): Project {
        val folder = File(work, "gradle/app").apply { deleteRecursively() }
        File(System.getProperty("archive")).copyTo(File(folder, "libs/dqa-android.aar"))
        val project = ProjectBuilder.builder().withProjectDir(folder)
            .withGradleUserHomeDir(File(work, "gradle/home")).build()
        project.pluginManager.apply("java") // `implementation` and its rules
        project.extensions.create("android", ApplicationExtension::class.java)
        project.repositories.add(project.repositories.mavenCentral())
        return project
    }

    private fun check(project: Project, lines: Project.() -> Unit) {
        project.lines()
        val android = project.extensions.getByType(ApplicationExtension::class.java)
        assertEquals(24, android.defaultConfig.minSdk)
        assertEquals(listOf("tflite"), android.androidResources.noCompress)
        val files = project.configurations.getByName("runtimeClasspath").resolve()
        assertEquals(
            setOf(
                "dqa-android.aar",
                "tensorflow-lite-2.16.1.aar",
                "tensorflow-lite-api-2.16.1.aar",
                "flatbuffers-java-25.2.10.jar",
            ),
            files.map { it.name }.toSet(),
        )
        files.forEach { assertTrue(it.length() > 10_000) { "$it is missing or empty" } }
    }
}
