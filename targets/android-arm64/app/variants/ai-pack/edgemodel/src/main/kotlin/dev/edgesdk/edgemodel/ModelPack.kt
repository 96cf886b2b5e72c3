package dev.edgesdk.edgemodel

import android.app.Activity
import android.content.Context
import androidx.activity.result.ActivityResultRegistry
import androidx.activity.result.IntentSenderRequest
import androidx.activity.result.contract.ActivityResultContract
import androidx.activity.result.contract.ActivityResultContracts.StartIntentSenderForResult
import androidx.core.app.ActivityOptionsCompat
import com.google.android.play.core.aipacks.AiPackManagerFactory
import com.google.android.play.core.aipacks.AiPackState
import com.google.android.play.core.aipacks.AiPackStateUpdateListener
import com.google.android.play.core.aipacks.model.AiPackStatus
import java.io.File
import kotlin.coroutines.resume
import kotlin.coroutines.resumeWithException
import kotlinx.coroutines.channels.awaitClose
import kotlinx.coroutines.flow.Flow
import kotlinx.coroutines.flow.callbackFlow
import kotlinx.coroutines.suspendCancellableCoroutine

/** The AI pack with the model, as Google Play delivers it. */
class ModelPack(context: Context) {
    private val manager = AiPackManagerFactory.getInstance(context.applicationContext)

    /** The folder of the pack's assets; null until it was fetched. */
    fun folder(): File? = manager.getPackLocation(Packaged.PACK)?.assetsPath()?.let(::File)

    /** Fetches the pack where that is still to be done, and says how far it is; goes on until it is cancelled. */
    fun fetch(): Flow<PackState> = callbackFlow {
        val listener = AiPackStateUpdateListener { if (it.name() == Packaged.PACK) trySend(stateOf(it)) }
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
        manager.showConfirmationDialog(Asking(activity).launcher)
    }

    private fun stateOf(state: AiPackState): PackState =
        when (state.status()) {
            AiPackStatus.COMPLETED -> PackState.Ready
            AiPackStatus.FAILED, AiPackStatus.CANCELED -> PackState.Failed(state.errorCode())
            AiPackStatus.WAITING_FOR_WIFI, AiPackStatus.REQUIRES_USER_CONFIRMATION -> PackState.NeedsConfirmation
            else -> PackState.Fetching(state.bytesDownloaded(), state.totalBytesToDownload())
        }
}

/** Shows Google Play's question; the answer comes as a state of the pack, so nobody waits for a result. */
private class Asking(private val activity: Activity) : ActivityResultRegistry() {
    val launcher = register("edgemodel", StartIntentSenderForResult()) {}

    override fun <I, O> onLaunch(
        requestCode: Int,
        contract: ActivityResultContract<I, O>,
        input: I,
        options: ActivityOptionsCompat?,
    ) {
        val asked = input as IntentSenderRequest
        activity.startIntentSenderForResult(
            asked.intentSender, requestCode, asked.fillInIntent, asked.flagsMask, asked.flagsValues, 0
        )
    }
}
