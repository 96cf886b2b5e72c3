package dev.edgesdk.edgemodel

import org.json.JSONObject
import org.pytorch.executorch.extension.llm.LlmCallback

/**
 * Hears one answer. ExecuTorch passes on the text of the token that ends it, does not end after a first token that
 * should, and loses a stop that comes before the first token: so the end is decided here, and stop said again at every
 * piece after it.
 */
internal class Listener(
    private val stops: Set<String>,
    private val most: Int,
    private val onText: (String) -> Boolean,
    private val stop: () -> Unit,
) : LlmCallback {
    /** Set when somebody wants no more of the answer. */
    @Volatile
    var stopped = false

    /** Calls of [onResult]: at most one for a token, since a character may take several. */
    var pieces = 0
        private set

    var error: String? = null
        private set

    private var end: End? = null
    private var endedAt = 0
    private var counts: Counts? = null
    private var started = 0L
    private var first = 0L
    private var ended = 0L

    fun begin() {
        started = System.nanoTime()
    }

    override fun onResult(result: String) {
        if (pieces++ == 0) first = System.nanoTime()
        if (end == null) {
            end = heard(result)
            endedAt = pieces
        }
        if (end != null) stop()
    }

    private fun heard(text: String): End? =
        when {
            stopped -> End.STOPPED
            text in stops -> End.MODEL
            !onText(text) || stopped -> End.STOPPED
            pieces >= most -> End.LENGTH
            else -> null
        }

    override fun onStats(stats: String) {
        ended = System.nanoTime()
        counts = Counts(JSONObject(stats))
    }

    override fun onError(errorCode: Int, message: String) {
        error = message
    }

    /** The answer took all of the [room] that was left, and ExecuTorch failed at the next token in place of ending. */
    fun filled(room: Int) {
        ended = System.nanoTime()
        // A character of several tokens is one piece: what it has more is counted with the prompt.
        counts = Counts(room + 1 - pieces, pieces - 1)
    }

    /** What the answer came to, after ExecuTorch returned. */
    fun result(): Pair<Counts, Statistics> {
        val said = counts ?: throw GenerationFailedException(null, "ExecuTorch ended without counts", null)
        val decode = if (said.afterFirst > 0 && pieces > 0 && ended > first) (ended - first) / 1e9 else null
        val why = end ?: End.LENGTH
        val held = why == End.MODEL && endedAt == pieces && pieces > 1
        val until = if (pieces > 0) (first - started) / 1e9 else null
        val made = Statistics(said.prompt, said.afterFirst + 1, why, until, decode, held)
        return said to made
    }
}
