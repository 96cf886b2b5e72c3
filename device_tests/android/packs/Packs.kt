package dev.edgesdk.edgemodel

import android.app.Activity
import android.content.Context
import com.google.android.gms.tasks.OnFailureListener
import com.google.android.gms.tasks.OnSuccessListener
import com.google.android.gms.tasks.Task
import com.google.android.play.core.assetpacks.AssetPackLocation
import com.google.android.play.core.assetpacks.AssetPackManager
import com.google.android.play.core.assetpacks.AssetPackManagerFactory
import com.google.android.play.core.assetpacks.AssetPackState
import com.google.android.play.core.assetpacks.AssetPackStateUpdateListener
import com.google.android.play.core.assetpacks.AssetPackStates
import com.google.android.play.core.assetpacks.model.AssetPackStatus
import java.io.File
import kotlin.system.exitProcess
import kotlinx.coroutines.flow.first
import kotlinx.coroutines.runBlocking
import org.json.JSONObject

/** Damages what was pushed, and what Google Play fetched, and takes the way out; prints what each step came to. */
fun main(arguments: Array<String>) {
    val (home, whole) = arguments.map(::File)
    val play = Play(whole, File(home, "pack"))
    AssetPackManagerFactory.manager = play
    val context = Context(home, File(home, "no assets"))
    val said = JSONObject()
    fun step(name: String, work: suspend () -> Any) {
        val found =
            try {
                runBlocking { work() }.toString()
            } catch (failure: EdgeModelException) {
                "${failure.javaClass.simpleName}: ${failure.message}"
            }
        said.put(name, found)
    }
    suspend fun opened(): String = Bundle.open(BundleStore.locate(context)).folder.relativeTo(home).path
    suspend fun fetched() = ModelPack(context).fetch().first().javaClass.simpleName

    step("before") { opened() }
    step("fetched") { fetched() }
    step("opened") { opened() }
    val pushed = File(home, "external/edgemodel")
    whole.copyRecursively(pushed)
    spoil(pushed)
    step("pushed is damaged") { opened() }
    step("pushed is forgotten") { BundleStore.forget(context) }
    step("the pack counts again") { opened() }
    spoil(File(home, "pack/edgemodel"))
    step("pack is damaged") { opened() }
    play.fails = true
    step("pack stays") { BundleStore.forget(context) }
    play.fails = false
    step("pack is forgotten") { BundleStore.forget(context) }
    step("pack is gone") { opened() }
    step("pack is fetched") { fetched() }
    step("pack is whole") { opened() }
    File(home, "pack/edgemodel/bundle/manifest.json").delete()
    step("pack is empty") { opened() }
    println(said)
    exitProcess(0)
}

private fun spoil(folder: File) = File(folder, "bundle/model.pte").appendText("x")

/** As much of Google Play as the library asks for. */
private class Play(private val whole: File, private val pack: File) : AssetPackManager {
    var fails = false

    override fun getPackLocation(name: String): AssetPackLocation? =
        if (!pack.isDirectory) null
        else
            object : AssetPackLocation() {
                override fun assetsPath() = pack.path
            }

    override fun fetch(names: List<String>): Task<AssetPackStates> {
        whole.copyRecursively(File(pack, "edgemodel"), overwrite = true)
        val state =
            object : AssetPackState() {
                override fun name() = names.single()

                override fun status() = AssetPackStatus.COMPLETED

                override fun errorCode() = 0

                override fun bytesDownloaded() = 1L

                override fun totalBytesToDownload() = 1L
            }
        return Done(
            object : AssetPackStates() {
                override fun packStates() = mapOf(names.single() to state)
            }
        )
    }

    override fun removePack(name: String): Task<Void> {
        if (!fails) pack.deleteRecursively()
        return Done(null, if (fails) IllegalStateException("busy") else null)
    }

    override fun registerListener(listener: AssetPackStateUpdateListener) = Unit

    override fun unregisterListener(listener: AssetPackStateUpdateListener) = Unit

    override fun showConfirmationDialog(activity: Activity): Task<Int> = Done(0)
}

private class Done<T>(private val result: T?, private val failure: Exception? = null) : Task<T>() {
    @Suppress("UNCHECKED_CAST")
    override fun addOnSuccessListener(listener: OnSuccessListener<in T>) = also {
        if (failure == null) listener.onSuccess(result as T)
    }

    override fun addOnFailureListener(listener: OnFailureListener) = also { failure?.let(listener::onFailure) }
}
