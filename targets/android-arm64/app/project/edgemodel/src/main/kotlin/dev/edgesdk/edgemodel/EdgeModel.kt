package dev.edgesdk.edgemodel

import java.io.Closeable
import java.io.File
import java.util.concurrent.atomic.AtomicBoolean
import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.channels.trySendBlocking
import kotlinx.coroutines.flow.Flow
import kotlinx.coroutines.flow.channelFlow
import kotlinx.coroutines.flow.flowOn
import org.pytorch.executorch.ExecutorchRuntimeException
import org.pytorch.executorch.extension.llm.LlmGenerationConfig
import org.pytorch.executorch.extension.llm.LlmModule
import org.pytorch.executorch.extension.llm.LlmModuleConfig

/**
 * How an answer is made.
 *
 * @property maxTokens most tokens of it. ExecuTorch shows whole characters only: where one takes several tokens, an answer
 *   may get longer than this, by no more than the prompt has bytes beyond its tokens.
 * @property temperature 0 takes the likeliest token each time; up to 1.
 */
class Sampling(val maxTokens: Int = 256, val temperature: Float = 0f) {
    init {
        require(maxTokens > 0) { "maxTokens must be 1 or more" }
        require(temperature in 0f..1f) { "ExecuTorch takes temperatures from 0 to 1" }
    }
}

/** A loaded model. Prompts go in as they are; [Conversation] writes them as the model's chat template wants them. */
class EdgeModel private constructor(
    /** What is loaded. */
    val bundle: Bundle,
    private val module: LlmModule,
    /** Seconds that loading took. */
    val loadSeconds: Double,
) : Closeable {
    private val answering = AtomicBoolean(false)
    @Volatile private var listener: Listener? = null

    /** Tokens that the model holds; what comes next goes on after them. */
    var position: Int = 0
        private set

    /** How often something was said to the model or all of it forgotten: who remembers another number was not the last. */
    @Volatile
    internal var turn: Long = 0
        private set

    /** What the last whole answer cost; null before the first one, and after one that failed. */
    @Volatile
    var statistics: Statistics? = null
        private set

    /**
     * Answers a prompt, piece by piece, in whole characters; without the text of the token that ends it. Cancelling the
     * collection stops the model at the next token.
     *
     * An answer that reaches the end of the model's context ends there, as one that reaches [Sampling.maxTokens] does.
     * Collecting throws [BusyException], [ContextFullException] where the prompt itself has no room, or
     * [GenerationFailedException].
     */
    fun stream(prompt: String, sampling: Sampling = Sampling()): Flow<String> =
        channelFlow<String> { answer(prompt, sampling) { trySendBlocking(it).isSuccess } }.flowOn(Dispatchers.IO)

    /** Answers a prompt on this thread; [onText] says whether it wants more. */
    @Throws(EdgeModelException::class)
    fun answer(prompt: String, sampling: Sampling = Sampling(), onText: (String) -> Boolean): Statistics {
        if (!answering.compareAndSet(false, true)) throw BusyException()
        try {
            statistics = null
            turn++
            val room = bundle.manifest.context - position
            if (room < 2) throw ContextFullException(bundle.manifest.context)
            val listening = Listener(bundle.chat.stop, sampling.maxTokens, onText) { module.stop() }
            listener = listening
            run(prompt, sampling, listening, room)
            val (counts, made) = listening.result()
            position += counts.prompt + counts.afterFirst
            statistics = made
            return made
        } finally {
            listener = null
            answering.set(false)
        }
    }

    private fun run(prompt: String, sampling: Sampling, listening: Listener, room: Int) {
        val manifest = bundle.manifest
        // a token is at least one byte of the text, so no more than these are held after the prompt
        val held = position + prompt.encodeToByteArray().size + bundle.chat.bosTokens + bundle.chat.addedTokens
        val end = minOf(held.toLong() + sampling.maxTokens, manifest.context.toLong()).toInt()
        val config =
            LlmGenerationConfig.create()
                .echo(false)
                .seqLen(if (manifest.runsAsRing) minOf(sampling.maxTokens, room) else end)
                .temperature(sampling.temperature)
                .build()
        try {
            listening.begin()
            module.generate(prompt, config, listening)
        } catch (failure: ExecutorchRuntimeException) {
            val full = held + listening.pieces >= manifest.context
            if (full && manifest.runsAsRing && listening.pieces > 0) return listening.filled(room)
            forget()
            if (full && listening.pieces == 0) throw ContextFullException(manifest.context, failure)
            val said = listening.error ?: failure.message ?: "no message"
            throw GenerationFailedException(failure.errorCode, "ExecuTorch failed in an answer: $said", failure)
        }
    }

    /** Stops the answer that is being written, after its next token; from any thread. */
    fun stop() {
        listener?.stopped = true
        module.stop()
    }

    /** Forgets everything that was said. */
    @Throws(EdgeModelException::class)
    fun reset() {
        if (!answering.compareAndSet(false, true)) throw BusyException()
        try {
            forget()
        } finally {
            answering.set(false)
        }
    }

    private fun forget() {
        module.resetContext()
        position = 0
        turn++
    }

    /** Frees the model. An answer that is being written must be stopped, and have ended, before. */
    override fun close() {
        if (!answering.compareAndSet(false, true)) throw IllegalStateException("stop the answer before closing")
        try {
            module.close()
        } finally {
            answering.set(false)
        }
    }

    companion object {
        /**
         * Checks every byte of a bundle and loads it. Not on the main thread.
         *
         * @param folder see [BundleStore.locate].
         * @throws BundleMissingException there is none.
         * @throws BundleDamagedException it is not the one that the app was packaged with.
         * @throws LoadFailedException ExecuTorch refuses it.
         */
        @Throws(EdgeModelException::class)
        fun open(folder: File, pinned: Pinned = Pinned.packaged): EdgeModel {
            val bundle = Bundle.open(folder, pinned)
            val started = System.nanoTime()
            val config =
                LlmModuleConfig.create()
                    .modulePath(bundle.program.path)
                    .tokenizerPath(bundle.tokenizer.path)
                    .temperature(0f)
                    .dataPath(null) // the default, an empty text, is taken for a file
                    .numBos(bundle.chat.bosTokens)
                    .loadMode(LlmModuleConfig.LOAD_MODE_MMAP)
                    .build()
            val module =
                try {
                    LlmModule(config).also { it.load() }
                } catch (failure: ExecutorchRuntimeException) {
                    val message = "ExecuTorch refuses the model: ${failure.message}"
                    throw LoadFailedException(failure.errorCode, message, failure)
                }
            return EdgeModel(bundle, module, (System.nanoTime() - started) / 1e9)
        }
    }
}
