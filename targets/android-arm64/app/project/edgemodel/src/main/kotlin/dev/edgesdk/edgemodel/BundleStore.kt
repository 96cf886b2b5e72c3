package dev.edgesdk.edgemodel

import android.content.Context
import java.io.File
import java.io.IOException

/** Where the model is on this device. */
object BundleStore {
    private const val NAME = "edgemodel"

    /**
     * The folder of the model: one that a developer pushed with adb, else the pack that Google Play fetched, else the
     * app's own assets, which are copied once because ExecuTorch needs a path. Not on the main thread.
     *
     * @throws BundleMissingException it is in none of them: see [ModelPack] for one that is being fetched.
     * @throws BundleDamagedException the pack that Google Play fetched holds no model: see [forget].
     * @throws NoSpaceException there is no room for the copy.
     */
    @Throws(EdgeModelException::class)
    fun locate(context: Context): File {
        pushed(context)?.let { return it }
        val pack = ModelPack(context).folder()?.let { File(it, NAME) } ?: return copied(context)
        if (!File(pack, Bundle.MANIFEST).isFile) throw BundleDamagedException("$pack holds no model")
        return pack
    }

    /**
     * Removes the model that [locate] gives, the way out of a [BundleDamagedException]: the next one counts then, or is
     * fetched or copied anew. Not on the main thread.
     *
     * @throws BundleDamagedException it cannot be removed.
     */
    suspend fun forget(context: Context) {
        val pushed = pushed(context)
        val pack = ModelPack(context)
        if (pushed != null) {
            if (!pushed.deleteRecursively()) {
                throw BundleDamagedException("$pushed cannot be removed from here: adb shell rm -r $pushed")
            }
        } else if (pack.folder() != null) {
            pack.remove()
        } else {
            forgetCopy(context)
        }
    }

    private fun pushed(context: Context): File? =
        context.getExternalFilesDir(null)?.let { File(it, NAME) }?.takeIf { File(it, Bundle.MANIFEST).isFile }

    @Synchronized
    private fun forgetCopy(context: Context) {
        File(context.filesDir, NAME).deleteRecursively()
    }

    @Synchronized
    internal fun copied(context: Context, pinned: Pinned = Pinned.packaged): File {
        val home = File(context.filesDir, NAME)
        val folder = File(home, pinned.digest)
        if (folder.isDirectory) return folder
        val text =
            try {
                context.assets.open("$NAME/${Bundle.MANIFEST}").use { it.readBytes().decodeToString() }
            } catch (failure: IOException) {
                throw BundleMissingException("the model is not on this device: no pack, and none in the app's assets")
            }
        val files = Manifest.parse(text, pinned.digest).files
        home.deleteRecursively() // an older model, or a copy that was cut off
        val partial = File(home, "${pinned.digest}.partial")
        partial.mkdirs()
        val needed = files.sumOf { it.size }
        if (partial.usableSpace < needed) throw NoSpaceException(needed, partial.usableSpace)
        val signature = listOfNotNull(pinned.signer?.let { Signer.FILE })
        val names =
            listOf(Bundle.CHAT, Bundle.MANIFEST) + (signature + files.map { it.path }).map { "${Bundle.MODEL}/$it" }
        try {
            for (name in names) copy(context, name, File(partial, name))
        } catch (failure: IOException) {
            throw BundleDamagedException("the model in the app's assets cannot be copied: ${failure.message}")
        }
        if (!partial.renameTo(folder)) throw BundleDamagedException("$partial cannot be renamed")
        return folder
    }

    private fun copy(context: Context, name: String, target: File) {
        target.parentFile?.mkdirs()
        context.assets.open("$NAME/$name").use { source -> target.outputStream().use { source.copyTo(it) } }
    }
}
