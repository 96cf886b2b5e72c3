package dev.edgesdk.edgemodel

import org.json.JSONException
import org.json.JSONObject

/** One question and what the model said to it. */
data class Turn(val question: String, val answer: String)

/**
 * How a conversation is written for this model: the fixed strings of its chat template, taken apart when the app was
 * packaged (`chat.json`).
 */
class ChatFormat internal constructor(json: JSONObject) {
    /** False where the model has no chat template: each prompt is plain text and stands alone. */
    val templated: Boolean = json.getBoolean("templated")

    /** How many beginning-of-sequence tokens the runtime puts in front of a plain prompt; [start] has those it does not. */
    val bosTokens: Int = json.getInt("bos_tokens")

    /** Most tokens that a text has beyond its bytes in UTF-8. */
    internal val addedTokens: Int = json.optInt("added_tokens", 1)

    /** Texts of the tokens that end an answer; ExecuTorch passes them on like any other. */
    val stop: Set<String> = json.getJSONArray("stop").let { all -> (0 until all.length()).map(all::getString).toSet() }

    /** Whether the template takes a system text. */
    val takesSystem: Boolean = !json.isNull("system_start")

    private val start: String = json.getString("start")
    private val systemStart: String = json.optString("system_start")
    private val systemEnd: String = json.optString("system_end")
    private val answer: String = json.getString("answer")
    private val next: String = json.getString("next")
    private val trims: Boolean = json.getBoolean("trims")

    /** A whole conversation that ends with a question, ready for the answer. */
    fun render(system: String?, turns: List<Turn>, question: String): String {
        if (!templated) return start + question
        require(system == null || takesSystem) { "this model's chat template takes no system text" }
        val opening = if (system == null) start else systemStart + shaped(system) + systemEnd
        val before = turns.joinToString("") { shaped(it.question) + answer + shaped(it.answer) + next }
        return opening + before + shaped(question) + answer
    }

    /** What goes on a conversation whose last answer the model itself ended, and still holds. */
    internal fun following(question: String): String = next + shaped(question) + answer

    /** Whether the template would write an answer just as the model gave it. */
    internal fun keeps(answer: String): Boolean = templated && shaped(answer) == answer

    private fun shaped(text: String): String = if (trims) text.trim() else text

    internal companion object {
        private const val SCHEMA = 1

        fun parse(text: String): ChatFormat =
            try {
                val json = JSONObject(text)
                val schema = json.getInt("schema")
                if (schema != SCHEMA) throw BundleDamagedException("chat.json has schema $schema, not $SCHEMA")
                ChatFormat(json)
            } catch (failure: JSONException) {
                throw BundleDamagedException("chat.json cannot be read: ${failure.message}")
            }
    }
}
