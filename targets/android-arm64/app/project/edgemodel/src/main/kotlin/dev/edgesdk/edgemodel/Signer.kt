package dev.edgesdk.edgemodel

import java.io.File
import org.json.JSONException
import org.json.JSONObject

/**
 * Whose bundles an app takes.
 *
 * @property key the public key, 64 hexadecimal digits, as `edgesdk keys show` prints it.
 * @property oldest the version that a bundle must have at least.
 */
class Signer(val key: String, val oldest: Long = 1) {
    /** Checks that [folder] holds a signature for this [manifest]; returns its version. */
    internal fun check(folder: File, manifest: String): Long {
        val file = File(folder, FILE)
        if (!file.isFile) throw BundleRefusedException("the model is not signed")
        if (file.length() > LARGEST) throw BundleRefusedException("$FILE is too large for a signature")
        val (signature, version) =
            try {
                val json = JSONObject(file.readText())
                if (json.getString("key") != key) throw BundleRefusedException("the model is signed with another key")
                bytes(json.getString("signature")) to json.getLong("version")
            } catch (failure: JSONException) {
                throw BundleRefusedException("$FILE cannot be read: ${failure.message}")
            }
        val digest = sha256(manifest.byteInputStream())
        val statement = "edgesdk bundle signature 1\nmanifest $digest\nversion $version\n"
        if (!Ed25519.verify(bytes(key), signature, statement.toByteArray())) {
            throw BundleRefusedException("the signature is not of this model: one of them was changed")
        }
        if (version < oldest) throw BundleRefusedException("the model has version $version, older than $oldest")
        return version
    }

    private fun bytes(hexadecimal: String): ByteArray =
        hexadecimal.chunked(2).mapNotNull { it.toIntOrNull(16)?.toByte() }.toByteArray()

    internal companion object {
        const val FILE = "signature.json"
        private const val LARGEST = 1024
    }
}
