package dev.edgesdk.benchmark

import dev.edgesdk.edgemodel.EdgeModel
import dev.edgesdk.edgemodel.End
import dev.edgesdk.edgemodel.Sampling
import dev.edgesdk.edgemodel.Statistics
import java.io.File

/**
 * What is measured.
 *
 * @property newTokens most tokens of every answer.
 * @property repeats of every prompt, after the warm-ups.
 * @property warmups runs of every prompt that are not counted.
 * @property sustainedSeconds for which the first prompt is repeated without rest at the end; 0 leaves it out.
 */
internal class Plan(val newTokens: Int, val repeats: Int, val warmups: Int, val sustainedSeconds: Int)

/** Runs a plan and says everything in events; times are of `System.nanoTime`, which is CLOCK_MONOTONIC on Android. */
internal class Measurement(
    private val model: EdgeModel,
    private val sensors: Sensors,
    private val report: Report,
    private val plan: Plan,
) {
    /** Measures prompts; each is a text. */
    fun run(prompts: List<String>) {
        report.say("load", "ticks" to (model.loadSeconds * 1e9).toLong(), "ticks_per_second" to SECOND)
        look("after_load")
        for (prompt in prompts) {
            repeat(plan.warmups) { once(prompt, "warmup", it) }
            repeat(plan.repeats) { once(prompt, "repeat", it) }
        }
        look("after_run")
        val until = System.nanoTime() + plan.sustainedSeconds * SECOND
        var index = 0
        while (System.nanoTime() < until) once(prompts.first(), "sustained", index++)
        report.say("end", "at" to System.nanoTime())
    }

    private fun look(moment: String) {
        report.say("memory", "moment" to moment, "at" to System.nanoTime(), *sensors.memory().toTypedArray())
    }

    private fun once(prompt: String, kind: String, index: Int) {
        model.reset()
        report.say("sensors", "at" to System.nanoTime(), *sensors.read().toTypedArray())
        val times = LongArray(plan.newTokens + 1)
        var count = 0
        val started = System.nanoTime()
        report.say("run", "kind" to kind, "index" to index, "at" to started)
        val begun = System.nanoTime() // what was said above is not part of the answer
        val made =
            model.answer(prompt, Sampling(maxTokens = plan.newTokens)) {
                times[count++] = System.nanoTime()
                true
            }
        tell(made, begun, times.copyOf(count))
        report.say("sensors", "at" to System.nanoTime(), *sensors.read().toTypedArray())
    }

    /**
     * The answer in the protocol's events. The runtime gives whole characters, so a piece may be several tokens: only
     * where there were as many as tokens are they said to be tokens.
     */
    private fun tell(made: Statistics, begun: Long, times: LongArray) {
        val whole = times.size == if (made.end == End.MODEL) made.newTokens - 1 else made.newTokens
        val until = made.firstTokenSeconds?.let { (it * 1e9).toLong() }
        if (until == null) {
            report.say("silent", "new_tokens" to made.newTokens, "why" to "no whole character came: nothing was timed")
            return
        }
        report.say("prefill", "tokens" to made.promptTokens, "ticks" to until, "at" to begun + until)
        if (whole) {
            for (index in times.indices) {
                val next = times.getOrNull(index + 1)
                report.say("token", "ticks" to next?.let { it - times[index] }, "at" to (next ?: times[index]))
            }
        } else {
            report.say("pieces", "count" to times.size, "why" to "some characters are several tokens")
        }
        report.say(
            "done",
            "prompt_tokens" to made.promptTokens,
            "new_tokens" to made.newTokens,
            "stop" to STOPS.getValue(made.end),
            "text" to "",
            "decode_ticks" to made.decodeSeconds?.let { (it * 1e9).toLong() },
            "peak_rss_kb" to peak(),
        )
    }

    /** The most memory that this process held, kB, as the kernel says. */
    private fun peak(): Int? {
        val status = File("/proc/self/status")
        val line = if (status.canRead()) status.readLines().firstOrNull { it.startsWith("VmHWM:") } else null
        return line?.filter(Char::isDigit)?.toIntOrNull()
    }

    private companion object {
        const val SECOND = 1_000_000_000L
        val STOPS = mapOf(End.MODEL to "eos", End.LENGTH to "length", End.STOPPED to "user")
    }
}
