package dev.edgesdk.edgemodel

/** How far the pack with the model is. */
sealed class PackState {
    /** It is on its way: [done] of [total] bytes. */
    class Fetching(val done: Long, val total: Long) : PackState()

    /** Google Play waits for Wi-Fi or for the user's word: [ModelPack.confirm] asks. */
    object NeedsConfirmation : PackState()

    /** It is here. */
    object Ready : PackState()

    /** Google Play gave up; [code] is its error, as listed for its `AssetPackErrorCode` or `AiPackErrorCode`. */
    class Failed(val code: Int) : PackState()
}
