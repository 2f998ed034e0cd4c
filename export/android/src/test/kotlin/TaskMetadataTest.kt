package io.github.dqakeras

import org.junit.jupiter.api.Assertions.assertArrayEquals
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertFalse
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Test
import org.tensorflow.lite.support.metadata.MetadataExtractor
import org.tensorflow.lite.support.metadata.schema.AssociatedFileType
import org.tensorflow.lite.support.metadata.schema.ColorSpaceType
import org.tensorflow.lite.support.metadata.schema.ContentProperties
import org.tensorflow.lite.support.metadata.schema.ImageProperties
import org.tensorflow.lite.support.metadata.schema.NormalizationOptions
import org.tensorflow.lite.support.metadata.schema.ProcessUnitOptions

/** What Task Library's own reader finds in an export. */
internal class TaskMetadataTest {
    private val extractor = MetadataExtractor(direct(Exported("task", "builtin").bytes))

    @Test
    fun `the model names itself and needs no newer reader`() {
        assertTrue(extractor.hasMetadata())
        assertTrue(extractor.isMinimumParserVersionSatisfied)
        assertEquals("task", extractor.modelMetadata.name())
        assertEquals(1, extractor.inputTensorCount)
        assertEquals(1, extractor.outputTensorCount)
        assertArrayEquals(intArrayOf(1, 8, 10, 3), extractor.getInputTensorShape(0))
    }

    @Test
    fun `the input is an image with its normalization`() {
        val input = extractor.getInputTensorMetadata(0)!!
        assertEquals(ContentProperties.ImageProperties, input.content().contentPropertiesType())
        val image = input.content().contentProperties(ImageProperties()) as ImageProperties
        assertEquals(ColorSpaceType.RGB, image.colorSpace())
        val unit = (0 until input.processUnitsLength()).map(input::processUnits).single()
        assertEquals(ProcessUnitOptions.NormalizationOptions, unit.optionsType())
        val options = unit.options(NormalizationOptions()) as NormalizationOptions
        assertEquals(listOf(120f, 121f, 122f), List(options.meanLength(), options::mean))
        assertEquals(listOf(60f, 60f, 60f), List(options.stdLength(), options::std))
        assertEquals(List(3) { (255f - 120 - it) / 60 }, List(input.stats().maxLength(), input.stats()::max))
        assertEquals(List(3) { (0f - 120 - it) / 60 }, List(input.stats().minLength(), input.stats()::min))
    }

    @Test
    fun `the output has its labels in a file`() {
        val output = extractor.getOutputTensorMetadata(0)!!
        val file = (0 until output.associatedFilesLength()).map(output::associatedFiles).single()
        assertEquals(AssociatedFileType.TENSOR_AXIS_LABELS, file.type())
        assertEquals(setOf(file.name()), extractor.associatedFileNames)
        val labels = extractor.getAssociatedFile(file.name()).use { it.reader().readLines() }
        assertEquals(listOf("é", "two", "3"), labels)
        val own = DqaMetadata.read(direct(Exported("task", "builtin").bytes))
        assertEquals(labels, own.labels)
    }

    @Test
    fun `a file that does not serve has none`() {
        assertFalse(MetadataExtractor(direct(Exported("resnet32", "builtin").bytes)).hasMetadata())
    }
}
