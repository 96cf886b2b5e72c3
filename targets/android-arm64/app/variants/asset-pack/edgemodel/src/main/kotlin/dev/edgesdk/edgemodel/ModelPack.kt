package dev.edgesdk.edgemodel

import android.app.Activity
import android.content.Context
import com.google.android.play.core.assetpacks.AssetPackManagerFactory
import com.google.android.play.core.assetpacks.AssetPackState
import com.google.android.play.core.assetpacks.AssetPackStateUpdateListener
import com.google.android.play.core.assetpacks.model.AssetPackStatus
import java.io.File
import kotlin.coroutines.resume
import kotlin.coroutines.resumeWithException
import kotlinx.coroutines.channels.awaitClose
import kotlinx.coroutines.flow.Flow
import kotlinx.coroutines.flow.callbackFlow
import kotlinx.coroutines.suspendCancellableCoroutine

/** The asset pack with the model, as Google Play delivers it. */
class ModelPack(context: Context) {
    private val manager = AssetPackManagerFactory.getInstance(context.applicationContext)

    /** The folder of the pack's assets; null until it was fetched. */
    fun folder(): File? = manager.getPackLocation(Packaged.PACK)?.assetsPath()?.let(::File)

    /** Fetches the pack where that is still to be done, and says how far it is; goes on until it is cancelled. */
    fun fetch(): Flow<PackState> = callbackFlow {
        val listener = AssetPackStateUpdateListener { if (it.name() == Packaged.PACK) trySend(stateOf(it)) }
        manager.registerListener(listener)
        manager
            .fetch(listOf(Packaged.PACK))
            .addOnSuccessListener { states -> states.packStates()[Packaged.PACK]?.let { trySend(stateOf(it)) } }
            .addOnFailureListener { close(BundleMissingException("Google Play has no such pack: ${it.message}")) }
        awaitClose { manager.unregisterListener(listener) }
    }

    /** Removes the pack from this device, so that [fetch] brings it anew. */
    suspend fun remove() {
        suspendCancellableCoroutine { done ->
            manager
                .removePack(Packaged.PACK)
                .addOnSuccessListener { done.resume(Unit) }
                .addOnFailureListener {
                    done.resumeWithException(BundleDamagedException("Google Play cannot remove the pack: ${it.message}"))
                }
        }
    }

    /** Asks the user for what Google Play waits for. */
    fun confirm(activity: Activity) {
        manager.showConfirmationDialog(activity)
    }

    private fun stateOf(state: AssetPackState): PackState =
        when (state.status()) {
            AssetPackStatus.COMPLETED -> PackState.Ready
            AssetPackStatus.FAILED, AssetPackStatus.CANCELED -> PackState.Failed(state.errorCode())
            AssetPackStatus.WAITING_FOR_WIFI, AssetPackStatus.REQUIRES_USER_CONFIRMATION -> PackState.NeedsConfirmation
            else -> PackState.Fetching(state.bytesDownloaded(), state.totalBytesToDownload())
        }
}
