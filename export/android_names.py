"""Names of classes that no generated Kotlin class may have."""

# What Kotlin 2.0 and Java 17 import into every file, and what generated files import: a
# class of the same name would hide it in all of its package.
_TAKEN = """
    AbstractCollection AbstractIterator AbstractList AbstractMap AbstractMethodError
    AbstractMutableList AbstractMutableMap AbstractMutableSet AbstractSet
    AccessDeniedException Activity ActivityNotFoundException Annotation
    AnnotationRetention AnnotationTarget Any Appendable ArithmeticException Array
    ArrayDeque ArrayIndexOutOfBoundsException ArrayList ArrayStoreException
    AssertionError AutoCloseable Bitmap BitmapFactory Boolean BooleanArray
    BooleanIterator BootstrapMethodError BuilderInference Bundle Button Byte
    ByteArray ByteIterator Char CharArray CharCategory CharIterator CharProgression
    CharRange CharSequence Character CharacterCodingException Charsets Class
    ClassCastException ClassCircularityError ClassFormatError ClassLoader
    ClassNotFoundException ClassValue ClipData CloneNotSupportedException Cloneable
    ClosedFloatingPointRange ClosedRange Collection Color Comparable Comparator
    Compiler ConcurrentModificationException ContentProvider ContentResolver
    ContentValues Context ContextFunctionTypeParams Cursor DeepRecursiveFunction
    DeepRecursiveScope Deprecated DeprecatedSinceKotlin DeprecationLevel Double
    DoubleArray DoubleIterator DslMarker EmptyIterator EmptyList EmptySet Enum
    EnumConstantNotPresentException Error Exception ExceptionInInitializerError
    Executors ExifInterface ExperimentalMultiplatform ExperimentalStdlibApi
    ExperimentalUnsignedTypes ExposedCopyVisibility ExtensionFunctionType File
    FileAlreadyExistsException FileNotFoundException FilePathComponents
    FileSystemException FileTreeWalk FileWalkDirection Float FloatArray
    FloatIterator Function FunctionalInterface Grouping HashMap HashSet HexFormat
    IOException IllegalAccessError IllegalAccessException IllegalArgumentException
    IllegalCallerException IllegalMonitorStateException IllegalStateException
    IllegalThreadStateException ImageView IncompatibleClassChangeError
    IndexOutOfBoundsException IndexedValue InheritableThreadLocal InputStream
    InstantiationError InstantiationException Int IntArray IntIterator
    IntProgression IntRange Integer Intent InternalError Interpreter
    InterruptedException Iterable Iterator JvmDefault JvmDefaultWithCompatibility
    JvmDefaultWithoutCompatibility JvmField JvmInline JvmMultifileClass JvmName
    JvmOverloads JvmPackageName JvmRecord JvmStatic JvmSuppressWildcards
    JvmSynthetic JvmWildcard KotlinNothingValueException KotlinNullPointerException
    KotlinReflectionNotSupportedError KotlinVersion LayerInstantiationException Lazy
    LazyThreadSafetyMode LinearLayout LinkageError LinkedHashMap LinkedHashSet List
    ListIterator Locale Long LongArray LongIterator LongProgression LongRange
    MainActivity Map MatchGroup MatchGroupCollection MatchNamedGroupCollection
    MatchResult Math Matrix MediaStore Metadata MustBeDocumented MutableCollection
    MutableIterable MutableIterator MutableList MutableListIterator MutableMap
    MutableSet NegativeArraySizeException NoClassDefFoundError
    NoSuchElementException NoSuchFieldError NoSuchFieldException NoSuchFileException
    NoSuchMethodError NoSuchMethodException NoWhenBranchMatchedException
    NotImplementedError Nothing NullPointerException Number NumberFormatException
    Object OnErrorAction OpenEndRange OptIn OptionalExpectation OutOfMemoryError
    OverloadResolutionByLambdaReturnType Override Pair ParameterName
    ParcelFileDescriptor PictureProvider Pictures Process ProcessBuilder
    ProcessHandle PublishedApi PurelyImplements RandomAccess Readable Record
    ReflectiveOperationException Regex RegexOption Repeatable ReplaceWith
    RequiresOptIn Result Retention Runnable Runtime RuntimeException
    RuntimePermission SafeVarargs SecurityException SecurityManager Sequence
    SequenceScope Set Short ShortArray ShortIterator SinceKotlin StackOverflowError
    StackTraceElement StackWalker StrictMath Strictfp String StringBuffer
    StringBuilder StringIndexOutOfBoundsException Suppress SuppressWarnings
    Synchronized System Target TextView Thread ThreadDeath ThreadGroup ThreadLocal
    Throwable Throws Transient Triple TypeCastException TypeNotPresentException
    Typography UByte UByteArray UInt UIntArray UIntProgression UIntRange ULong
    ULongArray ULongProgression ULongRange UShort UShortArray
    UninitializedPropertyAccessException Unit UnknownError UnsafeLazyImpl
    UnsafeVariance UnsatisfiedLinkError UnsupportedClassVersionError
    UnsupportedOperationException Uri VerifyError VirtualMachineError Void Volatile
    WasExperimental
"""


def class_name(asset: str) -> str:
    """A Kotlin class for a model's file: `small_cnn` becomes `SmallCnn`.

    Args:
        asset: String. Letters a to z, digits and underscores; begins with a letter.

    Returns:
        A name that hides none of Kotlin's own or of this library: `string` becomes
        `StringModel`.
    """
    name = "".join(part.capitalize() for part in asset.split("_"))
    is_ours = name.startswith("Dqa")
    return f"{name}Model" if name in _TAKEN.split() or is_ours else name
