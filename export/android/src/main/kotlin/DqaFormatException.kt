package io.github.dqakeras

/** A file, or what is stored in it, is damaged, foreign or of a newer version. */
public class DqaFormatException internal constructor(message: String) : Exception(message)
