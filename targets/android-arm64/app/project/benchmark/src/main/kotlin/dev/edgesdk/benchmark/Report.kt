package dev.edgesdk.benchmark

import java.io.Closeable
import java.io.File
import java.util.zip.CRC32
import org.json.JSONObject

/** Events of edgesdk's runner protocol: one JSON text on a line, each with the CRC-32 of its bytes behind a `*`. */
internal class Report(file: File, private val echo: (String) -> Unit) : Closeable {
    private val out = file.outputStream()

    fun say(event: String, vararg fields: Pair<String, Any?>) {
        val json = JSONObject().put("event", event)
        for ((name, value) in fields) json.put(name, value ?: JSONObject.NULL)
        val line = sealed(json.toString())
        out.write("$line\n".encodeToByteArray())
        echo(line)
    }

    override fun close() {
        out.fd.sync()
        out.close()
    }

    companion object {
        fun sealed(text: String): String {
            val crc = CRC32().apply { update(text.encodeToByteArray()) }
            return "%s*%08x".format(text, crc.value)
        }
    }
}
