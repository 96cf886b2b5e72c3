package dev.edgesdk.edgemodel

import org.json.JSONObject

/** Why an answer ended. */
enum class End {
    /** The model ended it. */
    MODEL,

    /** It reached the number of tokens that was asked for, or the end of the model's context. */
    LENGTH,

    /** The app or the user stopped it. */
    STOPPED,
}

/**
 * What one answer cost.
 *
 * @property promptTokens tokens of the prompt, as the runtime counted them.
 * @property newTokens tokens of the answer, the one that ends it included.
 * @property end why it ended.
 * @property firstTokenSeconds until the first piece, by this device's monotonic clock, tokenization included; null
 *   where no whole character came.
 * @property decodeSeconds for the tokens after the first; null where there were none.
 */
class Statistics internal constructor(
    val promptTokens: Int,
    val newTokens: Int,
    val end: End,
    val firstTokenSeconds: Double?,
    val decodeSeconds: Double?,
    /** Whether the model holds the answer as it was given, so that a conversation can go on after it. */
    internal val held: Boolean,
) {
    /**
     * Prompt tokens per second. ExecuTorch's own figure counts whole milliseconds; this one is of nanoseconds. Both
     * include tokenization, which the runtime does not time by itself. Null where no whole character came.
     */
    val prefillRate: Double? get() = firstTokenSeconds?.let { promptTokens / it }

    /** Tokens per second after the first one; null where there were none. */
    val decodeRate: Double? get() = decodeSeconds?.let { (newTokens - 1) / it }
}

/**
 * The counts of an answer.
 *
 * @property prompt tokens of the prompt.
 * @property afterFirst tokens after the first one, which comes from the prompt.
 */
internal class Counts(val prompt: Int, val afterFirst: Int) {
    /** Those in what ExecuTorch says at its end; the times there are of whole milliseconds and not used. */
    constructor(stats: JSONObject) : this(stats.getInt("prompt_tokens"), stats.getInt("generated_tokens"))
}
