package dev.edgesdk.edgemodel

/** Everything that can go wrong with a model on a device; each subclass is one thing that an app can react to. */
sealed class EdgeModelException(message: String, cause: Throwable? = null) : Exception(message, cause)

/** The model is not on this device (yet): fetch its pack, or ask the user to. */
class BundleMissingException(message: String) : EdgeModelException(message)

/** A file of the model is not what the app was built with: [BundleStore.forget] removes it, to be fetched again. */
class BundleDamagedException(message: String) : EdgeModelException(message)

/** The model is not signed with the key that the app asks for, was changed since, or is older than the app takes. */
class BundleRefusedException(message: String) : EdgeModelException(message)

/** The disk has no room for the model. */
class NoSpaceException(val needed: Long, val free: Long) :
    EdgeModelException("the model needs $needed bytes, $free are free")

/** ExecuTorch refuses the program or the tokenizer; [code] is its error. */
class LoadFailedException(val code: Int?, message: String, cause: Throwable?) : EdgeModelException(message, cause)

/** ExecuTorch failed in the middle of an answer; [code] is its error. The conversation begins anew after it. */
class GenerationFailedException(val code: Int?, message: String, cause: Throwable?) :
    EdgeModelException(message, cause)

/** The conversation has no room left in the model's context of [context] tokens. */
class ContextFullException(val context: Int, cause: Throwable? = null) :
    EdgeModelException("the conversation fills the model's context of $context tokens: begin a new one", cause)

/** One answer at a time: another one is being written. */
class BusyException : EdgeModelException("the model is answering already")
