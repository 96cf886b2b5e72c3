package dev.edgesdk.edgemodel

import android.app.Activity
import android.content.Context
import java.io.File
import kotlinx.coroutines.flow.Flow
import kotlinx.coroutines.flow.flowOf

/** The model comes with the app's assets: nothing is fetched. */
@Suppress("UNUSED_PARAMETER") // the same shape as with a pack
class ModelPack(context: Context) {
    /** The folder of a pack; there is none. */
    fun folder(): File? = null

    /** How far the pack is. */
    fun fetch(): Flow<PackState> = flowOf(PackState.Ready)

    /** Removes a pack; there is none. */
    suspend fun remove() = Unit

    /** Asks the user for what Google Play waits for. */
    fun confirm(activity: Activity) = Unit
}
