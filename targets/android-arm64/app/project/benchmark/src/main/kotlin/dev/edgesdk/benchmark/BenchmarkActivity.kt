package dev.edgesdk.benchmark

import android.app.Activity
import android.os.Build
import android.os.Bundle
import android.os.PowerManager
import android.os.Process
import android.util.Log
import android.view.WindowManager
import android.widget.TextView
import dev.edgesdk.edgemodel.BundleStore
import dev.edgesdk.edgemodel.EdgeModel
import dev.edgesdk.edgemodel.EdgeModelException
import java.io.File
import java.io.IOException
import kotlin.concurrent.thread
import org.json.JSONObject

/**
 * Measures the model and writes `result.jsonl` into the app's external folder and, line by line, to logcat.
 *
 *     adb shell am start -n ID/dev.edgesdk.benchmark.BenchmarkActivity --ei new_tokens 64 --ei repeats 6 --ei warmups 1
 *         --ei sustained 0
 */
class BenchmarkActivity : Activity() {
    override fun onCreate(state: Bundle?) {
        super.onCreate(state)
        window.addFlags(WindowManager.LayoutParams.FLAG_KEEP_SCREEN_ON)
        val view = TextView(this)
        view.text = "Measuring ..."
        setContentView(view)
        thread(name = "benchmark") {
            val said = measured()
            runOnUiThread { view.text = said }
        }
    }

    private fun measured(): String {
        val folder = getExternalFilesDir(null) ?: return "this phone has no external storage"
        val partial = File(folder, "result.part")
        return try {
            Report(partial) { Log.i(TAG, it) }.use { report -> measure(report) }
        } finally {
            partial.renameTo(File(folder, "result.jsonl")) // the name says that no more will come
        }
    }

    private fun measure(report: Report): String =
        try {
            val sustained = intent.getIntExtra("sustained", 0)
            val steady = sustained > 0 && steady()
            EdgeModel.open(BundleStore.locate(this)).use { model ->
                hello(model, report, steady)
                val plan =
                    Plan(
                        intent.getIntExtra("new_tokens", 64),
                        intent.getIntExtra("repeats", 6),
                        intent.getIntExtra("warmups", 1),
                        sustained,
                    )
                Measurement(model, PhoneSensors(this), report, plan).run(prompts())
            }
            "Done."
        } catch (failure: EdgeModelException) {
            failed(report, failure)
        } catch (failure: IOException) {
            failed(report, failure)
        }

    private fun failed(report: Report, failure: Exception): String {
        report.say("error", "code" to failure.javaClass.simpleName, "message" to failure.message)
        return failure.message ?: failure.javaClass.simpleName
    }

    /** Asks for clocks that the phone can keep up for long; whether it will. */
    private fun steady(): Boolean {
        val power = getSystemService(PowerManager::class.java)
        if (Build.VERSION.SDK_INT < 24 || !power.isSustainedPerformanceModeSupported) return false
        runOnUiThread { window.setSustainedPerformanceMode(true) }
        return true
    }

    private fun hello(model: EdgeModel, report: Report, steady: Boolean) {
        report.say(
            "hello",
            "runner" to "android app",
            "protocol" to PROTOCOL,
            "runtime" to model.bundle.manifest.runtime,
            "digest" to model.bundle.manifest.digest,
            "context" to model.bundle.manifest.context,
            "ticks_per_second" to 1_000_000_000L,
            "clock" to "CLOCK_MONOTONIC",
            "pid" to Process.myPid(),
            "manufacturer" to Build.MANUFACTURER,
            "model" to Build.MODEL,
            "release" to Build.VERSION.RELEASE,
            "sdk" to Build.VERSION.SDK_INT,
            "fingerprint" to Build.FINGERPRINT,
            "abi" to Build.SUPPORTED_ABIS.firstOrNull(),
            "sustained_performance_mode" to steady,
        )
    }

    private fun prompts(): List<String> {
        val texts = JSONObject(assets.open("prompts.json").use { it.readBytes().decodeToString() })
        val lengths = texts.keys().asSequence().map { it.toString() }.sortedBy { it.toInt() }
        return lengths.map { texts.getString(it) }.toList()
    }

    private companion object {
        const val TAG = "edgesdk"
        const val PROTOCOL = 1
    }
}
