import BackgroundAssets
import EdgeModel
import System

/// The model is an asset pack that Apple hosts; the system downloads it with the app, or as soon as it can.
@MainActor
final class ModelSource {
  /// Wait for the files, and open them.
  ///
  /// - Throws: `EdgeModelError.delivery` with the system's reason: no network, no space.
  func folder() async throws -> ModelFolder {
    do {
      let pack = try await AssetPackManager.shared.assetPack(withID: "Model")
      try await AssetPackManager.shared.ensureLocalAvailability(of: pack)
      return try ModelFolder(AssetPackManager.shared.url(for: FilePath("Model")))
    } catch let failure as EdgeModelError {
      throw failure
    } catch {
      throw EdgeModelError.delivery(error.localizedDescription)
    }
  }
}
