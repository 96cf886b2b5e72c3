package dev.edgesdk.edgemodel

import java.io.File
import java.io.InputStream
import java.security.MessageDigest
import org.json.JSONException
import org.json.JSONObject

/** One file of a bundle, as its manifest lists it. */
class BundleFile internal constructor(val path: String, val size: Long, val sha256: String)

/** What a manifest says, as far as an app needs it. */
class Manifest internal constructor(val digest: String, json: JSONObject) {
    /** Every file but the manifest itself. */
    val files: List<BundleFile> =
        json.getJSONArray("files").let { all ->
            (0 until all.length()).map { index ->
                val entry = all.getJSONObject(index)
                BundleFile(entry.getString("path"), entry.getLong("size"), entry.getString("sha256"))
            }
        }

    /** Most tokens of a conversation. */
    val context: Int = json.getInt("context")

    /** The runtime and the versions of it that the program is for. */
    val runtime: String =
        json.getJSONObject("program").let { it.getString("runtime") + " " + it.getString("runtime_versions") }

    internal val program: String = json.getJSONObject("program").getString("main")
    internal val tokenizer: String = json.getJSONObject("tokenizer").getString("file")

    /**
     * Whether ExecuTorch takes the program for a ring without an end, as it does where a call holds fewer tokens than the
     * context: `seqLen` then counts the answer alone, and an answer that reaches the end of the context fails there. Only
     * bundles of before programs took a whole prompt in one call are like that.
     */
    internal val runsAsRing: Boolean =
        json.getJSONObject("program").getJSONObject("facts").getJSONObject("methods").let {
            it.getInt("get_max_seq_len") < it.getInt("get_max_context_len")
        }

    internal companion object {
        private const val SCHEMA = 1

        /** Reads a manifest and checks that it is the one with [digest]. */
        fun parse(text: String, digest: String): Manifest {
            // a digest is the SHA-256 of the manifest's text with the digest left empty, which comes last
            val blank = text.removeSuffix("\"digest\": \"$digest\"\n}\n") + "\"digest\": \"\"\n}\n"
            if (sha256(blank.byteInputStream()) != digest) {
                throw BundleDamagedException("manifest.json is not the one that this app was packaged with ($digest)")
            }
            return read(text)
        }

        /** Reads a manifest that was checked before. */
        fun read(text: String): Manifest =
            try {
                val json = JSONObject(text)
                val schema = json.getInt("schema")
                if (schema != SCHEMA) throw BundleDamagedException("manifest.json has schema $schema, not $SCHEMA")
                Manifest(json.getString("digest"), json)
            } catch (failure: JSONException) {
                throw BundleDamagedException("manifest.json cannot be read: ${failure.message}")
            }
    }
}

/**
 * A bundle on this device's disk whose every byte is what the app was packaged with, or what a key that the app pins has
 * signed.
 *
 * @property version of its signature; null where the app asks for none.
 */
class Bundle
private constructor(val folder: File, val manifest: Manifest, val chat: ChatFormat, val version: Long?) {
    internal val program: File get() = File(folder, "$MODEL/${manifest.program}")
    internal val tokenizer: File get() = File(folder, "$MODEL/${manifest.tokenizer}")

    companion object {
        internal const val MODEL = "bundle"
        internal const val MANIFEST = "$MODEL/manifest.json"
        internal const val CHAT = "chat.json"

        /**
         * Opens a bundle after checking size and SHA-256 of every file. It reads them all, so not on the main thread.
         *
         * @param folder holds `chat.json` and, in `bundle`, the manifest with the files that it lists.
         * @throws BundleMissingException there is none.
         * @throws BundleDamagedException a file is missing, cut off or changed.
         * @throws BundleRefusedException the app pins a key, and the model is not signed with it.
         */
        @Throws(EdgeModelException::class)
        fun open(folder: File, pinned: Pinned = Pinned.packaged): Bundle {
            val text = text(folder, MANIFEST)
            val version = pinned.signer?.check(File(folder, MODEL), text)
            return whole(folder, Manifest.parse(text, pinned.digest), pinned.chatSha256, version)
        }

        /**
         * Opens a bundle that the app was not packaged with, such as a newer one from your own server: any that
         * [signer] signed, in the same form of chat. Keep its [version], and take no older one later.
         *
         * @throws BundleMissingException there is none.
         * @throws BundleDamagedException a file is missing, cut off or changed.
         * @throws BundleRefusedException it is not signed with that key, or older.
         */
        @Throws(EdgeModelException::class)
        fun openSigned(folder: File, signer: Signer, chatSha256: String = Packaged.CHAT_SHA256): Bundle {
            val text = text(folder, MANIFEST)
            val version = signer.check(File(folder, MODEL), text)
            return whole(folder, Manifest.read(text), chatSha256, version)
        }

        private fun whole(folder: File, manifest: Manifest, chatSha256: String, version: Long?): Bundle {
            val chat = text(folder, CHAT)
            if (sha256(chat.byteInputStream()) != chatSha256) {
                throw BundleDamagedException("$CHAT is not the one that this app was packaged with")
            }
            val model = File(folder, MODEL)
            for (file in manifest.files) check(File(model, file.path), file)
            return Bundle(folder, manifest, ChatFormat.parse(chat), version)
        }

        private fun text(folder: File, name: String): String {
            val file = File(folder, name)
            if (!file.isFile) throw BundleMissingException("$file: no such file")
            return file.readText()
        }

        private fun check(file: File, wanted: BundleFile) {
            if (!file.isFile) throw BundleDamagedException("${wanted.path} is missing")
            if (file.length() != wanted.size) {
                throw BundleDamagedException("${wanted.path} has ${file.length()} bytes instead of ${wanted.size}")
            }
            if (file.inputStream().use(::sha256) != wanted.sha256) {
                throw BundleDamagedException("${wanted.path}: its SHA-256 is not the one in the manifest")
            }
        }
    }
}

/**
 * What a bundle must be: the SHA-256 of its manifest and of `chat.json`, fixed when the app was packaged, and where a key
 * is pinned, signed with it.
 */
class Pinned(val digest: String, val chatSha256: String, val signer: Signer? = null) {
    companion object {
        /** Of the bundle that this app was packaged with. */
        val packaged: Pinned = Pinned(Packaged.DIGEST, Packaged.CHAT_SHA256, Packaged.SIGNER)
    }
}

internal fun sha256(stream: InputStream): String {
    val digest = MessageDigest.getInstance("SHA-256")
    val buffer = ByteArray(1 shl 16)
    while (true) {
        val count = stream.read(buffer)
        if (count < 0) break
        digest.update(buffer, 0, count)
    }
    return digest.digest().joinToString("") { "%02x".format(it) }
}
