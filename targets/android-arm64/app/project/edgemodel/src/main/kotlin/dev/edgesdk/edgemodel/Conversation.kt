package dev.edgesdk.edgemodel

import kotlinx.coroutines.flow.Flow
import kotlinx.coroutines.flow.flow

/**
 * A conversation with a model, in the words of its chat template. What was said stays in the model: each question costs
 * its own tokens only, but for the one after an answer that was stopped or cut off, which is read together with all
 * that came before. A question whose answer failed is forgotten. A model without a chat template continues each
 * prompt by itself.
 */
class Conversation(private val model: EdgeModel, private val system: String? = null) {
    private val said = mutableListOf<Turn>()
    private var held: Long? = null // the model's turn after which it holds all that was said here, and nothing else

    /** What was said so far. */
    val turns: List<Turn> get() = said.toList()

    /** Asks a question; see [EdgeModel.stream]. */
    fun ask(question: String, sampling: Sampling = Sampling()): Flow<String> = flow {
        val format = model.bundle.chat
        val goesOn = held == model.turn && format.keeps(said.last().answer)
        val before = if (format.templated) said.toList() else emptyList()
        val prompt = if (goesOn) format.following(question) else format.render(system, before, question)
        if (!goesOn) model.reset()
        held = null
        val answer = StringBuilder()
        var failed = false
        try {
            model.stream(prompt, sampling).collect {
                answer.append(it)
                emit(it)
            }
            held = model.turn.takeIf { model.statistics?.held == true }
        } catch (failure: EdgeModelException) {
            failed = true
            throw failure
        } finally {
            if (!failed) said += Turn(question, answer.toString())
        }
    }
}
