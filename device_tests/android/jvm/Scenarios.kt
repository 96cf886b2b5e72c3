package dev.edgesdk.edgemodel

import android.content.Context
import java.io.File
import kotlin.system.exitProcess
import kotlinx.coroutines.flow.take
import kotlinx.coroutines.flow.toList
import kotlinx.coroutines.runBlocking
import org.json.JSONArray
import org.json.JSONObject

/**
 * Runs the library on the JVM; prints one line of JSON. Arguments: a scenario, the model's folder, then its own. A
 * scenario with a `+` takes any model; others only the one that the library was packaged with.
 */
fun main(arguments: Array<String>) {
    val (scenario, folder) = arguments
    val rest = arguments.drop(2)
    val said = JSONObject()
    try {
        when (scenario) {
            "copy" -> copy(folder, rest, said)
            "packaged" -> said.put("version", Bundle.open(File(folder)).version)
            "signed" -> said.put("version", Bundle.openSigned(File(folder), Signer(rest[0], rest[1].toLong())).version)
            "vectors" -> vectors(File(rest[0]), said)
            else -> {
                val pinned = if (scenario.startsWith("+")) ownPins(File(folder)) else Pinned.packaged
                val work = scenarios.getValue(scenario.removePrefix("+"))
                EdgeModel.open(File(folder), pinned).use { work(it, rest, said) }
            }
        }
    } catch (failure: EdgeModelException) {
        said.put("error", failure.javaClass.simpleName).put("message", failure.message)
    }
    println(said)
    exitProcess(0)
}

private val scenarios =
    mapOf<String, (EdgeModel, List<String>, JSONObject) -> Any?>(
        "stream" to ::stream,
        "stop" to ::stop,
        "cancel" to ::cancel,
        "chat" to ::chat,
        "busy" to ::busy,
        "two" to ::two,
        "stop_first" to ::stopFirst,
        "fill" to ::fill,
    )

/** What a folder holds, whatever the app was packaged with. */
private fun ownPins(folder: File): Pinned {
    val digest = JSONObject(File(folder, Bundle.MANIFEST).readText()).getString("digest")
    return Pinned(digest, sha256(File(folder, Bundle.CHAT).inputStream()))
}

private fun stream(model: EdgeModel, rest: List<String>, said: JSONObject) = runBlocking {
    val pieces = model.stream(rest[0], Sampling(maxTokens = rest[1].toInt())).toList()
    said.put("pieces", JSONArray(pieces)).put("position", model.position).put("load", model.loadSeconds)
    tell(model.statistics, said)
}

/** Stops after some pieces, from another thread than the model's. */
private fun stop(model: EdgeModel, rest: List<String>, said: JSONObject) = runBlocking {
    var heard = 0
    model.stream(rest[0], Sampling(maxTokens = 400)).collect { if (++heard == rest[1].toInt()) model.stop() }
    said.put("heard", heard)
    tell(model.statistics, said)
}

/** Wants no more after some pieces, and asks again. */
private fun cancel(model: EdgeModel, rest: List<String>, said: JSONObject) = runBlocking {
    val pieces = model.stream(rest[0], Sampling(maxTokens = 400)).take(rest[1].toInt()).toList()
    said.put("pieces", JSONArray(pieces)).put("position", model.position)
    model.reset()
    said.put("again", JSONArray(model.stream(rest[0], Sampling(maxTokens = 4)).toList()))
}

private fun chat(model: EdgeModel, rest: List<String>, said: JSONObject) = runBlocking {
    val talk = Conversation(model)
    val answers = JSONArray()
    val positions = JSONArray()
    for (question in rest.drop(1)) {
        answers.put(talk.ask(question, Sampling(maxTokens = rest[0].toInt())).toList().joinToString(""))
        positions.put(model.position)
    }
    said.put("answers", answers).put("positions", positions).put("turns", talk.turns.size)
    tell(model.statistics, said)
}

/** Two conversations with one model, in turns. */
private fun two(model: EdgeModel, rest: List<String>, said: JSONObject) = runBlocking {
    val one = Conversation(model)
    val other = Conversation(model)
    for ((talk, question) in listOf(one to rest[0], other to rest[1], one to rest[2])) talk.ask(question).toList()
    said.put("position", model.position)
    tell(model.statistics, said)
}

/** Asks until the context is full, and then again from the start. */
private fun fill(model: EdgeModel, rest: List<String>, said: JSONObject) {
    val ends = JSONArray().put(model.answer(rest[0], Sampling(maxTokens = 400)) { true }.end)
    said.put("ends", ends)
    try {
        model.answer("L") { true }
    } catch (failure: EdgeModelException) {
        said.put("then", failure.javaClass.simpleName)
    }
    model.reset()
    val anew = JSONArray()
    model.answer("L", Sampling(maxTokens = 2)) { anew.put(it) != null }
    said.put("anew", anew)
}

private fun busy(model: EdgeModel, rest: List<String>, said: JSONObject) {
    model.answer(rest[0], Sampling(maxTokens = 8)) {
        try {
            model.answer("b") { true }
        } catch (failure: BusyException) {
            said.put("second", failure.javaClass.simpleName)
        }
        true
    }
}

/** Stops at the first piece, which ExecuTorch would forget. */
private fun stopFirst(model: EdgeModel, rest: List<String>, said: JSONObject) {
    model.answer(rest[0], Sampling(maxTokens = 400)) {
        model.stop()
        true
    }
    tell(model.statistics, said)
}

/** Copies the model from assets twice, opens the copy, and says where it lies. */
private fun copy(folder: String, rest: List<String>, said: JSONObject) {
    val context = Context(File(rest[0]), File(folder))
    val found = BundleStore.locate(context)
    val opened = Bundle.open(found)
    said.put("folder", found.path).put("digest", opened.manifest.digest).put("version", opened.version)
    val marked = File(found, Bundle.CHAT).also { it.setLastModified(1_000_000_000_000) }
    said.put("again", BundleStore.locate(context).path == found.path)
    said.put("untouched", marked.lastModified() == 1_000_000_000_000)
}

/** What the verifier says of each line: key, signature and message in hexadecimal. */
private fun vectors(file: File, said: JSONObject) {
    fun bytes(text: String) = text.chunked(2).map { it.toInt(16).toByte() }.toByteArray()

    val verdicts =
        file.readLines().map { line ->
            val (key, signature, message) = line.split(" ").map { bytes(it) }
            Ed25519.verify(key, signature, message)
        }
    said.put("verdicts", JSONArray(verdicts))
}

private fun tell(statistics: Statistics?, said: JSONObject) {
    if (statistics == null) return
    said.put("prompt", statistics.promptTokens).put("new", statistics.newTokens).put("end", statistics.end.name)
    said.put("first", statistics.firstTokenSeconds ?: JSONObject.NULL)
    said.put("prefill", statistics.prefillRate ?: JSONObject.NULL)
    said.put("decode", statistics.decodeRate ?: JSONObject.NULL)
}
