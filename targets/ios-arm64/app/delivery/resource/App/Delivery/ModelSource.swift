import EdgeModel

/// The model comes with the app.
@MainActor
final class ModelSource {
  func folder() async throws -> ModelFolder { try .inResources() }
}
