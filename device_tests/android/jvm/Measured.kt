package dev.edgesdk.benchmark

import dev.edgesdk.edgemodel.EdgeModel
import java.io.File
import kotlin.system.exitProcess

/** Measures a model on the JVM. Arguments: its folder, the result's file, new tokens, repeats, and prompts. */
fun main(arguments: Array<String>) {
    val (folder, result, tokens, repeats) = arguments
    val plan = Plan(tokens.toInt(), repeats.toInt(), warmups = 1, sustainedSeconds = 1)
    Report(File(result)) { println(it) }.use { report ->
        EdgeModel.open(File(folder)).use { model ->
            val facts = arrayOf("runner" to "jvm", "protocol" to 1, "ticks_per_second" to 1_000_000_000L)
            report.say("hello", *facts, "text" to "ü\"\\")
            Measurement(model, Still, report, plan).run(arguments.drop(4))
        }
    }
    exitProcess(0)
}

/** A phone whose sensors say the same each time, and one thing not at all. */
private object Still : Sensors {
    override fun read(): List<Pair<String, Any?>> =
        listOf("thermal_status" to 0, "battery_celsius" to 25.5, "thermal_headroom" to null)

    override fun memory(): List<Pair<String, Any?>> = listOf("pss_kb" to 1234)
}
