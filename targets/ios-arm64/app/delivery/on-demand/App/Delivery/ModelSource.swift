import EdgeModel
import Foundation

/// The model is an on-demand resource with the tag `Model`. The system may delete it when this object is gone.
@MainActor
final class ModelSource {
  private let request = NSBundleResourceRequest(tags: ["Model"])

  var progress: Progress { request.progress }

  /// Download the files where they are not here yet, and open them.
  ///
  /// - Throws: `EdgeModelError.delivery` with the system's reason: no network, no space.
  func folder() async throws -> ModelFolder {
    do {
      try await request.beginAccessingResources()
    } catch {
      throw EdgeModelError.delivery(error.localizedDescription)
    }
    return try .inResources(of: request.bundle)
  }
}
