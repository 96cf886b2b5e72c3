import BackgroundAssets
import ExtensionFoundation
import StoreKit

/// Lets the system download the model when the app is not running.
@main
struct ModelDownloader: StoreDownloaderExtension {
  func shouldDownload(_ assetPack: AssetPack) -> Bool { true }
}
